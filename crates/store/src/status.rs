//! Status that several replicas observe: each has a part, all show everything (DESIGN decision 4).
//!
//! ```text
//! own: what this replica observes ──► frames ──► other replicas
//!        └──► core: whose observation of a source counts ──► shown: what all replicas observe
//! frames of other replicas ──► core
//! ```
//!
//! A *source* is whoever is observed: a proxy in a zone, a zone on global. The replica where its newest stream was opened
//! *claims* it, and its observations count. An open stream counts before an ended one. A replica that is gone leaves
//! observations behind; they are shown with their streams ended until somebody claims the source. Nothing of this is
//! durable, and nothing waits for consensus.

mod core;
mod wire;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use graticule_model::{Key, Resource, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::core::{Claim, Group, Grouping, Observer};
pub use self::wire::{FRAME_LEN_MAX, FrameError, PREFIX_LEN};

use self::core::{Adopted, Core, Item, Part};
use crate::history::{HISTORY_LEN_DEFAULT, History};
use crate::{
    ChangeBatch, CommitError, Committed, Event, Expect, Feed, MemoryStore, Snapshot, Store, Txn, Write,
};

type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What this replica observes, and what all replicas do. Cheap to clone.
#[derive(Clone)]
pub struct SharedStatus(Arc<Inner>);

struct Inner {
    own: MemoryStore,
    shown: History,
    core: Mutex<Core>,
    orphaned: watch::Sender<u64>,
    now: Now,
}

/// A source that was observed by a replica that is gone, and by nobody since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What was observed of it.
    pub key: Key,
    /// The claim under which this replica took it over.
    pub claim: Claim,
}

impl SharedStatus {
    /// Nothing is observed yet. `observer` names this replica in this run, `now` is the time of day.
    pub fn new(
        observer: impl Into<Observer>,
        grouping: Grouping,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> SharedStatus {
        let now: Now = Arc::new(now);
        let at = now.clone();
        SharedStatus(Arc::new(Inner {
            own: MemoryStore::new(move || at()),
            shown: History::new(Snapshot::empty(), HISTORY_LEN_DEFAULT),
            core: Mutex::new(Core::new(observer.into(), grouping)),
            orphaned: watch::Sender::new(0),
            now,
        }))
    }

    /// What this replica observes; observers write here. What is written is shown when the write returns.
    pub fn own(&self) -> Arc<dyn Store> {
        Arc::new(Own(self.0.clone()))
    }

    /// What all replicas observe. A write goes to what this replica observes, so it has an effect only there.
    pub fn shown(&self) -> Arc<dyn Store> {
        Arc::new(Shown(self.0.clone()))
    }

    /// This replica in this run.
    pub fn observer(&self) -> Observer {
        self.0.core.lock().own().clone()
    }

    /// The newest stream of a source is here; `brought`: it brought its Dataplane. To be said before anything is observed of
    /// it, or soon after: without a claim an observation counts only while nobody else knows the source. What others observed of the source is
    /// observed here from now on, with its streams ended, so that only differences have to come.
    pub fn claim(&self, group: &Group, brought: bool) {
        let now = (self.0.now)();
        let mut core = self.0.core.lock();
        let adopted = core.claim(group, brought, now);
        self.0.observe(&mut core, adopted, now);
    }

    /// Who observes this source, as far as this replica knows.
    pub fn owner(&self, group: &Group) -> Option<Observer> {
        self.0.core.lock().owner(group).cloned()
    }

    /// Whether an open stream of the source is known, here or elsewhere.
    pub fn is_live(&self, group: &Group) -> bool {
        self.0.core.lock().is_live(group)
    }

    /// What this replica observes, as frames: everything first, then changes. Each has its length before it.
    pub fn frames(&self) -> Frames {
        Frames { inner: self.0.clone(), feed: self.0.own.watch(None), ready: VecDeque::new() }
    }

    /// A frame that says nothing but that this replica is there.
    pub fn heartbeat(&self) -> Bytes {
        let part = self.0.part(&self.0.core.lock(), Vec::new());
        wire::encode(&part).pop().unwrap_or_default()
    }

    /// Takes whole frames of another replica out of `received` until more has to come. Gives who told them, and whether
    /// everything that it observed before is known from now on.
    ///
    /// # Errors
    /// What was received is no frame.
    pub fn take(&self, received: &mut BytesMut) -> Result<Vec<(Observer, bool)>, FrameError> {
        let mut told = Vec::new();
        while let Some(part) = wire::decode(received)? {
            told.push((part.observer.clone(), part.complete));
            let now = (self.0.now)();
            let mut core = self.0.core.lock();
            let batch = core.take(part, now);
            self.0.publish(&core, batch);
        }
        Ok(told)
    }

    /// An observer is known to be gone since `at`.
    pub fn gone(&self, observer: &Observer, at: Timestamp) {
        let mut core = self.0.core.lock();
        let batch = core.gone(observer, at);
        self.0.publish(&core, batch);
    }

    /// To be called now and then (every 250 ms): forgets own observations that a newer stream elsewhere replaced.
    pub fn tick(&self) {
        let mut core = self.0.core.lock();
        let yielded = core.tick();
        let writes = yielded.into_iter().map(|key| Write::Delete { key, expect: Expect::Any });
        let txn = Txn { at: Some((self.0.now)()), writes: writes.collect() };
        if !txn.writes.is_empty() {
            // Without expectations nothing can be in the way.
            let _committed = self.0.commit(&mut core, txn);
        }
    }

    /// Takes over the sources that only observers which are gone know. When several replicas do, the last one has them.
    pub fn adopt(&self) {
        let now = (self.0.now)();
        let mut core = self.0.core.lock();
        if !core.has_orphans() {
            return;
        }
        let adopted = core.adopt(now);
        self.0.observe(&mut core, adopted, now);
        drop(core);
        self.0.orphaned.send_modify(|count| *count += 1);
    }

    /// Sources that this replica took over from replicas that are gone, while nobody claims them.
    pub fn orphans(&self) -> Vec<Orphan> {
        let orphans = self.0.core.lock().orphans();
        orphans.into_iter().map(|(key, claim)| Orphan { key, claim }).collect()
    }

    /// Fires when there may be more [`orphans`](Self::orphans).
    pub fn orphaned(&self) -> watch::Receiver<u64> {
        self.0.orphaned.subscribe()
    }
}

impl Inner {
    /// Observes here what others observed.
    fn observe(&self, core: &mut Core, adopted: Adopted, now: Timestamp) {
        let puts = adopted.puts.into_iter().map(|resource| {
            let mut resource = Resource::clone(&resource);
            // Owners are in the other store.
            resource.meta.owner = None;
            Write::Put { resource: Box::new(resource), expect: Expect::Any, touch: false }
        });
        let deletes = adopted.deletes.into_iter().map(|key| Write::Delete { key, expect: Expect::Any });
        let txn = Txn { at: Some(now), writes: deletes.chain(puts).collect() };
        if !txn.writes.is_empty() {
            // Nothing is expected of what is stored, so nothing can be in the way.
            let _committed = self.commit(core, txn);
        }
        core.adopted_at(&adopted.groups, self.own.snapshot().revision());
    }

