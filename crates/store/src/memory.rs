//! The memory backend: for tests, and for a control plane that may forget.

use std::sync::Arc;

use async_trait::async_trait;
use graticule_model::Timestamp;
use parking_lot::Mutex;

use crate::history::{HISTORY_LEN_DEFAULT, History};
use crate::{CommitError, Committed, Feed, Replacement, Revision, Snapshot, Store, Txn, transaction};

type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A store that lives as long as its process.
pub struct MemoryStore {
    history: History,
    writer: Mutex<()>,
    now: Now,
}

impl MemoryStore {
    /// An empty store. `now` is asked for transactions that name no time.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> MemoryStore {
        MemoryStore::with_history(now, HISTORY_LEN_DEFAULT)
    }

    /// Like [`new`](Self::new), with another bound on the batches that are kept for readers.
    pub fn with_history(now: impl Fn() -> Timestamp + Send + Sync + 'static, len_max: usize) -> MemoryStore {
        MemoryStore {
            history: History::new(Snapshot::empty(), len_max),
            writer: Mutex::new(()),
            now: Arc::new(now),
        }
    }

    /// [`Store::commit`] without waiting: this backend never does.
    pub fn commit_now(&self, txn: Txn) -> Result<Committed, CommitError> {
        let _one_writer = self.writer.lock();
        let applied = transaction::apply(&self.history.snapshot(), txn, (self.now)())?;
        let revision = applied.batch.revision;
        if !applied.batch.changes.is_empty() {
            self.history.publish(applied.snapshot, applied.batch.clone());
        }
        Ok(Committed { revision, batch: applied.batch })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.commit_now(txn)
    }

    async fn replace_all(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        let _one_writer = self.writer.lock();
        let after = transaction::replace(&self.history.snapshot(), replacement)?;
        let revision = after.revision();
        self.history.reset(after);
        Ok(revision)
    }

    fn snapshot(&self) -> Snapshot {
        self.history.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.history.watch(from)
    }
}

#[cfg(test)]
mod tests;
