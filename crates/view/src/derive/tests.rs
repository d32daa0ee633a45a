use std::time::Duration;

use graticule_model::kinds::mesh_identity::{MeshIdentity, MeshIdentityStatus};
use graticule_model::kinds::mesh_service::{MeshService, MeshServiceStatus};
use graticule_model::kinds::mesh_trust::MeshTrust;
use graticule_model::kinds::workload::Workload;
use serde_json::{Value, json};

use super::*;
use crate::testing::Zone;

const MESH: &str = "{type: Mesh, name: default}";
const GENERATORS: &str = r#"
type: HostnameGenerator
name: local
labels: {kuma.io/origin: zone}
spec: {selector: {meshService: {matchLabels: {kuma.io/origin: zone}}}, template: "{{ .DisplayName }}.svc.mesh.local"}
---
type: HostnameGenerator
name: synced-abc
labels: {kuma.io/origin: global}
spec: {selector: {meshService: {matchLabels: {kuma.io/origin: global}}}, template: "{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local"}
"#;
const IDENTITY: &str = r#"
type: MeshIdentity
mesh: default
name: everyone-x7
labels: {kuma.io/display-name: everyone, kuma.io/origin: global}
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider: {type: Bundled, bundled: {insecureAllowSelfSigned: true, autogenerate: {enabled: true}}}
"#;
const REMOTE_SHOP: &str = r#"
type: MeshService
mesh: default
name: shop-77
labels: {kuma.io/display-name: shop, kuma.io/origin: global, kuma.io/zone: west, kuma.io/managed-by: meshservice-generator}
spec: {state: Available, selector: {}, ports: [{port: 80, name: main, appProtocol: http}]}
"#;

fn dataplane(name: &str, workload: &str, created_secs: u32, inbounds: &str) -> String {
    format!(
        "type: Dataplane\nmesh: default\nname: {name}\ncreationTime: 2026-01-01T00:00:{created_secs:02}Z\n\
         labels: {{kuma.io/workload: {workload}, kuma.io/zone: east}}\n\
         networking: {{address: 10.0.0.{created_secs}, inbound: [{inbounds}]}}"
    )
}

const HTTP: &str = "{port: 8080, name: main, protocol: http}";

fn zone(documents: &[&str]) -> Zone {
    Zone::new("east", &[&[MESH], documents].concat().join("\n---\n"))
}

fn secret(name: &str, text: &str) -> String {
    use graticule_model::kinds::secret::{Secret, SecretBytes};
    let secret = Resource::new(
        graticule_model::Meta::new("default", name),
        Secret { data: SecretBytes(text.as_bytes().to_vec()) },
    );
    secret.to_rest().to_string()
}

fn pem(body: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

fn service<'a>(zone: &'a Zone, name: &str) -> (&'a MeshService, &'a MeshServiceStatus) {
    let resource = zone.get(Kind::MeshService, name);
    (resource.spec_as().expect("a service"), resource.status_of::<MeshService>().expect("its status"))
}

fn vip<'a>(zone: &'a Zone, name: &str) -> &'a str {
    &service(zone, name).1.vips[0].ip
}

fn identity_status(zone: &Zone) -> &MeshIdentityStatus {
    zone.get(Kind::MeshIdentity, "everyone-x7").status_of::<MeshIdentity>().expect("its status")
}

