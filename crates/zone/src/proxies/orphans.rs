//! Proxies of a replica that is gone. The replica that took over what was observed of them does for them what their own
//! replica would have done after their streams broke.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use graticule_model::{Key, Resource};
use graticule_runtime::Drain;
use graticule_store::status::{Group, Orphan, SharedStatus};
use graticule_store::{Expect, Txn, Write};

use super::{
    CommitError, Dataplane, ProxyId, Serving, TypedSpec as _, ZoneProxies, probe, unready, version_of,
};
use crate::insights::insight_key;
use crate::probe::Reachability;

/// A proxy of a lost replica that came to no other one for this time, and of which nothing is heard, went with its host.
pub(super) const SILENT_FOR: Duration = Duration::from_secs(60);

impl ZoneProxies {
    /// Runs until drained.
    pub async fn look_for_orphans(self, status: SharedStatus, drain: Drain) {
        let mut orphaned = status.orphaned();
        // The claim tells one loss of a proxy from the next.
        let mut known: BTreeMap<Key, u64> = BTreeMap::new();
        loop {
            let orphans = status.orphans();
            let stamps: BTreeMap<&Key, u64> =
                orphans.iter().map(|orphan| (&orphan.key, orphan.claim.stamp)).collect();
            known.retain(|key, stamp| stamps.get(key) == Some(stamp));
            for orphan in orphans {
                if known.insert(orphan.key.clone(), orphan.claim.stamp) != Some(orphan.claim.stamp) {
                    let proxy = ProxyId::new(&*orphan.key.mesh, &*orphan.key.name);
                    let see_off = self.clone().see_off_orphan(proxy.clone(), orphan, status.clone());
                    self.0.spawner.best_effort(format!("see off {proxy} of another replica"), see_off);
                }
            }
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                changed = orphaned.changed() => if changed.is_err() { return },
            }
        }
    }

    /// As [`see_off`](Self::see_off), for a proxy that another replica had. One that still listens may only not have found
    /// its way to another replica: it keeps its Dataplane as long as it does.
    async fn see_off_orphan(self, proxy: ProxyId, orphan: Orphan, status: SharedStatus) {
        let shared = &self.0;
        if !orphan.claim.brought {
            return;
        }
        let mut version = 0;
        if let Some(stored) = self.dataplane(&proxy) {
            version = stored.meta.version;
            if probe::is_gone(&addresses(&stored)).await {
                tracing::info!(%proxy, "its replica is gone and its ports refuse connections: no endpoint any more");
                version = self.withdraw_orphan(&proxy, version).await.unwrap_or(version);
            }
        }
        let mut silent_since = None;
        loop {
            shared.clock.sleep(shared.settings.deregistration_delay).await;
            let is_mine =
                status.orphans().iter().any(|one| one.claim == orphan.claim && one.key == orphan.key);
            if !is_mine {
                return;
            }
            let Some(stored) = self.dataplane(&proxy) else {
                return self.forget_orphan(&proxy, &status).await;
            };
            let now = shared.clock.monotonic();
            let is_over = match probe::look_at_all(&addresses(&stored)).await {
                Some(Reachability::Refused) => true,
                // Behind a transparent proxy there is nothing to ask.
                Some(Reachability::Silent) | None => {
                    now.saturating_sub(*silent_since.get_or_insert(now)) >= SILENT_FOR
                }
                Some(Reachability::Listening) => {
                    silent_since = None;
                    false
                }
            };
            if !is_over {
                continue;
            }
            match self.remove_orphan(&proxy, &orphan, version, &status).await {
                Ok(()) => return,
                Err(CommitError::Conflict { .. }) => {
                    // Written since, by this replica or somebody else: looked at once more.
                    version = stored_version(self.dataplane(&proxy).as_deref());
                }
                Err(error) => {
                    tracing::warn!(%proxy, %error, "Dataplane of a replica that is gone cannot be removed; tried again");
                }
            }
        }
    }

    /// Removes the Dataplane at this version, unless its proxy has come back.
    async fn remove_orphan(
        &self,
        proxy: &ProxyId,
        orphan: &Orphan,
        version: u64,
        status: &SharedStatus,
    ) -> Result<(), CommitError> {
        let shared = &self.0;
        let _gate = self.gate(proxy).await;
        if status.is_live(&Group::proxy(&orphan.key)) || shared.registrations.lock().contains_key(proxy) {
            return Ok(());
        }
        let delete = Txn::default().and_delete(proxy.key(), Expect::Version(version));
        match shared.store.commit(Txn { at: Some(shared.clock.now()), ..delete }).await {
            Ok(_) => {
                tracing::info!(%proxy, "its replica is gone and it did not come back: Dataplane removed");
            }
            Err(CommitError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        self.forget_orphan(proxy, status).await;
        Ok(())
    }

    /// Tells all replicas that a proxy takes no traffic; gives the new version of its Dataplane.
    async fn withdraw_orphan(&self, proxy: &ProxyId, version: u64) -> Option<u64> {
        let stored = self.dataplane(proxy).filter(|stored| stored.meta.version == version)?;
        let mut resource = (*stored).clone();
        let mut spec = resource.spec_as::<Dataplane>()?.clone();
        if !unready(&mut spec) {
            return None;
        }
        resource.spec = spec.wrap();
        let txn = Txn::default().and_put(resource, Expect::Version(version));
        let committed = self.0.store.commit(Txn { at: Some(self.0.clock.now()), ..txn }).await.ok()?;
        version_of(&committed, &proxy.key())
    }

    async fn forget_orphan(&self, proxy: &ProxyId, status: &SharedStatus) {
        self.0.observations.set_serving(proxy, Serving::Unknown);
        let writes = vec![Write::Delete { key: insight_key(proxy), expect: Expect::Any }];
        // Without expectations nothing can be in the way.
        let _committed = status.own().commit(Txn { at: Some(self.0.clock.now()), writes }).await;
    }
}

fn stored_version(stored: Option<&Resource>) -> u64 {
    stored.map_or(0, |stored| stored.meta.version)
}

fn addresses(stored: &Resource) -> Vec<SocketAddr> {
    stored.spec_as::<Dataplane>().map(|spec| probe::addresses(spec.networking())).unwrap_or_default()
}
