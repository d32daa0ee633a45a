//! The stores of this control plane, and the catalog that follows their feeds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_model::{Key, Kind, Resource};
use graticule_runtime::Drain;
use graticule_store::{Event, Revision, Snapshot, Store};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::core::{Catalog, Held, Plane};

/// The two stores (DESIGN decision 4).
#[derive(Clone)]
pub struct Stores {
    /// Durable.
    pub config: Arc<dyn Store>,
    /// Observations: insights.
    pub status: Arc<dyn Store>,
}

impl Stores {
    pub(super) fn of(&self, plane: Plane) -> &Arc<dyn Store> {
        match plane {
            Plane::Config => &self.config,
            Plane::Status => &self.status,
        }
    }

    pub(super) fn held(&self) -> Snapshots {
        Snapshots { config: self.config.snapshot(), status: self.status.snapshot() }
    }
}

/// What both stores hold.
pub(super) struct Snapshots {
    config: Snapshot,
    status: Snapshot,
}

impl Snapshots {
    fn of(&self, kind: Kind) -> &Snapshot {
        match Plane::of(kind) {
            Plane::Config => &self.config,
            Plane::Status => &self.status,
        }
    }
}

impl Held for Snapshots {
    fn get(&self, key: &Key) -> Option<Arc<Resource>> {
        Held::get(self.of(key.kind), key)
    }

    fn list(&self, kind: Kind) -> Vec<Arc<Resource>> {
        Held::list(self.of(kind), kind)
    }
}

/// Who else wants to know what changed.
#[async_trait]
pub(super) trait Observer: Sync {
    /// One event, before peers hear of it.
    async fn observe(&self, event: &Event);
}

/// Nobody.
pub(super) struct Nobody;

#[async_trait]
impl Observer for Nobody {
    async fn observe(&self, _event: &Event) {}
}

/// The catalog, shared by all streams; whoever waits on it wakes when it changed.
pub(super) struct Hub {
    catalog: RwLock<Catalog>,
    changed: watch::Sender<()>,
    /// Revision of the config store that the catalog shows.
    shown: watch::Sender<Revision>,
}

impl Hub {
    pub(super) fn new(catalog: Catalog) -> Hub {
        let shown = watch::Sender::new(Revision::default());
        Hub { catalog: RwLock::new(catalog), changed: watch::Sender::new(()), shown }
    }

    pub(super) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read()
    }

    /// What cannot be sent to anybody, with the reason.
    pub(super) fn faults(&self) -> Vec<(Key, String)> {
        self.catalog().faults().map(|(key, reason)| (key.clone(), reason.to_owned())).collect()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until the catalog shows this revision of the config store, or a later one, for at most `limit`; tells whether
    /// it does.
    pub(super) async fn shows(&self, revision: Revision, limit: Duration) -> bool {
        let mut shown = self.shown.subscribe();
        let shows = shown.wait_for(|shown| *shown >= revision);
        tokio::time::timeout(limit, shows).await.is_ok_and(|shows| shows.is_ok())
    }

    /// Follows one store until drained; the observer sees each event first.
    pub(super) async fn follow(
        &self,
        plane: Plane,
        store: &Arc<dyn Store>,
        drain: &Drain,
        observer: &impl Observer,
    ) {
        let mut feed = store.watch(None);
        while let Some(event) = drain.unless_signaled(feed.next()).await {
            observer.observe(&event).await;
            let (is_changed, revision, faults) = {
                let mut catalog = self.catalog.write();
                (catalog.apply(plane, &event), catalog.revision(), catalog.take_fresh_faults())
            };
            for (key, reason) in faults {
                tracing::warn!(resource = %key, reason, "a resource cannot be sent to other control planes");
            }
            if is_changed {
                self.changed.send_replace(());
            }
            if plane == Plane::Config {
                self.shown.send_replace(revision);
            }
        }
    }
}
