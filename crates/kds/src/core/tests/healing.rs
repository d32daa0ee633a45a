//! What is asked for again over a living stream, and what both ends say of what does not cross.

use std::time::Duration;

use super::*;

fn mk_secret(name: &str, data: &str) -> Resource {
    mk(&format!("{{type: Secret, mesh: default, name: {name}, data: {data}}}"))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Wire {
    /// Asks for what is due, and runs until nothing is left to say. Tells how many kinds were asked for.
    fn repair(&mut self, offers: &Catalog, held: &mut Site, now: u64) -> usize {
        let requests = match self.sink.repair(&self.node, held, at(now)) {
            Repair::Ask(requests) => requests,
            Repair::None => Vec::new(),
            Repair::Reconnect => panic!("the peer is one of ours"),
        };
        let asked = requests.len();
        for request in requests {
            assert!(matches!(self.source.on_request(request).unwrap(), Received::Subscribed(_)));
        }
        self.settle(offers, held);
        asked
    }
}

#[test]
fn damage_is_repaired_over_the_living_stream_and_less_and_less_often() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for name in ["a", "b", "c"] {
        global.put(mk_timeout(name, "", "1s"));
    }
    global.put(mk("{type: Mesh, name: default}"));
    let mut offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    let sent = wire.sent;
    let copy = |zone: &Site, name: &str| {
        let copies = zone.list(Kind::MeshTimeout);
        copies.into_iter().find(|copy| copy.meta.display_name() == name).unwrap()
    };
    let damage = |zone: &mut Site| {
        let mut wrong = copy(zone, "a").as_ref().clone();
        wrong.meta.labels.insert("team".into(), "wrong".into());
        zone.put(wrong);
    };
    damage(&mut zone);
    let lost = copy(&zone, "b").key();
    zone.delete(&lost);
    assert_eq!(wire.sink.audit(&zone, at(100)).len(), 2);
    assert_eq!(wire.repair(&offers, &mut zone, 100), 1, "one kind");
    assert_eq!((wire.sent - sent, wire.sink.damaged(&zone), wire.sink.is_synced()), (2, vec![], true));
    assert_eq!(copy(&zone, "a").meta.label("team"), None);

    // Changes flow on as before.
    offers.apply(Plane::Config, &global.put(mk_timeout("c", "", "2s")));
    wire.settle(&offers, &mut zone);
    assert_eq!((wire.sent - sent, wire.source.acknowledged()), (3, Revision(global.revision)));

    // Somebody damages it again and again.
    let mut asked = Vec::new();
    for minute in 2..30 {
        damage(&mut zone);
        wire.sink.audit(&zone, at(60 * minute));
        if wire.repair(&offers, &mut zone, 60 * minute) > 0 {
            asked.push(minute);
        }
    }
    assert_eq!(asked, [3, 5, 9, 17]);
}

/// What was on its way when a kind is asked for again is not taken for the answer.
#[test]
fn an_answer_to_an_earlier_request_is_not_taken() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for name in ["a", "b"] {
        global.put(mk(&format!("{{type: Mesh, name: {name}}}")));
    }
    let mut offers = catalog(to_zones(), &global);
    let mut sink = Sink::new(Side::Zone, true);
    // Nothing is presented: what the answer does not mention is gone.
    sink.fit_into(2);
    let mut wire = Wire::down("east", Some(sink), &offers, &zone);
    wire.settle(&offers, &mut zone);
    offers.apply(Plane::Config, &global.put(mk("{type: Mesh, name: c}")));
    let under_way = wire.source.poll(&offers);
    assert_eq!(under_way.len(), 1);
    zone.delete(&Key::new(Kind::Mesh, "", "a"));
    wire.sink.audit(&zone, at(1));
    let Repair::Ask(requests) = wire.sink.repair(&wire.node, &zone, at(1)) else { panic!("it is ours") };
    assert!(requests[0].initial_resource_versions.is_empty());
    assert!(wire.sink.is_outdated(&under_way[0].1));
    requests.into_iter().for_each(|request| drop(wire.source.on_request(request).unwrap()));
    wire.settle(&offers, &mut zone);
    assert_eq!(zone.names(Kind::Mesh), ["a", "b", "c"]);
    assert_eq!(wire.source.counts().map(|counts| counts.pending).sum::<usize>(), 0);
}

