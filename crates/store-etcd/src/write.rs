//! One transaction: computed on this replica's copy, written to etcd under guards, and again if another replica was
//! faster.

use bytes::Bytes;
use etcd_client::TxnOp;
use graticule_model::Timestamp;
use graticule_store::seal::Sealer;
use graticule_store::transaction::{self, Applied};
use graticule_store::{CommitError, Committed, Txn, codec};

use crate::failure::{Failure, too_large};
use crate::keys::Keys;
use crate::options::TXN_OPS_MAX;
use crate::replica::{Position, ProposalId, Waiting};
use crate::request::Guarded;
use crate::store::Shared;
use crate::wire::{Head, format_of};

/// Bytes that an operation takes in a request beside its key and value, at most.
pub(crate) const OPERATION_OVERHEAD: usize = 32;

/// How far a write has come.
#[derive(Default)]
struct Attempt {
    /// Where the copy was when a request was sent whose outcome is not known.
    unknown: Option<Position>,
    reason: String,
}

impl Attempt {
    fn failed(self) -> CommitError {
        if self.unknown.is_some() {
            CommitError::Uncertain(self.reason)
        } else {
            CommitError::Unavailable(self.reason)
        }
    }
}

impl Shared {
    /// Commits; with a term, only as its leader.
    pub(crate) async fn write(&self, mut txn: Txn, term: Option<u64>) -> Result<Committed, CommitError> {
        if self.closing.is_cancelled() {
            return Err(CommitError::Unavailable("the store is closed".into()));
        }
        txn.at.get_or_insert_with(|| self.requests.clock.now());
        // Every replica has what it decodes; this one too.
        let sealer = &*self.options.sealer;
        let txn = codec::decode_txn(codec::encode_txn(&txn, sealer), sealer)
            .map_err(|error| CommitError::Invalid(error.to_string()))?;
        let id: ProposalId = self.requests.random.bytes16();
        let waiting = self.replica.wait_for(id);
        let mut attempt = Attempt { reason: "it takes too long to get a turn".into(), ..Attempt::default() };
        let written = tokio::select! {
            biased;
            written = self.attempts(&txn, term, id, &waiting, &mut attempt) => Some(written),
            () = self.requests.clock.sleep(self.options.write_timeout) => None,
            () = self.closing.cancelled() => {
                attempt.reason = "the store is closed".into();
                None
            }
        };
        match (written, waiting.outcome()) {
            (Some(written), _) => written,
            (None, Some(committed)) => Ok(committed),
            (None, None) => Err(attempt.failed()),
        }
    }

    /// Tries until there is an answer.
    async fn attempts(
        &self,
        txn: &Txn,
        term: Option<u64>,
        id: ProposalId,
        waiting: &Waiting<'_>,
        attempt: &mut Attempt,
    ) -> Result<Committed, CommitError> {
        let closed = |_| CommitError::Unavailable("the store is closed".into());
        let _permit = self.writes.acquire().await.map_err(closed)?;
        let _turn = self.turn.lock().await;
        attempt.reason = "etcd does not answer".into();
        let mut failures = 0;
        loop {
            if let Some(reason) = self.stopped() {
                attempt.reason = reason.to_string();
                return Err(std::mem::take(attempt).failed());
            }
            let position = self.replica.position();
            if let Some(sent) = &attempt.unknown
                && sent.head != position.head
            {
                // What was sent can take place no more. Did it?
                if let Some(committed) = waiting.outcome() {
                    return Ok(committed);
                }
                if sent.resets != position.resets {
                    return Err(std::mem::take(attempt).failed());
                }
                attempt.unknown = None;
            }
            let mut computed = self.compute(&position, txn, id);
            let operations = match &mut computed {
                Ok(computed) => std::mem::take(&mut computed.operations),
                // Nothing is written; is the copy that says so current?
                Err(_) => Vec::new(),
            };
            // From here on the request may have its effect, also if nobody waits for the answer any more.
            let before = attempt.unknown.take();
            if computed.is_ok() {
                attempt.unknown = Some(before.clone().unwrap_or_else(|| position.clone()));
            } else {
                attempt.unknown.clone_from(&before);
            }
            let leader = term.and_then(|term| i64::try_from(term).ok());
            let (head_key, leader_key) = (self.keys.head(), self.keys.leader());
            let answer =
                self.requests.guarded((&head_key, position.head), (&leader_key, leader), operations).await;
            if !matches!(answer, Err(Failure::Unknown(_))) {
                attempt.unknown = before;
            }
            match answer {
                Ok(Guarded::Done(at)) => return self.done(&position, at, computed),
                Ok(Guarded::Moved { head, leader: now }) => {
                    self.caught_up(head, &position).await;
                    if head == position.head && leader.is_some_and(|leader| leader != now) {
                        return self.fenced(term, waiting);
                    }
                    failures = 0;
                }
                Err(failure) => {
                    attempt.reason = Shared::explain(&failure);
                    match failure {
                        Failure::Refused(_) if attempt.unknown.is_none() => {
                            return Err(std::mem::take(attempt).failed());
                        }
                        Failure::NoSpace(_) => {
                            self.note_no_space();
                            return Err(std::mem::take(attempt).failed());
                        }
                        Failure::TooLarge(_) => {
                            let len = computed.map_or(0, |computed| computed.len);
                            return Err(too_large(len, self.options.request_len_max));
                        }
                        _ => {}
                    }
                    failures += 1;
                    self.requests.pause(failures, &failure).await;
                }
            }
        }
    }

