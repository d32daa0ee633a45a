use graticule_model::kinds::mesh_service::MeshService;
use graticule_policy::inputs::{ClusterRole, Endpoint, Endpoints, Locality, Routing, TransparentProxy};
use serde_json::{Value, json};

use super::*;
use crate::testing::{resource, resources};

mod property;

/// What zone `north` holds of a shop in zone `south` that it calls, and of its own `till` and ingress.
const NORTH: &str = r#"
{type: Mesh, name: default}
---
type: Dataplane
mesh: default
name: till-1
labels: {kuma.io/display-name: till-1, kuma.io/workload: till, kuma.io/zone: north, kuma.io/origin: zone}
networking:
  address: 10.1.0.1
  inbound: [{port: 3000, name: web, protocol: http, servicePort: 3001}]
  outbound:
  - {address: 127.0.0.2, port: 9000, backendRef: {kind: MeshService, port: 8080, labels: {kuma.io/display-name: shop, kuma.io/zone: south}}}
---
type: Dataplane
mesh: default
name: ingress-1
labels: {kuma.io/workload: ingress, kuma.io/zone: north}
networking: {address: 10.1.0.9, listeners: [{type: ZoneIngress, port: 10001, name: door}]}
---
type: MeshService
mesh: default
name: till
labels: {kuma.io/display-name: till, kuma.io/zone: north, kuma.io/origin: zone}
spec:
  state: Available
  selector: {dataplaneLabels: {matchLabels: {kuma.io/workload: till}}}
  ports: [{name: web, port: 3000, targetPort: 3000, appProtocol: http}]
  identities: [{type: SpiffeID, value: "spiffe://default.north.mesh.local/workload/till"}]
status: {vips: [{ip: 241.0.0.1}], tls: {status: Ready}, addresses: [{hostname: till.svc.mesh.local}]}
---
type: MeshService
mesh: default
name: shop-42
labels: {kuma.io/display-name: shop, kuma.io/zone: south, kuma.io/origin: global}
spec:
  state: Available
  selector: {dataplaneLabels: {matchLabels: {kuma.io/workload: shop}}}
  ports: [{name: http, port: 8080, targetPort: 8080, appProtocol: http}]
  identities: [{type: SpiffeID, value: "spiffe://default.south.mesh.local/workload/shop"}]
status: {vips: [{ip: 241.0.0.2}], addresses: [{hostname: shop.svc.south.mesh.local}]}
---
type: MeshZoneAddress
mesh: default
name: door-42
labels: {kuma.io/zone: south, kuma.io/origin: global}
spec: {address: 10.2.0.9, port: 10001}
---
type: MeshIdentity
mesh: default
name: everyone-42
labels: {kuma.io/display-name: everyone, kuma.io/origin: global}
spec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: {insecureAllowSelfSigned: true, autogenerate: {enabled: true}}}}
status: {conditions: [{type: Ready, status: "True", reason: Ready}]}
---
type: MeshTimeout
mesh: default
name: shop-slow
labels: {kuma.io/display-name: shop-slow, kuma.io/origin: global}
spec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: shop}}, default: {connectionTimeout: 7s}}]}
"#;

