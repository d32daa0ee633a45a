//! Replicas of global that do not all see the same at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use graticule_kds::net::{Dial, GlobalOptions, Stores};
use graticule_model::kinds::config::Config;
use graticule_model::kinds::zone::{KdsSubscription, ZoneInsight};
use graticule_model::{Key, Kind, Meta, Resource, Timestamp};
use graticule_runtime::tls::ClientTrust;
use graticule_store::history::History;
use graticule_store::{
    CommitError, Committed, Event, Feed, Health, Leader, Leadership, MemoryStore, Revision, Snapshot, Store,
    Txn,
};
use tokio::sync::watch;

use crate::support::*;

/// A replica that sees what others wrote only when it asks.
struct Lagging {
    now: Arc<MemoryStore>,
    seen: History,
}

#[async_trait]
impl Store for Lagging {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.now.commit(txn).await
    }

    fn snapshot(&self) -> Snapshot {
        self.seen.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.seen.watch(from)
    }

    async fn read_barrier(&self) -> Result<(), CommitError> {
        self.seen.reset(self.now.snapshot());
        Ok(())
    }
}

/// The first replica had told it more than the second one sees.
#[tokio::test]
async fn a_zone_does_not_go_back_in_time_when_it_comes_to_another_replica() {
    let now = Arc::new(MemoryStore::new(Timestamp::now));
    let stores = |config: Arc<dyn Store>| Stores { config, ..mk_stores() };
    let first = mk_global(stores(now.clone()), GlobalOptions::default(), None, 0).await;
    put(&first.stores.config, mk_timeout("a")).await;
    let mut zone = mk_zone("east", &first, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    let seen = History::new(now.snapshot(), 10);
    put(&first.stores.config, mk_timeout("b")).await;
    let is_b = |name: &str| name.starts_with("b-");
    until(&zone.stores.config, "the second one", |all| all.iter().any(|one| is_b(&one.meta.name))).await;
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}

    let config = zone.stores.config.clone();
    let mut changes = config.watch(Some(config.snapshot().revision()));
    let second = mk_global(stores(Arc::new(Lagging { now, seen })), GlobalOptions::default(), None, 0).await;
    let mut zone = mk_zone("east", &second, zone.stores, "token-east");
    linked(&mut zone, "synced with the other one", |link| link.synced).await;
    put(&zone.stores.config, mk_timeout("end")).await;
    loop {
        let Some(Event::Batch(batch)) = changes.next().await else { panic!("the zone writes on") };
        let of_timeouts = batch.changes.iter().filter(|change| change.key.kind == Kind::MeshTimeout);
        let names: Vec<&str> = of_timeouts.map(|change| change.key.name.as_str()).collect();
        assert!(!names.iter().any(|name| is_b(name)), "it was changed: {batch:?}");
        if names == ["end"] {
            return;
        }
    }
}

/// A zone that lost its disk comes to another replica while the connection of its former self is still open at the first
/// one: what arrives over that one says nothing about the new one.
#[tokio::test]
async fn an_old_connection_at_another_replica_decides_nothing() {
    let config: Arc<dyn Store> = Arc::new(MemoryStore::new(Timestamp::now));
    let stores = || Stores { config: config.clone(), ..mk_stores() };
    let quick = || GlobalOptions { name_reserved_for: Duration::ZERO, ..GlobalOptions::default() };
    let first = mk_global(stores(), quick(), None, 0).await;
    let second = mk_global(stores(), quick(), None, 0).await;
    let mut former = mk_zone("east", &first, mk_stores(), "token-east");
    linked(&mut former, "synced", |link| link.synced).await;
    put(&former.stores.config, mk_timeout("a")).await;
    let has = |name: &'static str| {
        move |all: &[Arc<Resource>]| all.iter().any(|one| one.meta.display_name() == name)
    };
    until(&config, "the policy", has("a")).await;

    let zone = mk_zone("east", &second, mk_stores(), "token-east");
    let held_back = || second.server.peer_report("east").map_or(0, |report| report.protection.held_back);
    until_true("global keeps what the zone lost", || held_back() == 1).await;
    put(&former.stores.config, mk_timeout("late")).await;
    linked(&mut former, "sent away", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("another control plane took the name"))
    })
    .await;
    let key = Key::new(Kind::Config, "", "graticule-zone-identity.east");
    let bound = config.snapshot().get(&key).expect("the zone is known");
    assert!(bound.spec_as::<Config>().expect("a Config").config.ends_with(" unconfirmed"), "{bound:?}");
    until(&config, "the copy", has("a")).await;
    zone.stop.drain();
}

/// Copies of a zone at global, or of what is left of them.
fn policies(config: &Arc<dyn Store>) -> usize {
    config.snapshot().list(Kind::MeshTimeout, None).count()
}

fn decision_key() -> Key {
    Key::new(Kind::Config, "", "graticule-accepted-deletions.east")
}