    /// The leader's key is not this replica's any more; the head is where it was, so nothing was written.
    fn fenced(&self, term: Option<u64>, waiting: &Waiting<'_>) -> Result<Committed, CommitError> {
        match waiting.outcome() {
            Some(committed) => Ok(committed),
            None => Err(CommitError::Fenced(term.unwrap_or_default())),
        }
    }

    /// Waits until the copy is where etcd was, at least.
    pub(crate) async fn caught_up(&self, head: i64, position: &Position) {
        if head <= position.head {
            return;
        }
        let mut moves = self.replica.moves();
        // Ends when the replica does; the caller has a limit of time.
        let _ = moves.wait_for(|at| *at >= head).await;
    }

    /// What the transaction does to the copy, and how etcd is told.
    fn compute(&self, position: &Position, txn: &Txn, id: ProposalId) -> Result<Computed, NotWritten> {
        // Every transaction says its time here.
        let applied = transaction::apply(&position.snapshot, txn.clone(), Timestamp::UNIX_EPOCH)
            .map_err(NotWritten::Refused)?;
        if applied.batch.changes.is_empty() {
            return Err(NotWritten::Unchanged(applied));
        }
        let store = match position.store.as_str() {
            "" => self.requests.random.uuid(),
            store => store.to_owned(),
        };
        let head = Head {
            format: format_of(&position.generation),
            revision: applied.batch.revision.0,
            committed_at: Some(codec::encode_time(applied.batch.committed_at)),
            changes: u32::try_from(applied.batch.changes.len()).unwrap_or(u32::MAX),
            proposal: Bytes::copy_from_slice(&id),
            store: store.clone(),
            generation: position.generation.clone(),
        };
        let keys = self.keys.of(&position.generation);
        let (operations, len) = operations(&keys, &self.options.sealer, &head, &applied);
        let len_max = self.options.request_len_max;
        if len > len_max {
            return Err(NotWritten::Refused(too_large(len, len_max)));
        }
        match nest(operations, TXN_OPS_MAX) {
            Some(operations) => Ok(Computed { applied, store, operations, len }),
            None => Err(NotWritten::Refused(CommitError::Invalid(format!(
                "it changes {} resources, more than etcd takes at once",
                head.changes
            )))),
        }
    }

    /// The guards held: what was computed is true, and has taken place.
    fn done(
        &self,
        position: &Position,
        at: i64,
        computed: Result<Computed, NotWritten>,
    ) -> Result<Committed, CommitError> {
        let applied = match computed {
            Ok(Computed { applied, store, .. }) => {
                self.replica.advance(position, at, &store, &applied);
                applied
            }
            Err(NotWritten::Unchanged(applied)) => applied,
            Err(NotWritten::Refused(error)) => return Err(error),
        };
        Ok(Committed { revision: applied.batch.revision, batch: applied.batch })
    }
}

/// A transaction that changes something.
struct Computed {
    applied: Applied,
    store: String,
    operations: Vec<TxnOp>,
    /// Bytes of the request, about.
    len: usize,
}

/// A transaction that writes nothing.
enum NotWritten {
    /// It changes nothing.
    Unchanged(Applied),
    /// It must not take place.
    Refused(CommitError),
}

/// The operations that write a batch, and the size of the request, about.
fn operations(keys: &Keys, sealer: &Sealer, head: &Head, applied: &Applied) -> (Vec<TxnOp>, usize) {
    let mut operations = Vec::with_capacity(applied.batch.changes.len() + 1);
    let mut len = 0;
    let mut push = |key: String, value: Option<Bytes>| {
        len += key.len() + value.as_ref().map_or(0, Bytes::len) + OPERATION_OVERHEAD;
        operations.push(match value {
            Some(value) => TxnOp::put(key, value, None),
            None => TxnOp::delete(key, None),
        });
    };
    push(keys.head(), Some(codec::bytes(head)));
    for change in &applied.batch.changes {
        let value = change.new.as_deref().map(|new| codec::bytes(&codec::encode_resource(new, sealer)));
        push(keys.resource(&change.key), value);
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
