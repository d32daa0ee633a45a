//! What global observes of zones: written, taken over from another replica, and forgotten with the zone.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::Drain;
use graticule_store::status::{Group, SharedStatus};
use graticule_store::{Event, Expect, Store, Txn, Write};

use super::Shared;
use crate::net::hub::Observer;

impl Shared {
    /// What all replicas observe.
    pub(super) fn shown_status(&self) -> Arc<dyn Store> {
        let shown = self.deps.shared.as_ref().map(SharedStatus::shown);
        shown.unwrap_or_else(|| self.deps.stores.status.clone())
    }

    /// A zone connected here: what another replica observed of it and of its proxies is observed here from now on.
    pub(super) fn take_over(&self, zone: &str) {
        let Some(shared) = &self.deps.shared else { return };
        let known = shared.shown().snapshot().get(&Key::new(Kind::ZoneInsight, "", zone));
        if let Some(known) = known.as_ref().and_then(|known| known.spec_as()) {
            self.registry.remember(zone, known, self.deps.clock.now());
        }
        shared.claim(&Group::zone(zone), false);
    }

    /// Writes the insights of zones that changed, until the end.
    pub(super) async fn write_insights(&self, drain: &Drain) {
        loop {
            let last = tokio::select! {
                biased;
                () = drain.signaled() => true,
                () = self.registry.urgent() => false,
                () = self.deps.clock.sleep(self.options.insight_flush_interval) => false,
            };
            let writes: Vec<Write> = self
                .registry
                .take_dirty()
                .into_iter()
                .map(|(zone, insight)| {
                    let resource = Box::new(Resource::new(Meta::new("", zone), insight));
                    Write::Put { resource, expect: Expect::Any, touch: false }
                })
                .collect();
            if !writes.is_empty() {
                let txn = Txn { at: Some(self.deps.clock.now()), writes };
                if let Err(error) = self.deps.stores.status.commit(txn).await {
                    tracing::warn!(%error, "cannot store zone insights");
                }
            }
            if last {
                return;
            }
        }
    }
}

#[async_trait]
impl Observer for Shared {
    /// A deleted Zone takes its observations with it, and its streams: the zone comes back as a new one. Tokens are looked at
    /// again when secrets of global change.
    async fn observe(&self, event: &Event) {
        self.observe_decisions(event);
        self.observe_leaders(event);
        let batch = match event {
            Event::Batch(batch) => batch,
            Event::Resync(_) => {
                self.zones_changed.notify_waiters();
                self.forget_missing_zones().await;
                self.registry.recheck(&*self.deps.authenticator);
                return;
            }
        };
        if batch.changes.iter().any(|change| change.key.kind == Kind::Zone) {
            self.zones_changed.notify_waiters();
        }
        // Keys and revocations of zone tokens belong to no mesh.
        if batch.changes.iter().any(|change| change.key.kind == Kind::GlobalSecret) {
            self.registry.recheck(&*self.deps.authenticator);
        }
        let deleted =
            batch.changes.iter().filter(|change| change.key.kind == Kind::Zone && change.new.is_none());
        for zone in deleted.map(|change| change.key.name.as_str()) {
            self.registry.evict(zone);
            self.forget_observations(zone, |of| of == zone).await;
        }
    }
}

impl Shared {
    /// Changes were missed, and Zones may have been deleted among them. What is stored now decides: a zone that was registered
    /// since is there.
    async fn forget_missing_zones(&self) {
        let config = &self.deps.stores.config;
        let exists = |zone: &str| config.snapshot().get(&Key::new(Kind::Zone, "", zone)).is_some();
        for zone in self.registry.registered().into_iter().filter(|zone| !exists(zone)) {
            tracing::info!(zone, "a Zone was deleted while changes were missed");
            self.registry.evict(&zone);
        }
        let known: BTreeSet<String> =
            config.snapshot().list(Kind::Zone, None).map(|zone| zone.meta.name.clone()).collect();
        // One that is not there yet is looked for once more.
        self.forget_observations("", |of| !known.contains(of) && !exists(of)).await;
    }

    /// Removes what was observed of zones.
    async fn forget_observations(&self, zone: &str, is_gone: impl Fn(&str) -> bool) {
        let status = &self.deps.stores.status;
        let writes: Vec<Write> = status
            .snapshot()
            .iter()
            .filter(|resource| match resource.kind() {
                Kind::ZoneInsight => is_gone(&resource.meta.name),
                _ => resource.meta.zone().is_some_and(&is_gone),
            })
            .map(|resource| Write::Delete { key: resource.key(), expect: Expect::Any })
            .collect();
        if writes.is_empty() {
            return;
        }
        let txn = Txn { at: Some(self.deps.clock.now()), writes };
        if let Err(error) = status.commit(txn).await {
            tracing::warn!(%error, zone, "cannot remove the observations of a deleted zone");
        }
    }

    /// Whether the log may say something about a zone now, and how much was left out before.
    pub(super) fn may_say(&self, zone: &str) -> Option<u64> {
        self.registry.may_say(zone, self.deps.clock.monotonic())
    }
}
