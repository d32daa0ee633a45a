//! The [`Store`] trait: transactions with preconditions, revisions and a resumable change feed; the memory
//! backend; the conformance suite that every backend passes.
//!
//! All resources live in memory as immutable `Arc`s; reads never leave the process (DESIGN decision 5).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use graticule_model::{Key, Resource, Timestamp};
use tokio::sync::watch;

/// Monotonic number of a committed batch; 0 = nothing was ever committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A set of writes that happens wholly or not at all.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    /// Time that is written as creation and modification time: part of the proposal, so that applying it is
    /// deterministic on every replica.
    pub at: Option<Timestamp>,
    /// The writes; a key appears at most once.
    pub writes: Vec<Write>,
}

/// One write.
#[derive(Debug, Clone)]
pub enum Write {
    /// Creates or replaces. The store assigns times and version; owner, labels, spec and status are taken as
    /// given (an absent owner keeps the stored one on update). A put that changes nothing is no change:
    /// version and times stay, unless `touch`.
    Put {
        /// What to store.
        resource: Box<Resource>,
        /// Precondition.
        expect: Expect,
        /// Move the modification time even when nothing changes (REST semantics).
        touch: bool,
    },
    /// Removes, with everything that it owns (transitively).
    Delete {
        /// What to remove.
        key: Key,
        /// Precondition.
        expect: Expect,
    },
}

/// Precondition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// None.
    Any,
    /// The key must be free.
    Absent,
    /// The key must be taken.
    Present,
    /// The key must be taken at this version.
    Version(u64),
}

/// Why a transaction did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// `Absent` was expected.
    #[error("resource already exists: {0}")]
    Exists(Key),
    /// `Present` or `Version` was expected.
    #[error("resource not found: {0}")]
    NotFound(Key),
    /// `Version` was expected.
    #[error("resource conflict: {key} (version {current} is stored)")]
    Conflict {
        /// The resource.
        key: Key,
        /// Stored version.
        current: u64,
    },
    /// The owner of a new resource does not exist.
    #[error("owner of {key} does not exist: {owner}")]
    OwnerMissing {
        /// The resource.
        key: Key,
        /// Its owner.
        owner: Key,
    },
    /// The store was expected to be at another revision.
    #[error("the store is at revision {current}, not at {expected} any more")]
    Moved {
        /// What the caller looked at.
        expected: Revision,
        /// What is stored.
        current: Revision,
    },
    /// The transaction itself is malformed.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    /// The store cannot write now; nothing was written.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The leader of this term asked for the write, and the term is over; nothing was written.
    #[error("leadership of term {0} is over")]
    Fenced(u64),
    /// The answer was lost: the write may have happened or may still happen, once. Read before writing again.
    #[error("outcome of the write is unknown: {0}")]
    Uncertain(String),
}

/// Who leads the replicas of a store. One leader runs what must run once (generators, federation).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Grows with every change of leader and never goes back; the fencing token of [`Store::commit_as`].
    pub term: u64,
    /// The leader of the term, as far as this replica knows.
    pub leader: Leader,
}

/// The leader of a term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// An election is on, or this replica is cut off.
    Unknown,
    /// This replica.
    Myself,
    /// The replica of this name.
    Other(String),
}

impl Leadership {
    /// A store without other replicas leads for ever.
    pub const ALONE: Leadership = Leadership { term: 1, leader: Leader::Myself };

    /// The term, if this replica leads.
    pub fn own_term(&self) -> Option<u64> {
        (self.leader == Leader::Myself).then_some(self.term)
    }
}

/// What a store can do now. Reads always work, on what this replica has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Reads are current and writes are taken.
    Ready,
    /// Reads may be old: the replica has not caught up since it started, or sees no leader. The reason.
    Stale(String),
    /// Writes fail: disk full, no majority. The reason.
    ReadOnly(String),
}

/// Everything that a store is to hold, in place of what it holds; for restoring a backup.
#[derive(Clone, Default)]
pub struct Replacement {
    /// The resources. They are stored as they are: with their versions, times and owners.
    pub resources: Vec<Arc<Resource>>,
    /// Only if the store is at this revision; absent: whatever it holds.
    pub expect: Option<Revision>,
    /// The revision that it becomes is above this one, and above the store's own.
    pub above: Revision,
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Contents stay out of logs: there are secrets among them.
        let len = self.resources.len();
        f.debug_struct("Replacement").field("len", &len).field("expect", &self.expect).finish_non_exhaustive()
    }
}

