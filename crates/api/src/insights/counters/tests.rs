use graticule_model::kinds::dataplane_insight::DataplaneInsight;
use graticule_model::{Key, Meta};
use graticule_store::{MemoryStore, Txn};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The same by looking at everything: what the counters must come to.
mod recomputed {
    use super::*;

    fn add(health: Health, stat: &mut DataplaneStat) {
        stat.total += 1;
        match health {
            Health::Offline => stat.offline += 1,
            Health::PartiallyDegraded => stat.partially_degraded += 1,
            Health::Online => stat.online += 1,
        }
    }

    pub(super) fn mesh(state: &Snapshot, soft: &Snapshot, name: &str) -> (MeshInsight, Option<Timestamp>) {
        let mut insight = MeshInsight::default();
        let mut modified = None;
        for kind in Kind::all().filter(|kind| is_counted(*kind)) {
            let mut stat = ResourceStat::default();
            for resource in state.list(kind, Some(name)) {
                stat.total += 1;
                modified = modified.max(Some(resource.meta.modification_time));
            }
            if stat.total > 0 {
                insight.resources.insert(kind.name().into(), stat);
            }
        }
        for resource in state.list(Kind::Dataplane, Some(name)) {
            let dataplane: &Dataplane = resource.spec_as().expect("a Dataplane");
            let observed = soft.get(&insight_key(resource));
            let observed = observed.as_ref().and_then(|resource| resource.spec_as::<DataplaneInsight>());
            add_proxy(&mut insight, dataplane, observed);
        }
        (insight, modified)
    }

    fn insight_key(proxy: &Resource) -> Key {
        Key::new(Kind::DataplaneInsight, proxy.meta.mesh.clone(), proxy.meta.name.clone())
    }

    fn add_proxy(insight: &mut MeshInsight, dataplane: &Dataplane, observed: Option<&DataplaneInsight>) {
        let health = Health::of(dataplane, observed);
        add(health, &mut insight.dataplanes);
        if dataplane.is_gateway() {
            add(health, &mut insight.dataplanes_by_type.gateway);
            add(health, &mut insight.dataplanes_by_type.gateway_delegated);
        } else {
            add(health, &mut insight.dataplanes_by_type.standard);
        }
        let version = observed.and_then(|observed| observed.subscriptions.last()).and_then(version_of);
        let (agent, envoy) = version.unwrap_or_default();
        let known = |version: String| if version.is_empty() { UNKNOWN_VERSION.to_owned() } else { version };
        add(health, insight.dp_versions.kuma_dp.entry(known(agent)).or_default());
        add(health, insight.dp_versions.envoy.entry(known(envoy)).or_default());
        let Some(mtls) = observed.and_then(|observed| observed.mtls.as_ref()) else { return };
        if !mtls.issued_backend.is_empty() {
            add(health, insight.mtls.issued_backends.entry(mtls.issued_backend.clone()).or_default());
        }
        for backend in mtls.supported_backends.iter().collect::<BTreeSet<_>>() {
            add(health, insight.mtls.supported_backends.entry(backend.clone()).or_default());
        }
    }

    pub(super) fn internal_services(state: &Snapshot) -> DataplaneStat {
        let mut stat = DataplaneStat::default();
        for service in state.list(Kind::MeshService, None) {
            add(service_health(service), &mut stat);
        }
        stat
    }

    pub(super) fn gateway_services(state: &Snapshot, soft: &Snapshot) -> DataplaneStat {
        let mut services: BTreeMap<(&str, &str), BTreeSet<Health>> = BTreeMap::new();
        for resource in state.list(Kind::Dataplane, None) {
            let dataplane: &Dataplane = resource.spec_as().expect("a Dataplane");
            let Some(gateway) = &dataplane.networking().gateway else { continue };
            let service = gateway.tags.get(labels::SERVICE).unwrap_or(&resource.meta.name);
            let observed = soft.get(&insight_key(resource));
            let observed = observed.as_ref().and_then(|resource| resource.spec_as::<DataplaneInsight>());
            let healths = services.entry((&resource.meta.mesh, service)).or_default();
            healths.insert(Health::of(dataplane, observed));
        }
        let mut stat = DataplaneStat::default();
        for healths in services.into_values() {
            let health = match (healths.first(), healths.last()) {
                (Some(Health::Online), _) => Health::Online,
                (_, Some(Health::Offline)) => Health::Offline,
                _ => Health::PartiallyDegraded,
            };
            add(health, &mut stat);
        }
        stat
    }