/// Two replicas over one store; a zone gave 12 policies and lost its disk.
async fn with_a_lost_disk() -> (Arc<dyn Store>, Global, Global) {
    let config: Arc<dyn Store> = Arc::new(MemoryStore::new(Timestamp::now));
    let options = || GlobalOptions { name_reserved_for: Duration::ZERO, ..GlobalOptions::default() };
    let stores = || Stores { config: config.clone(), ..mk_stores() };
    let first = mk_global(stores(), options(), None, 0).await;
    let second = mk_global(stores(), options(), None, 0).await;
    let mut zone = mk_zone("east", &first, mk_stores(), "token-east");
    for n in 0..12 {
        put(&zone.stores.config, mk_timeout(&format!("t{n}"))).await;
    }
    until_true("global has them", || policies(&config) == 12).await;
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}
    (config, first, second)
}

/// A zone that is told to connect again may come to another replica, which has never heard of what is held back.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_decided_counts_at_every_replica() {
    let (config, first, second) = with_a_lost_disk().await;
    let (ClientTrust::Pem(one), ClientTrust::Pem(other)) = (&first.trust, &second.trust) else {
        panic!("each has a certificate of its own")
    };
    let trust = ClientTrust::Pem([one.as_slice(), other.as_slice()].concat());
    let ports = [first.address.port(), second.address.port()];
    let both = format!("grpcs://localhost:{},grpcs://localhost:{}", ports[0], ports[1]);
    let zone = mk_zone_with("east", &first, ports[0], mk_stores(), "east-1", |options| {
        options.dial = Dial::tcp(&both, &trust).unwrap();
    });
    let held_back =
        |at: &Global| at.server.peer_report("east").map_or(0, |report| report.protection.held_back);
    until_true("one of them keeps what is missing", || held_back(&first) + held_back(&second) == 12).await;
    let (here, there) = if first.server.serves("east") { (&first, &second) } else { (&second, &first) };
    assert_eq!(there.server.accept_deletions("east").await.unwrap(), None, "it is not there");
    assert_eq!(here.server.accept_deletions("east").await.unwrap(), Some(12));
    until_true("what was given up goes", || policies(&config) == 0).await;
    assert!(there.server.serves("east") && !here.server.serves("east"), "the zone came to the other replica");
    until_true("it is carried out once", || !config.snapshot().contains(&decision_key())).await;
    zone.stop.drain();
}

/// The zone lost its disk once more, or another control plane took its name: that was not decided about.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_about_whom_it_was_made_about() {
    let (config, first, _second) = with_a_lost_disk().await;
    let text = r#"{"identity": "another", "givenUp": {"MeshTimeout": 12}}"#;
    put(&config, Resource::new(Meta::new("", decision_key().name), Config { config: text.into() })).await;
    let mut zone = mk_zone("east", &first, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    let held_back = || first.server.peer_report("east").unwrap().protection.held_back;
    until_true("it is kept", || held_back() == 12).await;
    assert!(!config.snapshot().contains(&decision_key()), "it is void");
    assert_eq!(policies(&config), 12);
    zone.stop.drain();
}

/// A replica of a zone that believes to lead in this term.
struct Led {
    store: Arc<dyn Store>,
    leadership: watch::Sender<Leadership>,
}

#[async_trait]
impl Store for Led {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.store.commit(txn).await
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.store.watch(from)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }
}

/// A replica of zone east that leads it in this term, as far as it knows.
fn mk_leader(global: &Global, store: &Arc<dyn Store>, instance: &str, term: u64) -> ZoneCp {
    let leadership = watch::Sender::new(Leadership { term, leader: Leader::Myself });
    let config = Arc::new(Led { store: store.clone(), leadership });
    let stores = Stores { config, ..mk_stores() };
    mk_zone_with("east", global, global.address.port(), stores, instance, |_| {})
}

/// Whoever led before and does not know yet may connect after the leader did: what it has may be older.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_leader_of_a_zone_does_not_take_its_place_again() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timestamp::now));
    let mk_replica = |instance: &str, term| mk_leader(&global, &store, instance, term);
    let mut leader = mk_replica("east-2", 2);
    linked(&mut leader, "it leads", |link| link.synced).await;
    let since = leader.link.borrow().connected_since;
    let mut former = mk_replica("east-1", 1);
    linked(&mut former, "it is told who leads", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("control plane east-2"))
    })
    .await;
    assert_eq!(leader.link.borrow().connected_since, since, "nothing ended");
    // The next one takes over at once, also when it was there before.
    let mut next = mk_replica("east-1", 3);
    linked(&mut next, "it leads now", |link| link.synced).await;
    for zone in [&leader, &former, &next] {
        zone.stop.drain();
    }
}

