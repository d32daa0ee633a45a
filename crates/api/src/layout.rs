//! `_layout`: the parts of a proxy and what Envoy calls them (rest-api.md §8.1). Needs resources only.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::dataplane::{Dataplane, ListenerType, Networking};
use graticule_model::kinds::mesh_identity::MeshIdentity;
use graticule_model::{DestinationPort, Kind, Resource, labels};
use graticule_store::Snapshot;
use graticule_view::identity::{IdentityTemplate, best};
use serde_json::{Value, json};

/// Kinds that a proxy may call.
const DESTINATIONS: [Kind; 3] = [Kind::MeshService, Kind::MeshExternalService, Kind::MeshMultiZoneService];

/// Body of `_layout` of a Dataplane.
pub(crate) fn layout(state: &Snapshot, zone: &str, proxy: &Resource) -> Value {
    let Some(dataplane) = proxy.spec_as::<Dataplane>() else { return Value::Null };
    let networking = dataplane.networking();
    let kri = |section: String| proxy.kri().map(|kri| kri.with_section(section).to_string());
    let inbounds: Vec<Value> = networking
        .inbound
        .iter()
        .map(|inbound| {
            let section = inbound.section();
            let protocol = if inbound.protocol.is_empty() { "tcp" } else { &inbound.protocol };
            json!({
                "port": inbound.port,
                "protocol": protocol,
                "proxyResourceName": format!("self_inbound_dp_{section}"),
                "kri": kri(section),
            })
        })
        .collect();
    let listeners: Vec<Value> = networking
        .listeners
        .iter()
        .filter_map(|listener| {
            let (kind, prefix) = match listener.r#type {
                ListenerType::ZoneIngress => ("ZoneIngress", "self_zoneingress_dp"),
                ListenerType::ZoneEgress => ("ZoneEgress", "self_zoneegress_dp"),
                ListenerType::Unspecified => return None,
            };
            let section = listener.section();
            Some(json!({
                "type": kind,
                "port": listener.port,
                "proxyResourceName": format!("{prefix}_{section}"),
                "kri": kri(section),
            }))
        })
        .collect();
    let mut body = json!({
        "kri": proxy.kri().map(|kri| kri.to_string()),
        "labels": proxy.meta.labels,
        "inbounds": inbounds,
        "listeners": listeners,
        "outbounds": outbounds(state, proxy, networking),
    });
    if let Some(id) = spiffe_id(state, zone, proxy) {
        body["spiffeId"] = id.into();
    }
    body
}

/// The id that the best of the initialised MeshIdentities gives.
fn spiffe_id(state: &Snapshot, zone: &str, proxy: &Resource) -> Option<String> {
    let is_ready = |resource: &&Arc<Resource>| {
        resource.status_of::<MeshIdentity>().is_some_and(|status| status.is_initialized())
    };
    let identities = state.list(Kind::MeshIdentity, Some(&proxy.meta.mesh)).filter(is_ready);
    let identity = best(identities, &proxy.meta.labels)?;
    IdentityTemplate::of(identity, zone).ok()?.render(&proxy.meta.labels).ok()
}

/// Destination ports that the proxy can call, by KRI: those of its explicit outbounds if they lead anywhere, else
/// those that it limits itself to, else all (policy-engine.md §4.4).
fn outbounds(state: &Snapshot, proxy: &Resource, networking: &Networking) -> Vec<Value> {
    let explicit = reachable(state, proxy, Some(&explicit(proxy, networking)));
    let found = if explicit.is_empty() {
        reachable(state, proxy, limits(proxy, networking).as_deref())
    } else {
        explicit
    };
    let outbound = |(kri, port): (String, DestinationPort)| json!({"port": port.number, "protocol": port.protocol, "proxyResourceName": kri, "kri": kri});
    found.into_iter().map(outbound).collect()
}

/// Destination ports of the mesh that are wanted, by KRI; `None` wants all.
fn reachable(
    state: &Snapshot,
    proxy: &Resource,
    wanted: Option<&[Wanted]>,
) -> BTreeMap<String, DestinationPort> {
    let mut found = BTreeMap::new();
    for kind in DESTINATIONS {
        for destination in state.list(kind, Some(&proxy.meta.mesh)) {
            let Some(kri) = destination.kri() else { continue };
            for port in destination.ports() {
                if wanted.is_none_or(|all| all.iter().any(|one| one.covers(destination, &port))) {
                    found.insert(kri.clone().with_section(port.section.clone()).to_string(), port);
                }
            }
        }
    }
    found
}

/// A reference to destinations, normalised.
struct Wanted {
    kind: String,
    labels: BTreeMap<String, String>,
    /// Absent: all ports.
    port: Option<u32>,
}

/// What the explicit outbounds refer to.
fn explicit(proxy: &Resource, networking: &Networking) -> Vec<Wanted> {
    let own_namespace = proxy.meta.namespace().unwrap_or_default();
    networking
        .outbound
        .iter()
        .filter_map(|outbound| outbound.backend_ref.as_ref())
        .map(|backend| {
            let port = Some(backend.port).filter(|port| *port > 0);
            Wanted::new(&backend.kind, &backend.name, own_namespace, &backend.labels, port)
        })
        .collect()
}

