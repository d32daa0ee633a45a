use expect_test::{Expect, expect};
use graticule_model::kinds::dataplane::{OutboundBackendRef, ReachableBackendRef};
use graticule_model::yaml;
use serde::Deserialize;

use super::*;
use crate::testing::{mk_resource, mk_resources};

const SERVICES: &str = "
{type: MeshService, name: kv, labels: {kuma.io/zone: east, tier: a}, spec: {ports: [{port: 8080, name: http, appProtocol: http}, {port: 9090}]}}
---
{type: MeshService, name: kv-1, labels: {kuma.io/display-name: kv, kuma.io/zone: west, k8s.kuma.io/namespace: shop, tier: a}, creationTime: 2024-01-01T00:00:00Z, spec: {ports: [{port: 8080, name: web, appProtocol: grpc}]}}
---
{type: MeshService, name: kv-2, labels: {kuma.io/display-name: kv, kuma.io/zone: west, k8s.kuma.io/namespace: lab}, creationTime: 2024-01-02T00:00:00Z, spec: {ports: [{port: 8080}]}}
---
{type: MeshService, name: db, spec: {ports: [{port: 5432, appProtocol: tcp}]}}
";

fn show(found: impl IntoIterator<Item = Backend>) -> String {
    let lines = found.into_iter().map(|b| format!("{} -> {} {:?}", b.kri, b.port.number, b.port.protocol));
    lines.collect::<Vec<_>>().join("\n")
}

fn read<T: for<'a> Deserialize<'a>>(text: &str) -> T {
    T::deserialize(yaml::parse_one(text).expect("YAML")).expect("a reference")
}

