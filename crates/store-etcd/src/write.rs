//! Writes: computed on this replica's copy, written to etcd under guards, and again if another replica was faster.
//!
//! One request is under way at a time, because the next one is computed on it. What comes meanwhile goes together into
//! one transaction of etcd (*group*), as far as it changes different resources: etcd takes each key once. Each write
//! keeps a revision, an outcome and an error of its own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use etcd_client::TxnOp;
use graticule_model::{Key, Timestamp};
use graticule_store::seal::Sealer;
use graticule_store::transaction::{self, Applied};
use graticule_store::{ChangeBatch, CommitError, Committed, Txn, codec};
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Failure, too_large};
use crate::keys::Keys;
use crate::options::TXN_OPS_MAX;
use crate::replica::{Position, ProposalId};
use crate::request::Guarded;
use crate::store::Shared;
use crate::wire::{Earlier, Head, format_of};

/// Bytes that an operation takes in a request beside its key and value, at most.
pub(crate) const OPERATION_OVERHEAD: usize = 32;
/// Operations that fit into one request, one level nested.
const OPS_MAX: usize = (TXN_OPS_MAX / 2) * (TXN_OPS_MAX / 2);
/// Writes that go together, at most.
const GROUP_MAX: usize = 256;
/// What a write is told that was never sent.
const NO_TURN: &str = "it takes too long to get a turn";

type Outcome = Result<Committed, CommitError>;

/// A write that waits.
pub(crate) struct Pending {
    txn: Txn,
    term: Option<u64>,
    ticket: Arc<Ticket>,
    reply: oneshot::Sender<Outcome>,
}

/// Whether a write may have its effect.
#[derive(Debug, Default)]
struct Ticket(AtomicU8);

impl Ticket {
    const WAITS: u8 = 0;
    const TAKEN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// From here on it may have its effect. Not if its writer has given up.
    fn take(&self) -> bool {
        self.change(Ticket::WAITS, Ticket::TAKEN) || self.0.load(Ordering::Acquire) == Ticket::TAKEN
    }

    /// It had no effect for certain.
    fn release(&self) {
        self.change(Ticket::TAKEN, Ticket::WAITS);
    }

    /// The writer waits no longer; whether it is certain that nothing happens.
    fn give_up(&self) -> bool {
        self.change(Ticket::WAITS, Ticket::GIVEN_UP)
    }
}

impl Shared {
    /// Commits; with a term, only as its leader.
    pub(crate) async fn write(&self, mut txn: Txn, term: Option<u64>) -> Outcome {
        let closed = || CommitError::Unavailable("the store is closed".into());
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        txn.at.get_or_insert_with(|| self.requests.clock.now());
        // Every replica has what it decodes; this one too.
        let sealer = &*self.options.sealer;
        let txn = codec::decode_txn(codec::encode_txn(&txn, sealer), sealer)
            .map_err(|error| CommitError::Invalid(error.to_string()))?;
        let ticket = Arc::new(Ticket::default());
        let (reply, mut answer) = oneshot::channel();
        let pending = Pending { txn, term, ticket: ticket.clone(), reply };
        let written = tokio::select! {
            biased;
            written = self.submit(pending, &mut answer) => written,
            () = self.requests.clock.sleep(self.options.write_timeout) => None,
            () = self.closing.cancelled() => None,
        };
        if let Some(written) = written {
            return written;
        }
        let is_certain = ticket.give_up();
        // It may have come at the last moment.
        if let Ok(written) = answer.try_recv() {
            return written;
        }
        let reason = if self.closing.is_cancelled() {
            "the store is closed".to_owned()
        } else {
            Some(self.trouble.read().clone()).filter(|trouble| !trouble.is_empty()).unwrap_or(NO_TURN.into())
        };
        Err(if is_certain { CommitError::Unavailable(reason) } else { CommitError::Uncertain(reason) })
    }

    /// None: nobody answers.
    async fn submit(&self, pending: Pending, answer: &mut oneshot::Receiver<Outcome>) -> Option<Outcome> {
        self.writes.send(pending).await.ok()?;
        answer.await.ok()
    }
}

/// Writes until the store is closed.
pub(crate) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Pending>) {
    let mut waiting = VecDeque::new();
    let mut group_max = GROUP_MAX;
    let work = async {
        loop {
            if waiting.is_empty() {
                let Some(next) = queue.recv().await else { return };
                waiting.push_back(next);
            }
            while waiting.len() < group_max
                && let Ok(next) = queue.try_recv()
            {
                waiting.push_back(next);
            }
            let _turn = shared.turn.lock().await;
            Group::take(&shared, &mut waiting, group_max).write(&mut waiting, &mut group_max).await;
        }
    };
    tokio::select! {
        biased;
        () = shared.closing.cancelled() => {}
        () = work => {}
    }
}

