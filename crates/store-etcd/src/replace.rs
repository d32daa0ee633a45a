//! Replacing everything ([`Store::replace_all`](graticule_store::Store::replace_all)): a content of any size does not
//! fit into one transaction of etcd, so it is prepared as another *generation* of keys that nobody reads, and one small
//! transaction makes the head name it. So readers see all of what was, or all of what is, and until that transaction
//! nothing has happened.
//!
//! The key `staging` says which generation is being prepared, and guards every step of it. Who begins anew takes the key
//! over, which ends whatever was under way, and removes what that left. So a replacement that died half-way shows as a
//! key `staging` that stays, costs space and nothing else, and goes when another one is done.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, DeleteOptions, Txn, TxnOp, TxnResponse};
use graticule_store::{CommitError, Replacement, Revision, codec, transaction};

use crate::failure::{Failure, too_large};
use crate::keys::{Keys, after};
use crate::load::decode_head;
use crate::options::TXN_OPS_MAX;
use crate::replica::Position;
use crate::store::Shared;
use crate::wire::{Head, format_of};
use crate::write::{OPERATION_OVERHEAD, nest};

/// Most keys that are written at once, whatever their size: fits two levels of a transaction.
const KEYS_MAX: usize = 1000;
/// Part of a request that keys and values may take: the rest is for guards and framing.
const SHARE: (usize, usize) = (3, 4);

/// Why a step was not done.
enum Stop {
    /// For certain.
    Because(CommitError),
    /// The head is another one than was looked at: look again.
    Moved(i64),
}

impl From<CommitError> for Stop {
    fn from(error: CommitError) -> Stop {
        Stop::Because(error)
    }
}

fn unchanged(reason: &str) -> CommitError {
    CommitError::Unavailable(format!("{reason}; nothing was changed"))
}

fn taken_over() -> CommitError {
    unchanged("another restore began meanwhile")
}

