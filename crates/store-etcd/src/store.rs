//! [`EtcdStore`]: the [`Store`] over one replica.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_runtime::{Clock, Random};
use graticule_store::{
    CommitError, Committed, Feed, Health, Leader, Leadership, Replacement, Revision, Snapshot, Store, Txn,
};
use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::{ContentsError, Failure, OpenError};
use crate::keys::Keys;
use crate::load::{LoadError, load};
use crate::options::{Options, WRITES_MAX};
use crate::replica::Replica;
use crate::request::Requests;
use crate::write::Pending;
use crate::{access, elect, follow, probe, read, replace, write};

/// Time that a closing store has to give up its lease.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a replica needs from outside.
pub struct Deps {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
}

/// What the tasks of a replica share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) requests: Requests,
    pub(crate) replica: Replica,
    /// Which etcd; another one is not accepted.
    pub(crate) cluster: u64,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Counts changes of the leader's key.
    pub(crate) leader_moved: watch::Sender<u64>,
    /// Whether the watch works; the reason if not.
    link: watch::Sender<Result<(), String>>,
    /// What was found at the last look.
    health: RwLock<Health>,
    /// Why the store stands still for good.
    stopped: RwLock<Option<ContentsError>>,
    /// The watch brings nothing although there is something.
    pub(crate) stuck: Notify,
    /// Requests that move the head come one after the other: of two at once, etcd would take only one.
    pub(crate) turn: Mutex<()>,
    /// Writes that wait.
    pub(crate) writes: mpsc::Sender<Pending>,
    /// Why writes take so long.
    pub(crate) trouble: RwLock<String>,
    /// Everything is replaced once at a time.
    pub(crate) replacing: Mutex<()>,
    pub(crate) closing: CancellationToken,
}

impl Shared {
    /// The watch works.
    pub(crate) fn connected(&self) {
        self.link.send_if_modified(|link| {
            let was_cut_off = link.is_err();
            *link = Ok(());
            was_cut_off
        });
    }

    /// The watch does not work.
    pub(crate) fn cut_off(&self, reason: &str) {
        // Nobody needs what it was before.
        let _ = self.link.send_replace(Err(reason.to_owned()));
    }

    pub(crate) fn note_health(&self, health: Health) {
        let mut now = self.health.write();
        if *now != health {
            tracing::info!(?health, "etcd");
            *now = health;
        }
    }

    /// etcd's contents cannot be used any more.
    pub(crate) fn stop(&self, reason: ContentsError) {
        *self.stopped.write() = Some(reason);
    }

    pub(crate) fn stopped(&self) -> Option<ContentsError> {
        self.stopped.read().clone()
    }

    fn health(&self) -> Health {
        if let Some(reason) = self.stopped() {
            return Health::ReadOnly(reason.to_string());
        }
        let health = self.health.read().clone();
        match (&health, &*self.link.borrow()) {
            (Health::Ready, Err(reason)) => Health::Stale(format!("not connected to etcd: {reason}")),
            _ => health,
        }
    }
}

/// A store whose resources are kept by etcd. Dropping it, or [`close`](Self::close), ends the replica.
pub struct EtcdStore {
    shared: Arc<Shared>,
    leadership: watch::Receiver<Leadership>,
    tasks: TaskTracker,
}

