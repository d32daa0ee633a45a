//! What a peer may make this side remember.

use graticule_proto::google::rpc;

use super::*;
use crate::core::member::{self, TAKES_PARTS_MEMBER};
use crate::core::quarantine::{NAME_LEN_MAX, NAMED_MAX, REASON_LEN_MAX};
use crate::core::source::Refused;

/// Unreadable resources of ever new names.
fn mk_rubbish(kind: &str, round: usize, number: usize, name_len: usize) -> DeltaDiscoveryResponse {
    let mut bad = crate::wire::Encoded::of(&mk_timeout("bad", "", "1s")).unwrap().to_discovery();
    bad.resource.as_mut().unwrap().value.truncate(20);
    let resources = (0..number).map(|n| {
        let name = format!("r{round}n{n}{}.default", "x".repeat(name_len));
        graticule_proto::discovery::Resource { name, ..bad.clone() }
    });
    DeltaDiscoveryResponse { type_url: kind.into(), resources: resources.collect(), ..Default::default() }
}

#[test]
fn a_lying_zone_s_quarantine_is_bounded() {
    let site = Site::default();
    let mut sink = Sink::new(Side::Global { zone: "liar".into() }, true);
    sink.start(&node("liar"), &site);
    let mut report = PeerState::default();
    for round in 0..20 {
        for kind in ["MeshTimeout", "MeshRetry", "Dataplane"] {
            let response = mk_rubbish(kind, round, 1_000, if round == 0 { 5_000 } else { 0 });
            let intake = sink.on_response(&response, &site);
            assert_eq!(intake.rejections.len(), 1_000);
            let reply = sink.settle(intake, Vec::new(), &node("liar"));
            let said = prost::Message::encoded_len(&reply);
            assert!(said < 1 << 20, "{said} bytes are answered");
        }
        report.refused_here.update_with(
            sink.quarantine(),
            sink.unnamed(),
            graticule_model::Timestamp::UNIX_EPOCH,
        );
    }
    let named = || sink.quarantine().map(|(_, name, reason)| name.len() + reason.len());
    assert_eq!(named().count(), 3 * NAMED_MAX);
    assert!(named().max().unwrap() < NAME_LEN_MAX + REASON_LEN_MAX + 100);
    assert_eq!(report.refused_here.iter().count(), 3 * NAMED_MAX);
    let total = report.quarantine().1;
    assert!(total > 3 * 8_000 && total <= 3 * 20_000, "what is counted is counted up to a limit: {total}");

    // What is good after all is no longer counted, with a name or without.
    let mut sink = Sink::new(Side::Global { zone: "east".into() }, true);
    sink.start(&node("east"), &site);
    let total = |sink: &Sink| sink.quarantine().count() + sink.unnamed().map(|(_, more)| more).sum::<usize>();
    let bad = mk_rubbish("MeshTimeout", 0, 1_000, 0);
    let intake = sink.on_response(&bad, &site);
    sink.settle(intake, Vec::new(), &node("east"));
    assert_eq!(total(&sink), 1_000);
    let removed_resources = bad.resources.iter().skip(500).map(|item| item.name.clone()).collect();
    let removal =
        DeltaDiscoveryResponse { type_url: "MeshTimeout".into(), removed_resources, ..Default::default() };
    let intake = sink.on_response(&removal, &site);
    sink.settle(intake, Vec::new(), &node("east"));
    assert_eq!(total(&sink), 500);
}

fn mk_request(kind: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node: Some(node("east")), type_url: kind.into(), ..Default::default() }
}

#[test]
fn reasons_of_refusals_are_bounded() {
    let mut site = Site::default();
    let number = 2 * NAMED_MAX;
    for n in 0..number {
        site.put(mk_timeout(&format!("t{n:04}"), "", "1s"));
    }
    let offers = catalog(to_zones(), &site);
    for names_them in [false, true] {
        let mut source = Source::new("global", Some("east"), 10 << 20, &offers);
        source.on_request(mk_request("MeshTimeout")).unwrap();
        let responses = source.poll(&offers);
        let rejections =
            responses[0].1.resources.iter().map(|item| graticule_proto::graticule::kds::v1::Rejection {
                name: item.name.clone(),
                reason: "r".repeat(10_000),
            });
        let detail = graticule_proto::graticule::kds::v1::Rejections {
            rejections: rejections.collect(),
            truncated: false,
        };
        let detail = graticule_proto::google::protobuf::Any {
            type_url: "type.googleapis.com/graticule.kds.v1.Rejections".into(),
            value: prost::Message::encode_to_vec(&detail),
        };
        let details = if names_them { vec![detail] } else { Vec::new() };
        let error = rpc::Status { code: 0, message: "m".repeat(1 << 20), details };
        let nack = DeltaDiscoveryRequest { error_detail: Some(error), ..mk_request("MeshTimeout") };
        let Received::Nacked { message, .. } = source.on_request(nack).unwrap() else { panic!("a NACK") };
        assert!(message.len() < REASON_LEN_MAX + 100);
        let listed: Vec<_> = source.rejected().collect();
        assert_eq!(listed.len(), NAMED_MAX);
        assert!(listed.iter().all(|(_, _, reason)| reason.len() < REASON_LEN_MAX + 100));
        assert_eq!(source.unnamed().map(|(_, more)| more).sum::<usize>(), number - NAMED_MAX);
        assert_eq!(source.counts().next().unwrap().quarantined, number, "nobody is lost");
    }
}

