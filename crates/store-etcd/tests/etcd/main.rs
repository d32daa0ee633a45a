//! The store over a real etcd: the conformance suite, and what only a store over a network meets.

mod faults;
mod harness;
mod leaders;
mod limits;
mod measure;
mod replace;
mod secured;

use std::sync::Arc;

use graticule_store::{CommitError, Event, Expect, Revision, Store, Txn, conformance};
use graticule_store_etcd::Options;
use tokio::task::JoinSet;

use harness::{Etcd, mesh, next, open, options, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance() {
    let Some(etcd) = Etcd::start().await else { return };
    conformance::run(async |history_len| {
        let options = Options { history_len, ..options(etcd.endpoint()) };
        Arc::new(open(options).await) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_of_replicas() {
    let Some(etcd) = Etcd::start().await else { return };
    conformance::replicas(async |history_len| pair(&etcd, history_len).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_of_replacing() {
    let Some(etcd) = Etcd::start().await else { return };
    // Several requests, one of which is not enough.
    let filler_len = 10_000;
    conformance::replaces(filler_len, async |history_len| {
        let options = Options { history_len, ..options(etcd.endpoint()) };
        Arc::new(open(options).await) as Arc<dyn Store>
    })
    .await;
}

/// What waits together is written together; each write keeps its revision, its outcome and its place in every feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_at_once_have_a_revision_each() {
    const WRITERS: u64 = 64;
    const ROUNDS: u64 = 5;
    let Some(etcd) = Etcd::start().await else { return };
    let here = options(etcd.endpoint());
    let long = Options { history_len: 4096, ..here.clone() };
    let store = Arc::new(open(long.clone()).await);
    let other = open(Options { name: "b".into(), ..long }).await;
    let mut feeds = [store.watch(Some(Revision(0))), other.watch(Some(Revision(0)))];
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut told = Vec::new();
            for round in 0..ROUNDS {
                let own = mesh(&format!("of-{writer}"), round);
                let committed = store.commit(Txn::put(own.clone())).await.expect("written");
                let [change] = committed.batch.changes.as_slice() else {
                    panic!("its own change, and no other")
                };
                assert_eq!(change.key, own.key());
                told.push((committed.revision, change.key.clone()));
                // Everybody wants to be the one who makes this.
                match store
                    .commit(Txn::default().and_put(mesh(&format!("all-{round}"), writer), Expect::Absent))
                    .await
                {
                    Ok(made) => told.push((made.revision, made.batch.changes[0].key.clone())),
                    Err(CommitError::Exists(_)) => {}
                    Err(error) => panic!("unexpected: {error}"),
                }
            }
            told
        });
    }
    let mut told: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    told.sort();
    let last = WRITERS * ROUNDS + ROUNDS;
    let revisions: Vec<u64> = told.iter().map(|(revision, _)| revision.0).collect();
    assert_eq!(revisions, (1..=last).collect::<Vec<_>>(), "one revision each, one maker each");
    for (_, key) in &told {
        for feed in &mut feeds {
            let Event::Batch(batch) = next(feed).await else { panic!("nothing is skipped") };
            assert_eq!(batch.changes.len(), 1);
            assert_eq!(batch.changes[0].key, *key, "revision {}", batch.revision);
        }
    }
    assert!(other.snapshot().iter().eq(store.snapshot().iter()));
    let mut client = etcd.client().await;
    let head = client.get(format!("{}/head", here.prefix), None).await.expect("read");
    let requests = head.kvs()[0].version();
    assert!(
        requests < i64::try_from(last / 2).expect("small"),
        "{requests} transactions of etcd for {last} writes"
    );
}