/// The former leader comes to another replica of global than the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_leader_does_not_take_the_place_of_the_leader_at_another_replica() {
    let stores = mk_stores();
    let options = || GlobalOptions { keep_alive: Duration::from_millis(500), ..GlobalOptions::default() };
    let first = mk_replica("global-1", stores.clone(), options()).await;
    let second = mk_replica("global-2", stores.clone(), options()).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timestamp::now));
    let mut leader = mk_leader(&second, &store, "east-2", 2);
    linked(&mut leader, "it leads", |link| link.synced).await;
    until(&stores.status, "that is known", |all| {
        let insight = all.iter().find_map(|one| one.spec_as::<ZoneInsight>());
        insight
            .is_some_and(|insight| insight.subscriptions.iter().any(|one| one.zone_instance_id == "east-2"))
    })
    .await;
    let since = leader.link.borrow().connected_since;
    let mut former = mk_leader(&first, &store, "east-1", 1);
    linked(&mut former, "it is told who leads", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("control plane east-2, over global-2"))
    })
    .await;
    put(&store, mk_timeout("of-the-leader")).await;
    let is = |all: &[Arc<Resource>]| all.iter().any(|one| one.meta.display_name() == "of-the-leader");
    until(&stores.config, "the leader is heard", is).await;
    assert_eq!(leader.link.borrow().connected_since, since, "nothing ended");
    // The next one takes over at once, wherever it comes to.
    let mut next = mk_leader(&first, &store, "east-1", 3);
    linked(&mut next, "it leads now", |link| link.synced).await;
    linked(&mut leader, "it is told", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("east-1 took over"))
    })
    .await;
    for zone in [&leader, &former, &next] {
        zone.stop.drain();
    }
}

/// A former leader was let in where nobody had heard of the leader.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_speaks_for_the_zone_whatever_was_written_meanwhile() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timestamp::now));
    let mut leader = mk_leader(&global, &store, "east-2", 2);
    linked(&mut leader, "it leads", |link| link.synced).await;
    let since = leader.link.borrow().connected_since;
    let key = Key::new(Kind::Config, "", "graticule-zone-leader.east");
    let stored = || global.stores.config.snapshot().get(&key).expect("it is stored");
    let says = |stored: &Resource| stored.spec_as::<Config>().expect("a Config").config.clone();
    let text = says(&stored());
    let config = text.replace("east-2", "east-1").replace(":2}", ":1}");
    assert_ne!(config, text);
    let former = Resource::new(stored().meta.clone(), Config { config });
    put(&global.stores.config, former).await;
    put(&store, mk_timeout("of-the-leader")).await;
    until_true("it says who leads", || says(&stored()) == text).await;
    assert_eq!(leader.link.borrow().connected_since, since, "nothing ended");
    leader.stop.drain();
}

/// The leader connected to another replica of global; the former one's connection is still open here.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_leader_is_not_heard_when_the_leader_is_at_another_replica() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    // It does not say in which term it leads.
    let leadership = watch::Sender::new(Leadership { term: 1, leader: Leader::Unknown });
    let config = Arc::new(Led { store: Arc::new(MemoryStore::new(Timestamp::now)), leadership });
    let mut zone = mk_zone("east", &global, Stores { config, ..mk_stores() }, "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    put(&zone.stores.config, mk_timeout("a")).await;
    let is = |name: &'static str| {
        move |all: &[Arc<Resource>]| all.iter().any(|one| one.meta.display_name() == name)
    };
    until(&global.stores.config, "the first one", is("a")).await;
    // What the other replica says.
    let open = KdsSubscription {
        global_instance_id: "global-2".into(),
        zone_instance_id: "east-2".into(),
        connect_time: Some(Timestamp::now()),
        ..KdsSubscription::default()
    };
    let insight = ZoneInsight { subscriptions: vec![open], ..ZoneInsight::default() };
    put(&global.stores.status, Resource::new(Meta::new("", "east"), insight)).await;
    put(&zone.stores.config, mk_timeout("b")).await;
    linked(&mut zone, "its stream ends", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("east-2 took over"))
    })
    .await;
    zone.stop.drain();
}

/// The disk of global is full, or its majority is lost, at some time.
struct Failing {
    store: Arc<dyn Store>,
    is_full: AtomicBool,
}

#[async_trait]
impl Store for Failing {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(CommitError::Unavailable("the disk is full".into()));
        }
        self.store.commit(txn).await
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.store.watch(from)
    }

    fn health(&self) -> Health {
        match self.is_full.load(Ordering::SeqCst) {
            true => Health::ReadOnly("the disk is full".into()),
            false => Health::Ready,
        }
    }
}

/// What is known of zones and their leaders cannot be written then.
#[tokio::test(flavor = "multi_thread")]
async fn a_global_that_cannot_write_serves_the_next_leader_of_a_zone() {
    let failing = Arc::new(Failing {
        store: Arc::new(MemoryStore::new(Timestamp::now)),
        is_full: AtomicBool::new(false),
    });
    let global =
        mk_global(Stores { config: failing.clone(), ..mk_stores() }, GlobalOptions::default(), None, 0).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timestamp::now));
    let mut leader = mk_leader(&global, &store, "east-1", 1);
    linked(&mut leader, "it leads", |link| link.synced).await;
    put(&failing.store, mk_timeout("a")).await;
    leader.stop.drain();
    while leader.tasks.join_next().await.is_some() {}
    failing.is_full.store(true, Ordering::SeqCst);
    let mut next = mk_leader(&global, &store, "east-2", 2);
    linked(&mut next, "it leads now", |link| link.synced).await;
    until(&store, "the policy", |all| all.iter().any(|one| one.meta.display_name() == "a")).await;
    next.stop.drain();
}