fn pem(body: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

fn trust(name: &str, origin: &str, domain: &str, body: &str) -> Arc<Resource> {
    use graticule_model::kinds::mesh_trust::MeshTrust;
    let mut meta = graticule_model::Meta::new("default", name);
    meta.labels.insert(graticule_model::labels::ORIGIN.into(), origin.into());
    Arc::new(Resource::new(meta, MeshTrust::of_pem(domain, pem(body))))
}

fn proxy(name: &str) -> ProxyId {
    ProxyId::new("default", name)
}

fn index(text: &str) -> Index {
    let life = ConnectionLife { max_requests: 100, max_duration_ms: 5000 };
    let mut index = Index::new(ZoneSettings { cross_zone: Some(life), ..ZoneSettings::new("north") });
    index.reset(resources(text).into_iter());
    index
}

fn put(index: &mut Index, resource: Arc<Resource>) -> Dirty {
    index.apply(&[(resource.key(), Some(resource))])
}

fn connect(index: &mut Index, name: &str) -> Arc<ProxyInputs> {
    let dirty = index.connect(proxy(name), NodeFacts { ipv6: true, ..NodeFacts::default() });
    assert_eq!(dirty.proxies, BTreeSet::from([proxy(name)]));
    inputs(index, name)
}

fn inputs(index: &mut Index, name: &str) -> Arc<ProxyInputs> {
    let assembled = index.inputs(&proxy(name)).expect("inputs");
    assert_eq!(assembled.warnings, [] as [String; 0]);
    assembled.inputs
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("JSON")
}

#[test]
fn a_client_of_another_zone() {
    let mut index = index(NORTH);
    let inputs = connect(&mut index, "till-1");
    assert_eq!(
        json(&inputs.identity),
        json!({"secret_name": "kri_mid_default___everyone_", "spiffe_id": "spiffe://default.north.mesh.local/workload/till"})
    );
    let outbound = json(&inputs.outbounds);
    // A reference by port number keeps the number, the server name has the port's name.
    let name = "kri_msvc_default_south__shop_8080";
    assert_eq!(outbound[0]["name"], name);
    assert_eq!((&outbound[0]["address"], &outbound[0]["port"]), (&json!("127.0.0.2"), &json!(9000)));
    assert_eq!(outbound[0]["bind_to_port"], Value::Null);
    assert_eq!(inputs.outbounds.len(), 1);
    let Routing::Http(routes) = &inputs.outbounds[0].routing else { panic!("HTTP") };
    assert_eq!((routes.len(), routes[0].split[0].cluster.as_str()), (1, name));
    let cluster = &inputs.clusters[name];
    assert_eq!(cluster.role, ClusterRole::Outbound);
    assert_eq!(
        json(&cluster.tls),
        json!({"sni": "sni.msvc.default.south.shop.http", "spiffe_ids": ["spiffe://default.south.mesh.local/workload/shop"],
            "identity_secret": "kri_mid_default___everyone_", "params": {}})
    );
    assert_eq!(json(&cluster.timeout)["connectionTimeout"], "7s");
    assert_eq!(cluster.connection_life.map(|life| life.max_requests), Some(100));
    let metadata = BTreeMap::from([("kuma.io/zone".to_owned(), "south".to_owned())]);
    let endpoint = Endpoint { address: "10.2.0.9".into(), port: 10001, weight: 1, metadata };
    let locality = Locality { zone: Some("south".into()), priority: 1, endpoints: vec![endpoint] };
    assert_eq!(*cluster.endpoints, Endpoints { localities: vec![locality] });
    let inbound = &inputs.inbounds[0];
    assert_eq!(
        (
            inbound.section.as_str(),
            inbound.address.as_str(),
            inbound.port,
            inbound.workload_address.as_str(),
            inbound.workload_port
        ),
        ("web", "10.1.0.1", 3000, "10.1.0.1", 3001)
    );
    assert!(inputs.dns.is_none() && inputs.zone_ingresses.is_empty() && inputs.transparent_proxy.is_none());
}

#[test]
fn an_ingress() {
    let mut index = index(NORTH);
    let inputs = connect(&mut index, "ingress-1");
    let name = "kri_msvc_default_north__till_web";
    assert_eq!(
        json(&inputs.zone_ingresses),
        json!([{"section": "door", "address": "10.1.0.9", "port": 10001, "timeout": "Defaults",
            "chains": [{"sni": "sni.msvc.default.north.till.web", "cluster": name}]}])
    );
    assert_eq!(inputs.clusters.keys().collect::<Vec<_>>(), [name], "own services only");
    let cluster = &inputs.clusters[name];
    assert_eq!(
        (cluster.role, &cluster.tls, cluster.connection_life),
        (ClusterRole::ZoneIngress, &None, None)
    );
    assert_eq!(
        json(&cluster.endpoints),
        json!({"localities": [{"zone": "north", "priority": 0, "endpoints": [{"address": "10.1.0.1", "port": 3000, "weight": 1,
            "metadata": {"kuma.io/display-name": "till-1", "kuma.io/workload": "till", "kuma.io/zone": "north",
                "kuma.io/origin": "zone", "kuma.io/protocol": "http"}}]}]})
    );
    assert!(inputs.outbounds.is_empty());
}

#[test]
fn transparent_outbounds_and_dns() {
    let mut index = index(NORTH);
    let client = |reachable: &str| {
        resource(&format!(
            "type: Dataplane\nmesh: default\nname: c-1\nlabels: {{kuma.io/workload: c, kuma.io/zone: north}}\n\
             networking: {{address: 10.1.0.7, inbound: [{{port: 1}}], transparentProxying: {{redirectPortInbound: 15006, redirectPortOutbound: 15001{reachable}}}}}"
        ))
    };
    put(&mut index, client(""));
    index.connect(proxy("c-1"), NodeFacts { ipv6: true, dns_port: 15053, ..NodeFacts::default() });
    let found = inputs(&mut index, "c-1");
    let outbounds: Vec<_> = found
        .outbounds
        .iter()
        .map(|o| (o.name.as_str(), o.address.as_str(), o.port, o.bind_to_port))
        .collect();
    assert_eq!(
        outbounds,
        [
            ("kri_msvc_default_north__till_web", "241.0.0.1", 3000, Some(false)),
            ("kri_msvc_default_south__shop_http", "241.0.0.2", 8080, Some(false)),
        ]
    );
    assert_eq!(
        found.transparent_proxy,
        Some(TransparentProxy { inbound_port: Some(15006), outbound_port: Some(15001), ipv6: true })
    );
    assert_eq!(
        json(&found.dns),
        json!({"records": {"till.svc.mesh.local": ["241.0.0.1", "::ffff:f100:1"], "shop.svc.south.mesh.local": ["241.0.0.2", "::ffff:f100:2"]},
            "extra_labels": {"mesh": "default", "kuma_io_zone": "north", "kuma_workload": "c"}})
    );
    for (refs, want) in [
        ("", vec![]),
        (
            "{kind: MeshService, labels: {kuma.io/display-name: shop}, port: 8080}",
            vec!["kri_msvc_default_south__shop_http"],
        ),
        ("{kind: MeshService, labels: {kuma.io/display-name: shop}, port: 8081}", vec![]),
        ("{kind: MeshService, name: till}", vec!["kri_msvc_default_north__till_web"]),
    ] {
        put(&mut index, client(&format!(", reachableBackends: {{refs: [{refs}]}}")));
        let found = inputs(&mut index, "c-1");
        assert_eq!(found.outbounds.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), want, "{refs}");
        assert_eq!(found.dns.as_ref().expect("on").records.len(), want.len());
    }
}

