//! Counters of meshes and of everything (rest-api.md §6.4, §6.5, resources.md §7.5): computed when they are
//! asked for, so they are never old and cost nothing otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::kinds::dataplane::{Dataplane, InboundState, ListenerState};
use graticule_model::kinds::dataplane_insight::{DataplaneInsight, DiscoverySubscription};
use graticule_model::kinds::mesh_insight::{DataplaneStat, MeshInsight, ResourceStat};
use graticule_model::kinds::mesh_service::MeshService;
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind, Meta, Resource, labels};
use graticule_store::Snapshot;
use serde_json::{Map, Value, json};

use crate::Context;

/// A version that nobody reported.
const UNKNOWN_VERSION: &str = "unknown";

/// Whether a proxy works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Offline,
    PartiallyDegraded,
    Online,
}

impl Health {
    /// A gateway works when it is connected, other proxies as far as their ports are ready (resources.md §7.4).
    fn of(dataplane: &Dataplane, insight: Option<&DataplaneInsight>) -> Health {
        if !insight.is_some_and(DataplaneInsight::is_online) {
            return Health::Offline;
        }
        let networking = dataplane.networking();
        let inbounds = networking.inbound.iter().filter(|inbound| inbound.state != InboundState::Ignored);
        let listeners = networking.listeners.iter().map(|listener| listener.state == ListenerState::Ready);
        let ready: Vec<bool> = inbounds.map(|inbound| inbound.is_ready()).chain(listeners).collect();
        if dataplane.is_gateway() || ready.iter().all(|ready| *ready) {
            Health::Online
        } else if ready.contains(&true) {
            Health::PartiallyDegraded
        } else {
            Health::Offline
        }
    }

    fn add_to(self, stat: &mut DataplaneStat) {
        stat.total += 1;
        match self {
            Health::Offline => stat.offline += 1,
            Health::PartiallyDegraded => stat.partially_degraded += 1,
            Health::Online => stat.online += 1,
        }
    }
}

/// MeshInsights of all meshes, by name. One that is stored, by whoever observes, is shown as it is.
pub(crate) fn mesh_insights(context: &Context) -> Vec<Arc<Resource>> {
    let (state, soft) = (context.store.snapshot(), context.soft.snapshot());
    let stored = soft.list(Kind::MeshInsight, None);
    let mut all: BTreeMap<&str, Arc<Resource>> =
        stored.map(|insight| (insight.meta.name.as_str(), insight.clone())).collect();
    for mesh in state.list(Kind::Mesh, None) {
        all.entry(&mesh.meta.name).or_insert_with(|| Arc::new(mesh_insight(&state, &soft, mesh)));
    }
    all.into_values().collect()
}

/// The MeshInsight of one mesh.
pub(crate) fn one_mesh_insight(context: &Context, name: &str) -> Option<Arc<Resource>> {
    let (state, soft) = (context.store.snapshot(), context.soft.snapshot());
    let stored = soft.get(&Key::new(Kind::MeshInsight, "", name));
    stored.or_else(|| {
        let mesh = state.get(&Key::new(Kind::Mesh, "", name))?;
        Some(Arc::new(mesh_insight(&state, &soft, &mesh)))
    })
}

fn mesh_insight(state: &Snapshot, soft: &Snapshot, mesh: &Resource) -> Resource {
    let name = &mesh.meta.name;
    let mut insight = MeshInsight::default();
    let mut changed = mesh.meta.modification_time;
    let is_counted = |kind: &Kind| {
        let descriptor = kind.descriptor();
        !descriptor.is_global_scoped() && !descriptor.capabilities.soft
    };
    for kind in Kind::all().filter(is_counted) {
        let mut stat = ResourceStat::default();
        for resource in state.list(kind, Some(name)) {
            stat.total += 1;
            changed = changed.max(resource.meta.modification_time);
        }
        if stat.total > 0 {
            insight.resources.insert(kind.name().into(), stat);
        }
    }
    for resource in state.list(Kind::Dataplane, Some(name)) {
        let Some(dataplane) = resource.spec_as::<Dataplane>() else { continue };
        let observed = soft.get(&insight_key(resource));
        let observed = observed.as_ref().and_then(|resource| resource.spec_as::<DataplaneInsight>());
        add_proxy(&mut insight, dataplane, observed);
    }
    let mut meta = Meta::new("", name.clone());
    (meta.creation_time, meta.modification_time) = (mesh.meta.creation_time, changed);
    Resource::new(meta, insight)
}

fn insight_key(proxy: &Resource) -> Key {
    Key::new(Kind::DataplaneInsight, proxy.meta.mesh.clone(), proxy.meta.name.clone())
}

