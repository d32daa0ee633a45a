//! What a peer may make this side remember.

use graticule_proto::google::rpc;

use super::*;
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
