//! Backup files: everything that a store holds at one revision, whatever the backend is.
//!
//! ```text
//! header  magic(8) format(u32) zero(u32)                               16 bytes
//! chunk   length(u32) crc32c of the payload(u32) payload(length)       the first is a description, then resources
//! …
//! end     zero(u32) number of chunks(u32) blake3 of all before(32)     nothing follows
//! ```
//!
//! [`Writer`] gives a file piece by piece, [`Reader`] takes it piece by piece; neither holds more of the file than one
//! chunk. Numbers are little-endian. Secrets are sealed when there is a key ([`crate::seal`]), else plain.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use graticule_model::{Resource, Timestamp};
use prost::Message as _;

use crate::codec::{self, DecodeError};
use crate::seal::{self, Sealer};
use crate::{Revision, Snapshot, wire};

const MAGIC: [u8; 8] = *b"GRATBKUP";
/// Version of the format that is written, and the highest that is read.
pub const FORMAT: u32 = 1;
const HEADER_LEN: usize = 16;
const CHUNK_HEADER_LEN: usize = 8;
const HASH_LEN: usize = blake3::OUT_LEN;
/// Bytes of resources in one chunk, unless one resource is longer.
const CHUNK_LEN: usize = 256 << 10;
/// No chunk is longer: the largest resource fits.
const CHUNK_LEN_MAX: usize = 64 << 20;

/// Which control plane a backup is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Global.
    Global,
    /// The zone of this name.
    Zone(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Global => f.write_str("global"),
            Origin::Zone(name) => write!(f, "zone {name:?}"),
        }
    }
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Version of the program that wrote it.
    pub version: String,
    /// Revision of the store.
    pub revision: Revision,
    /// When it was taken.
    pub created: Timestamp,
    /// Of which control plane.
    pub origin: Origin,
    /// How many resources it holds.
    pub resources: u64,
    /// How many of them are secrets.
    pub secrets: u64,
    /// Key that sealed the secrets; none: they are plain.
    pub key_id: Option<String>,
}

/// A complete backup.
#[derive(Clone)]
pub struct Backup {
    /// What it says of itself.
    pub description: Description,
    /// Everything that it holds.
    pub resources: Vec<Arc<Resource>>,
}

/// Why a file is refused. Offsets count from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("this is no backup of a control plane")]
    Foreign,
    /// A newer version wrote it.
    #[error(
        "the backup has format {found}, and this version of the program reads up to {FORMAT}: a newer version wrote it; restore it with that version"
    )]
    TooNew {
        /// Its format.
        found: u32,
    },
    /// It is not what was written.
    #[error("the backup is damaged at offset {offset}: {reason}")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// It holds what this version does not understand, or a secret whose key is not there.
    #[error("the backup cannot be read at offset {offset}: {reason}")]
    Unreadable {
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: DecodeError,
    },
}

/// First message of a file.
#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(message, optional, tag = "3")]
    created: Option<wire::Time>,
    /// `global` or `zone`.
    #[prost(string, tag = "4")]
    mode: String,
    #[prost(string, tag = "5")]
    zone: String,
    #[prost(uint64, tag = "6")]
    resources: u64,
    #[prost(uint64, tag = "7")]
    secrets: u64,
    #[prost(string, optional, tag = "8")]
    key_id: Option<String>,
}

/// Further messages.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Chunk {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<wire::Resource>,
}

/// Gives a backup file piece by piece.
pub struct Writer {
    description: Description,
    resources: std::vec::IntoIter<Arc<Resource>>,
    sealer: Arc<Sealer>,
    hasher: blake3::Hasher,
    stage: Stage,
    chunks: u32,
}

enum Stage {
    Head,
    Resources,
    Done,
}

impl Writer {
    /// A backup of a snapshot. Only references are copied.
    pub fn new(
        snapshot: &Snapshot,
        origin: Origin,
        version: &str,
        created: Timestamp,
        sealer: Arc<Sealer>,
    ) -> Writer {
        let resources: Vec<Arc<Resource>> = snapshot.iter().cloned().collect();
        let secrets = resources.iter().filter(|resource| seal::is_secret(resource.kind())).count();
        let description = Description {
            version: version.into(),
            revision: snapshot.revision(),
            created,
            origin,
            resources: resources.len() as u64,
            secrets: secrets as u64,
            key_id: sealer.key_id().map(str::to_owned),
        };
        let resources = resources.into_iter();
        Writer {
            description,
            resources,
            sealer,
            hasher: blake3::Hasher::new(),
            stage: Stage::Head,
            chunks: 0,
        }
    }