fn add_proxy(insight: &mut MeshInsight, dataplane: &Dataplane, observed: Option<&DataplaneInsight>) {
    let health = Health::of(dataplane, observed);
    health.add_to(&mut insight.dataplanes);
    if dataplane.is_gateway() {
        health.add_to(&mut insight.dataplanes_by_type.gateway);
        health.add_to(&mut insight.dataplanes_by_type.gateway_delegated);
    } else {
        health.add_to(&mut insight.dataplanes_by_type.standard);
    }
    let version = observed.and_then(|observed| observed.subscriptions.last()).and_then(version_of);
    let (agent, envoy) = version.unwrap_or_default();
    let known = |version: String| if version.is_empty() { UNKNOWN_VERSION.to_owned() } else { version };
    health.add_to(insight.dp_versions.kuma_dp.entry(known(agent)).or_default());
    health.add_to(insight.dp_versions.envoy.entry(known(envoy)).or_default());
    let Some(mtls) = observed.and_then(|observed| observed.mtls.as_ref()) else { return };
    if !mtls.issued_backend.is_empty() {
        health.add_to(insight.mtls.issued_backends.entry(mtls.issued_backend.clone()).or_default());
    }
    for backend in mtls.supported_backends.iter().collect::<BTreeSet<_>>() {
        health.add_to(insight.mtls.supported_backends.entry(backend.clone()).or_default());
    }
}

/// Versions of the agent and of Envoy.
fn version_of(subscription: &DiscoverySubscription) -> Option<(String, String)> {
    let version = subscription.version.as_ref()?;
    let agent = version.kuma_dp.as_ref().map(|agent| agent.version.clone());
    let envoy = version.envoy.as_ref().map(|envoy| envoy.version.clone());
    Some((agent.unwrap_or_default(), envoy.unwrap_or_default()))
}

fn full(stat: &DataplaneStat) -> Value {
    json!({
        "online": stat.online,
        "offline": stat.offline,
        "partiallyDegraded": stat.partially_degraded,
        "total": stat.total,
    })
}

fn sum(into: &mut DataplaneStat, stat: &DataplaneStat) {
    into.total += stat.total;
    into.online += stat.online;
    into.offline += stat.offline;
    into.partially_degraded += stat.partially_degraded;
}

/// Body of `/global-insight`.
pub(crate) fn global_insight(context: &Context) -> Value {
    let meshes = mesh_insights(context);
    let (state, soft) = (context.store.snapshot(), context.soft.snapshot());
    let (mut standard, mut gateways) = (DataplaneStat::default(), DataplaneStat::default());
    let mut resources: BTreeMap<&str, u32> = BTreeMap::new();
    let insights: Vec<&MeshInsight> = meshes.iter().filter_map(|mesh| mesh.spec_as()).collect();
    for insight in &insights {
        sum(&mut standard, &insight.dataplanes_by_type.standard);
        sum(&mut gateways, &insight.dataplanes_by_type.gateway_delegated);
        for (kind, stat) in &insight.resources {
            *resources.entry(kind).or_default() += stat.total;
        }
    }
    let is_policy = |kind: &str| Kind::from_name(kind).is_ok_and(|kind| kind.descriptor().is_policy());
    let policies: u32 = resources.iter().filter(|(kind, _)| is_policy(kind)).map(|(_, total)| total).sum();
    let is_counted = |kind: &Kind| {
        let (descriptor, capabilities) = (kind.descriptor(), kind.descriptor().capabilities);
        descriptor.is_global_scoped()
            && !capabilities.admin_only
            && !capabilities.soft
            && !matches!(kind, Kind::Mesh | Kind::Zone | Kind::Config)
    };
    for kind in Kind::all().filter(is_counted) {
        let total = count(&state, kind);
        if total > 0 {
            resources.insert(kind.name(), total);
        }
    }
    // A zone counts once it was seen.
    let zones: Vec<&ZoneInsight> =
        soft.list(Kind::ZoneInsight, None).filter_map(|insight| insight.spec_as()).collect();
    let online = zones.iter().filter(|insight| insight.is_online()).count();
    json!({
        "createdAt": context.clock.now().to_string(),
        "zones": {
            "controlPlanes": {"online": online, "total": zones.len()},
            "zoneIngresses": {"online": 0, "total": 0},
            "zoneEgresses": {"online": 0, "total": 0},
        },
        "meshes": {"total": insights.len()},
        "policies": {"total": policies},
        "dataplanes": {"standard": full(&standard), "gatewayDelegated": full(&gateways)},
        "services": {
            "external": {"total": count(&state, Kind::MeshExternalService)},
            "internal": full(&internal_services(&state)),
            "gatewayDelegated": full(&gateway_services(&state, &soft)),
        },
        "resources": totals(resources),
    })
}