/// A stock Kuma peer does not know further requests: it has to be connected to anew.
#[test]
fn kuma_peers_are_connected_to_anew() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    global.put(mk("{type: Mesh, name: default}"));
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    for (_, response) in wire.source.poll(&offers) {
        let response = DeltaDiscoveryResponse { system_version_info: String::new(), ..response };
        let intake = wire.sink.on_response(&response, &zone);
        zone.apply(&intake);
        wire.sink.settle(intake, Vec::new(), &wire.node);
    }
    assert_eq!(wire.sink.taken(), None);
    zone.delete(&Key::new(Kind::Mesh, "", "default"));
    assert_eq!(wire.sink.audit(&zone, at(1)).len(), 1);
    assert_eq!(wire.sink.repair(&wire.node, &zone, at(1)), Repair::Reconnect);
    assert_eq!(wire.sink.repair(&wire.node, &zone, at(1)), Repair::None, "once");
    // A zone that says nothing of parts is told nothing that it would not know.
    let mut source = Source::new("global", Some("west"), 10 << 20, &offers);
    let ask =
        DeltaDiscoveryRequest { node: Some(node("west")), type_url: "Mesh".into(), ..Default::default() };
    source.on_request(ask).unwrap();
    assert_eq!(source.poll(&offers)[0].1.system_version_info, "");
}

/// Each stream that a Kuma peer has to begin anew sends everything again: it happens less and less often, whatever is wrong.
#[test]
fn kuma_peers_are_connected_to_anew_less_and_less_often() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for number in 0..60 {
        global.put(mk(&format!("{{type: Mesh, name: m{number:02}}}")));
    }
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    for (_, response) in wire.source.poll(&offers) {
        let response = DeltaDiscoveryResponse { system_version_info: String::new(), ..response };
        let intake = wire.sink.on_response(&response, &zone);
        zone.apply(&intake);
        wire.sink.settle(intake, Vec::new(), &wire.node);
    }
    let mut reconnected = Vec::new();
    for minute in 0..180 {
        if minute % 3 == 0 {
            // Each time another one.
            zone.delete(&Key::new(Kind::Mesh, "", format!("m{:02}", minute / 3)));
            wire.sink.audit(&zone, at(60 * minute));
        }
        if wire.sink.repair_at().is_some_and(|due| due <= at(60 * minute))
            && wire.sink.repair(&wire.node, &zone, at(60 * minute)) == Repair::Reconnect
        {
            reconnected.push(minute);
        }
    }
    assert_eq!(reconnected, [0, 10, 30, 70, 150]);
}

/// What a limit or the store keeps out is no reason to throw a Kuma zone off; one of ours is asked once there is room.
#[test]
fn a_zone_at_its_limit_is_left_alone() {
    for is_ours in [false, true] {
        let (mut global, mut east) = (Site::default(), Site::default());
        for name in ["a", "b", "c", "d"] {
            east.put(mk_timeout(name, "kuma.io/origin: zone", "1s"));
        }
        let mut offers = catalog(Direction::ToGlobal { zone: "east".into() }, &east);
        let mut sink = Sink::new(Side::Global { zone: "east".into() }, true);
        sink.limit(ZoneLimit { resources: 2, bytes: 0 });
        let mut wire = Wire::up("east", Some(sink), &offers, &global);
        let take = |wire: &mut Wire, offers: &Catalog, global: &mut Site| {
            for (_, mut response) in wire.source.poll(offers) {
                if !is_ours {
                    response.system_version_info.clear();
                }
                let intake = wire.sink.on_response(&response, global);
                global.apply(&intake);
                wire.source.on_request(wire.sink.settle(intake, Vec::new(), &wire.node)).unwrap();
            }
        };
        take(&mut wire, &offers, &mut global);
        assert_eq!((global.names(Kind::MeshTimeout).len(), wire.sink.quarantine().count()), (2, 2));
        let audit = |wire: &mut Wire, global: &Site, hour: u64| {
            assert_eq!(wire.sink.audit(global, at(3600 * hour)), []);
            wire.sink.repair(&wire.node, global, at(3600 * hour))
        };
        assert_eq!(audit(&mut wire, &global, 1), Repair::None, "there is no room: {is_ours}");
        // What is there goes, and there is room.
        offers.apply(Plane::Config, &east.delete(&Key::new(Kind::MeshTimeout, "default", "a")));
        take(&mut wire, &offers, &mut global);
        assert_eq!(wire.sink.usage().resources, 1);
        let repair = audit(&mut wire, &global, 2);
        assert_eq!(matches!(repair, Repair::Ask(_)), is_ours, "{repair:?}");
        assert_ne!(repair, Repair::Reconnect);
    }
}

