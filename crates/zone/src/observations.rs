//! What this replica observes of proxies: connected or not, serving or not. Soft state (DESIGN decision 4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::kinds::dataplane_insight::DataplaneInsight;
use graticule_model::{Key, Kind, Resource};
use graticule_runtime::Drain;
use graticule_store::Event;
use graticule_store::status::{Group, SharedStatus};
use graticule_view::{ProxyId, Serving};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Shared by the tasks of a zone. Cheap to clone.
#[derive(Clone)]
pub struct Observations(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// A consistent copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Proxies with an open stream.
    pub(crate) connected: BTreeSet<ProxyId>,
    /// Proxies with an open stream at another replica.
    pub(crate) elsewhere: BTreeSet<ProxyId>,
    /// What is known of their ability to serve.
    pub(crate) serving: BTreeMap<ProxyId, Serving>,
}

impl Default for Observations {
    fn default() -> Self {
        Observations(Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(0) }))
    }
}

impl Observations {
    /// Changes the state; tells others only if it really changed.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> (bool, T)) -> T {
        let (changed, value) = change(&mut self.0.state.lock());
        if changed {
            self.0.changed.send_modify(|count| *count += 1);
        }
        value
    }

    pub(crate) fn set_connected(&self, proxy: &ProxyId, is_connected: bool) {
        self.update(|state| {
            let changed = if is_connected {
                state.connected.insert(proxy.clone())
            } else {
                state.connected.remove(proxy)
            };
            (changed, ())
        });
    }

    /// Sets what is known; `Unknown` forgets the proxy.
    pub(crate) fn set_serving(&self, proxy: &ProxyId, serving: Serving) {
        self.update(|state| {
            let old = if serving == Serving::Unknown {
                state.serving.remove(proxy)
            } else {
                state.serving.insert(proxy.clone(), serving)
            };
            (old.unwrap_or_default() != serving, ())
        });
    }

    pub(crate) fn serving(&self, proxy: &ProxyId) -> Serving {
        self.0.state.lock().serving.get(proxy).copied().unwrap_or_default()
    }

    pub(crate) fn state(&self) -> State {
        self.0.state.lock().clone()
    }

    /// Keeps what other replicas observe up to date until drained: who is connected there.
    pub async fn follow_others(self, status: SharedStatus, drain: Drain) {
        let (mut feed, own) = (status.shown().watch(None), status.observer());
        let is_there = |resource: &Resource| {
            let owner = status.owner(&Group::proxy(&resource.key()));
            resource.spec_as().is_some_and(DataplaneInsight::is_online)
                && owner.is_some_and(|owner| owner != own)
        };
        let proxy = |key: &Key| ProxyId::new(&*key.mesh, &*key.name);
        while let Some(event) = drain.unless_signaled(feed.next()).await {
            self.update(|state| {
                let mut changed = false;
                match &event {
                    Event::Resync(snapshot) => {
                        let all = snapshot.list(Kind::DataplaneInsight, None).filter(|one| is_there(one));
                        let all = all.map(|one| proxy(&one.key())).collect();
                        changed = state.elsewhere != all;
                        state.elsewhere = all;
                    }
                    Event::Batch(batch) => {
                        for change in &batch.changes {
                            if change.key.kind != Kind::DataplaneInsight {
                                continue;
                            }
                            changed |= if change.new.as_ref().is_some_and(|new| is_there(new)) {
                                state.elsewhere.insert(proxy(&change.key))
                            } else {
                                state.elsewhere.remove(&proxy(&change.key))
                            };
                        }
                    }
                }
                (changed, ())
            });
        }
    }

    /// Fires after each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}