#[test]
fn what_makes_tls() {
    let mut index = index(NORTH);
    put(&mut index, resource("{type: Dataplane, mesh: default, name: c-1, labels: {kuma.io/workload: c}, networking: {address: 10.1.0.7, outbound: [
        {port: 1, backendRef: {kind: MeshService, name: till, port: 3000}}, {port: 2, backendRef: {kind: MeshService, name: shop, port: 8080}}]}}"));
    let tls = |index: &mut Index| -> Vec<bool> {
        inputs(index, "c-1").clusters.values().map(|cluster| cluster.tls.is_some()).collect()
    };
    connect(&mut index, "c-1");
    assert_eq!(tls(&mut index), [true, true], "own and remote");
    let mut till = Resource::clone(
        index.resources().get(&Key::new(Kind::MeshService, "default", "till")).expect("stored"),
    );
    let Status::MeshService(status) = &mut till.status else { panic!("a service") };
    status.tls.status = "NotReady".into();
    put(&mut index, Arc::new(till));
    assert_eq!(tls(&mut index), [false, true], "an own service may not be ready");
    let mut identity = Resource::clone(
        index.resources().get(&Key::new(Kind::MeshIdentity, "default", "everyone-42")).expect("stored"),
    );
    identity.status = Status::empty(Kind::MeshIdentity);
    put(&mut index, Arc::new(identity));
    assert_eq!(tls(&mut index), [false, false], "without a ready identity everything is plaintext");
    assert!(index.best_identity("default", &BTreeMap::new()).expect("selected").needs_workload);
}

#[test]
fn trusts_are_merged() {
    let mut index = index(NORTH);
    connect(&mut index, "till-1");
    put(&mut index, trust("own", "zone", "n", "AAAA"));
    for (trust, is_news) in [
        (trust("copy", "global", "n", "AA\nAA"), false),
        (trust("next", "zone", "n", "BBBB"), true),
        (trust("south", "global", "s", "AAAA"), true),
    ] {
        let dirty = put(&mut index, trust);
        assert_eq!(dirty.proxies.len(), usize::from(is_news));
    }
    let want = BTreeMap::from([
        ("n".to_owned(), vec![pem("BBBB"), pem("AAAA")]),
        ("s".to_owned(), vec![pem("AAAA")]),
    ]);
    assert_eq!(inputs(&mut index, "till-1").trust.domains, want);
}

use graticule_model::Status;

