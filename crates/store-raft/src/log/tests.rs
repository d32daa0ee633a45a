use openraft::RaftLogReader as _;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage as _};

use super::*;
use crate::disk::MemoryDisk;
use crate::types::{Entry, Proposed, Vote, log_id};

const INLINE: LogOptions = LogOptions { segment_len: 4096, inline: true };

fn entry(index: u64, len: usize) -> Entry {
    let byte = u8::try_from(index % 250).expect("small") + 1;
    Entry::new(log_id(1, index), openraft::EntryPayload::Normal(Proposed(vec![byte; len].into())))
}

fn open(disk: &MemoryDisk) -> Result<Log, FileError> {
    Log::open(Arc::new(disk.clone()), INLINE, disk.list().expect("lists").is_empty(), false)
}

async fn append(log: &mut Log, entries: impl IntoIterator<Item = Entry> + Send) {
    let entries: Vec<Entry> = entries.into_iter().collect();
    log.append(entries, IOFlushed::noop()).await.expect("appended");
}

async fn all(log: &mut Log) -> Vec<Entry> {
    log.try_get_log_entries(..).await.expect("readable")
}

#[tokio::test]
async fn everything_is_there_again() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).expect("a new log");
    assert!(log.is_unused());
    let vote = Vote::new_committed(3, 9);
    log.save_vote(&vote).await.expect("saved");
    // Many segments, and one entry that is longer than a segment.
    let mut wanted: Vec<Entry> = (0..40).map(|index| entry(index, 300)).collect();
    wanted.push(entry(40, 20_000));
    wanted.push(entry(41, 10));
    for chunk in wanted.chunks(3) {
        append(&mut log, chunk.to_vec()).await;
    }
    log.save_committed(Some(log_id(1, 41))).await.expect("saved");
    append(&mut log, [entry(42, 10)]).await;
    wanted.push(entry(42, 10));
    drop(log);
    let mut log = open(&disk).expect("opens");
    assert_eq!(all(&mut log).await, wanted);
    assert_eq!(log.read_vote().await.expect("read"), Some(vote));
    assert_eq!(log.read_committed().await.expect("read"), Some(log_id(1, 41)));
    assert!(disk.list().expect("lists").len() > 4, "several segments: {:?}", disk.list());
}

#[tokio::test]
async fn truncation_and_purge_survive_and_free_segments() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).expect("a new log");
    log.save_vote(&Vote::new(2, 7)).await.expect("saved");
    append(&mut log, (0..60).map(|index| entry(index, 300))).await;
    log.truncate_after(Some(log_id(1, 49))).await.expect("truncated");
    append(&mut log, (50..55).map(|index| entry(index, 20))).await;
    for index in 55..90 {
        append(&mut log, [entry(index, 300)]).await;
    }
    let before = disk.list().expect("lists").len();
    log.purge(log_id(1, 70)).await.expect("purged");
    assert!(disk.list().expect("lists").len() < before, "old segments go");
    drop(log);
    let mut log = open(&disk).expect("opens");
    assert_eq!(all(&mut log).await, (71..90).map(|index| entry(index, 300)).collect::<Vec<_>>());
    let state = log.get_log_state().await.expect("a state");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 70)), Some(log_id(1, 89))));
    assert_eq!(log.read_vote().await.expect("read"), Some(Vote::new(2, 7)), "the vote outlives its segment");
    // A snapshot of a leader that is far ahead.
    log.purge(log_id(5, 500)).await.expect("purged");
    drop(log);
    let mut log = open(&disk).expect("opens");
    let state = log.get_log_state().await.expect("a state");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(5, 500)), Some(log_id(5, 500))));
    let after = Entry::new(log_id(5, 501), openraft::EntryPayload::Blank);
    append(&mut log, [after.clone()]).await;
    drop(log);
    assert_eq!(all(&mut open(&disk).expect("opens")).await, [after]);
}

/// A log of a few frames in one segment, and where each frame ends.
async fn mk_frames() -> (MemoryDisk, String, Vec<usize>) {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).expect("a new log");
    for (index, len) in [(0, 30), (1, 700), (2, 1), (3, 1200)] {
        append(&mut log, [entry(index, len)]).await;
    }
    drop(log);
    let name = segment::file_name(1);
    let scanned = segment::scan("log".into(), &disk.bytes(&name).expect("there"), true).expect("good");
    let ends = scanned.frames.iter().map(|frame| frame.payload.1).collect();
    (disk, name, ends)
}

