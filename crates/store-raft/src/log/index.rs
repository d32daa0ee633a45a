//! What is in the log, in memory: positions of all entries, and the newest entries themselves.

use std::collections::VecDeque;
use std::ops::Range;

use openraft::entry::RaftEntry as _;

use crate::types::{Entry, LogId, Vote};

/// Bytes of entries that are kept in memory; older ones are read from the disk again.
const CACHE_LEN_MAX: usize = 8 << 20;

/// Contents of the log.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    /// The last entry that only a snapshot has.
    pub(crate) purged: Option<LogId>,
    /// The entries behind `purged`, without gaps.
    slots: VecDeque<Slot>,
    /// Slots before this one have given up their entry.
    uncached: usize,
    cached_len: usize,
    /// Bytes of all entries.
    pub(crate) len: usize,
    /// Bytes of all entries that were ever pushed, without those that were overruled.
    end: u64,
}

#[derive(Debug)]
struct Slot {
    id: LogId,
    entry: Option<Entry>,
    /// None until it is durable.
    at: Option<Position>,
    len: usize,
    /// Bytes of all entries that were ever pushed, up to and with this one.
    end: u64,
}

/// Where the frame of an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// An entry, or where it is.
#[derive(Debug)]
pub(crate) enum Found {
    Cached(Entry),
    OnDisk(u64, Position),
}