#[test]
fn who_is_dirty() {
    let mut index = index(NORTH);
    put(
        &mut index,
        resource(
            "{type: Dataplane, mesh: default, name: server-1, labels: {kuma.io/workload: server}, networking: {address: 10.1.0.8, inbound: [{port: 1}]}}",
        ),
    );
    for name in ["till-1", "ingress-1", "server-1"] {
        connect(&mut index, name);
    }
    let edit = |index: &Index, kind: Kind, name: &str, change: &dyn Fn(&mut Resource)| {
        let mut resource =
            Resource::clone(index.resources().get(&Key::new(kind, "default", name)).expect("stored"));
        change(&mut resource);
        Arc::new(resource)
    };
    let service_spec = |change: fn(&mut MeshService)| {
        move |resource: &mut Resource| match &mut resource.spec {
            graticule_model::Spec::MeshService(spec) => change(spec),
            other => panic!("{other:?}"),
        }
    };
    let till_down = edit(&index, Kind::Dataplane, "till-1", &|resource| {
        let graticule_model::Spec::Dataplane(spec) = &mut resource.spec else { panic!("a Dataplane") };
        spec.networking.as_mut().expect("set").inbound[0].state =
            graticule_model::kinds::dataplane::InboundState::NotReady;
    });
    let counters = edit(&index, Kind::MeshService, "till", &|resource| {
        let Status::MeshService(status) = &mut resource.status else { panic!("a service") };
        status.dataplane_proxies.connected = 9;
    });
    let state = edit(&index, Kind::MeshService, "shop-42", &service_spec(|spec| spec.state = None));
    let identities =
        edit(&index, Kind::MeshService, "shop-42", &service_spec(|spec| spec.identities.clear()));
    let touched = edit(&index, Kind::Dataplane, "server-1", &|resource| resource.meta.version += 1);
    let cases: Vec<(&str, Arc<Resource>, &[&str])> = vec![
        ("counters", counters, &[]),
        ("state of a service", state, &[]),
        ("a touch", touched, &[]),
        ("an insight", resource("{type: DataplaneInsight, mesh: default, name: till-1}"), &[]),
        ("a workload", resource("{type: Workload, mesh: default, name: till, spec: {}}"), &[]),
        ("a zone", resource("{type: Zone, name: south}"), &[]),
        ("identities of a used service", identities, &["till-1"]),
        ("an endpoint goes", till_down, &["till-1", "ingress-1"]),
        (
            "an address of the other zone",
            resource(
                "{type: MeshZoneAddress, mesh: default, name: b, labels: {kuma.io/zone: south}, spec: {address: 10.2.0.8, port: 1}}",
            ),
            &["till-1"],
        ),
        (
            "the same address again",
            resource(
                "{type: MeshZoneAddress, mesh: default, name: c, labels: {kuma.io/zone: south}, spec: {address: 10.2.0.8, port: 1}}",
            ),
            &[],
        ),
        (
            "an address of a third zone",
            resource(
                "{type: MeshZoneAddress, mesh: default, name: d, labels: {kuma.io/zone: x}, spec: {address: 10.3.0.8, port: 1}}",
            ),
            &[],
        ),
        (
            "a service appears",
            resource("{type: MeshService, mesh: default, name: e, spec: {selector: {}, ports: [{port: 1}]}}"),
            &["till-1", "ingress-1"],
        ),
        (
            "a policy",
            resource(
                "{type: MeshTimeout, mesh: default, name: t, spec: {to: [{targetRef: {kind: Mesh}, default: {connectionTimeout: 1s}}]}}",
            ),
            &["till-1", "ingress-1", "server-1"],
        ),
        ("a policy of another mesh", resource("{type: MeshTimeout, mesh: other, name: t, spec: {}}"), &[]),
    ];
    for (what, resource, want) in cases {
        let dirty = put(&mut index, resource);
        assert_eq!(dirty.proxies, want.iter().map(|name| proxy(name)).collect(), "{what}");
        for proxy in dirty.proxies {
            index.inputs(&proxy).expect("inputs");
        }
    }
}

#[test]
fn observation_takes_endpoints_away() {
    let mut index = index(NORTH);
    connect(&mut index, "ingress-1");
    let count = |index: &mut Index| {
        let inputs = inputs(index, "ingress-1");
        inputs.clusters["kri_msvc_default_north__till_web"].endpoints.localities.len()
    };
    let none: &[ProxyId] = &[];
    for (serving, want_dirty, want) in [
        (Serving::Serving, none, 1),
        (Serving::Draining, &[proxy("ingress-1")], 0),
        (Serving::Gone, none, 0),
        (Serving::Starting, none, 0),
        (Serving::Unknown, &[proxy("ingress-1")], 1),
    ] {
        let dirty = index.set_serving(proxy("till-1"), serving);
        assert_eq!(dirty.proxies.into_iter().collect::<Vec<_>>(), want_dirty, "{serving:?}");
        assert_eq!(dirty.meshes.len(), want_dirty.len());
        assert_eq!(count(&mut index), want, "{serving:?}");
    }
}

