//! The suite that every backend passes: the meaning of [`Store`], as code.
//!
//! A backend's test calls [`run`] with a function that opens a fresh, empty store which keeps the given number
//! of batches for readers; a backend with replicas also calls [`replicas`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::mesh_zone_address::MeshZoneAddress;
use graticule_model::{Key, Kind, Meta, Resource, Timestamp};
use tokio::task::JoinSet;

use crate::{
    Change, CommitError, Committed, Event, Expect, Feed, Health, Leader, Replacement, Revision, Snapshot,
    Store, Txn, Write,
};

/// A reader that waits longer than this has lost something.
const DEADLINE: Duration = Duration::from_secs(20);
const HISTORY_LEN: usize = 64;
const HISTORY_LEN_LONG: usize = 4096;
const HISTORY_LEN_SHORT: usize = 4;

/// Runs the whole suite; panics at the first broken rule.
pub async fn run<F, Fut>(open: F)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    creates_updates_deletes(&*open(HISTORY_LEN).await).await;
    preconditions(&*open(HISTORY_LEN).await).await;
    all_or_nothing(&*open(HISTORY_LEN).await).await;
    no_ops(&*open(HISTORY_LEN).await).await;
    owners(&*open(HISTORY_LEN).await).await;
    malformed(&*open(HISTORY_LEN).await).await;
    snapshots_stand_still(&*open(HISTORY_LEN).await).await;
    listings(&*open(HISTORY_LEN).await).await;
    feed_delivers_everything_once(open(HISTORY_LEN).await).await;
    feed_resumes(&*open(HISTORY_LEN).await).await;
    feed_lag_resynchronises(&*open(HISTORY_LEN_SHORT).await).await;
    feed_is_cancel_safe(&*open(HISTORY_LEN).await).await;
    feed_ends_with_the_store(open(HISTORY_LEN).await).await;
    feed_agrees_with_concurrent_writers(open(HISTORY_LEN_LONG).await).await;
    concurrent_writers(open(HISTORY_LEN).await).await;
    concurrent_transactions_of_several_resources(open(HISTORY_LEN).await).await;
    fences_former_leaders(&*open(HISTORY_LEN).await).await;
    barriers_see_what_was_acknowledged(open(HISTORY_LEN).await).await;
}

/// Runs what a backend must do that can replace everything ([`Store::replace_all`]), with 401 resources that are longer
/// than `filler_len` bytes each; panics at the first broken rule.
pub async fn replaces<F, Fut>(filler_len: usize, open: F)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    replaces_everything(filler_len, &*open(HISTORY_LEN).await).await;
    replaces_nothing_when_refused(&*open(HISTORY_LEN).await).await;
    replaces_beside_writers(filler_len, open(HISTORY_LEN).await).await;
}

fn mk_contents(filler_len: usize, mark: &str) -> Vec<Arc<Resource>> {
    let filler = "x".repeat(filler_len);
    let mut resources = vec![Arc::new(with_label(mk_mesh("m1"), "mark", mark))];
    for n in 0..400 {
        let mut resource = with_label(mk_address("m1", &format!("a{n}")), "filler", &filler);
        resource.meta.version = 7 + n;
        resource.meta.creation_time = at(10);
        resource.meta.modification_time = at(20);
        resource.meta.labels.insert("mark".into(), mark.into());
        resources.push(Arc::new(owned(resource, mesh_key("m1"))));
    }
    resources
}

async fn replaces_everything(filler_len: usize, store: &dyn Store) {
    commit(store, Txn::put(mk_mesh("old")).and_put(mk_mesh("m1"), Expect::Any)).await;
    let mut feed = store.watch(Some(store.snapshot().revision()));
    let before = store.snapshot();
    let replacement = Replacement {
        resources: mk_contents(filler_len, "a"),
        expect: Some(before.revision()),
        above: Revision(1000),
    };
    let revision = store.replace_all(replacement).await.expect("replaced");
    assert!(revision > Revision(1000), "{revision}");
    let after = store.snapshot();
    assert_eq!(after.revision(), revision);
    let want = Snapshot::restore(revision, mk_contents(filler_len, "a"));
    assert_same(&after, &want);
    assert_eq!(after.owned_by(&mesh_key("m1")).count(), 400);
    let Event::Resync(seen) = next(&mut feed).await else { panic!("a replacement is a resync") };
    assert_same(&seen, &want);
    // The store goes on from there.
    let updated = commit(store, Txn::put(with_label(mk_address("m1", "a3"), "n", "1"))).await;
    assert!(updated.revision > revision);
    let stored = get(store, &Key::new(Kind::MeshZoneAddress, "m1", "a3"));
    assert_eq!((stored.meta.version, stored.meta.creation_time), (11, at(10)));
    assert!(matches!(next(&mut feed).await, Event::Batch(batch) if batch == updated.batch));
    // To nothing, and from a revision that the store has passed.
    let empty = Replacement { above: Revision(3), ..Replacement::default() };
    let emptied = store.replace_all(empty).await.expect("replaced");
    assert!(emptied > updated.revision && store.snapshot().is_empty());
}

