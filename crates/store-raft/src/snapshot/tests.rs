use graticule_model::kinds::mesh_zone_address::MeshZoneAddress;
use graticule_model::{Meta, Timestamp};
use graticule_store::{Txn, transaction};

use super::*;
use crate::disk::MemoryDisk;
use crate::types::log_id;

fn mk_contents(resources: usize) -> Contents {
    let mut snapshot = Snapshot::empty();
    for number in 0..resources {
        let spec = MeshZoneAddress { address: "10.0.0.1".into(), port: 10001 };
        let mut resource = Resource::new(Meta::new("default", format!("a{number}")), spec);
        resource.meta.labels.insert("filler".into(), "x".repeat(2000));
        let applied = transaction::apply(&snapshot, Txn::put(resource), Timestamp::UNIX_EPOCH);
        snapshot = applied.expect("applies").snapshot;
    }
    let recent = wire::Recent { id: Bytes::from_static(&[7; 16]), index: 5, revision: 3 };
    Contents {
        meta: SnapshotMeta { last_log_id: Some(log_id(2, 9)), last_membership: StoredMembership::default() },
        snapshot,
        recent: vec![recent],
        forgotten: 4,
        staging: None,
        is_outdated: false,
        len: 0,
    }
}

fn plain() -> Files {
    crate::Options::default().files()
}

fn disk_of(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

#[test]
fn what_is_written_is_read() {
    for resources in [0, 1, 1000] {
        let disk = MemoryDisk::new();
        let contents = mk_contents(resources);
        let file = write(&disk_of(&disk), &contents, &plain()).expect("written");
        let found = newest(&disk_of(&disk)).expect("lists").expect("there");
        assert_eq!(found.name, file.name);
        let read = read(&found, &plain()).expect("read");
        assert_eq!(read.meta, contents.meta);
        assert_eq!((read.recent, read.forgotten), (contents.recent.clone(), 4));
        assert_eq!(read.snapshot.revision(), contents.snapshot.revision());
        assert!(read.snapshot.iter().eq(contents.snapshot.iter()));
        assert_eq!(read_meta(&found).expect("read"), contents.meta);
    }
}

#[test]
fn damage_is_reported_with_file_and_offset() {
    let disk = MemoryDisk::new();
    let file = write(&disk_of(&disk), &mk_contents(3), &plain()).expect("written");
    let bytes = disk.bytes(&file.name).expect("there");
    for offset in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[offset] ^= 4;
        disk.set_bytes(&file.name, changed);
        let error = read(&file, &plain()).expect_err("a changed byte");
        let text = error.to_string();
        assert!(text.contains(&file.name), "byte {offset}: {text}");
        assert!(
            matches!(error, FileError::Damaged { .. } | FileError::TooNew { .. }),
            "byte {offset}: {text}"
        );
        disk.set_bytes(&file.name, bytes[..offset].to_vec());
        let error = read(&file, &plain()).expect_err("a cut file");
        assert!(matches!(error, FileError::Damaged { .. }), "cut at {offset}: {error}");
    }
}

#[test]
fn old_and_unfinished_snapshots_go() {
    let disk = MemoryDisk::new();
    let mut contents = mk_contents(1);
    for index in 1..6 {
        contents.meta.last_log_id = Some(log_id(1, index));
        write(&disk_of(&disk), &contents, &plain()).expect("written");
    }
    let left = disk.list().expect("lists");
    assert_eq!(left, [file_name(log_id(1, 4)), file_name(log_id(1, 5))]);
    retain(&disk_of(&disk), &file_name(log_id(1, 5)), 0);
    let left = disk.list().expect("lists");
    assert_eq!(left, [file_name(log_id(1, 5))], "the newest one always stays");
    disk.set_full(true);
    contents.meta.last_log_id = Some(log_id(1, 6));
    let error = write(&disk_of(&disk), &contents, &plain()).map(|_| ()).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.list().expect("lists"), left, "a snapshot that fails leaves nothing");
    disk.set_bytes("snapshot-1.built.tmp", vec![1]);
    remove_unfinished(&disk_of(&disk)).expect("removed");
    assert_eq!(disk.list().expect("lists"), left);
}
