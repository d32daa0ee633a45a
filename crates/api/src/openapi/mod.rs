//! The OpenAPI document of both control planes, and the JSON Schemas of all kinds (beyond rest-api.md).
//!
//! Paths come from the kind registry and the list of other paths below; what is at each is what the router says
//! it is, and [`operations::describe`] must describe it: a new [`Target`] does not compile without a description,
//! and tests fail for one that no path leads to.

mod components;
mod operations;

use graticule_model::schema::{json as schema_json, published};
use graticule_model::{Kind, Scope};
use serde_json::{Map, Value, json};

use crate::route::{self, Target};

/// The document in the checkout.
pub const FILE: &str = "docs/api/openapi.yaml";

/// Paths that do not follow from a kind.
const PATHS: &[&str] = &[
    "/",
    "/who-am-i",
    "/config",
    "/_resources",
    "/policies",
    "/global-insight",
    "/global-insights",
    "/_kri/{kri}",
    "/tokens/dataplane",
    "/tokens/zone",
    "/tokens/user",
    "/_cluster",
    "/_cluster/members",
    "/_cluster/members/{member}",
    "/_cluster/transfer",
    "/_cluster/recover",
    "/zones/{name}/_status",
    "/zones/{name}/_accept-deletions",
    "/zones/{name}/_leave-global",
    "/service-insights",
    "/meshes/{mesh}/service-insights",
    "/meshes/{mesh}/service-insights/{name}",
    "/meshes/{mesh}/meshservices/{name}/_dataplanes",
    "/meshes/{mesh}/meshservices/{name}/_hostnames",
    "/meshes/{mesh}/meshexternalservices/{name}/_hostnames",
    "/meshes/{mesh}/meshmultizoneservices/{name}/_hostnames",
    "/meshes/{mesh}/dataplanes/{name}/_layout",
    "/meshes/{mesh}/dataplanes/{name}/_rules",
    "/meshes/{mesh}/dataplanes/{name}/_policies",
    "/meshes/{mesh}/dataplanes/{name}/_inbounds/{inbound}/_policies",
    "/meshes/{mesh}/dataplanes/{name}/_outbounds/{outbound}/_policies",
    "/meshes/{mesh}/dataplanes/{name}/_outbounds/{outbound}/_routes",
    "/meshes/{mesh}/dataplanes/{name}/_outbounds/{outbound}/_routes/{route}/_policies",
    "/meshes/{mesh}/dataplanes/{name}/policies",
    "/meshes/{mesh}/dataplanes/{name}/_config",
    "/meshes/{mesh}/dataplanes/{name}/xds",
    "/meshes/{mesh}/dataplanes/{name}/stats",
    "/meshes/{mesh}/dataplanes/{name}/clusters",
    "/gui",
    "/gui/{path}",
    "/openapi.json",
    "/openapi.yaml",
    "/schemas/{file}",
    "/_cluster-id",
    "/_backup",
    "/_restore",
];

/// All paths, as templates with `{parameters}`.
fn paths() -> Vec<String> {
    let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_owned()).collect();
    for kind in Kind::all().filter(|kind| *kind != Kind::ServiceInsight) {
        let descriptor = kind.descriptor();
        for path in [descriptor.path, descriptor.alt_path].into_iter().filter(|path| !path.is_empty()) {
            paths.push(format!("/{path}"));
            let of_scope = match descriptor.scope {
                Scope::Global => format!("/{path}"),
                Scope::Mesh => format!("/meshes/{{mesh}}/{path}"),
            };
            if descriptor.scope == Scope::Mesh {
                paths.push(of_scope.clone());
            }
            paths.push(format!("{of_scope}/{{name}}"));
            if path == descriptor.path {
                paths.push(format!("/_dry-run{of_scope}/{{name}}"));
            }
            if descriptor.capabilities.has_insight {
                paths.push(format!("/{path}/_overview"));
                paths.push(format!("/{path}+insights"));
                if descriptor.scope == Scope::Mesh {
                    paths.push(format!("{of_scope}/_overview"));
                    paths.push(format!("{of_scope}+insights"));
                }
                paths.push(format!("{of_scope}/{{name}}/_overview"));
                paths.push(format!("{of_scope}+insights/{{name}}"));
            }
            if descriptor.is_policy() {
                paths.push(format!("{of_scope}/{{name}}/_resources/dataplanes"));
                paths.push(format!("{of_scope}/{{name}}/dataplanes"));
            }
        }
    }
    paths
}

/// What the router says is at a path.
fn target(path: &str) -> Option<Target> {
    let sample = path.replace(['{', '}'], "");
    route::resolve(&sample).map(|route| route.target)
}

/// The OpenAPI 3.1 document.
pub fn document() -> Value {
    let mut items = Map::new();
    for path in paths() {
        let Some(target) = target(&path) else { continue };
        let mut item = Map::new();
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"$ref": format!("#/components/parameters/{name}")}))
            .collect();
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        for operation in operations::describe(&target, &path) {
            item.insert(operation.method.as_str().to_lowercase(), operation.to_value(&path));
        }
        items.insert(path, Value::Object(item));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Graticule",
            "summary": "The REST API of the global and the zone control planes.",
            "description": "Both control planes serve all paths. Which resources may be written where is said by \
                `readOnly` of `/policies`; a refused write is answered with 405. Bodies and answers are JSON or \
                YAML, by `Content-Type` and `Accept`; errors are JSON, those of paths and media types plain text.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The control plane that serves this document."}],
        "security": [{"token": []}, {"clientCertificate": []}, {}],
        "tags": operations::tags(),
        "paths": items,
        "components": components::components(),
    })
}

/// The document as it is checked in.
pub fn file() -> published::File {
    published::File { path: FILE.into(), text: published::to_yaml(&document()) }
}

/// The schema that is served under `/schemas/<file>`.
pub(crate) fn schema(file: &str) -> Option<Value> {
    let kind = Kind::from_name(file.strip_suffix(".json")?).ok()?;
    Some(schema_json::document(kind))
}

#[cfg(test)]
mod tests;
