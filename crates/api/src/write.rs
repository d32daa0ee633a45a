//! Writing resources (rest-api.md §5.2–§5.4).

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::labels::{self, LabelRules};
use graticule_model::{DecodeError, Key, Kind, Mode, Resource, Spec, Status, Violations, name as names};
use graticule_store::{Change, Expect, Snapshot, Txn, Write, transaction};
use http::StatusCode;
use serde_json::{Value, json};

use crate::audit::Done;
use crate::error::{Error, title};
use crate::{Call, Context, access, body, read, respond, violation};

const ORIGIN_FIELD: &str = "labels[\"kuma.io/origin\"]";
const ZONE_FIELD: &str = "labels[\"kuma.io/zone\"]";

/// A write that may happen: everything was checked but what only the store knows.
struct Planned {
    key: Key,
    /// What the checks saw.
    snapshot: Snapshot,
    txn: Txn,
    /// Title of an error of the store.
    title: &'static str,
    /// 201 when the resource is new.
    status: StatusCode,
    warnings: Vec<String>,
}

pub(crate) async fn put(
    context: &Context,
    call: &Call,
    kind: Kind,
    mesh: Option<&str>,
    name: &str,
    body: Body,
) -> Result<Response, Error> {
    let planned = plan(context, call, kind, mesh, name, body).await?;
    let Planned { key, txn, title, status, warnings, .. } = planned;
    let committed = context.store.commit(txn).await.map_err(|error| Error::from_commit(title, error))?;
    let body = if warnings.is_empty() { json!({}) } else { json!({"warnings": warnings}) };
    Ok(Done::written(&key, &committed).beside(respond::value(status, call.format, &body)))
}

/// What [`put`] would do: the same checks and the same answer, with the resource as it would be stored; nothing
/// is written. A path of its own, because a control plane that knows no dry run would ignore a parameter and
/// write.
pub(crate) async fn dry_run(
    context: &Context,
    call: &Call,
    kind: Kind,
    mesh: Option<&str>,
    name: &str,
    body: Body,
) -> Result<Response, Error> {
    let planned = plan(context, call, kind, mesh, name, body).await?;
    let applied = transaction::apply(&planned.snapshot, planned.txn, context.clock.now())
        .map_err(|error| Error::from_commit(planned.title, error))?;
    let resource = applied.snapshot.get(&planned.key).map(|resource| resource.to_rest());
    let mut body = json!({"resource": resource});
    if !planned.warnings.is_empty() {
        body["warnings"] = json!(planned.warnings);
    }
    Ok(respond::value(planned.status, call.format, &body))
}

async fn plan(
    context: &Context,
    call: &Call,
    kind: Kind,
    mesh: Option<&str>,
    name: &str,
    body: Body,
) -> Result<Planned, Error> {
    access::writable(context, kind)?;
    access::writer(&context.options, &call.user, kind)?;
    check_served(context, &Key::new(kind, mesh.unwrap_or_default(), name))?;
    read::require_mesh(context, mesh)?;
    let bytes = body::read(context, body).await?;
    let mut value = body::parse(call.body_format, &bytes).map_err(|error| Error::undecodable(kind, error))?;
    if value.is_null() && !kind.descriptor().is_plugin() {
        value = json!({});
    }
    let mut resource = decode(kind, &value)?;
    tag_gateway(context, &mut resource);
    let snapshot = context.store.snapshot();
    let key = Key::new(kind, mesh.unwrap_or_default(), name);
    let stored = snapshot.get(&key);
    check_request(context, &key, &value, &resource)?;
    access::resources(&context.options, &call.user, kind)?;
    resource.meta.labels = computed_labels(context, &resource);
    let warnings = resource.warnings();
    let (status, title, mut txn) = match stored {
        Some(stored) => (StatusCode::OK, title::UPDATE, update(context, &stored, resource)?),
        None => (StatusCode::CREATED, title::CREATE, create(context, &snapshot, resource).await?),
    };
    txn.at = Some(context.clock.now());
    Ok(Planned { key, snapshot, txn, title, status, warnings })
}

