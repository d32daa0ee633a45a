//! Messages of federation peers.

use std::sync::Arc;

use graticule_kds::core::{Catalog, Direction, Held, Side, Sink, Source, TrustExchange};
use graticule_kds::wire;
use graticule_model::{Key, Kind, Resource};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message as _;

struct Nothing;

impl Held for Nothing {
    fn get(&self, _key: &Key) -> Option<Arc<Resource>> {
        None
    }
    fn list(&self, _kind: Kind) -> Vec<Arc<Resource>> {
        Vec::new()
    }
}

pub(crate) fn kds_request(data: &[u8]) {
    let Ok(request) = DeltaDiscoveryRequest::decode(data) else { return };
    let catalog = Catalog::new(Direction::ToZones { trust_exchange: TrustExchange::Automatic }, Vec::new());
    let mut source = Source::new("global-1", Some("east"), 1 << 20, &catalog);
    // The same again is an answer to the first.
    for _ in 0..2 {
        if source.on_request(request.clone()).is_err() {
            return;
        }
        let _ = source.poll(&catalog);
    }
}

/// What is taken from a response can be sent on; the rest is named with a reason.
pub(crate) fn kds_response(data: &[u8]) {
    let Ok(response) = DeltaDiscoveryResponse::decode(data) else { return };
    for side in [Side::Zone, Side::Global { zone: "east".into() }] {
        let intake = Sink::new(side, false).on_response(&response, &Nothing);
        assert!(intake.rejections.iter().all(|rejection| !rejection.reason.is_empty()));
    }
    let Ok(kind) = Kind::from_name(&response.type_url) else { return };
    for item in &response.resources {
        let Ok(resource) = wire::decode(kind, item) else { continue };
        let encoded = wire::Encoded::of(&resource).expect("what was received can be sent");
        let again = wire::decode(kind, &encoded.to_discovery());
        assert_eq!(again.as_ref(), Ok(&resource));
        let _ = resource.validate();
    }
}
