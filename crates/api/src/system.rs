//! System endpoints (rest-api.md §6).

use std::collections::BTreeMap;

use graticule_model::kinds::config::CLUSTER_ID;
use graticule_model::kinds::dataplane_insight::DataplaneInsight;
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Descriptor, Key, Kind, Mode, Scope, Spec};
use graticule_store::Snapshot;
use serde_json::{Map, Value, json};

use crate::auth::User;
use crate::error::Error;
use crate::{Context, access};

pub(crate) fn index(context: &Context) -> Value {
    let instance = &context.instance;
    let mut index = json!({
        "clusterId": cluster_id(&context.store.snapshot()),
        "gui": instance.gui,
        "hostname": instance.hostname,
        "instanceId": instance.id,
        "product": instance.product,
        "version": instance.version,
    });
    if !instance.based_on_kuma.is_empty() {
        index["basedOnKuma"] = instance.based_on_kuma.clone().into();
    }
    index
}

/// Empty until the first control plane of the federation made it.
fn cluster_id(snapshot: &Snapshot) -> String {
    let config = snapshot.get(&Key::new(Kind::Config, "", CLUSTER_ID));
    match config.as_deref().map(|resource| &resource.spec) {
        Some(Spec::Config(config)) => config.config.clone(),
        _ => String::new(),
    }
}

pub(crate) fn who_am_i(user: &User) -> Value {
    json!({"name": user.name, "groups": user.groups})
}

pub(crate) fn config(context: &Context, user: &User) -> Result<Value, Error> {
    access::metadata(&context.options, user)?;
    Ok(context.config.clone())
}

fn by_name(mut filter: impl FnMut(&Descriptor) -> bool) -> impl Iterator<Item = (Kind, &'static Descriptor)> {
    let mut kinds: Vec<Kind> = Kind::all().filter(|kind| filter(kind.descriptor())).collect();
    kinds.sort_by_key(|kind| kind.name());
    kinds.into_iter().map(|kind| (kind, kind.descriptor()))
}

pub(crate) fn resources(context: &Context) -> Value {
    let read_only_here = context.options.server.read_only || context.mode == Mode::FederatedZone;
    let kinds = by_name(|descriptor| !descriptor.path.is_empty()).map(|(_, descriptor)| {
        let mut entry = json!({
            "name": descriptor.name,
            "readOnly": read_only_here || descriptor.capabilities.read_only,
            "path": descriptor.path,
            "singularDisplayName": descriptor.display_names.0,
            "pluralDisplayName": descriptor.display_names.1,
            "scope": if descriptor.scope == Scope::Global { "Global" } else { "Mesh" },
            "shortName": descriptor.short_name,
            "includeInFederation": descriptor.include_in_federation(),
        });
        if let Some(policy) = descriptor.capabilities.policy {
            entry["policy"] = json!({
                "isTargetRef": true,
                "hasToTargetRef": policy.has_to,
                "hasFromTargetRef": false,
                "hasRulesTargetRef": policy.has_rules,
                "isFromAsRules": false,
            });
        }
        entry
    });
    json!({"resources": kinds.collect::<Value>()})
}

pub(crate) fn policies(context: &Context) -> Value {
    let policies = by_name(Descriptor::is_policy).filter_map(|(kind, descriptor)| {
        let policy = descriptor.capabilities.policy?;
        Some(json!({
            "name": descriptor.name,
            "readOnly": access::is_read_only(context, kind),
            "path": descriptor.path,
            "singularDisplayName": descriptor.display_names.0,
            "pluralDisplayName": descriptor.display_names.1,
            "isExperimental": false,
            "isTargetRefBased": true,
            "isInbound": policy.has_rules,
            "isOutbound": policy.has_to,
        }))
    });
    json!({"policies": policies.collect::<Value>()})
}

#[derive(Default)]
struct Proxies {
    online: usize,
    total: usize,
}

impl Proxies {
    fn to_json(&self) -> Value {
        json!({
            "online": self.online,
            "offline": self.total - self.online,
            "partiallyDegraded": 0,
            "total": self.total,
        })
    }
}

