//! `Config`: internal key-value objects of control planes; only `kuma-cluster-id` is federated.

use serde::{Deserialize, Serialize};

use super::Validate;

/// Name of the Config that holds the id of the whole federation.
pub const CLUSTER_ID: &str = "kuma-cluster-id";

/// One internal value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Config {
    /// The value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
}

impl Validate for Config {}
