//! [`RaftStore`]: the [`Store`] over one member.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use graticule_runtime::{Clock, Random};
use graticule_store::{
    CommitError, Committed, Feed, Health, Leader, Leadership, Replacement, Revision, Snapshot, Store, Txn,
};
use openraft::errors::{ClientWriteError, RaftError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::disk::{Disk, DiskFile};
use crate::log::{FileError, Log};
use crate::machine::{Machine, ProposalId, blocking};
use crate::network::{Connector, ForwardAnswer, Network, Peer};
use crate::node::{self, Running, Shared};
use crate::options::{Options, TXN_LEN_MAX, WRITES_MAX};
use crate::types::Proposed;
use crate::{cluster, codec, follow, identity, read, snapshot, wire};

/// Time that work on files has to end when a store is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A disk that tells when nobody has it any more: tasks of openraft end a little later than its core.
struct HeldDisk {
    disk: Arc<dyn Disk>,
    _released: DropGuard,
}

impl Disk for HeldDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn delay(&self) -> Option<Duration> {
        self.disk.delay()
    }
}

/// What a member needs from outside.
pub struct Deps {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Connects to other members; none for a member that stands alone.
    pub connector: Option<Connector>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The machine refuses.
    #[error("the store cannot be opened")]
    Io(#[from] io::Error),
    /// The member does not start.
    #[error("the store does not start: {0}")]
    Start(String),
}

/// A store whose writes are durable and, with several members, replicated. Dropping it, or
/// [`close`](Self::close), ends the member.
pub struct RaftStore {
    pub(crate) shared: Arc<Shared>,
    leadership: watch::Receiver<Leadership>,
    writes: Semaphore,
    tasks: TaskTracker,
    /// Once nobody has the data directory any more.
    released: CancellationToken,
}

impl RaftStore {
    /// Opens the data directory, or makes it. A member that stands alone has everything that was ever
    /// acknowledged when this returns.
    ///
    /// # Errors
    /// A file is damaged or of a newer version, or the machine refuses.
    pub async fn open(options: Options, deps: Deps) -> Result<RaftStore, OpenError> {
        let Deps { disk, clock, random, connector } = deps;
        let released = CancellationToken::new();
        let disk: Arc<dyn Disk> = Arc::new(HeldDisk { disk, _released: released.clone().drop_guard() });
        let (history_len, log_options, numbers) = (options.history_len, options.log, random.clone());
        let snapshot_files = options.files();
        let files = blocking(log_options.inline, move || -> Result<_, OpenError> {
            let node = identity::read(&disk)?;
            snapshot::remove_unfinished(&disk)?;
            let log = Log::open(disk.clone(), log_options, node.is_none(), false)?;
            let node = match node {
                Some(node) => node,
                // Only a log without entries may have lost its file `node`: it was never started.
                None if log.is_unused() => {
                    // The cluster is named once it is there.
                    let node = wire::Node { id: identity::new_id(&numbers), cluster: String::new() };
                    identity::write(&disk, &node)?;
                    node
                }
                None => return Err(FileError::Missing { path: disk.path("node") }.into()),
            };
            let contents = match snapshot::newest(&disk)? {
                Some(file) => Some(snapshot::read(&file, &snapshot_files)?),
                None => None,
            };
            let covered = contents.as_ref().and_then(|contents| contents.meta.last_log_id);
            if let Some(purged) = log.purged()
                && covered.is_none_or(|covered| covered.index < purged)
            {
                let path = disk.path(&format!("snapshot-{purged:016x}-… or a later one"));
                return Err(FileError::Missing { path }.into());
            }
            let machine = Machine::new(disk, contents, history_len, log_options.inline, snapshot_files);
            Ok((node, log, machine))
        });
        let (node, log, machine) = files.await??;
        let leadership = Leadership { term: 0, leader: Leader::Unknown };
        let (leadership, watching) = watch::channel(leadership);
        let network = Network {
            connector,
            from: node.id,
            cluster: Arc::new(Mutex::new(node.cluster)),
            members: Arc::default(),
            is_removed: Arc::default(),
            lost: Arc::default(),
            inline: options.log.inline,
        };
        let (recover, requests) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            id: node.id,
            network,
            leader: Mutex::new(None),
            heard: Mutex::new(None),
            is_caught_up: AtomicBool::new(false),
            recover,
            options,
            clock,
            random,
            machine: Arc::new(machine),
            running: RwLock::new(None),
            leadership,
            health: RwLock::new(Health::Stale("the store starts".into())),
            closing: CancellationToken::new(),
        });
        let running = node::start(&shared, log).await?;
        node::recovered(&shared, &running).await?;
        follow::note_now(&shared, &running);
        *shared.running.write() = Some(running.clone());
        if shared.machine.is_outdated() {
            // Secrets that are plain, or encrypted with a former key, are written again.
            running.raft.trigger().snapshot().await.map_err(|error| OpenError::Start(error.to_string()))?;
        }
        let tasks = TaskTracker::new();
        // Lives as long as the store, which parts of the process need until their own end.
        tasks.spawn(node::run(shared.clone(), running, requests));
        tasks.spawn(follow::arrive(shared.clone()));
        tasks.close();
        Ok(RaftStore { shared, leadership: watching, writes: Semaphore::new(WRITES_MAX), tasks, released })
    }

    /// Ends the member in good order, a leader by handing over first; returns when its files are closed.
    pub async fn close(&self) {
        cluster::hand_over(&self.shared).await;
        self.shared.closing.cancel();
        self.tasks.wait().await;
        self.shared.machine.release_disk();
        tokio::select! {
            () = self.released.cancelled() => {}
            () = self.shared.clock.sleep(CLOSE_TIMEOUT) => {
                tracing::warn!("the files of the store are still in use");
            }
        }
    }

    /// Takes a snapshot now, so that the log can be shortened.
    ///
    /// # Errors
    /// The member does not run.
    pub async fn take_snapshot(&self) -> Result<(), CommitError> {
        let running = self.shared.running().ok_or_else(|| self.unavailable())?;
        running.raft.trigger().snapshot().await.map_err(|error| CommitError::Unavailable(error.to_string()))
    }

    fn unavailable(&self) -> CommitError {
        let reason = match self.health() {
            Health::ReadOnly(reason) | Health::Stale(reason) => reason,
            Health::Ready => "the store starts".into(),
        };
        CommitError::Unavailable(reason)
    }

    async fn write(&self, mut txn: Txn, fence: u64) -> Result<Committed, CommitError> {
        txn.at.get_or_insert_with(|| self.shared.clock.now());
        let sealer = self.shared.machine.sealer();
        let txn = codec::encode_txn(&txn, sealer);
        // Every replica applies what it decodes; what could not be decoded must not get into the log.
        codec::decode_txn(txn.clone(), sealer).map_err(|error| CommitError::Invalid(error.to_string()))?;
        self.send(wire::Proposal { fence, txn: Some(txn), ..wire::Proposal::default() }).await
    }

    /// Has a proposal applied, once.
    pub(crate) async fn send(&self, mut proposal: wire::Proposal) -> Result<Committed, CommitError> {
        let id: ProposalId = self.shared.random.bytes16();
        proposal.id = Bytes::copy_from_slice(&id);
        proposal.floor = self.shared.machine.applied();
        let bytes = codec::bytes(&proposal);
        drop(proposal);
        if bytes.len() > TXN_LEN_MAX {
            let reason = format!("it has {} bytes, more than {TXN_LEN_MAX}", bytes.len());
            return Err(CommitError::Invalid(reason));
        }
        let _permit = self.writes.acquire().await.map_err(|_| self.unavailable())?;
        let mut waiter =
            Waiter { machine: &self.shared.machine, id, answer: self.shared.machine.wait_for(id) };
        let mut attempt = Attempt { sent: false, reason: "there is no leader".into() };
        tokio::select! {
            biased;
            answer = self.propose(&bytes, &mut waiter.answer, &mut attempt) => answer,
            () = self.shared.clock.sleep(self.shared.options.write_timeout) => Err(attempt.failed()),
        }
    }

    /// Sends a proposal to the leader until there is an answer.
    async fn propose(
        &self,
        bytes: &Bytes,
        answer: &mut oneshot::Receiver<Result<Committed, CommitError>>,
        attempt: &mut Attempt,
    ) -> Result<Committed, CommitError> {
        let mut leadership = self.leadership.clone();
        loop {
            leadership.borrow_and_update();
            let Some(Running { raft, log }) = self.shared.running() else {
                if attempt.sent {
                    return Err(CommitError::Uncertain(attempt.reason.clone()));
                }
                return Err(self.unavailable());
            };
            if !log.has_room(bytes.len() as u64) {
                attempt.reason = "the disk is full; reads go on".into();
                return Err(attempt.failed());
            }
            let was_sent = std::mem::replace(&mut attempt.sent, true);
            let written = tokio::select! {
                biased;
                written = raft.client_write(Proposed(bytes.clone())) => written,
                // Only an earlier attempt can be answered before this one ends.
                answered = &mut *answer, if was_sent => {
                    return answered.unwrap_or_else(|_| Err(attempt.failed()));
                }
            };
            match written {
                // The state machine has answered before openraft did, unless it knew the proposal already.
                Ok(_) => return answer.await.unwrap_or_else(|_| Err(attempt.failed())),
                // It was refused before it came into the log.
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                    attempt.sent = was_sent;
                    attempt.reason = "there is no leader".into();
                    if let (Some(id), Some(member)) = (forward.leader_id, forward.leader_node)
                        && id != self.shared.id
                    {
                        let leader = self.shared.peer(id, member);
                        if let Some(answer) = self.forward(leader, bytes, answer, attempt).await {
                            return answer;
                        }
                    }
                }
                Err(RaftError::APIError(error)) => attempt.reason = error.to_string(),
                Err(RaftError::Fatal(error)) => {
                    attempt.reason = error.to_string();
                    return Err(attempt.failed());
                }
            }
            // Something changes before it makes sense to try again.
            tokio::select! {
                biased;
                _ = leadership.changed() => {}
                () = self.shared.clock.sleep(self.shared.options.heartbeat) => {}
            }
        }
    }

    /// Hands a proposal to the leader. None = try again.
    async fn forward(
        &self,
        leader: Arc<Peer>,
        bytes: &Bytes,
        answer: &mut oneshot::Receiver<Result<Committed, CommitError>>,
        attempt: &mut Attempt,
    ) -> Option<Result<Committed, CommitError>> {
        let was_sent = std::mem::replace(&mut attempt.sent, true);
        let (shared, bytes) = (self.shared.clone(), bytes.clone());
        // Of its own, so that the connection can be used again when the answer comes another way.
        let call = self.tasks.spawn(async move {
            let mut is_repeated = false;
            let forwarded = tokio::select! {
                biased;
                forwarded = leader.forward(bytes, shared.options.write_timeout, &mut is_repeated) => forwarded,
                () = shared.closing.cancelled() => Err(io::Error::other("the store is closed")),
            };
            (forwarded, is_repeated)
        });
        let (forwarded, is_repeated) = tokio::select! {
            biased;
            answered = &mut *answer => return Some(answered.unwrap_or_else(|_| Err(attempt.failed()))),
            ended = call => ended.unwrap_or_else(|error| (Err(io::Error::other(error)), true)),
        };
        let was_sent = was_sent || is_repeated;
        let reason = match forwarded {
            // It comes to this member, too, or a snapshot that has it.
            Ok(ForwardAnswer::Applied) => {
                attempt.reason = "this member has not seen it yet".into();
                return Some((&mut *answer).await.unwrap_or_else(|_| Err(attempt.failed())));
            }
            Ok(ForwardAnswer::Unknown) => {
                attempt.reason = "the leader lost its leadership".into();
                return None;
            }
            Ok(ForwardAnswer::NotLeader) => {
                attempt.sent = was_sent;
                return None;
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::NotConnected {
                    attempt.sent = was_sent;
                }
                attempt.reason = format!("the leader does not answer: {error}");
                return None;
            }
            Ok(ForwardAnswer::Unavailable) => "the leader cannot write; reads go on",
            Ok(ForwardAnswer::Removed) => follow::REMOVED,
        };
        (attempt.sent, attempt.reason) = (was_sent, reason.into());
        (!was_sent).then(|| Err(attempt.failed()))
    }
}