async fn replaces_nothing_when_refused(store: &dyn Store) {
    commit(store, Txn::put(mk_mesh("m1"))).await;
    let before = store.snapshot();
    let orphan = owned(mk_address("m1", "a"), mesh_key("gone"));
    let of = |resources: Vec<Resource>| Replacement {
        resources: resources.into_iter().map(Arc::new).collect(),
        ..Replacement::default()
    };
    for (what, replacement) in [
        ("an owner that is missing", of(vec![orphan])),
        ("a key twice", of(vec![mk_mesh("m1"), mk_mesh("m1")])),
        ("no name", of(vec![mk_mesh("")])),
        ("no mesh", of(vec![mk_address("", "a")])),
        ("no revision above", Replacement { above: Revision(u64::MAX), ..of(vec![mk_mesh("m2")]) }),
    ] {
        let error = store.replace_all(replacement).await.expect_err(what);
        assert!(
            matches!(error, CommitError::Invalid(_) | CommitError::OwnerMissing { .. }),
            "{what}: {error}"
        );
    }
    let stale = Replacement { expect: Some(Revision(0)), ..of(vec![mk_mesh("m2")]) };
    let error = store.replace_all(stale).await.expect_err("it has moved on");
    assert_eq!(error, CommitError::Moved { expected: Revision(0), current: before.revision() });
    assert_same(&store.snapshot(), &before);
}

