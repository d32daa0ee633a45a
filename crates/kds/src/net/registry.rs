//! The connections of all zones: which stream is the newest, what zones hold and refuse, their insights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use graticule_model::Timestamp;
use graticule_model::kinds::zone::{KdsStats, ZoneInsight};
use graticule_proto::discovery::Node;
use graticule_runtime::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

use crate::core::{
    Claimant, Conflict, DeletionProtection, Holding, PeerState, Side, Sink, StreamKind, Tenure, Verdict,
    ZoneStatus,
};

/// What is known about a zone beyond its insight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneReport {
    /// What its streams told.
    pub peer: PeerState,
    /// Another control plane that was refused because it calls itself like this zone.
    pub conflict: Option<Conflict>,
}

pub(super) struct Registry {
    instance_id: String,
    subscriptions_max: usize,
    zones: Mutex<Zones>,
    changed: Notify,
    /// Told when a stream ends.
    released: Notify,
    /// Monotonic: how long names have been watched.
    since: Duration,
    reserved_for: Duration,
    protection: DeletionProtection,
    message_len_max: usize,
}

#[derive(Default)]
struct Zones {
    by_name: BTreeMap<String, Entry>,
    dirty: BTreeSet<String>,
    next_stream: u64,
}

struct Entry {
    status: ZoneStatus,
    streams: BTreeMap<StreamKind, Stream>,
    tenure: Tenure,
    /// At rest between streams.
    sink: Option<Sink>,
    report: ZoneReport,
    /// An operator gave up what is held back.
    accepted: Option<Accepted>,
}

/// An operator's decision; about the control plane that had the name then, and no other one.
struct Accepted {
    identity: Option<String>,
}

struct Stream {
    number: u64,
    superseded: CancellationToken,
    renewed: CancellationToken,
    by: Claimant,
}

/// Who asks for a stream, and what is known about the name beyond this process.
pub(super) struct Asking<'a> {
    pub(super) zone: &'a str,
    pub(super) kind: StreamKind,
    pub(super) claimant: &'a Claimant,
    /// Identity that the store keeps for the name.
    pub(super) bound: Option<String>,
    /// The other replica of global where the name is connected.
    pub(super) elsewhere: Option<&'a str>,
    pub(super) at: Timestamp,
    /// Monotonic.
    pub(super) now: Duration,
}

/// One open stream; closes itself when dropped.
pub(super) struct OpenStream {
    registry: Arc<Registry>,
    pub(super) zone: String,
    kind: StreamKind,
    number: u64,
    /// Told when a newer stream takes over, or the Zone is deleted.
    pub(super) superseded: CancellationToken,
    /// Told when the zone has to open it again.
    pub(super) renewed: CancellationToken,
    clock: Clock,
}

impl Registry {
    pub(super) fn new(
        instance_id: &str,
        subscriptions_max: usize,
        since: Duration,
        reserved_for: Duration,
        protection: DeletionProtection,
        message_len_max: usize,
    ) -> Registry {
        Registry {
            instance_id: instance_id.into(),
            subscriptions_max,
            zones: Mutex::default(),
            changed: Notify::new(),
            released: Notify::new(),
            since,
            reserved_for,
            protection,
            message_len_max,
        }
    }

    /// Waits for the end of any stream, from when it is first polled (or enabled) on.
    pub(super) fn released(&self) -> Notified<'_> {
        self.released.notified()
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

