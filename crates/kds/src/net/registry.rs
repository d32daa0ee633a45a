//! The connections of all zones: which stream is the newest, what zones hold and refuse, their insights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::kinds::zone::{KdsStats, ZoneInsight};
use graticule_model::{Kind, Timestamp};
use graticule_proto::discovery::Node;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::{Side, Sink, StreamKind, ZoneStatus};

/// What is wrong between global and one zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneReport {
    /// What the zone refused: kind, wire name, reason.
    pub refused_by_zone: Vec<(Kind, String, String)>,
    /// What global refused of the zone's: kind, wire name, reason.
    pub refused_by_global: Vec<(Kind, String, String)>,
    /// What cannot be sent to it: wire name or kind, reason.
    pub unsendable: Vec<(String, String)>,
}

pub(super) struct Registry {
    instance_id: String,
    subscriptions_max: usize,
    zones: Mutex<Zones>,
    changed: Notify,
}

#[derive(Default)]
struct Zones {
    by_name: BTreeMap<String, Entry>,
    dirty: BTreeSet<String>,
    next_stream: u64,
}

struct Entry {
    status: ZoneStatus,
    streams: BTreeMap<StreamKind, (u64, CancellationToken)>,
    /// At rest between streams.
    sink: Option<Sink>,
    report: ZoneReport,
}

/// One open stream; closes itself when dropped.
pub(super) struct OpenStream {
    registry: Arc<Registry>,
    pub(super) zone: String,
    kind: StreamKind,
    number: u64,
    /// Told when a newer stream takes over, or the Zone is deleted.
    pub(super) superseded: CancellationToken,
}

impl Registry {
    pub(super) fn new(instance_id: &str, subscriptions_max: usize) -> Registry {
        Registry {
            instance_id: instance_id.into(),
            subscriptions_max,
            zones: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Changes a zone that connected before; one that was evicted meanwhile stays forgotten.
    fn update(&self, zone: &str, urgent: bool, change: impl FnOnce(&mut Entry)) {
        let mut zones = self.zones.lock();
        let Some(entry) = zones.by_name.get_mut(zone) else { return };
        change(entry);
        zones.dirty.insert(zone.to_owned());
        drop(zones);
        if urgent {
            self.changed.notify_one();
        }
    }

    /// Opens a stream; the one of the same kind that was open before ends.
    pub(super) fn open(self: &Arc<Self>, zone: &str, kind: StreamKind, at: Timestamp) -> OpenStream {
        let superseded = CancellationToken::new();
        let number = {
            let mut zones = self.zones.lock();
            zones.next_stream += 1;
            zones.by_name.entry(zone.to_owned()).or_insert_with(|| Entry {
                status: ZoneStatus::new(&self.instance_id, self.subscriptions_max),
                streams: BTreeMap::new(),
                sink: None,
                report: ZoneReport::default(),
            });
            zones.next_stream
        };
        self.update(zone, true, |entry| {
            entry.status.stream_opened(kind, at);
            if let Some((_, older)) = entry.streams.insert(kind, (number, superseded.clone())) {
                older.cancel();
            }
        });
        OpenStream { registry: self.clone(), zone: zone.into(), kind, number, superseded }
    }

    /// Ends all streams of a zone.
    pub(super) fn evict(&self, zone: &str) {
        let mut zones = self.zones.lock();
        if let Some(entry) = zones.by_name.remove(zone) {
            for (_, token) in entry.streams.into_values() {
                token.cancel();
            }
        }
        zones.dirty.remove(zone);
    }

    pub(super) fn subscribed(&self, zone: &str, id: String, at: Timestamp, token_provided: bool) {
        self.update(zone, true, |entry| entry.status.subscribed(id, at, token_provided));
    }

    pub(super) fn described(&self, zone: &str, id: &str, node: &Node) {
        self.update(zone, true, |entry| entry.status.described(id, node));
    }

    pub(super) fn unsubscribed(&self, zone: &str, id: &str, at: Timestamp) {
        self.update(zone, true, |entry| entry.status.unsubscribed(id, at));
    }

    pub(super) fn counted(
        &self,
        zone: &str,
        id: &str,
        type_url: &str,
        at: Timestamp,
        count: impl Fn(&mut KdsStats),
    ) {
        self.update(zone, false, |entry| entry.status.counted(id, type_url, at, count));
    }

    pub(super) fn health_checked(&self, zone: &str, at: Timestamp) {
        self.update(zone, false, |entry| entry.status.health_checked(at));
    }

    pub(super) fn report(&self, zone: &str) -> Option<ZoneReport> {
        self.zones.lock().by_name.get(zone).map(|entry| entry.report.clone())
    }

    pub(super) fn set_report(&self, zone: &str, change: impl FnOnce(&mut ZoneReport)) {
        if let Some(entry) = self.zones.lock().by_name.get_mut(zone) {
            change(&mut entry.report);
        }
    }

    /// The zone's sink, with what it remembers; a fresh one when an older stream still holds it.
    pub(super) fn take_sink(&self, zone: &str) -> Sink {
        let kept = self.zones.lock().by_name.get_mut(zone).and_then(|entry| entry.sink.take());
        kept.unwrap_or_else(|| Sink::new(Side::Global { zone: zone.into() }, true))
    }

    pub(super) fn keep_sink(&self, zone: &str, sink: Sink) {
        if let Some(entry) = self.zones.lock().by_name.get_mut(zone) {
            entry.sink = Some(sink);
        }
    }

    pub(super) fn online(&self) -> Vec<String> {
        let zones = self.zones.lock();
        let online = zones.by_name.iter().filter(|(_, entry)| entry.status.insight().is_online());
        online.map(|(zone, _)| zone.clone()).collect()
    }

    /// Waits for something that should be written at once.
    pub(super) async fn urgent(&self) {
        self.changed.notified().await;
    }

    /// Insights that changed since the last call.
    pub(super) fn take_dirty(&self) -> Vec<(String, ZoneInsight)> {
        let mut zones = self.zones.lock();
        let dirty = std::mem::take(&mut zones.dirty);
        let changed = dirty.into_iter().filter_map(|zone| {
            let insight = zones.by_name.get(&zone)?.status.insight().clone();
            Some((zone, insight))
        });
        changed.collect()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut zones = self.registry.zones.lock();
        if let Some(entry) = zones.by_name.get_mut(&self.zone)
            && entry.streams.get(&self.kind).is_some_and(|(number, _)| *number == self.number)
        {
            entry.streams.remove(&self.kind);
        }
    }
}
