//! What tokens say (tokens-and-access.md §1.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Who a user is. Written with capitalised keys; read with keys in any case (the reader lowers them).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserClaims {
    /// User name.
    #[serde(rename(serialize = "Name", deserialize = "name"), default, deserialize_with = "or_default")]
    pub name: String,
    /// Groups; `None` is written as `null`.
    #[serde(rename(serialize = "Groups", deserialize = "groups"), default)]
    pub groups: Option<Vec<String>>,
}

/// Which proxy a dataplane token is for; empty fields do not constrain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataplaneClaims {
    /// Name of the Dataplane.
    #[serde(rename(serialize = "Name", deserialize = "name"), default, deserialize_with = "or_default")]
    pub name: String,
    /// Mesh; issuers always set it.
    #[serde(rename(serialize = "Mesh", deserialize = "mesh"), default, deserialize_with = "or_default")]
    pub mesh: String,
    /// Allowed values by label.
    #[serde(rename(serialize = "Tags", deserialize = "tags"), default, deserialize_with = "or_default")]
    pub tags: BTreeMap<String, Vec<String>>,
    /// `dataplane` or empty; not checked.
    #[serde(rename(serialize = "Type", deserialize = "type"), default, deserialize_with = "or_default")]
    pub r#type: String,
    /// Workload that the proxy must belong to.
    #[serde(
        rename(serialize = "Workload", deserialize = "workload"),
        default,
        deserialize_with = "or_default"
    )]
    pub workload: String,
}

/// Which zone a zone token is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ZoneClaims {
    /// Name of the zone.
    #[serde(rename(serialize = "Zone", deserialize = "zone"), default, deserialize_with = "or_default")]
    pub zone: String,
    /// Scopes; `None` is written as `null`.
    #[serde(rename(serialize = "Scope", deserialize = "scope"), default)]
    pub scope: Option<Vec<String>>,
}

/// `null` counts as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