#[test]
fn a_service_and_a_workload_from_one_dataplane() {
    let mut zone = zone(&[GENERATORS, &dataplane("shop-1", "shop", 1, HTTP)]);
    zone.connected.insert(ProxyId::new("default", "shop-1"));
    let derived = zone.settle();
    assert_eq!(derived.problems, []);
    let rest = zone.get(Kind::MeshService, "shop").to_rest();
    assert_eq!(
        json!({"labels": rest["labels"], "spec": rest["spec"], "status": rest["status"]}),
        json!({
            "labels": {
                "kuma.io/display-name": "shop", "kuma.io/env": "universal", "kuma.io/mesh": "default",
                "kuma.io/managed-by": "meshservice-generator", "kuma.io/origin": "zone", "kuma.io/zone": "east",
            },
            "spec": {
                "state": "Available",
                "selector": {"dataplaneLabels": {"matchLabels": {"kuma.io/workload": "shop"}}},
                "ports": [{"name": "main", "port": 8080, "targetPort": 8080, "appProtocol": "http"}],
            },
            "status": {
                "addresses": [{"hostname": "shop.svc.mesh.local", "origin": "HostnameGenerator",
                    "hostnameGeneratorRef": {"coreName": "local"}}],
                "vips": [{"ip": "241.0.0.0"}],
                "tls": {"status": "NotReady"},
                "hostnameGenerators": [{"hostnameGeneratorRef": {"coreName": "local"}, "conditions":
                    [{"type": "Generated", "status": "True", "reason": "Generated", "message": ""}]}],
                "dataplaneProxies": {"connected": 1, "healthy": 1, "total": 1},
            },
        })
    );
    let rest = zone.get(Kind::Workload, "shop").to_rest();
    assert_eq!(rest["status"], json!({"dataplaneProxies": {"connected": 1, "healthy": 1, "total": 1}}));
    assert_eq!(
        rest["labels"],
        json!({"kuma.io/env": "universal", "kuma.io/managed-by": "workload-generator", "kuma.io/mesh": "default",
            "kuma.io/zone": "east"})
    );
}

#[test]
fn nothing_without_a_mesh() {
    let text = [GENERATORS, IDENTITY, &dataplane("shop-1", "shop", 1, HTTP)].join("\n---\n");
    assert_eq!(Zone::new("east", &text).derive(), Derived::default());
}

#[test]
fn what_dataplanes_contribute() {
    for (workload, inbounds, want) in [
        ("shop", "", None),
        ("Shop", HTTP, None),
        ("1shop", HTTP, None),
        (
            "shop",
            "{port: 1, protocol: gRPC}",
            Some(json!([{"name": "1", "port": 1, "targetPort": 1, "appProtocol": "grpc"}])),
        ),
        (
            "shop",
            "{port: 1, protocol: mysql}",
            Some(json!([{"name": "1", "port": 1, "targetPort": 1, "appProtocol": "tcp"}])),
        ),
        (
            "shop",
            "{port: 1, servicePort: 7}, {port: 1, address: 10.9.9.9}",
            Some(json!([{"name": "1", "port": 1, "targetPort": 1, "appProtocol": "tcp"}])),
        ),
    ] {
        let mut zone = zone(&[&dataplane("shop-1", workload, 1, inbounds)]);
        let derived = zone.settle();
        let found = zone.set.get(&Key::new(Kind::MeshService, "default", workload));
        assert_eq!(
            found.map(|found| found.to_rest()["spec"]["ports"].clone()),
            want,
            "{workload} {inbounds}"
        );
        let expects_problem = want.is_none() && !inbounds.is_empty();
        assert_eq!(derived.problems.is_empty(), !expects_problem, "{:?}", derived.problems);
    }
}

#[test]
fn conflicting_dataplanes() {
    let (old, new) = ("{port: 1, protocol: http}", "{port: 2, protocol: http}");
    let mut zone = zone(&[&dataplane("b", "shop", 1, old), &dataplane("a", "shop", 2, new)]);
    let derived = zone.settle();
    assert_eq!(service(&zone, "shop").0.ports[0].port, 1, "the oldest decides");
    assert_eq!(derived.problems[0].0, Key::new(Kind::Dataplane, "default", "a"));
    // As long as one Dataplane agrees with what is stored, it stays, even when the oldest does not.
    zone.put(&dataplane("b", "shop", 1, new));
    zone.put(&dataplane("c", "shop", 3, old));
    zone.settle();
    assert_eq!(service(&zone, "shop").0.ports[0].port, 1);
    zone.remove(Kind::Dataplane, "c");
    zone.settle();
    assert_eq!(service(&zone, "shop").0.ports[0].port, 2);
}

