//! Reading resources (rest-api.md §4, §5.1, §5.5, §5.6).

use std::sync::Arc;

use graticule_model::{Key, Kind, Kri, Mode, Resource, Violations};
use graticule_store::{Snapshot, Store};
use serde_json::{Map, Value, json};

use crate::error::{Error, title};
use crate::query::{Filter, Page};
use crate::route::Form;
use crate::{Call, Context, access, insights};

/// The store that holds a kind.
pub(crate) fn store_of(context: &Context, kind: Kind) -> &Arc<dyn Store> {
    if kind.descriptor().capabilities.soft { &context.soft } else { &context.store }
}

/// If the path has a mesh, it must exist.
pub(crate) fn require_mesh(context: &Context, mesh: Option<&str>) -> Result<(), Error> {
    match mesh {
        Some(mesh) if !context.store.snapshot().contains(&Key::new(Kind::Mesh, "", mesh)) => {
            Err(Error::not_found(title::MESH))
        }
        _ => Ok(()),
    }
}

async fn find(context: &Context, call: &Call, key: &Key) -> Result<Arc<Resource>, Error> {
    access::resources(&context.options, &call.user, key.kind)?;
    let found = match key.kind {
        Kind::MeshInsight => insights::one_mesh_insight(context, &key.name).await,
        kind => store_of(context, kind).snapshot().get(key),
    };
    found.ok_or_else(|| Error::not_found(title::GET))
}

pub(crate) async fn one(
    context: &Context,
    call: &Call,
    kind: Kind,
    mesh: Option<&str>,
    name: &str,
) -> Result<Value, Error> {
    let key = Key::new(kind, mesh.unwrap_or_default(), name);
    // A Dataplane outlives its mesh.
    if kind != Kind::Dataplane || !context.store.snapshot().contains(&key) {
        require_mesh(context, mesh)?;
    }
    let resource = find(context, call, &key).await?;
    formatted(call, &resource, title::GET)
}

/// The form that the parameter `format` asks for.
fn formatted(call: &Call, resource: &Resource, title: &str) -> Result<Value, Error> {
    match call.query.get("format") {
        None | Some("universal") => Ok(resource.to_rest()),
        Some("k8s" | "kubernetes") => Ok(resource.to_kubernetes(call.query.get("namespace"))),
        Some(_) => {
            let message = "\"format\" must be one of [\"k8s\", \"kubernetes\", \"universal\"]";
            Err(crate::violation(title, "", message))
        }
    }
}

pub(crate) async fn list(
    context: &Context,
    call: &Call,
    kind: Kind,
    mesh: Option<&str>,
    form: Form,
) -> Result<Value, Error> {
    require_mesh(context, mesh)?;
    access::resources(&context.options, &call.user, kind)?;
    let page = Page::parse(&call.query)?;
    let filter = Filter::parse(&call.query, &call.template, kind == Kind::Dataplane)?;
    let computed =
        if kind == Kind::MeshInsight { insights::mesh_insights(context).await } else { Vec::new() };
    let snapshot = store_of(context, kind).snapshot();
    let (total, found) = match kind {
        Kind::MeshInsight => filter.page(page, computed.iter()),
        kind => select(&snapshot, kind, mesh, &filter, page),
    };
    let observed = (form == Form::Overview).then(|| context.soft.snapshot());
    let item = |resource: &Arc<Resource>| match &observed {
        Some(observed) => overview_of(resource, insight(observed, resource)),
        None => resource.to_rest(),
    };
    let items: Vec<Value> = found.into_iter().map(item).collect();
    Ok(json!({"total": total, "items": items, "next": next_page(call, page, total)}))
}

/// How many resources match, and those on the page. Walks no more than it must: nothing but the page without a
/// filter, the index of a label with one.
fn select<'a>(
    snapshot: &'a Snapshot,
    kind: Kind,
    mesh: Option<&str>,
    filter: &Filter,
    page: Page,
) -> (usize, Vec<&'a Arc<Resource>>) {
    if filter.is_empty() {
        let found = snapshot.list_skip(kind, mesh, page.offset).take(page.size);
        return (snapshot.count(kind, mesh), found.collect());
    }
    let mesh_of_index = if kind.descriptor().is_global_scoped() { Some("") } else { mesh };
    match (mesh_of_index, filter.a_label()) {
        (Some(mesh), Some((key, value))) => filter.page(page, snapshot.by_label(kind, mesh, key, value)),
        _ => filter.page(page, snapshot.list(kind, mesh)),
    }
}

