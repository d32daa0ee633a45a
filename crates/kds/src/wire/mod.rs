//! Resources on the federation wire: model ⇄ `KumaResource` (federation.md §1.5, §2).
//!
//! Encoding is deterministic: equal resources have equal bytes, so the version (SHA-256 of the bytes, in
//! lowercase hex) says whether two control planes hold the same. Decoding never trusts its input.

use std::fmt;
use std::sync::Arc;

use graticule_model::kinds::{config, dataplane, dataplane_insight, mesh, secret};
use graticule_model::{Family, Key, Kind, Meta, Resource, Spec, Status};
use graticule_proto::discovery;
use graticule_proto::google::protobuf::{Any, BytesValue};
use graticule_proto::kuma::mesh::v1alpha1 as mesh_pb;
use graticule_proto::kuma::mesh::v1alpha1::kuma_resource;
use graticule_proto::kuma::system::v1alpha1 as system_pb;
use prost::Message;
use sha2::{Digest, Sha256};

mod dataplanes;
mod insights;
mod structs;
#[cfg(test)]
mod tests;

/// Type URL of the envelope.
pub const RESOURCE_TYPE_URL: &str = "type.googleapis.com/kuma.mesh.v1alpha1.KumaResource";

/// Version of an encoded resource.
pub type Version = Arc<str>;

/// A resource that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct WireError {
    /// Name on the wire, as far as it is known.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A resource, ready to be sent. Shared by all who send it.