/// Schema, types and the meaning of the spec.
fn decode(kind: Kind, value: &Value) -> Result<Resource, Error> {
    if let Some(error) = outer_type_error(kind, value) {
        return Err(Error::undecodable(kind, error));
    }
    let mut resource = Resource::from_rest(kind, value).map_err(|error| match error {
        DecodeError::Malformed { path, message } if path.is_empty() => Error::undecodable(kind, message),
        DecodeError::Malformed { path, message } => Error::undecodable(kind, format!("{path}: {message}")),
        DecodeError::Invalid(violations) => Error::invalid(title::PROCESS, violations),
    })?;
    // What the control plane says about a resource is not for clients to write.
    resource.status = Status::empty(kind);
    read::check(title::PROCESS, spec_violations(&resource, false))?;
    Ok(resource)
}

/// A document that is no object, or whose metadata has the wrong JSON type, in the words that clients of the
/// reference know. (Plugin kinds have a schema that says so.)
fn outer_type_error(kind: Kind, value: &Value) -> Option<String> {
    let type_name = |value: &Value| match value {
        Value::Null => None,
        Value::Bool(_) => Some("bool"),
        Value::Number(_) => Some("number"),
        Value::String(_) => Some("string"),
        Value::Array(_) => Some("array"),
        Value::Object(_) => Some("object"),
    };
    let Value::Object(members) = value else {
        let found = type_name(value).unwrap_or("null");
        return Some(format!(
            "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        ));
    };
    if kind.descriptor().is_plugin() {
        return None;
    }
    ["type", "mesh", "name"].into_iter().find_map(|key| {
        let found = members.get(key).filter(|value| !value.is_string()).and_then(type_name)?;
        Some(format!("json: cannot unmarshal {found} into Go struct field ResourceMeta.{key} of type string"))
    })
}

/// Rules about names that a kind has of its own belong to creation, all others to the request.
fn spec_violations(resource: &Resource, of_name: bool) -> Violations {
    match resource.validate() {
        Ok(()) => Violations::default(),
        Err(Violations(all)) => {
            Violations(all.into_iter().filter(|v| (v.path == "name") == of_name).collect())
        }
    }
}

/// Names and labels against the path and the rules of this site (resources.md §3.3, §4).
fn check_request(context: &Context, key: &Key, value: &Value, resource: &Resource) -> Result<(), Error> {
    let mut violations = Violations::default();
    let descriptor = key.kind.descriptor();
    let meta = &resource.meta;
    if meta.name != key.name {
        violations.add("name", "name from the URL has to be the same as in body");
    }
    if value.get("type").and_then(Value::as_str) != Some(key.kind.name()) {
        violations.add("type", "type from the URL has to be the same as in body");
    }
    if meta.mesh != key.mesh {
        violations.add("mesh", "mesh from the URL has to be the same as in body");
    }
    if let Some(message) = names::resource_name_error(&meta.name) {
        violations.add("name", message);
    }
    if !descriptor.is_global_scoped()
        && let Some(message) = names::mesh_name_error(&meta.mesh)
    {
        violations.add("mesh", message);
    }
    let is_federated = context.mode == Mode::FederatedZone;
    if is_federated && context.zone.len() + 1 + meta.name.len() >= names::NAME_LEN_MAX {
        violations.add("name", "the length of the name must be shorter");
    }
    let rules = LabelRules { skip_origin: context.options.rules.skip_origin_validation };
    labels::validate(context.site(), rules, key.kind, &key.mesh, &meta.labels, &mut violations);
    read::check(title::PROCESS, violations)
}

/// A zone that takes part in some meshes only has no policies and no identity for proxies of others.
/// What is there may be changed until it goes.
fn check_served(context: &Context, key: &Key) -> Result<(), Error> {
    let (meshes, mesh) = (&context.options.rules.meshes, &key.mesh);
    let is_served = meshes.is_empty() || meshes.contains(mesh);
    if key.kind != Kind::Dataplane || is_served || context.store.snapshot().contains(key) {
        return Ok(());
    }
    let reason = format!("this zone takes no part in mesh {mesh:?}: multizone.zone.meshes does not name it");
    Err(violation(title::CREATE, "mesh", reason))
}

async fn create(context: &Context, snapshot: &Snapshot, mut resource: Resource) -> Result<Txn, Error> {
    let kind = resource.kind();
    read::check(title::CREATE, spec_violations(&resource, true))?;
    check_workload(context, &resource)?;
    check_own_zone(context, kind, &resource.meta.name, title::CREATE)?;
    // A Dataplane belongs to whoever runs its proxy: it outlives a mesh that is deleted against all warnings, and serves
    // again once the mesh is back (federation.md §5.4).
    if !kind.descriptor().is_global_scoped() && kind != Kind::Dataplane {
        resource.meta.owner = Some(Key::new(Kind::Mesh, "", resource.meta.mesh.clone()));
    }
    if kind == Kind::Mesh {
        let key_pem = context.mesh_setup.new_signing_key().await.map_err(|error| {
            tracing::error!(%error, mesh = resource.meta.name, "cannot make the signing key of a mesh");
            Error::new(StatusCode::INTERNAL_SERVER_ERROR, title::CREATE, "Internal Server Error")
        })?;
        Ok(context.mesh_setup.txn(context.site(), snapshot, resource, key_pem))
    } else {
        Ok(Txn::default().and_put(resource, Expect::Absent))
    }
}

fn update(context: &Context, stored: &Arc<Resource>, mut resource: Resource) -> Result<Txn, Error> {
    check_zone_label(stored, &resource)?;
    if is_foreign(context, stored) {
        return Err(violation(title::UPDATE, ORIGIN_FIELD, foreign_message(context)));
    }
    resource.status = stored.status.clone();
    let expect = Expect::Version(stored.meta.version);
    let write = Write::Put { resource: Box::new(resource), expect, touch: true };
    Ok(Txn { at: None, writes: vec![write] })
}

/// A gateway carries its zone as a tag (resources.md §3.1).
fn tag_gateway(context: &Context, resource: &mut Resource) {
    if let Spec::Dataplane(dataplane) = &mut resource.spec
        && let Some(gateway) =
            dataplane.networking.as_mut().and_then(|networking| networking.gateway.as_mut())
        && !context.mode.is_global()
    {
        gateway.tags.insert(labels::ZONE.into(), context.zone.clone());
    }
}

fn computed_labels(context: &Context, resource: &Resource) -> std::collections::BTreeMap<String, String> {
    let meta = &resource.meta;
    labels::compute(context.site(), resource.kind(), &meta.mesh, &meta.name, &resource.spec, &meta.labels)
}

/// The label of a workload becomes the name of a resource, so it must be able to be one.
fn check_workload(context: &Context, resource: &Resource) -> Result<(), Error> {
    let workload = resource.meta.label(labels::WORKLOAD).filter(|workload| !workload.is_empty());
    let Some(workload) = workload else { return Ok(()) };
    if resource.kind() != Kind::Dataplane {
        return Ok(());
    }
    if context.mode.is_global() {
        return Err(Error::bad_request("labels[\"kuma.io/workload\"]: not allowed on Global control plane"));
    }
    match names::dns1035_error(workload) {
        Some(reason) => Err(Error::bad_request(format!(
            "labels[\"kuma.io/workload\"]: must be a valid DNS-1035 label (at most 63 characters, matching regex [a-z]([-a-z0-9]*[a-z0-9])?): {reason}"
        ))),
        None => Ok(()),
    }
}

/// The zone of a resource never changes.
fn check_zone_label(stored: &Resource, new: &Resource) -> Result<(), Error> {
    let Some(old) = stored.meta.zone() else { return Ok(()) };
    let message = match new.meta.zone() {
        Some(zone) if zone == old => return Ok(()),
        Some(zone) => format!("is immutable, cannot be changed from \"{old}\" to \"{zone}\""),
        None => format!("is immutable, cannot be removed (was \"{old}\")"),
    };
    Err(violation(title::UPDATE, ZONE_FIELD, message))
}

/// Whether a stored resource is a copy that another control plane owns. What the request says about its
/// origin does not matter (DESIGN decision 17).
fn is_foreign(context: &Context, stored: &Resource) -> bool {
    match context.mode {
        Mode::Global => !stored.meta.is_local_to_global(),
        Mode::FederatedZone => !stored.meta.is_local_to_zone(),
        Mode::StandaloneZone => false,
    }
}

fn foreign_message(context: &Context) -> &'static str {
    if context.mode.is_global() {
        "the resource is a copy of a zone's: change it on the zone control plane"
    } else {
        "the resource is a copy of global's: change it on the global control plane"
    }
}

/// A zone control plane knows its own zone only.
fn check_own_zone(context: &Context, kind: Kind, name: &str, title: &str) -> Result<(), Error> {
    if kind != Kind::Zone || context.mode.is_global() || name == context.zone {
        return Ok(());
    }
    let message = format!("a zone control plane has its own zone only: {}", context.zone);
    Err(violation(title, "name", message))
}

pub(crate) async fn delete(
    context: &Context,
    call: &Call,
    kind: Kind,
    mesh: Option<&str>,
    name: &str,
) -> Result<Response, Error> {
    access::writable(context, kind)?;
    access::writer(&context.options, &call.user, kind)?;
    let snapshot = context.store.snapshot();
    let key = Key::new(kind, mesh.unwrap_or_default(), name);
    let stored = snapshot.get(&key);
    // A Dataplane outlives its mesh, and whoever made it can take it away.
    if kind != Kind::Dataplane || stored.is_none() {
        read::require_mesh(context, mesh)?;
    }
    let stored = stored.ok_or_else(|| Error::not_found(title::DELETE))?;
    check_deletable(context, &stored)?;
    access::resources(&context.options, &call.user, kind)?;
    if !context.options.rules.unsafe_delete {
        guard(context, &snapshot, &key)?;
    }
    let mut txn = Txn { at: Some(context.clock.now()), ..Txn::default() };
    if kind == Kind::Zone && context.mode.is_global() {
        // What a zone brought goes with it.
        let keys =
            snapshot.iter().filter(|resource| is_from_zone(resource, name)).map(|resource| resource.key());
        for key in keys.filter(|other| *other != key) {
            txn = txn.and_delete(key, Expect::Any);
        }
    }
    let txn = txn.and_delete(key.clone(), Expect::Version(stored.meta.version));
    let committed =
        context.store.commit(txn).await.map_err(|error| Error::from_commit(title::DELETE, error))?;
    delete_insights(context, &committed.batch.changes).await;
    Ok(Done::written(&key, &committed).beside(respond::value(StatusCode::OK, call.format, &json!({}))))
}

fn is_from_zone(resource: &Resource, zone: &str) -> bool {
    resource.meta.zone() == Some(zone) && !resource.meta.is_local_to_global()
}

/// The origin rules on what is stored (rest-api.md §5.3).
fn check_deletable(context: &Context, stored: &Resource) -> Result<(), Error> {
    const FIELD: &str = "[\"kuma.io/origin\"]";
    if is_foreign(context, stored) {
        let wanted = if context.mode.is_global() { "global" } else { "zone" };
        let message = format!("the origin label must be set to '{wanted}'");
        return Err(violation(title::DELETE, FIELD, message));
    }
    Ok(())
}

/// Deletes that would break what is running.
fn guard(context: &Context, snapshot: &Snapshot, key: &Key) -> Result<(), Error> {
    if key.kind == Kind::Mesh && snapshot.list(Kind::Dataplane, Some(&key.name)).next().is_some() {
        let message = "unable to delete mesh, there are still some dataplanes attached";
        return Err(violation(title::DELETE, "mesh", message));
    }
    if key.kind == Kind::Zone {
        if !context.mode.is_global() && key.name == context.zone {
            let message = "unable to delete Zone, it is the zone of this control plane";
            return Err(violation(title::DELETE, "zone", message));
        }
        let insight = context.soft.snapshot().get(&Key::new(Kind::ZoneInsight, "", key.name.clone()));
        if insight.is_some_and(|i| i.spec_as::<ZoneInsight>().is_some_and(ZoneInsight::is_online)) {
            let message = "unable to delete Zone, Zone CP is still connected, please shut it down first";
            return Err(violation(title::DELETE, "zone", message));
        }
    }
    Ok(())
}

/// Observations of what is gone go too; they live in another store, so this cannot be one transaction.
async fn delete_insights(context: &Context, changes: &[Change]) {
    let gone = changes.iter().filter(|change| change.new.is_none()).map(|change| &change.key);
    let txn = gone.fold(Txn::default(), |txn, key| match read::insight_kind(key.kind) {
        Some(kind) => txn.and_delete(Key::new(kind, key.mesh.clone(), key.name.clone()), Expect::Any),
        None => txn,
    });
    if !txn.writes.is_empty()
        && let Err(error) = context.soft.commit(txn).await
    {
        tracing::warn!(%error, "insights of deleted resources stay behind");
    }
}