#[test]
fn what_a_local_namesake_kept_out_comes_when_that_goes() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    global.put(mk_secret("x", "Z2xvYmFs"));
    let mut own = mk_secret("x", "b3du");
    own.meta.labels.insert("kuma.io/origin".into(), "zone".into());
    zone.put(own);
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!((wire.sink.quarantine().count(), wire.source.rejected().count()), (1, 1));
    assert!(wire.sink.has_obstacles());

    // Something else changes; then the own one goes.
    let other = zone.put(mk_secret("other", "b3du"));
    wire.sink.on_event(&other, &zone, at(1));
    assert_eq!(wire.sink.repair_at(), None);
    let gone = zone.delete(&Key::new(Kind::Secret, "default", "x"));
    wire.sink.on_event(&gone, &zone, at(2));
    assert_eq!(wire.repair(&offers, &mut zone, 2), 1);
    assert_eq!(zone.one(Kind::Secret, "x").meta.label("kuma.io/origin"), Some("global"));
    assert_eq!((wire.sink.quarantine().count(), wire.source.rejected().count()), (0, 0));
    assert!(!wire.sink.has_obstacles());
}

#[test]
fn a_trust_domain_goes_to_who_waits_when_its_owner_leaves() {
    let (mut global, mut west) = (Site::default(), Site::default());
    let mut east = Site::default();
    east.put(mk_trust("ca", "shared.local"));
    let from_east = catalog(Direction::ToGlobal { zone: "east".into() }, &east);
    Wire::up("east", None, &from_east, &global).settle(&from_east, &mut global);
    west.put(mk_trust("ca", "shared.local"));
    let from_west = catalog(Direction::ToGlobal { zone: "west".into() }, &west);
    let mut wire = Wire::up("west", None, &from_west, &global);
    wire.settle(&from_west, &mut global);
    assert_eq!(wire.sink.quarantine().count(), 1);

    let of_east = global.list(Kind::MeshTrust)[0].key();
    let claim = global.list(Kind::Config)[0].key();
    let gone = global.delete(&of_east);
    global.delete(&claim);
    wire.sink.on_event(&gone, &global, at(1));
    assert_eq!(wire.repair(&from_west, &mut global, 1), 1);
    assert_eq!(global.list(Kind::MeshTrust)[0].meta.zone(), Some("west"));
    assert_eq!(wire.sink.quarantine().count(), 0);
}

/// What the store refused is tried again with the next comparisons.
#[test]
fn what_the_store_refused_is_tried_again() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    global.put(mk_timeout("a", "", "1s"));
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    for (_, response) in wire.source.poll(&offers) {
        let intake = wire.sink.on_response(&response, &zone);
        let failed = response.resources.iter().map(|item| Rejection {
            name: item.name.clone(),
            reason: "no room".into(),
            obstacle: Some(Obstacle::Store),
        });
        let reply = wire.sink.settle(intake, failed.collect(), &wire.node);
        wire.source.on_request(reply).unwrap();
    }
    assert_eq!(wire.source.rejected().count(), 1);
    wire.sink.audit(&zone, at(1));
    assert_eq!(wire.repair(&offers, &mut zone, 1), 1);
    assert_eq!((zone.names(Kind::MeshTimeout).len(), wire.source.rejected().count()), (1, 0));
}

/// Both ends say the same of many refusals, the first ones with their reasons.
#[test]
fn all_refusals_are_named() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for number in 0..200 {
        let name = format!("s{number:03}");
        global.put(mk_secret(&name, "Z2xvYmFs"));
        if number % 2 == 0 {
            let mut own = mk_secret(&name, "b3du");
            own.meta.labels.insert("kuma.io/origin".into(), "zone".into());
            zone.put(own);
        }
    }
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    let here: Vec<String> = wire.sink.quarantine().map(|(_, name, _)| name.to_owned()).collect();
    let there: Vec<String> = wire.source.rejected().map(|(_, name, _)| name.to_owned()).collect();
    assert_eq!((here.len(), &here), (100, &there));
    let counts = wire.source.counts().find(|counts| counts.kind == Kind::Secret).unwrap();
    assert_eq!((counts.in_sync, counts.pending, counts.quarantined), (100, 0, 100));
    let explained = wire.source.rejected().filter(|(.., reason)| reason.contains("already exists")).count();
    assert_eq!(explained, 64);
}