#[test]
fn what_a_peer_presents_is_bounded() {
    let offers = catalog(to_zones(), &Site::default());
    let open = || Source::new("global", Some("east"), 10 << 20, &offers);
    let presented = |kind: &str, number: usize, len: usize| DeltaDiscoveryRequest {
        initial_resource_versions: (0..number).map(|n| (format!("n{n}"), "v".repeat(len))).collect(),
        ..mk_request(kind)
    };
    // Kinds that are never sent, as many as there are: nothing of it is kept.
    let mut source = open();
    for n in 0..200 {
        source.on_request(presented(&format!("Unknown{n}"), 1, 1 << 20)).unwrap();
    }
    source.on_request(presented("DataplaneInsight", 1, 1 << 20)).unwrap();
    assert_eq!(source.presented_len(), 0);
    // Every such type is still answered (federation.md §5.5).
    assert_eq!(source.poll(&offers).len(), 201);
    // What is compared is counted.
    source.on_request(presented("Mesh", 10, 1_000)).unwrap();
    assert!((10_000..12_000).contains(&source.presented_len()), "{}", source.presented_len());
    let mut source = open();
    let mut kinds = kinds_for_zones();
    let refused = kinds.find_map(|kind| source.on_request(presented(kind.name(), 1, 9 << 20)).err());
    assert_eq!(refused, Some(Refused::TooMuchPresented));
    let long = source.on_request(mk_request(&"X".repeat(1_000)));
    assert_eq!(long, Err(Refused::TypeTooLong));
}

/// Both sides count alike what is presented, and no more of it is said than the peer takes.
#[test]
fn no_more_is_presented_than_the_peer_takes() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for number in 0..10 {
        global.put(mk(&format!("{{type: Mesh, name: m{number}}}")));
        global.put(mk_timeout(&format!("t{number}"), "", "1s"));
    }
    let offers = catalog(to_zones(), &global);
    let mut first = Wire::down("east", None, &offers, &zone);
    first.settle(&offers, &mut zone);
    let all = Wire::down("east", Some(first.sink), &offers, &zone);
    let len = all.source.presented_len();
    for (room, kinds) in [(len, 2), (len - 1, 1), (0, 0)] {
        let mut sink = Sink::new(Side::Zone, true);
        sink.present_at_most(room);
        let requests = sink.start(&node("east"), &zone);
        let presenting = requests.iter().filter(|request| !request.initial_resource_versions.is_empty());
        assert_eq!(presenting.count(), kinds, "{room} of {len}");
        // Asked again, a kind counts once.
        let mut wire = Wire::down("east", Some(sink), &offers, &zone);
        assert!(wire.source.presented_len() <= room);
        wire.settle(&offers, &mut zone);
        assert_eq!((zone.names(Kind::Mesh).len(), zone.names(Kind::MeshTimeout).len()), (10, 10));
        assert_eq!(wire.sink.damaged(&zone), []);
    }
}

/// What one hold of the catalog takes is bounded, and everything comes all the same.
#[test]
fn first_states_are_put_together_in_steps() {
    for takes_parts in [false, true] {
        let mut site = Site::default();
        for number in 0..60 {
            let items = "x".repeat(50_000);
            let kinds = [("Mesh", "skipCreatingInitialPolicies"), ("MeshTimeout", "")];
            let mesh = format!("{{type: {}, name: m{number:02}, {}: [{items}]}}", kinds[0].0, kinds[0].1);
            site.put(mk(&mesh));
            site.put(mk_timeout(&format!("t{number:02}"), &format!("l: {}", "v".repeat(63)), "1s"));
        }
        let offers = catalog(to_zones(), &site);
        let mut source = Source::new("global", Some("east"), 10 << 20, &offers);
        assert!(!source.prepare(&offers), "nobody asked");
        for kind in ["Mesh", "MeshTimeout"] {
            let mut request = mk_request(kind);
            if takes_parts {
                let node = request.node.as_mut().unwrap();
                member::tell(node, TAKES_PARTS_MEMBER, ValueKind::BoolValue(true));
            }
            source.on_request(request).unwrap();
        }
        let mut slices = 0;
        while source.prepare(&offers) {
            slices += 1;
        }
        // 3 MB in slices of 256 KiB, the last offer of each whole.
        assert!((8..=12).contains(&slices), "{slices}");
        assert!(!source.prepare(&offers), "once");
        let (mut polls, mut arrived) = (0, BTreeMap::<String, usize>::new());
        loop {
            let responses = source.poll(&offers);
            if responses.is_empty() {
                break;
            }
            polls += 1;
            for (_, response) in responses {
                *arrived.entry(response.type_url.clone()).or_default() += response.resources.len();
                source.on_request(mk_request(&response.type_url)).unwrap();
            }
        }
        assert_eq!(arrived, BTreeMap::from([("Mesh".into(), 60), ("MeshTimeout".into(), 60)]));
        assert!(polls >= 2, "a large kind is put together alone");
    }
}

