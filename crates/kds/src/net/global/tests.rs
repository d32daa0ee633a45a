use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::secret::{GlobalSecret, Secret, SecretBytes};
use graticule_model::kinds::zone::{Zone, ZoneInsight};
use graticule_model::{Key, Kind, Timestamp, labels};
use graticule_store::{Event, MemoryStore, Store, Write};

use super::*;
use crate::core::{Claimant, StreamKind};
use crate::net::hub::Observer;
use crate::net::registry;

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
    mk_server_with(Arc::default())
}

fn mk_server_with(authenticator: Arc<Anybody>) -> (GlobalServer, Stores) {
    let mk_store = || Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let stores = Stores { config: mk_store(), status: mk_store() };
    let deps = GlobalDeps {
        stores: stores.clone(),
        authenticator,
        clock: Clock::manual(Timestamp::UNIX_EPOCH).0,
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
        let stream =
            shared.registry.open(&asking, &shared.deps.clock).unwrap_or_else(|_| panic!("{zone} is free"));
        open.insert(zone, stream);
    }
    let resync = || Event::Resync(stores.config.snapshot());
    shared.observe(&resync()).await;
    assert_eq!(stores.status.snapshot().len(), 4);

    let delete = Write::Delete { key: Key::new(Kind::Zone, "", "east"), expect: Expect::Present };
    stores.config.commit(Txn { at: None, writes: vec![delete] }).await.expect("deleted");
    shared.observe(&resync()).await;
    let told = futures::FutureExt::now_or_never(open["east"].ending.told());
    assert_eq!(told.map(|status| status.code()), Some(tonic::Code::Cancelled));
    assert!(futures::FutureExt::now_or_never(open["west"].ending.told()).is_none());
    assert!(shared.reported("east").is_none() && shared.reported("west").is_some());
    let left: Vec<String> = stores.status.snapshot().iter().map(|kept| kept.meta.name.clone()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|name| name.contains("west")), "{left:?}");
}

/// All open streams are looked at then, which is too much for each certificate authority of a mesh.
#[tokio::test]
async fn only_secrets_of_global_concern_zone_tokens() {
    let authenticator = Arc::new(Anybody::default());
    let (server, stores) = mk_server_with(authenticator.clone());
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