impl Shared {
    /// Replaces everything.
    pub(crate) async fn replace_all(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {
                Err(CommitError::Uncertain("the store was closed while everything was replaced".into()))
            }
            replaced = self.replace_steps(replacement) => replaced,
        }
    }

    async fn replace_steps(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        let _one_at_a_time = self.replacing.lock().await;
        if let Some(reason) = self.stopped() {
            return Err(CommitError::Unavailable(reason.to_string()));
        }
        // What is wrong with it shows before anything is written.
        transaction::replace(&self.replica.position().snapshot, replacement.clone())?;
        let generation = self.requests.random.uuid();
        let keys = self.keys.of(&generation);
        let parts = self.parts(&keys, &replacement)?;
        let former = self.claim(&generation).await?;
        self.sweep(&generation, &[&former, &generation]).await?;
        let done = match self.stage(&generation, parts).await {
            Ok(()) => self.switch(&generation, &replacement).await,
            Err(error) => Err(error),
        };
        // It also ends what may still be on its way, so that the outcome is certain when it succeeds.
        let current = self.clean_up(&generation).await;
        let (at, revision) = match (done, current) {
            (Ok(done), current) => {
                if let Err(error) = current {
                    tracing::warn!(%error, "what was replaced stays in etcd until the next restore");
                }
                done
            }
            (Err(_), Ok(Some((at, head)))) if head.generation == generation => (at, Revision(head.revision)),
            (Err(CommitError::Uncertain(reason)), Ok(_)) => return Err(unchanged(&reason)),
            (Err(error), _) => return Err(error),
        };
        self.has_reached(at).await?;
        Ok(revision)
    }

    /// The writes that make a generation, each list fit for one request.
    fn parts(&self, keys: &Keys, replacement: &Replacement) -> Result<Vec<Vec<TxnOp>>, CommitError> {
        let len_max = self.options.request_len_max / SHARE.1 * SHARE.0;
        let (mut parts, mut part, mut part_len) = (Vec::new(), Vec::new(), 0);
        for resource in &replacement.resources {
            let value = codec::bytes(&codec::encode_resource(resource, &self.options.sealer));
            let key = keys.resource(&resource.key());
            let len = key.len() + value.len() + OPERATION_OVERHEAD;
            if len > self.options.request_len_max {
                return Err(too_large(len, self.options.request_len_max));
            }
            if !part.is_empty() && (part_len + len > len_max || part.len() == KEYS_MAX) {
                parts.push(std::mem::take(&mut part));
                part_len = 0;
            }
            part.push(TxnOp::put(key, value, None));
            part_len += len;
        }
        parts.push(part);
        Ok(parts)
    }

    /// Takes the key `staging` over; the generation that counts, which nobody changes from now on while the key stays.
    async fn claim(&self, generation: &str) -> Result<String, CommitError> {
        let claim = || async {
            let mut client = self.requests.client.kv_client();
            self.requests.bounded(client.put(self.keys.staging(), generation, None)).await
        };
        self.persistently(claim).await?;
        Ok(self.read_head().await?.map_or_else(String::new, |(_, head)| head.generation))
    }

    /// Removes every generation but the one that counts, and the sign that one is prepared; the head.
    async fn clean_up(&self, generation: &str) -> Result<Option<(i64, Head)>, CommitError> {
        // Under another name, so that nothing of this attempt that is still on its way has its effect.
        let ending = format!("{generation} ends");
        let sign = TxnOp::put(self.keys.staging(), ending.as_str(), None);
        if let Err(error) = self.step(generation, vec![sign]).await
            && !self.is_staging(&ending).await?
        {
            return Err(error);
        }
        let head = self.read_head().await?;
        self.sweep(&ending, &[head.as_ref().map_or("", |(_, head)| &head.generation)]).await?;
        self.step(&ending, vec![TxnOp::delete(self.keys.staging(), None)]).await?;
        Ok(head)
    }

    /// Whether the key `staging` says this.
    async fn is_staging(&self, wanted: &str) -> Result<bool, CommitError> {
        let key = self.keys.staging();
        let read = || async { self.requests.bounded(self.requests.get(&key, None)).await };
        let found = self.persistently(read).await?;
        Ok(found.kvs().first().is_some_and(|kv| kv.value() == wanted.as_bytes()))
    }

    /// Removes what earlier attempts left, so that their space can be used.
    async fn sweep(&self, generation: &str, kept: &[&str]) -> Result<(), CommitError> {
        let kept: BTreeSet<String> = kept.iter().map(|kept| self.keys.of(kept).resources()).collect();
        for (from, end) in self.keys.generations() {
            let gaps = gaps(&from, &end, &kept);
            let deletes: Vec<TxnOp> = gaps.iter().map(|(from, end)| delete(from, end)).collect();
            if !deletes.is_empty() {
                self.step(generation, deletes).await?;
            }
        }
        Ok(())
    }

    /// Writes the resources of the generation.
    async fn stage(&self, generation: &str, parts: Vec<Vec<TxnOp>>) -> Result<(), CommitError> {
        for part in parts {
            let part = nest(part, TXN_OPS_MAX).unwrap_or_default();
            self.step(generation, part).await?;
        }
        Ok(())
    }

    /// Makes the head name the generation; where in etcd's history that was, and the revision of the store.
    async fn switch(
        &self,
        generation: &str,
        replacement: &Replacement,
    ) -> Result<(i64, Revision), CommitError> {
        // Writes of this replica wait meanwhile.
        let _turn = self.turn.lock().await;
        loop {
            let position = self.replica.position();
            let revision = transaction::revision_of_replacement(position.snapshot.revision(), replacement)?;
            match self.try_switch(generation, &position, revision).await {
                Ok(at) => return Ok((at, revision)),
                Err(Stop::Because(error)) => return Err(error),
                Err(Stop::Moved(head)) => {
                    let late = self.requests.clock.sleep(self.options.write_timeout);
                    tokio::select! {
                        biased;
                        () = self.caught_up(head, &position) => {}
                        () = late => return Err(unchanged("this replica does not follow etcd")),
                    }
                }
            }
        }
    }

    async fn try_switch(&self, generation: &str, from: &Position, revision: Revision) -> Result<i64, Stop> {
        let store = match from.store.as_str() {
            "" => self.requests.random.uuid(),
            store => store.to_owned(),
        };
        let head = Head {
            format: format_of(generation),
            revision: revision.0,
            committed_at: Some(codec::encode_time(self.requests.clock.now())),
            store,
            generation: generation.to_owned(),
            ..Head::default()
        };
        let operations = vec![TxnOp::put(self.keys.head(), codec::bytes(&head), None)];
        let guards = vec![
            self.is_ours(generation),
            Compare::mod_revision(self.keys.head(), CompareOp::Equal, from.head),
        ];
        let deadline = self.requests.clock.monotonic() + self.options.write_timeout;
        let (mut failures, mut is_unknown) = (0, false);
        loop {
            let txn = Txn::new().when(guards.clone()).and_then(operations.clone());
            let answer = self.requests.bounded(self.requests.client.kv_client().txn(txn)).await;
            let failure = match answer {
                Ok(answer) if answer.succeeded() => return Ok(revision_of(&answer)),
                // Somebody was faster, or an answer was lost before.
                Ok(_) => {
                    let at = self.switched(generation, from).await?;
                    return at.ok_or_else(|| taken_over().into());
                }
                Err(failure) => failure,
            };
            if let Failure::NoSpace(_) = &failure {
                self.note_no_space();
                // It is over. Did it take place?
                match self.switched(generation, from).await {
                    Ok(Some(at)) => return Ok(at),
                    Ok(None) => {}
                    Err(Stop::Because(error)) => return Err(CommitError::Uncertain(error.to_string()).into()),
                    Err(moved) => return Err(moved),
                }
            }
            is_unknown |= matches!(failure, Failure::Unknown(_));
            let is_final = !matches!(failure, Failure::Unknown(_) | Failure::Missed(_));
            if is_final || self.requests.clock.monotonic() >= deadline {
                let reason = Shared::explain(&failure);
                let error = if is_unknown { CommitError::Uncertain(reason) } else { unchanged(&reason) };
                return Err(error.into());
            }
            failures += 1;
            self.requests.pause(failures, &failure).await;
        }
    }

    /// Where the head is if it says that `generation` counts; nothing if it is where it was.
    async fn switched(&self, generation: &str, from: &Position) -> Result<Option<i64>, Stop> {
        match self.read_head().await? {
            Some((at, head)) if head.generation == generation => Ok(Some(at)),
            Some((at, _)) if at != from.head => Err(Stop::Moved(at)),
            _ => Ok(None),
        }
    }

    fn is_ours(&self, generation: &str) -> Compare {
        Compare::value(self.keys.staging(), CompareOp::Equal, generation)
    }

    /// Writes something that only this attempt may write, and that may be written twice.
    async fn step(&self, generation: &str, operations: Vec<TxnOp>) -> Result<(), CommitError> {
        let write = || async {
            let txn = Txn::new().when(vec![self.is_ours(generation)]).and_then(operations.clone());
            self.requests.bounded(self.requests.client.kv_client().txn(txn)).await
        };
        let answer = self.persistently(write).await?;
        if answer.succeeded() { Ok(()) } else { Err(taken_over()) }
    }

    async fn read_head(&self) -> Result<Option<(i64, Head)>, CommitError> {
        let key = self.keys.head();
        let read = || async { self.requests.bounded(self.requests.get(&key, None)).await };
        let found = self.persistently(read).await?;
        let Some(kv) = found.kvs().first() else { return Ok(None) };
        let head =
            decode_head(&key, kv.value()).map_err(|error| CommitError::Unavailable(error.to_string()))?;
        Ok(Some((kv.mod_revision(), head)))
    }

    /// Sends a request that may have its effect twice, again and again as long as a write may take.
    async fn persistently<T, F>(&self, send: impl Fn() -> F) -> Result<T, CommitError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = self.requests.clock.monotonic() + self.options.write_timeout;
        let mut failures = 0;
        loop {
            let failure = match send().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if let Failure::NoSpace(_) = &failure {
                self.note_no_space();
            }
            let is_final = !matches!(failure, Failure::Unknown(_) | Failure::Missed(_));
            if is_final || self.requests.clock.monotonic() >= deadline {
                return Err(unchanged(&Shared::explain(&failure)));
            }
            failures += 1;
            self.requests.pause(failures, &failure).await;
        }
    }

    /// Waits until this replica shows what it replaced.
    async fn has_reached(&self, at: i64) -> Result<(), CommitError> {
        let mut moves = self.replica.moves();
        tokio::select! {
            biased;
            _ = moves.wait_for(|head| *head >= at) => Ok(()),
            // Everything is read again, as when a replica starts.
            () = self.requests.clock.sleep(self.options.open_timeout) => Err(CommitError::Uncertain(
                "everything was replaced, and this replica has not read it yet".into(),
            )),
        }
    }
}

