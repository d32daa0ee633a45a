//! [`Replica`]: this replica's copy of everything, and where in etcd's history it is.

use std::collections::HashMap;
use std::sync::Arc;

use graticule_model::{Key, Resource, Timestamp};
use graticule_store::codec;
use graticule_store::history::History;
use graticule_store::transaction::Applied;
use graticule_store::{Change, ChangeBatch, Committed, Feed, Revision, Snapshot};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::failure::ContentsError;
use crate::load::Loaded;
use crate::wire::Head;

/// Identity of a transaction.
pub(crate) type ProposalId = [u8; 16];

/// The copy. Written by whoever learns first what is next: the writer of a transaction, or the watch.
pub(crate) struct Replica {
    history: History,
    state: Mutex<State>,
    /// Revision of etcd that last changed the head, as in `state`.
    head: watch::Sender<i64>,
    /// Transactions whose writers still wait, and what became of them.
    waiting: Mutex<HashMap<ProposalId, Option<Committed>>>,
}

struct State {
    snapshot: Snapshot,
    head: i64,
    /// Revision of etcd up to which everything was seen.
    seen: i64,
    store: String,
    generation: String,
    /// How often everything was read again.
    resets: u64,
}

/// Where the copy is.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// Everything.
    pub(crate) snapshot: Snapshot,
    /// Revision of etcd that last changed the head; 0 = there is none.
    pub(crate) head: i64,
    /// The store; empty = nothing was ever written.
    pub(crate) store: String,
    /// Generation of its resources.
    pub(crate) generation: String,
    /// Changes when transactions may have been missed.
    pub(crate) resets: u64,
}

/// What another replica did to one key.
#[derive(Debug, Clone)]
pub(crate) struct Delta {
    /// The key.
    pub(crate) key: Key,
    /// What is stored now.
    pub(crate) new: Option<Resource>,
}

impl Replica {
    /// A copy of what was read.
    pub(crate) fn new(loaded: Loaded, history_len: usize) -> Replica {
        let Described { head, store, generation, revision } = describe(&loaded);
        let snapshot = Snapshot::restore(revision, loaded.resources.into_iter().map(Arc::new));
        Replica {
            history: History::new(snapshot.clone(), history_len),
            state: Mutex::new(State { snapshot, head, seen: loaded.at, store, generation, resets: 0 }),
            head: watch::channel(head).0,
            waiting: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.history.snapshot()
    }

    pub(crate) fn feed(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.history.watch(from)
    }

    pub(crate) fn position(&self) -> Position {
        let state = self.state.lock();
        Position {
            snapshot: state.snapshot.clone(),
            head: state.head,
            store: state.store.clone(),
            generation: state.generation.clone(),
            resets: state.resets,
        }
    }

    /// Tells when the copy moves: the revision of etcd that last changed the head.
    pub(crate) fn moves(&self) -> watch::Receiver<i64> {
        self.head.subscribe()
    }

    /// Revision of etcd up to which everything was seen.
    pub(crate) fn seen(&self) -> i64 {
        let state = self.state.lock();
        state.seen.max(state.head)
    }

    /// Everything up to here was seen.
    pub(crate) fn note_seen(&self, at: i64) {
        let mut state = self.state.lock();
        state.seen = state.seen.max(at);
    }

    /// Transactions of this replica, computed at `from`, took place at `at`.
    pub(crate) fn advance(&self, from: &Position, at: i64, store: &str, applied: &[Applied]) {
        let mut state = self.state.lock();
        // Otherwise the watch was faster.
        if state.head == from.head && !applied.is_empty() {
            store.clone_into(&mut state.store);
            let applied = applied.iter().map(|one| (one.snapshot.clone(), one.batch.clone()));
            self.publish(&mut state, at, applied.collect());
        }
    }

    /// Another replica's transactions took place at `at`; or some of this replica, whose answer is still on its way.
    /// `deltas` are in the order in which they were written.
    pub(crate) fn follow(&self, at: i64, head: &Head, deltas: Vec<Delta>) -> Result<(), ContentsError> {
        let mut state = self.state.lock();
        state.seen = state.seen.max(at);
        if at <= state.head {
            return Ok(());
        }
        if !state.store.is_empty() && state.store != head.store {
            return Err(ContentsError::WentBack("another store took the place of this one in etcd".into()));
        }
        if state.generation != head.generation {
            return Err(ContentsError::Damaged("everything was replaced".into()));
        }
        let revision = Revision(head.revision);
        if Some(state.snapshot.revision().0) != revision.0.checked_sub(head.earlier.len() as u64 + 1) {
            let reason = format!("revision {revision} follows revision {}", state.snapshot.revision());
            return Err(ContentsError::Damaged(reason));
        }
        let mut applied = Vec::with_capacity(head.earlier.len() + 1);
        let mut before = state.snapshot.clone();
        for (committed_at, deltas) in split(head, deltas)? {
            let batch = Arc::new(batch(&before, committed_at, deltas)?);
            before = before.with(&batch);
            applied.push((before.clone(), batch));
        }
        let last = applied.last().map(|(_, batch)| batch.clone());
        state.store.clone_from(&head.store);
        self.publish(&mut state, at, applied);
        let Ok(id) = ProposalId::try_from(head.proposal.as_ref()) else { return Ok(()) };
        if let Some(outcome) = self.waiting.lock().get_mut(&id) {
            *outcome = last.map(|batch| Committed { revision, batch });
        }
        Ok(())
    }

    fn publish(&self, state: &mut State, at: i64, applied: Vec<(Snapshot, Arc<ChangeBatch>)>) {
        for (snapshot, batch) in applied {
            state.snapshot = snapshot.clone();
            self.history.publish(snapshot, batch);
        }
        state.head = at;
        self.head.send_replace(at);
    }

    /// Everything was read again, because part of the history is gone. Readers resynchronise once, if anything is new;
    /// what is not new stays the same object. Tells whether anything is.
    pub(crate) fn replace(&self, loaded: Loaded) -> Result<bool, ContentsError> {
        let Described { head, store, generation, revision } = describe(&loaded);
        let proposal = loaded.head.as_ref().map(|(_, head)| head.proposal.clone()).unwrap_or_default();
        let mut state = self.state.lock();
        let known = state.snapshot.revision();
        if loaded.at < state.head {
            // This replica wrote while everything was read: the copy is newer, and has no gap. (That etcd itself went
            // back shows when the watch begins.)
            return Ok(false);
        }
        if !state.store.is_empty() && state.store != store {
            return Err(ContentsError::WentBack("another store took the place of this one in etcd".into()));
        }
        if revision < known || head < state.head {
            let reason = format!("etcd has revision {revision} of the store, and this replica saw {known}");
            return Err(ContentsError::WentBack(reason));
        }
        state.seen = loaded.at;
        if head == state.head {
            return Ok(false);
        }
        let old = state.snapshot.clone();
        let kept = loaded.resources.into_iter().map(|new| match old.get(&new.key()) {
            Some(old) if *old == new => old,
            _ => Arc::new(new),
        });
        state.snapshot = Snapshot::restore(revision, kept);
        state.head = head;
        (state.store, state.generation) = (store, generation);
        state.resets += 1;
        if let Ok(id) = ProposalId::try_from(proposal.as_ref())
            && let Some(outcome) = self.waiting.lock().get_mut(&id)
        {
            // The changes are part of what was read.
            let batch = ChangeBatch { revision, committed_at: Timestamp::UNIX_EPOCH, changes: Vec::new() };
            *outcome = Some(Committed { revision, batch: Arc::new(batch) });
        }
        self.history.reset(state.snapshot.clone());
        self.head.send_replace(head);
        Ok(true)
    }

    /// Remembers what becomes of a transaction, until dropped.
    pub(crate) fn wait_for(&self, id: ProposalId) -> Waiting<'_> {
        self.waiting.lock().insert(id, None);
        Waiting { replica: self, id }
    }
}