/// Writes that go together.
struct Group<'a> {
    shared: &'a Shared,
    term: Option<u64>,
    members: Vec<Pending>,
    /// A request whose outcome is not known: where the copy was, and what each write came to if it took place.
    sent: Option<(Position, Vec<Outcome>)>,
}

impl<'a> Group<'a> {
    /// The first ones of those that wait, as far as they are guarded alike.
    fn take(shared: &'a Shared, waiting: &mut VecDeque<Pending>, max: usize) -> Group<'a> {
        let term = waiting.front().and_then(|first| first.term);
        let count = waiting.iter().take(max).take_while(|pending| pending.term == term).count();
        Group { shared, term, members: waiting.drain(..count).collect(), sent: None }
    }

    fn answer(self, outcomes: Vec<Outcome>) {
        for (pending, outcome) in self.members.into_iter().zip(outcomes) {
            // The writer may have gone.
            let _ = pending.reply.send(outcome);
        }
    }

    fn fail(self, error: impl Fn() -> CommitError) {
        for pending in self.members {
            // The writer may have gone.
            let _ = pending.reply.send(Err(error()));
        }
    }

    /// Nothing happened for certain, or, if a request is still unknown, perhaps.
    fn fail_with(self, reason: &str) {
        let is_sent = self.sent.is_some();
        self.fail(|| match is_sent {
            true => CommitError::Uncertain(reason.to_owned()),
            false => CommitError::Unavailable(reason.to_owned()),
        });
    }

    /// Those behind the first `count` wait for the next group.
    fn put_back(&mut self, count: usize, waiting: &mut VecDeque<Pending>) {
        for pending in self.members.drain(count..).rev() {
            pending.ticket.release();
            waiting.push_front(pending);
        }
    }

    fn release(&self) {
        if self.sent.is_none() {
            self.members.iter().for_each(|pending| pending.ticket.release());
        }
    }

    /// Tries until there is an answer, or nobody waits for one.
    async fn write(mut self, waiting: &mut VecDeque<Pending>, group_max: &mut usize) {
        let shared = self.shared;
        let id: ProposalId = shared.requests.random.bytes16();
        let seen = shared.replica.wait_for(id);
        let mut failures = 0;
        loop {
            if let Some(reason) = shared.stopped() {
                return self.fail_with(&reason.to_string());
            }
            let position = shared.replica.position();
            if let Some((before, _)) = &self.sent
                && before.head != position.head
            {
                // What was sent can take place no more. Did it?
                if seen.outcome().is_some() {
                    let outcomes = self.sent.take().map(|(_, outcomes)| outcomes).unwrap_or_default();
                    return self.answer(outcomes);
                }
                if before.resets != position.resets {
                    return self.fail_with("the answer was lost, and what etcd had meanwhile is gone");
                }
                self.sent = None;
                self.release();
            }
            match self.sent {
                None => self.members.retain(|pending| pending.ticket.take()),
                Some(_) if self.members.iter().all(|pending| pending.reply.is_closed()) => return,
                Some(_) => {}
            }
            if self.members.is_empty() {
                return;
            }
            let mut computed = shared.compute(&position, &self.members, id);
            if self.sent.is_none() {
                self.put_back(computed.outcomes.len(), waiting);
                // Those that write nothing have no effect whatever becomes of the request.
                let none = self.members.iter().zip(&computed.writes).filter(|(_, writes)| !**writes);
                none.for_each(|(pending, _)| pending.ticket.release());
            }
            let operations = std::mem::take(&mut computed.operations);
            let writes_nothing = operations.is_empty();
            let leader = self.term.and_then(|term| i64::try_from(term).ok());
            let (head_key, leader_key) = (shared.keys.head(), shared.keys.leader());
            let guarded =
                shared.requests.guarded((&head_key, position.head), (&leader_key, leader), operations);
            match guarded.await {
                Ok(Guarded::Done(at)) => {
                    shared.trouble.write().clear();
                    shared.replica.advance(&position, at, &computed.store, &computed.applied);
                    return self.answer(computed.outcomes);
                }
                Ok(Guarded::Moved { head, leader: now }) => {
                    self.release();
                    tokio::select! {
                        biased;
                        () = shared.caught_up(head, &position) => {}
                        () = shared.requests.clock.sleep(shared.requests.timeout) => {
                            "this replica does not follow etcd".clone_into(&mut shared.trouble.write());
                        }
                    }
                    if head == position.head && leader.is_some_and(|leader| leader != now) {
                        return self.fenced(seen.outcome().is_some());
                    }
                    failures = 0;
                }
                Err(failure) => {
                    let was_known = self.sent.is_none();
                    if failure.may_have_taken_place() && !writes_nothing {
                        self.sent.get_or_insert((position.clone(), computed.outcomes));
                    }
                    self.release();
                    let reason = Shared::explain(&failure);
                    shared.trouble.write().clone_from(&reason);
                    match failure {
                        Failure::Refused(_) if self.sent.is_none() => return self.fail_with(&reason),
                        Failure::NoSpace(_) => {
                            shared.note_no_space();
                            let has_moved = shared.has_moved(&position).await;
                            // It is over and changed nothing; what was sent before it may still come.
                            if was_known && matches!(has_moved, Ok(false)) {
                                self.sent = None;
                            }
                            if !matches!(has_moved, Ok(true)) {
                                return self.fail_with(&reason);
                            }
                        }
                        // etcd takes less than it is said to.
                        Failure::TooLarge(_) if self.sent.is_none() && self.members.len() > 1 => {
                            *group_max = 1;
                            self.put_back(1, waiting);
                            continue;
                        }
                        Failure::TooLarge(_) => {
                            let len_max = shared.options.request_len_max;
                            return self.fail(|| too_large(computed.len, len_max));
                        }
                        _ => {}
                    }
                    failures += 1;
                    shared.requests.pause(failures, &failure).await;
                }
            }
        }
    }

    /// The leader's key is not this replica's any more; the head is where it was, so nothing was written.
    fn fenced(mut self, took_place: bool) {
        let term = self.term.unwrap_or_default();
        match self.sent.take() {
            Some((_, outcomes)) if took_place => self.answer(outcomes),
            _ => self.fail(|| CommitError::Fenced(term)),
        }
    }
}

impl Shared {
    /// Waits until the copy is where etcd was, at least.
    pub(crate) async fn caught_up(&self, head: i64, position: &Position) {
        if head <= position.head {
            return;
        }
        let mut moves = self.replica.moves();
        // Ends when the replica does; the caller has a limit of time.
        let _ = moves.wait_for(|at| *at >= head).await;
    }