    /// Opens a stream, if the name is free for who asks; then older streams of the same kind, and all of other
    /// claimants, end.
    pub(super) fn open(self: &Arc<Self>, asking: &Asking<'_>, clock: &Clock) -> Result<OpenStream, Verdict> {
        let Asking { zone, kind, claimant, .. } = *asking;
        let (superseded, renewed) = (CancellationToken::new(), CancellationToken::new());
        let mut zones = self.zones.lock();
        zones.next_stream += 1;
        let number = zones.next_stream;
        let entry = zones.by_name.entry(zone.to_owned()).or_insert_with(|| Entry {
            status: ZoneStatus::new(&self.instance_id, self.subscriptions_max),
            streams: BTreeMap::new(),
            tenure: Tenure::new(self.since, self.reserved_for),
            sink: None,
            report: ZoneReport::default(),
            accepted: None,
        });
        if entry.streams.is_empty() {
            // Another replica may have given the name to somebody else.
            entry.tenure.identity.clone_from(&asking.bound);
        }
        if asking.elsewhere.is_some() {
            entry.tenure.away_since = asking.now;
        }
        let open =
            entry.streams.iter().map(|(other, stream)| Holding { by: &stream.by, same_kind: *other == kind });
        match entry.tenure.judge(claimant, open, asking.elsewhere, asking.now) {
            Verdict::Admitted => {}
            verdict => {
                entry.tenure.refused(claimant, asking.now);
                return Err(verdict);
            }
        }
        let is_other_process =
            |by: &Claimant| claimant.identity.is_some() && by.instance != claimant.instance;
        let is_older = |other: &StreamKind, stream: &Stream| {
            *other == kind || stream.by.identity != claimant.identity || is_other_process(&stream.by)
        };
        let older: Vec<StreamKind> = entry
            .streams
            .iter()
            .filter(|(other, stream)| is_older(other, stream))
            .map(|(other, _)| *other)
            .collect();
        let older: Vec<Stream> = older.into_iter().filter_map(|other| entry.streams.remove(&other)).collect();
        entry.tenure.admitted(claimant, older.iter().map(|stream| &stream.by), asking.now);
        entry.streams.insert(
            kind,
            Stream { number, superseded: superseded.clone(), renewed: renewed.clone(), by: claimant.clone() },
        );
        entry.status.stream_opened(kind, asking.at);
        zones.dirty.insert(zone.to_owned());
        drop(zones);
        for stream in older {
            stream.superseded.cancel();
        }
        self.changed.notify_one();
        Ok(OpenStream {
            registry: self.clone(),
            zone: zone.into(),
            kind,
            number,
            superseded,
            renewed,
            clock: clock.clone(),
        })
    }

    /// Somebody was refused because of the name.
    pub(super) fn note_conflict(&self, zone: &str, claimant: &Claimant, reason: &str, at: Timestamp) {
        self.set_report(zone, |report| {
            let same = |conflict: &&mut Conflict| {
                conflict.address == claimant.address && conflict.instance == claimant.instance
            };
            match report.conflict.as_mut().filter(same) {
                Some(conflict) => {
                    conflict.reason = reason.into();
                    conflict.last = at;
                }
                None => {
                    report.conflict = Some(Conflict {
                        address: claimant.address.clone(),
                        instance: claimant.instance.clone(),
                        reason: reason.into(),
                        since: at,
                        last: at,
                    });
                }
            }
        });
    }

    /// Whoever was refused has the name now.
    pub(super) fn settle_conflict(&self, zone: &str, claimant: &Claimant) {
        self.set_report(zone, |report| {
            let is_settled = |conflict: &Conflict| {
                conflict.address == claimant.address && conflict.instance == claimant.instance
            };
            if report.conflict.as_ref().is_some_and(is_settled) {
                report.conflict = None;
            }
        });
    }

    /// Whether this stream of the zone is open here.
    pub(super) fn has_stream(&self, zone: &str, kind: StreamKind) -> bool {
        self.zones.lock().by_name.get(zone).is_some_and(|entry| entry.streams.contains_key(&kind))
    }

    /// Whether this caller holds the name.
    pub(super) fn is_held_by(&self, zone: &str, claimant: &Claimant) -> bool {
        let zones = self.zones.lock();
        let streams = zones.by_name.get(zone).map(|entry| &entry.streams);
        streams.is_none_or(|streams| streams.values().all(|stream| stream.by.identity == claimant.identity))
    }

