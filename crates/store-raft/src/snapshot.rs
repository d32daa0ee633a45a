//! Snapshot files: everything at one entry of the log, in checksummed chunks.
//!
//! ```text
//! header  magic(8) format(u32) zero(u32)                               16 bytes; format 2 when secrets are sealed
//!                                                                      or a replacement is under way, else 1
//! chunk   length(u32) crc32c of what follows(u32) payload(length)      the first is a SnapshotHeader
//! …
//! end     zero(u32) crc32c of all checksums before(u32)                nothing follows
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use graticule_model::Resource;
use graticule_store::seal::Sealer;
use graticule_store::{Revision, Snapshot};
use prost::Message as _;

use crate::codec;
use crate::disk::{Disk, DiskFile};
use crate::log::FileError;
use crate::staging::Staging;
use crate::types::{LogId, SnapshotMeta, StoredMembership};
use crate::wire;

const MAGIC: [u8; 8] = *b"GRATSNAP";
const FORMAT: u32 = 2;
/// The format that knows neither sealed secrets nor replacements.
const FORMAT_PLAIN: u32 = 1;
const HEADER_LEN: usize = 16;
const CHUNK_HEADER_LEN: usize = 8;
/// Bytes of resources in one chunk, unless one resource is longer.
const CHUNK_LEN: usize = 512 << 10;
/// No chunk is longer: a resource fits into a transaction.
const CHUNK_LEN_MAX: usize = 64 << 20;
/// Bytes between two syncs, so that one sync does not hold up the log behind a long queue of the disk.
const SYNC_EVERY: usize = 4 << 20;
/// Snapshots that are kept unless set otherwise: the newest, and the one before it for people who need it.
pub(crate) const KEPT_DEFAULT: usize = 2;

/// How snapshots are written and read.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Seals and opens secrets.
    pub(crate) sealer: Arc<Sealer>,
    /// Snapshots that are kept, at least one.
    pub(crate) kept: usize,
}

/// What a snapshot says beside the resources.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    pub(crate) meta: SnapshotMeta,
    pub(crate) snapshot: Snapshot,
    pub(crate) recent: Vec<wire::Recent>,
    pub(crate) forgotten: u64,
    /// A replacement that is under way.
    pub(crate) staging: Option<Staging>,
    /// Whether a secret in the file is not sealed with the current key.
    pub(crate) is_outdated: bool,
}

/// A complete snapshot file.
#[derive(Clone)]
pub struct SnapshotFile {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) name: String,
    /// Set for one that another member sent.
    received: Option<Arc<Received>>,
}

impl SnapshotFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, name: String) -> SnapshotFile {
        SnapshotFile { disk, name, received: None }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.disk.path(&self.name)
    }

    /// The bytes, also after the file was replaced by a newer one.
    pub(crate) fn source(&self) -> io::Result<Source> {
        let file = self.disk.open(&self.name)?;
        Ok(Source { len: file.size()?, file })
    }
}

/// A snapshot that is sent.
pub(crate) struct Source {
    file: Box<dyn DiskFile>,
    len: u64,
}

impl Source {
    /// Bytes from `offset`, at most `len`, and whether they are the last.
    pub(crate) fn part(&self, offset: u64, len: usize) -> io::Result<(Bytes, bool)> {
        let left = self.len.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok((bytes.into(), len as u64 == left))
    }
}

/// A snapshot that arrives: its file goes when it is dropped, unless it was installed.
pub(crate) struct Arriving {
    disk: Arc<dyn Disk>,
    name: String,
    file: Box<dyn DiskFile>,
    len: u64,
    is_kept: AtomicBool,
}

/// A snapshot that has arrived and was checked.
struct Received {
    arriving: Arriving,
    contents: Contents,
}

impl Arriving {
    pub(crate) fn create(disk: Arc<dyn Disk>, name: String) -> io::Result<Arriving> {
        let file = disk.create(&name)?;
        Ok(Arriving { disk, name, file, len: 0, is_kept: AtomicBool::new(false) })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends a part.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        let len = self.len + bytes.len() as u64;
        if len / SYNC_EVERY as u64 > self.len / SYNC_EVERY as u64 {
            self.file.sync()?;
        }
        self.len = len;
        Ok(())
    }

