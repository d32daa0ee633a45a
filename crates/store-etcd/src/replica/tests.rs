use std::sync::Arc;

use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Kind, Meta};
use graticule_store::{Event, Txn, transaction};

use super::*;
use crate::wire::{Earlier, FORMAT};

fn mesh(name: &str, n: u64) -> Resource {
    let mut meta = Meta::new("", name);
    meta.labels.insert("n".into(), n.to_string());
    Resource::new(meta, Mesh::default())
}

fn key(name: &str) -> Key {
    Key::new(Kind::Mesh, "", name)
}

fn head(revision: u64) -> Head {
    Head { format: FORMAT, revision, store: "s".into(), ..Head::default() }
}

fn loaded(at: i64, head: Option<(i64, Head)>, resources: Vec<Resource>) -> Loaded {
    Loaded { at, cluster: 1, head, resources }
}

fn put(name: &str, n: u64) -> Delta {
    Delta { key: key(name), new: Some(mesh(name, n)) }
}

fn empty() -> Replica {
    Replica::new(loaded(3, None, Vec::new()), 16)
}

async fn next(feed: &mut Box<dyn Feed>) -> Event {
    feed.next().await.expect("open")
}

#[tokio::test]
async fn a_transaction_counts_once_whoever_is_faster() {
    for is_watch_first in [true, false] {
        let replica = empty();
        let mut feed = replica.feed(Some(Revision(0)));
        let from = replica.position();
        let applied =
            transaction::apply(&from.snapshot, Txn::put(mesh("a", 1)), Timestamp::UNIX_EPOCH).expect("fine");
        let stored = applied.batch.changes[0].new.as_deref().cloned();
        let follow = || replica.follow(7, &head(1), vec![Delta { key: key("a"), new: stored.clone() }]);
        if is_watch_first {
            follow().expect("fits");
        }
        replica.advance(&from, 7, "s", std::slice::from_ref(&applied));
        follow().expect("known already");
        let position = replica.position();
        assert_eq!(
            (position.head, position.snapshot.revision(), position.store.as_str()),
            (7, Revision(1), "s")
        );
        let Event::Batch(batch) = next(&mut feed).await else { panic!("a batch") };
        assert_eq!(batch, applied.batch);
        // Nothing more is there.
        replica.follow(8, &head(2), vec![Delta { key: key("a"), new: None }]).expect("fits");
        let Event::Batch(batch) = next(&mut feed).await else { panic!("a batch") };
        assert_eq!(batch.revision, Revision(2));
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_changes_nothing() {
    let replica = empty();
    replica.follow(7, &head(1), vec![put("a", 1)]).expect("fits");
    for (head, deltas) in [
        (head(3), vec![put("a", 2)]),
        (head(1), vec![put("a", 2)]),
        (Head { store: "other".into(), ..head(2) }, vec![put("a", 2)]),
        (head(2), vec![Delta { key: key("never"), new: None }]),
    ] {
        replica.follow(9, &head, deltas).expect_err("does not fit");
        assert_eq!((replica.position().head, replica.snapshot().revision()), (7, Revision(1)));
    }
    // What is old is known already.
    replica.follow(6, &head(9), vec![put("a", 2)]).expect("left out");
    assert_eq!(replica.snapshot().revision(), Revision(1));
    assert_eq!(replica.seen(), 9, "but it was seen");
}

#[tokio::test]
async fn reading_again_is_one_resync_and_keeps_what_is_the_same() {
    let replica = empty();
    replica.follow(7, &head(1), vec![put("a", 1)]).expect("fits");
    replica.follow(8, &head(2), vec![put("b", 1)]).expect("fits");
    let before = replica.snapshot();
    let mut feed = replica.feed(Some(Revision(2)));

    // Nothing happened meanwhile: readers notice nothing.
    let same = vec![mesh("a", 1), mesh("b", 1)];
    assert_eq!(replica.replace(loaded(20, Some((8, head(2))), same)), Ok(false));
    assert_eq!(replica.seen(), 20);

    let newer = vec![mesh("a", 1), mesh("b", 2), mesh("c", 1)];
    let waiting = replica.wait_for([7; 16]);
    let written = Head { proposal: vec![7; 16].into(), ..head(9) };
    assert_eq!(replica.replace(loaded(30, Some((29, written)), newer)), Ok(true));
    let Event::Resync(snapshot) = next(&mut feed).await else { panic!("a resync") };
    assert_eq!((snapshot.revision(), snapshot.len()), (Revision(9), 3));
    let of = |snapshot: &Snapshot, name| snapshot.get(&key(name)).expect("stored");
    assert!(Arc::ptr_eq(&of(&snapshot, "a"), &of(&before, "a")), "unchanged resources stay the same object");
    assert!(!Arc::ptr_eq(&of(&snapshot, "b"), &of(&before, "b")));
    assert_eq!(waiting.outcome().map(|committed| committed.revision), Some(Revision(9)));
    // Then batches again.
    replica.follow(31, &head(10), vec![put("c", 2)]).expect("fits");
    assert!(matches!(next(&mut feed).await, Event::Batch(batch) if batch.revision == Revision(10)));
}

#[tokio::test]
async fn etcd_that_went_back_is_not_followed() {
    let replica = empty();
    replica.follow(7, &head(1), vec![put("a", 1)]).expect("fits");
    replica.follow(8, &head(2), vec![put("b", 1)]).expect("fits");
    for (what, contents) in [
        ("an older revision", loaded(20, Some((7, head(1))), vec![mesh("a", 1)])),
        ("nothing", loaded(20, None, Vec::new())),
        ("another store", loaded(20, Some((9, Head { store: "t".into(), ..head(3) })), Vec::new())),
    ] {
        let error = replica.replace(contents).expect_err(what);
        assert!(matches!(error, ContentsError::WentBack(_)), "{what}: {error}");
        assert_eq!(replica.snapshot().revision(), Revision(2), "{what}");
    }
}

/// Everything is read page by page; what this replica writes meanwhile is newer than what was read.
#[tokio::test]
async fn what_was_read_before_an_own_write_is_left_out() {
    let replica = empty();
    replica.follow(7, &head(1), vec![put("a", 1)]).expect("fits");
    let read = loaded(10, Some((7, head(1))), vec![mesh("a", 1)]);
    let from = replica.position();
    let applied =
        transaction::apply(&from.snapshot, Txn::put(mesh("b", 1)), Timestamp::UNIX_EPOCH).expect("fine");
    replica.advance(&from, 12, "s", &[applied]);
    let mut feed = replica.feed(Some(Revision(2)));
    assert_eq!(replica.replace(read), Ok(false));
    assert_eq!((replica.position().head, replica.seen()), (12, 12));
    assert!(replica.snapshot().contains(&key("b")));
    // The watch goes on behind what was written.
    replica.follow(13, &head(3), vec![put("c", 1)]).expect("fits");
    assert!(matches!(next(&mut feed).await, Event::Batch(batch) if batch.revision == Revision(3)));
}

#[tokio::test]
async fn transactions_that_were_written_together_have_a_revision_each() {
    let replica = empty();
    let mut feed = replica.feed(Some(Revision(0)));
    let earlier =
        vec![Earlier { changes: 2, committed_at: None }, Earlier { changes: 1, committed_at: None }];
    let together = Head { changes: 4, earlier, ..head(3) };
    // The second one deletes what the first one wrote; the order within one does not matter.
    let deltas = vec![put("b", 1), put("a", 1), Delta { key: key("a"), new: None }, put("c", 1)];
    replica.follow(7, &together, deltas.clone()).expect("fits");
    for (revision, names) in [(1, vec!["a", "b"]), (2, vec!["a"]), (3, vec!["c"])] {
        let Event::Batch(batch) = next(&mut feed).await else { panic!("batches") };
        let changed: Vec<&str> = batch.changes.iter().map(|change| change.key.name.as_str()).collect();
        assert_eq!((batch.revision, changed), (Revision(revision), names));
    }
    assert_eq!((replica.position().head, replica.snapshot().len()), (7, 2));
    // What does not fit changes nothing.
    for wrong in [
        Head { earlier: vec![Earlier { changes: 9, committed_at: None }], ..head(5) },
        Head { earlier: vec![Earlier::default()], ..head(4) },
        Head { earlier: vec![Earlier::default(); 9], ..head(4) },
    ] {
        let error = replica.follow(9, &wrong, deltas.clone()).expect_err("does not fit");
        assert!(matches!(error, ContentsError::Damaged(_)), "{error}");
        assert_eq!(replica.snapshot().revision(), Revision(3));
    }
}

#[tokio::test]
async fn another_generation_is_read_as_a_whole() {
    let replica = empty();
    replica.follow(7, &head(1), vec![put("a", 1)]).expect("fits");
    let replaced = Head { generation: "g".into(), ..head(5) };
    let error = replica.follow(9, &replaced, Vec::new()).expect_err("not by the watch");
    assert!(matches!(error, ContentsError::Damaged(_)), "{error}");
    assert_eq!(replica.replace(loaded(9, Some((9, replaced.clone())), vec![mesh("b", 1)])), Ok(true));
    let position = replica.position();
    assert_eq!((position.generation.as_str(), position.snapshot.revision()), ("g", Revision(5)));
    replica.follow(10, &Head { revision: 6, ..replaced }, vec![put("c", 1)]).expect("fits");
}

#[test]
fn the_watch_recognises_a_transaction_whose_answer_was_lost() {
    let replica = empty();
    let ours = replica.wait_for([1; 16]);
    let others = replica.wait_for([2; 16]);
    let written = Head { proposal: vec![1; 16].into(), ..head(1) };
    replica.follow(7, &written, vec![put("a", 1)]).expect("fits");
    assert_eq!(ours.outcome().map(|committed| committed.revision), Some(Revision(1)));
    assert!(others.outcome().is_none());
    drop((ours, others));
    assert!(replica.waiting.lock().is_empty());
}
