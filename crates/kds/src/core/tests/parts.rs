//! First states in parts, and other limits of messages.

use super::*;

/// A site with more than goes into one part, and the catalog of it.
fn large_site() -> (Site, Catalog) {
    let mut site = Site::default();
    for number in 0..40 {
        let items = "x".repeat(60_000);
        site.put(mk(&format!("{{type: Mesh, name: m{number:02}, skipCreatingInitialPolicies: [{items}]}}")));
    }
    let offers = catalog(to_zones(), &site);
    (site, offers)
}

#[test]
fn first_states_come_in_parts_to_those_who_take_them() {
    let (mut global, mut offers) = large_site();
    let mut zone = Site::default();
    let mut wire = Wire::down("east", None, &offers, &zone);
    let (mut parts, mut synced) = (Vec::new(), Vec::new());
    loop {
        let responses = wire.source.poll(&offers);
        if responses.is_empty() {
            break;
        }
        for (_, response) in responses {
            if response.type_url == "Mesh" {
                parts.push(response.resources.len());
                assert!(prost::Message::encoded_len(&response) < 1_100_000);
            }
            let intake = wire.sink.on_response(&response, &zone);
            zone.apply(&intake);
            let reply = wire.sink.settle(intake, Vec::new(), &wire.node);
            synced.push(wire.sink.is_synced());
            wire.source.on_request(reply).unwrap();
        }
        // A change that comes in between neither is lost nor makes the first state endless.
        if parts.len() == 1 {
            offers.apply(Plane::Config, &global.delete(&Key::new(Kind::Mesh, "", "m39")));
        }
    }
    assert_eq!((parts.iter().sum::<usize>(), parts.len()), (39, 3), "{parts:?}");
    assert_eq!(zone.names(Kind::Mesh).len(), 39);
    assert_eq!(synced.iter().filter(|synced| **synced).count(), 1, "only with the last part: {synced:?}");

    // After a break between two parts only the rest is sent.
    let mut again = Wire::down("east", Some(wire.sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!(again.sent, 0);
    let kept: Vec<Key> = zone.list(Kind::Mesh).iter().skip(10).map(|mesh| mesh.key()).collect();
    kept.iter().for_each(|key| drop(zone.delete(key)));
    let mut rest = Wire::down("east", None, &offers, &zone);
    rest.settle(&offers, &mut zone);
    assert_eq!((rest.sent, rest.sink.is_synced()), (29, true));
    assert_eq!(rest.sink.damaged(&zone), []);
}

#[test]
fn no_part_of_a_first_state_is_forgotten() {
    let (mut global, offers) = large_site();
    let mut zone = Site::default();
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    // Some of what was presented changes and some goes, in the first of several parts.
    let key = |name: &str| Key::new(Kind::Mesh, "", name);
    let changed = "{type: Mesh, name: m00, skipCreatingInitialPolicies: [changed]}";
    global.put(mk(changed));
    global.delete(&key("m01"));
    for number in 50..80 {
        let items = "y".repeat(60_000);
        global
            .put(mk(&format!("{{type: Mesh, name: m{number:02}, skipCreatingInitialPolicies: [{items}]}}")));
    }
    let offers = catalog(to_zones(), &global);
    let mut again = Wire::down("east", Some(wire.sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!((zone.names(Kind::Mesh).len(), again.sent), (69, 32));
    assert_eq!(again.sink.damaged(&zone), []);
}

#[test]
fn more_copies_than_a_request_holds_are_not_presented() {
    let (mut global, _) = large_site();
    let mut zone = Site::default();
    let offers = catalog(to_zones(), &global);
    Wire::down("east", None, &offers, &zone).settle(&offers, &mut zone);
    for name in ["m05", "m39"] {
        global.delete(&Key::new(Kind::Mesh, "", name));
    }
    let offers = catalog(to_zones(), &global);
    let mut sink = Sink::new(Side::Zone, true);
    sink.protect(DeletionProtection::default());
    sink.fit_into(2_000);
    let requests = sink.start(&node("east"), &zone);
    let of_meshes = requests.iter().find(|request| request.type_url == "Mesh").expect("asked for");
    assert!(of_meshes.initial_resource_versions.is_empty());
    let mut wire = Wire::down("east", Some(sink), &offers, &zone);
    let mut held = Vec::new();
    loop {
        let responses = wire.source.poll(&offers);
        if responses.is_empty() {
            break;
        }
        for (_, response) in responses {
            let intake = wire.sink.on_response(&response, &zone);
            zone.apply(&intake);
            let reply = wire.sink.settle(intake, Vec::new(), &wire.node);
            wire.source.on_request(reply).unwrap();
            if response.type_url == "Mesh" {
                held.push(zone.names(Kind::Mesh).len());
            }
        }
    }
    // Only the last part says what is missing.
    assert_eq!(held, [40, 40, 38]);
    assert_eq!(wire.sink.damaged(&zone), []);
    assert!(wire.sink.is_synced());
}

#[test]
fn removals_are_split_like_everything_else() {
    let mut global = Site::default();
    for number in 0..2_000 {
        global.put(mk_timeout(&format!("a-name-that-is-not-too-short-{number:04}"), "", "1s"));
    }
    let mut zone = Site::default();
    let offers = catalog(to_zones(), &global);
    Wire::down("east", None, &offers, &zone).settle(&offers, &mut zone);
    let nothing = catalog(to_zones(), &Site::default());
    let source = Source::new("global", Some("east"), 0, &nothing);
    let mut sink = Sink::new(Side::Zone, true);
    sink.protect(DeletionProtection { number: 0, ..DeletionProtection::default() });
    let mut wire = Wire::open(source, sink, "east", &zone);
    let mut responses = Vec::new();
    loop {
        let polled = wire.source.poll(&nothing);
        if polled.is_empty() {
            break;
        }
        for (_, response) in polled {
            assert!(prost::Message::encoded_len(&response) < 66_000);
            if !response.removed_resources.is_empty() {
                responses.push(response.removed_resources.len());
            }
            let intake = wire.sink.on_response(&response, &zone);
            zone.apply(&intake);
            let reply = wire.sink.settle(intake, Vec::new(), &wire.node);
            wire.source.on_request(reply).unwrap();
        }
    }
    assert_eq!((responses.iter().sum::<usize>(), zone.names(Kind::MeshTimeout).len()), (2_000, 0));
    assert!(responses.len() > 1, "{responses:?}");
}

#[test]
fn what_is_missing_in_any_part_of_a_first_state_is_held_back() {
    let (mut global, offers) = large_site();
    let mut zone = Site::default();
    Wire::down("east", None, &offers, &zone).settle(&offers, &mut zone);
    // Much is new, so that there are parts, and much is gone: it is said first, and still held back.
    let mut empty = Site::default();
    std::mem::swap(&mut global, &mut empty);
    for number in 50..80 {
        let items = "y".repeat(60_000);
        global
            .put(mk(&format!("{{type: Mesh, name: m{number:02}, skipCreatingInitialPolicies: [{items}]}}")));
    }
    let offers = catalog(to_zones(), &global);
    let mut sink = Sink::new(Side::Zone, true);
    sink.protect(DeletionProtection::default());
    let mut wire = Wire::down("east", Some(sink), &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!((zone.names(Kind::Mesh).len(), wire.sink.held_back().count()), (70, 40));
    assert!(wire.sink.is_synced());
}

/// Many zones hold the same resources: their names and versions are in memory once.
#[test]
fn what_peers_hold_shares_the_names_of_the_catalog() {
    let (_global, offers) = large_site();
    let count = || Arc::strong_count(&offers.get(Kind::Mesh, "m07.").unwrap().name);
    let version = || Arc::strong_count(&offers.version(offers.get(Kind::Mesh, "m07.").unwrap()).unwrap());
    let mut zone = Site::default();
    let mut fresh = Wire::down("east", None, &offers, &zone);
    let alone = count();
    fresh.settle(&offers, &mut zone);
    assert_eq!(count(), alone + 1);
    let versions = version();
    let mut resumed = Wire::down("east", None, &offers, &zone);
    resumed.settle(&offers, &mut zone);
    assert_eq!((resumed.sent, count(), version()), (0, alone + 2, versions + 1));
    drop(fresh);
    drop(resumed);
    assert_eq!(count(), alone);
}

/// A Kuma zone takes all of a kind in one message: that it gets close to the largest one is said before it is too late.
#[test]
fn first_states_that_hardly_fit_are_told() {
    let (_, offers) = large_site();
    for (len_max, want) in [(10 << 20, None), (3 << 20, Some(true)), (2 << 20, Some(false))] {
        let mut source = Source::new("global", Some("east"), len_max, &offers);
        let ask =
            DeltaDiscoveryRequest { node: Some(node("east")), type_url: "Mesh".into(), ..Default::default() };
        source.on_request(ask).unwrap();
        let is_sent = !source.poll(&offers).is_empty();
        let large: Vec<LargeState> = source.take_large().collect();
        let faults: Vec<String> = source.faults().map(|(_, _, reason)| reason.to_owned()).collect();
        match want {
            None => assert_eq!((is_sent, large.len(), faults.len()), (true, 0, 0)),
            Some(true) => {
                assert_eq!((is_sent, large[0].kind, faults.len()), (true, Kind::Mesh, 0));
                assert!(large[0].largest.starts_with('m') && large[0].largest_len > 60_000, "{large:?}");
                assert_eq!(source.take_large().count(), 0, "once");
            }
            Some(false) => {
                assert_eq!((is_sent, large.len()), (false, 0));
                assert!(faults[0].contains("kds.maxMsgSize") && faults[0].contains("m0"), "{faults:?}");
            }
        }
    }
    let sizes: BTreeMap<Kind, u64> = offers.sizes().collect();
    assert!((40 * 60_000..41 * 61_000).contains(&sizes[&Kind::Mesh]), "{sizes:?}");
}
