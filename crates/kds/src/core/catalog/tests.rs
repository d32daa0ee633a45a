use graticule_model::{Timestamp, yaml};
use graticule_store::{ChangeBatch, Snapshot};

use super::*;

fn mk_service(team: &str, vip: &str) -> Resource {
    let text = format!(
        "{{type: MeshService, mesh: default, name: s, labels: {{kuma.io/display-name: s, kuma.io/zone: east,
           kuma.io/origin: zone, team: {team}}}, spec: {{ports: [{{port: 80}}]}}, status: {{vips: [{{ip: {vip}}}]}}}}"
    );
    Resource::from_rest(Kind::MeshService, &yaml::parse_one(&text).unwrap()).unwrap()
}

fn mk_catalog(resource: &Arc<Resource>) -> Catalog {
    let direction = Direction::ToZones { trust_exchange: TrustExchange::Automatic };
    let mut catalog = Catalog::new(direction, Vec::new());
    let snapshot = Snapshot::restore(Revision(1), [resource.clone()]);
    catalog.apply(Plane::Config, &Event::Resync(snapshot));
    catalog.apply(Plane::Status, &Event::Resync(Snapshot::empty()));
    catalog
}

fn put(catalog: &mut Catalog, resource: &Arc<Resource>) -> bool {
    let change = Change { key: resource.key(), old: None, new: Some(resource.clone()) };
    let batch = ChangeBatch {
        revision: Revision(catalog.revision().0 + 1),
        committed_at: Timestamp::UNIX_EPOCH,
        changes: vec![change],
    };
    catalog.apply(Plane::Config, &Event::Batch(Arc::new(batch)))
}

fn only(catalog: &Catalog) -> Arc<Offer> {
    catalog.of_kind(Kind::MeshService).next().expect("offered").1.clone()
}

#[test]
fn what_peers_cannot_see_is_no_change() {
    let first = Arc::new(mk_service("a", "241.0.0.1"));
    let mut catalog = mk_catalog(&first);
    let version = catalog.version(&only(&catalog)).unwrap();

    let mut touched = Resource::clone(&first);
    touched.meta.version += 1;
    touched.meta.modification_time = "2026-01-01T00:00:00Z".parse().unwrap();
    let touched = Arc::new(touched);
    assert!(!put(&mut catalog, &touched), "times do not travel");
    assert_eq!(Arc::strong_count(&first), 1, "the former resource is not held");

    // The status of a service stays in its zone.
    let moved = Arc::new(mk_service("a", "241.0.0.2"));
    assert!(!put(&mut catalog, &moved));
    assert_eq!(catalog.version(&only(&catalog)).unwrap(), version);

    let renamed = Arc::new(mk_service("b", "241.0.0.2"));
    assert!(put(&mut catalog, &renamed));
    assert_ne!(catalog.version(&only(&catalog)).unwrap(), version);

    let snapshot = Snapshot::restore(Revision(9), [renamed.clone()]);
    assert!(!catalog.apply(Plane::Config, &Event::Resync(snapshot)), "a resync that brings nothing new");
    let offer = only(&catalog);
    let encoded = catalog.encoded(&offer).unwrap();
    let rewritten = rewrite::to_zones(&renamed, &[]).unwrap();
    assert_eq!(*encoded, Encoded::of(&rewritten).unwrap());
    assert_eq!(*encoded.name, *offer.name, "the name that is known without encoding");
}

#[test]
fn names_are_known_before_anything_is_encoded() {
    for direction in [
        Direction::ToZones { trust_exchange: TrustExchange::Automatic },
        Direction::ToGlobal { zone: "east".into() },
    ] {
        for kind in Kind::all().filter(|kind| wire::travels(*kind)) {
            for seed in 0..20 {
                let document = graticule_generate::Generator::new(seed).document(kind);
                let resource = Arc::new(Resource::from_rest(kind, &document).unwrap());
                let catalog = Catalog::new(direction.clone(), Vec::new());
                let Ok(Some(offer)) = catalog.offer(&resource) else { continue };
                let encoded = catalog.encoded(&Arc::new(offer)).unwrap();
                let Ok(Some(offer)) = catalog.offer(&resource) else { continue };
                assert_eq!(encoded.name, *offer.name, "{direction:?} {document}");
            }
        }
    }
}

#[test]
fn the_oldest_encodings_go() {
    let resource = Arc::new(mk_service("a", "241.0.0.1"));
    let catalog = mk_catalog(&resource);
    let mk_offer = || Arc::new(catalog.offer(&resource).unwrap().unwrap());
    let offers: Vec<_> = (0..3).map(|_| mk_offer()).collect();
    for offer in &offers {
        let encoded = catalog.encoded(offer).unwrap();
        // As if it was large.
        catalog.encodings.lock().keep(offer, ENCODED_LEN_MAX / 2 - encoded.len_max());
    }
    let kept: Vec<bool> = offers.iter().map(|offer| offer.encoded.lock().is_some()).collect();
    assert_eq!(kept, [false, true, true]);
    assert!(catalog.encodings.lock().len <= ENCODED_LEN_MAX);
    assert_eq!(catalog.encoded(&offers[0]).unwrap(), catalog.encoded(&offers[2]).unwrap(), "made again");
}