/// How far a write has come.
struct Attempt {
    /// Whether it may be in a log.
    sent: bool,
    reason: String,
}

impl Attempt {
    fn failed(&self) -> CommitError {
        if self.sent {
            CommitError::Uncertain(self.reason.clone())
        } else {
            CommitError::Unavailable(self.reason.clone())
        }
    }
}

/// Somebody who waits for an answer, until dropped.
struct Waiter<'a> {
    machine: &'a Machine,
    id: ProposalId,
    answer: oneshot::Receiver<Result<Committed, CommitError>>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.machine.give_up(&self.id);
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

#[async_trait]
impl Store for RaftStore {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.write(txn, 0).await
    }

    fn snapshot(&self) -> Snapshot {
        self.shared.machine.history.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.shared.machine.history.watch(from)
    }

    async fn commit_as(&self, term: u64, txn: Txn) -> Result<Committed, CommitError> {
        if self.leadership.borrow().own_term() != Some(term) || term == 0 {
            return Err(CommitError::Fenced(term));
        }
        self.write(txn, term).await
    }

    async fn replace_all(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        let term = self.leadership.borrow().term;
        self.replace(replacement, term).await
    }

    async fn read_barrier(&self) -> Result<(), CommitError> {
        read::barrier(&self.shared).await
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn health(&self) -> Health {
        if let Some(running) = self.shared.running()
            && !running.log.has_room(0)
        {
            return Health::ReadOnly("the disk is full".into());
        }
        self.shared.health.read().clone()
    }
}
