//! The format of a segment file, and what a damaged one means.
//!
//! ```text
//! header   magic(8) format(u32) zero(u32) segment(u64) first frame(u64) length of the file(u64) zero(u32) crc32c(u32)
//! frame    length(u32) number(u64) crc32c of these(u32) crc32c of the payload(u32) payload(length)
//! …        zeros up to the end of the file
//! ```
//! Numbers are little endian. A file is filled with zeros before it is used, so that a write never changes its
//! size, and one frame is durable before the next one is written. Therefore only the very last frame can be
//! torn: a bad frame that others follow is damage. Nothing was acknowledged of a torn frame. A disk writes sectors
//! wholly or not at all; so a torn frame has a sector that is still zero, or the file lost its end.

use std::io;
use std::path::PathBuf;

use crate::disk::DiskFile;

/// First bytes of a segment.
const MAGIC: [u8; 8] = *b"GRATLOG\0";
/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Length of the header of a segment.
pub(crate) const HEADER_LEN: usize = 48;
/// Length of the header of a frame.
pub(crate) const FRAME_HEADER_LEN: usize = 20;
/// The unit that disks write wholly or not at all.
const SECTOR_LEN: usize = 512;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Reason.
        #[source]
        source: io::Error,
    },
    /// A newer version wrote it.
    #[error(
        "{} has format {found}; this version of the program reads formats up to {known}: run the newer version that wrote it",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u32,
        /// The newest known format.
        known: u32,
    },
    /// Its contents are not what was written.
    #[error("{} is damaged at offset {offset}: {reason}; restore a backup, or remove the member and let it join again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// It is needed and not there.
    #[error("{} is missing; restore a backup, or remove the member and let it join again", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version in terms that this one does not know.
    #[error("{} cannot be understood at offset {offset}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// Reason.
        #[source]
        source: crate::codec::DecodeError,
    },
}

/// A segment as it lies on the disk.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) first_frame: u64,
    pub(crate) frames: Vec<FrameAt>,
    /// Where the next frame goes.
    pub(crate) end: usize,
    /// Bytes behind the last good frame belong to a frame that was never finished.
    pub(crate) is_torn: bool,
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameAt {
    pub(crate) offset: usize,
    pub(crate) payload: (usize, usize),
}

pub(crate) fn file_name(number: u64) -> String {
    format!("log-{number:016x}.seg")
}

pub(crate) fn number_of(name: &str) -> Option<u64> {
    let hex = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    if hex.len() == 16 { u64::from_str_radix(hex, 16).ok() } else { None }
}

pub(crate) fn header(number: u64, first_frame: u64, file_len: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..32].copy_from_slice(&first_frame.to_le_bytes());
    header[32..40].copy_from_slice(&file_len.to_le_bytes());
    let crc = crc32c::crc32c(&header[..44]);
    header[44..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// A frame as it is written.
pub(crate) fn frame(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEADER_LEN + payload.len());
    let len = u32::try_from(payload.len()).expect("frames are limited far below 4 GiB");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads one frame that is known to be good; checks it again.
pub(crate) fn read_frame(file: &dyn DiskFile, offset: u64) -> io::Result<Vec<u8>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the checksum is wrong");
    let mut head = [0; FRAME_HEADER_LEN];
    file.read_exact_at(&mut head, offset)?;
    let Some((len, _)) = frame_header(&head) else { return Err(damaged()) };
    let mut payload = vec![0; len];
    file.read_exact_at(&mut payload, offset + FRAME_HEADER_LEN as u64)?;
    if crc32c::crc32c(&payload) != u32_at(&head, 16) {
        return Err(damaged());
    }
    Ok(payload)
}

/// Length of the payload and number of the frame, if the header is good.
fn frame_header(head: &[u8]) -> Option<(usize, u64)> {
    let head = head.get(..FRAME_HEADER_LEN)?;
    if crc32c::crc32c(&head[..12]) != u32_at(head, 12) {
        return None;
    }
    let len = usize::try_from(u32_at(head, 0)).ok()?;
    (len > 0).then(|| (len, u64_at(head, 4)))
}