    pub(super) fn zones(soft: &Snapshot) -> (u32, u32) {
        let zones: Vec<&ZoneInsight> =
            soft.list(Kind::ZoneInsight, None).filter_map(|insight| insight.spec_as()).collect();
        let online = zones.iter().filter(|insight| insight.is_online()).count();
        (u32::try_from(zones.len()).expect("few"), u32::try_from(online).expect("few"))
    }
}

const MESHES: [&str; 2] = ["default", "other"];

/// One write to either store, or a look.
#[derive(Debug, Clone)]
enum Step {
    Dataplane { mesh: usize, name: u8, shape: u8 },
    Insight { mesh: usize, name: u8, shape: u8 },
    Service { mesh: usize, name: u8, connected: u32 },
    Timeout { mesh: usize, name: u8 },
    Zone { name: u8, online: bool },
    Delete { kind: usize, mesh: usize, name: u8 },
    Look,
}

const KINDS: [Kind; 5] =
    [Kind::Dataplane, Kind::DataplaneInsight, Kind::MeshService, Kind::MeshTimeout, Kind::ZoneInsight];

fn step() -> impl Strategy<Value = Step> {
    let (mesh, name) = (0..MESHES.len(), 0..3_u8);
    prop_oneof![
        5 => (mesh.clone(), name.clone(), 0..6_u8).prop_map(|(mesh, name, shape)| Step::Dataplane { mesh, name, shape }),
        5 => (mesh.clone(), name.clone(), 0..6_u8).prop_map(|(mesh, name, shape)| Step::Insight { mesh, name, shape }),
        2 => (mesh.clone(), name.clone(), 0..3_u32)
            .prop_map(|(mesh, name, connected)| Step::Service { mesh, name, connected }),
        2 => (mesh.clone(), name.clone()).prop_map(|(mesh, name)| Step::Timeout { mesh, name }),
        2 => (name.clone(), any::<bool>()).prop_map(|(name, online)| Step::Zone { name, online }),
        4 => (0..KINDS.len(), mesh, name).prop_map(|(kind, mesh, name)| Step::Delete { kind, mesh, name }),
        3 => Just(Step::Look),
    ]
}

fn resource(kind: Kind, mesh: &str, name: u8, rest: Value) -> Resource {
    let mut document = json!({"type": kind.name(), "name": format!("n{name}"), "mesh": mesh});
    if mesh.is_empty() {
        document.as_object_mut().expect("an object").remove("mesh");
    }
    for (key, value) in rest.as_object().expect("an object") {
        document[key] = value.clone();
    }
    Resource::from_rest(kind, &document).expect("well-formed")
}

fn dataplane(mesh: &str, name: u8, shape: u8) -> Resource {
    let states: &[&str] = match shape {
        0 => &["Ready", "Ready"],
        1 => &["Ready", "NotReady"],
        2 => &["NotReady"],
        _ => &[],
    };
    let inbound: Vec<Value> = states.iter().map(|state| json!({"port": 80, "state": state})).collect();
    let mut networking = json!({"address": "10.0.0.1", "inbound": inbound});
    if shape >= 3 {
        let tags = if shape == 3 { json!({}) } else { json!({"kuma.io/service": "gateway"}) };
        networking["gateway"] = json!({"tags": tags});
    }
    resource(Kind::Dataplane, mesh, name, json!({"networking": networking}))
}