/// A committed transaction.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Revision of the batch; the current revision when nothing changed.
    pub revision: Revision,
    /// What changed.
    pub batch: Arc<ChangeBatch>,
}

/// Everything that one revision changed.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeBatch {
    /// Its number.
    pub revision: Revision,
    /// The transaction's time.
    pub committed_at: Timestamp,
    /// Changes; each key at most once; no no-ops.
    pub changes: Vec<Change>,
}

/// What happened to one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// Before; none = created.
    pub old: Option<Arc<Resource>>,
    /// After; none = deleted.
    pub new: Option<Arc<Resource>>,
}

/// What a feed yields.
#[derive(Debug, Clone)]
pub enum Event {
    /// One revision, in order, without gaps.
    Batch(Arc<ChangeBatch>),
    /// Everything at once: at the start, or because the reader lagged behind the bounded history.
    /// The next batch follows the snapshot's revision.
    Resync(Snapshot),
}

/// A bounded, resumable reader of changes.
#[async_trait]
pub trait Feed: Send {
    /// The next event; `None` when the store is closed. Cancel-safe.
    async fn next(&mut self) -> Option<Event>;
}

/// A store of resources.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies a transaction; when it returns, the batch is durable (as far as the backend is) and readable.
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError>;

    /// A consistent, immutable view of everything.
    fn snapshot(&self) -> Snapshot;

    /// Changes after `from`; `None`, or a revision outside the kept history, starts with a [`Event::Resync`].
    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed>;

    /// As [`commit`](Self::commit), but only while the caller's leadership of `term` lasts: once another leader
    /// was elected, the write fails with [`CommitError::Fenced`], however late it arrives.
    async fn commit_as(&self, term: u64, txn: Txn) -> Result<Committed, CommitError> {
        if self.leadership().borrow().own_term() != Some(term) {
            return Err(CommitError::Fenced(term));
        }
        self.commit(txn).await
    }

    /// Replaces everything at once: readers see all of what was stored before, or all of what is stored now, and
    /// every feed gets one [`Event::Resync`]. Crash-safe: until it is done, nothing is changed, and what is half
    /// prepared disappears by itself. Writes that happen meanwhile are replaced, too, unless `expect` forbids it.
    /// Not bound by the size of a transaction.
    async fn replace_all(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        let _ = replacement;
        Err(CommitError::Unavailable("this backend cannot replace everything that it holds".into()))
    }

    /// Returns once everything that was acknowledged before the call, on any replica, is readable here: a read of
    /// [`snapshot`](Self::snapshot) after it is linearizable. A store without other replicas is always there.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`]: no leader answered in time.
    async fn read_barrier(&self) -> Result<(), CommitError> {
        Ok(())
    }

    /// Who leads, now and later. When the sender is gone, it stays as it is.
    fn leadership(&self) -> watch::Receiver<Leadership> {
        watch::channel(Leadership::ALONE).1
    }

    /// What works now.
    fn health(&self) -> Health {
        Health::Ready
    }
}

impl Txn {
    /// Puts one resource, whatever is stored.
    pub fn put(resource: Resource) -> Txn {
        Txn::default().and_put(resource, Expect::Any)
    }

    /// Deletes one resource, whether it is stored or not.
    pub fn delete(key: Key) -> Txn {
        Txn::default().and_delete(key, Expect::Any)
    }

    /// One put more.
    pub fn and_put(mut self, resource: Resource, expect: Expect) -> Txn {
        self.writes.push(Write::Put { resource: Box::new(resource), expect, touch: false });
        self
    }

    /// One delete more.
    pub fn and_delete(mut self, key: Key, expect: Expect) -> Txn {
        self.writes.push(Write::Delete { key, expect });
        self
    }
}

pub mod backup;
pub mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod history;
mod memory;
pub mod seal;
mod shelf;
mod snapshot;
pub mod status;
pub mod transaction;
pub mod wire;

pub use memory::MemoryStore;
pub use snapshot::Snapshot;