/// Finds the frames of a file. Only the last segment of a log may end in a torn frame.
pub(crate) fn scan(path: PathBuf, bytes: &[u8], is_last: bool) -> Result<Segment, FileError> {
    let damaged = |offset: usize, reason: &str| FileError::Damaged {
        path: path.clone(),
        offset: offset as u64,
        reason: reason.into(),
    };
    if bytes.len() < HEADER_LEN {
        return Err(damaged(bytes.len(), "the file ends within its header"));
    }
    if bytes[..8] != MAGIC {
        return Err(damaged(0, "this is no log segment"));
    }
    let format = u32_at(bytes, 8);
    if format > FORMAT {
        return Err(FileError::TooNew { path, found: format, known: FORMAT });
    }
    if crc32c::crc32c(&bytes[..44]) != u32_at(bytes, 44) {
        return Err(damaged(0, "the checksum of the header is wrong"));
    }
    let (number, first_frame, file_len) = (u64_at(bytes, 16), u64_at(bytes, 24), u64_at(bytes, 32));
    let is_cut = (bytes.len() as u64) < file_len;
    let mut segment = Segment { number, first_frame, frames: Vec::new(), end: HEADER_LEN, is_torn: false };
    loop {
        let expected = first_frame + segment.frames.len() as u64;
        match frame_at(bytes, segment.end, expected) {
            Some(end) => {
                let payload = (segment.end + FRAME_HEADER_LEN, end);
                segment.frames.push(FrameAt { offset: segment.end, payload });
                segment.end = end;
            }
            None => break,
        }
    }
    let rest = &bytes[segment.end..];
    if rest.iter().all(|byte| *byte == 0) {
        segment.is_torn = is_cut;
        return if is_last || !is_cut {
            Ok(segment)
        } else {
            Err(damaged(bytes.len(), "the file ends early"))
        };
    }
    let expected = first_frame + segment.frames.len() as u64;
    if let Some(later) = later_frame(bytes, segment.end + 1, expected) {
        let reason = format!("the checksum is wrong, and a good frame follows at offset {later}");
        return Err(damaged(segment.end, &reason));
    }
    if !is_last {
        return Err(damaged(segment.end, "the checksum is wrong, and another segment follows"));
    }
    if !is_unfinished(bytes, segment.end, is_cut) {
        return Err(damaged(segment.end, "the checksum is wrong, and the frame was written to its end"));
    }
    segment.is_torn = true;
    Ok(segment)
}

/// End of the frame at `offset`, if there is a good one with this number.
fn frame_at(bytes: &[u8], offset: usize, number: u64) -> Option<usize> {
    let (len, found) = frame_header(bytes.get(offset..)?)?;
    let start = offset + FRAME_HEADER_LEN;
    let payload = bytes.get(start..start.checked_add(len)?)?;
    let is_good = found == number && crc32c::crc32c(payload) == u32_at(bytes, offset + 16);
    is_good.then_some(start + len)
}

/// A good frame behind `from` that was written after the frame `expected`.
fn later_frame(bytes: &[u8], from: usize, expected: u64) -> Option<usize> {
    // A segment holds fewer frames than bytes, so that only few positions look like a frame at all.
    let numbers = expected + 1..expected + bytes.len() as u64;
    (from..bytes.len().saturating_sub(FRAME_HEADER_LEN)).find(|offset| {
        let number = u64_at(bytes, offset + 4);
        numbers.contains(&number) && frame_at(bytes, *offset, number).is_some()
    })
}

/// Whether the bad frame at `offset` was not written to its end: a sector of it still has the zeros that every file
/// is filled with, or the file lost its end (`is_cut`) within the frame.
fn is_unfinished(bytes: &[u8], offset: usize, is_cut: bool) -> bool {
    let rest = &bytes[offset..];
    let Some((len, _)) = frame_header(rest) else {
        // The header cannot be trusted; it was written if all of its sectors were.
        let head = offset..bytes.len().min(offset + FRAME_HEADER_LEN);
        return (is_cut && rest.len() < FRAME_HEADER_LEN) || has_zero_sector(bytes, head);
    };
    let end = offset.saturating_add(FRAME_HEADER_LEN).saturating_add(len);
    if end > bytes.len() {
        return is_cut;
    }
    has_zero_sector(bytes, offset..end)
}

fn has_zero_sector(bytes: &[u8], range: std::ops::Range<usize>) -> bool {
    let mut start = range.start;
    while start < range.end {
        let sector_end = range.end.min((start / SECTOR_LEN + 1) * SECTOR_LEN);
        if bytes[start..sector_end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = sector_end;
    }
    false
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}
