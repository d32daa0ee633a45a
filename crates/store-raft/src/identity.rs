//! The file `node`: whose data directory this is.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use graticule_runtime::Random;
use prost::Message as _;

use crate::codec;
use crate::disk::Disk;
use crate::log::FileError;
use crate::wire;

const NAME: &str = "node";
const TEMPORARY: &str = "node.tmp";
const MAGIC: [u8; 8] = *b"GRATNODE";
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 20;
/// A few identifiers.
const LEN_MAX: u64 = 64 << 10;

/// What the file says; none when there is no file.
pub(crate) fn read(disk: &Arc<dyn Disk>) -> Result<Option<wire::Node>, FileError> {
    let path = disk.path(NAME);
    let io_error = |source| FileError::Io { path: path.clone(), source };
    if !disk.list().map_err(io_error)?.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let damaged =
        |offset: u64, reason: &str| FileError::Damaged { path: path.clone(), offset, reason: reason.into() };
    let file = disk.open(NAME).map_err(io_error)?;
    let len = file.size().map_err(io_error)?;
    if len < HEADER_LEN as u64 || len > LEN_MAX {
        return Err(damaged(0, "its length is wrong"));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0).map_err(io_error)?;
    if bytes[..8] != MAGIC {
        return Err(damaged(0, "this is no file of a member"));
    }
    let format = number(&bytes, 8);
    if format > FORMAT {
        return Err(FileError::TooNew { path, found: format, known: FORMAT });
    }
    if number(&bytes, 12) as usize != bytes.len() - HEADER_LEN {
        return Err(damaged(12, "its length is wrong"));
    }
    if crc32c::crc32c(&bytes[HEADER_LEN..]) != number(&bytes, 16) {
        return Err(damaged(16, "the checksum is wrong"));
    }
    let payload = Bytes::copy_from_slice(&bytes[HEADER_LEN..]);
    let node = codec::message("the file of a member", payload).map_err(|source| FileError::Unknown {
        path,
        offset: HEADER_LEN as u64,
        source,
    })?;
    Ok(Some(node))
}

/// Writes the file.
pub(crate) fn write(disk: &Arc<dyn Disk>, node: &wire::Node) -> Result<(), FileError> {
    let payload = node.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    let write = || -> io::Result<()> {
        let file = disk.create(TEMPORARY)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()?;
        disk.rename(TEMPORARY, NAME)
    };
    write().map_err(|source| FileError::Io { path: disk.path(NAME), source })
}

/// A number for a new member: never 0.
pub(crate) fn new_id(random: &Random) -> u64 {
    random.u64().max(1)
}

fn number(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}
