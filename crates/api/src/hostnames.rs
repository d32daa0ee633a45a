//! `_hostnames`: the names that clients of a service can use (rest-api.md §8.7).

use std::collections::BTreeSet;

use graticule_model::kinds::hostname_generator::{HostnameGenerator, LabelSelector};
use graticule_model::labels::Origin;
use graticule_model::template::Template;
use graticule_model::{Key, Kind, Resource, Violations, labels};
use serde_json::{Value, json};

use crate::error::{Error, title};
use crate::{Call, Context, access};

const KINDS: [Kind; 3] = [Kind::MeshService, Kind::MeshExternalService, Kind::MeshMultiZoneService];

pub(crate) fn hostnames(
    context: &Context,
    call: &Call,
    mesh: &str,
    path: &str,
    name: &str,
) -> Result<Value, Error> {
    let kind = KINDS.into_iter().find(|kind| kind.descriptor().path == path).ok_or_else(|| {
        let paths = KINDS.map(|kind| kind.descriptor().path).join(",");
        Error::invalid(&format!("only \"{paths}\" are available for inspection"), Violations::default())
    })?;
    access::resources(&context.options, &call.user, kind)?;
    let state = context.store.snapshot();
    let service = state.get(&Key::new(kind, mesh, name));
    let has_mesh = state.contains(&Key::new(Kind::Mesh, "", mesh));
    let service = service.filter(|_| has_mesh).ok_or_else(|| Error::not_found(title::SERVICE))?;
    let generators = state.list(Kind::HostnameGenerator, None);
    let generators = generators.filter_map(|resource| resource.spec_as::<HostnameGenerator>());
    let names: BTreeSet<String> = generators
        .filter(|generator| is_selected(context.mode.is_global(), generator, &service))
        .filter_map(|generator| render(generator, &service, &context.zone))
        .collect();
    // Clients know the name of a service that no zone owns here (pinned by the conformance data).
    let zone = service.meta.zone().unwrap_or(&service.meta.name);
    let items: Vec<Value> =
        names.iter().map(|hostname| json!({"hostname": hostname, "zones": [{"name": zone}]})).collect();
    let total = items.len();
    let items = if items.is_empty() { Value::Null } else { items.into() };
    Ok(json!({"total": total, "items": items}))
}

/// Global asks for all zones: in the zone that owns the service its origin is `zone`, in all others `global`.
fn is_selected(is_global: bool, generator: &HostnameGenerator, service: &Resource) -> bool {
    let selector: Option<&LabelSelector> = match service.kind() {
        Kind::MeshService => generator.selector.mesh_service.as_ref(),
        Kind::MeshExternalService => generator.selector.mesh_external_service.as_ref(),
        _ => generator.selector.mesh_multi_zone_service.as_ref(),
    };
    let Some(selector) = selector else { return false };
    if !is_global {
        return selector.matches(&service.meta.labels);
    }
    [Origin::Zone, Origin::Global].into_iter().any(|origin| {
        let mut seen = service.meta.labels.clone();
        seen.insert(labels::ORIGIN.into(), origin.as_str().into());
        selector.matches(&seen)
    })
}

/// A template that does not render makes no name; its generator's status in the zones says why.
fn render(generator: &HostnameGenerator, service: &Resource, zone: &str) -> Option<String> {
    let meta = &service.meta;
    let fields = [
        ("Name", meta.name.as_str()),
        ("DisplayName", meta.display_name()),
        ("Namespace", meta.namespace().unwrap_or_default()),
        ("Mesh", meta.mesh.as_str()),
        ("Zone", meta.zone().unwrap_or(zone)),
    ];
    let name = Template::parse(&generator.template).ok()?.render(&fields, &meta.labels).ok()?;
    Some(name).filter(|name| !name.is_empty())
}