fn insight(mesh: &str, name: u8, shape: u8) -> Resource {
    let mut subscription = json!({"id": "s", "connectTime": "2026-01-01T00:00:00Z"});
    if shape % 2 == 1 {
        subscription["disconnectTime"] = json!("2026-01-01T00:00:01Z");
    }
    if shape >= 2 {
        let version = format!("3.{shape}.0");
        subscription["version"] = json!({"kumaDp": {"version": version}, "envoy": {"version": version}});
    }
    let mtls = json!({"issuedBackend": format!("b{}", shape / 3), "supportedBackends": ["b0", "b1", "b0"]});
    let rest = match shape {
        0 => json!({"subscriptions": []}),
        1..4 => json!({"subscriptions": [subscription]}),
        _ => json!({"subscriptions": [subscription], "mTLS": mtls}),
    };
    let spec: DataplaneInsight = serde_json::from_value(rest).expect("an insight");
    Resource::new(Meta::new(mesh, format!("n{name}")), spec)
}

fn zone(name: u8, online: bool) -> Resource {
    let mut subscription = json!({"id": "s", "connectTime": "2026-01-01T00:00:00Z"});
    if !online {
        subscription["disconnectTime"] = json!("2026-01-01T00:00:01Z");
    }
    let spec: ZoneInsight =
        serde_json::from_value(json!({"subscriptions": [subscription]})).expect("an insight");
    Resource::new(Meta::new("", format!("n{name}")), spec)
}

async fn check(aggregates: &Aggregates) {
    let look = aggregates.read(|counters, state, soft| {
        for mesh in MESHES {
            assert_eq!(counters.mesh(mesh), recomputed::mesh(state, soft, mesh), "{mesh}");
        }
        assert_eq!(counters.internal_services(), recomputed::internal_services(state));
        assert_eq!(counters.gateway_services(), recomputed::gateway_services(state, soft));
        assert_eq!(counters.zones(), recomputed::zones(soft));
        let mut anew = Counters::default();
        anew.apply(Plane::Config, &Event::Resync(state.clone()));
        anew.apply(Plane::Status, &Event::Resync(soft.clone()));
        assert_eq!(*counters, anew, "nothing is left behind");
    });
    look.await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Counting what changes comes to the same as counting everything, also when more changes than the stores remember.
    #[test]
    fn incremental_is_recomputed(steps in proptest::collection::vec(step(), 0..80), history in 2..40_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let time = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
        let mk = || {
            let time = time.clone();
            let now = move || {
                let second = time.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Timestamp::from_second(second).expect("in range")
            };
            Arc::new(MemoryStore::with_history(now, history))
        };
        let (store, soft) = (mk(), mk());
        let aggregates = Aggregates::new(store.clone(), soft.clone());
        for step in steps {
            let (to, txn) = match step {
                Step::Dataplane { mesh, name, shape } => {
                    (&store, Txn::put(dataplane(MESHES[mesh], name, shape)))
                }
                Step::Insight { mesh, name, shape } => (&soft, Txn::put(insight(MESHES[mesh], name, shape))),
                Step::Service { mesh, name, connected } => {
                    let proxies = json!({"connected": connected, "healthy": 2, "total": 2});
                    let rest = json!({"spec": {}, "status": {"dataplaneProxies": proxies}});
                    (&store, Txn::put(resource(Kind::MeshService, MESHES[mesh], name, rest)))
                }
                Step::Timeout { mesh, name } => {
                    (&store, Txn::put(resource(Kind::MeshTimeout, MESHES[mesh], name, json!({"spec": {}}))))
                }
                Step::Zone { name, online } => (&soft, Txn::put(zone(name, online))),
                Step::Delete { kind, mesh, name } => {
                    let kind = KINDS[kind];
                    let mesh = if kind == Kind::ZoneInsight { "" } else { MESHES[mesh] };
                    let to = if kind.descriptor().capabilities.soft { &soft } else { &store };
                    (to, Txn::delete(Key::new(kind, mesh, format!("n{name}"))))
                }
                Step::Look => {
                    runtime.block_on(check(&aggregates));
                    continue;
                }
            };
            to.commit_now(txn).expect("no expectations");
        }
        runtime.block_on(check(&aggregates));
    }
}