impl Index {
    pub(crate) fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    pub(crate) fn next(&self) -> u64 {
        self.first() + self.slots.len() as u64
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.id).or(self.purged)
    }

    fn slot(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first())?).ok().filter(|slot| *slot < self.slots.len())
    }

    /// Appends the entry that follows the last one; any other is refused.
    pub(crate) fn push(&mut self, entry: Entry, len: usize, at: Option<Position>) -> Result<(), String> {
        let id = entry.log_id();
        if id.index != self.next() {
            return Err(format!("entry {} where {} must follow", id.index, self.next()));
        }
        self.end += len as u64;
        self.slots.push_back(Slot { id, entry: Some(entry), at, len, end: self.end });
        self.cached_len += len;
        self.len += len;
        self.shrink_cache();
        Ok(())
    }

    /// Whether this very entry is in the log.
    pub(crate) fn has(&self, id: LogId) -> bool {
        self.slot(id.index).and_then(|slot| self.slots.get(slot)).is_some_and(|slot| slot.id == id)
    }

    /// An entry is durable at this position.
    pub(crate) fn written(&mut self, id: LogId, at: Position) {
        if let Some(slot) = self.slot(id.index).and_then(|slot| self.slots.get_mut(slot))
            && slot.id == id
        {
            slot.at = Some(at);
        }
    }

    /// Bytes of the entries behind this one, or of all. Asked for with every write: it walks nothing.
    pub(crate) fn len_after(&self, index: Option<u64>) -> usize {
        let Some(index) = index.filter(|index| *index >= self.first()) else { return self.len };
        let Some(slot) = self.slot(index).and_then(|slot| self.slots.get(slot)) else { return 0 };
        usize::try_from(self.end - slot.end).unwrap_or(usize::MAX)
    }

    /// The last entry that must go so that the ones up to `covered` take no more than `len_max` bytes.
    pub(crate) fn excess(&self, covered: u64, len_max: usize) -> Option<u64> {
        if self.len <= len_max {
            return None;
        }
        let count = self.slots.partition_point(|slot| slot.id.index <= covered);
        let end = self.slots.get(count.checked_sub(1)?)?.end;
        let is_excess = |slot: &Slot| end - (slot.end - slot.len as u64) > len_max as u64;
        let excess = self.slots.partition_point(|slot| slot.id.index <= covered && is_excess(slot));
        self.slots.get(excess.checked_sub(1)?).map(|slot| slot.id.index)
    }

    fn shrink_cache(&mut self) {
        while self.cached_len > CACHE_LEN_MAX {
            let Some(slot) = self.slots.get_mut(self.uncached) else { return };
            if slot.at.is_none() {
                return;
            }
            if slot.entry.take().is_some() {
                self.cached_len -= slot.len;
            }
            self.uncached += 1;
        }
    }

    /// Forgets entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self.slots.back().is_some_and(|slot| slot.id.index >= from) {
            let slot = self.slots.pop_back();
            self.end -= slot.as_ref().map_or(0, |slot| slot.len as u64);
            self.forget(slot);
        }
        self.uncached = self.uncached.min(self.slots.len());
    }

    /// Forgets entries up to `upto`; when the log ends before, it goes on behind `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index > upto.index) {
            return;
        }
        while self.slots.front().is_some_and(|slot| slot.id.index <= upto.index) {
            let slot = self.slots.pop_front();
            self.forget(slot);
            self.uncached = self.uncached.saturating_sub(1);
        }
        self.purged = Some(upto);
    }

    fn forget(&mut self, slot: Option<Slot>) {
        let Some(slot) = slot else { return };
        self.len -= slot.len;
        if slot.entry.is_some() {
            self.cached_len -= slot.len;
        }
    }

    /// The entries of a range that are in the log.
    pub(crate) fn find(&self, range: Range<u64>) -> Vec<Found> {
        let range = range.start.max(self.first())..range.end.min(self.next());
        let mut found = Vec::new();
        for index in range {
            let Some(slot) = self.slot(index).and_then(|slot| self.slots.get(slot)) else { break };
            match (&slot.entry, slot.at) {
                (Some(entry), _) => found.push(Found::Cached(entry.clone())),
                (None, Some(at)) => found.push(Found::OnDisk(index, at)),
                (None, None) => break,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Proposed, log_id};

    /// What is done to a log.
    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Truncate(u64),
        Purge(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1..50_usize).prop_map(Step::Push),
            1 => (0..6_u64).prop_map(Step::Truncate),
            1 => (0..6_u64).prop_map(Step::Purge),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Lengths are those that a walk over all entries finds.
        #[test]
        fn lengths_agree_with_a_walk(steps in proptest::collection::vec(step(), 0..60), len_max in 0..300_usize) {
            let mut index = Index::default();
            let mut plain: VecDeque<(u64, usize)> = VecDeque::new();
            let mut first = 0;
            for step in steps {
                let next = first + plain.len() as u64;
                match step {
                    Step::Push(len) => {
                        let entry = Entry::new(log_id(1, next), EntryPayload::Normal(Proposed(vec![0; len].into())));
                        index.push(entry, len, None).expect("the next one");
                        plain.push_back((next, len));
                    }
                    Step::Truncate(back) => {
                        let from = next.saturating_sub(back).max(first);
                        index.truncate(from);
                        plain.retain(|(at, _)| *at < from);
                    }
                    Step::Purge(ahead) if !plain.is_empty() => {
                        let upto = (first + ahead).min(next - 1);
                        index.purge(log_id(1, upto));
                        plain.retain(|(at, _)| *at > upto);
                        first = upto + 1;
                    }
                    Step::Purge(_) => {}
                }
                for at in 0..first + plain.len() as u64 + 2 {
                    let behind: usize = plain.iter().filter(|(i, _)| *i > at).map(|(_, len)| len).sum();
                    prop_assert_eq!(index.len_after(Some(at)), behind, "behind {}", at);
                    let mut len = 0;
                    let walked = plain.iter().rev().filter(|(i, _)| *i <= at).find(|(_, l)| {
                        len += l;
                        len > len_max
                    });
                    let all: usize = plain.iter().map(|(_, len)| len).sum();
                    let walked = walked.filter(|_| all > len_max).map(|(i, _)| *i);
                    prop_assert_eq!(index.excess(at, len_max), walked, "up to {}", at);
                }
                prop_assert_eq!(index.len_after(None), index.len);
            }
        }
    }
}
