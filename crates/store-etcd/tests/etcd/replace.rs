//! Replacing everything, and reading what others wrote, with several replicas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions};
use graticule_model::Resource;
use graticule_store::{CommitError, Event, Replacement, Revision, Snapshot, Store, Txn};
use graticule_store_etcd::Options;
use tokio::task::JoinSet;

use crate::harness::{DEADLINE, Etcd, Gate, Mode, eventually, mesh, next, number, open, options, pair, well};

/// More than fits into one request.
fn contents(n: u64) -> Vec<Arc<Resource>> {
    let one = |number: u64| {
        let mut resource = mesh(&format!("m{number}"), n);
        resource.meta.version = 3;
        resource.meta.labels.insert("filler".into(), "x".repeat(20_000));
        Arc::new(resource)
    };
    (0..300).map(one).collect()
}

fn replacement(n: u64) -> Replacement {
    Replacement { resources: contents(n), ..Replacement::default() }
}

async fn keys_of(client: &mut Client, prefix: &str) -> Vec<String> {
    let all = GetOptions::new().with_prefix().with_keys_only();
    let found = client.get(format!("{prefix}/"), Some(all)).await.expect("listed");
    found.kvs().iter().map(|kv| kv.key_str().expect("text").to_owned()).collect()
}

/// Names of the generations that have keys.
async fn generations(client: &mut Client, prefix: &str) -> BTreeSet<String> {
    let keys = keys_of(client, prefix).await;
    let rest = keys.iter().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix('/'));
    let name = |rest: &str| match rest.strip_prefix("g/") {
        Some(rest) => rest.split('/').next().map(str::to_owned),
        None => rest.starts_with("r/").then(String::new),
    };
    rest.filter_map(name).collect()
}

