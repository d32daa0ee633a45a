use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::secret::{GlobalSecret, Secret, SecretBytes};
use graticule_model::kinds::zone::{Zone, ZoneInsight};
use graticule_model::{Key, Kind, Timestamp, labels};
use graticule_store::{Event, MemoryStore, Store, Write};

use super::*;
use crate::core::{Claimant, StreamKind};
use crate::net::hub::Observer;
use crate::net::registry::{self, OpenStream};

/// Lets anybody in; counts how often it was asked whether somebody has to go.
#[derive(Default)]
struct Anybody(AtomicUsize);

impl ZoneAuthenticator for Anybody {
    fn authenticate(&self, _zone: &str, _token: &str) -> Result<ZoneGrant, String> {
        Ok(ZoneGrant::default())
    }

    fn revoked(&self, _grants: &BTreeSet<ZoneGrant>) -> BTreeMap<ZoneGrant, String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        BTreeMap::new()
    }
}

fn mk_server() -> (GlobalServer, Stores) {
    mk_server_with(Arc::default(), Clock::manual(Timestamp::UNIX_EPOCH).0)
}

fn mk_server_with(authenticator: Arc<Anybody>, clock: Clock) -> (GlobalServer, Stores) {
    let mk_store = || Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let stores = Stores { config: mk_store(), status: mk_store() };
    let deps = GlobalDeps {
        stores: stores.clone(),
        authenticator,
        clock,
        random: Random::system(),
        instance_id: "global-1".into(),
        shared: None,
    };
    (GlobalServer::new(GlobalOptions::default(), deps), stores)
}

async fn put(store: &Arc<dyn Store>, resource: Resource) {
    let put = Write::Put { resource: Box::new(resource), expect: Expect::Any, touch: false };
    store.commit(Txn { at: None, writes: vec![put] }).await.expect("stored");
}

fn open_upward(shared: &Shared, zone: &str) -> OpenStream {
    let asking = registry::Asking {
        zone,
        kind: StreamKind::ZoneToGlobal,
        claimant: &Claimant::default(),
        grant: None,
        bound: None,
        elsewhere: None,
        at: Timestamp::UNIX_EPOCH,
        now: Duration::ZERO,
    };
    shared.registry.open(&asking, &shared.deps.clock).unwrap_or_else(|_| panic!("{zone} is free"))
}

/// Whether it was told to end.
fn has_to_end(stream: &OpenStream) -> bool {
    stream.ending.told().now_or_never().is_some()
}

/// A feed that lagged says what there is, and not what went.
#[tokio::test]
async fn zones_that_went_while_changes_were_missed_are_evicted() {
    let (server, stores) = mk_server();
    let shared = &server.0;
    let mut open = BTreeMap::new();
    for zone in ["east", "west"] {
        put(&stores.config, Resource::new(Meta::new("", zone), Zone { enabled: Some(true) })).await;
        put(&stores.status, Resource::new(Meta::new("", zone), ZoneInsight::default())).await;
        let mut observed = Meta::new("default", format!("dp-{zone}"));
        observed.labels.insert(labels::ZONE.into(), zone.into());
        let insight = graticule_model::kinds::dataplane_insight::DataplaneInsight::default();
        put(&stores.status, Resource::new(observed, insight)).await;
        let stream = open_upward(shared, zone);
        open.insert(zone, stream);
    }
    let resync = || Event::Resync(stores.config.snapshot());
    shared.observe(&resync()).await;
    assert_eq!(stores.status.snapshot().len(), 4);

    let delete = Write::Delete { key: Key::new(Kind::Zone, "", "east"), expect: Expect::Present };
    stores.config.commit(Txn { at: None, writes: vec![delete] }).await.expect("deleted");
    shared.observe(&resync()).await;
    let told = open["east"].ending.told().now_or_never();
    assert_eq!(told.map(|status| status.code()), Some(tonic::Code::Cancelled));
    assert!(!has_to_end(&open["west"]));
    assert!(shared.reported("east").is_none() && shared.reported("west").is_some());
    let left: Vec<String> = stores.status.snapshot().iter().map(|kept| kept.meta.name.clone()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|name| name.contains("west")), "{left:?}");
}

