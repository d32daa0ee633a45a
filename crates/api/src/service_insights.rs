//! `service-insights`: a kind of the past that clients may still ask for (rest-api.md §5.6). Nobody writes it any
//! more; what an older peer left behind is shown, one item per service.

use graticule_model::kinds::service_insight::{Service, ServiceInsight, ServiceType};
use graticule_model::{Kind, Resource, labels};
use serde_json::{Map, Value, json};

use crate::error::{Error, title};
use crate::query::{Page, Query};
use crate::{Call, Context, read};

/// Defaults of the host and port under which services were reachable.
const SERVICE_DOMAIN: &str = "mesh";
const SERVICE_PORT: u16 = 80;

pub(crate) fn list(context: &Context, call: &Call, mesh: Option<&str>) -> Result<Value, Error> {
    read::require_mesh(context, mesh)?;
    let page = Page::parse(&call.query)?;
    let types = types(&call.query)?;
    let part = call.query.get("name").unwrap_or_default();
    let soft = context.soft.snapshot();
    let mut items = Vec::new();
    for resource in soft.list(Kind::ServiceInsight, mesh) {
        let Some(insight) = resource.spec_as::<ServiceInsight>() else { continue };
        let services = insight.services.iter().filter(|(name, service)| {
            name.contains(part) && types.as_ref().is_none_or(|types| types.contains(&service.service_type))
        });
        items.extend(services.map(|(name, service)| item(resource, name, service)));
    }
    let total = items.len();
    let items: Vec<Value> = items.into_iter().skip(page.offset).take(page.size).collect();
    Ok(json!({"total": total, "items": items, "next": read::next_page(call, page, total)}))
}

pub(crate) fn one(context: &Context, mesh: &str, name: &str) -> Result<Value, Error> {
    read::require_mesh(context, Some(mesh))?;
    let soft = context.soft.snapshot();
    let found = soft.list(Kind::ServiceInsight, Some(mesh)).find_map(|resource| {
        let service = resource.spec_as::<ServiceInsight>()?.services.get(name)?;
        Some(item(resource, name, service))
    });
    found.ok_or_else(|| Error::not_found(title::GET))
}

fn types(query: &Query) -> Result<Option<Vec<ServiceType>>, Error> {
    let Some(text) = query.get("type") else { return Ok(None) };
    let types = text.split(',').map(|name| match name {
        "internal" => Ok(ServiceType::Internal),
        "external" => Ok(ServiceType::External),
        "gateway_delegated" => Ok(ServiceType::GatewayDelegated),
        _ => Err(Error::bad_request("unsupported service type")),
    });
    types.collect::<Result<Vec<ServiceType>, Error>>().map(Some)
}

/// Metadata of the resource under the name of the service, and the service.
fn item(resource: &Resource, name: &str, service: &Service) -> Value {
    let mut service = service.clone();
    if let Some(proxies) = &mut service.dataplanes {
        proxies.total = proxies.online.saturating_add(proxies.offline);
    }
    if service.service_type == ServiceType::Internal {
        service.address_port = format!("{name}.{SERVICE_DOMAIN}:{SERVICE_PORT}");
    }
    let mut members = Map::new();
    if let Value::Object(rest) = resource.to_rest() {
        let is_meta = |key: &str| key != "services" && key != "labels";
        members.extend(rest.into_iter().filter(|(key, _)| is_meta(key)));
    }
    members.insert("name".into(), name.into());
    let mut all = resource.meta.labels.clone();
    all.remove(labels::DISPLAY_NAME);
    if !all.is_empty() {
        members.insert("labels".into(), json!(all));
    }
    if let Ok(Value::Object(service)) = serde_json::to_value(&service) {
        members.extend(service);
    }
    Value::Object(members)
}