    /// Makes it durable and checks it: damage on the way must not become a failure of the own disk.
    pub(crate) fn finish(self, files: &Files) -> Result<(SnapshotMeta, SnapshotFile), FileError> {
        let file = SnapshotFile::new(self.disk.clone(), self.name.clone());
        self.file.sync().map_err(|source| FileError::Io { path: file.path(), source })?;
        let contents = read(&file, files)?;
        let meta = contents.meta.clone();
        let received = Received { arriving: self, contents };
        Ok((meta, SnapshotFile { received: Some(Arc::new(received)), ..file }))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Relaxed) {
            // What is left is removed at the next start at the latest.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// Gives a snapshot that was received its own name and says what is in it.
pub(crate) fn install(file: &SnapshotFile, files: &Files) -> io::Result<Contents> {
    let Some(received) = &file.received else { return read(file, files).map_err(io::Error::other) };
    let last = received.contents.meta.last_log_id.ok_or_else(|| io::Error::other("a snapshot of nothing"))?;
    let name = file_name(last);
    received.arriving.is_kept.store(true, Ordering::Relaxed);
    file.disk.rename(&file.name, &name)?;
    retain(&file.disk, &name, files.kept);
    Ok(received.contents.clone())
}

fn file_name(id: LogId) -> String {
    format!("snapshot-{:016x}-{:016x}.snap", id.index, id.leader_id.term)
}

fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_prefix("snapshot-")?.strip_suffix(".snap")?.split_once('-')?;
    if index.len() != 16 || term.len() != 16 {
        return None;
    }
    Some((u64::from_str_radix(index, 16).ok()?, u64::from_str_radix(term, 16).ok()?))
}

/// The newest snapshot of a directory, if there is one.
pub(crate) fn newest(disk: &Arc<dyn Disk>) -> io::Result<Option<SnapshotFile>> {
    let names = disk.list()?;
    let newest = names.into_iter().filter_map(|name| Some((parse_name(&name)?, name))).max();
    Ok(newest.map(|(_, name)| SnapshotFile::new(disk.clone(), name)))
}

/// Removes all but the newest snapshots, and what unfinished ones left behind.
pub(crate) fn retain(disk: &Arc<dyn Disk>, keep: &str, kept: usize) {
    let Ok(names) = disk.list() else { return };
    let mut complete: Vec<_> =
        names.iter().filter_map(|name| Some((parse_name(name)?, name.clone()))).collect();
    complete.sort();
    let old = complete.len().saturating_sub(kept.max(1));
    for (_, name) in complete.into_iter().take(old).filter(|(_, name)| name != keep) {
        if let Err(error) = disk.remove(&name) {
            tracing::warn!(%error, name, "an old snapshot cannot be removed");
        }
    }
}

/// Removes files of snapshots that were never finished.
pub(crate) fn remove_unfinished(disk: &Arc<dyn Disk>) -> io::Result<()> {
    for name in disk.list()? {
        if name.starts_with("snapshot-") && name.ends_with(".tmp") {
            disk.remove(&name)?;
        }
    }
    Ok(())
}

/// Writes a snapshot: first under another name, durable, then under its own.
pub(crate) fn write(disk: &Arc<dyn Disk>, contents: &Contents, files: &Files) -> io::Result<SnapshotFile> {
    let last = contents.meta.last_log_id.ok_or_else(|| io::Error::other("a snapshot of nothing"))?;
    let name = file_name(last);
    let temporary = format!("{name}.built.tmp");
    let result = write_file(disk, &temporary, contents, &files.sealer);
    let result = result.and_then(|()| disk.rename(&temporary, &name));
    if let Err(error) = result {
        // What is left is removed at the next start at the latest.
        let _ = disk.remove(&temporary);
        return Err(io::Error::new(error.kind(), format!("{}: {error}", disk.path(&name).display())));
    }
    retain(disk, &name, files.kept);
    Ok(SnapshotFile::new(disk.clone(), name))
}

fn write_file(disk: &Arc<dyn Disk>, name: &str, contents: &Contents, sealer: &Sealer) -> io::Result<()> {
    let file = disk.create(name)?;
    let mut writer = ChunkWriter { file, buffer: Vec::new(), offset: 0, checksums: 0, unsynced: 0 };
    writer.buffer.extend_from_slice(&MAGIC);
    let is_plain = sealer.key_id().is_none() && contents.staging.is_none();
    let format = if is_plain { FORMAT_PLAIN } else { FORMAT };
    writer.buffer.extend_from_slice(&format.to_le_bytes());
    writer.buffer.extend_from_slice(&[0; 4]);
    let membership = &contents.meta.last_membership;
    writer.chunk(&wire::SnapshotHeader {
        last: contents.meta.last_log_id.as_ref().map(codec::encode_log_id),
        membership: Some(codec::encode_membership(membership.membership())),
        membership_id: membership.log_id().as_ref().map(codec::encode_log_id),
        revision: contents.snapshot.revision().0,
        resources: contents.snapshot.len() as u64,
        recent: contents.recent.clone(),
        forgotten: contents.forgotten,
        staging: contents.staging.as_ref().map(Staging::to_wire),
    })?;
    let stored = contents.snapshot.iter();
    writer.resources(stored, sealer, |resources| wire::SnapshotChunk { resources, staged: Vec::new() })?;
    if let Some(staging) = &contents.staging {
        let staged = staging.resources().iter();
        writer.resources(staged, sealer, |staged| wire::SnapshotChunk { resources: Vec::new(), staged })?;
    }
    writer.finish()
}

struct ChunkWriter {
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    offset: u64,
    checksums: u32,
    unsynced: usize,
}

impl ChunkWriter {
    fn resources<'a>(
        &mut self,
        resources: impl Iterator<Item = &'a Arc<Resource>>,
        sealer: &Sealer,
        chunk: impl Fn(Vec<wire::Resource>) -> wire::SnapshotChunk,
    ) -> io::Result<()> {
        let (mut waiting, mut len) = (Vec::new(), 0);
        for resource in resources {
            let resource = codec::encode_resource(resource, sealer);
            len += resource.encoded_len();
            waiting.push(resource);
            if len >= CHUNK_LEN {
                self.chunk(&chunk(std::mem::take(&mut waiting)))?;
                len = 0;
            }
        }
        if waiting.is_empty() { Ok(()) } else { self.chunk(&chunk(waiting)) }
    }