/// All open streams are looked at then, which is too much for each certificate authority of a mesh.
#[tokio::test]
async fn only_secrets_of_global_concern_zone_tokens() {
    let authenticator = Arc::new(Anybody::default());
    let (server, stores) = mk_server_with(authenticator.clone(), Clock::manual(Timestamp::UNIX_EPOCH).0);
    let data = || SecretBytes(b"x".to_vec());
    put(&stores.config, Resource::new(Meta::new("", "default"), Mesh::default())).await;
    let mut feed = stores.config.watch(Some(stores.config.snapshot().revision()));
    for (secret, looks) in [
        (Resource::new(Meta::new("default", "ca"), Secret { data: data() }), 0),
        (Resource::new(Meta::new("", "zone-token-revocations"), GlobalSecret { data: data() }), 1),
    ] {
        put(&stores.config, secret).await;
        server.0.observe(&feed.next().await.expect("a change")).await;
        assert_eq!(authenticator.0.load(Ordering::SeqCst), looks);
    }
}

/// Exactly one stream begins with a decision, whoever tells of it, and also when changes were missed.
#[tokio::test]
async fn a_decision_reaches_the_stream_once() {
    let (server, stores) = mk_server();
    let shared = &server.0;
    put(&stores.config, Resource::new(Meta::new("", "east"), Zone { enabled: Some(true) })).await;
    let key = Key::new(Kind::Config, "", "graticule-accepted-deletions.east");
    let resync = || Event::Resync(stores.config.snapshot());
    let decided = || stores.config.snapshot().get(&key).map(|stored| stored.meta.version);

    let first = open_upward(shared, "east");
    first.begin_with(None);
    let mut feed = stores.config.watch(Some(stores.config.snapshot().revision()));
    assert_eq!(server.accept_deletions("east").await.expect("stored"), Some(0));
    assert!(has_to_end(&first), "at once");
    drop(first);
    // The next one sees what is decided by now.
    let second = open_upward(shared, "east");
    shared.observe(&resync()).await;
    assert!(!has_to_end(&second));
    second.begin_with(decided());
    shared.observe(&feed.next().await.expect("the change")).await;
    shared.observe(&resync()).await;
    assert!(!has_to_end(&second), "it began with it");
    // It was carried out, and something is decided again.
    second.begin_with(None);
    let delete = Write::Delete { key: key.clone(), expect: Expect::Present };
    stores.config.commit(Txn { at: None, writes: vec![delete] }).await.expect("deleted");
    shared.observe(&resync()).await;
    assert!(!has_to_end(&second));
    put(&stores.config, Resource::new(Meta::new("", key.name.as_str()), Config { config: "{}".into() }))
        .await;
    shared.observe(&resync()).await;
    assert!(has_to_end(&second), "at another replica, while changes were missed here");
}

/// A name without a Zone is nobody's, and there are many names.
#[tokio::test]
async fn who_has_no_zone_leaves_nothing_behind() {
    let (server, stores) = mk_server_with(Arc::default(), Clock::manual(Timestamp::UNIX_EPOCH).0);
    let shared = &server.0;
    let (mut ghost, mut east) = (Box::pin(shared.await_zone("ghost")), Box::pin(shared.await_zone("east")));
    assert!(ghost.as_mut().now_or_never().is_none() && east.as_mut().now_or_never().is_none());
    put(&stores.config, Resource::new(Meta::new("", "east"), Zone { enabled: Some(true) })).await;
    shared.observe(&Event::Resync(stores.config.snapshot())).await;
    assert!(east.await.is_ok());
    assert!(ghost.as_mut().now_or_never().is_none(), "there is still no such Zone");
    shared.drain.cancel();
    assert_eq!(ghost.await.expect_err("global ends").code(), tonic::Code::Unavailable);

    // Deleted between the look and the stream.
    let mut call = tonic::Request::new(());
    call.metadata_mut().insert("client-id", "ghost".parse().expect("a name"));
    call.metadata_mut().insert("authorization", "Bearer x".parse().expect("a token"));
    let visitor = shared.admit(&call, Status::invalid_argument).expect("anybody is let in");
    let refused = shared.open_stream(&visitor, StreamKind::Stats).await.map(|_| ()).expect_err("no Zone");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(shared.reported("ghost").is_none() && shared.registry.take_dirty().is_empty());
}
