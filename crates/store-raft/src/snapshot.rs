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
use parking_lot::Mutex;
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
    /// Bytes of the file that it was read from.
    pub(crate) len: u64,
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

    /// Its length.
    pub(crate) fn len(&self) -> io::Result<u64> {
        self.disk.open(&self.name)?.size()
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
    let source = ChunkFile::open(file)?;
    Ok(source.cursor().header()?.1)
}

fn meta_of(header: &wire::SnapshotHeader) -> Result<SnapshotMeta, codec::DecodeError> {
    let membership = header.membership.clone().map(codec::decode_membership).transpose()?;
    let membership_id = header.membership_id.map(codec::decode_log_id);
    Ok(SnapshotMeta {
        last_log_id: header.last.map(codec::decode_log_id),
        last_membership: StoredMembership::new(membership_id, membership.unwrap_or_default()),
    })
}

/// Reads and checks a whole snapshot: on all processors, because a start with many resources waits for it, and without
/// ever having more than one chunk for each of them in memory.
pub(crate) fn read(file: &SnapshotFile, files: &Files) -> Result<Contents, FileError> {
    let source = ChunkFile::open(file)?;
    let mut cursor = source.cursor();
    let offset = cursor.offset;
    let (header, meta) = cursor.header()?;
    let parts = decode_all(&Mutex::new(Chunks { cursor, number: 0, is_over: false }), &files.sealer)?;
    let (mut resources, mut staged, mut is_outdated) = (Vec::new(), Vec::new(), false);
    for part in parts {
        resources.extend(part.resources);
        staged.extend(part.staged);
        is_outdated |= part.is_outdated;
    }
    if resources.len() as u64 != header.resources {
        let reason = format!("{} resources are there of {}", resources.len(), header.resources);
        return Err(source.damaged(offset, &reason));
    }
    let staging = header.staging.map(|staging| Staging::restore(&staging, staged)).transpose();
    Ok(Contents {
        meta,
        snapshot: Snapshot::restore(Revision(header.revision), resources),
        recent: header.recent,
        forgotten: header.forgotten,
        staging: staging.map_err(|error| source.unknown(offset, error))?,
        is_outdated,
        len: source.len,
    })
}

/// A snapshot file whose header is good.
struct ChunkFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    len: u64,
}

impl ChunkFile {
    fn open(file: &SnapshotFile) -> Result<ChunkFile, FileError> {
        let path = file.path();
        let io_error = |source| FileError::Io { path: path.clone(), source };
        let handle = file.disk.open(&file.name).map_err(io_error)?;
        let len = handle.size().map_err(io_error)?;
        let source = ChunkFile { path: path.clone(), file: handle, len };
        if len < HEADER_LEN as u64 {
            return Err(source.damaged(len, "the file ends within its header"));
        }
        let mut head = [0; HEADER_LEN];
        source.read(&mut head, 0)?;
        if head[..8] != MAGIC {
            return Err(source.damaged(0, "this is no snapshot"));
        }
        let format = u32_of(&head[8..12]);
        if format > FORMAT {
            return Err(FileError::TooNew { path, found: format, known: FORMAT });
        }
        if format == 0 || head[12..] != [0; 4] {
            return Err(source.damaged(8, "the header is not what was written"));
        }
        Ok(source)
    }

    fn cursor(&self) -> Cursor<'_> {
        Cursor { file: self, offset: HEADER_LEN as u64, checksums: 0 }
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

    /// The chunk at a place, checked.
    fn chunk(&self, place: Place) -> Result<Bytes, FileError> {
        let mut payload = vec![0; place.len];
        self.read(&mut payload, place.offset + CHUNK_HEADER_LEN as u64)?;
        if crc32c::crc32c(&payload) != place.crc {
            return Err(self.damaged(place.offset, "the checksum is wrong"));
        }
        Ok(payload.into())
    }
}

/// Where a chunk is, and what must be there.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    len: usize,
    crc: u32,
}

/// The places of the chunks of a file, one after the other.
struct Cursor<'a> {
    file: &'a ChunkFile,
    offset: u64,
    checksums: u32,
}

