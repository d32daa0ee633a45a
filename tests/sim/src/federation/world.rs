//! One durable store that the replicas of a control plane share, as they share an etcd: writes are linearizable and
//! survive every replica; each replica reads what it has heard of, and leads by a lease.
//!
//! What the store itself may do wrong is not simulated here (the other simulation does); what it may do to those who use
//! it is: delays, lost answers, replicas that lag or are cut off, leaders that do not know yet that they lead no more.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_model::{Resource, Timestamp};
use graticule_runtime::Random;
use graticule_store::history::History;
use graticule_store::{
    ChangeBatch, CommitError, Committed, Feed, Health, Leader, Leadership, Replacement, Revision, Snapshot,
    Store, Txn, transaction,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::oracle::{Actor, Oracle, Site};

/// Longest way of a request or an answer, in order.
const WAY_MAX_MS: u64 = 4;
/// A replica that is cut off gives up after this time.
const PATIENCE: Duration = Duration::from_millis(800);
/// Life of a leader's lease, and the pause between two renewals.
const LEASE: Duration = Duration::from_millis(1500);
const RENEWAL: Duration = Duration::from_millis(400);
/// A replica that has heard nothing for this time knows that it may be behind.
const STALE_AFTER: Duration = Duration::from_millis(1000);
/// Between two attempts of a replica that is cut off.
const RETRY: Duration = Duration::from_millis(100);

/// The store; clones are the same one.
#[derive(Clone)]
pub(super) struct World {
    inner: Arc<Mutex<Inner>>,
    head: watch::Sender<u64>,
    site: Site,
    oracle: Arc<Mutex<Oracle>>,
}

struct Inner {
    snapshot: Snapshot,
    /// All batches of the epoch.
    log: Vec<Arc<ChangeBatch>>,
    /// Changes when everything was replaced at once.
    epoch: u64,
    term: u64,
    lease: Option<Lease>,
    ways: Vec<Way>,
}

struct Lease {
    place: usize,
    until: Duration,
}

/// How a replica reaches the store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    /// Nothing gets through.
    pub(super) is_cut: bool,
    /// Share of answers that get lost after the store has done what was asked.
    pub(super) answers_lost: f64,
    /// Longest time until the replica hears of a write of others, in ms.
    pub(super) lag_max_ms: u64,
    /// It may not lead before this time.
    pub(super) resigned_until: Duration,
}

