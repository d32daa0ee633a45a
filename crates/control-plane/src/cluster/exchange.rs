//! What the replicas of a control plane tell and ask each other, beside the store: status, and questions that only one of
//! them can answer.
//!
//! ```text
//! each replica ── GET /v1/status ──► every other one: its own observations, then what changes, and heartbeats
//!              ── POST /v1/ask ───► the one that observes the source: an answer, never asked on
//! ```
//!
//! A stream that breaks says nothing about what was observed: it is made again. When it stays broken for [`GONE_AFTER`],
//! the streams that the other replica had count as ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use graticule_api::envoy_admin::AdminQuery;
use graticule_model::{Key, Kind, Timestamp};
use graticule_runtime::{Clock, Drain};
use graticule_store::status::{FRAME_LEN_MAX, Observer, SharedStatus};
use graticule_store::{Event, Expect, Snapshot, Store, Txn, Write};
use graticule_store_raft::MemberId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::Local;
use super::calls::{self, Calls};

/// A replica whose stream of status is broken for this long is gone; also the least time that its proxies are shown as they
/// were.
pub const GONE_AFTER: Duration = Duration::from_secs(5);
/// The leader takes over what a replica that is gone observed; what it does not know, the others do after this time.
const ADOPT_AFTER: Duration = Duration::from_secs(3);
/// A stream without a frame for this long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Between two frames that say nothing.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between two attempts to reach a replica.
const RETRY: Duration = Duration::from_millis(300);
/// Between two looks at the members and at who is gone.
const LOOK: Duration = Duration::from_millis(250);
/// A replica that cannot be reached for this long after the start is not waited for.
const SYNC_PATIENCE: Duration = Duration::from_secs(3);
/// Time for a question: longer than the time that an Envoy or a zone gets to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(12);
/// Questions of other replicas in work at once; more are refused.
const ASKED_MAX: usize = 64;
/// Longest answer, in bytes: as long as that of an Envoy.
pub(super) const ANSWER_LEN_MAX: usize = 33 << 20;

/// A question that another replica can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Question {
    /// In a zone: what a proxy is sent. The answer is JSON.
    ProxyConfig {
        /// Its mesh.
        mesh: String,
        /// Its name.
        name: String,
    },
    /// On global: what the Envoy of a proxy in a zone says.
    Envoy {
        /// The zone.
        zone: String,
        /// Mesh of the proxy.
        mesh: String,
        /// Its name in the zone.
        name: String,
        /// What is asked.
        query: AdminQuery,
    },
    /// How the connection between this zone and global is. The answer is JSON.
    ZoneStatus {
        /// The zone.
        zone: String,
    },
    /// An operator gives up what is held back between this zone and global. The answer is how many copies that concerns.
    AcceptDeletions {
        /// The zone.
        zone: String,
    },
}

/// Why another replica did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum NoAnswer {
    /// It does not know what is asked about.
    #[error("the replica does not know it")]
    NotFound,
    /// It does not answer such questions.
    #[error("the replica does not answer this")]
    Unsupported,
    /// It says why not.
    #[error("{0}")]
    Refused(String),
    /// It has too much to do.
    #[error("{0}")]
    Busy(String),
    /// It tried.
    #[error("{0}")]
    Failed(String),
    /// It was not reached.
    #[error("the replica that could answer is not reached: {0}")]
    Unreachable(String),
}

/// Answers questions of other replicas from what this one has itself.
#[async_trait]
pub trait Answers: Send + Sync {
    /// The answer.
    ///
    /// # Errors
    /// There is none.
    async fn answer(&self, question: Question) -> Result<Bytes, NoAnswer>;
}

/// The other replicas. Cheap to clone.
#[derive(Clone)]
pub struct Replicas(Arc<Shared>);

struct Shared {
    status: SharedStatus,
    answers: OnceLock<Arc<dyn Answers>>,
    calls: OnceLock<Calls>,
    /// Where an observer is reached.
    routes: Mutex<BTreeMap<Observer, String>>,
    asked: Semaphore,
    synced: watch::Sender<bool>,
}

impl Replicas {
    /// Nobody is known yet. `status` is what this replica observes, and what it shows.
    pub fn new(status: SharedStatus) -> Replicas {
        Replicas(Arc::new(Shared {
            status,
            answers: OnceLock::new(),
            calls: OnceLock::new(),
            routes: Mutex::default(),
            asked: Semaphore::new(ASKED_MAX),
            synced: watch::Sender::new(false),
        }))
    }

    /// Status of all replicas.
    pub fn status(&self) -> &SharedStatus {
        &self.0.status
    }

    /// Answers the others from now on; to be called once.
    pub fn answer_with(&self, answers: Arc<dyn Answers>) {
        // Whoever is second is not heard.
        let _first = self.0.answers.set(answers);
    }

    /// There are no others that could be heard.
    pub(crate) fn alone(&self) {
        self.0.synced.send_replace(true);
    }

