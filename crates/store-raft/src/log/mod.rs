//! The durable log: segments of preallocated files, group commit, one writer.
//!
//! [`Log::open`] reads what is there and says what is damaged. Then openraft appends through
//! [`RaftLogStorage`](openraft::storage::RaftLogStorage): entries are readable at once and acknowledged when they
//! are durable.

mod index;
pub(crate) mod segment;
mod storage;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use self::index::{Index, Position};
pub use self::segment::FileError;
use self::segment::Segment;
pub(crate) use self::storage::READ_LEN_MAX;
use self::writer::{Closed, Command, Kept, Writer};
use crate::codec;
use crate::disk::{Disk, DiskFile};
use crate::types::LogId;
use crate::wire::{self, Step};

/// Appends that wait for the writer.
const QUEUE_LEN: usize = 256;
/// Bytes that one frame takes from the queue; a single append may be longer.
const FRAME_LEN: usize = 4 << 20;
/// Room that must be left for writes to be taken: votes and membership changes need some, too.
pub(crate) const ROOM_MIN: u64 = 256 << 10;

/// Options of the log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Length of a segment file. Default 8 MiB.
    pub segment_len: u64,
    /// Whether the caller waits for the disk itself, instead of a thread (simulation: no threads).
    pub inline: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { segment_len: 8 << 20, inline: false }
    }
}

/// Cheap to clone; the log of one member.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    queue: Queue,
}

#[derive(Clone)]
enum Queue {
    Worker(mpsc::Sender<Job>),
    Inline(Arc<Mutex<Writer>>),
}

enum Job {
    Write(Command),
    MakeRoom,
}

struct Shared {
    disk: Arc<dyn Disk>,
    index: Mutex<Index>,
    /// Bytes that can be appended before a new segment is needed that may not be had.
    room: AtomicU64,
}

impl Log {
    /// Opens the log of a data directory, or makes one if `may_create`. `after_failure`: the last writes failed
    /// in this process, so that what can be read may not be on the disk.
    ///
    /// # Errors
    /// A file is damaged, missing or of a newer version, or the disk fails.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        may_create: bool,
        after_failure: bool,
    ) -> Result<Log, FileError> {
        let shared = Shared { disk, index: Mutex::new(Index::default()), room: AtomicU64::new(u64::MAX) };
        let shared = Arc::new(shared);
        let io_error = |source| FileError::Io { path: shared.disk.path(""), source };
        let names = shared.disk.list().map_err(io_error)?;
        if names.iter().any(|name| name == writer::SPARE) {
            shared.disk.remove(writer::SPARE).map_err(io_error)?;
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        numbers.sort_unstable();
        let Some(last) = numbers.last().copied() else {
            let path = shared.disk.path(&segment::file_name(1));
            if !may_create {
                return Err(FileError::Missing { path });
            }
            let file = writer::first_segment(&shared, options.segment_len)
                .map_err(|source| FileError::Io { path, source })?;
            return Ok(Log::start(fresh(&shared, options, file)));
        };
        let mut recovery = Recovery::default();
        for number in numbers {
            recovery.read(&shared, number, number == last)?;
        }
        let writer = recovery.into_writer(&shared, options, after_failure)?;
        Ok(Log::start(writer))
    }

    fn start(writer: Writer) -> Log {
        let shared = writer.shared.clone();
        if writer.options.inline && shared.disk.delay().is_none() {
            return Log { shared, queue: Queue::Inline(Arc::new(Mutex::new(writer))) };
        }
        let (queue, jobs) = mpsc::channel(QUEUE_LEN);
        // Ends when the last handle of the log is dropped.
        if writer.options.inline {
            TaskTracker::new().spawn(run_slowly(writer, jobs));
            return Log { shared, queue: Queue::Worker(queue) };
        }
        std::thread::Builder::new()
            .name("log writer".into())
            .spawn(move || run(writer, jobs))
            .map(|_| Log { shared: shared.clone(), queue: Queue::Worker(queue.clone()) })
            .unwrap_or(Log { shared, queue: Queue::Worker(queue) })
    }

    /// Whether a write of this many bytes fits on the disk; if not, the writer tries to make room.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        let room = self.shared.room.load(Ordering::Relaxed);
        if room >= len.saturating_mul(2).max(ROOM_MIN) {
            return true;
        }
        match &self.queue {
            Queue::Worker(queue) => {
                // Full: the writer is at work and looks for room anyway.
                let _ = queue.try_send(Job::MakeRoom);
            }
            Queue::Inline(writer) => writer.lock().make_room(),
        }
        false
    }

    /// Whether this very entry is in the log.
    pub(crate) fn has(&self, id: LogId) -> bool {
        self.shared.index.lock().has(id)
    }

    /// Bytes of the entries behind this one, or of all.
    pub(crate) fn len_after(&self, index: Option<u64>) -> usize {
        self.shared.index.lock().len_after(index)
    }

    /// The last entry that must go so that the ones up to `covered` take no more than `len` bytes; none = they fit.
    pub(crate) fn excess(&self, covered: Option<u64>, len: usize) -> Option<u64> {
        self.shared.index.lock().excess(covered?, len)
    }

    /// Index of the last entry that only a snapshot has.
    pub(crate) fn purged(&self) -> Option<u64> {
        self.shared.index.lock().purged.map(|purged| purged.index)
    }

    /// Whether nothing was ever recorded.
    pub(crate) fn is_unused(&self) -> bool {
        let index = self.shared.index.lock();
        index.last().is_none() && index.vote.is_none()
    }

    async fn submit(&self, command: Command) -> io::Result<()> {
        match &self.queue {
            Queue::Worker(queue) => queue
                .send(Job::Write(command))
                .await
                .map_err(|_| io::Error::other("the writer of the log has ended")),
            Queue::Inline(writer) => {
                writer.lock().commit(vec![command]);
                Ok(())
            }
        }
    }
}