/// Readers see one content or the other, whoever writes and replaces.
async fn replaces_beside_writers(filler_len: usize, store: Arc<dyn Store>) {
    const ROUNDS: usize = 6;
    let whole = |snapshot: &Snapshot| {
        let marks: std::collections::BTreeSet<_> =
            snapshot.iter().filter_map(|r| r.meta.label("mark").map(str::to_owned)).collect();
        let count = snapshot.iter().filter(|r| r.meta.label("mark").is_some()).count();
        assert!(marks.len() <= 1 && (count == 0 || count == 401), "{count} resources of {marks:?}");
    };
    let writer = store.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for n in 0.. {
            commit(&*writer, Txn::put(with_label(mk_mesh("busy"), "n", &n.to_string()))).await;
            if writer.snapshot().revision() > Revision(1_000_000) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut feed = store.watch(None);
    let mut seen = Revision(0);
    for round in 0..ROUNDS {
        let above = Revision(if round + 1 == ROUNDS { 1_000_000 } else { 0 });
        let resources = mk_contents(filler_len, ["a", "b"][round % 2]);
        let replacement = Replacement { resources, expect: None, above };
        let revision = store.replace_all(replacement).await.expect("replaced");
        whole(&store.snapshot());
        while seen < revision {
            let now = match next(&mut feed).await {
                Event::Batch(batch) => {
                    assert_eq!(batch.revision.0, seen.0 + 1, "in order, none missing");
                    batch.revision
                }
                Event::Resync(snapshot) => {
                    whole(&snapshot);
                    snapshot.revision()
                }
            };
            assert!(now > seen || seen == Revision(0), "revisions grow");
            seen = now;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("writers do not panic");
    }
}

/// Runs what is about several replicas of one store; panics at the first broken rule. The function opens a fresh, empty
/// store with at least two replicas.
pub async fn replicas<F, Fut>(open: F)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Vec<Arc<dyn Store>>>,
{
    replicas_take_turns(&open(HISTORY_LEN).await).await;
    replicas_have_the_same_history(open(HISTORY_LEN_LONG).await).await;
    one_replica_leads(&open(HISTORY_LEN).await).await;
}

async fn creates_updates_deletes(store: &dyn Store) {
    assert_eq!(store.snapshot().revision(), Revision(0), "a fresh store is at revision 0");
    let mut txn = Txn::put(mk_mesh("m1"));
    txn.at = Some(at(100));
    let created = commit(store, txn).await;
    assert_eq!(created.batch.committed_at, at(100));
    let stored = get(store, &mesh_key("m1"));
    assert_eq!(
        (stored.meta.version, stored.meta.creation_time, stored.meta.modification_time),
        (1, at(100), at(100))
    );

    let mut txn = Txn::put(with_label(mk_mesh("m1"), "a", "1"));
    txn.at = Some(at(200));
    let updated = commit(store, txn).await;
    assert!(updated.revision > created.revision, "revisions grow");
    let stored = get(store, &mesh_key("m1"));
    assert_eq!(
        (stored.meta.version, stored.meta.creation_time, stored.meta.modification_time),
        (2, at(100), at(200))
    );
    let [Change { old: Some(old), new: Some(new), .. }] = &updated.batch.changes[..] else {
        panic!("one update expected, got {:?}", updated.batch);
    };
    assert_eq!((old.meta.version, new), (1, &stored));

    let deleted = commit(store, Txn::delete(mesh_key("m1"))).await;
    assert!(store.snapshot().get(&mesh_key("m1")).is_none());
    assert!(matches!(&deleted.batch.changes[..], [Change { old: Some(_), new: None, .. }]));
    assert_eq!(store.snapshot().revision(), deleted.revision, "a commit is readable when it returns");
    assert!(store.snapshot().is_empty());

    commit(store, Txn::put(mk_mesh("m1"))).await;
    assert_eq!(get(store, &mesh_key("m1")).meta.version, 1, "a new resource under an old key starts anew");
}

async fn preconditions(store: &dyn Store) {
    let key = mesh_key("m1");
    let put = |expect| {
        Txn::default()
            .and_put(with_label(mk_mesh("m1"), "n", &format!("{expect:?}").replace(['(', ')'], "")), expect)
    };
    let delete = |expect| Txn::default().and_delete(mesh_key("m1"), expect);
    for (txn, want) in [
        (put(Expect::Present), CommitError::NotFound(key.clone())),
        (put(Expect::Version(1)), CommitError::NotFound(key.clone())),
        (delete(Expect::Present), CommitError::NotFound(key.clone())),
    ] {
        assert_eq!(fail(store, txn).await, want, "on an empty store");
    }
    assert!(commit(store, delete(Expect::Any)).await.batch.changes.is_empty());
    commit(store, put(Expect::Absent)).await;
    assert_eq!(fail(store, put(Expect::Absent)).await, CommitError::Exists(key.clone()));
    commit(store, put(Expect::Version(1))).await;
    let conflict = CommitError::Conflict { key, current: 2 };
    assert_eq!(fail(store, put(Expect::Version(1))).await, conflict);
    assert_eq!(fail(store, delete(Expect::Version(1))).await, conflict);
    commit(store, put(Expect::Present)).await;
    commit(store, delete(Expect::Version(3))).await;
    assert!(store.snapshot().is_empty());
}

async fn all_or_nothing(store: &dyn Store) {
    commit(store, Txn::put(mk_mesh("m1"))).await;
    let before = store.snapshot();
    let mut feed = store.watch(Some(before.revision()));
    let txn = Txn::put(mk_mesh("m2"))
        .and_delete(mesh_key("m1"), Expect::Any)
        .and_put(mk_mesh("m3"), Expect::Present);
    assert_eq!(fail(store, txn).await, CommitError::NotFound(mesh_key("m3")));
    assert_eq!(names(&store.snapshot(), Kind::Mesh), names(&before, Kind::Mesh));
    assert_eq!(store.snapshot().revision(), before.revision());

    let txn = Txn::put(mk_mesh("m2"))
        .and_delete(mesh_key("m1"), Expect::Any)
        .and_put(mk_mesh("m3"), Expect::Absent);
    let committed = commit(store, txn).await;
    let Event::Batch(batch) = next(&mut feed).await else { panic!("a batch, not a resync") };
    assert_eq!(batch, committed.batch, "the failed transaction left no trace in the feed");
    assert_eq!(batch.changes.len(), 3);
    assert_eq!(names(&store.snapshot(), Kind::Mesh), ["m2", "m3"]);
}

async fn no_ops(store: &dyn Store) {
    let first = commit(store, Txn { at: Some(at(1)), ..Txn::put(mk_mesh("m1")) }).await;
    let again = commit(store, Txn { at: Some(at(2)), ..Txn::put(mk_mesh("m1")) }).await;
    assert_eq!(again.revision, first.revision, "nothing changed, so the revision stays");
    assert!(again.batch.changes.is_empty());
    let stored = get(store, &mesh_key("m1"));
    assert_eq!((stored.meta.version, stored.meta.modification_time), (1, at(1)));

    let touch = Write::Put { resource: Box::new(mk_mesh("m1")), expect: Expect::Any, touch: true };
    let touched = commit(store, Txn { at: Some(at(3)), writes: vec![touch] }).await;
    assert!(touched.revision > first.revision);
    let stored = get(store, &mesh_key("m1"));
    assert_eq!(
        (stored.meta.version, stored.meta.creation_time, stored.meta.modification_time),
        (2, at(1), at(3))
    );

    let empty = commit(store, Txn::default()).await;
    assert_eq!((empty.revision, empty.batch.changes.len()), (touched.revision, 0));
}

async fn owners(store: &dyn Store) {
    let orphan = owned(mk_address("m1", "a"), mesh_key("m1"));
    let missing = CommitError::OwnerMissing { key: orphan.key(), owner: mesh_key("m1") };
    assert_eq!(fail(store, Txn::put(orphan.clone())).await, missing);
    // Owner and owned may come in one transaction, in any order.
    commit(store, Txn::put(orphan.clone()).and_put(mk_mesh("m1"), Expect::Any)).await;
    commit(store, Txn::put(owned(mk_address("m1", "b"), orphan.key())).and_put(mk_mesh("m2"), Expect::Any))
        .await;
    commit(store, Txn::put(mk_address("m1", "free"))).await;
    // An update without an owner keeps the stored one.
    commit(store, Txn::put(with_label(mk_address("m1", "a"), "l", "1"))).await;
    assert_eq!(get(store, &orphan.key()).meta.owner, Some(mesh_key("m1")));
    let snapshot = store.snapshot();
    let below: Vec<&str> = snapshot.owned_by(&mesh_key("m1")).map(|r| r.meta.name.as_str()).collect();
    assert_eq!(below, ["a"]);

    let put_below =
        Txn::delete(mesh_key("m1")).and_put(owned(mk_address("m1", "c"), mesh_key("m1")), Expect::Any);
    assert!(matches!(fail(store, put_below).await, CommitError::OwnerMissing { .. }));
    let deleted = commit(store, Txn::delete(mesh_key("m1")).and_delete(orphan.key(), Expect::Present)).await;
    let gone: Vec<&str> = deleted.batch.changes.iter().map(|c| c.key.name.as_str()).collect();
    assert_eq!(gone, ["m1", "a", "b"], "deletes cascade, each key once");
    assert!(deleted.batch.changes.iter().all(|c| c.old.is_some() && c.new.is_none()));
    assert_eq!(names(&store.snapshot(), Kind::MeshZoneAddress), ["free"]);
    assert_eq!(names(&store.snapshot(), Kind::Mesh), ["m2"]);
}

async fn malformed(store: &dyn Store) {
    for (what, txn) in [
        ("two writes of a key", Txn::put(mk_mesh("m1")).and_delete(mesh_key("m1"), Expect::Any)),
        ("no name", Txn::put(mk_mesh(""))),
        ("no mesh", Txn::put(mk_address("", "a"))),
        ("owns itself", Txn::put(owned(mk_mesh("m1"), mesh_key("m1")))),
    ] {
        let error = fail(store, txn).await;
        assert!(matches!(error, CommitError::Invalid(_)), "{what}: {error}");
    }
    assert_eq!(store.snapshot().revision(), Revision(0));
}

async fn snapshots_stand_still(store: &dyn Store) {
    commit(store, Txn::put(mk_mesh("m1"))).await;
    let before = store.snapshot();
    commit(store, Txn::put(mk_mesh("m2")).and_delete(mesh_key("m1"), Expect::Any)).await;
    assert_eq!(names(&before, Kind::Mesh), ["m1"]);
    assert_eq!((before.len(), store.snapshot().len()), (1, 1));
}

async fn listings(store: &dyn Store) {
    let mut txn = Txn::default();
    for (mesh, name, team) in [("m2", "a", "x"), ("m1", "b", "x"), ("m1", "a", "y"), ("m10", "c", "x")] {
        let resource = with_label(with_label(mk_address(mesh, name), "team", team), "kuma.io/origin", "zone");
        txn = txn.and_put(resource, Expect::Absent);
    }
    commit(store, txn.and_put(mk_mesh("m1"), Expect::Any)).await;
    let snapshot = store.snapshot();
    let all = snapshot.list(Kind::MeshZoneAddress, None).map(|r| format!("{}/{}", r.meta.mesh, r.meta.name));
    assert_eq!(all.collect::<Vec<_>>(), ["m1/a", "m1/b", "m10/c", "m2/a"]);
    let of = |mesh| {
        snapshot.list(Kind::MeshZoneAddress, Some(mesh)).map(|r| r.meta.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((of("m1"), of("m10"), of("m3")), (vec!["a".into(), "b".into()], vec!["c".into()], vec![]));
    let rest = |mesh, count| {
        snapshot
            .list_skip(Kind::MeshZoneAddress, mesh, count)
            .map(|r| r.meta.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (rest(None, 1), rest(None, 3), rest(None, 9)),
        (vec!["b".into(), "c".into(), "a".into()], vec!["a".to_owned()], vec![])
    );
    assert_eq!((rest(Some("m1"), 1), rest(Some("m10"), 1)), (vec!["b".to_owned()], vec![]));
    let count = |mesh| snapshot.count(Kind::MeshZoneAddress, mesh);
    assert_eq!((count(None), count(Some("m1")), count(Some("m3"))), (4, 2, 0));
    let labeled = |key, value| {
        let found = snapshot.by_label(Kind::MeshZoneAddress, "m1", key, value);
        found.map(|r| r.meta.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((labeled("team", "x"), labeled("team", "z")), (vec!["b".to_owned()], vec![]));
    assert_eq!(labeled("kuma.io/origin", "zone"), ["a", "b"]);
    assert_eq!(snapshot.iter().count(), snapshot.len());

    commit(store, Txn::put(with_label(mk_address("m1", "b"), "team", "y"))).await;
    let snapshot = store.snapshot();
    let labeled = |value| {
        snapshot
            .by_label(Kind::MeshZoneAddress, "m1", "team", value)
            .map(|r| r.meta.version)
            .collect::<Vec<_>>()
    };
    assert_eq!((labeled("x"), labeled("y")), (vec![], vec![1, 2]), "the index follows changes");
}

/// A reader that runs beside the writers rebuilds exactly the store's contents.
async fn feed_delivers_everything_once(store: Arc<dyn Store>) {
    const WRITES: u64 = 50;
    let mut feed = store.watch(None);
    let mut mirror = match next(&mut feed).await {
        Event::Resync(snapshot) => snapshot,
        Event::Batch(_) => panic!("a new feed starts with a resync"),
    };
    let writer = store.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for n in 0..WRITES {
            let mesh = with_label(mk_mesh(&format!("m{}", n % 7)), "n", &n.to_string());
            commit(&*writer, Txn::put(mesh)).await;
        }
    });
    while mirror.revision() < Revision(WRITES) {
        match next(&mut feed).await {
            Event::Batch(batch) => {
                assert_eq!(batch.revision.0, mirror.revision().0 + 1, "in order, none twice, none missing");
                mirror = mirror.with(&batch);
            }
            Event::Resync(snapshot) => mirror = snapshot,
        }
    }
    while tasks.join_next().await.is_some_and(|done| done.is_ok()) {}
    assert_same(&mirror, &store.snapshot());
}

async fn feed_resumes(store: &dyn Store) {
    let first = commit(store, Txn::put(mk_mesh("m1"))).await;
    let second = commit(store, Txn::put(mk_mesh("m2"))).await;
    let third = commit(store, Txn::delete(mesh_key("m1"))).await;
    let mut feed = store.watch(Some(first.revision));
    for want in [&second, &third] {
        match next(&mut feed).await {
            Event::Batch(batch) => assert_eq!(batch, want.batch),
            Event::Resync(_) => panic!("revision {} is within the history", want.revision),
        }
    }
    let mut from_the_future = store.watch(Some(Revision(u64::MAX)));
    assert!(matches!(next(&mut from_the_future).await, Event::Resync(s) if s.revision() == third.revision));
    let mut from_nothing = store.watch(Some(Revision(0)));
    assert!(matches!(next(&mut from_nothing).await, Event::Batch(batch) if batch == first.batch));
}

async fn feed_lag_resynchronises(store: &dyn Store) {
    let first = commit(store, Txn::put(mk_mesh("m"))).await;
    let mut feed = store.watch(Some(first.revision));
    for n in 0..HISTORY_LEN_SHORT * 3 {
        commit(store, Txn::put(mk_mesh(&format!("m{n}")))).await;
    }
    let Event::Resync(snapshot) = next(&mut feed).await else {
        panic!("the reader lags, it must resynchronise")
    };
    assert_same(&snapshot, &store.snapshot());
    let last = commit(store, Txn::put(mk_mesh("last"))).await;
    assert!(
        matches!(next(&mut feed).await, Event::Batch(batch) if batch == last.batch),
        "then batches again"
    );
}

async fn feed_is_cancel_safe(store: &dyn Store) {
    let mut feed = store.watch(Some(Revision(0)));
    // Polled once, then dropped: nothing is there yet.
    tokio::select! {
        biased;
        _ = feed.next() => panic!("nothing was written"),
        () = std::future::ready(()) => {}
    }
    let committed = commit(store, Txn::put(mk_mesh("m1"))).await;
    assert!(matches!(next(&mut feed).await, Event::Batch(batch) if batch == committed.batch));
}

async fn feed_ends_with_the_store(store: Arc<dyn Store>) {
    let mut feed = store.watch(Some(Revision(0)));
    commit(&*store, Txn::put(mk_mesh("m1"))).await;
    drop(store);
    assert!(matches!(next(&mut feed).await, Event::Batch(_)), "what was committed is still delivered");
    let end = tokio::time::timeout(DEADLINE, feed.next()).await.expect("the feed ends");
    assert!(end.is_none());
}

/// Many writers, and readers that begin anywhere: what a batch says was there before is what the reader has, so nothing
/// is lost, doubled, reordered or from another time.
async fn feed_agrees_with_concurrent_writers(store: Arc<dyn Store>) {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 30;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..WRITES {
                let name = format!("m{}", (writer + n) % 5);
                let txn = if n % 7 == 6 {
                    Txn::delete(mesh_key(&name))
                } else {
                    Txn::put(with_label(mk_mesh(&name), "n", &format!("{writer}-{n}"))).and_put(
                        with_label(mk_mesh(&format!("own-{writer}")), "n", &n.to_string()),
                        Expect::Any,
                    )
                };
                commit(&*store, txn).await;
            }
        });
    }
    let mut readers = JoinSet::new();
    for from in [None, Some(Revision(0)), Some(Revision(WRITES / 2))] {
        let store = store.clone();
        readers.spawn(async move { mirror_until(&*store, from, "done").await });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("writers do not panic");
    }
    commit(&*store, Txn::put(mk_mesh("done"))).await;
    while let Some(mirror) = readers.join_next().await {
        assert_same(&mirror.expect("readers do not panic"), &store.snapshot());
    }
}

/// Follows the feed until a mesh of this name is there.
async fn mirror_until(store: &dyn Store, from: Option<Revision>, last: &str) -> Snapshot {
    let mut feed = store.watch(from);
    // A reader that begins at a revision has what was there then.
    let mut mirror: Option<Snapshot> = (from == Some(Revision(0))).then(Snapshot::empty);
    loop {
        match next(&mut feed).await {
            Event::Resync(snapshot) => mirror = Some(snapshot),
            Event::Batch(batch) => {
                if let Some(before) = &mirror {
                    assert_eq!(batch.revision.0, before.revision().0 + 1, "consecutive");
                    for change in &batch.changes {
                        assert_eq!(before.get(&change.key), change.old, "{} before the batch", change.key);
                    }
                    mirror = Some(before.with(&batch));
                } else {
                    // A reader in the middle starts to check with what it is told first.
                    mirror = Some(store_at(store, batch.revision).await);
                }
            }
        }
        if let Some(mirror) = &mirror
            && mirror.contains(&mesh_key(last))
        {
            return mirror.clone();
        }
    }
}

/// The snapshot at a revision, rebuilt from the beginning.
async fn store_at(store: &dyn Store, revision: Revision) -> Snapshot {
    let mut feed = store.watch(Some(Revision(0)));
    let mut snapshot = Snapshot::empty();
    while snapshot.revision() < revision {
        match next(&mut feed).await {
            Event::Batch(batch) => snapshot = snapshot.with(&batch),
            Event::Resync(newer) => return newer,
        }
    }
    snapshot
}

/// Writers that move something from one resource to another: nobody ever sees one half.
async fn concurrent_transactions_of_several_resources(store: Arc<dyn Store>) {
    const WRITERS: u64 = 3;
    const MOVES: u64 = 10;
    let amount = |name: &str, amount: i64| with_label(mk_mesh(name), "n", &amount.to_string());
    commit(&*store, Txn::put(amount("left", 100)).and_put(amount("right", 0), Expect::Any)).await;
    let read = |snapshot: &Snapshot, name: &str| {
        let stored = snapshot.get(&mesh_key(name)).expect("stored");
        let n: i64 = stored.meta.label("n").and_then(|n| n.parse().ok()).expect("a number");
        (n, stored.meta.version)
    };
    let mut tasks = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut moved = 0;
            while moved < MOVES {
                let snapshot = store.snapshot();
                let ((left, left_version), (right, right_version)) =
                    (read(&snapshot, "left"), read(&snapshot, "right"));
                assert_eq!(left + right, 100, "never half of a transaction");
                let txn = Txn::default()
                    .and_put(amount("left", left - 1), Expect::Version(left_version))
                    .and_put(amount("right", right + 1), Expect::Version(right_version));
                match store.commit(txn).await {
                    Ok(_) => moved += 1,
                    Err(CommitError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("unexpected: {error}"),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("writers do not panic");
    }
    let moved = i64::try_from(WRITERS * MOVES).expect("small");
    assert_eq!(read(&store.snapshot(), "right").0, moved);
}

/// Optimistic writers that count up: every increment counts exactly once.
async fn concurrent_writers(store: Arc<dyn Store>) {
    const WRITERS: u64 = 4;
    const INCREMENTS: u64 = 10;
    commit(&*store, Txn::put(with_label(mk_mesh("counter"), "n", "0"))).await;
    let mut tasks = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < INCREMENTS {
                let stored = get(&*store, &mesh_key("counter"));
                let n: u64 = stored.meta.label("n").and_then(|n| n.parse().ok()).expect("a number is stored");
                let next = with_label(mk_mesh("counter"), "n", &(n + 1).to_string());
                match store.commit(Txn::default().and_put(next, Expect::Version(stored.meta.version))).await {
                    Ok(_) => done += 1,
                    Err(CommitError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("unexpected: {error}"),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("writers do not panic");
    }
    let want = (WRITERS * INCREMENTS).to_string();
    assert_eq!(get(&*store, &mesh_key("counter")).meta.label("n"), Some(want.as_str()));
}

/// A store of one replica leads; writes of other terms have no effect.
async fn fences_former_leaders(store: &dyn Store) {
    let mut leadership = store.leadership();
    let leads = leadership.wait_for(|leadership| leadership.own_term().is_some());
    let term = match tokio::time::timeout(DEADLINE, leads).await.expect("somebody leads in time") {
        Ok(leadership) => leadership.term,
        Err(_) => panic!("the only replica leads"),
    };
    let committed = store.commit_as(term, Txn::put(mk_mesh("m1"))).await.expect("the leader writes");
    for other in [term - 1, term + 1] {
        let error = store.commit_as(other, Txn::put(mk_mesh("m2"))).await.expect_err("fenced");
        assert_eq!(error, CommitError::Fenced(other));
    }
    assert_eq!(store.snapshot().revision(), committed.revision);
    assert_eq!(store.health(), Health::Ready);
}

/// What one replica acknowledged counts for the next write at any other, whatever that one has read so far.
async fn replicas_take_turns(replicas: &[Arc<dyn Store>]) {
    const ROUNDS: usize = 12;
    for round in 0..ROUNDS {
        let store = &replicas[round % replicas.len()];
        let expect = match round {
            0 => Expect::Absent,
            round => Expect::Version(u64::try_from(round).expect("small")),
        };
        let txn = Txn::default().and_put(with_label(mk_mesh("m"), "n", &round.to_string()), expect);
        let committed = store.commit(txn).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(committed.revision, Revision(u64::try_from(round + 1).expect("small")));
        assert_eq!(store.snapshot().revision(), committed.revision, "readable where it was acknowledged");
        let other = &replicas[(round + 1) % replicas.len()];
        assert_eq!(
            fail(&**other, Txn::default().and_put(mk_mesh("m"), Expect::Absent)).await,
            CommitError::Exists(mesh_key("m")),
            "a refusal is about what is stored, not about what this replica has read"
        );
        assert!(commit(&**other, Txn::default()).await.batch.changes.is_empty());
    }
    let deleted = commit(&*replicas[0], Txn::delete(mesh_key("m"))).await;
    for store in &replicas[1..] {
        let error = fail(&**store, Txn::default().and_delete(mesh_key("m"), Expect::Present)).await;
        assert_eq!(error, CommitError::NotFound(mesh_key("m")));
        assert_eq!(store.snapshot().revision(), deleted.revision);
    }
}

/// Writers at all replicas; all replicas tell the same story.
async fn replicas_have_the_same_history(replicas: Vec<Arc<dyn Store>>) {
    const INCREMENTS: u64 = 25;
    commit(&*replicas[0], Txn::put(with_label(mk_mesh("counter"), "n", "0"))).await;
    let mut tasks = JoinSet::new();
    for (number, store) in replicas.iter().cloned().enumerate() {
        tasks.spawn(async move {
            let own = format!("own-{number}");
            let mut done = 0;
            while done < INCREMENTS {
                // A replica may not have read the counter yet.
                let Some(stored) = store.snapshot().get(&mesh_key("counter")) else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let n: u64 = stored.meta.label("n").and_then(|n| n.parse().ok()).expect("a number is stored");
                let next = with_label(mk_mesh("counter"), "n", &(n + 1).to_string());
                let txn = Txn::default()
                    .and_put(next, Expect::Version(stored.meta.version))
                    .and_put(with_label(mk_mesh(&own), "n", &done.to_string()), Expect::Any);
                match store.commit(txn).await {
                    Ok(_) => done += 1,
                    Err(CommitError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("unexpected: {error}"),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("writers do not panic");
    }
    let last = commit(&*replicas[0], Txn::put(mk_mesh("last"))).await.revision;
    let count = u64::try_from(replicas.len()).expect("small") * INCREMENTS;
    assert_eq!(last, Revision(count + 2), "every increment counts once");
    let mut histories = Vec::new();
    for store in &replicas {
        let mut feed = store.watch(Some(Revision(0)));
        let mut history = Vec::new();
        while history.len() < usize::try_from(last.0).expect("small") {
            match next(&mut feed).await {
                Event::Batch(batch) => history.push(batch),
                // A replica that was opened later has no batches from before.
                Event::Resync(snapshot) => panic!("resync at {}", snapshot.revision()),
            }
        }
        histories.push(history);
    }
    for (number, history) in histories.iter().enumerate() {
        let revisions: Vec<u64> = history.iter().map(|batch| batch.revision.0).collect();
        assert_eq!(revisions, (1..=last.0).collect::<Vec<_>>(), "replica {number}");
        assert_eq!(history, &histories[0], "replica {number} tells what replica 0 tells");
    }
    for store in &replicas[1..] {
        assert_same(&store.snapshot(), &replicas[0].snapshot());
    }
}

/// All replicas agree on one leader; only it writes as such.
async fn one_replica_leads(replicas: &[Arc<dyn Store>]) {
    let mut terms = Vec::new();
    let mut leaders = Vec::new();
    for (number, store) in replicas.iter().enumerate() {
        let mut leadership = store.leadership();
        let known = leadership.wait_for(|now| now.leader != Leader::Unknown);
        let known = tokio::time::timeout(DEADLINE, known).await.expect("somebody leads in time");
        let known = known.expect("the store is open").clone();
        terms.push(known.term);
        if known.leader == Leader::Myself {
            leaders.push(number);
        }
    }
    let (&[leader], &[term, ..]) = (&leaders[..], &terms[..]) else {
        panic!("one leads, not {leaders:?}");
    };
    assert!(terms.iter().all(|other| *other == term), "one term: {terms:?}");
    for (number, store) in replicas.iter().enumerate() {
        let written = store.commit_as(term, Txn::put(mk_mesh(&format!("by-{number}")))).await;
        if number == leader {
            written.expect("the leader writes");
        } else {
            assert_eq!(written.expect_err("not the leader"), CommitError::Fenced(term));
        }
    }
}

/// What somebody else was told is there is there, once the barrier has returned.
async fn barriers_see_what_was_acknowledged(store: Arc<dyn Store>) {
    store.read_barrier().await.expect("an empty store has nothing to wait for");
    for n in 0..20 {
        let writer = store.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { commit(&*writer, Txn::put(mk_mesh(&format!("m{n}")))).await.revision });
        let revision = tasks.join_next().await.expect("one task").expect("it wrote");
        store.read_barrier().await.expect("reachable");
        let snapshot = store.snapshot();
        assert!(snapshot.revision() >= revision && snapshot.get(&mesh_key(&format!("m{n}"))).is_some());
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small")
}

fn mk_mesh(name: &str) -> Resource {
    Resource::new(Meta::new("", name), Mesh::default())
}

fn mk_address(mesh: &str, name: &str) -> Resource {
    Resource::new(Meta::new(mesh, name), MeshZoneAddress { address: "10.0.0.1".into(), port: 10001 })
}

fn with_label(mut resource: Resource, key: &str, value: &str) -> Resource {
    resource.meta.labels.insert(key.into(), value.into());
    resource
}

fn owned(mut resource: Resource, owner: Key) -> Resource {
    resource.meta.owner = Some(owner);
    resource
}

fn mesh_key(name: &str) -> Key {
    Key::new(Kind::Mesh, "", name)
}

fn get(store: &dyn Store, key: &Key) -> Arc<Resource> {
    store.snapshot().get(key).unwrap_or_else(|| panic!("{key} is not stored"))
}

fn names(snapshot: &Snapshot, kind: Kind) -> Vec<String> {
    snapshot.list(kind, None).map(|resource| resource.meta.name.clone()).collect()
}

fn assert_same(left: &Snapshot, right: &Snapshot) {
    assert_eq!(left.revision(), right.revision());
    assert!(left.iter().eq(right.iter()), "both hold the same resources");
}

async fn commit(store: &dyn Store, txn: Txn) -> Committed {
    store.commit(txn).await.expect("the transaction is fine")
}

async fn fail(store: &dyn Store, txn: Txn) -> CommitError {
    store.commit(txn).await.expect_err("the transaction must be refused")
}

async fn next(feed: &mut Box<dyn Feed>) -> Event {
    let event = tokio::time::timeout(DEADLINE, feed.next()).await.expect("an event arrives in time");
    event.expect("the store is open")
}
