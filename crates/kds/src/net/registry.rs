//! The connections of all zones: which stream is the newest, what zones hold and refuse, their insights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use graticule_model::kinds::zone::{KdsStats, ZoneInsight};
use graticule_model::{Kind, Timestamp};
use graticule_proto::discovery::Node;
use graticule_runtime::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::bucket::Bucket;
use super::global::{ZoneAuthenticator, ZoneGrant};

use crate::core::{
    Claimant, Conflict, DeletionProtection, Elsewhere, Holding, PeerState, Side, Sink, StreamKind, Tenure,
    Verdict, ZoneLeader, ZoneLimit, ZoneStatus,
};

/// What is known about a zone beyond its insight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneReport {
    /// What its streams told.
    pub peer: PeerState,
    /// Another control plane that was refused lately because it calls itself like this zone.
    pub conflict: Option<Conflict>,
}

/// A control plane that was refused is shown for this time after its last attempt: until then one that still wants the name
/// has asked for it twice more. Ours ask again after 10 s, stock ones after a minute at most, and each attempt takes up to 11 s.
const CONFLICT_SHOWN_FOR: Duration = Duration::from_secs(150);

pub(super) struct Registry {
    instance_id: String,
    subscriptions_max: usize,
    /// Held for look-ups only: what takes time happens under the lock of one zone.
    zones: Mutex<BTreeMap<String, Arc<Mutex<Entry>>>>,
    dirty: Mutex<BTreeSet<String>>,
    next_stream: AtomicU64,
    changed: Notify,
    /// Told when a stream ends.
    released: Notify,
    /// Monotonic: how long names have been watched.
    since: Duration,
    reserved_for: Duration,
    protection: DeletionProtection,
    message_len_max: usize,
    limit: ZoneLimit,
}

struct Entry {
    status: ZoneStatus,
    streams: BTreeMap<StreamKind, Stream>,
    tenure: Tenure,
    /// At rest between streams.
    sink: Option<Sink>,
    report: ZoneReport,
    /// When somebody was refused because of the name last; monotonic.
    refused_at: Duration,
    /// What the log says about the zone.
    said: Bucket,
    /// Another entry took its place, or will.
    is_evicted: bool,
}

impl Entry {
    /// Who was refused because of the name, while it still asks for it. `now` is monotonic.
    fn conflict(&self, now: Duration) -> Option<&Conflict> {
        let is_recent = now.saturating_sub(self.refused_at) < CONFLICT_SHOWN_FOR;
        self.report.conflict.as_ref().filter(|_| is_recent)
    }
}

struct Stream {
    number: u64,
    ending: Arc<Ending>,
    grant: Option<ZoneGrant>,
    by: Claimant,
    began: Began,
}

/// Which decision of an operator a stream began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Began {
    /// It has not looked yet: what is decided by now it will see.
    NotYet,
    /// None, or it carried it out since.
    Undecided,
    /// That of this version.
    Decided(u64),
}

/// Ends a stream from outside of it, with a reason; the first one counts.
#[derive(Debug, Default)]
pub(super) struct Ending {
    status: OnceLock<Status>,
    told: CancellationToken,
}

impl Ending {
    pub(super) fn end(&self, status: Status) {
        self.status.get_or_init(|| status);
        self.told.cancel();
    }

    /// Waits until the stream has to end; says why. Cancel-safe.
    pub(super) async fn told(&self) -> Status {
        self.told.cancelled().await;
        self.status.get().cloned().unwrap_or_else(|| Status::cancelled("ended by global"))
    }
}

fn superseded() -> Status {
    Status::cancelled("a newer stream of this zone took over")
}

/// Another process of the zone leads it now.
pub(super) fn took_over(leader: &str) -> Status {
    Status::cancelled(format!("control plane {leader} took over for this zone, at another replica"))
}

