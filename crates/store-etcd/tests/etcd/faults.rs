//! Lost connections, lost answers, crashes, compaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_client::GetOptions;
use graticule_store::{CommitError, Event, Expect, Health, Revision, Store, Txn};
use graticule_store_etcd::Options;
use tokio::task::JoinSet;

use crate::harness::{
    DEADLINE, Etcd, Gate, Mode, eventually, health, key, mesh, next, number, open, options, unwell, well,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_etcd_crashes() {
    const WRITERS: u64 = 3;
    const ROUNDS: u64 = 5;
    let Some(mut etcd) = Etcd::start().await else { return };
    let options = options(etcd.endpoint());
    let store = Arc::new(open(options.clone()).await);
    let mut feed = store.watch(Some(Revision(0)));
    let acknowledged: Vec<Arc<AtomicU64>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut writers = JoinSet::new();
    for (writer, acknowledged) in acknowledged.iter().cloned().enumerate() {
        let (store, stopped) = (store.clone(), stopped.clone());
        writers.spawn(async move {
            let name = format!("w{writer}");
            let mut n = 0;
            while !*stopped.borrow() {
                n += 1;
                match store.commit(Txn::put(mesh(&name, n))).await {
                    Ok(_) => acknowledged.store(n, Ordering::SeqCst),
                    Err(CommitError::Unavailable(_)) => n -= 1,
                    Err(CommitError::Uncertain(_)) => {}
                    Err(error) => panic!("unexpected: {error}"),
                }
            }
        });
    }
    let sum = || acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).sum::<u64>();
    for _ in 0..ROUNDS {
        let before = sum();
        eventually("writes are acknowledged", || sum() > before + 30).await;
        etcd.kill();
        unwell(&*store).await;
        etcd.run();
        well(&*store).await;
    }
    stop.send_replace(true);
    while let Some(done) = writers.join_next().await {
        done.expect("writers do not panic");
    }
    let last = store.commit(Txn::put(mesh("last", 1))).await.expect("etcd is back").revision;
    // The feed had no gap, no repetition, no resync.
    let mut revision = 0;
    while revision < last.0 {
        let Event::Batch(batch) = next(&mut feed).await else { panic!("nothing was compacted") };
        revision += 1;
        assert_eq!(batch.revision, Revision(revision));
    }
    // A new replica has what this one has, and all that was acknowledged.
    let fresh = open(options).await;
    assert_eq!(fresh.snapshot().revision(), store.snapshot().revision());
    assert!(fresh.snapshot().iter().eq(store.snapshot().iter()), "both hold the same");
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        let stored = number(&fresh, &format!("w{writer}")).expect("stored");
        assert!(stored >= acknowledged.load(Ordering::SeqCst), "writer {writer}: {stored}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_found_again() {
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let options = options(gate.endpoint());
    let store = Arc::new(open(options.clone()).await);
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
    for round in 2..5 {
        gate.set(Mode::Mute);
        let mut writing = JoinSet::new();
        let writer = store.clone();
        writing.spawn(async move {
            writer.commit(Txn::default().and_put(mesh("m", round), Expect::Version(round - 1))).await
        });
        // etcd has it, and the writer does not know.
        let mut client = etcd.client().await;
        let stored = format!("{}/r/Mesh//m", options.prefix);
        let limit = tokio::time::timeout(DEADLINE, async {
            loop {
                let found = client.get(stored.clone(), None).await.expect("answers");
                if found.kvs().first().is_some_and(|kv| kv.version() == i64::try_from(round).expect("small"))
                {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        limit.await.expect("etcd has the write in time");
        gate.set(Mode::Shut);
        gate.set(Mode::Open);
        let committed = writing.join_next().await.expect("one writer").expect("no panic");
        let committed = committed.expect("the watch tells what the lost answer said");
        assert_eq!(committed.revision, Revision(round));
        assert_eq!(number(&*store, "m"), Some(round));
    }
    assert_eq!(store.snapshot().get(&key("m")).expect("stored").meta.version, 4, "each write counts once");
}

/// Answers get lost under writers whose writes go together: what is acknowledged happened once, what is refused did not.
/// Each writer is alone with its resource, so that a conflict would show a write that nobody knows of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_of_writes_at_once() {
    const WRITERS: u64 = 16;
    const ROUNDS: u64 = 8;
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let options = options(gate.endpoint());
    let store = Arc::new(open(options.clone()).await);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, stopped, acknowledged) = (store.clone(), stopped.clone(), acknowledged.clone());
        writers.spawn(async move {
            let name = format!("w{writer}");
            let mut version = 0;
            while !*stopped.borrow() {
                let expect = if version == 0 { Expect::Absent } else { Expect::Version(version) };
                let txn = Txn::default().and_put(mesh(&name, version + 1), expect);
                match store.commit(txn).await {
                    Ok(committed) => {
                        version += 1;
                        let stored = committed.batch.changes.first().and_then(|change| change.new.clone());
                        assert!(stored.is_none_or(|stored| stored.meta.version == version));
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(CommitError::Unavailable(_)) => {}
                    Err(CommitError::Uncertain(_)) => {
                        // Nothing of it is under way any more once a later write to another resource is done.
                        while store.commit(Txn::put(mesh(&format!("{name}-look"), version))).await.is_err() {}
                        version = store.snapshot().get(&key(&name)).map_or(0, |stored| stored.meta.version);
                    }
                    Err(error) => panic!("{name} at version {version}: {error}"),
                }
            }
            (name, version)
        });
    }
    let mut client = etcd.client().await;
    let head = format!("{}/head", options.prefix);
    for _ in 0..ROUNDS {
        let before = acknowledged.load(Ordering::SeqCst);
        eventually("writes are acknowledged", || acknowledged.load(Ordering::SeqCst) > before + 100).await;
        gate.set(Mode::Mute);
        // What is under way may reach etcd, and its answer does not come.
        let moved = client.get(head.clone(), None).await.expect("answers").kvs()[0].version();
        for _ in 0..50 {
            let now = client.get(head.clone(), None).await.expect("answers").kvs()[0].version();
            if now > moved {
                break;
            }
        }
        gate.set(Mode::Shut);
        gate.set(Mode::Open);
    }
    stop.send_replace(true);
    let fresh = async {
        let done: Vec<(String, u64)> = writers.join_all().await;
        well(&*store).await;
        (open(options).await, done)
    };
    let (fresh, done) = fresh.await;
    for (name, version) in done {
        let stored = fresh.snapshot().get(&key(&name)).map_or(0, |stored| stored.meta.version);
        assert_eq!(stored, version, "{name}");
    }
    assert!(fresh.snapshot().iter().eq(store.snapshot().iter()), "both hold the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_etcd_says_what_is_known() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let options = Options {
        write_timeout: std::time::Duration::from_millis(1500),
        request_timeout: std::time::Duration::from_millis(500),
        ..options(gate.endpoint())
    };
    let store = open(options).await;
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
    // Requests go, answers do not come: the write may have happened.
    gate.set(Mode::Mute);
    let error = store.commit(Txn::put(mesh("m", 2))).await.expect_err("no answer");
    assert!(matches!(error, CommitError::Uncertain(_)), "{error}");
    health(&store, "the store knows", |health| matches!(health, Health::Stale(_))).await;
    assert_eq!(number(&store, "m"), Some(1), "reads go on");
    gate.set(Mode::Open);
    well(&store).await;
    eventually("what happened is seen", || number(&store, "m") == Some(2)).await;
    // Nobody listens: nothing happened.
    etcd.kill();
    gate.set(Mode::Shut);
    health(&store, "the store knows", |health| matches!(health, Health::Stale(_))).await;
    etcd.run();
    gate.set(Mode::Open);
    well(&store).await;
    store.commit(Txn::put(mesh("m", 3))).await.expect("without a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_while_cut_off_is_one_resync() {
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let near = options(etcd.endpoint());
    let far = Options { endpoints: vec![gate.endpoint()], name: "b".into(), ..near.clone() };
    let (near, far) = (open(near).await, open(far).await);
    near.commit(Txn::put(mesh("same", 1)).and_put(mesh("changed", 1), Expect::Any)).await.expect("written");
    near.commit(Txn::put(mesh("gone", 1))).await.expect("written");
    eventually("the far replica follows", || far.snapshot().revision() == Revision(2)).await;
    let before = far.snapshot();
    let mut feed = far.watch(Some(Revision(2)));

    gate.set(Mode::Shut);
    health(&far, "it is cut off", |health| matches!(health, Health::Stale(_))).await;
    for n in 2..40 {
        near.commit(Txn::put(mesh("changed", n))).await.expect("written");
    }
    near.commit(Txn::delete(key("gone"))).await.expect("deleted");
    etcd.compact().await;
    gate.set(Mode::Open);

    let Event::Resync(snapshot) = next(&mut feed).await else { panic!("the batches are gone") };
    assert_eq!(snapshot.revision(), near.snapshot().revision());
    assert!(snapshot.iter().eq(near.snapshot().iter()));
    let of = |snapshot: &graticule_store::Snapshot| snapshot.get(&key("same")).expect("stored");
    assert!(Arc::ptr_eq(&of(&snapshot), &of(&before)), "what did not change is the same object");
    // One resync, then batches.
    let last = near.commit(Txn::put(mesh("last", 1))).await.expect("written");
    let Event::Batch(batch) = next(&mut feed).await else { panic!("one resync is enough") };
    assert_eq!(batch, last.batch);
    well(&far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_without_changes_is_not_seen() {
    let Some(etcd) = Etcd::start().await else { return };
    let gate = Gate::to(etcd.port).await;
    let options = options(gate.endpoint());
    let store = open(options.clone()).await;
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
    let mut feed = store.watch(Some(Revision(1)));
    gate.set(Mode::Shut);
    health(&store, "it is cut off", |health| matches!(health, Health::Stale(_))).await;
    // Others use etcd too.
    let mut client = etcd.client().await;
    for n in 0..20 {
        client.put("/somebody/else", n.to_string(), None).await.expect("put");
    }
    etcd.compact().await;
    gate.set(Mode::Open);
    well(&store).await;
    let committed = store.commit(Txn::put(mesh("m", 2))).await.expect("written");
    let Event::Batch(batch) = next(&mut feed).await else { panic!("nothing was missed") };
    assert_eq!(batch, committed.batch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_members_may_fail_and_two_may_not() {
    let Some(mut members) = Etcd::start_three().await else { return };
    let endpoints = members.iter().map(Etcd::endpoint).collect();
    let store = open(Options { endpoints, ..options(String::new()) }).await;
    let mut n = 0;
    for member in &mut members {
        member.kill();
        for _ in 0..5 {
            n += 1;
            store.commit(Txn::put(mesh("m", n))).await.expect("two of three are there");
        }
        member.run();
        // The next one may fail only when this one is back.
        let mut client = member.client().await;
        let back = tokio::time::timeout(DEADLINE, async {
            while client.get("x", Some(GetOptions::new().with_count_only())).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        back.await.expect("the member is back in time");
    }
    members[0].kill();
    members[1].kill();
    unwell(&store).await;
    let error = store.commit(Txn::put(mesh("m", n + 1))).await.expect_err("no majority");
    assert!(matches!(error, CommitError::Unavailable(_) | CommitError::Uncertain(_)), "{error}");
    assert_eq!(number(&store, "m"), Some(n), "reads go on");
    members[0].run();
    well(&store).await;
    store.commit(Txn::put(mesh("m", n + 2))).await.expect("a majority is enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_went_away_are_not_followed() {
    let Some(etcd) = Etcd::start().await else { return };
    let options = options(etcd.endpoint());
    let store = open(options.clone()).await;
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
    let mut client = etcd.client().await;
    let all = etcd_client::DeleteOptions::new().with_prefix();
    client.delete(format!("{}/", options.prefix), Some(all)).await.expect("deleted");
    eventually("the store says so", || {
        matches!(store.health(), Health::ReadOnly(reason) if reason.contains("deleted") && reason.contains("restart"))
    })
    .await;
    assert_eq!(number(&store, "m"), Some(1), "nothing is forgotten because of an accident");
    let error = store.commit(Txn::put(mesh("m", 2))).await.expect_err("refused");
    assert!(matches!(&error, CommitError::Unavailable(reason) if reason.contains("deleted")), "{error}");
}
