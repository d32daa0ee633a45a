//! What etcd limits, and what newer versions wrote.

use etcd_client::{AlarmAction, AlarmType};
use graticule_model::kinds::secret::{Secret, SecretBytes};
use graticule_model::{Meta, Resource};
use graticule_store::codec::{bytes, encode_resource};
use graticule_store::seal::Sealer;
use graticule_store::wire as stored;
use graticule_store::{CommitError, Expect, Health, Revision, Store, Txn};
use graticule_store_etcd::{FORMAT, Head, Options};

use crate::harness::{Etcd, eventually, key, mesh, number, open, options, try_open, well};

fn many(count: u64, n: u64) -> Txn {
    (0..count).fold(Txn::default(), |txn, number| txn.and_put(mesh(&format!("m{number}"), n), Expect::Any))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transactions_are_atomic_or_refused() {
    let Some(etcd) = Etcd::start().await else { return };
    let options = options(etcd.endpoint());
    let store = open(options.clone()).await;
    let other = open(Options { name: "b".into(), ..options.clone() }).await;
    // Sizes around the limits of one level of a transaction, and near that of two.
    for (round, count) in [127, 128, 129, 1000, 4000].into_iter().enumerate() {
        let committed =
            store.commit(many(count, round as u64)).await.unwrap_or_else(|e| panic!("{count}: {e}"));
        let revision = Revision(round as u64 + 1);
        assert_eq!((committed.revision, committed.batch.changes.len() as u64), (revision, count));
    }
    eventually("the other replica has it", || other.snapshot().revision() == Revision(5)).await;
    assert!(other.snapshot().iter().eq(store.snapshot().iter()));
    // A cascade counts like any other transaction.
    let owned = (0..600).fold(Txn::default(), |txn, n| {
        let mut child = mesh(&format!("child-{n}"), 0);
        child.meta.owner = Some(key("m0"));
        txn.and_put(child, Expect::Any)
    });
    store.commit(owned).await.expect("written");
    let deleted = store.commit(Txn::delete(key("m0"))).await.expect("deleted");
    assert_eq!(deleted.batch.changes.len(), 601);

    let error = store.commit(many(4097, 9)).await.expect_err("too many");
    assert!(matches!(&error, CommitError::Invalid(reason) if reason.contains("4097 resources")), "{error}");
    let filler = "x".repeat(1 << 20);
    let mut txn = Txn::default();
    for name in ["big-1", "big-2"] {
        let mut resource = mesh(name, 1);
        resource.meta.labels.insert("filler".into(), filler.clone());
        txn = txn.and_put(resource, Expect::Any);
    }
    let error = store.commit(txn.clone()).await.expect_err("too large");
    let named =
        matches!(&error, CommitError::Invalid(reason) if reason.contains("store.etcd.maxRequestBytes"));
    assert!(named, "{error}");
    // etcd has the last word.
    let bold = open(Options { request_len_max: 8 << 20, name: "c".into(), ..options }).await;
    let error = bold.commit(txn).await.expect_err("too large for etcd");
    let named = matches!(&error, CommitError::Invalid(reason) if reason.contains("--max-request-bytes"));
    assert!(named, "{error}");
    assert_eq!(store.snapshot().revision(), deleted.revision, "nothing of it was written");
}

/// Writes mesh `m` until etcd is full; how many writes were acknowledged.
async fn fill(store: &impl Store, filler: &str) -> u64 {
    for acknowledged in 0..200 {
        let mut resource = mesh("m", acknowledged + 1);
        resource.meta.labels.insert("filler".into(), filler.into());
        if let Err(error) = store.commit(Txn::put(resource)).await {
            let is_full =
                matches!(&error, CommitError::Unavailable(reason) if reason.contains("out of space"));
            assert!(is_full, "{error}");
            return acknowledged;
        }
    }
    panic!("the quota is reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_refuses_writes_and_recovers_without_a_restart() {
    let quota = |_: &std::path::Path| vec!["--quota-backend-bytes".into(), (4 << 20).to_string()];
    let Some(etcd) = Etcd::start_with(quota, "http").await else { return };
    let store = open(options(etcd.endpoint())).await;
    let filler = "x".repeat(200 << 10);
    let acknowledged = fill(&store, &filler).await;
    let says = |health| matches!(health, Health::ReadOnly(reason) if reason.contains("NOSPACE"));
    assert!(says(store.health()), "{:?}", store.health());
    eventually("etcd's alarm says the same", || says(store.health())).await;
    assert_eq!(number(&store, "m"), Some(acknowledged), "reads go on");
    etcd.compact().await;
    let mut client = etcd.client().await;
    client.defragment().await.expect("defragmented");
    for alarm in client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("listed").alarms() {
        let mut member = etcd_client::AlarmOptions::new();
        member.with_member(alarm.member_id());
        client.alarm(AlarmAction::Deactivate, alarm.alarm(), Some(member)).await.expect("disarmed");
    }
    well(&store).await;
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
}

/// etcd checks its room twice and carries out what fails the second check only, with the answer that there was none. The
/// more it has to do between both, the more often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_took_the_last_room_is_not_called_refused() {
    const OTHERS: usize = 24;
    for round in 0..3 {
        let quota = |_: &std::path::Path| vec!["--quota-backend-bytes".into(), (12 << 20).to_string()];
        let Some(etcd) = Etcd::start_with(quota, "http").await else { return };
        let store = open(options(etcd.endpoint())).await;
        let filler = "x".repeat(100 << 10);
        let mut others = tokio::task::JoinSet::new();
        for other in 0..OTHERS {
            let (mut client, filler) = (etcd.client().await, filler.clone());
            others.spawn(async move {
                while client.put(format!("other-{other}"), filler.clone(), None).await.is_ok() {}
            });
        }
        let acknowledged = fill(&store, &filler).await;
        while others.join_next().await.is_some() {}
        store.read_barrier().await.expect("readable");
        assert_eq!(number(&store, "m"), (acknowledged > 0).then_some(acknowledged), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_wrote_is_refused() {
    let Some(etcd) = Etcd::start().await else { return };
    let options = options(etcd.endpoint());
    let store = open(options.clone()).await;
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
    let mut client = etcd.client().await;
    let key = |name: &str| format!("{}/{name}", options.prefix);
    let old = client.get(key("head"), None).await.expect("read").kvs()[0].value().to_vec();

    let newer = Head { format: FORMAT + 1, revision: 2, ..Head::default() };
    client.put(key("head"), bytes(&newer), None).await.expect("put");
    let says = |health| matches!(health, Health::ReadOnly(reason) if reason.contains("newer version"));
    eventually("a running replica stands still and says why", || says(store.health())).await;
    assert_eq!(number(&store, "m"), Some(1));
    let error = try_open(options.clone()).await.err().expect("refused").to_string();
    assert!(
        error.contains(&format!("format {}", FORMAT + 1)) && error.contains("run the newer version"),
        "{error}"
    );

    client.put(key("head"), old, None).await.expect("put");
    let mut unknown = encode_resource(&mesh("w", 1), &Sealer::NONE);
    unknown.key = Some(stored::Key { kind: "MeshWormhole".into(), mesh: String::new(), name: "w".into() });
    client.put(key("r/MeshWormhole//w"), bytes(&unknown), None).await.expect("put");
    let error = try_open(options).await.err().expect("refused").to_string();
    assert!(error.contains("MeshWormhole") && error.contains("newer version"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_is_named() {
    let Some(etcd) = Etcd::start().await else { return };
    let mut client = etcd.client().await;
    for (name, value, wanted) in [
        ("head", &b"\xff\xff"[..], "head"),
        ("r/Mesh//a", &b"\xff\xff"[..], "r/Mesh//a"),
        ("r/Mesh//b", &bytes(&encode_resource(&mesh("b", 1), &Sealer::NONE))[..], "no key"),
    ] {
        let options = options(etcd.endpoint());
        client.put(format!("{}/{name}", options.prefix), value, None).await.expect("put");
        let error = try_open(options).await.err().expect("refused").to_string();
        assert!(error.contains(wanted), "{error:?} does not name {wanted:?}");
    }
}

/// Everything is read in pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_comes_later_has_everything() {
    let Some(etcd) = Etcd::start().await else { return };
    let options = options(etcd.endpoint());
    let store = open(options.clone()).await;
    store.commit(many(3000, 1)).await.expect("written");
    let filler = "x".repeat(500_000);
    // More than one answer may hold.
    for n in 0..150 {
        let mut resource = mesh(&format!("z{n}"), 1);
        resource.meta.labels.insert("filler".into(), filler.clone());
        store.commit(Txn::put(resource)).await.expect("written");
    }
    let later = open(Options { name: "b".into(), ..options }).await;
    assert_eq!(later.snapshot().revision(), store.snapshot().revision());
    assert!(later.snapshot().iter().eq(store.snapshot().iter()));
}

/// Secrets lie in etcd as the key file says; without the key they cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_sealed() {
    let Some(etcd) = Etcd::start().await else { return };
    let keys = |id: &str, byte: u8| {
        use std::fmt::Write as _;
        // 32 bytes in base64.
        let mut text = format!("{id} ");
        write!(text, "{}=", char::from(byte).to_string().repeat(43)).expect("text");
        std::sync::Arc::new(Sealer::parse(&text).expect("a key"))
    };
    let options = Options { sealer: keys("one", b'A'), ..options(etcd.endpoint()) };
    let store = open(options.clone()).await;
    let secret = Secret { data: SecretBytes(b"hunter2".to_vec()) };
    let secret = Resource::new(Meta::new("default", "s"), secret);
    store.commit(Txn::put(secret.clone())).await.expect("written");
    let mut client = etcd.client().await;
    let key = format!("{}/r/Secret/default/s", options.prefix);
    let stored = client.get(key, None).await.expect("read").kvs()[0].value().to_vec();
    let plain = bytes(&encode_resource(&secret, &Sealer::NONE));
    let hidden = graticule_store::codec::message::<stored::Resource>("a resource", stored.into());
    assert!(hidden.expect("a resource").spec.is_empty() && !plain.is_empty());

    let later = open(Options { name: "b".into(), ..options.clone() }).await;
    assert!(later.snapshot().get(&secret.key()).is_some_and(|found| found.spec == secret.spec));
    let without = Options { sealer: std::sync::Arc::default(), ..options };
    let error = try_open(without).await.err().expect("refused").to_string();
    assert!(error.contains("Secret") && error.contains("one"), "{error}");
}