#[test]
fn foreign_services_are_left_alone() {
    let own = "type: MeshService\nmesh: default\nname: shop\nlabels: {kuma.io/origin: zone}\n\
        spec: {selector: {dataplaneLabels: {matchLabels: {kuma.io/workload: shop}}}, ports: [{port: 99, targetPort: main}]}";
    let mut zone = zone(&[own, REMOTE_SHOP, &dataplane("shop-1", "shop", 1, HTTP)]);
    let before = zone.get(Kind::MeshService, "shop").clone();
    let derived = zone.settle();
    assert_eq!(derived.problems[0].0, before.key());
    let (spec, status) = service(&zone, "shop");
    assert_eq!((spec.ports[0].port, zone.get(Kind::MeshService, "shop").meta.labels.len()), (99, 1));
    assert_eq!(
        spec.state,
        Some(graticule_model::kinds::mesh_service::State::Available),
        "but its state is derived"
    );
    assert_eq!((status.dataplane_proxies.total, status.vips.len()), (1, 1));
    let (spec, status) = service(&zone, "shop-77");
    assert_eq!(
        spec.state,
        Some(graticule_model::kinds::mesh_service::State::Available),
        "a copy keeps its spec"
    );
    assert_eq!((status.vips.len(), status.tls.status.as_str()), (1, ""));
    assert_ne!(vip(&zone, "shop"), vip(&zone, "shop-77"));
}

#[test]
fn a_service_outlives_its_dataplanes_for_a_while() {
    let mut zone = zone(&[&dataplane("shop-1", "shop", 1, HTTP)]);
    zone.settle();
    let vip_before = vip(&zone, "shop").to_owned();
    zone.remove(Kind::Dataplane, "shop-1");
    let derived = zone.settle();
    let label = graticule_model::labels::DELETION_GRACE_PERIOD_STARTED_AT;
    assert_eq!(zone.get(Kind::MeshService, "shop").meta.label(label), Some("2026-03-01T12:00:00Z"));
    assert!(!zone.has(Kind::Workload, "shop"));
    let deadline: Timestamp = "2026-03-01T13:00:00Z".parse().unwrap();
    assert_eq!(derived.next_deadline, Some(deadline));
    // It comes back.
    zone.put(&dataplane("shop-2", "shop", 2, HTTP));
    zone.settle();
    assert_eq!(zone.get(Kind::MeshService, "shop").meta.label(label), None);
    assert_eq!(vip(&zone, "shop"), vip_before);
    // It goes for good.
    zone.remove(Kind::Dataplane, "shop-2");
    zone.settle();
    zone.now = deadline - Duration::from_secs(1);
    zone.settle();
    assert!(zone.has(Kind::MeshService, "shop"));
    zone.now = deadline;
    zone.settle();
    assert!(!zone.has(Kind::MeshService, "shop"));
}

#[test]
fn health_and_observation() {
    let two_ports = "{port: 1, name: a}, {port: 2, name: b, state: NotReady}";
    for (inbounds, serving, want) in [
        (HTTP, Serving::Unknown, 1),
        (HTTP, Serving::Serving, 1),
        (HTTP, Serving::Starting, 0),
        (HTTP, Serving::Draining, 0),
        (HTTP, Serving::Gone, 0),
        ("{port: 1, state: Ignored}", Serving::Unknown, 0),
        ("{port: 1, health: {}}", Serving::Unknown, 0),
        ("{port: 1, health: {ready: true}}", Serving::Unknown, 1),
        (two_ports, Serving::Unknown, 0),
    ] {
        let mut zone = zone(&[&dataplane("shop-1", "shop", 1, inbounds)]);
        zone.serving.insert(ProxyId::new("default", "shop-1"), serving);
        zone.settle();
        let (spec, status) = service(&zone, "shop");
        assert_eq!(
            (status.dataplane_proxies.total, status.dataplane_proxies.healthy),
            (1, want),
            "{inbounds} {serving:?}"
        );
        assert_eq!(spec.state == Some(graticule_model::kinds::mesh_service::State::Available), want > 0);
        let workload = zone.get(Kind::Workload, "shop").status_of::<Workload>().unwrap();
        assert_eq!(workload.dataplane_proxies.healthy, want, "{inbounds} {serving:?}");
    }
}

