//! The Kubernetes form of a resource (resources.md §2.3): what `kubectl apply` would take.

use serde_json::{Map, Value, json};

use crate::resource::to_value;
use crate::{Kind, Resource, labels};

/// Namespace of resources that say none.
pub const SYSTEM_NAMESPACE: &str = "kuma-system";

const API_VERSION: &str = "kuma.io/v1alpha1";

/// Where the mesh of a resource is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MeshIn {
    /// Nowhere: the kind has no mesh.
    Nothing,
    /// Label `kuma.io/mesh`.
    Label,
    /// Member `mesh`.
    Member,
}

impl Resource {
    /// The Kubernetes form, under its stored name. `namespace`: the one that is wanted; without it the one that a
    /// label names, else the system namespace. Kinds without namespace have none.
    ///
    /// Unlike the reference, all labels are kept (resources.md §2.3).
    pub fn to_kubernetes(&self, namespace: Option<&str>) -> Value {
        let kind = self.kind();
        let (api_version, object_kind, object_type) = match kind {
            Kind::Secret => ("v1", "Secret", Some("system.kuma.io/secret")),
            Kind::GlobalSecret => ("v1", "Secret", Some("system.kuma.io/global-secret")),
            Kind::Config => ("v1", "ConfigMap", None),
            _ => (API_VERSION, kind.name(), None),
        };
        let mesh_in = match kind {
            _ if kind.descriptor().is_global_scoped() => MeshIn::Nothing,
            Kind::Dataplane | Kind::DataplaneInsight | Kind::ServiceInsight => MeshIn::Member,
            _ => MeshIn::Label,
        };
        let mut object = Map::new();
        object.insert("kind".into(), object_kind.into());
        object.insert("apiVersion".into(), api_version.into());
        object.insert("metadata".into(), self.kubernetes_metadata(namespace, mesh_in));
        if mesh_in == MeshIn::Member {
            object.insert("mesh".into(), self.meta.mesh.clone().into());
        }
        self.add_kubernetes_content(&mut object);
        if let Some(object_type) = object_type {
            object.insert("type".into(), object_type.into());
        }
        Value::Object(object)
    }

    fn kubernetes_metadata(&self, namespace: Option<&str>, mesh_in: MeshIn) -> Value {
        let mut metadata = Map::new();
        metadata.insert("name".into(), self.meta.name.clone().into());
        if has_namespace(self.kind()) {
            let namespace = namespace.or_else(|| self.meta.namespace()).unwrap_or(SYSTEM_NAMESPACE);
            metadata.insert("namespace".into(), namespace.into());
        }
        // Kubernetes counts whole seconds.
        let created = self.meta.creation_time.as_second();
        let time = crate::Timestamp::from_second(created).map(|time| time.to_string());
        let known = time.ok().filter(|_| self.meta.creation_time != crate::Timestamp::UNIX_EPOCH);
        metadata.insert("creationTimestamp".into(), known.into());
        let mut all = self.meta.labels.clone();
        if mesh_in == MeshIn::Label {
            all.insert(labels::MESH.into(), self.meta.mesh.clone());
        }
        if !all.is_empty() {
            metadata.insert("labels".into(), to_value(&all));
        }
        Value::Object(metadata)
    }

    fn add_kubernetes_content(&self, object: &mut Map<String, Value>) {
        let spec = self.spec.to_json();
        match self.kind() {
            Kind::Secret | Kind::GlobalSecret => {
                let value = spec.get("data").cloned().unwrap_or_else(|| "".into());
                object.insert("data".into(), json!({ "value": value }));
            }
            Kind::Config => {
                let value = spec.get("config").cloned().unwrap_or_else(|| "".into());
                object.insert("data".into(), json!({ "config": value }));
            }
            _ => {
                object.insert("spec".into(), spec);
            }
        }
        if self.kind().descriptor().capabilities.has_status {
            object.insert("status".into(), self.status.to_json());
        }
    }
}

/// Cluster-scoped on Kubernetes are the kinds that every zone has once.
fn has_namespace(kind: Kind) -> bool {
    !matches!(kind, Kind::Mesh | Kind::Zone | Kind::ZoneInsight | Kind::MeshInsight | Kind::ServiceInsight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: Value, namespace: Option<&str>, want: Value) {
        let kind = Kind::from_name(document["type"].as_str().expect("a type")).expect("a kind");
        let resource = Resource::from_rest(kind, &document).expect("a resource");
        assert_eq!(resource.to_kubernetes(namespace), want);
    }

    #[test]
    fn forms() {
        let time = "2026-01-02T03:04:05.678Z";
        let whole = "2026-01-02T03:04:05Z";
        check(
            json!({
                "type": "MeshTimeout", "mesh": "m", "name": "t-hash", "creationTime": time,
                "labels": {"kuma.io/mesh": "m", "k8s.kuma.io/namespace": "shop", "team": "a"},
                "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "5s"}}]},
            }),
            None,
            json!({
                "kind": "MeshTimeout", "apiVersion": "kuma.io/v1alpha1",
                "metadata": {
                    "name": "t-hash", "namespace": "shop", "creationTimestamp": whole,
                    "labels": {"kuma.io/mesh": "m", "k8s.kuma.io/namespace": "shop", "team": "a"},
                },
                "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "5s"}}]},
            }),
        );
        check(
            json!({"type": "Mesh", "name": "m", "creationTime": time}),
            Some("ignored"),
            json!({
                "kind": "Mesh", "apiVersion": "kuma.io/v1alpha1",
                "metadata": {"name": "m", "creationTimestamp": whole}, "spec": {},
            }),
        );
        check(
            json!({"type": "Secret", "mesh": "m", "name": "s", "data": "dGVzdA=="}),
            None,
            json!({
                "kind": "Secret", "apiVersion": "v1", "type": "system.kuma.io/secret",
                "metadata": {
                    "name": "s", "namespace": "kuma-system", "creationTimestamp": null,
                    "labels": {"kuma.io/mesh": "m"},
                },
                "data": {"value": "dGVzdA=="},
            }),
        );
        check(
            json!({"type": "Dataplane", "mesh": "m", "name": "d", "networking": {"address": "10.0.0.1"}}),
            Some("ns1"),
            json!({
                "kind": "Dataplane", "apiVersion": "kuma.io/v1alpha1", "mesh": "m",
                "metadata": {"name": "d", "namespace": "ns1", "creationTimestamp": null},
                "spec": {"networking": {"address": "10.0.0.1"}},
            }),
        );
        check(
            json!({"type": "MeshTrace", "name": "t", "spec": {"default": {"backends": []}}}),
            None,
            json!({
                "kind": "MeshTrace", "apiVersion": "kuma.io/v1alpha1",
                "metadata": {
                    "name": "t", "namespace": "kuma-system", "creationTimestamp": null,
                    "labels": {"kuma.io/mesh": "default"},
                },
                "spec": {"default": {"backends": []}}, "status": {},
            }),
        );
    }
}
