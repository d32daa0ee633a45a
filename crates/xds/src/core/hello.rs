//! The first request of a stream: who it is for, and what the proxy says about itself (xds.md §1.3–§1.5).

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::{Struct, Value as ProtoValue, value::Kind as ProtoKind};
use graticule_model::{DecodeError, Kind, Resource, Violations, yaml};
use graticule_policy::node::NodeError;
use graticule_policy::{NodeFacts, ProxyId};
use serde_json::{Map, Value};

/// Bytes of a Dataplane in node metadata or in a bootstrap request.
pub const DATAPLANE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a node id.
const NODE_ID_BYTES_MAX: usize = 1_024;
/// Nesting of node metadata.
const METADATA_DEPTH_MAX: usize = 32;

/// Why a first request is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No node at all.
    #[error("the first request of a stream must have a node")]
    NoNode,
    /// The node id is not `<mesh>.<name>`.
    #[error("invalid node ID: {0}")]
    NodeId(&'static str),
    /// Metadata that no configuration can be made for.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Metadata is nested too deeply.
    #[error("node metadata is nested too deeply")]
    Metadata,
    /// `dataplane.resource` is not a Dataplane.
    #[error("node metadata dataplane.resource: {0}")]
    Dataplane(#[from] DataplaneError),
    /// `dataplane.resource` is another proxy's.
    #[error("node ID {node} does not match the Dataplane {dataplane} in node metadata dataplane.resource")]
    Mismatch {
        /// From the node id.
        node: ProxyId,
        /// From the resource.
        dataplane: ProxyId,
    },
}

/// Why a text is not a valid Dataplane.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DataplaneError {
    /// Not YAML, not a Dataplane, or too large.
    #[error("{0}")]
    Malformed(String),
    /// A Dataplane that breaks rules.
    #[error("{0}")]
    Invalid(Violations),
}

/// Reads a Dataplane in REST form, YAML or JSON, and validates it.
///
/// # Errors
/// Why it is none.
pub fn read_dataplane(text: &str) -> Result<Resource, DataplaneError> {
    if text.len() > DATAPLANE_BYTES_MAX {
        return Err(DataplaneError::Malformed(format!("more than {DATAPLANE_BYTES_MAX} bytes")));
    }
    let value = yaml::parse_one(text).map_err(|error| DataplaneError::Malformed(error.to_string()))?;
    match value.get("type").and_then(Value::as_str) {
        Some("Dataplane") => {}
        Some(other) => {
            return Err(DataplaneError::Malformed(format!("type is {other:?}, expected \"Dataplane\"")));
        }
        None => return Err(DataplaneError::Malformed("type is missing, expected \"Dataplane\"".into())),
    }
    let resource = Resource::from_rest(Kind::Dataplane, &value).map_err(|error| match error {
        DecodeError::Malformed { path, message } if path.is_empty() || path == "." => {
            DataplaneError::Malformed(message)
        }
        DecodeError::Malformed { path, message } => DataplaneError::Malformed(format!("{path}: {message}")),
        DecodeError::Invalid(violations) => DataplaneError::Invalid(violations),
    })?;
    resource.validate().map_err(DataplaneError::Invalid)?;
    Ok(resource)
}

/// A proxy that says hello. Nothing of it is proven yet.
#[derive(Debug, Clone)]
pub struct Hello {
    /// From the node id.
    pub id: ProxyId,
    /// What decides its configuration.
    pub node: NodeFacts,
    /// Node metadata, verbatim.
    pub metadata: Map<String, Value>,
    /// The Dataplane that it brings, validated; `None` if it should be stored already.
    pub dataplane: Option<Resource>,
    /// Its Envoy has configuration of an earlier stream, as the versions of its first request say; a node alone says nothing
    /// of it.
    pub resumes: bool,
}

/// Reads the node of a first request.
///
/// # Errors
/// Why the stream has to end.
pub fn read_node(node: Option<&Node>) -> Result<Hello, Refusal> {
    let node = node.ok_or(Refusal::NoNode)?;
    let id = read_node_id(&node.id)?;
    let metadata = match &node.metadata {
        Some(metadata) => to_map(metadata, METADATA_DEPTH_MAX).ok_or(Refusal::Metadata)?,
        None => Map::new(),
    };
    let facts = NodeFacts::from_metadata(&metadata)?;
    let dataplane = match metadata.get("dataplane.resource").and_then(Value::as_str) {
        None | Some("") => None,
        Some(text) => Some(read_dataplane(text)?),
    };
    if let Some(dataplane) = &dataplane {
        let of_resource = ProxyId::from(&dataplane.key());
        if of_resource != id {
            return Err(Refusal::Mismatch { node: id, dataplane: of_resource });
        }
    }
    Ok(Hello { id, node: facts, metadata, dataplane, resumes: false })
}