#[test]
fn virtual_addresses() {
    let mut zone = zone(&[&dataplane("a", "a", 1, HTTP), &dataplane("b", "b", 2, HTTP), REMOTE_SHOP]);
    zone.settings.vip_network = Ipv4Addr::new(241, 7, 7, 9);
    zone.settings.vip_prefix_len = 30;
    zone.settle();
    let mut found: Vec<&str> = ["a", "b", "shop-77"].iter().map(|name| vip(&zone, name)).collect();
    found.sort_unstable();
    assert_eq!(found, ["241.7.7.10", "241.7.7.8", "241.7.7.9"]);
    // A freed address is not used while later ones are free; then the lowest free one.
    let freed = vip(&zone, "shop-77").to_owned();
    zone.remove(Kind::MeshService, "shop-77");
    zone.put(&dataplane("c", "c", 3, HTTP));
    zone.settle();
    assert_eq!(vip(&zone, "c"), "241.7.7.11");
    zone.put(&dataplane("d", "d", 4, HTTP));
    zone.settle();
    assert_eq!(vip(&zone, "d"), freed);
    zone.put(&dataplane("e", "e", 5, HTTP));
    let derived = zone.settle();
    assert!(service(&zone, "e").1.vips.is_empty());
    assert_eq!(derived.problems[0].0, Key::new(Kind::MeshService, "default", "e"));
}

#[test]
fn one_address_held_twice_goes_to_the_older_service() {
    let with = |name: &str, created: u32, ip: &str| {
        format!(
            "type: MeshService\nmesh: default\nname: {name}\ncreationTime: 2026-01-01T00:00:{created:02}Z\n\
             labels: {{kuma.io/origin: zone}}\nspec: {{selector: {{}}, ports: [{{port: 1}}]}}\nstatus: {{vips: [{{ip: {ip}}}]}}"
        )
    };
    let mut zone = zone(&[
        &with("a", 9, "241.0.0.5"),
        &with("b", 1, "241.0.0.5"),
        &with("c", 1, "10.96.0.1"),
        &with("d", 2, "10.96.0.1"),
    ]);
    zone.settle();
    assert_eq!((vip(&zone, "a"), vip(&zone, "b")), ("241.0.0.6", "241.0.0.5"));
    assert_eq!((vip(&zone, "c"), vip(&zone, "d")), ("10.96.0.1", "10.96.0.1"), "outside the range: not ours");
}

#[test]
fn addresses_are_unique_across_meshes() {
    let text = format!(
        "{MESH}\n---\n{{type: Mesh, name: other}}\n---\n{0}\n---\n{1}",
        dataplane("a", "a", 1, HTTP),
        dataplane("a", "a", 1, HTTP).replace("mesh: default", "mesh: other")
    );
    let zone = Zone::new("east", &text);
    let state = DeriveState {
        resources: &zone.set,
        zone: "east",
        settings: &zone.settings,
        connected: &zone.connected,
        serving: &zone.serving,
        authorities: &zone.authorities,
    };
    let derived = derive_meshes(&state, ["other", "default"], zone.now);
    let mut vips: Vec<String> = derived
        .writes
        .iter()
        .filter_map(|write| match write {
            DerivedWrite::Put(resource) => Some(resource.status_of::<MeshService>()?.vips[0].ip.clone()),
            DerivedWrite::Delete(_) => None,
        })
        .collect();
    vips.sort_unstable();
    assert_eq!(vips, ["241.0.0.0", "241.0.0.1"]);
}

