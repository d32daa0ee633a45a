//! The state of the connection to global, and what an operator decides about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graticule_model::Timestamp;
use graticule_store::Revision;
use tokio::sync::{Notify, watch};

use super::super::hub::{Hub, Stores};
use super::super::intake::recorded;
use crate::core::{Heartbeat, PeerReport, PeerState, Side, Sink};

/// State of the connection to global.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Since when; `None` = not connected.
    pub connected_since: Option<Timestamp>,
    /// Every kind was brought up to date over this connection.
    pub synced: bool,
    /// The zone has left its global: nobody connects any more.
    pub left: bool,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// What its streams told.
    pub peer: PeerState,
    /// What global said last about revisions.
    pub global_revision: Option<Heartbeat>,
    /// Revision of global that was taken over this connection.
    pub taken: Option<Revision>,
}

/// The zone's connection to global, for those who ask about it. Cheap to clone; outlives the terms of leaders.
#[derive(Clone, Default)]
pub struct FederationLink(pub(super) Arc<LinkShared>);

#[derive(Default)]
pub(super) struct LinkShared {
    pub(super) link: watch::Sender<Link>,
    /// What the zone offers; present while this replica leads.
    pub(super) hub: parking_lot::Mutex<Option<Arc<Hub>>>,
    /// An operator gave up what is held back.
    pub(super) decided: AtomicBool,
    pub(super) decision: Notify,
}

impl FederationLink {
    /// All that is known about the connection of this zone.
    pub fn report(&self, zone: &str, stores: &Stores) -> PeerReport {
        let mut link = self.0.link.borrow().clone();
        let hub = self.0.hub.lock().clone();
        link.peer.unoffered = hub.as_ref().map(|hub| hub.faults()).unwrap_or_default();
        let elsewhere =
            || "another replica of this zone leads: it is the one that is connected to global".to_owned();
        let (quarantine, quarantine_total) = link.peer.quarantine();
        let held = stores.held();
        let mut sink = Sink::new(Side::Zone, true);
        sink.set_meshes(link.peer.meshes.clone());
        let head = hub.as_ref().map_or(0, |hub| hub.catalog().head());
        PeerReport {
            zone: zone.into(),
            reporter: "zone",
            online: link.connected_since.is_some(),
            synced: Some(link.synced),
            connected_since: link.connected_since,
            last_error: if hub.is_some() { link.last_error } else { Some(elsewhere()) },
            instances: Vec::new(),
            revision: hub.is_some().then(|| link.peer.revisions(stores.config.snapshot().revision(), head)),
            meshes: link.peer.meshes.names().map(str::to_owned).collect(),
            kinds: link.peer.kinds(sink.holds(&held)),
            quarantine,
            quarantine_total,
            protection: link.peer.protection(zone),
            global_revision: link.global_revision,
            usage: None,
            global_revision_taken: link.taken.or_else(|| recorded(stores)).map(|revision| revision.0),
            conflict: None,
        }
    }

    /// Whether this replica is the one that connects to global.
    pub fn leads(&self) -> bool {
        self.0.hub.lock().is_some()
    }

    /// Whether the zone has left its global, so that no connection is missing.
    pub fn has_left(&self) -> bool {
        self.0.link.borrow().left
    }

    /// An operator gives up what is held back, and agrees to the global that the zone is connected to: the zone connects
    /// again, and then it goes. Tells how many copies were held back; `None`: another replica is connected.
    pub fn accept_deletions(&self) -> Option<usize> {
        self.0.hub.lock().as_ref()?;
        self.0.decided.store(true, Ordering::Release);
        self.0.decision.notify_one();
        Some(self.0.link.borrow().peer.held_back.len())
    }

    /// Whether an operator decided something that no stream has begun with yet.
    pub(super) fn is_decided(&self) -> bool {
        self.0.decided.load(Ordering::Acquire)
    }

    pub(super) fn take_decision(&self) -> bool {
        self.0.decided.swap(false, Ordering::AcqRel)
    }
}

/// This replica leads, until dropped.
pub(super) struct Leading<'a>(pub(super) &'a FederationLink);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        *self.0.0.hub.lock() = None;
        self.0.0.link.send_replace(Link::default());
    }
}