/// A list of refusals that was cut short leaves the rest of the response under suspicion.
#[test]
fn a_list_that_was_cut_short_clears_nobody() {
    use graticule_proto::graticule::kds::v1::{Rejection, Rejections};
    let mut global = Site::default();
    for name in ["a", "b", "c"] {
        global.put(mk(&format!("{{type: Mesh, name: {name}}}")));
    }
    let offers = catalog(to_zones(), &global);
    for (truncated, want) in [(false, 1), (true, 3)] {
        let mut source = Source::new("global", Some("east"), 10 << 20, &offers);
        let ask =
            DeltaDiscoveryRequest { node: Some(node("east")), type_url: "Mesh".into(), ..Default::default() };
        source.on_request(ask.clone()).unwrap();
        assert_eq!(source.poll(&offers).len(), 1);
        let rejections = vec![Rejection { name: "a.".into(), reason: "bad".into() }];
        let detail = graticule_proto::google::protobuf::Any {
            type_url: "type.googleapis.com/graticule.kds.v1.Rejections".into(),
            value: prost::Message::encode_to_vec(&Rejections { rejections, truncated }),
        };
        let error =
            graticule_proto::google::rpc::Status { code: 0, message: "bad".into(), details: vec![detail] };
        source.on_request(DeltaDiscoveryRequest { error_detail: Some(error), ..ask }).unwrap();
        assert_eq!(source.rejected().count(), want, "{truncated}");
    }
}

#[test]
fn what_cannot_be_sent_is_told_by_kind_and_forgotten_with_it() {
    let mut site = Site::default();
    let big = |kind: &str, size: usize| {
        let label = "x".repeat(size);
        mk(&format!(
            "{{type: {kind}, mesh: default, name: big, spec: {{targetRef: {{kind: Mesh, labels: {{a: {label}}}}}}}}}"
        ))
    };
    let mut offers = catalog(to_zones(), &site);
    let mut source = Source::new("global", Some("east"), 200_000, &offers);
    let ask = |kind: &str| DeltaDiscoveryRequest {
        node: Some(node("east")),
        type_url: kind.into(),
        ..Default::default()
    };
    let mut step = |source: &mut Source, event: &Event| {
        offers.apply(Plane::Config, event);
        source.poll(&offers);
        for kind in ["MeshRetry", "MeshTimeout"] {
            source.on_request(ask(kind)).unwrap();
        }
        let faults: Vec<(Kind, String)> =
            source.faults().map(|(kind, name, _)| (kind, name.into())).collect();
        let quarantined: usize = source.counts().map(|counts| counts.quarantined).sum();
        assert_eq!(quarantined, faults.len());
        faults.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    for kind in ["MeshRetry", "MeshTimeout"] {
        source.on_request(ask(kind)).unwrap();
    }
    let first = site.put(mk("{type: Mesh, name: default}"));
    assert_eq!(step(&mut source, &first), []);
    let retry = site.put(big("MeshRetry", 300_000));
    assert_eq!(step(&mut source, &retry), [Kind::MeshRetry]);
    // One of another kind with the same name is sent.
    let timeout = site.put(big("MeshTimeout", 10));
    assert_eq!(step(&mut source, &timeout), [Kind::MeshRetry]);
    // It goes before it was ever sent.
    let gone = site.delete(&Key::new(Kind::MeshRetry, "default", "big"));
    assert_eq!(step(&mut source, &gone), []);
}

/// Of two resources with one name on the wire the first is sent; the other is reported, and sent when the first goes.
#[test]
fn two_with_one_name_on_the_wire() {
    let mut global = Site::default();
    let named =
        |name: &str, display: &str| mk_timeout(name, &format!("kuma.io/display-name: {display}"), "1s");
    global.put(named("a", "one"));
    global.put(named("b", "one"));
    let mut offers = catalog(to_zones(), &global);
    let faults = |offers: &Catalog| offers.faults().map(|(key, _)| key.name.to_string()).collect::<Vec<_>>();
    assert_eq!((faults(&offers), offers.take_fresh_faults().len()), (vec!["b".to_owned()], 1));
    // Written again as it was: it is still so, and nobody is told twice.
    offers.apply(Plane::Config, &global.put(named("b", "one")));
    assert_eq!((faults(&offers), offers.take_fresh_faults().len()), (vec!["b".to_owned()], 0));
    let mut zone = Site::default();
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "default", "a")));
    assert_eq!(faults(&offers), Vec::<String>::new());
    wire.settle(&offers, &mut zone);
    assert_eq!(zone.names(Kind::MeshTimeout).len(), 1);
}

