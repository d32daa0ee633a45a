//! System endpoints (rest-api.md §6).

use graticule_model::kinds::config::CLUSTER_ID;
use graticule_model::{Descriptor, Key, Kind, Mode, Scope, Spec};
use graticule_store::{Health, Snapshot};
use serde_json::{Value, json};

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
    // Absent when all is well, as clients of the reference know it.
    match context.store.health() {
        Health::Ready => {}
        Health::Stale(reason) => index["store"] = json!({"state": "stale", "reason": reason}),
        Health::ReadOnly(reason) => index["store"] = json!({"state": "readOnly", "reason": reason}),
    }
    index
}

/// Empty until the first control plane of the federation made it.
pub(crate) fn cluster_id(snapshot: &Snapshot) -> String {
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
