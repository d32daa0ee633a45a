//! Envoy messages in their canonical JSON form, also what is inside `Any`.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value};

use crate::snapshot::Snapshot;
use crate::type_url;

/// Descriptors of everything that a configuration can hold; checked in, made by `cargo xtask codegen`.
static DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the checked-in descriptors are tested"));

/// A message that has no JSON form, or a JSON text that is no such message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// A type that no configuration of ours holds.
    #[error("unknown message type \"{0}\"")]
    UnknownType(String),
    /// Bytes that are no such message.
    #[error("{message} cannot be decoded: {source}")]
    Decode {
        /// Full name of the message.
        message: String,
        /// Why.
        source: prost::DecodeError,
    },
    /// JSON that is no such message, or a message that has no JSON form.
    #[error("{message}: {source}")]
    Json {
        /// Full name of the message.
        message: String,
        /// Why, with the field.
        source: serde_json::Error,
    },
}

fn descriptor(type_url: &str) -> Result<MessageDescriptor, JsonError> {
    let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
    POOL.get_message_by_name(name).ok_or_else(|| JsonError::UnknownType(type_url.into()))
}

/// The JSON form of an encoded message (`@type` only inside of `Any`).
pub fn to_json(type_url: &str, body: &[u8]) -> Result<Value, JsonError> {
    let descriptor = descriptor(type_url)?;
    let named = || descriptor.full_name().to_owned();
    let message = DynamicMessage::decode(descriptor.clone(), body)
        .map_err(|source| JsonError::Decode { message: named(), source })?;
    message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .map_err(|source| JsonError::Json { message: named(), source })
}

/// The encoded form of a message in JSON; unknown members are refused.
pub fn from_json(type_url: &str, json: &Value) -> Result<Bytes, JsonError> {
    let descriptor = descriptor(type_url)?;
    let name = descriptor.full_name().to_owned();
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor, json, &options)
        .map(|message| Bytes::from(message.encode_to_vec()))
        .map_err(|source| JsonError::Json { message: name, source })
}

/// Whether key material is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMaterial {
    /// As sent to Envoy.
    Shown,
    /// Admin certificates empty, no identity secret: the form of `_config`.
    Redacted,
}

impl Snapshot {
    /// `{"<type url>": {"<name>": {…}}}`: member `xds` of the `_config` answer. Types without resources are left out.
    pub fn to_json(&self, keys: KeyMaterial) -> Result<Value, JsonError> {
        let mut types = Map::new();
        for type_url in [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::SECRET] {
            let mut resources = Map::new();
            for (name, resource) in self.of_type(type_url).into_iter().flatten() {
                let mut json = to_json(type_url, &resource.body)?;
                if keys == KeyMaterial::Redacted {
                    if json.get("tlsCertificate").is_some() {
                        continue;
                    }
                    redact(&mut json);
                }
                resources.insert(name.to_string(), json);
            }
            if !resources.is_empty() {
                types.insert(type_url.into(), Value::Object(resources));
            }
        }
        Ok(Value::Object(types))
    }
}

/// Empties certificates, keys and authorities that are written in place.
fn redact(json: &mut Value) {
    match json {
        Value::Object(members) => {
            for (key, member) in members {
                match (key.as_str(), member.get_mut("inlineBytes")) {
                    ("certificateChain" | "privateKey" | "trustedCa", Some(bytes)) => {
                        *bytes = Value::String(String::new());
                    }
                    _ => redact(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn round_trip_with_any() {
        let cluster = json!({"name": "a", "connectTimeout": "0.250s", "transportSocket": {"name": "t", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "s"}}});
        let body = from_json(type_url::CLUSTER, &cluster).expect("valid");
        assert_eq!(to_json(type_url::CLUSTER, &body).expect("valid"), cluster);
    }

    #[test]
    fn errors_name_the_culprit() {
        let text = |result: Result<Bytes, JsonError>| result.expect_err("invalid").to_string();
        assert!(text(from_json(type_url::CLUSTER, &json!({"nmae": "a"}))).contains("nmae"));
        assert!(text(from_json("type.googleapis.com/x.Y", &json!({}))).contains("x.Y"));
        let cut = to_json(type_url::CLUSTER, &[0x0a, 9, 1]).expect_err("cut off").to_string();
        assert!(cut.contains("envoy.config.cluster.v3.Cluster"), "{cut}");
    }
}
