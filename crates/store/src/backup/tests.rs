use graticule_model::kinds::mesh_zone_address::MeshZoneAddress;
use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::{Key, Kind, Meta};

use super::*;

fn key(id: &str) -> Arc<Sealer> {
    let line = format!("{id} MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    Arc::new(Sealer::parse(&line).expect("a key file"))
}

fn mk_snapshot(count: u64, filler: usize) -> Snapshot {
    let resources = (0..count).map(|n| {
        let mut meta = Meta::new("default", format!("a{n}"));
        meta.version = 3 + n;
        meta.creation_time = Timestamp::from_second(100).expect("small");
        meta.modification_time = Timestamp::from_second(200).expect("small");
        meta.labels.insert("filler".into(), "x".repeat(filler));
        if n > 0 {
            meta.owner = Some(Key::new(Kind::MeshZoneAddress, "default", "a0"));
        }
        Arc::new(Resource::new(meta, MeshZoneAddress { address: "10.0.0.1".into(), port: 10001 }))
    });
    let secret = GlobalSecret { data: SecretBytes(b"hunter2-hunter2".to_vec()) };
    let secret = Arc::new(Resource::new(Meta::new("", "s"), secret));
    Snapshot::restore(Revision(77), resources.chain([secret]))
}

fn write(snapshot: &Snapshot, sealer: &Arc<Sealer>) -> Vec<u8> {
    let created = Timestamp::from_second(300).expect("small");
    let origin = Origin::Zone("east".into());
    Writer::new(snapshot, origin, "1.2.3", created, sealer.clone()).flatten().collect()
}

fn read(bytes: &[u8], piece: usize, sealer: &Arc<Sealer>) -> Result<Backup, ReadError> {
    let mut reader = Reader::new(sealer.clone());
    for piece in bytes.chunks(piece) {
        reader.push(piece)?;
    }
    reader.finish()
}

#[test]
fn what_is_written_is_read_in_pieces_of_any_size() {
    for (count, filler, sealer) in [(0, 0, Arc::default()), (5, 10, key("k")), (300, 5_000, Arc::default())] {
        let snapshot = mk_snapshot(count, filler);
        let bytes = write(&snapshot, &sealer);
        for piece in [1, 7, 4096, bytes.len()] {
            let backup = read(&bytes, piece, &sealer).expect("good");
            let description = &backup.description;
            assert_eq!(
                (description.revision, description.resources, description.secrets),
                (Revision(77), count + 1, 1)
            );
            assert_eq!((&*description.version, &description.origin), ("1.2.3", &Origin::Zone("east".into())));
            assert_eq!(description.key_id.as_deref(), sealer.key_id());
            assert!(backup.resources.iter().eq(snapshot.iter()), "versions, times and owners included");
        }
    }
}

#[test]
fn a_writer_holds_one_chunk_at_a_time() {
    let snapshot = mk_snapshot(500, 5_000);
    let created = Timestamp::from_second(300).expect("small");
    let pieces: Vec<usize> = Writer::new(&snapshot, Origin::Global, "1", created, Arc::default())
        .map(|piece| piece.len())
        .collect();
    assert!(pieces.len() > 8 && pieces.iter().all(|len| *len < 2 * CHUNK_LEN), "{pieces:?}");
}

#[test]
fn damage_is_found_wherever_it_is() {
    let sealer = key("k");
    let good = write(&mk_snapshot(3, 20), &sealer);
    for offset in 0..good.len() {
        let mut bytes = good.clone();
        bytes[offset] ^= 4;
        let error =
            read(&bytes, bytes.len(), &sealer).err().unwrap_or_else(|| panic!("byte {offset} changed"));
        assert!(
            matches!(error, ReadError::Damaged { .. } | ReadError::Foreign | ReadError::TooNew { .. }),
            "byte {offset}: {error}"
        );
        let error =
            read(&good[..offset], good.len(), &sealer).err().unwrap_or_else(|| panic!("cut at {offset}"));
        match error {
            ReadError::Damaged { offset: found, reason } => {
                assert_eq!((found, reason.as_str()), (offset as u64, "the file ends early"));
            }
            ReadError::Foreign => assert!(offset < HEADER_LEN, "cut at {offset}"),
            error => panic!("cut at {offset}: {error}"),
        }
    }
    let mut longer = good.clone();
    longer.push(0);
    let error = read(&longer, 1, &sealer).err().expect("something behind the end");
    assert_eq!(
        error.to_string(),
        format!("the backup is damaged at offset {}: there is something behind the end", good.len())
    );
    // A whole chunk that is left out has good checksums around it.
    let first_end = 16 + 8 + u32::from_le_bytes(good[16..20].try_into().expect("four")) as usize;
    let second_end =
        first_end + 8 + u32::from_le_bytes(good[first_end..first_end + 4].try_into().expect("four")) as usize;
    let without = [&good[..first_end], &good[second_end..]].concat();
    let error = read(&without, 100, &sealer).err().expect("a chunk is missing");
    assert_eq!(
        error.to_string(),
        format!("the backup is damaged at offset {first_end}: 1 chunks are there of 2")
    );
}

#[test]
fn what_cannot_be_used_is_named() {
    let good = write(&mk_snapshot(1, 0), &key("k"));
    let mut newer = good.clone();
    newer[8] = 9;
    for (bytes, sealer, says) in [
        (b"kind: Mesh".to_vec(), key("k"), "this is no backup"),
        (Vec::new(), key("k"), "this is no backup"),
        (
            newer,
            key("k"),
            "format 9, and this version of the program reads up to 1: a newer version wrote it",
        ),
        (good.clone(), key("other"), "encrypted with the key \"k\""),
        (good, Arc::default(), "store.encryption.keyFile is not set"),
    ] {
        let error = read(&bytes, 3, &sealer).err().expect(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn secrets_are_plain_only_without_a_key() {
    let plain = "aHVudGVyMi1odW50ZXIy";
    let snapshot = mk_snapshot(1, 0);
    for (sealer, is_plain) in [(Arc::default(), true), (key("k"), false)] {
        let bytes = write(&snapshot, &sealer);
        let found = bytes.windows(plain.len()).any(|window| window == plain.as_bytes());
        assert_eq!(found, is_plain);
    }
}
