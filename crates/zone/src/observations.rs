//! What this replica observes of proxies: connected or not, serving or not. Soft state (DESIGN decision 4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

    /// Fires after each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}