    /// What the file will say of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    fn chunk(&mut self, message: &impl prost::Message, piece: &mut Vec<u8>) {
        let payload = message.encode_to_vec();
        // Chunks have 64 MiB at most.
        piece.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        piece.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        piece.extend_from_slice(&payload);
        self.chunks += 1;
    }

    fn next_resources(&mut self) -> Chunk {
        let mut chunk = Chunk::default();
        let mut len = 0;
        while len < CHUNK_LEN
            && let Some(resource) = self.resources.next()
        {
            let resource = codec::encode_resource(&resource, &self.sealer);
            len += resource.encoded_len();
            chunk.resources.push(resource);
        }
        chunk
    }
}

impl Iterator for Writer {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        match self.stage {
            Stage::Done => return None,
            Stage::Head => {
                piece.extend_from_slice(&MAGIC);
                piece.extend_from_slice(&FORMAT.to_le_bytes());
                piece.extend_from_slice(&[0; 4]);
                let header = Header::of(&self.description);
                self.chunk(&header, &mut piece);
                self.stage = Stage::Resources;
            }
            Stage::Resources => {
                let chunk = self.next_resources();
                if chunk.resources.is_empty() {
                    piece.extend_from_slice(&[0; 4]);
                    piece.extend_from_slice(&self.chunks.to_le_bytes());
                    self.hasher.update(&piece);
                    piece.extend_from_slice(self.hasher.finalize().as_bytes());
                    self.stage = Stage::Done;
                    return Some(piece.into());
                }
                self.chunk(&chunk, &mut piece);
            }
        }
        self.hasher.update(&piece);
        Some(piece.into())
    }
}

impl Header {
    fn of(description: &Description) -> Header {
        let (mode, zone) = match &description.origin {
            Origin::Global => ("global", String::new()),
            Origin::Zone(name) => ("zone", name.clone()),
        };
        Header {
            version: description.version.clone(),
            revision: description.revision.0,
            created: Some(codec::encode_time(description.created)),
            mode: mode.into(),
            zone,
            resources: description.resources,
            secrets: description.secrets,
            key_id: description.key_id.clone(),
        }
    }

    fn describe(self) -> Result<Description, DecodeError> {
        let missing = || DecodeError::Malformed("the description of a backup", "a field is missing".into());
        let origin = match self.mode.as_str() {
            "global" => Origin::Global,
            "zone" => Origin::Zone(self.zone),
            _ => return Err(missing()),
        };
        Ok(Description {
            version: self.version,
            revision: Revision(self.revision),
            created: codec::decode_time(self.created.ok_or_else(missing)?)?,
            origin,
            resources: self.resources,
            secrets: self.secrets,
            key_id: self.key_id,
        })
    }
}

/// Takes a backup file piece by piece and checks it. Resources count only once [`finish`](Self::finish) says so.
pub struct Reader {
    sealer: Arc<Sealer>,
    buffer: BytesMut,
    /// Of the beginning of `buffer` in the file.
    offset: u64,
    hasher: blake3::Hasher,
    expects: Expects,
    chunks: u32,
    description: Option<Description>,
    resources: Vec<Arc<Resource>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Expects {
    Head,
    Chunk,
    Hash,
    Nothing,
}

impl Reader {
    /// At the beginning of a file.
    pub fn new(sealer: Arc<Sealer>) -> Reader {
        Reader {
            sealer,
            buffer: BytesMut::new(),
            offset: 0,
            hasher: blake3::Hasher::new(),
            expects: Expects::Head,
            chunks: 0,
            description: None,
            resources: Vec::new(),
        }
    }

    /// What the file says of itself, as soon as it is known.
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// The file cannot be used; nothing more of it is needed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        self.buffer.extend_from_slice(bytes);
        while self.advance()? {}
        Ok(())
    }