    fn commit(&self, core: &mut Core, txn: Txn) -> Result<Committed, CommitError> {
        let committed = self.own.commit_now(txn)?;
        let now = committed.batch.committed_at;
        let batch = core.own_changed(&committed.batch.changes, now);
        self.publish(core, batch);
        Ok(committed)
    }

    fn publish(&self, core: &Core, batch: Option<Arc<ChangeBatch>>) {
        if let Some(batch) = batch {
            self.shown.publish(core.shown().clone(), batch);
        }
    }

    fn part(&self, core: &Core, items: Vec<Item>) -> Part {
        Part { observer: core.own().clone(), time: core.time(), reset: false, complete: false, items }
    }

    /// What one event of the own store means for others.
    fn tell(&self, event: Event) -> Vec<Bytes> {
        let grouping = self.core.lock().grouping();
        let item = |resource: &Arc<Resource>, is_there: bool| {
            let group = grouping.of(resource);
            Item { group, claim: None, key: resource.key(), resource: is_there.then(|| resource.clone()) }
        };
        let (mut items, revision, is_all): (Vec<Item>, _, _) = match &event {
            Event::Resync(snapshot) => {
                (snapshot.iter().map(|resource| item(resource, true)).collect(), snapshot.revision(), true)
            }
            Event::Batch(batch) => {
                let changed = batch.changes.iter().filter_map(|change| match (&change.new, &change.old) {
                    (Some(new), _) => Some(item(new, true)),
                    (None, Some(old)) => Some(item(old, false)),
                    (None, None) => None,
                });
                (changed.collect(), batch.revision, false)
            }
        };
        let part = {
            let core = self.core.lock();
            let mut seen = BTreeSet::new();
            for item in items.iter_mut().rev() {
                if seen.insert(item.group.clone()) {
                    item.claim = core.own_claim(&item.group, revision);
                }
            }
            Part { reset: is_all, complete: is_all, ..self.part(&core, items) }
        };
        // Encoding everything takes its time, which nobody who observes something has to wait for.
        wire::encode(&part)
    }
}

/// What this replica observes, for one other replica.
pub struct Frames {
    inner: Arc<Inner>,
    feed: Box<dyn Feed>,
    ready: VecDeque<Bytes>,
}

impl Frames {
    /// The next frame; `None` never. Cancel-safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let event = self.feed.next().await?;
            self.ready.extend(self.inner.tell(event));
        }
    }
}

struct Own(Arc<Inner>);

#[async_trait]
impl Store for Own {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let mut core = self.0.core.lock();
        self.0.commit(&mut core, txn)
    }

    fn snapshot(&self) -> Snapshot {
        self.0.own.snapshot()
    }

    fn watch(&self, from: Option<crate::Revision>) -> Box<dyn Feed> {
        self.0.own.watch(from)
    }
}

struct Shown(Arc<Inner>);

#[async_trait]
impl Store for Shown {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let mut core = self.0.core.lock();
        self.0.commit(&mut core, txn)
    }

    fn snapshot(&self) -> Snapshot {
        self.0.shown.snapshot()
    }

    fn watch(&self, from: Option<crate::Revision>) -> Box<dyn Feed> {
        self.0.shown.watch(from)
    }
}

#[cfg(test)]
mod tests;