impl EtcdStore {
    /// Connects, and reads everything.
    ///
    /// # Errors
    /// The options are wrong, etcd does not answer in time or refuses, or what it has cannot be used.
    pub async fn open(options: Options, deps: Deps) -> Result<EtcdStore, OpenError> {
        options.check().map_err(OpenError::Options)?;
        let Deps { clock, random } = deps;
        let keys = Keys::new(&options.prefix);
        let mut last = "no answer in time".to_owned();
        let opened = tokio::select! {
            biased;
            // Large, because of everything that may go wrong.
            opened = Box::pin(reach(&options, &keys, &clock, &random, &mut last)) => Some(opened),
            () = clock.sleep(options.open_timeout) => None,
        };
        let Some(opened) = opened else {
            return Err(OpenError::Unreachable { endpoints: options.endpoints.join(", "), reason: last });
        };
        let (requests, loaded) = opened?;
        let leadership = Leadership { term: 0, leader: Leader::Unknown };
        let (leadership, watching) = watch::channel(leadership);
        let (writes, waiting) = mpsc::channel(WRITES_MAX);
        let shared = Arc::new(Shared {
            cluster: loaded.cluster,
            replica: Replica::new(loaded, options.history_len),
            options,
            keys,
            requests,
            leadership,
            leader_moved: watch::channel(0).0,
            link: watch::channel(Err("the store starts".to_owned())).0,
            health: RwLock::new(Health::Ready),
            stopped: RwLock::new(None),
            stuck: Notify::new(),
            turn: Mutex::new(()),
            writes,
            trouble: RwLock::default(),
            replacing: Mutex::new(()),
            closing: CancellationToken::new(),
        });
        let mut link = shared.link.subscribe();
        let tasks = TaskTracker::new();
        // They live as long as the store, which parts of the process need until their own end.
        tasks.spawn(follow::run(shared.clone()));
        tasks.spawn(elect::run(shared.clone()));
        tasks.spawn(probe::run(shared.clone()));
        tasks.spawn(write::run(shared.clone(), waiting));
        tasks.close();
        let store = EtcdStore { shared, leadership: watching, tasks };
        // Everything is read; a watch that does not come is a matter of health.
        let timeout = store.shared.options.request_timeout;
        tokio::select! {
            _ = link.wait_for(|link| link.is_ok()) => {}
            () = clock.sleep(timeout) => {}
        }
        if let Ok(true) = replace::is_prepared(&store.shared).await {
            tracing::warn!(
                "a restore is under way, or was left half-way: then nothing was changed, and what it left in etcd goes \
                 with the next restore"
            );
        }
        Ok(store)
    }

    /// Ends the replica in good order: if it led, another one leads at once.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.shared.requests.clock.sleep(CLOSE_TIMEOUT) => {
                tracing::warn!("etcd was not told that this replica ends");
            }
        }
    }
}

/// Connects and reads everything, again and again until it goes well or cannot; `last` is the last failure.
async fn reach(
    options: &Options,
    keys: &Keys,
    clock: &Clock,
    random: &Random,
    last: &mut String,
) -> Result<(Requests, crate::load::Loaded), OpenError> {
    let mut client: Option<Requests> = None;
    let mut failures = 0;
    loop {
        let failure = match &client {
            None => match access::client(options).await {
                Ok(made) => {
                    let (clock, random) = (clock.clone(), random.clone());
                    client = Some(Requests { client: made, clock, random, timeout: options.request_timeout });
                    continue;
                }
                Err(error) => Failure::from(error),
            },
            Some(requests) => match load(requests, keys, &options.sealer).await {
                Ok(loaded) => return Ok((requests.clone(), loaded)),
                Err(LoadError::Contents(error)) => return Err(error.into()),
                Err(LoadError::Failed(failure)) => failure,
            },
        };
        if let Failure::Refused(reason) = failure {
            return Err(OpenError::Refused(reason));
        }
        failures += 1;
        failure.reason().clone_into(last);
        tracing::warn!(reason = failure.reason(), failures, "etcd does not answer yet");
        match &client {
            Some(requests) => requests.pause(failures, &failure).await,
            None => clock.sleep(crate::options::RETRY.1).await,
        }
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.shared.write(txn, None).await
    }

    fn snapshot(&self) -> Snapshot {
        self.shared.replica.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.shared.replica.feed(from)
    }

    async fn commit_as(&self, term: u64, txn: Txn) -> Result<Committed, CommitError> {
        if self.leadership.borrow().own_term() != Some(term) || term == 0 {
            return Err(CommitError::Fenced(term));
        }
        self.shared.write(txn, Some(term)).await
    }

    async fn replace_all(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        // Large, because of everything that may go wrong.
        Box::pin(self.shared.replace_all(replacement)).await
    }

    async fn read_barrier(&self) -> Result<(), CommitError> {
        read::barrier(&self.shared).await
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn health(&self) -> Health {
        self.shared.health()
    }
}
