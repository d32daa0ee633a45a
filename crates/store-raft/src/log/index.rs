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
}

#[derive(Debug)]
struct Slot {
    id: LogId,
    entry: Option<Entry>,
    /// None until it is durable.
    at: Option<Position>,
    len: usize,
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
        self.slots.push_back(Slot { id, entry: Some(entry), at, len });
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

    /// Bytes of the entries behind this one, or of all.
    pub(crate) fn len_after(&self, index: Option<u64>) -> usize {
        let is_behind = |slot: &&Slot| index.is_none_or(|index| slot.id.index > index);
        self.slots.iter().rev().take_while(is_behind).map(|slot| slot.len).sum()
    }

    /// The last entry that must go so that the ones up to `covered` take no more than `len_max` bytes.
    pub(crate) fn excess(&self, covered: u64, len_max: usize) -> Option<u64> {
        if self.len <= len_max {
            return None;
        }
        let mut len = 0;
        let kept = self.slots.iter().rev().skip_while(|slot| slot.id.index > covered);
        kept.map(|slot| {
            len += slot.len;
            (len, slot.id.index)
        })
        .find(|(len, _)| *len > len_max)
        .map(|(_, index)| index)
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