    /// Returns once everything is known that other replicas observed before the start, as far as they can be reached.
    pub async fn synced(&self) {
        let mut synced = self.0.synced.subscribe();
        if synced.wait_for(|synced| *synced).await.is_err() {
            // The exchange has ended: nothing more comes.
        }
    }

    /// Asks another replica.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn ask(&self, observer: &Observer, question: &Question) -> Result<Bytes, NoAnswer> {
        let unknown = || NoAnswer::Unreachable(format!("no connection to {observer}"));
        let address = self.0.routes.lock().get(observer).cloned().ok_or_else(unknown)?;
        let calls = self.0.calls.get().ok_or_else(unknown)?;
        let answered = calls.ask(&address, question, ASK_TIMEOUT, ANSWER_LEN_MAX).await;
        match answered.map_err(|error| NoAnswer::Unreachable(error.to_string()))? {
            (status, answer) if status.is_success() => Ok(answer),
            (status, reason) => Err(serde_json::from_slice(&reason)
                .unwrap_or_else(|_| NoAnswer::Failed(format!("the replica answered {status}")))),
        }
    }

    /// Asks the other replicas one after the other, until one answers.
    ///
    /// # Errors
    /// [`NoAnswer::NotFound`] when all of them say so, or there are none; else why the last one did not answer.
    pub async fn ask_around(&self, question: &Question) -> Result<Bytes, NoAnswer> {
        let others: Vec<Observer> = self.0.routes.lock().keys().cloned().collect();
        let mut reason = NoAnswer::NotFound;
        for other in others {
            match self.ask(&other, question).await {
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::NotFound) => {}
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// The answer to another replica.
    pub(super) async fn answer(&self, question: Question) -> Result<Bytes, NoAnswer> {
        let Ok(_turn) = self.0.asked.try_acquire() else {
            return Err(NoAnswer::Busy("the replica answers too many questions already".into()));
        };
        match self.0.answers.get() {
            Some(answers) => answers.answer(question).await,
            None => Err(NoAnswer::Unreachable("it is still starting".into())),
        }
    }
}

/// What is known of one member.
#[derive(Default)]
struct Link {
    /// What it was called in its runs, and since when its stream is broken.
    observers: BTreeMap<Observer, Option<Broken>>,
    is_complete: bool,
}

#[derive(Clone, Copy)]
struct Broken {
    since: Duration,
    at: Timestamp,
}

type Links = Arc<Mutex<BTreeMap<MemberId, Link>>>;

/// Hears all other members until it is dropped.
pub(super) async fn run(local: Arc<Local>) {
    let Ok(calls) = local.calls() else { return };
    let shared = local.replicas.0.clone();
    let _first = shared.calls.set(calls.clone());
    let started = local.clock.monotonic();
    let links = Links::default();
    let mut readers: BTreeMap<MemberId, (String, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut leadership = local.store.leadership();
    let mut orphaned_since = None;
    loop {
        let others = others(&local);
        readers.retain(|id, (address, reader)| {
            let is_same = others.get(id) == Some(address);
            if !is_same {
                reader.abort();
            }
            is_same
        });
        for (id, address) in &others {
            if !readers.contains_key(id) {
                links.lock().entry(*id).or_default();
                let reader = hear(local.clone(), calls.clone(), *id, address.clone(), links.clone());
                readers.insert(*id, (address.clone(), tasks.spawn(reader)));
            }
        }
        let now = local.clock.monotonic();
        shared.status.tick();
        let has_gone = give_up(&shared, &links, &others, now);
        if has_gone {
            orphaned_since = Some(now);
        }
        let leads = leadership.borrow_and_update().own_term().is_some();
        let is_late = orphaned_since.is_some_and(|since| now.saturating_sub(since) >= ADOPT_AFTER);
        if orphaned_since.is_some() && (leads || is_late) {
            shared.status.adopt();
            if is_late {
                orphaned_since = None;
            }
        }
        if !*shared.synced.borrow() {
            let is_known = links.lock().values().all(|link| link.is_complete);
            if is_known || now.saturating_sub(started) >= SYNC_PATIENCE {
                shared.synced.send_replace(true);
            }
        }
        tokio::select! {
            () = local.clock.sleep(LOOK) => {}
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

fn others(local: &Local) -> BTreeMap<MemberId, String> {
    let own = local.store.id();
    let members = local.store.members().into_iter().filter(|member| member.id != own);
    members
        .map(|member| (member.id, member.member.address))
        .filter(|(_, address)| !address.is_empty())
        .collect()
}

/// Observers that were not heard for too long, or that are members no more, are gone; tells whether any is.
fn give_up(shared: &Shared, links: &Links, members: &BTreeMap<MemberId, String>, now: Duration) -> bool {
    let mut gone = Vec::new();
    let mut links = links.lock();
    let heard: BTreeSet<Observer> = links
        .values()
        .flat_map(|link| link.observers.iter())
        .filter(|(_, broken)| broken.is_none())
        .map(|(observer, _)| observer.clone())
        .collect();
    links.retain(|id, link| {
        let is_member = members.contains_key(id);
        link.observers.retain(|observer, broken| {
            let Some(broken) = broken else { return true };
            let is_over = !is_member || now.saturating_sub(broken.since) >= GONE_AFTER;
            if is_over && !heard.contains(observer) {
                gone.push((observer.clone(), broken.at));
            }
            !is_over
        });
        is_member || !link.observers.is_empty()
    });
    drop(links);
    for (observer, at) in &gone {
        tracing::info!(%observer, "a replica is gone: the streams that it had are over");
        shared.status.gone(observer, *at);
    }
    !gone.is_empty()
}

/// Marks the stream of a member as broken when it goes, for whatever reason.
struct Hearing {
    shared: Arc<Shared>,
    links: Links,
    id: MemberId,
    clock: Clock,
    observer: Option<Observer>,
}

impl Hearing {
    /// A frame came from this observer.
    fn told(&mut self, observer: Observer, is_complete: bool, address: &str) {
        let is_known = self.observer.as_ref() == Some(&observer);
        if is_known && !is_complete {
            return;
        }
        let mut links = self.links.lock();
        let link = links.entry(self.id).or_default();
        link.is_complete |= is_complete;
        link.observers.insert(observer.clone(), None);
        drop(links);
        if !is_known {
            self.shared.routes.lock().insert(observer.clone(), address.to_owned());
            self.observer = Some(observer);
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let Some(observer) = &self.observer else { return };
        let broken = Broken { since: self.clock.monotonic(), at: self.clock.now() };
        let mut links = self.links.lock();
        if let Some(link) = links.get_mut(&self.id) {
            link.observers.insert(observer.clone(), Some(broken));
        }
        // A member that took the place of another one at its address is heard twice for a while.
        let is_heard = links.values().any(|link| matches!(link.observers.get(observer), Some(None)));
        drop(links);
        if !is_heard {
            self.shared.routes.lock().remove(observer);
        }
    }
}

/// Hears one member, again whenever the stream breaks.
async fn hear(local: Arc<Local>, calls: Calls, id: MemberId, address: String, links: Links) {
    let shared = local.replicas.0.clone();
    loop {
        let mut hearing = Hearing {
            shared: shared.clone(),
            links: links.clone(),
            id,
            clock: local.clock.clone(),
            observer: None,
        };
        let mut received = BytesMut::new();
        let each = |bytes: Bytes| {
            received.extend_from_slice(&bytes);
            if received.len() > 2 * FRAME_LEN_MAX {
                return Err("a frame is too long".to_owned());
            }
            let told = shared.status.take(&mut received).map_err(|error| error.to_string())?;
            for (observer, is_complete) in told {
                hearing.told(observer, is_complete, &address);
            }
            Ok(())
        };
        let error = calls.follow(&address, calls::STATUS, SILENCE_MAX, each).await;
        tracing::debug!(%error, "status of a replica is not heard");
        drop(hearing);
        local.clock.sleep(RETRY).await;
    }
}

/// Observations of what was deleted go, too, wherever it was deleted, and also when this replica missed the change itself.
pub(super) async fn forget_deleted(store: Arc<dyn Store>, status: SharedStatus, drain: Drain) {
    let (mut feed, own) = (store.watch(None), status.own());
    let mut known: Option<Snapshot> = None;
    while let Some(event) = drain.unless_signaled(feed.next()).await {
        let observed = own.snapshot();
        let (at, deleted, now) = match (event, known.take()) {
            (Event::Batch(batch), known) => {
                let deleted = batch.changes.iter().filter(|change| change.new.is_none());
                let deleted = deleted.filter_map(|change| observation_of(&change.key)).collect();
                (Some(batch.committed_at), deleted, known.map(|known| known.with(&batch)))
            }
            (Event::Resync(snapshot), Some(known)) => {
                let gone = OBSERVED.into_iter().flat_map(|kind| known.list(kind, None));
                let gone = gone.map(|one| one.key()).filter(|key| !snapshot.contains(key));
                let deleted: Vec<Key> = gone.filter_map(|key| observation_of(&key)).collect();
                (None, deleted, Some(snapshot))
            }
            // What is not known yet may be observed before it is stored.
            (Event::Resync(snapshot), None) => (None, Vec::new(), Some(snapshot)),
        };
        known = now;
        let keys = deleted.into_iter().filter(|key| observed.contains(key));
        let writes: Vec<Write> = keys.map(|key| Write::Delete { key, expect: Expect::Any }).collect();
        if !writes.is_empty() {
            // Without expectations nothing can be in the way.
            let _committed = own.commit(Txn { at, writes }).await;
        }
    }
}

/// Kinds that are observed under their own name.
const OBSERVED: [Kind; 2] = [Kind::Dataplane, Kind::Zone];

/// Where observations of a resource are.
fn observation_of(key: &Key) -> Option<Key> {
    let kind = match key.kind {
        Kind::Dataplane => Kind::DataplaneInsight,
        Kind::Zone => Kind::ZoneInsight,
        _ => return None,
    };
    Some(Key::new(kind, key.mesh.clone(), key.name.clone()))
}

#[cfg(test)]
mod tests;