/// A node id is `<mesh>.<name>`, split at the first dot.
fn read_node_id(node_id: &str) -> Result<ProxyId, Refusal> {
    if node_id.len() > NODE_ID_BYTES_MAX {
        return Err(Refusal::NodeId("it is too long"));
    }
    match node_id.split_once('.') {
        _ if node_id.is_empty() => Err(Refusal::NodeId("it must not be empty")),
        None => Err(Refusal::NodeId("the name should be provided after the dot")),
        Some(("", _)) => Err(Refusal::NodeId("the mesh must not be empty")),
        Some((_, "")) => Err(Refusal::NodeId("the name must not be empty")),
        Some((mesh, name)) => Ok(ProxyId::new(mesh, name)),
    }
}

fn to_map(object: &Struct, depth: usize) -> Option<Map<String, Value>> {
    let depth = depth.checked_sub(1)?;
    object.fields.iter().map(|(key, value)| Some((key.clone(), to_json(value, depth)?))).collect()
}

fn to_json(value: &ProtoValue, depth: usize) -> Option<Value> {
    Some(match &value.kind {
        None | Some(ProtoKind::NullValue(_)) => Value::Null,
        Some(ProtoKind::BoolValue(flag)) => Value::Bool(*flag),
        Some(ProtoKind::StringValue(text)) => Value::String(text.clone()),
        Some(ProtoKind::NumberValue(number)) => number_to_json(*number),
        Some(ProtoKind::StructValue(object)) => Value::Object(to_map(object, depth)?),
        Some(ProtoKind::ListValue(list)) => {
            let depth = depth.checked_sub(1)?;
            Value::Array(list.values.iter().map(|item| to_json(item, depth)).collect::<Option<_>>()?)
        }
    })
}

/// Whole numbers lose the `.0` that JSON numbers do not have either.
fn number_to_json(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Value::from(number as i64);
    }
    serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn text(value: &str) -> ProtoValue {
        ProtoValue { kind: Some(ProtoKind::StringValue(value.into())) }
    }

    fn mk_node(id: &str, metadata: &[(&str, ProtoValue)]) -> Node {
        let fields: HashMap<_, _> = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        Node { id: id.into(), metadata: Some(Struct { fields }), ..Default::default() }
    }

    const DATAPLANE: &str = r#"{"type":"Dataplane","mesh":"probe","name":"p2.ns","networking":{"address":"10.0.0.1",
        "inbound":[{"port":8080}]}}"#;

    #[test]
    fn reads_what_a_proxy_sends() {
        let hello = read_node(Some(&mk_node("probe.p2.ns", &[("dataplane.resource", text(DATAPLANE))])))
            .expect("valid");
        assert_eq!((hello.id.mesh.as_str(), hello.id.name.as_str()), ("probe", "p2.ns"));
        assert_eq!(hello.dataplane.expect("brought").meta.name, "p2.ns");
        assert!(read_node(Some(&mk_node("probe.p2", &[]))).expect("valid").dataplane.is_none());
    }

    #[test]
    fn refuses_with_the_reason() {
        let resource = |text_: &str| mk_node("probe.p2", &[("dataplane.resource", text(text_))]);
        let cases: [(Option<Node>, &str); 9] = [
            (None, "the first request of a stream must have a node"),
            (Some(mk_node("", &[])), "invalid node ID: it must not be empty"),
            (Some(mk_node("probe", &[])), "invalid node ID: the name should be provided after the dot"),
            (Some(mk_node("probe.", &[])), "invalid node ID: the name must not be empty"),
            (Some(mk_node(".p2", &[])), "invalid node ID: the mesh must not be empty"),
            (
                Some(resource(DATAPLANE)),
                "node ID probe.p2 does not match the Dataplane probe.p2.ns in node metadata dataplane.resource",
            ),
            (
                Some(resource("{type: Mesh, name: x}")),
                "node metadata dataplane.resource: type is \"Mesh\", expected \"Dataplane\"",
            ),
            (
                Some(resource(
                    "{type: Dataplane, mesh: probe, name: p2, networking: {address: 10.0.0.1, inbound: [{port: 0}]}}",
                )),
                "node metadata dataplane.resource: networking.inbound[0].port: port must be in the range [1, 65535]",
            ),
            (
                Some(mk_node("probe.p2", &[("dataplane.proxyType", text("ingress"))])),
                "unsupported proxy type \"ingress\"",
            ),
        ];
        for (node, expected) in cases {
            assert_eq!(read_node(node.as_ref()).expect_err("refused").to_string(), expected);
        }
    }

    #[test]
    fn deep_metadata_is_refused() {
        let mut value = text("x");
        for _ in 0..METADATA_DEPTH_MAX + 1 {
            value = ProtoValue {
                kind: Some(ProtoKind::StructValue(Struct { fields: [("a".to_owned(), value)].into() })),
            };
        }
        assert_eq!(
            read_node(Some(&mk_node("a.b", &[("deep", value)]))).expect_err("refused"),
            Refusal::Metadata
        );
    }
}