/// Somebody who waits for the outcome of a transaction.
pub(crate) struct Waiting<'a> {
    replica: &'a Replica,
    id: ProposalId,
}

impl Waiting<'_> {
    /// What the watch saw of it.
    pub(crate) fn outcome(&self) -> Option<Committed> {
        self.replica.waiting.lock().get(&self.id).cloned().flatten()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.replica.waiting.lock().remove(&self.id);
    }
}

struct Described {
    head: i64,
    store: String,
    generation: String,
    revision: Revision,
}

fn describe(loaded: &Loaded) -> Described {
    let nothing = Head::default();
    let (head, said) = loaded.head.as_ref().map_or((0, &nothing), |(at, head)| (*at, head));
    Described {
        head,
        store: said.store.clone(),
        generation: said.generation.clone(),
        revision: Revision(said.revision),
    }
}

/// When a transaction was, and what it did.
type Part = (Option<graticule_store::wire::Time>, Vec<Delta>);

/// The transactions that were written together.
fn split(head: &Head, mut deltas: Vec<Delta>) -> Result<Vec<Part>, ContentsError> {
    let mut parts = Vec::with_capacity(head.earlier.len() + 1);
    for earlier in &head.earlier {
        let len = earlier.changes as usize;
        if len > deltas.len() {
            return Err(ContentsError::Damaged("transactions have more changes than there are".into()));
        }
        let rest = deltas.split_off(len);
        parts.push((earlier.committed_at, std::mem::replace(&mut deltas, rest)));
    }
    parts.push((head.committed_at, deltas));
    Ok(parts)
}

/// The batch that follows `before`.
fn batch(
    before: &Snapshot,
    committed_at: Option<graticule_store::wire::Time>,
    mut deltas: Vec<Delta>,
) -> Result<ChangeBatch, ContentsError> {
    let committed_at = match committed_at {
        Some(time) => codec::decode_time(time)
            .map_err(|source| ContentsError::Unreadable { key: "head".into(), source })?,
        None => Timestamp::UNIX_EPOCH,
    };
    deltas.sort_by(|left, right| left.key.cmp(&right.key));
    let mut changes = Vec::with_capacity(deltas.len());
    for Delta { key, new } in deltas {
        let old = before.get(&key);
        if old.is_none() && new.is_none() {
            return Err(ContentsError::Damaged(format!("{key} was deleted and never existed")));
        }
        changes.push(Change { key, old, new: new.map(Arc::new) });
    }
    let revision = Revision(before.revision().0 + 1);
    Ok(ChangeBatch { revision, committed_at, changes })
}

#[cfg(test)]
mod tests;