#[test]
fn hostnames_collide_and_templates_fail() {
    let generator = |name: &str, template: &str| {
        format!(
            "type: HostnameGenerator\nname: {name}\nspec: {{selector: {{meshService: {{matchLabels: {{}}}}}}, template: '{template}'}}"
        )
    };
    let mut zone = zone(&[
        &generator("fixed", "one.mesh"),
        &generator("label", "{{ label \"team\" }}.mesh"),
        &generator("odd", "{{ .Name }}_x"),
        &dataplane("b", "b", 1, HTTP),
        REMOTE_SHOP,
    ]);
    zone.settle();
    let outcome = |name: &str| -> Vec<Value> {
        let status = zone.get(Kind::MeshService, name).to_rest()["status"]["hostnameGenerators"].clone();
        status
            .as_array()
            .unwrap()
            .iter()
            .map(|g| json!([g["hostnameGeneratorRef"]["coreName"], g["conditions"][0]["reason"]]))
            .collect()
    };
    let failing = [json!(["label", "TemplateError"]), json!(["odd", "TemplateError"])];
    assert_eq!(
        outcome("shop-77"),
        [&[json!(["fixed", "Generated"])], &failing[..]].concat(),
        "the older one"
    );
    assert_eq!(outcome("b"), [&[json!(["fixed", "Collision"])], &failing[..]].concat());
    assert!(service(&zone, "b").1.addresses.is_empty());
}

#[test]
fn an_identity_becomes_ready_with_its_authority() {
    let mut zone = zone(&[IDENTITY, &dataplane("shop-1", "shop", 1, HTTP)]);
    let derived = zone.settle();
    let secret_key = |name: &str| Key::new(Kind::Secret, "default", name);
    let request = AuthorityRequest {
        identity: Key::new(Kind::MeshIdentity, "default", "everyone-x7"),
        trust_domain: "default.east.mesh.local".into(),
        source: AuthoritySource::Generated {
            certificate: secret_key("everyone-root-ca"),
            private_key: secret_key("everyone-private-key"),
        },
    };
    assert_eq!(derived.authorities, [request]);
    assert!(!identity_status(&zone).is_initialized());
    assert_eq!(service(&zone, "shop").1.tls.status, "NotReady");
    assert!(service(&zone, "shop").0.identities.is_empty());

    zone.put(&secret("everyone-root-ca", &pem("AAAA")));
    zone.put(&secret("everyone-private-key", "key"));
    let derived = zone.settle();
    assert_eq!(derived.authorities, []);
    let reasons: Vec<&str> = identity_status(&zone).conditions.iter().map(|c| c.reason.as_str()).collect();
    assert_eq!(reasons, ["ProviderInitialized", "MeshTrustCreated", "Ready"]);
    let trust = zone.get(Kind::MeshTrust, "everyone-x7").to_rest();
    assert_eq!(trust.get("labels"), None);
    assert_eq!(
        trust["spec"],
        json!({"trustDomain": "default.east.mesh.local", "caBundles": [{"type": "Pem", "pem": {"value": pem("AAAA")}}]})
    );
    assert_eq!(trust["status"], json!({"origin": {"kri": "kri_mid_default___everyone_"}}));
    let (spec, status) = service(&zone, "shop");
    assert_eq!(spec.spiffe_ids(), ["spiffe://default.east.mesh.local/workload/shop"]);
    assert_eq!(status.tls.status, "Ready");

    // Rotation: the new authority is appended; the old one stays.
    zone.put(&secret("everyone-root-ca", &pem("BBBB")));
    zone.settle();
    let trust: &MeshTrust = zone.get(Kind::MeshTrust, "everyone-x7").spec_as().unwrap();
    assert_eq!(trust.pems().collect::<Vec<_>>(), [pem("AAAA"), pem("BBBB")]);
    // The same certificate in other line breaks is the same.
    zone.put(&secret("everyone-root-ca", &pem("AA\nAA")));
    assert_eq!(zone.settle().writes, []);

    // Losing the Secrets asks for a new authority, but takes no readiness away.
    zone.remove(Kind::Secret, "everyone-private-key");
    let derived = zone.settle();
    assert_eq!((derived.writes.len(), derived.authorities.len()), (0, 1));
    // TLS readiness is sticky, until there is no identity at all.
    zone.put(
        &dataplane("shop-2", "shop", 2, HTTP)
            .replace("kuma.io/workload: shop", "kuma.io/workload: shop, team: red"),
    );
    zone.put(&IDENTITY.replace("{dataplane: {matchLabels: {}}}", "{dataplane: {matchLabels: {team: red}}}"));
    zone.settle();
    assert_eq!(service(&zone, "shop").1.tls.status, "Ready");
    zone.remove(Kind::MeshIdentity, "everyone-x7");
    zone.settle();
    assert_eq!(service(&zone, "shop").1.tls.status, "NotReady");
    assert!(zone.has(Kind::MeshTrust, "everyone-x7"), "outlives its identity");
}

