//! Proxies of a replica that is gone. The replica that took over what was observed of them does for them what their own
//! replica would have done after their streams broke.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use graticule_model::{Key, Resource};
use graticule_runtime::Drain;
use graticule_store::status::{Group, Orphan, SharedStatus};
use graticule_store::{Expect, Txn, Write};

use super::{
    CommitError, Dataplane, ProxyId, Serving, TypedSpec as _, ZoneProxies, probe, unready, version_of,
};
use crate::insights::insight_key;

impl ZoneProxies {
    /// Runs until drained.
    pub async fn look_for_orphans(self, status: SharedStatus, drain: Drain) {
        let mut orphaned = status.orphaned();
        // The claim tells one loss of a proxy from the next.
        let mut known: BTreeMap<Key, u64> = BTreeMap::new();
        loop {
            let orphans = status.orphans();
            known.retain(|key, stamp| {
                orphans.iter().any(|orphan| orphan.key == *key && orphan.claim.stamp == *stamp)
            });
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
        let mut version = 0;
        if orphan.claim.brought
            && let Some(stored) = self.dataplane(&proxy)
        {
            version = stored.meta.version;
            if probe::is_gone(&addresses(&stored)).await {
                tracing::info!(%proxy, "its replica is gone and its ports refuse connections: no endpoint any more");
                version = self.withdraw_orphan(&proxy, version).await.unwrap_or(version);
            }
        }
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
            if orphan.claim.brought && !probe::is_listening(&addresses(&stored)).await {
                break;
            }
        }
        let _gate = self.gate(&proxy).await;
        if status.is_live(&Group::proxy(&orphan.key)) || shared.registrations.lock().contains_key(&proxy) {
            return;
        }
        let delete = Txn::default().and_delete(proxy.key(), Expect::Version(version));
        match shared.store.commit(Txn { at: Some(shared.clock.now()), ..delete }).await {
            Ok(_) => {
                tracing::info!(%proxy, "its replica is gone and it did not come back: Dataplane removed");
                self.forget_orphan(&proxy, &status).await;
            }
            Err(CommitError::NotFound(_)) => self.forget_orphan(&proxy, &status).await,
            Err(CommitError::Conflict { .. }) => {
                tracing::info!(%proxy, "was written by somebody else since its replica is gone: Dataplane stays");
            }
            Err(error) => {
                tracing::warn!(%proxy, %error, "Dataplane of a replica that is gone cannot be removed")
            }
        }
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

fn addresses(stored: &Resource) -> Vec<SocketAddr> {
    stored.spec_as::<Dataplane>().map(|spec| probe::addresses(spec.networking())).unwrap_or_default()
}
