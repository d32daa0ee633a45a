//! Counters of meshes and of everything (rest-api.md §6.4, §6.5, resources.md §7.5): brought up to date when they are
//! asked for, with what changed since then, so they are never old and cost nothing otherwise.

mod counters;

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::dataplane::{Dataplane, InboundState, ListenerState};
use graticule_model::kinds::dataplane_insight::{DataplaneInsight, DiscoverySubscription};
use graticule_model::kinds::mesh_insight::{DataplaneStat, MeshInsight};
use graticule_model::{Key, Kind, Meta, Resource, Timestamp};
use graticule_store::Snapshot;
use serde_json::{Map, Value, json};

use crate::Context;

pub(crate) use counters::Aggregates;
use counters::Counters;

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
}

/// MeshInsights of all meshes, by name. One that is stored, by whoever observes, is shown as it is.
pub(crate) async fn mesh_insights(context: &Context) -> Vec<Arc<Resource>> {
    context.aggregates.read(all_meshes).await
}

fn all_meshes(counters: &Counters, state: &Snapshot, soft: &Snapshot) -> Vec<Arc<Resource>> {
    let stored = soft.list(Kind::MeshInsight, None);
    let mut all: BTreeMap<&str, Arc<Resource>> =
        stored.map(|insight| (insight.meta.name.as_str(), insight.clone())).collect();
    for mesh in state.list(Kind::Mesh, None) {
        all.entry(&mesh.meta.name).or_insert_with(|| Arc::new(mesh_insight(counters, mesh)));
    }
    all.into_values().collect()
}

/// The MeshInsight of one mesh.
pub(crate) async fn one_mesh_insight(context: &Context, name: &str) -> Option<Arc<Resource>> {
    let shown = context.aggregates.read(|counters, state, soft| {
        let stored = soft.get(&Key::new(Kind::MeshInsight, "", name));
        stored.or_else(|| {
            let mesh = state.get(&Key::new(Kind::Mesh, "", name))?;
            Some(Arc::new(mesh_insight(counters, &mesh)))
        })
    });
    shown.await
}

fn mesh_insight(counters: &Counters, mesh: &Resource) -> Resource {
    let (insight, modified) = counters.mesh(&mesh.meta.name);
    let mut meta = Meta::new("", mesh.meta.name.clone());
    meta.creation_time = mesh.meta.creation_time;
    meta.modification_time = modified.unwrap_or(mesh.meta.modification_time).max(mesh.meta.modification_time);
    Resource::new(meta, insight)
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
pub(crate) async fn global_insight(context: &Context) -> Value {
    let now = context.clock.now();
    context.aggregates.read(|counters, state, soft| global(counters, state, soft, now)).await
}

fn global(counters: &Counters, state: &Snapshot, soft: &Snapshot, now: Timestamp) -> Value {
    let meshes = all_meshes(counters, state, soft);
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
        let total = count(state, kind);
        if total > 0 {
            resources.insert(kind.name(), total);
        }
    }
    // A zone counts once it was seen.
    let (zones, online) = counters.zones();
    json!({
        "createdAt": now.to_string(),
        "zones": {
            "controlPlanes": {"online": online, "total": zones},
            "zoneIngresses": {"online": 0, "total": 0},
            "zoneEgresses": {"online": 0, "total": 0},
        },
        "meshes": {"total": insights.len()},
        "policies": {"total": policies},
        "dataplanes": {"standard": full(&standard), "gatewayDelegated": full(&gateways)},
        "services": {
            "external": {"total": count(state, Kind::MeshExternalService)},
            "internal": full(&counters.internal_services()),
            "gatewayDelegated": full(&counters.gateway_services()),
        },
        "resources": totals(resources),
    })
}

fn count(state: &Snapshot, kind: Kind) -> u32 {
    u32::try_from(state.count(kind, None)).unwrap_or(u32::MAX)
}

fn totals<'a>(totals: impl IntoIterator<Item = (&'a str, u32)>) -> Value {
    let totals = totals.into_iter().map(|(kind, total)| (kind.to_owned(), json!({"total": total})));
    Value::Object(totals.collect::<Map<String, Value>>())
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