#[derive(Clone, PartialEq)]
pub struct Encoded {
    /// `<name>.<mesh>`.
    pub name: String,
    /// Hash of `bytes`.
    pub version: Version,
    /// The `KumaResource`.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may be a secret.
        f.debug_struct("Encoded")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Encoded {
    /// Encodes a resource.
    ///
    /// # Errors
    /// The kind is not one that travels.
    pub fn of(resource: &Resource) -> Result<Encoded, WireError> {
        let bytes = to_message(resource)?.encode_to_vec();
        Ok(Encoded { name: wire_name(&resource.meta), version: version_of(&bytes), bytes })
    }

    /// The form in a discovery response.
    pub fn to_discovery(&self) -> discovery::Resource {
        discovery::Resource {
            name: self.name.clone(),
            version: self.version.to_string(),
            resource: Some(Any { type_url: RESOURCE_TYPE_URL.into(), value: self.bytes.clone() }),
            ..Default::default()
        }
    }

    /// About as long as [`to_discovery`](Self::to_discovery) encodes to, never shorter.
    pub fn len_max(&self) -> usize {
        self.bytes.len() + self.name.len() + self.version.len() + RESOURCE_TYPE_URL.len() + 64
    }
}

/// Lowercase hex SHA-256.
pub fn version_of(bytes: &[u8]) -> Version {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.into()
}

/// `<name>.<mesh>`; a trailing dot for kinds without mesh.
pub fn wire_name(meta: &Meta) -> String {
    format!("{}.{}", meta.name, meta.mesh)
}

/// The key that a wire name stands for; it is split at the last dot.
pub fn key_of(kind: Kind, name: &str) -> Option<Key> {
    let (name, mesh) = name.rsplit_once('.')?;
    (!name.is_empty()).then(|| Key::new(kind, mesh, name))
}

/// The message of a resource.
///
/// # Errors
/// The kind is not one that travels.
pub fn to_message(resource: &Resource) -> Result<mesh_pb::KumaResource, WireError> {
    let kind = resource.kind();
    let meta = kuma_resource::Meta {
        name: resource.meta.name.clone(),
        mesh: resource.meta.mesh.clone(),
        version: String::new(),
        labels: resource.meta.labels.clone(),
    };
    let status = kind.descriptor().capabilities.has_status.then(|| json(&resource.status.to_json()));
    let spec = match &resource.spec {
        Spec::Mesh(spec) => pack(
            "kuma.mesh.v1alpha1.Mesh",
            &mesh_pb::Mesh { skip_creating_initial_policies: spec.skip_creating_initial_policies.clone() },
        ),
        Spec::Dataplane(spec) => pack("kuma.mesh.v1alpha1.Dataplane", &dataplanes::to_message(spec)),
        Spec::DataplaneInsight(spec) => {
            pack("kuma.mesh.v1alpha1.DataplaneInsight", &insights::to_message(spec))
        }
        Spec::Secret(spec) => pack_secret(&spec.data),
        Spec::GlobalSecret(spec) => pack_secret(&spec.data),
        Spec::Config(spec) => {
            pack("kuma.system.v1alpha1.Config", &system_pb::Config { config: spec.config.clone() })
        }
        spec if kind.descriptor().family == Family::Plugin => json(&spec.to_json()),
        _ => return Err(WireError { name: wire_name(&resource.meta), reason: does_not_travel(kind) }),
    };
    Ok(mesh_pb::KumaResource { meta: Some(meta), spec: Some(spec), status })
}

/// Whether resources of the kind have a message.
pub fn travels(kind: Kind) -> bool {
    let has_message = matches!(
        kind,
        Kind::Mesh
            | Kind::Dataplane
            | Kind::DataplaneInsight
            | Kind::Secret
            | Kind::GlobalSecret
            | Kind::Config
    );
    has_message || kind.descriptor().family == Family::Plugin
}

/// What is said about one that does not.
pub(crate) fn does_not_travel(kind: Kind) -> String {
    format!("resources of kind {kind} do not travel")
}

fn pack(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

fn pack_secret(data: &secret::SecretBytes) -> Any {
    let data = (!data.0.is_empty()).then(|| BytesValue { value: data.0.clone() });
    pack("kuma.system.v1alpha1.Secret", &system_pb::Secret { data })
}

fn json(value: &serde_json::Value) -> Any {
    Any { type_url: String::new(), value: value.to_string().into_bytes() }
}

/// Reads a resource of a discovery response. Times, version and owner are the receiver's to set.
///
/// # Errors
/// Names the resource and says what is wrong.
pub fn decode(kind: Kind, resource: &discovery::Resource) -> Result<Resource, WireError> {
    let failed = |reason: String| WireError { name: resource.name.clone(), reason };
    let any = resource.resource.as_ref().ok_or_else(|| failed("resource is missing".into()))?;
    if message_name(&any.type_url) != message_name(RESOURCE_TYPE_URL) {
        return Err(failed(format!("resource has type \"{}\", not KumaResource", any.type_url)));
    }
    let message = mesh_pb::KumaResource::decode(any.value.as_slice())
        .map_err(|error| failed(format!("unreadable KumaResource: {error}")))?;
    from_message(kind, message).map_err(|mut error| {
        if !resource.name.is_empty() {
            error.name.clone_from(&resource.name);
        }
        error
    })
}

/// Reads the message of a resource.
///
/// # Errors
/// Names the resource and says what is wrong.
pub fn from_message(kind: Kind, message: mesh_pb::KumaResource) -> Result<Resource, WireError> {
    let pb = message.meta.unwrap_or_default();
    let global_scoped = kind.descriptor().is_global_scoped();
    let mut meta = Meta::new(if global_scoped { String::new() } else { pb.mesh }, pb.name);
    meta.labels = pb.labels;
    let name = wire_name(&meta);
    let failed = |reason: String| WireError { name: name.clone(), reason };
    if meta.name.is_empty() {
        return Err(failed("meta.name: must not be empty".into()));
    }
    if meta.mesh.is_empty() && !global_scoped {
        return Err(failed("meta.mesh: must not be empty".into()));
    }
    let spec = message.spec.ok_or_else(|| failed("spec: is missing".into()))?;
    let spec = decode_spec(kind, &spec).map_err(|reason| failed(format!("spec: {reason}")))?;
    let status = match message.status {
        Some(status) if kind.descriptor().capabilities.has_status && !status.value.is_empty() => {
            parse_json(&status)
                .and_then(|value| Status::from_json(kind, &value).map_err(|error| error.to_string()))
                .map_err(|reason| failed(format!("status: {reason}")))?
        }
        _ => Status::empty(kind),
    };
    Ok(Resource { meta, spec, status })
}

fn decode_spec(kind: Kind, any: &Any) -> Result<Spec, String> {
    Ok(match kind {
        Kind::Mesh => {
            let pb: mesh_pb::Mesh = unpack("kuma.mesh.v1alpha1.Mesh", any)?;
            Spec::Mesh(Box::new(mesh::Mesh {
                skip_creating_initial_policies: pb.skip_creating_initial_policies,
            }))
        }
        Kind::Dataplane => {
            let pb: mesh_pb::Dataplane = unpack("kuma.mesh.v1alpha1.Dataplane", any)?;
            let spec: dataplane::Dataplane = dataplanes::from_message(pb)?;
            Spec::Dataplane(Box::new(spec))
        }
        Kind::DataplaneInsight => {
            let pb: mesh_pb::DataplaneInsight = unpack("kuma.mesh.v1alpha1.DataplaneInsight", any)?;
            let spec: dataplane_insight::DataplaneInsight = insights::from_message(pb)?;
            Spec::DataplaneInsight(Box::new(spec))
        }
        Kind::Secret => Spec::Secret(Box::new(secret::Secret { data: unpack_secret(any)? })),
        Kind::GlobalSecret => {
            Spec::GlobalSecret(Box::new(secret::GlobalSecret { data: unpack_secret(any)? }))
        }
        Kind::Config => {
            let pb: system_pb::Config = unpack("kuma.system.v1alpha1.Config", any)?;
            Spec::Config(Box::new(config::Config { config: pb.config }))
        }
        _ if kind.descriptor().family == Family::Plugin => {
            let value = parse_json(any)?;
            Spec::from_json(kind, &value).map_err(|error| match error {
                graticule_model::DecodeError::Malformed { path, message } if !path.is_empty() => {
                    format!("{path}: {message}")
                }
                error => error.to_string(),
            })?
        }
        _ => return Err(does_not_travel(kind)),
    })
}

fn unpack_secret(any: &Any) -> Result<secret::SecretBytes, String> {
    let pb: system_pb::Secret = unpack("kuma.system.v1alpha1.Secret", any)?;
    Ok(secret::SecretBytes(pb.data.map(|data| data.value).unwrap_or_default()))
}

fn unpack<M: Message + Default>(name: &str, any: &Any) -> Result<M, String> {
    if message_name(&any.type_url) != name {
        return Err(format!("has type \"{}\", not \"{name}\"", any.type_url));
    }
    // The error names fields, never values.
    M::decode(any.value.as_slice()).map_err(|error| format!("unreadable {name}: {error}"))
}

fn parse_json(any: &Any) -> Result<serde_json::Value, String> {
    if !any.type_url.is_empty() {
        return Err(format!("has type \"{}\", not JSON", any.type_url));
    }
    match serde_json::from_slice(&any.value) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => Err("must be a JSON object".into()),
        Err(error) => Err(format!("unreadable JSON: {error}")),
    }
}

fn message_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}
