//! Leases, terms and fencing.

use std::time::Duration;

use graticule_store::{CommitError, Leader, Leadership, Revision, Store, Txn};
use graticule_store_etcd::{EtcdStore, Options};

use crate::harness::{DEADLINE, Etcd, Gate, Mode, eventually, key, mesh, number, open, options, unwell};

async fn leadership(store: &EtcdStore, what: &str, wanted: impl Fn(&Leadership) -> bool) -> Leadership {
    let mut leadership = store.leadership();
    let found = tokio::time::timeout(DEADLINE, leadership.wait_for(|now| wanted(now))).await;
    found.unwrap_or_else(|_| panic!("{what} in time")).expect("the store is open").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_fenced() {
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let here = options(etcd.endpoint());
    let far = open(Options { endpoints: vec![gate.endpoint()], name: "far".into(), ..here.clone() }).await;
    let old = leadership(&far, "the first leads", |now| now.leader == Leader::Myself).await;
    let near = open(Options { name: "near".into(), ..here }).await;
    let known = leadership(&near, "the second knows", |now| now.leader == Leader::Other("far".into())).await;
    assert_eq!(known.term, old.term);
    far.commit_as(old.term, Txn::put(mesh("m", 1))).await.expect("the leader writes");

    // It sends on, and hears nothing: what it writes now may arrive at any time.
    gate.set(Mode::Mute);
    let new = leadership(&near, "the second leads", |now| now.leader == Leader::Myself).await;
    assert!(new.term > old.term, "terms grow");
    let lost =
        leadership(&far, "the first knows that its lease ran out", |now| now.leader == Leader::Unknown).await;
    assert_eq!(lost.term, old.term);
    near.commit_as(new.term, Txn::put(mesh("m", 2))).await.expect("the new leader writes");
    let error = far.commit_as(old.term, Txn::put(mesh("m", 3))).await.expect_err("its term is over");
    assert_eq!(error, CommitError::Fenced(old.term));

    gate.set(Mode::Shut);
    gate.set(Mode::Open);
    let known = leadership(&far, "the first learns", |now| now.leader == Leader::Other("near".into())).await;
    assert_eq!(known.term, new.term);
    eventually("it follows", || number(&far, "m") == Some(2)).await;
    assert_eq!(near.snapshot().revision(), Revision(2), "the old leader wrote nothing");
}

/// The guard in etcd counts, not what a replica believes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_does_not_know_yet_is_fenced_by_etcd() {
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let here = Options { lease: Duration::from_secs(60), ..options(gate.endpoint()) };
    let store = open(here.clone()).await;
    let old = leadership(&store, "it leads", |now| now.leader == Leader::Myself).await;
    store.commit_as(old.term, Txn::put(mesh("m", 1))).await.expect("the leader writes");
    gate.set(Mode::Shut);
    unwell(&store).await;
    // Somebody else took over meanwhile.
    let mut client = etcd.client().await;
    let leader = format!("{}/leader", here.prefix);
    client.delete(leader.clone(), None).await.expect("deleted");
    client.put(leader, "somebody", None).await.expect("put");
    assert_eq!(store.leadership().borrow().own_term(), Some(old.term), "it does not know yet");
    let (written, ()) = tokio::join!(store.commit_as(old.term, Txn::put(mesh("m", 2))), async {
        gate.set(Mode::Open);
    });
    assert_eq!(written.expect_err("fenced"), CommitError::Fenced(old.term));
    assert_eq!(store.snapshot().get(&key("m")).expect("stored").meta.version, 1);
    let known = leadership(&store, "it learns", |now| now.leader == Leader::Other("somebody".into())).await;
    assert!(known.term > old.term);
    store.commit(Txn::put(mesh("m", 3))).await.expect("everybody may write without a term");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_in_good_order_is_replaced_at_once() {
    let Some(etcd) = Etcd::start().await else { return };
    // Much longer than the test may take.
    let here = Options { lease: Duration::from_secs(600), ..options(etcd.endpoint()) };
    let first = open(Options { name: "first".into(), ..here.clone() }).await;
    let old = leadership(&first, "the first leads", |now| now.leader == Leader::Myself).await;
    let second = open(Options { name: "second".into(), ..here }).await;
    leadership(&second, "the second knows", |now| now.leader == Leader::Other("first".into())).await;
    first.close().await;
    let new = leadership(&second, "the second leads", |now| now.leader == Leader::Myself).await;
    assert!(new.term > old.term);
    let error = first.commit(Txn::put(mesh("m", 1))).await.expect_err("closed");
    assert!(matches!(error, CommitError::Unavailable(_)), "{error}");
}