    fn chunk(&mut self, message: &impl prost::Message) -> io::Result<()> {
        let payload = message.encode_to_vec();
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let crc = crc32c::crc32c(&payload);
        self.checksums = crc32c::crc32c_append(self.checksums, &crc.to_le_bytes());
        self.buffer.extend_from_slice(&len.to_le_bytes());
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(&payload);
        self.flush()?;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&self.checksums.to_le_bytes());
        self.flush()?;
        self.file.sync()
    }
}

/// Reads what a snapshot covers, without its resources.
pub(crate) fn read_meta(file: &SnapshotFile) -> Result<SnapshotMeta, FileError> {
    let mut reader = ChunkReader::open(file)?;
    let offset = reader.offset;
    let header = reader.next()?.ok_or_else(|| reader.damaged(offset, "it is empty"))?;
    let header: wire::SnapshotHeader =
        codec::message("the header of a snapshot", header).map_err(|error| reader.unknown(offset, error))?;
    meta_of(&header).map_err(|error| reader.unknown(offset, error))
}

fn meta_of(header: &wire::SnapshotHeader) -> Result<SnapshotMeta, codec::DecodeError> {
    let membership = header.membership.clone().map(codec::decode_membership).transpose()?;
    let membership_id = header.membership_id.map(codec::decode_log_id);
    Ok(SnapshotMeta {
        last_log_id: header.last.map(codec::decode_log_id),
        last_membership: StoredMembership::new(membership_id, membership.unwrap_or_default()),
    })
}

/// Reads and checks a whole snapshot.
pub(crate) fn read(file: &SnapshotFile, files: &Files) -> Result<Contents, FileError> {
    let mut reader = ChunkReader::open(file)?;
    let mut chunks = Vec::new();
    loop {
        let offset = reader.offset;
        match reader.next()? {
            Some(chunk) => chunks.push((offset, chunk)),
            None => return decode(&reader, chunks, &files.sealer),
        }
    }
}

/// The chunks of a file, one after the other, each checked.
struct ChunkReader {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    len: u64,
    offset: u64,
    checksums: u32,
}

impl ChunkReader {
    fn open(file: &SnapshotFile) -> Result<ChunkReader, FileError> {
        let path = file.path();
        let io_error = |source| FileError::Io { path: path.clone(), source };
        let handle = file.disk.open(&file.name).map_err(io_error)?;
        let len = handle.size().map_err(io_error)?;
        let offset = HEADER_LEN as u64;
        let reader = ChunkReader { path: path.clone(), file: handle, len, offset, checksums: 0 };
        if len < offset {
            return Err(reader.damaged(len, "the file ends within its header"));
        }
        let mut head = [0; HEADER_LEN];
        reader.read(&mut head, 0)?;
        if head[..8] != MAGIC {
            return Err(reader.damaged(0, "this is no snapshot"));
        }
        let format = u32_of(&head[8..12]);
        if format > FORMAT {
            return Err(FileError::TooNew { path, found: format, known: FORMAT });
        }
        if format == 0 || head[12..] != [0; 4] {
            return Err(reader.damaged(8, "the header is not what was written"));
        }
        Ok(reader)
    }

    fn damaged(&self, offset: u64, reason: &str) -> FileError {
        FileError::Damaged { path: self.path.clone(), offset, reason: reason.into() }
    }

