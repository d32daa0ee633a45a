//! Custom resource definitions of Kubernetes (resources.md §2.3): the names, scopes and shapes that Kuma's have.

use serde_json::{Map, Value, json};

use super::json::Dialect;
use crate::{Family, Kind};

/// API group of all kinds.
pub const GROUP: &str = "kuma.io";
/// Version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// The definition of a kind; kinds that are Secrets or ConfigMaps on Kubernetes have none.
pub fn definition(kind: Kind) -> Option<Value> {
    if matches!(kind, Kind::Secret | Kind::GlobalSecret | Kind::Config) {
        return None;
    }
    let singular = kind.name().to_lowercase();
    let plural = plural(kind);
    let mut names = json!({
        "categories": ["kuma"],
        "kind": kind.name(),
        "listKind": format!("{kind}List"),
        "plural": plural,
        "singular": singular,
    });
    let short_name = kind.descriptor().short_name;
    if !short_name.is_empty() {
        names["shortNames"] = json!([short_name]);
    }
    let mut version = json!({
        "name": VERSION,
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": schema(kind)},
    });
    let columns = columns(kind);
    if !columns.is_empty() {
        version["additionalPrinterColumns"] = columns.into();
    }
    if kind.descriptor().capabilities.has_status {
        version["subresources"] = json!({"status": {}});
    }
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": if is_cluster_scoped(kind) { "Cluster" } else { "Namespaced" },
            "versions": [version],
        },
    }))
}

/// REST paths have dashes, names of definitions have none.
fn plural(kind: Kind) -> String {
    kind.descriptor().path.replace('-', "")
}

/// Global scope does not mean cluster scope: a HostnameGenerator lives in the system namespace.
fn is_cluster_scoped(kind: Kind) -> bool {
    use Kind::{Mesh, MeshInsight, ServiceInsight, Zone, ZoneInsight};
    matches!(kind, Mesh | MeshInsight | ServiceInsight | Zone | ZoneInsight)
}

/// Kinds that carry their mesh at the top level instead of in a label.
fn has_mesh_member(kind: Kind) -> bool {
    matches!(kind, Kind::Dataplane | Kind::DataplaneInsight | Kind::ServiceInsight)
}

/// A structural schema: every node has a type, nothing refers to another place.
fn schema(kind: Kind) -> Value {
    let descriptor = kind.descriptor();
    let mut properties = Map::new();
    let mut put = |name: &str, value: Value| properties.insert(name.to_owned(), value);
    put("apiVersion", json!({"type": "string", "description": "Version of the object's form."}));
    put("kind", json!({"type": "string", "description": "Kind of the object."}));
    put("metadata", json!({"type": "object"}));
    if has_mesh_member(kind) {
        put(
            "mesh",
            json!({"type": "string", "description": "The mesh that it belongs to; empty is `default`."}),
        );
    }
    let mut spec = kind.schema().publish(Dialect::Kubernetes, descriptor.family);
    spec["description"] = "What is wanted.".into();
    if descriptor.family == Family::Proto {
        // The control plane drops what it does not know; Kubernetes keeps it, for newer control planes.
        spec["x-kubernetes-preserve-unknown-fields"] = true.into();
    }
    put("spec", spec);
    if descriptor.capabilities.has_status {
        let mut status = kind.status_schema().publish(Dialect::Kubernetes, descriptor.family);
        status["description"] = "What the control plane made of it.".into();
        put("status", status);
    }
    json!({"description": kind.description(), "type": "object", "properties": properties})
}

/// What `kubectl get` shows beside name and age.
fn columns(kind: Kind) -> Vec<Value> {
    let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    let descriptor = kind.descriptor();
    let mut columns = Vec::new();
    if descriptor.is_policy() {
        columns.push(column("TargetRef Kind", ".spec.targetRef.kind"));
    }
    if descriptor.capabilities.destination {
        columns.push(column("Hostname", ".status.addresses[0].hostname"));
    }
    if !columns.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    }
    columns
}