#[test]
fn references_of_to_items() {
    let check = |labels: Option<&str>, section: Option<&str>, expected: Expect| {
        let destinations = Destinations::new(mk_resources(SERVICES));
        let labels: Option<BTreeMap<String, String>> = labels.map(read);
        let found = destinations.resolve(TargetKind::MeshService, labels.as_ref(), section);
        let found: Vec<String> = found.into_iter().map(|(kri, _)| kri.to_string()).collect();
        expected.assert_eq(&found.join("\n"));
    };
    let kv = Some("{kuma.io/display-name: kv}");
    // No namespace scoping: every zone and namespace is hit.
    check(
        kv,
        None,
        expect![[r#"
        kri_msvc_default_east__kv_
        kri_msvc_default_west_shop_kv_
        kri_msvc_default_west_lab_kv_"#]],
    );
    check(kv, Some("http"), expect!["kri_msvc_default_east__kv_http"]);
    // A number only means a port without name.
    check(kv, Some("8080"), expect!["kri_msvc_default_west_lab_kv_8080"]);
    check(kv, Some("9090"), expect!["kri_msvc_default_east__kv_9090"]);
    check(Some("{tier: a, kuma.io/zone: west}"), None, expect!["kri_msvc_default_west_shop_kv_"]);
    check(Some("{tier: a, kuma.io/zone: north}"), None, expect![""]);
    check(Some("{}"), Some("5432"), expect!["kri_msvc_default___db_5432"]);
    check(None, None, expect![""]);
}

#[test]
fn display_name_label_is_needed_in_to_items_only() {
    let mut bare = (*mk_resource("{type: MeshService, name: kv, spec: {ports: [{port: 80}]}}")).clone();
    bare.meta.labels.clear();
    let destinations = Destinations::new([Arc::new(bare)]);
    let labels: BTreeMap<String, String> = read("{kuma.io/display-name: kv}");
    assert_eq!(destinations.resolve(TargetKind::MeshService, Some(&labels), None).len(), 0);
    let backend: BackendRef = read("{kind: MeshService, labels: {kuma.io/display-name: kv}}");
    let route = Meta::new("default", "r");
    assert_eq!(show(destinations.resolve_backend(&backend, &route)), "kri_msvc_default___kv_80 -> 80 Tcp");
}

#[test]
fn references_of_routes() {
    let check = |backend: &str, namespace: &str, expected: Expect| {
        let destinations = Destinations::new(mk_resources(SERVICES));
        let mut route = Meta::new("default", "r");
        route.labels.insert(labels::NAMESPACE.into(), namespace.into());
        expected.assert_eq(&show(destinations.resolve_backend(&read(backend), &route)));
    };
    let kv = "labels: {kuma.io/display-name: kv}";
    // Resources without a creation time count as oldest; with the route's namespace only its own count.
    check(
        &format!("{{kind: MeshService, {kv}, port: 8080}}"),
        "",
        expect!["kri_msvc_default_east__kv_8080 -> 8080 Http"],
    );
    check(
        &format!("{{kind: MeshService, {kv}, port: 8080}}"),
        "shop",
        expect!["kri_msvc_default_west_shop_kv_8080 -> 8080 Grpc"],
    );
    check(
        &format!("{{kind: MeshService, {kv}}}"),
        "shop",
        expect!["kri_msvc_default_west_shop_kv_web -> 8080 Grpc"],
    );
    check(
        &format!("{{kind: MeshService, {kv}, sectionName: web, port: 1}}"),
        "shop",
        expect!["kri_msvc_default_west_shop_kv_web -> 8080 Grpc"],
    );
    check(&format!("{{kind: MeshService, {kv}}}"), "none", expect![""]);
    // Of several in one zone, the oldest.
    check(
        "{kind: MeshService, labels: {kuma.io/zone: west}}",
        "none",
        expect!["kri_msvc_default_west_shop_kv_web -> 8080 Grpc"],
    );
    // Two ports and no section; no such port; no labels; kinds that are no destination.
    check(&format!("{{kind: MeshService, {kv}}}"), "", expect![""]);
    check(&format!("{{kind: MeshService, {kv}, port: 1}}"), "", expect![""]);
    check("{kind: MeshService, port: 8080}", "", expect![""]);
    check(&format!("{{kind: MeshHTTPRoute, {kv}, port: 8080}}"), "", expect![""]);
}

#[test]
fn references_of_dataplanes() {
    let destinations = Destinations::new(mk_resources(SERVICES));
    let mut dataplane = Meta::new("default", "dp");
    let outbound = |text: &str, dataplane: &Meta| {
        show(destinations.resolve_outbound(&read::<OutboundBackendRef>(text), dataplane))
    };
    let reachable = |text: &str, dataplane: &Meta| {
        show(destinations.resolve_reachable(&read::<ReachableBackendRef>(text), dataplane))
    };
    expect![[r#"
        kri_msvc_default_east__kv_8080 -> 8080 Http
        kri_msvc_default_west_shop_kv_8080 -> 8080 Grpc
        kri_msvc_default_west_lab_kv_8080 -> 8080 Tcp"#]]
    .assert_eq(&outbound("{kind: MeshService, name: kv, port: 8080}", &dataplane));
    expect!["kri_msvc_default_east__kv_9090 -> 9090 Tcp"]
        .assert_eq(&outbound("{kind: MeshService, labels: {tier: a}, port: 9090}", &dataplane));
    expect!["kri_msvc_default_west_lab_kv_8080 -> 8080 Tcp"]
        .assert_eq(&outbound("{kind: MeshService, name: kv_lab_svc_8080}", &dataplane));
    expect![[r#"
        kri_msvc_default_east__kv_http -> 8080 Http
        kri_msvc_default_east__kv_9090 -> 9090 Tcp
        kri_msvc_default_west_shop_kv_web -> 8080 Grpc"#]]
    .assert_eq(&reachable("{kind: MeshService, labels: {tier: a}}", &dataplane));
    dataplane.labels.insert(labels::NAMESPACE.into(), "shop".into());
    expect!["kri_msvc_default_west_shop_kv_web -> 8080 Grpc"]
        .assert_eq(&reachable("{kind: MeshService, name: kv}", &dataplane));
    expect!["kri_msvc_default_west_lab_kv_8080 -> 8080 Tcp"]
        .assert_eq(&reachable("{kind: MeshService, name: kv, namespace: lab}", &dataplane));
    assert_eq!(outbound("{kind: MeshService}", &dataplane), "");
    assert_eq!(outbound("{kind: Nonsense, name: kv, port: 1}", &dataplane), "");
}

#[test]
fn index_follows_changes() {
    let mut destinations = Destinations::new(mk_resources(SERVICES));
    let old = mk_resource("{type: MeshService, name: db, spec: {ports: [{port: 5432, appProtocol: tcp}]}}");
    let stamp = destinations.stamp().clone();
    let mut observed = (*old).clone();
    observed.meta.version = 7;
    assert!(!destinations.insert(Arc::new(observed)), "nothing that references look at");
    assert!(Arc::ptr_eq(&stamp, destinations.stamp()));
    assert_eq!(destinations.get(&old.key()).map(|r| r.meta.version), Some(7));
    let moved = mk_resource("{type: MeshService, name: db, labels: {tier: b}, spec: {ports: [{port: 1}]}}");
    assert!(destinations.insert(moved));
    assert!(!Arc::ptr_eq(&stamp, destinations.stamp()));
    let tier = |tier: &str| BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
    assert_eq!(destinations.resolve(TargetKind::MeshService, Some(&tier("b")), None).len(), 1);
    assert!(destinations.remove(&old.key()));
    assert!(!destinations.remove(&old.key()));
    assert_eq!(destinations.resolve(TargetKind::MeshService, Some(&tier("b")), None).len(), 0);
    assert!(destinations.by_kri(&old.kri().expect("has one")).is_none());
    assert!(!destinations.insert(mk_resource("{type: Mesh, name: default}")));
    for key in destinations.iter().map(|resource| resource.key()).collect::<Vec<_>>() {
        assert!(destinations.remove(&key));
    }
    assert!(destinations.by_label.is_empty() && destinations.by_kri.is_empty(), "no leftovers");
}
