//! `Secret` and `GlobalSecret` (tokens-and-access.md §7).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Validate;
use crate::schema::{Schema, bytes, field, object};

/// Bytes that never appear in logs; base64 in JSON.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

impl SecretBytes {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(&text).map(SecretBytes).map_err(|error| {
            let offset = match error {
                base64::DecodeError::InvalidByte(offset, _)
                | base64::DecodeError::InvalidLastSymbol(offset, _) => offset,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
            };
            serde::de::Error::custom(format!("illegal base64 data at input byte {offset}"))
        })
    }
}

/// A secret of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Secret {
    /// The value.
    #[serde(default, skip_serializing_if = "SecretBytes::is_empty")]
    pub data: SecretBytes,
}

/// A secret of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GlobalSecret {
    /// The value.
    #[serde(default, skip_serializing_if = "SecretBytes::is_empty")]
    pub data: SecretBytes,
}

impl Validate for Secret {
    const DESCRIPTION: &'static str =
        "Confidential bytes of a mesh, such as keys. Only administrators may read or write it.";
    const SCHEMA: &'static Schema = &SPEC;
}
impl Validate for GlobalSecret {
    const DESCRIPTION: &'static str = "Confidential bytes of the control plane, such as signing keys. Only administrators may read or write it.";
    const SCHEMA: &'static Schema = &SPEC;
}

/// What a document looks like.
const SPEC: Schema = object(&[field("data", "The bytes.", bytes())]);
