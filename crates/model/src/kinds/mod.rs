//! One module per kind, and the registry.
//!
//! To add a kind: write its module (the spec type, its schema, [`Validate`]), and add one entry to `registry.rs`.

use crate::schema::{Schema, object};
use crate::{Meta, NoStatus, Violations};

mod check;
pub mod config;
pub mod dataplane;
pub mod dataplane_insight;
pub mod hostname_generator;
pub mod mesh;
pub mod mesh_access_log;
pub mod mesh_circuit_breaker;
pub mod mesh_external_service;
pub mod mesh_fault_injection;
pub mod mesh_health_check;
pub mod mesh_http_route;
pub mod mesh_identity;
pub mod mesh_insight;
pub mod mesh_load_balancing_strategy;
pub mod mesh_metric;
pub mod mesh_multi_zone_service;
pub mod mesh_open_telemetry_backend;
pub mod mesh_passthrough;
pub mod mesh_proxy_patch;
pub mod mesh_rate_limit;
pub mod mesh_retry;
pub mod mesh_service;
pub mod mesh_tcp_route;
pub mod mesh_timeout;
pub mod mesh_tls;
pub mod mesh_trace;
pub mod mesh_traffic_permission;
pub mod mesh_trust;
pub mod mesh_zone_address;
pub(crate) mod registry;
pub mod secret;
pub mod service_insight;
pub mod workload;
pub mod zone;

/// What every spec type can do beside being (de)serialised.
pub trait Validate {
    /// What the kind is, in a sentence or two, for published schemas.
    const DESCRIPTION: &'static str;

    /// What a document looks like. Documents of plugin kinds are checked against it before they are read.
    const SCHEMA: &'static Schema;

    /// Adds what is wrong with the spec; paths start at the document's root
    /// (`spec.…` for plugin kinds, the field itself for proto kinds).
    fn validate(&self, _meta: &Meta, _violations: &mut Violations) {}

    /// Fills schema defaults into a spec that was just read.
    fn apply_defaults(&mut self) {}
}

/// What every status type can do beside being (de)serialised.
pub trait Described {
    /// What the status looks like.
    const SCHEMA: &'static Schema;
}

impl Described for NoStatus {
    const SCHEMA: &'static Schema = &object(&[]);
}

/// `serde(skip_serializing_if)` for numbers and flags that proto JSON leaves out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