#[test]
fn identities_that_cannot_be_ready() {
    let provider = |text: &str| IDENTITY.split("  provider:").next().unwrap().to_owned() + text;
    let reasons = |zone: &Zone| -> Vec<String> {
        identity_status(zone).conditions.iter().map(|c| c.reason.clone()).collect()
    };
    for (text, want) in [
        ("", ["SpiffeIDProvided", "PartiallyReady"]),
        (
            "  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}",
            ["ProviderValidationError", "Failure"],
        ),
        ("  provider: {type: Bundled, bundled: {}}", ["ProviderInitializationError", "Failure"]),
        ("  provider: {type: Extension, extension: {name: x}}", ["ProviderNotFoundError", "Failure"]),
        ("  spiffeID: {trustDomain: 'UPPER'}", ["ProviderInitializationError", "Failure"]),
        ("  spiffeID: {trustDomain: '{{ .Nope }}'}", ["ProviderInitializationError", "Failure"]),
        (
            "  provider: {type: Bundled, bundled: {ca: {certificate: {type: Secret, secretRef: {kind: Secret, name: nope}}, privateKey: {type: File, file: {path: /k}}}}}",
            ["ProviderInitializationError", "Failure"],
        ),
    ] {
        let mut zone = zone(&[&provider(text), &dataplane("shop-1", "shop", 1, HTTP)]);
        zone.settle();
        assert_eq!(reasons(&zone), want, "{text}");
        assert_eq!(service(&zone, "shop").0.identities.is_empty(), !text.is_empty(), "{text}");
        assert_eq!(service(&zone, "shop").1.tls.status, "NotReady", "{text}");
    }
}

#[test]
fn a_provided_authority_is_checked_by_the_caller() {
    let provided = IDENTITY.split("  provider:").next().unwrap().to_owned()
        + "  provider: {type: Bundled, bundled: {ca: {certificate: {type: InsecureInline, insecureInline: {value: cert}}, privateKey: {type: EnvVar, envVar: {name: KEY}}}}}";
    let mut zone = zone(&[&provided]);
    let request = zone.settle().authorities.remove(0);
    let source = AuthoritySource::Provided {
        certificate: Material::Bytes(graticule_model::kinds::secret::SecretBytes(b"cert".to_vec())),
        private_key: Material::EnvVar("KEY".into()),
        allow_self_signed: false,
    };
    assert_eq!(request.source, source);
    zone.authorities.insert(
        request.identity.clone(),
        AuthorityReport { source: source.clone(), outcome: Err("no CA".into()) },
    );
    zone.settle();
    assert_eq!(identity_status(&zone).conditions[0].reason, "ProviderValidationError");
    zone.authorities.insert(request.identity.clone(), AuthorityReport { source, outcome: Ok(pem("CCCC")) });
    assert_eq!(zone.settle().authorities, []);
    assert!(identity_status(&zone).is_initialized());
    assert!(zone.has(Kind::MeshTrust, "everyone-x7"));
    // After a restart nothing is reported yet: asked again, still ready.
    zone.authorities.clear();
    let derived = zone.settle();
    assert_eq!((derived.writes.len(), derived.authorities.len()), (0, 1));
}

