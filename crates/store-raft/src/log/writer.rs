//! Appends frames to segments: group commit, rolling, removal of what a snapshot covers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use prost::Message as _;
use tokio::sync::oneshot;

use super::index::Position;
use super::segment::{self, FRAME_HEADER_LEN, HEADER_LEN};
use super::{LogOptions, Shared};
use crate::codec;
use crate::disk::DiskFile;
use crate::types::{LogId, Types};
use crate::wire::{self, Step};

/// Name of a segment that is being filled with zeros.
pub(super) const SPARE: &str = "spare.tmp";
/// Zeros that are written at once.
const ZEROS_LEN: usize = 256 << 10;

/// Something to append.
pub(super) struct Command {
    pub(super) steps: Vec<Step>,
    /// The entries among the steps.
    pub(super) entries: Vec<LogId>,
    pub(super) len: usize,
    pub(super) done: Done,
}

/// Whom to tell when it is durable.
pub(super) enum Done {
    Flushed(IOFlushed<Types>),
    Reply(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Flushed(flushed) => flushed.io_completed(result),
            Done::Reply(reply) => {
                // The asker may have gone.
                let _ = reply.send(result);
            }
        }
    }
}

/// A segment of the log.
pub(super) struct Closed {
    pub(super) number: u64,
    /// Highest index of an entry in it, or in an earlier one.
    pub(super) index_max: u64,
}

/// What every new segment repeats, so that earlier ones can go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    pub(super) vote: Option<wire::Vote>,
    pub(super) purged: Option<wire::LogId>,
    pub(super) committed: Option<wire::LogId>,
}

impl Kept {
    pub(super) fn note(&mut self, step: &Step) {
        match step {
            Step::Vote(vote) => self.vote = Some(*vote),
            Step::Purge(id) => self.purged = Some(*id),
            Step::Committed(id) => self.committed = Some(*id),
            Step::Entry(_) | Step::Truncate(_) => {}
        }
    }

    fn steps(&self) -> Vec<Step> {
        let vote = self.vote.map(Step::Vote);
        let purged = self.purged.map(Step::Purge);
        let committed = self.committed.map(Step::Committed);
        [vote, purged, committed].into_iter().flatten().collect()
    }
}

/// The only one that writes the log.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) options: LogOptions,
    pub(super) closed: VecDeque<Closed>,
    pub(super) number: u64,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) file_len: u64,
    pub(super) end: u64,
    pub(super) next_frame: u64,
    pub(super) index_max: u64,
    pub(super) kept: Kept,
    pub(super) spare: Option<Box<dyn DiskFile>>,
    /// After an error nothing is known about the file: everything fails until the log is opened again.
    pub(super) failed: Option<String>,
}