    /// Whether etcd's head is elsewhere than the copy was; if so, the copy is given time to get there.
    async fn has_moved(&self, position: &Position) -> Result<bool, Failure> {
        let head = self.requests.head(&self.keys.head()).await?;
        if head == position.head {
            return Ok(false);
        }
        tokio::select! {
            biased;
            () = self.caught_up(head, position) => {}
            () = self.requests.clock.sleep(self.requests.timeout) => {}
        }
        Ok(true)
    }

    /// What writes do to the copy, one after the other, and how etcd is told: of as many as go together.
    fn compute(&self, position: &Position, members: &[Pending], id: ProposalId) -> Computed {
        let store = match position.store.as_str() {
            "" => self.requests.random.uuid(),
            store => store.to_owned(),
        };
        let keys = self.keys.of(&position.generation);
        let mut head = Head {
            format: format_of(&position.generation),
            revision: position.snapshot.revision().0,
            proposal: Bytes::copy_from_slice(&id),
            store: store.clone(),
            generation: position.generation.clone(),
            ..Head::default()
        };
        let mut computed = Computed { store, ..Computed::default() };
        let mut snapshot = position.snapshot.clone();
        let mut changed: BTreeSet<Key> = BTreeSet::new();
        let mut operations = Vec::new();
        computed.len = keys.head().len() + HEAD_LEN;
        for pending in members {
            // Every transaction says its time here.
            let applied = match transaction::apply(&snapshot, pending.txn.clone(), Timestamp::UNIX_EPOCH) {
                Ok(applied) if applied.batch.changes.is_empty() => {
                    computed.push(Ok(committed(&applied)), false);
                    continue;
                }
                Ok(applied) => applied,
                Err(error) => {
                    computed.push(Err(error), false);
                    continue;
                }
            };
            if applied.batch.changes.iter().any(|change| changed.contains(&change.key)) {
                break;
            }
            let (more, len) = operations_of(&keys, &self.options.sealer, &applied.batch);
            match self.fits(computed.len + len, operations.len() + more.len(), &applied.batch) {
                Ok(()) => {}
                Err(error) if operations.is_empty() => {
                    computed.push(Err(error), false);
                    continue;
                }
                Err(_) => break,
            }
            changed.extend(applied.batch.changes.iter().map(|change| change.key.clone()));
            operations.extend(more);
            computed.len += len;
            if head.committed_at.is_some() {
                let changes = u32::try_from(operations_before(&computed)).unwrap_or(u32::MAX);
                head.earlier.push(Earlier { changes, committed_at: head.committed_at });
            }
            head.revision = applied.batch.revision.0;
            head.committed_at = Some(codec::encode_time(applied.batch.committed_at));
            snapshot = applied.snapshot.clone();
            computed.push(Ok(committed(&applied)), true);
            computed.applied.push(applied);
        }
        if !operations.is_empty() {
            head.changes = u32::try_from(operations.len()).unwrap_or(u32::MAX);
            operations.insert(0, TxnOp::put(keys.head(), codec::bytes(&head), None));
            computed.operations = nest(operations, TXN_OPS_MAX).unwrap_or_default();
        }
        computed
    }