pub(crate) fn global_insight(context: &Context) -> Value {
    let (snapshot, soft) = (context.store.snapshot(), context.soft.snapshot());
    let (mut standard, mut gateways) = (Proxies::default(), Proxies::default());
    for resource in snapshot.list(Kind::Dataplane, None) {
        let Spec::Dataplane(dataplane) = &resource.spec else { continue };
        let proxies = if dataplane.is_gateway() { &mut gateways } else { &mut standard };
        let key = Key::new(Kind::DataplaneInsight, resource.meta.mesh.clone(), resource.meta.name.clone());
        let insight = soft.get(&key);
        proxies.total += 1;
        let is_online = |i: &DataplaneInsight| i.is_online();
        proxies.online += usize::from(insight.is_some_and(|i| i.spec_as().is_some_and(is_online)));
    }
    let zones = Proxies {
        total: snapshot.list(Kind::Zone, None).count(),
        online: soft
            .list(Kind::ZoneInsight, None)
            .filter(|i| i.spec_as::<ZoneInsight>().is_some_and(ZoneInsight::is_online))
            .count(),
    };
    let counts = counts(&snapshot);
    let policies: usize =
        counts.iter().filter(|(kind, _)| kind.descriptor().is_policy()).map(|(_, count)| count).sum();
    let none = Proxies::default().to_json();
    json!({
        "createdAt": context.clock.now().to_string(),
        "zones": {
            "controlPlanes": {"online": zones.online, "total": zones.total},
            "zoneIngresses": {"online": 0, "total": 0},
            "zoneEgresses": {"online": 0, "total": 0},
        },
        "meshes": {"total": snapshot.list(Kind::Mesh, None).count()},
        "policies": {"total": policies},
        "dataplanes": {"standard": standard.to_json(), "gatewayDelegated": gateways.to_json()},
        "services": {
            "external": {"total": 0},
            "internal": services(&snapshot),
            "gatewayDelegated": none,
        },
        "resources": totals(counts.into_iter().filter(|(kind, _)| !matches!(kind, Kind::Dataplane))),
    })
}

/// Resources per kind, for the kinds that the overview of everything counts: no Meshes, Zones, insights,
/// Configs and GlobalSecrets, and only kinds that occur.
fn counts(snapshot: &Snapshot) -> BTreeMap<Kind, usize> {
    let is_left_out =
        |kind: Kind| matches!(kind, Kind::Mesh | Kind::Zone | Kind::Config | Kind::GlobalSecret);
    let mut counts = BTreeMap::new();
    for resource in snapshot.iter().filter(|resource| !is_left_out(resource.kind())) {
        *counts.entry(resource.kind()).or_insert(0) += 1;
    }
    counts
}

fn totals(counts: impl Iterator<Item = (Kind, usize)>) -> Value {
    let totals = counts.map(|(kind, count)| (kind.name().to_owned(), json!({"total": count})));
    Value::Object(totals.collect::<Map<String, Value>>())
}

fn services(snapshot: &Snapshot) -> Value {
    use graticule_model::kinds::mesh_service::{MeshService, State};
    let mut services = Proxies::default();
    for resource in snapshot.list(Kind::MeshService, None) {
        services.total += 1;
        let is_available = |service: &MeshService| service.state == Some(State::Available);
        services.online += usize::from(resource.spec_as::<MeshService>().is_some_and(is_available));
    }
    services.to_json()
}

pub(crate) fn global_insights(context: &Context) -> Value {
    let snapshot = context.store.snapshot();
    let kinds = by_name(|descriptor| {
        descriptor.is_global_scoped() && !descriptor.capabilities.soft && !descriptor.path.is_empty()
    });
    let totals = totals(kinds.map(|(kind, _)| (kind, snapshot.list(kind, None).count())));
    json!({
        "type": "GlobalInsights",
        "creationTime": context.clock.now().to_string(),
        "resources": totals,
    })
}