impl Writer {
    /// Writes commands as few frames, and tells everybody.
    pub(super) fn commit(&mut self, commands: Vec<Command>) {
        let result = match &self.failed {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => self.write(&commands),
        };
        if let Err(error) = &result
            && self.failed.is_none()
        {
            self.failed = Some(error.to_string());
        }
        let purges = commands.iter().any(|c| c.steps.iter().any(|step| matches!(step, Step::Purge(_))));
        for command in commands {
            command.done.tell(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        if result.is_ok() {
            if purges {
                self.remove_purged();
            }
            self.prepare_spare();
        }
    }

    fn write(&mut self, commands: &[Command]) -> io::Result<()> {
        let steps = commands.iter().flat_map(|command| command.steps.iter().cloned());
        let at = self.append(steps.collect())?;
        let mut index = self.shared.index.lock();
        for id in commands.iter().flat_map(|command| &command.entries) {
            index.written(*id, at);
        }
        Ok(())
    }

    /// Appends one frame and makes it durable.
    pub(super) fn append(&mut self, steps: Vec<Step>) -> io::Result<Position> {
        let records = steps.into_iter().map(|step| wire::Record { step: Some(step) }).collect();
        let frame = wire::Frame { records };
        let payload = frame.encode_to_vec();
        let need = (FRAME_HEADER_LEN + payload.len()) as u64;
        if self.end + need > self.file_len {
            self.roll(need)?;
        }
        let at = Position { segment: self.number, offset: self.end };
        self.write_frame(&payload)?;
        for record in &frame.records {
            if let Some(step) = &record.step {
                self.kept.note(step);
                if let Step::Entry(wire::Entry { id: Some(id), .. }) = step {
                    self.index_max = self.index_max.max(id.index);
                }
            }
        }
        Ok(at)
    }

    fn write_frame(&mut self, payload: &[u8]) -> io::Result<()> {
        let bytes = segment::frame(self.next_frame, payload);
        let named = |error: io::Error| {
            let path = self.shared.disk.path(&segment::file_name(self.number));
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        self.file.write_all_at(&bytes, self.end).map_err(named)?;
        self.file.sync().map_err(named)?;
        self.end += bytes.len() as u64;
        self.next_frame += 1;
        Ok(())
    }

    /// Goes on in a new segment with room for `need` bytes.
    fn roll(&mut self, need: u64) -> io::Result<()> {
        // The first frame of the new segment repeats what is kept; it is small.
        let kept = wire::Frame {
            records: self.kept.steps().into_iter().map(|step| wire::Record { step: Some(step) }).collect(),
        };
        let kept = kept.encode_to_vec();
        let room = need + (HEADER_LEN + FRAME_HEADER_LEN + kept.len()) as u64;
        let file = match self.spare.take() {
            Some(spare) if room <= self.options.segment_len => spare,
            _ => zeroed(&self.shared, room.max(self.options.segment_len))?,
        };
        let number = self.number + 1;
        let file_len = file.size()?;
        file.write_all_at(&segment::header(number, self.next_frame, file_len), 0)?;
        file.sync()?;
        self.shared.disk.rename(SPARE, &segment::file_name(number))?;
        self.closed.push_back(Closed { number: self.number, index_max: self.index_max });
        self.number = number;
        self.file_len = file_len;
        self.file = file;
        self.end = HEADER_LEN as u64;
        if !kept.is_empty() {
            self.write_frame(&kept)?;
        }
        Ok(())
    }

    /// Makes the next segment before it is needed, once half of this one is used. When the disk is full, the room
    /// that is left is known, and writes are refused before the log fails.
    fn prepare_spare(&mut self) {
        let left = self.file_len - self.end;
        let mut room = u64::MAX;
        if self.spare.is_none() && left < self.options.segment_len / 2 {
            match zeroed(&self.shared, self.options.segment_len) {
                Ok(spare) => self.spare = Some(spare),
                Err(error) => {
                    tracing::warn!(%error, left, "the next segment of the log cannot be made");
                    room = left;
                }
            }
        }
        self.shared.room.store(room, std::sync::atomic::Ordering::Relaxed);
    }

    /// Tries again to make room, when there is too little.
    pub(super) fn make_room(&mut self) {
        if self.failed.is_none() {
            self.prepare_spare();
        }
    }

    fn remove_purged(&mut self) {
        let Some(purged) = self.kept.purged else { return };
        while self.closed.front().is_some_and(|closed| closed.index_max <= purged.index) {
            let Some(closed) = self.closed.pop_front() else { return };
            if let Err(error) = self.shared.disk.remove(&segment::file_name(closed.number)) {
                // The next start removes it.
                tracing::warn!(%error, segment = closed.number, "an old segment of the log cannot be removed");
            }
        }
    }
}

/// A new segment file under the name [`SPARE`], of zeros, durable.
fn zeroed(shared: &Shared, len: u64) -> io::Result<Box<dyn DiskFile>> {
    let named = |error: io::Error| {
        let path = shared.disk.path(SPARE);
        io::Error::new(error.kind(), format!("{} of {len} bytes: {error}", path.display()))
    };
    let file = shared.disk.create(SPARE).map_err(named)?;
    let zeros = vec![0; ZEROS_LEN];
    let mut offset = 0;
    while offset < len {
        let chunk = usize::try_from(len - offset).unwrap_or(ZEROS_LEN).min(ZEROS_LEN);
        file.write_all_at(&zeros[..chunk], offset).map_err(named)?;
        offset += chunk as u64;
    }
    file.sync().map_err(named)?;
    Ok(file)
}

/// The first segment of a log.
pub(super) fn first_segment(shared: &Shared, len: u64) -> io::Result<Box<dyn DiskFile>> {
    let file = zeroed(shared, len)?;
    file.write_all_at(&segment::header(1, 1, len), 0)?;
    file.sync()?;
    shared.disk.rename(SPARE, &segment::file_name(1))?;
    Ok(file)
}

/// Puts a copy of what is valid in a segment in its place, so that it is on the disk whatever became of earlier writes.
pub(super) fn rewritten(
    shared: &Shared,
    segment: &segment::Segment,
    valid: &[u8],
    len: u64,
) -> io::Result<Box<dyn DiskFile>> {
    let name = &segment::file_name(segment.number);
    let file = zeroed(shared, len)?;
    file.write_all_at(valid, 0)?;
    file.write_all_at(&segment::header(segment.number, segment.first_frame, len), 0)?;
    file.sync()?;
    shared.disk.rename(SPARE, name)?;
    Ok(file)
}

/// Steps of entries, and how many bytes they have.
pub(super) fn steps_of(entries: &[crate::types::Entry]) -> (Vec<Step>, Vec<usize>) {
    let encoded: Vec<wire::Entry> = entries.iter().map(codec::encode_entry).collect();
    let lens = encoded.iter().map(prost::Message::encoded_len).collect();
    (encoded.into_iter().map(Step::Entry).collect(), lens)
}