/// Who asks for a stream, and what is known about the name beyond this process.
pub(super) struct Asking<'a> {
    pub(super) zone: &'a str,
    pub(super) kind: StreamKind,
    pub(super) claimant: &'a Claimant,
    /// What lets it in.
    pub(super) grant: Option<&'a ZoneGrant>,
    /// Identity that the store keeps for the name.
    pub(super) bound: Option<String>,
    /// The other replica of global where the name is connected.
    pub(super) elsewhere: Option<&'a Elsewhere>,
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
    /// Told when a newer stream takes over, the Zone is deleted, its token is no longer good, or the zone has to open the
    /// stream again.
    pub(super) ending: Arc<Ending>,
    /// Told when it is closed.
    pub(super) closed: CancellationToken,
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
        limit: ZoneLimit,
    ) -> Registry {
        Registry {
            instance_id: instance_id.into(),
            subscriptions_max,
            zones: Mutex::default(),
            dirty: Mutex::default(),
            next_stream: AtomicU64::new(0),
            changed: Notify::new(),
            released: Notify::new(),
            since,
            reserved_for,
            protection,
            message_len_max,
            limit,
        }
    }

    /// Waits for the end of any stream, from when it is first polled (or enabled) on.
    pub(super) fn released(&self) -> Notified<'_> {
        self.released.notified()
    }

    /// Does something with a zone that connected before; one that was evicted meanwhile stays forgotten.
    fn with<T>(&self, zone: &str, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.zones.lock().get(zone).cloned()?;
        let mut entry = entry.lock();
        (!entry.is_evicted).then(|| act(&mut entry))
    }

    /// All zones that connected before.
    fn all(&self) -> Vec<(String, Arc<Mutex<Entry>>)> {
        self.zones.lock().iter().map(|(zone, entry)| (zone.clone(), entry.clone())).collect()
    }

    /// Changes the insight of a zone.
    fn update(&self, zone: &str, urgent: bool, change: impl FnOnce(&mut Entry)) {
        if self.with(zone, change).is_none() {
            return;
        }
        self.dirty.lock().insert(zone.to_owned());
        if urgent {
            self.changed.notify_one();
        }
    }

    fn entry_for(&self, zone: &str) -> Arc<Mutex<Entry>> {
        let mut zones = self.zones.lock();
        let entry = zones.entry(zone.to_owned()).or_insert_with(|| {
            Arc::new(Mutex::new(Entry {
                status: ZoneStatus::new(&self.instance_id, self.subscriptions_max),
                streams: BTreeMap::new(),
                tenure: Tenure::new(self.since, self.reserved_for),
                sink: None,
                report: ZoneReport::default(),
                refused_at: Duration::ZERO,
                said: Bucket::of_zone(),
                is_evicted: false,
            }))
        });
        entry.clone()
    }

    /// Opens a stream, if the name is free for who asks; then older streams of the same kind, and all of other
    /// claimants, end.
    pub(super) fn open(self: &Arc<Self>, asking: &Asking<'_>, clock: &Clock) -> Result<OpenStream, Verdict> {
        let Asking { zone, kind, claimant, .. } = *asking;
        let (ending, closed) = (Arc::new(Ending::default()), CancellationToken::new());
        let number = self.next_stream.fetch_add(1, Ordering::Relaxed) + 1;
        let found = self.entry_for(zone);
        let mut entry = found.lock();
        if entry.is_evicted {
            // Evicted between the two locks: the name is judged anew.
            return Err(Verdict::Admitted);
        }
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
        let grant = asking.grant.cloned();
        entry.streams.insert(
            kind,
            Stream { number, ending: ending.clone(), grant, by: claimant.clone(), began: Began::NotYet },
        );
        entry.status.stream_opened(kind, asking.at);
        drop(entry);
        for stream in older {
            stream.ending.end(superseded());
        }
        self.dirty.lock().insert(zone.to_owned());
        self.changed.notify_one();
        Ok(OpenStream {
            registry: self.clone(),
            zone: zone.into(),
            kind,
            number,
            ending,
            closed,
            clock: clock.clone(),
        })
    }

    /// Ends the streams whose tokens are no longer good, as the authenticator says; of how many zones.
    pub(super) fn recheck(&self, authenticator: &dyn ZoneAuthenticator) -> usize {
        let all = self.all();
        let grants: BTreeSet<ZoneGrant> = all
            .iter()
            .flat_map(|(_, entry)| {
                entry.lock().streams.values().filter_map(|stream| stream.grant.clone()).collect::<Vec<_>>()
            })
            .collect();
        let revoked = authenticator.revoked(&grants);
        if revoked.is_empty() {
            return 0;
        }
        let mut zones = 0;
        for (zone, entry) in all {
            let entry = entry.lock();
            let of =
                |stream: &Stream| Some((revoked.get(stream.grant.as_ref()?)?.clone(), stream.ending.clone()));
            let ended: Vec<_> = entry.streams.values().filter_map(of).collect();
            let Some((reason, _)) = ended.first() else { continue };
            tracing::warn!(zone, reason, "the token of a zone is no longer good; its streams end");
            zones += 1;
            for (reason, ending) in ended {
                ending.end(Status::unauthenticated(format!("authentication failed: {reason}")));
            }
        }
        zones
    }

    /// Whether the log may say one more thing about a zone now, and how much was left out since it last did.
    pub(super) fn may_say(&self, zone: &str, now: Duration) -> Option<u64> {
        self.with(zone, |entry| entry.said.take(now)).unwrap_or(Some(0))
    }

    /// Somebody was refused because of the name, at this time of day; `now` is monotonic.
    pub(super) fn note_conflict(
        &self,
        zone: &str,
        claimant: &Claimant,
        reason: &str,
        at: Timestamp,
        now: Duration,
    ) {
        self.with(zone, |entry| {
            let asked_before = entry.conflict(now).filter(|conflict| conflict.is_of(claimant));
            entry.report.conflict = Some(Conflict {
                address: claimant.address.clone(),
                instance: claimant.instance.clone(),
                reason: reason.into(),
                since: asked_before.map_or(at, |conflict| conflict.since),
                last: at,
            });
            entry.refused_at = now;
        });
    }

    /// Whoever was refused has the name now.
    pub(super) fn settle_conflict(&self, zone: &str, claimant: &Claimant) {
        self.set_report(zone, |report| {
            if report.conflict.as_ref().is_some_and(|conflict| conflict.is_of(claimant)) {
                report.conflict = None;
            }
        });
    }

    /// Whether this stream of the zone is open here.
    pub(super) fn has_stream(&self, zone: &str, kind: StreamKind) -> bool {
        self.with(zone, |entry| entry.streams.contains_key(&kind)).unwrap_or(false)
    }

    /// Whether this caller holds the name.
    pub(super) fn is_held_by(&self, zone: &str, claimant: &Claimant) -> bool {
        let is_theirs = |stream: &Stream| stream.by.identity == claimant.identity;
        self.with(zone, |entry| entry.streams.values().all(is_theirs)).unwrap_or(true)
    }

    /// What another replica knew of a zone that comes here.
    pub(super) fn remember(&self, zone: &str, known: &ZoneInsight, at: Timestamp) {
        self.update(zone, false, |entry| entry.status.remember(known, at));
    }

    /// Ends all streams of a zone.
    pub(super) fn evict(&self, zone: &str) {
        let evicted = self.zones.lock().remove(zone);
        if let Some(entry) = evicted {
            let mut entry = entry.lock();
            entry.is_evicted = true;
            for stream in std::mem::take(&mut entry.streams).into_values() {
                stream.ending.end(superseded());
            }
        }
        self.dirty.lock().remove(zone);
    }

    /// Zones that were registered because of a stream to here.
    pub(super) fn registered(&self) -> Vec<String> {
        let is_registered = |entry: &Entry| {
            let streams = entry.status.insight().kds_streams.as_ref();
            streams
                .is_some_and(|streams| streams.global_to_zone.is_some() || streams.zone_to_global.is_some())
        };
        self.all()
            .into_iter()
            .filter(|(_, entry)| is_registered(&entry.lock()))
            .map(|(zone, _)| zone)
            .collect()
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

    /// What is known at this time (monotonic).
    pub(super) fn report(&self, zone: &str, now: Duration) -> Option<ZoneReport> {
        self.with(zone, |entry| ZoneReport {
            conflict: entry.conflict(now).cloned(),
            peer: entry.report.peer.clone(),
        })
    }

    pub(super) fn set_report(&self, zone: &str, change: impl FnOnce(&mut ZoneReport)) {
        self.with(zone, |entry| change(&mut entry.report));
    }

    /// What is held back of a zone that sends to this replica, by kind, and whose it is. `None`: it does not send here.
    pub(super) fn held_back(&self, zone: &str) -> Option<(Option<String>, BTreeMap<Kind, usize>)> {
        self.with(zone, |entry| {
            let stream = entry.streams.get(&StreamKind::ZoneToGlobal)?;
            let by_kind = entry.report.peer.held_back.counts().filter(|(_, count)| *count > 0);
            Some((stream.by.identity.clone(), by_kind.collect()))
        })?
    }

    /// This process leads the zone now: streams of former leaders end.
    pub(super) fn led_by(&self, zone: &str, leader: &ZoneLeader) {
        self.with(zone, |entry| {
            for stream in entry.streams.values().filter(|stream| leader.replaced(&stream.by)) {
                stream.ending.end(took_over(&leader.instance));
            }
        });
    }

    /// Something was decided about the zone: it has to open its stream to this replica again, if it has one that did not begin
    /// with it.
    pub(super) fn renew(&self, zone: &str, version: u64) {
        self.with(zone, |entry| {
            let is_news = |began| match began {
                Began::NotYet => false,
                Began::Undecided => true,
                Began::Decided(known) => known != version,
            };
            if let Some(stream) = entry.streams.get(&StreamKind::ZoneToGlobal)
                && is_news(stream.began)
            {
                let reason = "an operator decided about what is held back: connect again";
                stream.ending.end(Status::aborted(reason));
            }
        });
    }

    /// The insight, as it is now.
    pub(super) fn insight(&self, zone: &str) -> Option<ZoneInsight> {
        self.with(zone, |entry| entry.status.insight().clone())
    }

    /// The zone's sink, with what it remembers; a fresh one when an older stream still holds it.
    pub(super) fn take_sink(&self, zone: &str) -> Sink {
        let kept = self.with(zone, |entry| entry.sink.take()).flatten();
        kept.unwrap_or_else(|| {
            let mut sink = Sink::new(Side::Global { zone: zone.into() }, true);
            sink.protect(self.protection);
            sink.fit_into(self.message_len_max);
            sink.limit(self.limit);
            sink
        })
    }

    pub(super) fn keep_sink(&self, zone: &str, sink: Sink) {
        self.with(zone, |entry| entry.sink = Some(sink));
    }

    pub(super) fn online(&self) -> Vec<String> {
        let all = self.all().into_iter();
        all.filter(|(_, entry)| entry.lock().status.insight().is_online()).map(|(zone, _)| zone).collect()
    }

    /// Waits for something that should be written at once.
    pub(super) async fn urgent(&self) {
        self.changed.notified().await;
    }

    /// Insights that changed since the last call.
    pub(super) fn take_dirty(&self) -> Vec<(String, ZoneInsight)> {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        dirty.into_iter().filter_map(|zone| self.insight(&zone).map(|insight| (zone, insight))).collect()
    }
}

impl OpenStream {
    /// The stream begins with the decision of this version; `None`: with none. Whatever else is decided from now on is news.
    pub(super) fn begin_with(&self, decision: Option<u64>) {
        self.registry.with(&self.zone, |entry| {
            if let Some(stream) =
                entry.streams.get_mut(&self.kind).filter(|stream| stream.number == self.number)
            {
                stream.began = decision.map_or(Began::Undecided, Began::Decided);
            }
        });
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.registry.with(&self.zone, |entry| {
            if entry.streams.get(&self.kind).is_some_and(|stream| stream.number == self.number) {
                entry.streams.remove(&self.kind);
                entry.tenure.away_since = self.clock.monotonic();
            }
        });
        self.closed.cancel();
        self.registry.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