impl Cursor<'_> {
    /// None at the end, which is checked.
    fn next(&mut self) -> Result<Option<Place>, FileError> {
        let (file, offset) = (self.file, self.offset);
        let body = offset + CHUNK_HEADER_LEN as u64;
        if body > file.len {
            return Err(file.damaged(offset, "the file ends early"));
        }
        let mut head = [0; CHUNK_HEADER_LEN];
        file.read(&mut head, offset)?;
        let (len, crc) = (u32_of(&head[..4]) as usize, u32_of(&head[4..]));
        if len == 0 {
            if crc != self.checksums {
                return Err(file.damaged(offset, "the checksum of the whole is wrong"));
            }
            if body != file.len {
                return Err(file.damaged(body, "there is something behind the end"));
            }
            return Ok(None);
        }
        let end = body + len as u64;
        if len > CHUNK_LEN_MAX || end > file.len {
            return Err(file.damaged(offset, "the file ends early"));
        }
        self.checksums = crc32c::crc32c_append(self.checksums, &crc.to_le_bytes());
        self.offset = end;
        Ok(Some(Place { offset, len, crc }))
    }

    /// The first chunk.
    fn header(&mut self) -> Result<(wire::SnapshotHeader, SnapshotMeta), FileError> {
        let (file, offset) = (self.file, self.offset);
        let place = self.next()?.ok_or_else(|| file.damaged(offset, "it is empty"))?;
        let unknown = |error| file.unknown(offset, error);
        let header: wire::SnapshotHeader =
            codec::message("the header of a snapshot", file.chunk(place)?).map_err(unknown)?;
        let meta = meta_of(&header).map_err(unknown)?;
        Ok((header, meta))
    }
}

/// The chunks behind the header, for all who decode them.
struct Chunks<'a> {
    cursor: Cursor<'a>,
    number: usize,
    /// Nobody takes a further one: there is none, or one cannot be read.
    is_over: bool,
}

/// What is in a chunk.
struct Decoded {
    number: usize,
    resources: Vec<Arc<Resource>>,
    staged: Vec<Resource>,
    is_outdated: bool,
}

/// What is wrong with the chunk of this number.
type ChunkError = Box<(usize, FileError)>;

impl Chunks<'_> {
    fn take(&mut self) -> Result<Option<(usize, Place)>, ChunkError> {
        if self.is_over {
            return Ok(None);
        }
        let number = self.number;
        self.number += 1;
        let place = self.cursor.next();
        self.is_over = !matches!(place, Ok(Some(_)));
        place.map(|place| place.map(|place| (number, place))).map_err(|error| Box::new((number, error)))
    }
}

/// Decodes chunks on all processors, and gives them in their order; the error of the first one that cannot be read.
fn decode_all(chunks: &Mutex<Chunks<'_>>, sealer: &Sealer) -> Result<Vec<Decoded>, FileError> {
    let file = chunks.lock().cursor.file;
    let worth = usize::try_from(file.len).unwrap_or(usize::MAX) / CHUNK_LEN;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(worth);
    let parts = std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).map(|_| scope.spawn(|| decode_some(file, chunks, sealer))).collect();
        let mut parts = vec![decode_some(file, chunks, sealer)];
        let others = others.into_iter().map(|part| part.join());
        parts.extend(others.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        parts
    });
    let (mut all, mut failed): (Vec<Decoded>, Option<ChunkError>) = (Vec::new(), None);
    for part in parts {
        match part {
            Ok(part) => all.extend(part),
            Err(error) if failed.as_ref().is_none_or(|first| error.0 < first.0) => failed = Some(error),
            Err(_) => {}
        }
    }
    all.sort_unstable_by_key(|chunk| chunk.number);
    match failed {
        None => Ok(all),
        Some(failed) => Err(failed.1),
    }
}

/// Takes chunks until there is none.
fn decode_some(
    file: &ChunkFile,
    chunks: &Mutex<Chunks<'_>>,
    sealer: &Sealer,
) -> Result<Vec<Decoded>, ChunkError> {
    let take = || chunks.lock().take();
    let mut all = Vec::new();
    while let Some((number, place)) = take()? {
        match decode(file, number, place, sealer) {
            Ok(decoded) => all.push(decoded),
            Err(error) => {
                chunks.lock().is_over = true;
                return Err(Box::new((number, error)));
            }
        }
    }
    Ok(all)
}

fn decode(file: &ChunkFile, number: usize, place: Place, sealer: &Sealer) -> Result<Decoded, FileError> {
    let unknown = |error| file.unknown(place.offset, error);
    let chunk: wire::SnapshotChunk =
        codec::message("a chunk of a snapshot", file.chunk(place)?).map_err(unknown)?;
    let outdated = |resource: &wire::Resource| codec::is_outdated(resource, sealer);
    let is_outdated = chunk.resources.iter().chain(&chunk.staged).any(outdated);
    let read = |resource| codec::decode_resource(resource, sealer).map_err(unknown);
    let resources = chunk.resources.into_iter().map(|resource| read(resource).map(Arc::new));
    let resources = resources.collect::<Result<_, _>>()?;
    let staged = chunk.staged.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(Decoded { number, resources, staged, is_outdated })
}

fn u32_of(bytes: &[u8]) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
