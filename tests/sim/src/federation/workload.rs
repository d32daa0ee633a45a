//! What people and zones write.

use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Resource};
use graticule_runtime::Random;
use graticule_store::{CommitError, Committed, Expect, Store as _, Txn};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::oracle::{OP, Op, Oracle, Site};
use super::site::zone_name;
use super::world::Replica;

/// Pause of a writer between two writes, on average.
const PAUSE: Duration = Duration::from_millis(350);
/// A certificate as far as validation looks.
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";

/// What a resource is made from: its kind, the beginning of its name, how many names there are.
#[derive(Debug, Clone, Copy)]
struct Model {
    kind: Kind,
    stem: &'static str,
    names: u64,
}

const fn model(kind: Kind, stem: &'static str, names: u64) -> Model {
    Model { kind, stem, names }
}

/// What is written at global.
const AT_GLOBAL: &[Model] = &[
    model(Kind::Mesh, "mesh", 3),
    model(Kind::MeshTimeout, "timeout", 6),
    model(Kind::MeshTimeout, "timeout", 6),
    model(Kind::MeshRetry, "retry", 3),
    model(Kind::MeshCircuitBreaker, "breaker", 3),
    model(Kind::HostnameGenerator, "names", 2),
    model(Kind::HostnameGenerator, "multi", 2),
    model(Kind::MeshMultiZoneService, "multi", 3),
    model(Kind::MeshExternalService, "external", 2),
    model(Kind::MeshOpenTelemetryBackend, "otel", 1),
    model(Kind::MeshTrust, "trust-global", 1),
    model(Kind::Secret, "secret", 3),
    model(Kind::GlobalSecret, "global-secret", 2),
    model(Kind::GlobalSecret, "user-token-signing-key", 2),
    model(Kind::MeshIdentity, "identity", 1),
    model(Kind::MeshAccessLog, "log", 1),
    model(Kind::MeshFaultInjection, "fault", 1),
    model(Kind::MeshHealthCheck, "health", 1),
    model(Kind::MeshHTTPRoute, "http", 1),
    model(Kind::MeshLoadBalancingStrategy, "balance", 1),
    model(Kind::MeshMetric, "metric", 1),
    model(Kind::MeshPassthrough, "pass", 1),
    model(Kind::MeshProxyPatch, "patch", 1),
    model(Kind::MeshRateLimit, "limit", 1),
    model(Kind::MeshTCPRoute, "tcp", 1),
    model(Kind::MeshTLS, "tls", 1),
    model(Kind::MeshTrace, "trace", 1),
    model(Kind::MeshTrafficPermission, "permission", 1),
];

/// What is written in a zone.
const IN_ZONE: &[Model] = &[
    model(Kind::Dataplane, "dp", 5),
    model(Kind::Dataplane, "dp", 5),
    model(Kind::MeshService, "service", 6),
    model(Kind::MeshService, "service", 6),
    model(Kind::MeshZoneAddress, "address", 1),
    model(Kind::Workload, "workload", 2),
    model(Kind::MeshTimeout, "timeout", 3),
    model(Kind::MeshTimeout, "producer", 3),
    model(Kind::MeshRetry, "retry", 2),
    model(Kind::MeshExternalService, "external", 2),
    model(Kind::HostnameGenerator, "names", 1),
    model(Kind::MeshTrust, "trust", 1),
    model(Kind::Secret, "own-secret", 1),
    model(Kind::MeshIdentity, "identity", 1),
    model(Kind::MeshOpenTelemetryBackend, "otel", 1),
    model(Kind::MeshAccessLog, "log", 1),
    model(Kind::MeshCircuitBreaker, "breaker", 1),
    model(Kind::MeshFaultInjection, "fault", 1),
    model(Kind::MeshHealthCheck, "health", 1),
    model(Kind::MeshHTTPRoute, "producer", 1),
    model(Kind::MeshLoadBalancingStrategy, "balance", 1),
    model(Kind::MeshMetric, "metric", 1),
    model(Kind::MeshPassthrough, "pass", 1),
    model(Kind::MeshProxyPatch, "patch", 1),
    model(Kind::MeshRateLimit, "limit", 1),
    model(Kind::MeshTCPRoute, "tcp", 1),
    model(Kind::MeshTLS, "tls", 1),
    model(Kind::MeshTrace, "trace", 1),
    model(Kind::MeshTrafficPermission, "permission", 1),
];