/// A zone stores no more than it may; what is there is changed and goes as ever.
#[test]
fn a_zone_has_a_limit() {
    let mut global = Site::default();
    let mk_sink = |held: &Site| {
        let mut sink = Sink::new(Side::Global { zone: "east".into() }, true);
        sink.limit(ZoneLimit { resources: 3, bytes: 10_000 });
        sink.start(&node("east"), held);
        sink
    };
    let response = |names: &[&str], idle: &str, label: usize| {
        let wire = |name: &&str| {
            let labels = format!("l: \"{}\"", "v".repeat(label));
            crate::wire::Encoded::of(&mk_timeout(name, &labels, idle)).unwrap().to_discovery()
        };
        let resources = names.iter().map(wire).collect();
        DeltaDiscoveryResponse { type_url: "MeshTimeout".into(), resources, ..Default::default() }
    };
    let mut sink = mk_sink(&global);
    let send = |global: &mut Site, sink: &mut Sink, response: DeltaDiscoveryResponse| {
        let intake = sink.on_response(&response, global);
        global.apply(&intake);
        let refused: Vec<String> = intake.rejections.iter().map(|one| one.name.clone()).collect();
        sink.settle(intake, Vec::new(), &node("east"));
        (refused, sink.usage().resources)
    };
    let refused = |names: &[&str]| names.iter().map(|name| format!("{name}.default")).collect::<Vec<_>>();
    let first = response(&["a", "a", "b", "b", "c", "d", "e"], "1s", 1);
    assert_eq!(send(&mut global, &mut sink, first), (refused(&["d", "e"]), 3));
    let reasons: Vec<&str> = sink.quarantine().map(|(_, _, reason)| reason).collect();
    assert!(reasons.iter().all(|reason| reason.contains("federation.zoneLimit.resources")), "{reasons:?}");
    assert!(sink.has_obstacles(), "they are asked for again");
    // What is there is changed; the same again changes nothing.
    assert_eq!(send(&mut global, &mut sink, response(&["a", "d"], "2s", 1)), (refused(&["d"]), 3));
    let bytes = sink.usage().bytes;
    assert_eq!(send(&mut global, &mut sink, response(&["a"], "2s", 1)), (vec![], 3));
    assert_eq!(sink.usage().bytes, bytes);
    // One that is named twice counts once, as what was said last.
    let mut twice = response(&["a", "a", "b"], "3s", 60);
    twice.resources[1] = response(&["a"], "3s", 3).resources.remove(0);
    assert_eq!(send(&mut global, &mut sink, twice), (vec![], 3));
    assert_eq!(mk_sink(&global).usage(), sink.usage());
    let mut undone = response(&["a", "a"], "4s", 60);
    undone.resources[1] = response(&["a"], "3s", 3).resources.remove(0);
    assert_eq!(send(&mut global, &mut sink, undone), (vec![], 3));
    assert_eq!(mk_sink(&global).usage(), sink.usage());
    // What goes makes room.
    let removal =
        DeltaDiscoveryResponse { removed_resources: vec!["b.default".into()], ..response(&[], "1s", 1) };
    assert_eq!(send(&mut global, &mut sink, removal), (vec![], 2));
    assert_eq!(send(&mut global, &mut sink, response(&["d", "e"], "1s", 1)), (refused(&["e"]), 3));
    let usage = sink.usage();
    assert_eq!((usage.resources_max, usage.bytes_max), (3, 10_000));
    // The next stream counts what is there, and comes to the same.
    assert_eq!(mk_sink(&global).usage(), usage);
    // A zone has no limit of what it takes of its global.
    let mut zone = Sink::new(Side::Zone, true);
    zone.limit(ZoneLimit { resources: 1, bytes: 1 });
    let site = Site::default();
    zone.start(&node("east"), &site);
    let of_global = |name| mk_timeout(name, "kuma.io/origin: global", "1s");
    let wire = |name| crate::wire::Encoded::of(&of_global(name)).unwrap().to_discovery();
    let both = DeltaDiscoveryResponse { resources: vec![wire("a"), wire("b")], ..response(&[], "1s", 1) };
    assert_eq!(zone.on_response(&both, &site).rejections, []);
}

#[test]
fn what_has_no_name_is_counted_with_its_kind() {
    let names: Vec<String> = (0..NAMED_MAX + 300).map(|number| format!("n{number}.default")).collect();
    let held =
        names.iter().map(|name| (Kind::MeshTimeout, name.as_str(), "")).chain([(Kind::Mesh, "m.", "")]);
    let mut dated = Dated::default();
    dated.update(held, graticule_model::Timestamp::UNIX_EPOCH);
    let want = [(Kind::Mesh, 1), (Kind::MeshTimeout, NAMED_MAX + 300)];
    assert_eq!(dated.counts().collect::<BTreeMap<_, _>>(), BTreeMap::from(want));
}
