//! The log as openraft sees it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::index::{Found, Position};
use super::segment;
use super::writer::{Command, Done, steps_of};
use super::{Log, Shared};
use crate::codec;
use crate::disk::DiskFile;
use crate::types::{Entry, LogId, Types, Vote};
use crate::wire::{self, Step};

/// Bytes of entries that are read for one message.
pub(crate) const READ_LEN_MAX: usize = 1 << 20;

impl Log {
    /// Makes steps durable.
    async fn record(&self, steps: Vec<Step>) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        let command = Command { steps, entries: Vec::new(), len: 0, done: Done::Reply(reply) };
        self.submit(command).await?;
        done.await.map_err(|_| io::Error::other("the writer of the log has ended"))?
    }

    /// The vote and the last entry.
    pub(crate) fn head(&self) -> (Option<Vote>, Option<LogId>) {
        let index = self.shared.index.lock();
        (index.vote, index.last())
    }

    /// Appends an entry and a vote that nobody agreed on. The member must not run.
    pub(crate) async fn force(&self, vote: Vote, entry: Entry) -> io::Result<()> {
        let id = entry.log_id();
        let (mut steps, lens) = steps_of(std::slice::from_ref(&entry));
        steps.push(Step::Vote(codec::encode_vote(&vote)));
        let len = lens.iter().sum();
        self.shared.index.lock().push(entry, len, None).map_err(io::Error::other)?;
        let (reply, done) = oneshot::channel();
        self.submit(Command { steps, entries: vec![id], len, done: Done::Reply(reply) }).await?;
        done.await.map_err(|_| io::Error::other("the writer of the log has ended"))??;
        self.shared.index.lock().vote = Some(vote);
        Ok(())
    }

    fn read(&self, range: Range<u64>, len_max: usize) -> io::Result<Vec<Entry>> {
        let found = self.shared.index.lock().find(range);
        let mut entries = Vec::with_capacity(found.len());
        let mut frames = Frames { shared: &self.shared, file: None, last: None };
        let mut len = 0;
        for found in found {
            if len > len_max && !entries.is_empty() {
                break;
            }
            let entry = match found {
                Found::Cached(entry) => entry,
                Found::OnDisk(index, at) => match frames.entry(index, at) {
                    Ok(entry) => entry,
                    // Purged in the meantime.
                    Err(_) if self.shared.index.lock().first() > index => continue,
                    Err(error) => return Err(error),
                },
            };
            if let openraft::EntryPayload::Normal(proposed) = &entry.payload {
                len += proposed.0.len();
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Reads entries from the disk; remembers the last file and frame, which often have the next entry, too.
struct Frames<'a> {
    shared: &'a Shared,
    file: Option<(u64, Box<dyn DiskFile>)>,
    last: Option<(Position, Vec<Entry>)>,
}

impl Frames<'_> {
    fn entry(&mut self, index: u64, at: Position) -> io::Result<Entry> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != at) {
            self.last = Some((at, self.load(at)?));
        }
        let found = self.last.iter().flat_map(|(_, entries)| entries).find(|e| e.log_id().index == index);
        found.cloned().ok_or_else(|| self.damaged(at, format!("entry {index} is not in its frame")))
    }

    fn load(&mut self, at: Position) -> io::Result<Vec<Entry>> {
        let file = match self.file.take() {
            Some((segment, file)) if segment == at.segment => file,
            _ => self.shared.disk.open(&segment::file_name(at.segment))?,
        };
        let file = &*self.file.insert((at.segment, file)).1;
        let payload = segment::read_frame(file, at.offset)
            .map_err(|error| io::Error::new(error.kind(), self.damaged(at, error.to_string())))?;
        let decoded = codec::message::<wire::Frame>("a frame of the log", Bytes::from(payload));
        let frame = decoded.map_err(|error| self.damaged(at, error.to_string()))?;
        let entries = frame.records.into_iter().filter_map(|record| match record.step {
            Some(Step::Entry(entry)) => Some(codec::decode_entry(entry)),
            _ => None,
        });
        entries.collect::<Result<_, _>>().map_err(|error| self.damaged(at, error.to_string()))
    }

    fn damaged(&self, at: Position, reason: String) -> io::Error {
        let path = self.shared.disk.path(&segment::file_name(at.segment));
        let text = format!("{} is damaged at offset {}: {reason}", path.display(), at.offset);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(indexes(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.index.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_LEN_MAX)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let index = self.shared.index.lock();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.record(vec![Step::Vote(codec::encode_vote(vote))]).await?;
        self.shared.index.lock().vote = Some(*vote);
        Ok(())
    }

    /// Written with the next append: it only saves work after a restart.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.index.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.index.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (mut steps, lens) = steps_of(&entries);
        let ids = entries.iter().map(|entry| entry.log_id()).collect();
        let len = lens.iter().sum();
        {
            let mut index = self.shared.index.lock();
            if let Some(committed) = index.committed {
                steps.push(Step::Committed(codec::encode_log_id(&committed)));
            }
            for (entry, len) in entries.into_iter().zip(lens) {
                index.push(entry, len, None).map_err(io::Error::other)?;
            }
        }
        self.submit(Command { steps, entries: ids, len, done: Done::Flushed(callback) }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |last| last.index + 1);
        self.shared.index.lock().truncate(from);
        self.record(vec![Step::Truncate(wire::Truncate { from })]).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.shared.index.lock().purge(log_id);
        self.record(vec![Step::Purge(codec::encode_log_id(&log_id))]).await
    }
}
