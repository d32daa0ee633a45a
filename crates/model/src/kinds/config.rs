//! `Config`: internal key-value objects of control planes; only `kuma-cluster-id` is federated.

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::schema::{Schema, field, object, text};

/// Name of the Config that holds the id of the whole federation.
pub const CLUSTER_ID: &str = "kuma-cluster-id";

/// One internal value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Config {
    /// The value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
}

impl Validate for Config {
    const DESCRIPTION: &'static str = "An internal value of the control plane. Only `kuma-cluster-id`, the id of the whole federation, travels to zones.";
    const SCHEMA: &'static Schema = &SPEC;
}

/// What a document looks like.
const SPEC: Schema = object(&[field("config", "The value.", text())]);