/// Simulated time since the beginning, the same for everybody.
pub(super) fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl World {
    pub(super) fn new(site: Site, places: usize, oracle: &Arc<Mutex<Oracle>>) -> World {
        let inner = Inner {
            snapshot: Snapshot::empty(),
            log: Vec::new(),
            epoch: 0,
            term: 0,
            lease: None,
            ways: vec![Way::default(); places],
        };
        World {
            inner: Arc::new(Mutex::new(inner)),
            head: watch::Sender::new(0),
            site,
            oracle: oracle.clone(),
        }
    }

    /// What is stored.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.inner.lock().snapshot.clone()
    }

    /// Changes how a replica reaches the store.
    pub(super) fn set_way(&self, place: usize, change: impl FnOnce(&mut Way)) {
        change(&mut self.inner.lock().ways[place]);
    }

    /// The leader gives up, as soon as it hears of that, and another one has its chance.
    pub(super) fn resign(&self, now: Duration) {
        let mut inner = self.inner.lock();
        if let Some(place) = inner.lease.as_ref().map(|lease| lease.place) {
            inner.ways[place].resigned_until = now + 2 * LEASE;
        }
    }

    /// Who leads.
    pub(super) fn leader(&self) -> Option<usize> {
        self.inner.lock().lease.as_ref().map(|lease| lease.place)
    }

    /// The disk is lost, or goes back to an older one: no replica runs.
    pub(super) fn set_disk(&self, snapshot: Snapshot) {
        let mut inner = self.inner.lock();
        let before = std::mem::replace(&mut inner.snapshot, snapshot.clone());
        inner.log.clear();
        inner.epoch += 1;
        inner.lease = None;
        // A new disk knows nothing of terms, either, but no old leader is left.
        self.oracle.lock().disk_replaced(self.site, &before, &snapshot);
    }

    /// Something breaks a copy: it is gone, or as it once was. Tells whether there was one.
    pub(super) fn damage(&self, choice: u64, is_copy: impl Fn(&Resource) -> bool) -> bool {
        let mut inner = self.inner.lock();
        let copies: Vec<Arc<Resource>> =
            inner.snapshot.iter().filter(|resource| is_copy(resource)).cloned().collect();
        let Some(at) = choice.checked_rem(copies.len() as u64).and_then(|at| usize::try_from(at).ok()) else {
            return false;
        };
        let copy = &copies[at];
        let key = copy.key();
        let changes = inner.log.iter().flat_map(|batch| &batch.changes).filter(|change| change.key == key);
        let mut earlier = changes.filter_map(|change| change.new.as_ref());
        let earlier = earlier.rfind(|earlier| is_copy(earlier) && !earlier.same_content(copy)).cloned();
        let txn = match earlier {
            Some(earlier) if choice.is_multiple_of(3) => Txn::put(Resource::clone(&earlier)),
            _ => Txn::delete(key),
        };
        let Ok(applied) = transaction::apply(&inner.snapshot, txn, Timestamp::UNIX_EPOCH) else {
            return false;
        };
        self.oracle.lock().committed(self.site, Actor::Damage, &applied.batch, &inner.snapshot);
        inner.snapshot = applied.snapshot;
        inner.log.push(applied.batch);
        drop(inner);
        self.head.send_modify(|head| *head += 1);
        true
    }

    /// Everything is replaced while replicas run.
    pub(super) fn replace(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        let revision = {
            let mut inner = self.inner.lock();
            let after = transaction::replace(&inner.snapshot, replacement)?;
            let before = std::mem::replace(&mut inner.snapshot, after.clone());
            inner.log.clear();
            inner.epoch += 1;
            self.oracle.lock().replaced(self.site, &before, &after);
            after.revision()
        };
        self.head.send_modify(|head| *head += 1);
        Ok(revision)
    }

    fn apply(&self, way: &Replica, term: Option<u64>, txn: Txn) -> Result<Committed, CommitError> {
        let mut inner = self.inner.lock();
        if let Some(term) = term
            && (inner.term != term || inner.lease.as_ref().is_some_and(|lease| lease.place != way.place))
        {
            return Err(CommitError::Fenced(term));
        }
        let applied = transaction::apply(&inner.snapshot, txn, Timestamp::UNIX_EPOCH)?;
        let revision = applied.batch.revision;
        if !applied.batch.changes.is_empty() {
            self.oracle.lock().committed(self.site, way.actor, &applied.batch, &inner.snapshot);
            inner.snapshot = applied.snapshot;
            inner.log.push(applied.batch.clone());
            drop(inner);
            self.head.send_modify(|head| *head += 1);
        }
        Ok(Committed { revision, batch: applied.batch })
    }

    /// A replica that runs from now on; returns when it has read everything once.
    pub(super) async fn open(&self, place: usize, random: &Random) -> Replica {
        let (leadership, _) = watch::channel(Leadership { term: 0, leader: Leader::Unknown });
        let replica = Replica {
            world: self.clone(),
            place,
            actor: Actor::User,
            random: random.clone(),
            view: Arc::new(View {
                history: History::new(Snapshot::empty(), 64),
                state: Mutex::new(ViewState { epoch: u64::MAX, heard: Duration::ZERO }),
                leadership,
            }),
        };
        while replica.reach().await.is_err() {}
        replica.pull();
        replica
    }
}

/// The store as one replica has it; clones are the same replica.
#[derive(Clone)]
pub(super) struct Replica {
    world: World,
    place: usize,
    actor: Actor,
    random: Random,
    view: Arc<View>,
}

struct View {
    history: History,
    state: Mutex<ViewState>,
    leadership: watch::Sender<Leadership>,
}

struct ViewState {
    epoch: u64,
    /// When the store was heard last.
    heard: Duration,
}

impl Replica {
    /// The same replica, for somebody else.
    pub(super) fn acting(&self, actor: Actor) -> Replica {
        Replica { actor, ..self.clone() }
    }

    fn way(&self) -> Way {
        self.world.inner.lock().ways[self.place]
    }