#[test]
fn a_trust_that_is_not_ours_is_not_changed() {
    let foreign = format!(
        "type: MeshTrust\nmesh: default\nname: everyone-x7\nspec: {{trustDomain: other, caBundles: [{{type: Pem, pem: {{value: {:?}}}}}]}}",
        pem("ZZZZ")
    );
    for labels in ["", "\nlabels: {kuma.io/origin: global}"] {
        let mut zone = zone(&[
            IDENTITY,
            &(foreign.clone() + labels),
            &secret("everyone-root-ca", &pem("AAAA")),
            &secret("everyone-private-key", "k"),
            &dataplane("shop-1", "shop", 1, HTTP),
        ]);
        zone.settle();
        let trust: &MeshTrust = zone.get(Kind::MeshTrust, "everyone-x7").spec_as().unwrap();
        assert_eq!((trust.trust_domain.as_str(), trust.ca_bundles.len()), ("other", 1));
        assert_eq!(identity_status(&zone).conditions[1].reason, "MeshTrustCreationError");
        assert_eq!(service(&zone, "shop").1.tls.status, "NotReady", "its domain is not covered");
    }
}

/// The recorded zones: from the recorded sources (Dataplanes, copies, generators, Secrets) to the recorded result.
#[test]
fn recorded_zones() {
    let Some(dir) = std::env::var_os("GRATICULE_CONFORMANCE_DIR") else {
        println!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
        return;
    };
    let recordings = std::path::PathBuf::from(dir).join("recordings/dataplane/two-zones/cp");
    for name in ["east", "west"] {
        let items = |path: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(recordings.join(name).join(path)).expect("a recording");
            let document: Value = serde_json::from_str(&text).expect("JSON");
            document["body"]["items"].as_array().expect("items").clone()
        };
        let is_copy = |item: &&Value| item["labels"]["kuma.io/origin"] == "global";
        let without_status = |item: &Value| {
            let mut item = item.clone();
            item.as_object_mut().expect("an object").remove("status");
            item
        };
        let mut zone = zone(&[]);
        zone.name = name;
        let mut put = |item: &Value| zone.put(&without_status(item).to_string());
        for item in items("dataplanes.json").iter().chain(&items("hostnamegenerators.json")) {
            put(item);
        }
        let certificate = if name == "east" { "<pem-1>" } else { "<pem-2>" };
        for list in ["meshservices.json", "meshidentities.json", "meshtrusts.json"] {
            for item in items(list).iter().filter(is_copy) {
                put(item);
            }
        }
        for dataplane in items("dataplanes.json") {
            zone.connected.insert(ProxyId::new("default", dataplane["name"].as_str().expect("a name")));
        }
        zone.put(&secret("identity-root-ca", &pem(certificate)));
        zone.put(&secret("identity-private-key", "key"));
        zone.settle();
        for list in ["meshservices.json", "meshidentities.json", "meshtrusts.json", "workloads.json"] {
            for want in items(list) {
                let kind = Kind::from_name(want["type"].as_str().expect("a kind")).expect("known");
                let found = zone.get(kind, want["name"].as_str().expect("a name")).to_rest();
                let comparable = |value: &Value| {
                    let mut value = value.clone();
                    let members = value.as_object_mut().expect("an object");
                    members.retain(|key, _| !key.ends_with("Time"));
                    // Which of two services came first is history, not state.
                    members
                        .get_mut("status")
                        .and_then(Value::as_object_mut)
                        .map(|status| status.remove("vips"));
                    value
                        .to_string()
                        .replace("-----BEGIN CERTIFICATE-----\\n", "")
                        .replace("\\n-----END CERTIFICATE-----\\n", "")
                };
                assert_eq!(comparable(&found), comparable(&want), "{name} {list}");
            }
        }
    }
}