    /// The end of the file.
    ///
    /// # Errors
    /// The file is not complete.
    pub fn finish(self) -> Result<Backup, ReadError> {
        let end = self.offset + self.buffer.len() as u64;
        if self.expects == Expects::Head {
            return Err(ReadError::Foreign);
        }
        let description = match (self.expects, &self.description) {
            (Expects::Nothing, Some(description)) => description.clone(),
            _ => return Err(self.damaged(end, "the file ends early")),
        };
        let found = self.resources.len() as u64;
        if found != description.resources {
            let reason = format!("{found} resources are there of {}", description.resources);
            return Err(self.damaged(end, &reason));
        }
        Ok(Backup { description, resources: self.resources })
    }

    fn damaged(&self, offset: u64, reason: &str) -> ReadError {
        ReadError::Damaged { offset, reason: reason.into() }
    }

    /// Takes what is complete from the buffer. False: more bytes are needed.
    fn advance(&mut self) -> Result<bool, ReadError> {
        match self.expects {
            Expects::Head => self.head(),
            Expects::Chunk => self.chunk(),
            Expects::Hash => self.hash(),
            Expects::Nothing if self.buffer.is_empty() => Ok(false),
            Expects::Nothing => Err(self.damaged(self.offset, "there is something behind the end")),
        }
    }

    fn taken(&mut self, len: usize) -> Bytes {
        let taken = self.buffer.split_to(len).freeze();
        self.hasher.update(&taken);
        self.offset += len as u64;
        taken
    }

    fn head(&mut self) -> Result<bool, ReadError> {
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer[..known] != MAGIC[..known] {
            return Err(ReadError::Foreign);
        }
        if self.buffer.len() < HEADER_LEN {
            return Ok(false);
        }
        let mut head = self.taken(HEADER_LEN);
        head.advance(MAGIC.len());
        let (format, zero) = (head.get_u32_le(), head.get_u32_le());
        if format > FORMAT {
            return Err(ReadError::TooNew { found: format });
        }
        if format == 0 || zero != 0 {
            return Err(self.damaged(MAGIC.len() as u64, "the header is not what was written"));
        }
        self.expects = Expects::Chunk;
        Ok(true)
    }

    fn chunk(&mut self) -> Result<bool, ReadError> {
        let Some(mut head) = self.buffer.get(..CHUNK_HEADER_LEN) else { return Ok(false) };
        let (len, crc) = (head.get_u32_le() as usize, head.get_u32_le());
        if len == 0 {
            if crc != self.chunks {
                let reason = format!("{} chunks are there of {crc}", self.chunks);
                return Err(self.damaged(self.offset, &reason));
            }
            self.taken(CHUNK_HEADER_LEN);
            self.expects = Expects::Hash;
            return Ok(true);
        }
        if len > CHUNK_LEN_MAX {
            return Err(self.damaged(self.offset, "a chunk is longer than any that is written"));
        }
        if self.buffer.len() < CHUNK_HEADER_LEN + len {
            return Ok(false);
        }
        let offset = self.offset;
        self.taken(CHUNK_HEADER_LEN);
        let payload = self.taken(len);
        if crc32c::crc32c(&payload) != crc {
            return Err(self.damaged(offset, "the checksum is wrong"));
        }
        self.chunks += 1;
        self.take_in(payload).map_err(|reason| ReadError::Unreadable { offset, reason })?;
        Ok(true)
    }

    fn take_in(&mut self, payload: Bytes) -> Result<(), DecodeError> {
        if self.description.is_none() {
            let header: Header = codec::message("the description of a backup", payload)?;
            self.description = Some(header.describe()?);
            return Ok(());
        }
        let chunk: Chunk = codec::message("a chunk of a backup", payload)?;
        for resource in chunk.resources {
            self.resources.push(Arc::new(codec::decode_resource(resource, &self.sealer)?));
        }
        Ok(())
    }

    fn hash(&mut self) -> Result<bool, ReadError> {
        let Some(stored) = self.buffer.get(..HASH_LEN) else { return Ok(false) };
        if *stored != *self.hasher.finalize().as_bytes() {
            return Err(self.damaged(self.offset, "the checksum of the whole is wrong"));
        }
        self.taken(HASH_LEN);
        self.expects = Expects::Nothing;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