#[tokio::test]
async fn a_tail_that_is_cut_at_any_byte_leaves_the_frames_before() {
    let (disk, name, ends) = mk_frames().await;
    let bytes = disk.bytes(&name).expect("there");
    for cut in 0..ends[3] + 50 {
        let disk = disk.copy();
        disk.set_bytes(&name, bytes[..cut].to_vec());
        match open(&disk) {
            Ok(mut log) => {
                assert!(cut >= segment::HEADER_LEN, "cut at {cut}");
                let left = ends.iter().filter(|end| **end <= cut).count() as u64;
                let found: Vec<u64> = all(&mut log).await.iter().map(|entry| entry.log_id().index).collect();
                assert_eq!(found, (0..left).collect::<Vec<_>>(), "cut at {cut}");
                // The log goes on where it was cut.
                append(&mut log, [entry(left, 5)]).await;
                drop(log);
                assert_eq!(
                    all(&mut open(&disk).expect("opens")).await.len() as u64,
                    left + 1,
                    "cut at {cut}"
                );
            }
            Err(FileError::Damaged { .. }) => assert!(cut < segment::HEADER_LEN, "cut at {cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
}

#[tokio::test]
async fn sectors_that_were_not_written_leave_the_frames_before() {
    let (disk, name, ends) = mk_frames().await;
    let bytes = disk.bytes(&name).expect("there");
    let last = ends[2]..ends[3];
    // Every choice of the sectors that the last frame is in.
    let sectors: Vec<usize> = (last.start / 512..=(last.end - 1) / 512).collect();
    for lost in 1..1_usize << sectors.len() {
        let mut torn = bytes.clone();
        for (bit, sector) in sectors.iter().enumerate().filter(|(bit, _)| lost & (1 << bit) != 0) {
            let _ = bit;
            let range = (sector * 512).max(last.start)..(sector * 512 + 512).min(last.end);
            torn[range].fill(0);
        }
        let disk = disk.copy();
        disk.set_bytes(&name, torn);
        let mut log = open(&disk).unwrap_or_else(|error| panic!("lost {lost:b}: {error}"));
        assert_eq!(all(&mut log).await.len(), 3, "lost {lost:b}");
    }
}

#[tokio::test]
async fn a_changed_byte_is_reported_with_file_and_offset() {
    let (disk, name, ends) = mk_frames().await;
    let bytes = disk.bytes(&name).expect("there");
    for offset in 0..ends[3] {
        for flip in [1, 0x80] {
            let mut changed = bytes.clone();
            changed[offset] ^= flip;
            let disk = disk.copy();
            disk.set_bytes(&name, changed);
            let error = match open(&disk) {
                Ok(mut log) => {
                    let left = all(&mut log).await.len();
                    panic!("byte {offset} changed by {flip:#x} was not noticed; {left} entries left")
                }
                Err(error) => error,
            };
            match &error {
                FileError::Damaged { offset: found, .. } => {
                    let frame = ends.iter().rev().find(|end| **end <= offset).copied();
                    let start =
                        frame.unwrap_or(if offset < segment::HEADER_LEN { 0 } else { segment::HEADER_LEN });
                    assert_eq!(*found, start as u64, "byte {offset}: {error}");
                }
                FileError::TooNew { .. } => assert!((8..12).contains(&offset), "byte {offset}: {error}"),
                _ => panic!("byte {offset}: {error}"),
            }
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_reported() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).expect("a new log");
    for index in 0..60 {
        append(&mut log, [entry(index, 300)]).await;
    }
    drop(log);
    let missing = segment::file_name(3);
    disk.remove(&missing).expect("removed");
    let Err(error) = open(&disk) else { panic!("a gap must be noticed") };
    assert!(matches!(&error, FileError::Missing { .. }) && error.to_string().contains(&missing), "{error}");
    for name in disk.list().expect("lists") {
        disk.remove(&name).expect("removed");
    }
    let nothing = Log::open(Arc::new(disk), INLINE, false, false);
    assert!(matches!(nothing, Err(FileError::Missing { .. })), "a log that must be there is not made anew");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (disk, name, _) = mk_frames().await;
    let mut bytes = disk.bytes(&name).expect("there");
    bytes[8] = 2;
    disk.set_bytes(&name, bytes);
    let Err(error) = open(&disk) else { panic!("format 2 is unknown") };
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[tokio::test]
async fn a_crash_keeps_what_was_synced() {
    let random = graticule_runtime::Random::seeded(11);
    for round in 0..50 {
        let disk = MemoryDisk::new();
        let mut log = open(&disk).expect("a new log");
        append(&mut log, (0..5).map(|index| entry(index, 600))).await;
        // Written, not synced.
        disk.set_failing(false);
        let file = disk.open(&segment::file_name(1)).expect("there");
        let scanned = segment::scan("log".into(), &disk.bytes(&segment::file_name(1)).expect("there"), true)
            .expect("good");
        if scanned.end + 700 < 4096 {
            file.write_all_at(&segment::frame(99, &[1; 600]), scanned.end as u64).expect("written");
        }
        drop(log);
        disk.crash(&random);
        let opened = open(&disk);
        match opened {
            Ok(mut log) => assert_eq!(all(&mut log).await.len(), 5, "round {round}"),
            // A whole frame of a foreign number is no torn one.
            Err(error) => assert!(error.to_string().contains("written to its end"), "round {round}: {error}"),
        }
    }
}

#[tokio::test]
async fn old_entries_are_read_from_the_disk() {
    let disk = MemoryDisk::new();
    let options = LogOptions { segment_len: 4 << 20, inline: true };
    let mut log = Log::open(Arc::new(disk.clone()), options, true, false).expect("a new log");
    // More than the cache holds.
    for index in 0..200 {
        append(&mut log, [entry(index, 100_000)]).await;
    }
    assert!(log.shared.index.lock().find(0..1).iter().all(|found| matches!(found, index::Found::OnDisk(..))));
    assert_eq!(
        log.try_get_log_entries(0..3).await.expect("read"),
        [0, 1, 2].map(|index| entry(index, 100_000))
    );
    let some = log.limited_get_log_entries(0, 200).await.expect("read");
    assert!(!some.is_empty() && some.len() < 30, "messages are limited: {}", some.len());
}