    /// Whether a request of this size can be sent; if not, what is said if the last batch alone is too large.
    fn fits(&self, len: usize, operations: usize, batch: &ChangeBatch) -> Result<(), CommitError> {
        let len_max = self.options.request_len_max;
        if len > len_max {
            return Err(too_large(len, len_max));
        }
        // The head is one more.
        if operations < OPS_MAX {
            return Ok(());
        }
        let reason = format!("it changes {} resources, more than etcd takes at once", batch.changes.len());
        Err(CommitError::Invalid(reason))
    }
}

/// Bytes of a head of one transaction, and of what each further one adds to it, at most.
const HEAD_LEN: usize = 256;
const EARLIER_LEN: usize = 32;

/// Changes of the last write that was added.
fn operations_before(computed: &Computed) -> usize {
    computed.applied.last().map_or(0, |applied| applied.batch.changes.len())
}

fn committed(applied: &Applied) -> Committed {
    Committed { revision: applied.batch.revision, batch: applied.batch.clone() }
}

/// What writes come to if the guards hold.
#[derive(Default)]
struct Computed {
    /// Of each write, as far as they go together.
    outcomes: Vec<Outcome>,
    /// Whether it writes anything.
    writes: Vec<bool>,
    /// Those that do.
    applied: Vec<Applied>,
    store: String,
    operations: Vec<TxnOp>,
    /// Bytes of the request, about.
    len: usize,
}

impl Computed {
    fn push(&mut self, outcome: Outcome, writes: bool) {
        self.outcomes.push(outcome);
        self.writes.push(writes);
    }
}

/// The operations that write a batch, without the head, and their size, about.
fn operations_of(keys: &Keys, sealer: &Sealer, batch: &ChangeBatch) -> (Vec<TxnOp>, usize) {
    let mut operations = Vec::with_capacity(batch.changes.len());
    let mut len = EARLIER_LEN;
    for change in &batch.changes {
        let key = keys.resource(&change.key);
        let value = change.new.as_deref().map(|new| codec::bytes(&codec::encode_resource(new, sealer)));
        len += key.len() + value.as_ref().map_or(0, Bytes::len) + OPERATION_OVERHEAD;
        operations.push(match value {
            Some(value) => TxnOp::put(key, value, None),
            None => TxnOp::delete(key, None),
        });
    }
    (operations, len)
}

/// etcd limits the operations of a transaction, and counts those of transactions within it anew, less those beside
/// them: with `count` transactions of `each` operations, `count + each` must not exceed the limit. All of it happens at
/// one revision. None = it does not fit.
pub(crate) fn nest(operations: Vec<TxnOp>, ops_max: usize) -> Option<Vec<TxnOp>> {
    if operations.len() <= ops_max {
        return Some(operations);
    }
    let fits = |count: &usize| count * (ops_max - count) >= operations.len();
    let count = (1..ops_max).find(fits)?;
    let each = operations.len().div_ceil(count);
    let mut nested = Vec::with_capacity(count);
    let mut operations = operations.into_iter().peekable();
    while operations.peek().is_some() {
        let part: Vec<TxnOp> = operations.by_ref().take(each).collect();
        nested.push(TxnOp::txn(etcd_client::Txn::new().and_then(part)));
    }
    Some(nested)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_transactions_are_nested() {
        let operations = |count: usize| -> Vec<TxnOp> {
            (0..count).map(|n| TxnOp::delete(format!("k{n}"), None)).collect()
        };
        for (count, wanted) in
            [(1, Some(1)), (128, Some(128)), (129, Some(2)), (4096, Some(64)), (4097, None)]
        {
            assert_eq!(nest(operations(count), 128).map(|nested| nested.len()), wanted, "{count}");
        }
    }
}