    /// What another replica knew of a zone that comes here.
    pub(super) fn remember(&self, zone: &str, known: &ZoneInsight, at: Timestamp) {
        self.update(zone, false, |entry| entry.status.remember(known, at));
    }

    /// Ends all streams of a zone.
    pub(super) fn evict(&self, zone: &str) {
        let mut zones = self.zones.lock();
        if let Some(entry) = zones.by_name.remove(zone) {
            for stream in entry.streams.into_values() {
                stream.superseded.cancel();
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

    /// An operator gives up what is held back of a zone. The zone reconnects, and then it goes. `None`: it is not connected
    /// here.
    pub(super) fn accept_deletions(&self, zone: &str) -> Option<usize> {
        let mut zones = self.zones.lock();
        let entry = zones.by_name.get_mut(zone)?;
        let stream = entry.streams.get(&StreamKind::ZoneToGlobal)?;
        stream.renewed.cancel();
        entry.accepted = Some(Accepted { identity: stream.by.identity.clone() });
        Some(entry.report.peer.held_back.len())
    }

    /// Whether an operator decided about this control plane since the last call. A decision about another one is void: it
    /// may have been to another replica meanwhile, and have lost its disk once more.
    pub(super) fn take_decision(&self, zone: &str, claimant: &Claimant) -> bool {
        let mut zones = self.zones.lock();
        let accepted = zones.by_name.get_mut(zone).and_then(|entry| entry.accepted.take());
        accepted.is_some_and(|accepted| accepted.identity == claimant.identity)
    }

    /// The insight, as it is now.
    pub(super) fn insight(&self, zone: &str) -> Option<ZoneInsight> {
        self.zones.lock().by_name.get(zone).map(|entry| entry.status.insight().clone())
    }

    /// The zone's sink, with what it remembers; a fresh one when an older stream still holds it.
    pub(super) fn take_sink(&self, zone: &str) -> Sink {
        let kept = self.zones.lock().by_name.get_mut(zone).and_then(|entry| entry.sink.take());
        kept.unwrap_or_else(|| {
            let mut sink = Sink::new(Side::Global { zone: zone.into() }, true);
            sink.protect(self.protection);
            sink.fit_into(self.message_len_max);
            sink
        })
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
            && entry.streams.get(&self.kind).is_some_and(|stream| stream.number == self.number)
        {
            entry.streams.remove(&self.kind);
            entry.tenure.away_since = self.clock.monotonic();
        }
        drop(zones);
        self.registry.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(registry: &Arc<Registry>, identity: &str) -> (OpenStream, Claimant) {
        let claimant = Claimant { identity: Some(identity.into()), ..Claimant::default() };
        let asking = Asking {
            zone: "east",
            kind: StreamKind::ZoneToGlobal,
            claimant: &claimant,
            bound: Some(identity.into()),
            elsewhere: None,
            at: Timestamp::UNIX_EPOCH,
            now: Duration::ZERO,
        };
        let clock = Clock::manual(Timestamp::UNIX_EPOCH).0;
        (registry.open(&asking, &clock).expect("the name is free"), claimant)
    }

    #[test]
    fn a_decision_is_about_whom_it_was_made_about() {
        let protection = DeletionProtection::default();
        let registry =
            Arc::new(Registry::new("global-1", 10, Duration::ZERO, Duration::ZERO, protection, 1 << 20));
        let (stream, first) = open(&registry, "a");
        assert_eq!(registry.accept_deletions("east"), Some(0));
        drop(stream);
        // It went to another replica, lost its disk there, and comes back.
        let (_stream, second) = open(&registry, "b");
        assert!(!registry.take_decision("east", &second));
        assert!(!registry.take_decision("east", &first), "it is void");
        assert_eq!(registry.accept_deletions("east"), Some(0));
        assert!(registry.take_decision("east", &second));
        assert!(!registry.take_decision("east", &second), "once");
    }
}