/// What is left of a range of keys without those that begin with one of `kept`.
fn gaps(from: &str, end: &str, kept: &BTreeSet<String>) -> Vec<(String, String)> {
    let mut gaps = Vec::new();
    let mut next = from.to_owned();
    for kept in kept.iter().filter(|kept| from <= kept.as_str() && kept.as_str() < end) {
        gaps.push((next, kept.clone()));
        next = after(kept);
    }
    gaps.push((next, end.to_owned()));
    gaps.retain(|(from, end)| from < end);
    gaps
}

fn delete(from: &str, end: &str) -> TxnOp {
    TxnOp::delete(from, Some(DeleteOptions::new().with_range(end)))
}

fn revision_of(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, |header| header.revision())
}

/// Whether a restore was left half-way, or is under way elsewhere.
pub(crate) async fn is_prepared(shared: &Shared) -> Result<bool, Failure> {
    let found = shared.requests.bounded(shared.requests.get(&shared.keys.staging(), None)).await?;
    Ok(!found.kvs().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_in_no_gap() {
        let keys = Keys::new("/s");
        let kept: BTreeSet<String> = ["", "2f", "9a"].map(|name| keys.of(name).resources()).into();
        let gaps: Vec<(String, String)> =
            keys.generations().iter().flat_map(|(from, end)| gaps(from, end, &kept)).collect();
        let wanted = [("/s/g/", "/s/g/2f/"), ("/s/g/2f0", "/s/g/9a/"), ("/s/g/9a0", "/s/g0")];
        let wanted = wanted.map(|(from, end)| (from.to_owned(), end.to_owned()));
        assert_eq!(gaps, wanted);
        let of_all = [keys.head(), keys.leader(), keys.staging()];
        for (from, end) in keys.generations() {
            assert!(of_all.iter().all(|name| *name < from || end <= *name), "{from}..{end}");
        }
        assert_eq!(super::gaps("/s/r/", "/s/r0", &BTreeSet::new()).len(), 1);
    }
}
