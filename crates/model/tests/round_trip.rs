//! Documents of every kind: what is written is what was read.

use std::collections::BTreeSet;

use graticule_model::{Kind, Resource, Spec, Status, yaml};
use serde_json::Value;

/// One or more documents of each kind, in the form in which they are written: with all defaults.
const DOCUMENTS: &str = include_str!("documents.yaml");

#[test]
fn documents() {
    let mut seen = BTreeSet::new();
    for document in yaml::parse_all(DOCUMENTS).expect("YAML") {
        let kind = Kind::from_name(document["type"].as_str().unwrap_or_default()).expect("a kind");
        seen.insert(kind);
        let resource =
            Resource::from_rest(kind, &document).unwrap_or_else(|error| panic!("{document}: {error}"));
        assert_eq!(resource.validate(), Ok(()), "{document}");
        let written = resource.to_rest();
        assert_eq!(Resource::from_rest(kind, &written).as_ref(), Ok(&resource), "{written}");
        for (member, value) in document.as_object().expect("an object") {
            if member != "status" || kind.descriptor().capabilities.has_status {
                assert_eq!(written.get(member), Some(value), "{member} of {document}");
            }
        }
        assert_eq!(Spec::from_json(kind, &resource.spec.to_json()).as_ref(), Ok(&resource.spec));
        assert_eq!(Status::from_json(kind, &resource.status.to_json()).as_ref(), Ok(&resource.status));
    }
    let missing: Vec<Kind> = Kind::all().filter(|kind| !seen.contains(kind)).collect();
    assert!(missing.is_empty(), "no document of {missing:?}");
}

#[test]
fn names_of_ports() {
    for (text, wanted) in [
        (
            "{type: MeshExternalService, mesh: prod, name: stripe, labels: {kuma.io/zone: east}, spec: {match: {port: 443}}}",
            vec![(443, "sni.extsvc.prod.east.stripe.443")],
        ),
        (
            "{type: MeshMultiZoneService, mesh: prod, name: cart, spec: {selector: {meshService: {matchLabels: {a: b}}}, ports: [{port: 9090}, {port: 80, name: http}]}}",
            vec![(80, "sni.mzsvc.prod.cart.http"), (9090, "sni.mzsvc.prod.cart.9090")],
        ),
    ] {
        let document = yaml::parse_one(text).expect("YAML");
        let kind = Kind::from_name(document["type"].as_str().unwrap_or_default()).expect("a kind");
        let resource = Resource::from_rest(kind, &document).expect("valid");
        let wanted: Vec<(u32, String)> =
            wanted.into_iter().map(|(port, sni)| (port, sni.to_owned())).collect();
        assert_eq!(resource.snis(), wanted);
        assert!(resource.to_rest()["snis"].is_array());
    }
}

#[test]
fn schema_violations_come_alone() {
    let document: Value = yaml::parse_one(
        "{type: MeshTimeout, name: 5, labels: {k: 1}, spec: {targetRef: {kind: Zone}, to: [{default: {connectionTimeout: 0s}}]}}",
    )
    .expect("YAML");
    let error = Resource::from_rest(Kind::MeshTimeout, &document).expect_err("invalid").to_string();
    assert_eq!(
        error,
        "labels.k in body must be of type string: \"number\"; name in body must be of type string: \"number\"; \
         spec.targetRef.kind: in body should be one of [Mesh Dataplane]; spec.to[0].targetRef: in body is required"
    );
}

#[test]
fn what_was_stored_is_read_without_its_schema() {
    let read = |text: &str| {
        let document = yaml::parse_one(text).expect("YAML");
        let strict = Resource::from_rest(Kind::MeshTCPRoute, &document).is_ok();
        (strict, Resource::from_stored(Kind::MeshTCPRoute, &document).is_ok())
    };
    let to = "{type: MeshTCPRoute, name: r, spec: {to: [{targetRef: {kind: MeshService}RULES}]}}";
    assert_eq!(read(&to.replace("RULES", ", rules: []")), (true, true));
    assert_eq!(read(&to.replace("RULES", "")), (false, true), "a missing list is empty");
    assert_eq!(read(&to.replace("RULES", ", rules: 5")), (false, false), "a number is no list");
    assert_eq!(read("{name: r, spec: {}}"), (false, false), "the outer form counts");
}