fn count(state: &Snapshot, kind: Kind) -> u32 {
    u32::try_from(state.list(kind, None).count()).unwrap_or(u32::MAX)
}

fn totals<'a>(totals: impl IntoIterator<Item = (&'a str, u32)>) -> Value {
    let totals = totals.into_iter().map(|(kind, total)| (kind.to_owned(), json!({"total": total})));
    Value::Object(totals.collect::<Map<String, Value>>())
}

/// A service is as online as the proxies behind it.
fn internal_services(state: &Snapshot) -> DataplaneStat {
    let mut stat = DataplaneStat::default();
    for service in state.list(Kind::MeshService, None) {
        let proxies = service.status_of::<MeshService>().map(|status| status.dataplane_proxies);
        let proxies = proxies.unwrap_or_default();
        let health = match proxies.connected.min(proxies.healthy) {
            0 => Health::Offline,
            working if working < proxies.total => Health::PartiallyDegraded,
            _ => Health::Online,
        };
        health.add_to(&mut stat);
    }
    stat
}

/// Delegated gateways by the service that their tags name: online when all of them are, offline when none is.
fn gateway_services(state: &Snapshot, soft: &Snapshot) -> DataplaneStat {
    let mut services: BTreeMap<(&str, &str), BTreeSet<Health>> = BTreeMap::new();
    for resource in state.list(Kind::Dataplane, None) {
        let Some(dataplane) = resource.spec_as::<Dataplane>() else { continue };
        let Some(gateway) = &dataplane.networking().gateway else { continue };
        let service = gateway.tags.get(labels::SERVICE).unwrap_or(&resource.meta.name);
        let observed = soft.get(&insight_key(resource));
        let observed = observed.as_ref().and_then(|resource| resource.spec_as::<DataplaneInsight>());
        services.entry((&resource.meta.mesh, service)).or_default().insert(Health::of(dataplane, observed));
    }
    let mut stat = DataplaneStat::default();
    for healths in services.into_values() {
        let health = match (healths.first(), healths.last()) {
            (Some(Health::Online), _) => Health::Online,
            (_, Some(Health::Offline)) => Health::Offline,
            _ => Health::PartiallyDegraded,
        };
        health.add_to(&mut stat);
    }
    stat
}

/// Body of `/global-insights`, of older clients.
pub(crate) fn global_insights(context: &Context) -> Value {
    let state = context.store.snapshot();
    let is_counted = |kind: &Kind| {
        let descriptor = kind.descriptor();
        descriptor.is_global_scoped() && !descriptor.capabilities.soft && !descriptor.path.is_empty()
    };
    let resources = Kind::all().filter(is_counted).map(|kind| (kind.name(), count(&state, kind)));
    json!({
        "type": "GlobalInsights",
        "creationTime": context.clock.now().to_string(),
        "resources": totals(resources),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(networking: Value, is_connected: bool, want: Health) {
        let dataplane: Dataplane =
            serde_json::from_value(json!({"networking": networking})).expect("a dataplane");
        let times = if is_connected {
            json!({"connectTime": "2026-01-01T00:00:00Z"})
        } else {
            json!({"connectTime": "2026-01-01T00:00:00Z", "disconnectTime": "2026-01-01T00:00:01Z"})
        };
        let insight: DataplaneInsight =
            serde_json::from_value(json!({"subscriptions": [times]})).expect("an insight");
        assert_eq!(Health::of(&dataplane, Some(&insight)), want, "{networking}");
        assert_eq!(Health::of(&dataplane, None), Health::Offline);
    }

    #[test]
    fn health() {
        let inbounds = |states: &[&str]| {
            let inbound: Vec<Value> =
                states.iter().map(|state| json!({"port": 80, "state": state})).collect();
            json!({"inbound": inbound})
        };
        check(inbounds(&["Ready", "Ready"]), true, Health::Online);
        check(inbounds(&["Ready", "Ready"]), false, Health::Offline);
        check(inbounds(&["Ready", "NotReady"]), true, Health::PartiallyDegraded);
        check(inbounds(&["NotReady", "NotReady"]), true, Health::Offline);
        check(inbounds(&["NotReady", "Ignored"]), true, Health::Offline);
        check(inbounds(&["Ready", "Ignored"]), true, Health::Online);
        check(json!({}), true, Health::Online);
        check(json!({"gateway": {}}), true, Health::Online);
        check(
            json!({"listeners": [{"port": 1, "state": "NotReady"}, {"port": 2}]}),
            true,
            Health::PartiallyDegraded,
        );
    }
}