/// The revision that a response bears is the one that the receiver has all of when it has taken it.
#[test]
fn responses_bear_the_revision_that_they_complete() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for name in ["a", "b"] {
        global.put(mk(&format!("{{type: Mesh, name: {name}}}")));
    }
    let mut offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    assert_eq!(wire.sink.taken(), None);
    wire.settle(&offers, &mut zone);
    assert_eq!(wire.sink.taken(), Some(Revision(2)));
    // One kind changes for a while. The others miss nothing meanwhile, and what changes then takes nothing back.
    for name in ["d", "e", "f"] {
        offers.apply(Plane::Config, &global.put(mk(&format!("{{type: Mesh, name: {name}}}"))));
        wire.settle(&offers, &mut zone);
    }
    assert_eq!((wire.sink.taken(), wire.source.acknowledged()), (Some(Revision(5)), Revision(5)));
    // Two kinds change: only the second response completes the revision.
    offers.apply(Plane::Config, &global.put(mk_timeout("t", "", "1s")));
    offers.apply(Plane::Config, &global.put(mk("{type: Mesh, name: c}")));
    let mut seen = Vec::new();
    for (_, response) in wire.source.poll(&offers) {
        let intake = wire.sink.on_response(&response, &zone);
        zone.apply(&intake);
        wire.source.on_request(wire.sink.settle(intake, Vec::new(), &wire.node)).unwrap();
        seen.push(wire.sink.taken());
        assert!(wire.source.acknowledged() >= Revision(5));
    }
    assert_eq!(seen, [Some(Revision(5)), Some(Revision(7))]);
}

/// A response that was sent before a kind is asked for again completes nothing when what was on its way of that kind is not
/// taken.
#[test]
fn what_comes_meanwhile_completes_nothing() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for name in ["a", "b"] {
        global.put(mk(&format!("{{type: Mesh, name: {name}}}")));
    }
    let mut offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!(wire.sink.taken(), Some(Revision(2)));
    offers.apply(Plane::Config, &global.put(mk("{type: Mesh, name: c}")));
    let mut under_way = wire.source.poll(&offers);
    offers.apply(Plane::Config, &global.put(mk_timeout("t", "", "1s")));
    under_way.extend(wire.source.poll(&offers));
    let kinds: Vec<_> = under_way.iter().map(|(_, response)| response.type_url.as_str()).collect();
    assert_eq!(kinds, ["Mesh", "MeshTimeout"]);

    zone.delete(&Key::new(Kind::Mesh, "", "a"));
    wire.sink.audit(&zone, at(1));
    let Repair::Ask(requests) = wire.sink.repair(&wire.node, &zone, at(1)) else { panic!("it is ours") };
    under_way.retain(|(_, response)| !wire.sink.is_outdated(response));
    for (_, response) in under_way {
        let intake = wire.sink.on_response(&response, &zone);
        assert_eq!((response.type_url.as_str(), wire.sink.completes(&intake)), ("MeshTimeout", None));
        zone.apply(&intake);
        wire.source.on_request(wire.sink.settle(intake, Vec::new(), &wire.node)).unwrap();
        assert_eq!(wire.sink.taken(), Some(Revision(2)), "Mesh c is not here");
    }
    assert_eq!(zone.names(Kind::MeshTimeout).len(), 1);
    requests.into_iter().for_each(|request| drop(wire.source.on_request(request).unwrap()));
    // What is sent now of other kinds does not say that Mesh c was delivered either.
    offers.apply(Plane::Config, &global.put(mk_timeout("u", "", "1s")));
    for (_, response) in wire.source.poll(&offers) {
        let intake = wire.sink.on_response(&response, &zone);
        if let Some(revision) = wire.sink.completes(&intake) {
            let has_all = zone.names(Kind::Mesh).len() + intake.writes.len() >= 3;
            assert!(revision < Revision(3) || has_all, "{revision} with {:?}", zone.names(Kind::Mesh));
        }
        zone.apply(&intake);
        wire.source.on_request(wire.sink.settle(intake, Vec::new(), &wire.node)).unwrap();
    }
    wire.settle(&offers, &mut zone);
    assert_eq!(zone.names(Kind::Mesh), ["a", "b", "c"]);
    assert_eq!(wire.sink.taken(), Some(Revision(5)));
}