    fn unknown(&self, offset: u64, source: codec::DecodeError) -> FileError {
        FileError::Unknown { path: self.path.clone(), offset, source }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), FileError> {
        let failed = |source| FileError::Io { path: self.path.clone(), source };
        self.file.read_exact_at(buffer, offset).map_err(failed)
    }

    /// None at the end, which is checked, too.
    fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        let body = self.offset + CHUNK_HEADER_LEN as u64;
        if body > self.len {
            return Err(self.damaged(self.offset, "the file ends early"));
        }
        let mut head = [0; CHUNK_HEADER_LEN];
        self.read(&mut head, self.offset)?;
        let (len, crc) = (u32_of(&head[..4]) as usize, u32_of(&head[4..]));
        if len == 0 {
            if crc != self.checksums {
                return Err(self.damaged(self.offset, "the checksum of the whole is wrong"));
            }
            if body != self.len {
                return Err(self.damaged(body, "there is something behind the end"));
            }
            return Ok(None);
        }
        let end = body + len as u64;
        if len > CHUNK_LEN_MAX || end > self.len {
            return Err(self.damaged(self.offset, "the file ends early"));
        }
        let mut payload = vec![0; len];
        self.read(&mut payload, body)?;
        if crc32c::crc32c(&payload) != crc {
            return Err(self.damaged(self.offset, "the checksum is wrong"));
        }
        self.checksums = crc32c::crc32c_append(self.checksums, &crc.to_le_bytes());
        self.offset = end;
        Ok(Some(payload.into()))
    }
}

fn decode(reader: &ChunkReader, chunks: Vec<(u64, Bytes)>, sealer: &Sealer) -> Result<Contents, FileError> {
    let mut chunks = chunks.into_iter();
    let Some((offset, header)) = chunks.next() else {
        return Err(reader.damaged(HEADER_LEN as u64, "it is empty"));
    };
    let header: wire::SnapshotHeader =
        codec::message("the header of a snapshot", header).map_err(|error| reader.unknown(offset, error))?;
    let meta = meta_of(&header).map_err(|error| reader.unknown(offset, error))?;
    let decoded = decode_all(chunks.collect(), sealer).map_err(|(at, source)| reader.unknown(at, source))?;
    if decoded.resources.len() as u64 != header.resources {
        let reason = format!("{} resources are there of {}", decoded.resources.len(), header.resources);
        return Err(reader.damaged(offset, &reason));
    }
    let staging = header.staging.map(|staging| Staging::restore(&staging, decoded.staged)).transpose();
    let resources = decoded.resources.into_iter().map(Arc::new);
    Ok(Contents {
        meta,
        snapshot: Snapshot::restore(Revision(header.revision), resources),
        recent: header.recent,
        forgotten: header.forgotten,
        staging: staging.map_err(|source| reader.unknown(offset, source))?,
        is_outdated: decoded.is_outdated,
    })
}

/// What is in the chunks behind the header.
#[derive(Default)]
struct Decoded {
    resources: Vec<Resource>,
    staged: Vec<Resource>,
    is_outdated: bool,
}

type ChunkError = (u64, codec::DecodeError);

/// Decodes chunks on all processors: this is what a start with many resources waits for.
fn decode_all(chunks: Vec<(u64, Bytes)>, sealer: &Sealer) -> Result<Decoded, ChunkError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(chunks.len());
    if threads < 2 {
        return decode_some(&chunks, sealer);
    }
    let share = chunks.len().div_ceil(threads);
    let parts: Vec<Result<Decoded, ChunkError>> = std::thread::scope(|scope| {
        let parts: Vec<_> =
            chunks.chunks(share).map(|part| scope.spawn(move || decode_some(part, sealer))).collect();
        parts
            .into_iter()
            .map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Decoded::default();
    for part in parts {
        let part = part?;
        all.resources.extend(part.resources);
        all.staged.extend(part.staged);
        all.is_outdated |= part.is_outdated;
    }
    Ok(all)
}

fn decode_some(chunks: &[(u64, Bytes)], sealer: &Sealer) -> Result<Decoded, ChunkError> {
    let mut decoded = Decoded::default();
    for (offset, payload) in chunks {
        let at = |error| (*offset, error);
        let chunk: wire::SnapshotChunk =
            codec::message("a chunk of a snapshot", payload.clone()).map_err(at)?;
        for (from, to) in [(chunk.resources, &mut decoded.resources), (chunk.staged, &mut decoded.staged)] {
            for resource in from {
                decoded.is_outdated |= codec::is_outdated(&resource, sealer);
                to.push(codec::decode_resource(resource, sealer).map_err(at)?);
            }
        }
    }
    Ok(decoded)
}

fn u32_of(bytes: &[u8]) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
