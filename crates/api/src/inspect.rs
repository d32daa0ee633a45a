//! Inspect endpoints: checks, the questions to the [`Inspector`](crate::Inspector), and what is known without it
//! (rest-api.md §8).

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::kinds::mesh_service::{MeshService, Selector};
use graticule_model::{Key, Kind, Kri, Resource, labels};
use graticule_store::Snapshot;
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::{Error, title};
use crate::inspector::Unanswered;
use crate::query::{Page, Query};
use crate::route::{PolicyDataplanes, ProxyView};
use crate::{Call, Context, access, layout, read};

/// Everything that is asked about one proxy.
pub(crate) async fn proxy(
    context: &Context,
    call: &Call,
    mesh: &str,
    name: &str,
    view: &ProxyView,
) -> Result<Value, Error> {
    let key = Key::new(Kind::Dataplane, mesh, name);
    match view {
        ProxyView::Config => return config(context, call, &key).await,
        ProxyView::Layout => require_mesh(context, mesh, title::MESH_CONTEXT)?,
        _ => require_mesh(context, mesh, title::MESH)?,
    }
    access::resources(&context.options, &call.user, Kind::Dataplane)?;
    let state = context.store.snapshot();
    let missing = match view {
        ProxyView::Layout => title::LAYOUT_DATAPLANE,
        ProxyView::MatchedPolicies => title::MATCHED_POLICIES,
        _ => title::DATAPLANE,
    };
    let proxy = state.get(&key).ok_or_else(|| Error::not_found(missing))?;
    let inspector = context.inspector.as_ref();
    let kri = |text: &str| Kri::parse(text).map_err(Error::bad_request);
    let answer = match view {
        ProxyView::Layout => return Ok(layout::layout(&state, &context.zone, &proxy)),
        ProxyView::Rules => inspector.rules(&state, &proxy),
        ProxyView::Policies => inspector.policies(&state, &proxy),
        ProxyView::InboundPolicies { inbound } => {
            let section = inbound_section(&proxy, &kri(inbound)?)?;
            inspector.inbound_policies(&state, &proxy, &section)
        }
        ProxyView::OutboundPolicies { outbound } => {
            inspector.outbound_policies(&state, &proxy, &kri(outbound)?)
        }
        ProxyView::OutboundRoutes { outbound } => inspector.outbound_routes(&state, &proxy, &kri(outbound)?),
        ProxyView::RoutePolicies { outbound, route } => {
            let (outbound, route) = (kri(outbound)?, kri(route)?);
            inspector.route_policies(&state, &proxy, &outbound, &route.without_section())
        }
        ProxyView::MatchedPolicies => {
            inspector.matched_policies(&state, &proxy).map(|matched| matched_policies(&matched))
        }
        ProxyView::Config | ProxyView::Admin(_) => Err(Unanswered::Unsupported),
    };
    answer.map_err(|unanswered| refusal(call, unanswered, missing))
}

fn require_mesh(context: &Context, mesh: &str, title: &str) -> Result<(), Error> {
    let exists = context.store.snapshot().contains(&Key::new(Kind::Mesh, "", mesh));
    if exists { Ok(()) } else { Err(Error::not_found(title)) }
}

/// Why there is no answer, as a document.
fn refusal(call: &Call, unanswered: Unanswered, title: &str) -> Error {
    match unanswered {
        Unanswered::Unsupported => Error::needs_policy_engine(&call.template),
        Unanswered::NotFound => Error::not_found(title),
        Unanswered::Failed(reason) => {
            tracing::error!(reason, path = call.path, "a proxy cannot be inspected");
            Error::new(StatusCode::INTERNAL_SERVER_ERROR, title, "Internal Server Error")
        }
    }
}

/// The inbound or listener that a KRI means: only its section counts, an empty one means the first inbound.
fn inbound_section(proxy: &Resource, kri: &Kri) -> Result<String, Error> {
    let mut sections = proxy.spec_as::<Dataplane>().into_iter().flat_map(|dataplane| {
        let networking = dataplane.networking();
        let inbounds = networking.inbound.iter().map(|inbound| (inbound.section(), inbound.port));
        let listeners = networking.listeners.iter().map(|listener| (listener.section(), listener.port));
        inbounds.chain(listeners)
    });
    let found = sections.find(|(section, port)| {
        kri.section.is_empty() || *section == kri.section || port.to_string() == kri.section
    });
    found.map(|(section, _)| section).ok_or_else(|| Error::not_found("Failed building response"))
}

/// The form of older clients.
fn matched_policies(matched: &[Arc<Resource>]) -> Value {
    let mut by_kind: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for policy in matched {
        // Metadata alone.
        let mut rest = policy.to_rest();
        if let Value::Object(members) = &mut rest {
            members.retain(|key, _| key != "spec" && key != "status");
        }
        by_kind.entry(policy.kind().name()).or_default().push(rest);
    }
    let items: Vec<Value> = (!by_kind.is_empty())
        .then(|| json!({"type": "dataplane", "matchedPolicies": by_kind}))
        .into_iter()
        .collect();
    json!({"kind": "SidecarDataplane", "total": items.len(), "items": items})
}