fn number(op: Op, below: u64) -> u64 {
    1 + op % (below - 1)
}

/// The document of a model. Its contents follow from the number of the write.
fn spec(model: Model, op: Op, zone: &str) -> Value {
    match model.kind {
        Kind::MeshTimeout if model.stem == "producer" => json!({
            "to": [{
                "targetRef": {"kind": "MeshService", "labels": {"kuma.io/display-name": "service-1"}},
                "default": {"idleTimeout": format!("{op}s")},
            }],
        }),
        Kind::MeshTimeout => {
            json!({"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": format!("{op}s")}}]})
        }
        Kind::MeshRetry => json!({
            "to": [{"targetRef": {"kind": "Mesh"}, "default": {"http": {"numRetries": op}}}],
        }),
        Kind::MeshCircuitBreaker => json!({
            "to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionLimits": {"maxConnections": op}}}],
        }),
        Kind::HostnameGenerator => {
            let selector = if model.stem == "multi" { "meshMultiZoneService" } else { "meshService" };
            json!({
                "selector": {selector: {"matchLabels": {"op": op.to_string()}}},
                "template": "{{ .DisplayName }}.test.mesh",
            })
        }
        Kind::MeshMultiZoneService => json!({
            "selector": {"meshService": {"matchLabels": {"op": op.to_string()}}},
            "ports": [{"port": 80, "appProtocol": "http"}],
        }),
        Kind::MeshExternalService => json!({
            "match": {"type": "HostnameGenerator", "port": number(op, 60_000), "protocol": "http"},
            "endpoints": [{"address": "192.0.2.1", "port": 80}],
        }),
        Kind::MeshOpenTelemetryBackend => {
            json!({"endpoint": {"address": "192.0.2.1", "port": number(op, 60_000)}})
        }
        Kind::MeshTrust => json!({
            "trustDomain": if zone.is_empty() { "global.test".to_owned() } else { format!("{zone}.test") },
            "caBundles": [{"type": "Pem", "pem": {"value": format!("{op}\n{PEM}")}}],
        }),
        Kind::MeshService => json!({"ports": [{"port": number(op, 60_000), "targetPort": 80}]}),
        Kind::MeshZoneAddress => json!({"address": "192.0.2.1", "port": number(op, 60_000)}),
        _ => other_spec(model.kind, op),
    }
}

