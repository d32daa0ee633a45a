//! `DataplaneInsight`s: what happened on the streams of proxies, in the status of this replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::dataplane_insight::{DataplaneInsight, MTls};
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::{Clock, Drain, version};
use graticule_store::status::{Group, SharedStatus};
use graticule_store::{Expect, Store, Txn, Write};
use graticule_view::ProxyId;
use graticule_xds::{Event, SubscriptionTracker};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

/// Notes that wait to be recorded; more are dropped, which costs counters and nothing else.
const QUEUE_LEN_MAX: usize = 16_384;
/// Subscriptions that are kept (`metrics.dataplane.subscriptionLimit`).
const SUBSCRIPTION_LIMIT: usize = 2;
/// Liveness marks of quiet streams, half of `metrics.dataplane.idleTimeout`.
const TICK: Duration = Duration::from_secs(150);

enum Note {
    Open { proxy: ProxyId, stream: Arc<str>, metadata: Map<String, Value>, brought: bool },
    Happened { proxy: ProxyId, stream: Arc<str>, event: Event },
    Close { proxy: ProxyId, stream: Arc<str> },
    Certificate { proxy: ProxyId, mtls: Option<MTls> },
    Forget { proxy: ProxyId },
}

/// Cheap to clone; the only way in. Never blocks.
#[derive(Clone)]
pub struct InsightsHandle(mpsc::Sender<Note>);

impl InsightsHandle {
    fn note(&self, note: Note) {
        if self.0.try_send(note).is_err() {
            tracing::debug!("a note about a proxy was dropped");
        }
    }

    /// `brought`: the proxy brought its Dataplane itself.
    pub(crate) fn open(
        &self,
        proxy: &ProxyId,
        stream: &Arc<str>,
        metadata: Map<String, Value>,
        brought: bool,
    ) {
        self.note(Note::Open { proxy: proxy.clone(), stream: stream.clone(), metadata, brought });
    }

    pub(crate) fn happened(&self, proxy: &ProxyId, stream: &Arc<str>, event: Event) {
        self.note(Note::Happened { proxy: proxy.clone(), stream: stream.clone(), event });
    }

    pub(crate) fn close(&self, proxy: &ProxyId, stream: &Arc<str>) {
        self.note(Note::Close { proxy: proxy.clone(), stream: stream.clone() });
    }

    pub(crate) fn certificate(&self, proxy: &ProxyId, mtls: Option<MTls>) {
        self.note(Note::Certificate { proxy: proxy.clone(), mtls });
    }

    pub(crate) fn forget(&self, proxy: &ProxyId) {
        self.note(Note::Forget { proxy: proxy.clone() });
    }
}

/// Records what happens.
pub struct Insights {
    notes: mpsc::Receiver<Note>,
    status: SharedStatus,
    own: Arc<dyn Store>,
    clock: Clock,
    instance_id: Arc<str>,
    trackers: BTreeMap<ProxyId, SubscriptionTracker>,
}

impl Insights {
    /// Writes what this replica observes.
    pub fn new(status: SharedStatus, clock: Clock, instance_id: Arc<str>) -> (Insights, InsightsHandle) {
        let (sender, notes) = mpsc::channel(QUEUE_LEN_MAX);
        let (own, trackers) = (status.own(), BTreeMap::new());
        (Insights { notes, status, own, clock, instance_id, trackers }, InsightsHandle(sender))
    }

    /// Runs until drained.
    pub async fn run(mut self, drain: Drain) {
        let clock = self.clock.clone();
        let mut tick = Box::pin(clock.sleep(TICK));
        loop {
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                Some(note) = self.notes.recv() => {
                    let mut changed = vec![self.record(note)];
                    // What queued up meanwhile becomes one write per proxy.
                    while let Ok(note) = self.notes.try_recv() {
                        changed.push(self.record(note));
                    }
                    changed.sort();
                    changed.dedup();
                    self.flush(&changed).await;
                }
                () = &mut tick => {
                    tick = Box::pin(clock.sleep(TICK));
                    for tracker in self.trackers.values_mut() {
                        tracker.tick();
                    }
                    let all: Vec<ProxyId> = self.trackers.keys().cloned().collect();
                    self.flush(&all).await;
                }
                else => return,
            }
        }
    }

    fn tracker(&mut self, proxy: &ProxyId) -> &mut SubscriptionTracker {
        self.trackers
            .entry(proxy.clone())
            .or_insert_with(|| SubscriptionTracker::new(SUBSCRIPTION_LIMIT, DataplaneInsight::default()))
    }

    /// The newest stream of the proxy is here; another replica may have had it before, and its history goes on. That is so
    /// also when the other one is gone and this one took over what it had observed.
    fn take_over(&mut self, proxy: &ProxyId, brought: bool) {
        let key = insight_key(proxy);
        let group = Group::proxy(&key);
        let is_elsewhere = self.status.owner(&group).is_some_and(|owner| owner != self.status.observer());
        let shown = self.status.shown().snapshot().get(&key);
        let shown = shown.and_then(|shown| shown.spec_as::<DataplaneInsight>().cloned());
        let last = shown.iter().flat_map(|shown| &shown.subscriptions).next_back();
        let is_known = match (self.trackers.get(proxy), last) {
            (None, _) => false,
            // Nothing is shown that is not known here.
            (Some(_), None) => true,
            (Some(tracker), Some(last)) => tracker.knows(&last.id),
        };
        if is_elsewhere || !is_known {
            let tracker = SubscriptionTracker::new(SUBSCRIPTION_LIMIT, shown.unwrap_or_default());
            self.trackers.insert(proxy.clone(), tracker);
        }
        self.status.claim(&group, brought);
    }

    fn record(&mut self, note: Note) -> ProxyId {
        let (now, instance) = (self.clock.now(), self.instance_id.clone());
        match note {
            Note::Open { proxy, stream, metadata, brought } => {
                self.take_over(&proxy, brought);
                self.tracker(&proxy).open(&stream, &instance, metadata, version::KUMA_COMPATIBLE, now);
                proxy
            }
            Note::Happened { proxy, stream, event } => {
                self.tracker(&proxy).on_event(&stream, &event, now);
                proxy
            }
            Note::Close { proxy, stream } => {
                self.tracker(&proxy).close(&stream, now);
                proxy
            }
            Note::Certificate { proxy, mtls } => {
                self.tracker(&proxy).set_mtls(mtls);
                proxy
            }
            Note::Forget { proxy } => {
                self.trackers.remove(&proxy);
                proxy
            }
        }
    }

    async fn flush(&mut self, proxies: &[ProxyId]) {
        let mut writes = Vec::new();
        for proxy in proxies {
            let key = insight_key(proxy);
            match self.trackers.get_mut(proxy) {
                None => writes.push(Write::Delete { key, expect: Expect::Any }),
                Some(tracker) => {
                    if let Some(insight) = tracker.take_changed() {
                        let meta = Meta::new(proxy.mesh.clone(), proxy.name.clone());
                        let resource = Box::new(Resource::new(meta, insight));
                        writes.push(Write::Put { resource, expect: Expect::Any, touch: false });
                    }
                }
            }
        }
        if writes.is_empty() {
            return;
        }
        if let Err(error) = self.own.commit(Txn { at: Some(self.clock.now()), writes }).await {
            tracing::warn!(%error, "status of proxies cannot be stored");
        }
    }
}

/// Where the insight of a proxy is.
pub(crate) fn insight_key(proxy: &ProxyId) -> Key {
    Key::new(Kind::DataplaneInsight, proxy.mesh.clone(), proxy.name.clone())
}

#[cfg(test)]
mod tests;