    async fn pass(&self) {
        let millis = self.random.u64() % (WAY_MAX_MS + 1);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn reach(&self) -> Result<(), CommitError> {
        self.pass().await;
        let end = elapsed() + PATIENCE;
        while self.way().is_cut {
            if elapsed() >= end {
                return Err(CommitError::Unavailable("the store is not reached".into()));
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    /// Takes over what it has not seen.
    fn pull(&self) {
        let inner = self.world.inner.lock();
        let mut state = self.view.state.lock();
        state.heard = elapsed();
        if state.epoch != inner.epoch {
            state.epoch = inner.epoch;
            self.view.history.reset(inner.snapshot.clone());
            return;
        }
        let mut own = self.view.history.snapshot();
        let behind = inner.snapshot.revision().0 - own.revision().0;
        let skip = inner.log.len() - usize::try_from(behind).unwrap_or(inner.log.len());
        for batch in &inner.log[skip..] {
            own = own.with(batch);
            self.view.history.publish(own.clone(), batch.clone());
        }
    }

    /// Hears of what others write.
    pub(super) async fn follow(self) {
        let mut head = self.world.head.subscribe();
        loop {
            // Also hears that nothing happened.
            let _news = tokio::time::timeout(RENEWAL, head.changed()).await;
            head.mark_unchanged();
            let lag = self.random.u64() % (self.way().lag_max_ms + WAY_MAX_MS + 1);
            tokio::time::sleep(Duration::from_millis(lag)).await;
            if !self.way().is_cut {
                self.pull();
            }
        }
    }

    /// Leads when nobody else does.
    pub(super) async fn elect(self) {
        let mut own: Option<Duration> = None;
        loop {
            let asked = elapsed();
            self.pass().await;
            if let Some(heard) = self.campaign(asked, &mut own) {
                self.view.leadership.send_if_modified(|known| {
                    let is_news = *known != heard;
                    *known = heard;
                    is_news
                });
            }
            let jitter = Duration::from_millis(self.random.u64() % 200);
            // Nobody believes in a lease for longer than it lasts.
            let lasts = own.map_or(RENEWAL + jitter, |until| until.saturating_sub(elapsed()));
            tokio::time::sleep((RENEWAL + jitter).min(lasts)).await;
        }
    }

    /// Asks for the lease, or renews it; what it knows then. `own` is until when it believes to have the lease.
    fn campaign(&self, asked: Duration, own: &mut Option<Duration>) -> Option<Leadership> {
        let mut inner = self.world.inner.lock();
        let way = inner.ways[self.place];
        let now = elapsed();
        if way.is_cut {
            if own.is_some_and(|until| until > now) {
                return None;
            }
            *own = None;
            return Some(Leadership { term: inner.term, leader: Leader::Unknown });
        }
        let mut holder = inner.lease.as_ref().filter(|lease| lease.until > now).map(|lease| lease.place);
        if holder == Some(self.place) && way.resigned_until > now {
            (inner.lease, holder) = (None, None);
        }
        let lease = Lease { place: self.place, until: now + LEASE };
        if holder == Some(self.place) && own.is_some() {
            inner.lease = Some(lease);
        } else if holder == Some(self.place) || (holder.is_none() && way.resigned_until <= now) {
            // A lease of an earlier run of this replica is worth nothing to this run.
            inner.term += 1;
            inner.lease = Some(lease);
        }
        let holder = inner.lease.as_ref().filter(|lease| lease.until > now).map(|lease| lease.place);
        *own = holder.filter(|holder| *holder == self.place).map(|_| asked + LEASE);
        let leader = match holder {
            None => Leader::Unknown,
            Some(place) if place == self.place => Leader::Myself,
            Some(place) => Leader::Other(place.to_string()),
        };
        Some(Leadership { term: inner.term, leader })
    }

    async fn write(&self, term: Option<u64>, txn: Txn) -> Result<Committed, CommitError> {
        self.reach().await?;
        let committed = self.world.apply(self, term, txn)?;
        self.pass().await;
        let way = self.way();
        if way.is_cut || (way.answers_lost > 0.0 && self.random.fraction() < way.answers_lost) {
            tokio::time::sleep(PATIENCE).await;
            return Err(CommitError::Uncertain("no answer".into()));
        }
        self.pull();
        Ok(committed)
    }
}

#[async_trait]
impl Store for Replica {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.write(None, txn).await
    }

    fn snapshot(&self) -> Snapshot {
        self.view.history.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.view.history.watch(from)
    }

    async fn commit_as(&self, term: u64, txn: Txn) -> Result<Committed, CommitError> {
        self.write(Some(term), txn).await
    }

    async fn replace_all(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        self.reach().await?;
        let revision = self.world.replace(replacement)?;
        self.pull();
        Ok(revision)
    }

    async fn read_barrier(&self) -> Result<(), CommitError> {
        self.reach().await?;
        self.pass().await;
        self.pull();
        Ok(())
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.view.leadership.subscribe()
    }

    fn health(&self) -> Health {
        let heard = self.view.state.lock().heard;
        if elapsed().saturating_sub(heard) > STALE_AFTER {
            return Health::Stale("the store was not heard lately".into());
        }
        Health::Ready
    }
}