/// The documents of policies that are written less often.
fn other_spec(kind: Kind, op: Op) -> Value {
    let to = |target: Value, default: Value| json!({"to": [{"targetRef": target, "default": default}]});
    let mesh = || json!({"kind": "Mesh"});
    let service = || json!({"kind": "MeshService", "labels": {"kuma.io/display-name": "service-1"}});
    let rules = |default: Value| json!({"rules": [{"default": default}]});
    match kind {
        Kind::MeshIdentity => json!({
            "selector": {"dataplane": {"matchLabels": {"op": op.to_string()}}},
            "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": true}}},
        }),
        Kind::MeshAccessLog => {
            to(mesh(), json!({"backends": [{"type": "File", "file": {"path": format!("/var/log/{op}")}}]}))
        }
        Kind::MeshFaultInjection => {
            rules(json!({"http": [{"abort": {"httpStatus": 500, "percentage": 1 + op % 90}}]}))
        }
        Kind::MeshHealthCheck => {
            to(mesh(), json!({"interval": "10s", "unhealthyThreshold": 1 + op % 9, "tcp": {"send": "YQ=="}}))
        }
        Kind::MeshHTTPRoute => json!({"to": [{"targetRef": service(), "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/{op}")}}], "default": {},
        }]}]}),
        Kind::MeshTCPRoute => json!({"to": [{"targetRef": service(), "rules": [{
            "default": {"backendRefs": [{"kind": "MeshService", "labels": {"op": op.to_string()}, "weight": 1}]},
        }]}]}),
        Kind::MeshLoadBalancingStrategy => to(
            mesh(),
            json!({"loadBalancer": {"type": "RingHash", "ringHash": {"minRingSize": 1 + op % 1000}}}),
        ),
        Kind::MeshMetric => json!({"default": {"backends": [
            {"type": "Prometheus", "prometheus": {"port": number(op, 60_000), "path": "/metrics"}},
        ]}}),
        Kind::MeshPassthrough => json!({"default": {
            "passthroughMode": "Matched",
            "appendMatch": [{"type": "Domain", "value": format!("a{op}.test"), "port": 443, "protocol": "tls"}],
        }}),
        Kind::MeshProxyPatch => json!({"default": {"appendModifications": [
            {"cluster": {"operation": "Add", "value": format!("name: c-{op}\n")}},
        ]}}),
        Kind::MeshRateLimit => {
            let local = json!({"http": {"requestRate": {"num": 1 + op, "interval": "10s"}}});
            json!({"targetRef": {"kind": "Dataplane"}, "rules": [{"default": {"local": local}}]})
        }
        Kind::MeshTLS => rules(json!({"mode": if op.is_multiple_of(2) { "Strict" } else { "Permissive" }})),
        Kind::MeshTrace => json!({"default": {"backends": [
            {"type": "Zipkin", "zipkin": {"url": format!("http://a{op}.test:9411/api/v2/spans")}},
        ]}}),
        Kind::MeshTrafficPermission => {
            rules(json!({"allow": [{"spiffeID": {"type": "Exact", "value": format!("spiffe://a/{op}")}}]}))
        }
        _ => json!({}),
    }
}

/// A resource of this write, as the API of the site or one of its generators makes it.
fn resource(model: Model, op: Op, key: &Key, zone: &str, random: &Random) -> Resource {
    let (name, mesh) = (key.name.as_str(), key.mesh.as_str());
    let mut labels = serde_json::Map::new();
    let mut label = |key: &str, value: &str| labels.insert(key.into(), value.into());
    label(OP, &op.to_string());
    let is_admitted = random.fraction() < 0.6;
    if is_admitted {
        label("kuma.io/display-name", name);
        label("kuma.io/origin", if zone.is_empty() { "global" } else { "zone" });
        if !mesh.is_empty() {
            label("kuma.io/mesh", mesh);
        }
        if !zone.is_empty() {
            label("kuma.io/zone", zone);
            label("kuma.io/env", "universal");
        }
    }
    if model.stem == "producer" {
        label("k8s.kuma.io/namespace", "shop");
        label("kuma.io/policy-role", "producer");
    }
    if random.fraction() < 0.06 {
        label("kuma.io/kds-sync", "disabled");
    }
    let mut document = json!({"type": model.kind.name(), "name": name, "labels": labels});
    let spec = spec(model, op, zone);
    if !mesh.is_empty() {
        document["mesh"] = mesh.into();
    }
    match model.kind {
        Kind::Secret | Kind::GlobalSecret => document["data"] = encoded(op).into(),
        Kind::Dataplane => {
            document["networking"] = json!({
                "address": "192.0.2.9", "inbound": [{"port": number(op, 60_000), "tags": {"kuma.io/service": "a"}}],
            });
        }
        Kind::Mesh => {}
        _ => document["spec"] = spec,
    }
    if model.kind == Kind::MeshService {
        document["status"] = json!({"vips": [{"ip": format!("241.0.{}.{}", op / 200 % 200, op % 200)}]});
    }
    Resource::from_rest(model.kind, &document).expect("the workload is well formed")
}