/// The thread of the writer: takes what waits, up to a frame, and makes it durable at once.
fn run(mut writer: Writer, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        work(&mut writer, job, &mut jobs);
    }
}

/// The same in a simulation, on a disk that takes its (simulated) time.
async fn run_slowly(mut writer: Writer, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        if let Some(delay) = writer.shared.disk.delay() {
            tokio::time::sleep(delay).await;
        }
        work(&mut writer, job, &mut jobs);
    }
}

fn work(writer: &mut Writer, job: Job, jobs: &mut mpsc::Receiver<Job>) {
    let mut commands = Vec::new();
    let mut len = 0;
    let mut next = Some(job);
    while let Some(job) = next {
        match job {
            Job::Write(command) => {
                len += command.len;
                commands.push(command);
            }
            Job::MakeRoom => writer.make_room(),
        }
        next = if len < FRAME_LEN { jobs.try_recv().ok() } else { None };
    }
    if !commands.is_empty() {
        writer.commit(commands);
    }
}

fn fresh(shared: &Arc<Shared>, options: LogOptions, file: Box<dyn DiskFile>) -> Writer {
    Writer {
        shared: shared.clone(),
        options,
        closed: VecDeque::new(),
        number: 1,
        file,
        file_len: options.segment_len,
        end: segment::HEADER_LEN as u64,
        next_frame: 1,
        index_max: 0,
        kept: Kept::default(),
        spare: None,
        failed: None,
    }
}

/// What the segments say, read one after the other.
#[derive(Default)]
struct Recovery {
    index: Index,
    kept: Kept,
    index_max: u64,
    closed: VecDeque<Closed>,
    last: Option<(Segment, Vec<u8>)>,
    has_entries: bool,
    /// Entries up to here are in no segment, and no purge says why yet.
    gap: Option<u64>,
}

impl Recovery {
    fn read(&mut self, shared: &Shared, number: u64, is_last: bool) -> Result<(), FileError> {
        let path = shared.disk.path(&segment::file_name(number));
        let bytes =
            read_all(shared, number).map_err(|source| FileError::Io { path: path.clone(), source })?;
        let segment = segment::scan(path.clone(), &bytes, is_last)?;
        let damaged = |offset: usize, reason: String| FileError::Damaged {
            path: path.clone(),
            offset: offset as u64,
            reason,
        };
        if segment.number != number {
            return Err(damaged(16, format!("it is segment {:x}", segment.number)));
        }
        if let Some((before, _)) = &self.last {
            if before.number + 1 != number {
                let path = shared.disk.path(&segment::file_name(before.number + 1));
                return Err(FileError::Missing { path });
            }
            let wanted = before.first_frame + before.frames.len() as u64;
            if segment.first_frame != wanted {
                let reason =
                    format!("it starts with frame {} and must start with {wanted}", segment.first_frame);
                return Err(damaged(24, reason));
            }
            self.closed.push_back(Closed { number: before.number, index_max: self.index_max });
        }
        for frame in &segment.frames {
            let payload = Bytes::copy_from_slice(&bytes[frame.payload.0..frame.payload.1]);
            let at = Position { segment: number, offset: frame.offset as u64 };
            let unknown = |source| FileError::Unknown { path: path.clone(), offset: at.offset, source };
            let frame: wire::Frame = codec::message("a frame of the log", payload).map_err(unknown)?;
            for record in frame.records {
                let Some(step) = record.step else {
                    let newer = "it is of a kind that this version does not know".to_owned();
                    return Err(unknown(codec::DecodeError::Malformed("a step of the log", newer)));
                };
                self.kept.note(&step);
                self.apply(step, at).map_err(|problem| match problem {
                    Problem::Decode(source) => unknown(source),
                    Problem::Order(reason) => {
                        FileError::Damaged { path: path.clone(), offset: at.offset, reason }
                    }
                })?;
            }
        }
        self.last = Some((segment, bytes));
        Ok(())
    }