#[test]
fn names_as_addresses() {
    let mut index = index(NORTH);
    put(
        &mut index,
        resource(
            "{type: MeshZoneAddress, mesh: default, name: door-42, labels: {kuma.io/zone: south}, spec: {address: door.south, port: 1}}",
        ),
    );
    let inputs = connect(&mut index, "till-1");
    assert_eq!(inputs.clusters["kri_msvc_default_south__shop_8080"].endpoints.localities.len(), 0);
    assert_eq!(index.unresolved(), BTreeSet::from(["door.south".to_owned()]));
    let address: IpAddr = "10.2.0.5".parse().expect("an address");
    assert_eq!(index.set_resolved("door.south", Some(address)).proxies, BTreeSet::from([proxy("till-1")]));
    assert!(index.set_resolved("door.south", Some(address)).is_empty());
    assert!(index.unresolved().is_empty());
    let inputs = self::inputs(&mut index, "till-1");
    let endpoints = &inputs.clusters["kri_msvc_default_south__shop_8080"].endpoints;
    assert_eq!(endpoints.localities[0].endpoints[0].address, "10.2.0.5");
    put(
        &mut index,
        resource(
            "{type: Dataplane, mesh: default, name: till-1, networking: {address: till.north, inbound: [{port: 1}]}}",
        ),
    );
    let error = index.inputs(&proxy("till-1")).expect_err("no address");
    assert_eq!(error.to_string(), "proxy default.till-1: networking.address \"till.north\" does not resolve");
    index.set_resolved("till.north", Some(address));
    assert_eq!(self::inputs(&mut index, "till-1").inbounds[0].address, "10.2.0.5");
}

#[test]
fn equal_parts_are_shared() {
    let mut index = index(NORTH);
    for name in ["till-2", "till-3"] {
        let first = index.resources().get(&Key::new(Kind::Dataplane, "default", "till-1")).expect("stored");
        let mut copy = Resource::clone(first);
        copy.meta.name = name.into();
        put(&mut index, Arc::new(copy));
    }
    let (a, b) = (connect(&mut index, "till-2"), connect(&mut index, "till-3"));
    assert!(Arc::ptr_eq(&a.outbounds[0], &b.outbounds[0]));
    let name = "kri_msvc_default_south__shop_8080";
    assert!(Arc::ptr_eq(&a.clusters[name], &b.clusters[name]) && Arc::ptr_eq(&a.trust, &b.trust));
    let again = inputs(&mut index, "till-2");
    assert!(Arc::ptr_eq(&a.clusters[name], &again.clusters[name]));
}

#[test]
fn what_cannot_be_done_is_said() {
    let mut index = index(NORTH);
    put(&mut index, resource("{type: Dataplane, mesh: default, name: c-1, networking: {address: 10.1.0.7, outbound: [
        {port: 1, backendRef: {kind: MeshService, name: nobody, port: 1}}, {port: 2, backendRef: {kind: MeshService, name: till, port: 3000}},
        {port: 2, backendRef: {kind: MeshService, name: shop, port: 8080}}]}}"));
    index.connect(proxy("c-1"), NodeFacts::default());
    let assembled = index.inputs(&proxy("c-1")).expect("inputs");
    assert_eq!(assembled.inputs.outbounds.len(), 1);
    assert_eq!(
        assembled.warnings,
        [
            "networking.outbound[0]: no destination matches",
            "outbound kri_msvc_default_south__shop_8080 on 127.0.0.1:2: declared twice, the first one counts",
        ]
    );
    assert_eq!(index.inputs(&proxy("x")).expect_err("unknown"), InputsError::NotConnected(proxy("x")));
    index.connect(proxy("x"), NodeFacts::default());
    assert_eq!(index.inputs(&proxy("x")).expect_err("unknown"), InputsError::NoDataplane(proxy("x")));
}

#[test]
fn a_proxy_without_its_mesh_is_given_nothing_new() {
    let mut index = index(NORTH);
    connect(&mut index, "till-1");
    let mesh = Key::new(Kind::Mesh, "", "default");
    // Its identity and its policies went with the mesh; what it has is better than what could be made without them.
    index.apply(&[(mesh, None)]);
    assert_eq!(index.inputs(&proxy("till-1")).expect_err("no mesh"), InputsError::NoMesh(proxy("till-1")));
    assert!(put(&mut index, resource("{type: Mesh, name: default}")).proxies.contains(&proxy("till-1")));
    inputs(&mut index, "till-1");
}