/// The address of the next page, if there is one.
pub(crate) fn next_page(call: &Call, page: Page, total: usize) -> Option<String> {
    let query = page.next(&call.query, total)?;
    let scheme = if call.peer.as_ref().is_some_and(|peer| peer.tls) { "https" } else { "http" };
    Some(format!("{scheme}://{}{}?{query}", call.host, call.path))
}

/// The kind of observation that belongs to a kind.
pub(crate) fn insight_kind(kind: Kind) -> Option<Kind> {
    match kind {
        Kind::Dataplane => Some(Kind::DataplaneInsight),
        Kind::Zone => Some(Kind::ZoneInsight),
        _ => None,
    }
}

fn insight(soft: &Snapshot, resource: &Resource) -> Option<Arc<Resource>> {
    let kind = insight_kind(resource.kind())?;
    soft.get(&Key::new(kind, resource.meta.mesh.clone(), resource.meta.name.clone()))
}

pub(crate) async fn overview(
    context: &Context,
    call: &Call,
    kind: Kind,
    mesh: Option<&str>,
    name: &str,
) -> Result<Value, Error> {
    require_mesh(context, mesh)?;
    let resource = find(context, call, &Key::new(kind, mesh.unwrap_or_default(), name)).await?;
    let insight = insight(&context.soft.snapshot(), &resource);
    let mut overview = overview_of(&resource, insight);
    // One overview has the member always, a list only with content.
    if let Value::Object(members) = &mut overview {
        members.entry(insight_member(kind)).or_insert_with(|| json!({}));
    }
    Ok(overview)
}

fn insight_member(kind: Kind) -> &'static str {
    if kind == Kind::Zone { "zoneInsight" } else { "dataplaneInsight" }
}

/// Metadata of the resource, its spec as one member, its insight as another.
fn overview_of(resource: &Resource, insight: Option<Arc<Resource>>) -> Value {
    let kind = resource.kind();
    let meta_keys = ["mesh", "name", "creationTime", "modificationTime", "labels", "kri"];
    let mut members = Map::new();
    if let Value::Object(mut rest) = resource.to_rest() {
        members.extend(meta_keys.iter().filter_map(|key| rest.remove_entry(*key)));
    }
    members.insert("type".into(), format!("{kind}Overview").into());
    let spec_member = if kind == Kind::Zone { "zone" } else { "dataplane" };
    members.insert(spec_member.into(), resource.spec.to_json());
    if let Some(insight) = insight {
        members.insert(insight_member(kind).into(), insight.spec.to_json());
    }
    Value::Object(members)
}

pub(crate) fn by_kri(context: &Context, call: &Call, text: &str) -> Result<Value, Error> {
    let kri = Kri::parse(text).map_err(Error::bad_request)?;
    access::resources(&context.options, &call.user, kri.kind)?;
    let snapshot = store_of(context, kri.kind).snapshot();
    let found = kri_keys(context.mode, &context.zone, &kri).into_iter().find_map(|key| snapshot.get(&key));
    let resource = found
        .filter(|resource| is_named(resource, &kri, &context.zone))
        .ok_or_else(|| Error::not_found(title::GET))?;
    formatted(call, &resource, title::FORMAT)
}

/// Where a resource may be stored: the plain name if it is from here, else the name of a copy; the plain name
/// too for resources whose labels name no zone (resources.md §2.4).
fn kri_keys(mode: Mode, zone: &str, kri: &Kri) -> Vec<Key> {
    let is_local = if mode.is_global() { kri.zone.is_empty() } else { kri.zone == zone };
    match (is_local, kri.zone.is_empty()) {
        (true, _) => vec![kri.plain_key()],
        (false, true) => vec![kri.hashed_key(), kri.plain_key()],
        // A policy that was written here may claim any zone.
        (false, false) => vec![kri.hashed_key(), kri.plain_key()],
    }
}

/// Guards against a namesake from another zone. What a zone made itself may lack the label of its zone.
fn is_named(resource: &Resource, kri: &Kri, own_zone: &str) -> bool {
    resource.kri().is_some_and(|own| own == kri.clone().without_section())
        || kri.zone == own_zone
            && resource.meta.zone().is_none_or(|zone| zone == own_zone)
            && resource.meta.display_name() == kri.name
}

/// All violations as one error, if there are any.
pub(crate) fn check(title: &str, violations: Violations) -> Result<(), Error> {
    violations.into_result().map_err(|violations| Error::invalid(title, violations))
}