fn assert_holds(snapshot: &Snapshot, n: u64) {
    let wanted = Snapshot::restore(snapshot.revision(), contents(n));
    assert!(snapshot.iter().eq(wanted.iter()), "everything, and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_replicas_see_one_resync_and_nothing_is_left_behind() {
    let Some(etcd) = Etcd::start().await else { return };
    let here = options(etcd.endpoint());
    let store = open(here.clone()).await;
    let other = open(Options { name: "b".into(), ..here.clone() }).await;
    store.commit(Txn::put(mesh("before", 1))).await.expect("written");
    eventually("the other one follows", || other.snapshot().revision() == Revision(1)).await;
    let mut feed = other.watch(Some(Revision(1)));
    let mut client = etcd.client().await;
    for (n, replica) in [(1, &store), (2, &other), (3, &store)] {
        let revision = replica.replace_all(replacement(n)).await.expect("replaced");
        let Event::Resync(snapshot) = next(&mut feed).await else { panic!("one resync") };
        assert_eq!(snapshot.revision(), revision);
        assert_holds(&snapshot, n);
        eventually("both have it", || store.snapshot().revision() == revision).await;
        assert_holds(&store.snapshot(), n);
        assert_eq!(generations(&mut client, &here.prefix).await.len(), 1, "one generation is left");
        assert!(!keys_of(&mut client, &here.prefix).await.contains(&format!("{}/staging", here.prefix)));
        // Everybody goes on from there.
        let committed = store.commit(Txn::put(mesh("m7", 100 + n))).await.expect("written");
        let Event::Batch(batch) = next(&mut feed).await else { panic!("batches again") };
        assert_eq!(batch, committed.batch);
        assert_eq!(number(&other, "m7"), Some(100 + n));
    }
    // A replica that starts reads the same.
    let fresh = open(Options { name: "c".into(), ..here }).await;
    assert!(fresh.snapshot().iter().eq(store.snapshot().iter()));
    assert_eq!(fresh.snapshot().revision(), store.snapshot().revision());
}

/// The process that restores dies at any moment: nothing has happened, or everything; the next restore works, and
/// removes what the first one left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_dies_half_way_changes_nothing_and_can_be_repeated() {
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let here = options(etcd.endpoint());
    let store = open(here.clone()).await;
    let before = store.commit(Txn::put(mesh("before", 1))).await.expect("written").revision;
    let mut client = etcd.client().await;
    let dying = Options { endpoints: vec![gate.endpoint()], name: "b".into(), ..here.clone() };
    let dying = Arc::new(open(dying).await);
    let mut restoring = JoinSet::new();
    let restorer = dying.clone();
    restoring.spawn(async move { restorer.replace_all(replacement(1)).await });
    let half_way = tokio::time::timeout(DEADLINE, async {
        while generations(&mut client, &here.prefix).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    });
    half_way.await.expect("parts arrive in time");
    // Nothing of it reaches etcd from here on.
    gate.set(Mode::Shut);
    restoring.abort_all();
    while restoring.join_next().await.is_some() {}
    drop(dying);
    let staging = format!("{}/staging", here.prefix);
    assert!(keys_of(&mut client, &here.prefix).await.contains(&staging), "it shows that it is not done");
    assert_eq!(store.snapshot().revision(), before, "nothing has happened");
    let fresh = open(Options { name: "c".into(), ..here.clone() }).await;
    assert_eq!((fresh.snapshot().len(), number(&fresh, "before")), (1, Some(1)));
    store.commit(Txn::put(mesh("before", 2))).await.expect("writes go on");

    let revision = fresh.replace_all(replacement(2)).await.expect("again");
    assert_holds(&fresh.snapshot(), 2);
    eventually("the others have it", || store.snapshot().revision() == revision).await;
    assert_holds(&store.snapshot(), 2);
    let keys = keys_of(&mut client, &here.prefix).await;
    assert!(!keys.contains(&staging));
    assert_eq!(generations(&mut client, &here.prefix).await.len(), 1, "what the first one left is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_restores_at_once_one_counts_as_a_whole() {
    let Some(etcd) = Etcd::start().await else { return };
    for round in 0..3 {
        let replicas = pair(&etcd, 16).await;
        let mut restoring = JoinSet::new();
        for (n, replica) in replicas.iter().cloned().enumerate() {
            let n = n as u64 + 1;
            restoring.spawn(async move { (n, replica.replace_all(replacement(n)).await) });
        }
        let mut last = None;
        while let Some(done) = restoring.join_next().await {
            match done.expect("no panic") {
                (n, Ok(revision)) => last = last.max(Some((revision, n))),
                (_, Err(CommitError::Unavailable(reason))) => assert!(reason.contains("another"), "{reason}"),
                (_, Err(error)) => panic!("round {round}: {error}"),
            }
        }
        let (revision, n) = last.expect("one of them is done");
        eventually("both replicas have it", || {
            replicas.iter().all(|replica| replica.snapshot().revision() == revision)
        })
        .await;
        for replica in &replicas {
            assert_holds(&replica.snapshot(), n);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_waits_for_what_another_replica_wrote() {
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let here = Options {
        write_timeout: Duration::from_millis(1500),
        request_timeout: Duration::from_millis(500),
        ..options(etcd.endpoint())
    };
    let near = open(here.clone()).await;
    let far = open(Options { endpoints: vec![gate.endpoint()], name: "b".into(), ..here }).await;
    for n in 1..=200 {
        near.commit(Txn::put(mesh("m", n))).await.expect("written");
        far.read_barrier().await.expect("etcd answers");
        assert_eq!(number(&far, "m"), Some(n), "what was acknowledged before is read");
    }
    // What cannot be known is not claimed.
    gate.set(Mode::Mute);
    near.commit(Txn::put(mesh("m", 201))).await.expect("written");
    let error = far.read_barrier().await.expect_err("no answer");
    assert!(matches!(error, CommitError::Unavailable(_)), "{error}");
    gate.set(Mode::Shut);
    gate.set(Mode::Open);
    well(&far).await;
    far.read_barrier().await.expect("without a restart");
    assert_eq!(number(&far, "m"), Some(201));
}