/// A number in base64.
fn encoded(op: Op) -> String {
    format!("{:08}", op % 100_000_000)
}

/// Somebody who uses one replica.
pub(super) struct Writer {
    pub(super) site: Site,
    pub(super) zone: String,
    pub(super) store: Replica,
    pub(super) random: Random,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    pub(super) zones: usize,
    /// Somebody waits for the name of the first zone to be free.
    pub(super) has_rival: bool,
}

impl Writer {
    fn pick(&self, below: u64) -> u64 {
        self.random.u64() % below
    }

    fn acknowledged(&self, key: &Key, op: Option<Op>, outcome: Result<Committed, CommitError>) {
        let mut oracle = self.oracle.lock();
        match outcome {
            Ok(committed) if committed.batch.changes.is_empty() => {}
            Ok(committed) => oracle.acknowledge(self.site, key, op, committed.revision),
            Err(CommitError::Uncertain(_)) => oracle.uncertain(),
            Err(_) => oracle.refused(),
        }
    }

    /// Writes on and on.
    pub(super) async fn run(self) {
        let models = if self.site == Site::Global { AT_GLOBAL } else { IN_ZONE };
        loop {
            tokio::time::sleep(PAUSE.mul_f64(0.5 + self.random.fraction())).await;
            if self.oracle.lock().is_stopped() {
                return;
            }
            if self.site == Site::Global && self.random.fraction() < 0.06 {
                self.decide_about_a_zone().await;
                continue;
            }
            let model = models[usize::try_from(self.pick(models.len() as u64)).unwrap_or_default()];
            let index = self.pick(model.names);
            let mesh = if self.random.fraction() < 0.8 { "mesh-1" } else { "mesh-2" };
            let key = Key::new(model.kind, mesh, format!("{}-{index}", model.stem));
            let is_stored = self.store.snapshot().contains(&key);
            if is_stored && self.random.fraction() < 0.3 {
                let outcome = self.store.commit(Txn::delete(key.clone())).await;
                self.acknowledged(&key, None, outcome);
                continue;
            }
            let op = self.oracle.lock().begin();
            let resource = resource(model, op, &key, &self.zone, &self.random);
            self.oracle.lock().writes(self.site, op, &resource);
            let outcome = self.store.commit(Txn::put(resource)).await;
            self.acknowledged(&key, Some(op), outcome);
        }
    }

    /// An operator turns a zone off or on, or deletes it while it is connected.
    async fn decide_about_a_zone(&self) {
        let zone = usize::try_from(self.pick(self.zones as u64)).unwrap_or_default();
        let key = Key::new(Kind::Zone, "", zone_name(zone));
        let Some(stored) = self.store.snapshot().get(&key) else { return };
        if self.random.fraction() < 0.15 && !(self.has_rival && zone == 0) {
            // The outcome shows in the store.
            let _outcome = self.store.commit(Txn::delete(key)).await;
            return;
        }
        let enabled = self.random.fraction() < 0.6;
        let mut changed = Resource::new(stored.meta.clone(), Zone { enabled: Some(enabled) });
        changed.meta.owner = None;
        let expect = Expect::Version(stored.meta.version);
        let _outcome = self.store.commit(Txn::default().and_put(changed, expect)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_written_is_valid() {
        let random = Random::seeded(1);
        for (models, zone) in [(AT_GLOBAL, ""), (IN_ZONE, "zone-1")] {
            for (model, op) in models.iter().zip(1000..) {
                let key = Key::new(model.kind, "mesh-1", format!("{}-0", model.stem));
                let resource = resource(*model, op, &key, zone, &random);
                resource.validate().unwrap_or_else(|error| panic!("{}: {error}", resource.key()));
            }
        }
    }
}
