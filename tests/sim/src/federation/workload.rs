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
        _ => json!({}),
    }
}

/// A resource of this write, as the API of the site or one of its generators makes it.
fn resource(model: Model, op: Op, index: u64, zone: &str, random: &Random) -> Resource {
    let name = format!("{}-{index}", model.stem);
    let mesh = if model.kind.descriptor().is_global_scoped() { "" } else { "mesh-1" };
    let mut labels = serde_json::Map::new();
    let mut label = |key: &str, value: &str| labels.insert(key.into(), value.into());
    label(OP, &op.to_string());
    let is_admitted = random.fraction() < 0.6;
    if is_admitted {
        label("kuma.io/display-name", &name);
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
}

impl Writer {
    fn pick(&self, below: u64) -> u64 {
        self.random.u64() % below
    }

    fn tell(&self, op: Op, outcome: Result<Committed, CommitError>) {
        let mut oracle = self.oracle.lock();
        match outcome {
            Ok(committed) => oracle.acknowledge(op, committed.revision),
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
            let key = Key::new(model.kind, "mesh-1", format!("{}-{index}", model.stem));
            let is_stored = self.store.snapshot().contains(&key);
            if is_stored && self.random.fraction() < 0.3 {
                // The outcome shows in the store.
                let _outcome = self.store.commit(Txn::delete(key)).await;
                continue;
            }
            let op = self.oracle.lock().begin();
            let resource = resource(model, op, index, &self.zone, &self.random);
            self.oracle.lock().writes(self.site, op, &resource);
            let outcome = self.store.commit(Txn::put(resource)).await;
            self.tell(op, outcome);
        }
    }

    /// An operator turns a zone off or on, or deletes it while it is connected.
    async fn decide_about_a_zone(&self) {
        let zone = usize::try_from(self.pick(self.zones as u64)).unwrap_or_default();
        let key = Key::new(Kind::Zone, "", zone_name(zone));
        let Some(stored) = self.store.snapshot().get(&key) else { return };
        if self.random.fraction() < 0.15 {
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
                let resource = resource(*model, op, 0, zone, &random);
                resource.validate().unwrap_or_else(|error| panic!("{}: {error}", resource.key()));
            }
        }
    }
}
