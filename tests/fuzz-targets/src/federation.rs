//! Conversations with a federation peer: messages one after the other, each behind its length.

use std::sync::{Arc, LazyLock};

use graticule_kds::core::{Catalog, Direction, Plane, Side, Sink, Source, TrustExchange};
use graticule_kds::wire;
use graticule_model::{Key, Kind, Resource, Timestamp};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_store::{Event, Revision, Snapshot, Txn, transaction};
use prost::Message;
use serde_json::json;

/// The largest message of this side, in bytes.
const MESSAGE_LEN_MAX: usize = 1 << 20;
/// Messages of one conversation that are looked at.
const MESSAGES_MAX: usize = 16;
/// The zone that talks to global.
const ZONE: &str = "east";

/// What a control plane has when the conversation begins: what people wrote here, and copies of another zone.
static SITE: LazyLock<Snapshot> = LazyLock::new(|| {
    let timeouts = json!({"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "20s"}}]});
    let documents = [
        json!({"type": "Mesh", "name": "default"}),
        json!({"type": "Zone", "name": ZONE}),
        json!({"type": "MeshTimeout", "name": "own", "mesh": "default", "spec": timeouts}),
        json!({"type": "MeshTimeout", "name": "zones-own", "mesh": "default", "spec": timeouts,
               "labels": {"kuma.io/origin": "zone"}}),
        json!({"type": "MeshTimeout", "name": "of-west", "mesh": "default", "spec": timeouts,
               "labels": {"kuma.io/origin": "zone", "kuma.io/zone": "west", "kuma.io/display-name": "of-west"}}),
        json!({"type": "Secret", "name": "own", "mesh": "default", "data": "c2VjcmV0"}),
    ];
    let resources = documents.iter().map(|document| {
        let kind = Kind::from_name(document["type"].as_str().expect("a type")).expect("a kind");
        Arc::new(Resource::from_rest(kind, document).expect("written here"))
    });
    Snapshot::restore(Revision(3), resources)
});

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let direction = Direction::ToZones { trust_exchange: TrustExchange::Automatic };
    let mut catalog = Catalog::new(direction, Vec::new());
    catalog.apply(Plane::Config, &Event::Resync(SITE.clone()));
    catalog.apply(Plane::Status, &Event::Resync(Snapshot::empty()));
    assert!(catalog.is_ready(), "there is something to offer");
    catalog
});

fn conversation<M: Message + Default>(mut data: &[u8]) -> impl Iterator<Item = M> + '_ {
    std::iter::from_fn(move || M::decode_length_delimited(&mut data).ok()).take(MESSAGES_MAX)
}

/// What a zone says on `GlobalToZoneSync`: it gets what there is, one response of a type at a time, and nothing that is
/// too large.
pub(crate) fn kds_request(data: &[u8]) {
    let mut source = Source::new("global-1", Some(ZONE), MESSAGE_LEN_MAX, &CATALOG);
    for request in conversation::<DeltaDiscoveryRequest>(data) {
        if source.on_request(request).is_err() {
            return;
        }
        let said = source.poll(&CATALOG);
        for (kind, response) in &said {
            assert!(response.encoded_len() <= MESSAGE_LEN_MAX, "{kind:?}: too large");
            for item in &response.resources {
                let offered = kind.is_some_and(|kind| CATALOG.get(kind, &item.name).is_some());
                assert!(offered, "{}: not offered", item.name);
            }
        }
        assert!(source.poll(&CATALOG).is_empty(), "every type waits for its answer");
    }
}

/// What a peer sends: what can be taken is written, the rest is named with a reason, and what is not the peer's stays as
/// it is.
pub(crate) fn kds_response(data: &[u8]) {
    let own: [(Side, &[&str]); 2] = [
        (Side::Zone, &["zones-own"]),
        (Side::Global { zone: ZONE.into() }, &["own", "zones-own", "of-west"]),
    ];
    for (side, own) in own {
        take(data, side, own);
    }
    for response in conversation::<DeltaDiscoveryResponse>(data) {
        let Ok(kind) = Kind::from_name(&response.type_url) else { continue };
        for item in &response.resources {
            let Ok(resource) = wire::decode(kind, item) else { continue };
            let encoded = wire::Encoded::of(&resource).expect("what was received can be sent");
            let again = wire::decode(kind, &encoded.to_discovery());
            assert_eq!(again.as_ref(), Ok(&resource));
            let _ = resource.validate();
        }
    }
}

fn take(data: &[u8], side: Side, own: &[&str]) {
    let node = Node { id: "here".into(), ..Node::default() };
    let mut stored = SITE.clone();
    let mut sink = Sink::new(side, true);
    sink.start(&node, &stored);
    for response in conversation::<DeltaDiscoveryResponse>(data) {
        let intake = sink.on_response(&response, &stored);
        assert!(intake.rejections.iter().all(|rejection| !rejection.reason.is_empty()));
        let txn = Txn { at: None, writes: intake.writes.clone() };
        match transaction::apply(&stored, txn, Timestamp::UNIX_EPOCH) {
            Ok(applied) => stored = applied.snapshot,
            // The peer took its own Zone away, or the mesh of something.
            Err(_) => return,
        }
        let answer = sink.settle(intake, Vec::new(), &node);
        assert_eq!(answer.response_nonce, response.nonce);
        let _damaged = sink.damaged(&stored);
        for name in own {
            let key = Key::new(Kind::MeshTimeout, "default", *name);
            assert_eq!(stored.get(&key), SITE.get(&key), "{name} is not the peer's");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_offered() {
        let mut source = Source::new("global-1", Some(ZONE), MESSAGE_LEN_MAX, &CATALOG);
        let node = Node { id: ZONE.into(), ..Node::default() };
        let mut offered = Vec::new();
        for kind in [Kind::Mesh, Kind::MeshTimeout] {
            let request = DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: kind.name().into(),
                ..DeltaDiscoveryRequest::default()
            };
            source.on_request(request).expect("a kind of zones");
            let said = source.poll(&CATALOG);
            offered
                .extend(said.into_iter().flat_map(|(_, response)| response.resources).map(|item| item.name));
        }
        assert_eq!(offered.len(), 2, "the mesh and the policy of global: {offered:?}");
    }
}
