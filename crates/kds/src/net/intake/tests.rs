use std::sync::Arc;

use async_trait::async_trait;
use graticule_model::{Kind, Resource, Timestamp, yaml};
use graticule_store::{Committed, Feed, MemoryStore, Revision, Snapshot, Store};
use parking_lot::Mutex;

use super::*;
use crate::core::Side;
use crate::wire::Encoded;

fn stores(config: Arc<dyn Store>) -> Stores {
    Stores { config, status: Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH)) }
}

fn trust(name: &str, domain: &str) -> Resource {
    let text = format!(
        "{{type: MeshTrust, mesh: default, name: {name}, spec: {{trustDomain: {domain}, caBundles:
           [{{type: Pem, pem: {{value: \"-----BEGIN CERTIFICATE-----\"}}}}]}}}}"
    );
    Resource::from_rest(Kind::MeshTrust, &yaml::parse_one(&text).unwrap()).unwrap()
}

fn response(trusts: &[Resource]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: Kind::MeshTrust.name().into(),
        nonce: "1".into(),
        resources: trusts.iter().map(|trust| Encoded::of(trust).unwrap().to_discovery()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// A replica that sees what the others wrote only later: reads are of the past, writes meet the present.
struct Behind {
    now: Arc<MemoryStore>,
    seen: Mutex<Snapshot>,
    /// A barrier brings it up to date.
    hears: bool,
}

#[async_trait]
impl Store for Behind {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.now.commit(txn).await
    }

    fn snapshot(&self) -> Snapshot {
        self.seen.lock().clone()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.now.watch(from)
    }

    async fn read_barrier(&self) -> Result<(), CommitError> {
        if self.hears {
            *self.seen.lock() = self.now.snapshot();
        }
        Ok(())
    }
}

fn sink(zone: &str, stores: &Stores, node: &Node) -> Sink {
    let mut sink = Sink::new(Side::Global { zone: zone.into() }, true);
    sink.start(node, &stores.held());
    sink
}

/// A copy that another replica wrote, and that this one does not see yet, is no reason to refuse the next form of it.
#[tokio::test]
async fn a_replica_that_is_behind_refuses_nothing() {
    let now = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let zone =
        Resource::from_rest(Kind::Zone, &yaml::parse_one("{type: Zone, name: east}").unwrap()).unwrap();
    now.commit_now(Txn::put(zone)).unwrap();
    let behind = Arc::new(Behind { now: now.clone(), seen: Mutex::new(now.snapshot()), hears: true });
    let (here, there) = (stores(now.clone()), stores(behind));
    let (clock, node) = (Clock::system(), Node { id: "global".into(), ..Node::default() });
    let (mut first, mut second) = (sink("east", &here, &node), sink("east", &there, &node));
    apply(&here, &clock, &mut first, &response(&[trust("e", "one.local")]), &node).await.unwrap();
    let reply =
        apply(&there, &clock, &mut second, &response(&[trust("e", "two.local")]), &node).await.unwrap();
    assert_eq!(reply.error_detail, None);
    assert_eq!(second.quarantine().count(), 0);
}

#[tokio::test]
async fn a_trust_domain_that_two_zones_publish_at_once_belongs_to_one() {
    let now = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    for text in ["{type: Mesh, name: default}", "{type: Zone, name: east}", "{type: Zone, name: west}"] {
        let value = yaml::parse_one(text).unwrap();
        let kind = Kind::from_name(value["type"].as_str().unwrap()).unwrap();
        now.commit_now(Txn::put(Resource::from_rest(kind, &value).unwrap())).unwrap();
    }
    let behind = Arc::new(Behind { now: now.clone(), seen: Mutex::new(now.snapshot()), hears: false });
    let (here, there) = (stores(now.clone()), stores(behind.clone()));
    let (clock, node) = (Clock::system(), Node { id: "global".into(), ..Node::default() });
    let (mut east, mut west) = (sink("east", &here, &node), sink("west", &there, &node));
    let taken =
        apply(&here, &clock, &mut east, &response(&[trust("e", "shared.local")]), &node).await.unwrap();
    assert!(taken.error_detail.is_none());
    // The other replica has not heard of it.
    let both = [trust("w", "shared.local"), trust("own", "west.local")];
    let refused = apply(&there, &clock, &mut west, &response(&both), &node).await.unwrap();
    let names = |snapshot: Snapshot| -> Vec<String> {
        snapshot.list(Kind::MeshTrust, None).map(|trust| trust.meta.name.clone()).collect()
    };
    assert_eq!(names(now.snapshot()), ["e", "own"], "one is left out, the other is taken");
    let message = refused.error_detail.unwrap().message;
    assert_eq!(message, "spec.trustDomain: belongs to another zone, which published it first");
    let quarantined: Vec<&str> = west.quarantine().map(|(_, name, _)| name).collect();
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    // Once it has heard, it knows whose it is.
    *behind.seen.lock() = now.snapshot();
    let refused = apply(&there, &clock, &mut west, &response(&both), &node).await.unwrap();
    let message = refused.error_detail.unwrap().message;
    assert_eq!(message, "spec.trustDomain: belongs to zone \"east\", which published it first");
    // Who published it first withdraws it: it is free.
    let gone = DeltaDiscoveryResponse { removed_resources: vec!["e.default".into()], ..response(&[]) };
    apply(&here, &clock, &mut east, &gone, &node).await.unwrap();
    *behind.seen.lock() = now.snapshot();
    let taken = apply(&there, &clock, &mut west, &response(&both), &node).await.unwrap();
    assert!(taken.error_detail.is_none(), "{:?}", taken.error_detail);
    assert_eq!(names(now.snapshot()), ["own", "w"]);
}
