//! Backup files: the whole file, and what is behind its checksums.

use std::sync::Arc;

use graticule_model::Timestamp;
use graticule_store::backup::{Backup, Origin, ReadError, Reader, Writer};
use graticule_store::{Revision, Snapshot};

/// A backup file. What is read is written and read again as the same.
pub(crate) fn backup(data: &[u8]) {
    let whole = read([data]);
    let halves = read([&data[..data.len() / 2], &data[data.len() / 2..]]);
    assert_eq!(whole.is_ok(), halves.is_ok(), "it does not matter how a file arrives");
    if let Ok(backup) = whole {
        survives(&backup);
    }
}

/// The payload of one chunk in a file whose checksums are right.
pub(crate) fn chunk(data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut file: Vec<u8> = write(&Snapshot::empty()).into_iter().next().unwrap_or_default();
    file.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    file.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    file.extend_from_slice(data);
    let mut reader = Reader::new(Arc::default());
    if reader.push(&file).is_ok() {
        let error = reader.finish().err();
        assert!(matches!(error, Some(ReadError::Damaged { .. })), "its end is missing: {error:?}");
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Backup, ReadError> {
    let mut reader = Reader::new(Arc::default());
    for piece in pieces {
        reader.push(piece)?;
    }
    reader.finish()
}

fn write(snapshot: &Snapshot) -> Vec<Vec<u8>> {
    let writer = Writer::new(snapshot, Origin::Global, "1", Timestamp::UNIX_EPOCH, Arc::default());
    writer.map(|piece| piece.to_vec()).collect()
}

fn survives(backup: &Backup) {
    let snapshot = Snapshot::restore(Revision(1), backup.resources.iter().cloned());
    let pieces = write(&snapshot);
    let again = read(pieces.iter().map(Vec::as_slice)).expect("what was written is read");
    assert!(again.resources.iter().eq(snapshot.iter()), "resources survive");
}

/// A good file, and the payloads of its chunks.
pub fn samples(snapshot: &Snapshot) -> (Vec<u8>, Vec<Vec<u8>>) {
    let pieces = write(snapshot);
    // Behind the header of the file and of the chunk; the last piece is the end.
    let chunks = pieces.iter().skip(1).rev().skip(1).map(|piece| piece[8..].to_vec()).collect();
    (pieces.concat(), chunks)
}