/// `_config`: what a proxy is sent, only where proxies are served.
async fn config(context: &Context, call: &Call, key: &Key) -> Result<Value, Error> {
    if context.mode.is_global() {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Error::new(status, "Method not allowed", "Not allowed on global CP"));
    }
    let unsupported =
        |name: &str| Error::bad_request(format!("unsupported value for query parameter '{name}'"));
    let with_shadow = match call.query.get("shadow") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(unsupported("shadow")),
    };
    let with_diff = match call.query.get("include") {
        None => false,
        Some("diff") => true,
        Some(_) => return Err(unsupported("include")),
    };
    access::config_dump(&context.options, &call.user)?;
    let insight = Key::new(Kind::DataplaneInsight, key.mesh.clone(), key.name.clone());
    if !context.soft.snapshot().contains(&insight) {
        return Err(Error::not_found(title::INSIGHT));
    }
    let answer = context.inspector.config(key, with_shadow).await;
    let config = answer.map_err(|unanswered| refusal(call, unanswered, title::INSIGHT))?;
    let mut body = json!({"xds": config.xds});
    if with_diff {
        body["diff"] = config.diff.into();
    }
    Ok(body)
}

/// The Dataplanes that a policy selects.
pub(crate) fn policy_dataplanes(
    context: &Context,
    call: &Call,
    policy: &Key,
    shape: PolicyDataplanes,
) -> Result<Value, Error> {
    require_mesh(context, &policy.mesh, title::MESH)?;
    access::resources(&context.options, &call.user, policy.kind)?;
    let state = context.store.snapshot();
    let (stored, is_paged) = (state.get(policy), shape == PolicyDataplanes::Paged);
    let page = if is_paged { Page::parse(&call.query)? } else { Page::all() };
    let Some(stored) = stored else {
        return if is_paged { Err(Error::not_found(title::POLICY)) } else { Ok(attachments(&[])) };
    };
    let selected = context.inspector.selected_proxies(&state, &stored);
    let selected = selected.map_err(|unanswered| refusal(call, unanswered, title::POLICY))?;
    Ok(if is_paged { paged(call, page, &selected) } else { attachments(&selected) })
}

/// The form of older clients: everything, without pages.
fn attachments(selected: &[Arc<Resource>]) -> Value {
    let items: Vec<Value> = selected
        .iter()
        .map(|proxy| {
            json!({
                "kind": "SidecarDataplane",
                "dataplane": {"mesh": proxy.meta.mesh, "name": proxy.meta.name},
                "attachments": [{"type": "dataplane"}],
            })
        })
        .collect();
    json!({"total": items.len(), "items": items})
}

/// One page of metadata; `next` only if there is a next one.
fn paged(call: &Call, page: Page, proxies: &[Arc<Resource>]) -> Value {
    let is_named = |proxy: &&Arc<Resource>| is_named(&call.query, proxy);
    let matching: Vec<&Arc<Resource>> = proxies.iter().filter(is_named).collect();
    let items: Vec<Value> =
        matching.iter().skip(page.offset).take(page.size).map(|proxy| meta_of(proxy)).collect();
    let mut body = json!({"total": matching.len(), "items": items});
    if let Some(next) = read::next_page(call, page, matching.len()) {
        body["next"] = next.into();
    }
    body
}

fn is_named(query: &Query, resource: &Resource) -> bool {
    query.get("name").is_none_or(|part| resource.meta.name.contains(part))
}

fn meta_of(resource: &Resource) -> Value {
    json!({
        "type": resource.kind().name(),
        "mesh": resource.meta.mesh,
        "name": resource.meta.name,
        "labels": resource.meta.labels,
    })
}

/// The Dataplanes behind a MeshService.
pub(crate) fn service_dataplanes(
    context: &Context,
    call: &Call,
    mesh: &str,
    name: &str,
) -> Result<Value, Error> {
    require_mesh(context, mesh, title::MESH)?;
    access::resources(&context.options, &call.user, Kind::MeshService)?;
    let state = context.store.snapshot();
    let service = state.get(&Key::new(Kind::MeshService, mesh, name));
    let service = service.ok_or_else(|| Error::not_found(title::POLICY))?;
    Ok(paged(call, Page::parse(&call.query)?, &selected_by(&state, &service)))
}

/// A service selects among the proxies of its own zone: on global, those of other zones may have equal labels.
fn selected_by(state: &Snapshot, service: &Resource) -> Vec<Arc<Resource>> {
    let Some(spec) = service.spec_as::<MeshService>() else { return Vec::new() };
    let is_selected = |proxy: &Resource| match &spec.selector {
        Selector { dataplane_ref: Some(reference), .. } => {
            proxy.meta.name == reference.name || proxy.meta.display_name() == reference.name
        }
        Selector { dataplane_labels: Some(wanted), .. } => {
            labels::matches(&wanted.match_labels, &proxy.meta.labels)
        }
        _ => false,
    };
    let is_same_zone = |proxy: &Resource| match (service.meta.zone(), proxy.meta.zone()) {
        (Some(service), Some(proxy)) => service == proxy,
        _ => true,
    };
    let proxies = state.list(Kind::Dataplane, Some(&service.meta.mesh));
    proxies.filter(|proxy| is_same_zone(proxy) && is_selected(proxy)).cloned().collect()
}
