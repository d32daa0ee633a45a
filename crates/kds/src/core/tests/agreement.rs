//! What an operator agreed to, and what not.

use super::*;

fn global(id: &str, timeouts: std::ops::Range<usize>) -> Site {
    let mut global = Site::default();
    let config = graticule_model::kinds::config::Config { config: id.into() };
    global.put(Resource::new(graticule_model::Meta::new("", "kuma-cluster-id"), config));
    for number in timeouts {
        global.put(mk_timeout(&format!("t{number}"), "", "1s"));
    }
    global
}

/// An operator agrees to a global that was made anew, and then a backup of the old one is restored, which is a little older:
/// nobody agreed to what that one lacks.
#[test]
fn who_agreed_to_another_global_did_not_agree_to_an_older_one() {
    let mut zone = Site::default();
    let mut sink = Sink::new(Side::Zone, true);
    sink.protect(DeletionProtection::default());
    let offers = catalog(to_zones(), &global("first", 0..20));
    let mut wire = Wire::down("east", Some(sink), &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!(zone.names(Kind::MeshTimeout).len(), 20);

    let offers = catalog(to_zones(), &global("second", 0..0));
    let mut wire = Wire::down("east", Some(wire.sink), &offers, &zone);
    let responses = wire.source.poll(&offers);
    let (_, config) = responses.iter().find(|(kind, _)| *kind == Some(Kind::Config)).unwrap();
    let intake = wire.sink.on_response(config, &zone);
    wire.sink.settle(intake, Vec::new(), &wire.node);
    assert!(matches!(wire.sink.global(), GlobalSeen::Other { .. }));
    wire.sink.accept_deletions();

    let offers = catalog(to_zones(), &global("first", 0..8));
    let mut wire = Wire::down("east", Some(wire.sink), &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!(wire.sink.global(), &GlobalSeen::Known);
    assert_eq!(wire.sink.held_back().count(), 12);
    assert_eq!(zone.names(Kind::MeshTimeout).len(), 20, "the copies work on");
}