/// What the proxy limits itself to; `None`: nothing is excluded.
fn limits(proxy: &Resource, networking: &Networking) -> Option<Vec<Wanted>> {
    let own_namespace = proxy.meta.namespace().unwrap_or_default();
    let reachable = networking.transparent_proxying.as_ref()?.reachable_backends.as_ref()?;
    let refs = reachable.refs.iter().map(|backend| {
        let namespace = if backend.namespace.is_empty() { own_namespace } else { &backend.namespace };
        let port = backend.port.filter(|port| *port > 0);
        Wanted::new(&backend.kind, &backend.name, namespace, &backend.labels, port)
    });
    Some(refs.collect())
}

impl Wanted {
    fn new(
        kind: &str,
        name: &str,
        namespace: &str,
        given: &BTreeMap<String, String>,
        port: Option<u32>,
    ) -> Wanted {
        if !given.is_empty() {
            return Wanted { kind: kind.into(), labels: given.clone(), port };
        }
        let legacy = (kind == Kind::MeshService.name()).then(|| legacy_name(name)).flatten();
        let (name, namespace, port) = match legacy {
            Some((name, namespace, own_port)) => (name, namespace, port.or(Some(own_port))),
            None => (name, namespace, port),
        };
        let mut wanted = BTreeMap::from([(labels::DISPLAY_NAME.to_owned(), name.to_owned())]);
        if !namespace.is_empty() {
            wanted.insert(labels::NAMESPACE.into(), namespace.into());
        }
        Wanted { kind: kind.into(), labels: wanted, port }
    }

    fn covers(&self, destination: &Resource, port: &DestinationPort) -> bool {
        let has = |(label, value): (&String, &String)| {
            if label == labels::DISPLAY_NAME {
                destination.meta.display_name() == value
            } else {
                destination.meta.label(label) == Some(value)
            }
        };
        self.kind == destination.kind().name()
            && self.port.is_none_or(|wanted| wanted == port.number)
            && self.labels.iter().all(has)
    }
}

/// `<service>_<namespace>_svc_<port>`
fn legacy_name(name: &str) -> Option<(&str, &str, u32)> {
    let parts: Vec<&str> = name.split('_').collect();
    let [service, namespace, "svc", port] = parts[..] else { return None };
    Some((service, namespace, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use graticule_model::{Meta, yaml};
    use graticule_store::{MemoryStore, Store, Txn};

    use super::*;

    const STATE: &str = "
type: MeshService
mesh: m
name: a-hash
labels: {kuma.io/display-name: a, kuma.io/zone: z, k8s.kuma.io/namespace: shop}
spec: {ports: [{port: 80, name: http, appProtocol: http}, {port: 81}]}
---
type: MeshExternalService
mesh: m
name: e
labels: {team: x}
spec: {match: {type: HostnameGenerator, port: 443, protocol: tcp}}
---
type: MeshMultiZoneService
mesh: m
name: z
spec: {selector: {meshService: {matchLabels: {a: b}}}, ports: [{port: 82, appProtocol: grpc}]}
---
type: MeshService
mesh: other
name: o
spec: {ports: [{port: 80}]}
";

    fn state() -> Snapshot {
        let store = MemoryStore::new(|| graticule_model::Timestamp::UNIX_EPOCH);
        for document in yaml::parse_all(STATE).expect("documents") {
            let kind = Kind::from_name(document["type"].as_str().expect("a type")).expect("a kind");
            let resource = Resource::from_rest(kind, &document).expect("a resource");
            store.commit_now(Txn::put(resource)).expect("stored");
        }
        store.snapshot()
    }

    fn check(networking: Value, want: &[&str]) {
        let spec: Dataplane = serde_json::from_value(json!({"networking": networking})).expect("a dataplane");
        let layout = layout(&state(), "east", &Resource::new(Meta::new("m", "d"), spec));
        let kris: BTreeSet<&str> = layout["outbounds"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|o| o["kri"].as_str())
            .collect();
        assert_eq!(kris, want.iter().copied().collect(), "{networking}");
    }

    #[test]
    fn outbounds_of_a_proxy() {
        const HTTP: &str = "kri_msvc_m_z_shop_a_http";
        const PLAIN: &str = "kri_msvc_m_z_shop_a_81";
        const EXTERNAL: &str = "kri_extsvc_m___e_443";
        const MULTI: &str = "kri_mzsvc_m___z_82";
        let reachable = |refs: Value| json!({"transparentProxying": {"reachableBackends": {"refs": refs}}});
        let outbound = |backend: Value| json!({"outbound": [{"port": 1, "backendRef": backend}]});
        check(json!({}), &[HTTP, PLAIN, EXTERNAL, MULTI]);
        check(reachable(json!([])), &[]);
        check(reachable(json!([{"kind": "MeshService", "name": "a"}])), &[HTTP, PLAIN]);
        check(reachable(json!([{"kind": "MeshService", "name": "a", "port": 81}])), &[PLAIN]);
        check(reachable(json!([{"kind": "MeshService", "name": "a", "namespace": "x"}])), &[]);
        check(reachable(json!([{"kind": "MeshService", "name": "a_shop_svc_80"}])), &[HTTP]);
        check(reachable(json!([{"kind": "MeshExternalService", "labels": {"team": "x"}}])), &[EXTERNAL]);
        check(outbound(json!({"kind": "MeshMultiZoneService", "name": "z", "port": 82})), &[MULTI]);
        let nowhere = outbound(json!({"kind": "MeshMultiZoneService", "name": "a", "port": 82}));
        check(nowhere, &[HTTP, PLAIN, EXTERNAL, MULTI]);
    }
}