    fn apply(&mut self, step: Step, at: Position) -> Result<(), Problem> {
        match step {
            Step::Entry(entry) => {
                let len = prost::Message::encoded_len(&entry);
                let entry = codec::decode_entry(entry).map_err(Problem::Decode)?;
                let id = entry.log_id();
                self.index_max = self.index_max.max(id.index);
                // Entries that were purged later may be in segments that are still there.
                if self.index.purged.is_some_and(|purged| id.index <= purged.index) {
                    return Ok(());
                }
                if !self.has_entries && id.index > self.index.next() {
                    // The entries before it went with their segments; the purge is recorded further on.
                    let before = id.index - 1;
                    self.index.purge(crate::types::log_id(0, before));
                    self.gap = Some(before);
                }
                self.has_entries = true;
                self.index.push(entry, len, Some(at)).map_err(Problem::Order)?;
            }
            Step::Vote(vote) => self.index.vote = Some(codec::decode_vote(vote)),
            Step::Truncate(truncate) => self.index.truncate(truncate.from),
            Step::Purge(id) => {
                self.index.purge(codec::decode_log_id(id));
                if self.gap.is_some_and(|gap| gap <= id.index) {
                    self.gap = None;
                }
            }
            Step::Committed(id) => self.index.committed = Some(codec::decode_log_id(id)),
        }
        Ok(())
    }

    fn into_writer(
        self,
        shared: &Arc<Shared>,
        options: LogOptions,
        after_failure: bool,
    ) -> Result<Writer, FileError> {
        let Some((segment, bytes)) = self.last else {
            return Err(FileError::Missing { path: shared.disk.path(&segment::file_name(1)) });
        };
        let name = segment::file_name(segment.number);
        let path = shared.disk.path(&name);
        if let Some(gap) = self.gap {
            let reason = format!("entries up to {gap} are missing");
            return Err(FileError::Damaged { path, offset: segment.end as u64, reason });
        }
        if segment.is_torn {
            tracing::warn!(
                file = %path.display(),
                offset = segment.end,
                "the last write was not finished and nothing of it was acknowledged; it is cut off"
            );
        }
        let file = reopened(shared, &name, &segment, &bytes, after_failure, options)
            .map_err(|source| FileError::Io { path: path.clone(), source })?;
        let file_len = file.size().map_err(|source| FileError::Io { path, source })?;
        *shared.index.lock() = self.index;
        Ok(Writer {
            shared: shared.clone(),
            options,
            closed: self.closed,
            number: segment.number,
            file,
            file_len,
            end: segment.end as u64,
            next_frame: segment.first_frame + segment.frames.len() as u64,
            index_max: self.index_max,
            kept: self.kept,
            spare: None,
            failed: None,
        })
    }
}

enum Problem {
    Decode(codec::DecodeError),
    Order(String),
}

/// The last segment, ready to be appended to: what was read is on the disk, and zeros follow.
fn reopened(
    shared: &Shared,
    name: &str,
    segment: &Segment,
    bytes: &[u8],
    after_failure: bool,
    options: LogOptions,
) -> io::Result<Box<dyn DiskFile>> {
    if after_failure || segment.is_torn {
        let len = options.segment_len.max(segment.end as u64);
        return writer::rewritten(shared, segment, &bytes[..segment.end], len);
    }
    let file = shared.disk.open(name)?;
    // The process that wrote it may have died before its sync.
    file.sync()?;
    Ok(file)
}

fn read_all(shared: &Shared, number: u64) -> io::Result<Vec<u8>> {
    let file = shared.disk.open(&segment::file_name(number))?;
    let len = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
