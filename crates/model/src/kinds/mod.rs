//! One module per kind, and the registry.
//!
//! To add a kind: write its module (the spec type, with [`Validate`]), and add one entry to `registry.rs`.

use crate::{Meta, Violations};

pub mod config;
pub mod dataplane;
pub mod dataplane_insight;
pub mod hostname_generator;
pub mod mesh;
pub mod mesh_circuit_breaker;
pub mod mesh_http_route;
pub mod mesh_identity;
pub mod mesh_retry;
pub mod mesh_service;
pub mod mesh_tcp_route;
pub mod mesh_timeout;
pub mod mesh_tls;
pub mod mesh_traffic_permission;
pub mod mesh_trust;
pub mod mesh_zone_address;
pub(crate) mod registry;
pub mod secret;
pub mod workload;
pub mod zone;

/// What every spec type can do beside being (de)serialised.
pub trait Validate {
    /// Adds what is wrong with the spec; paths start at the document's root
    /// (`spec.…` for plugin kinds, the field itself for proto kinds).
    fn validate(&self, _meta: &Meta, _violations: &mut Violations) {}

    /// Fills schema defaults into a spec that was just read.
    fn apply_defaults(&mut self) {}
}

/// `serde(skip_serializing_if)` for numbers and flags that proto JSON leaves out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
