//! Effective policies of one proxy.
#![expect(clippy::todo, unused_variables, reason = "signatures first")]

use std::sync::Arc;

use graticule_model::kinds::{mesh_circuit_breaker, mesh_retry, mesh_timeout, mesh_tls};
use graticule_model::{Key, Kri, Resource};

use crate::destinations::{Backend, Destinations, Port};
use crate::inputs::{InboundTimeout, Permission, Routing};

/// Policies of one mesh, prepared for matching.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {}

impl PolicySet {
    /// Prepares policies; resources of other kinds are ignored.
    pub fn new(resources: impl IntoIterator<Item = Arc<Resource>>) -> PolicySet {
        todo!()
    }
    /// Adds or replaces a policy; false for resources of other kinds.
    pub fn insert(&mut self, resource: Arc<Resource>) -> bool {
        todo!()
    }
    /// Removes a policy; true if it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        todo!()
    }
}

/// What counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct MatchOptions {
    /// Policies with the shadow effect count as well.
    pub shadow: bool,
}

/// Results that many proxies share, kept between calls; follows changes of its inputs by itself.
#[derive(Debug, Default)]
pub struct Memo {}

/// Effective policies of one proxy.
#[derive(Debug, Clone, Default)]
pub struct Effective {}

/// What an outbound does, and which clusters that needs.
#[derive(Debug, Clone)]
pub struct Routes {
    /// What it does.
    pub routing: Routing,
    /// Destination ports it refers to, each once; their KRI texts are the cluster names in `routing`.
    pub clusters: Vec<Backend>,
}

/// Effective policies of one proxy. `mesh` is the Mesh resource: without it `to` items of kind Mesh
/// mean nothing.
pub fn effective(
    policies: &PolicySet,
    destinations: &Destinations,
    mesh: Option<&Arc<Resource>>,
    dataplane: &Resource,
    options: MatchOptions,
) -> Effective {
    todo!()
}

impl Memo {
    /// [`effective`], sharing results with earlier calls.
    pub fn effective(
        &mut self,
        policies: &PolicySet,
        destinations: &Destinations,
        mesh: Option<&Arc<Resource>>,
        dataplane: &Resource,
        options: MatchOptions,
    ) -> Effective {
        todo!()
    }
}

impl Effective {
    /// MeshTrafficPermission rules of a listener, in list order.
    pub fn permissions(&self, address: &str, port: u32) -> Vec<Permission> {
        todo!()
    }
    /// MeshTimeout of a listener.
    pub fn inbound_timeout(&self, address: &str, port: u32) -> InboundTimeout {
        todo!()
    }
    /// MeshTLS of a listener; the mode is always set (`Strict` by default).
    pub fn inbound_tls(&self, address: &str, port: u32) -> mesh_tls::Conf {
        todo!()
    }
    /// MeshTLS of the whole mesh: TLS parameters of outbound connections.
    pub fn mesh_tls_params(&self) -> mesh_tls::Conf {
        todo!()
    }
    /// MeshCircuitBreaker of a listener.
    pub fn inbound_circuit_breaker(&self, address: &str, port: u32) -> Option<mesh_circuit_breaker::Conf> {
        todo!()
    }
    /// MeshTimeout of a destination port.
    pub fn outbound_timeout(&self, outbound: &Kri) -> Option<mesh_timeout::Conf> {
        todo!()
    }
    /// MeshRetry of a destination port.
    pub fn outbound_retry(&self, outbound: &Kri) -> Option<mesh_retry::Conf> {
        todo!()
    }
    /// MeshCircuitBreaker of a destination port.
    pub fn outbound_circuit_breaker(&self, outbound: &Kri) -> Option<mesh_circuit_breaker::Conf> {
        todo!()
    }
    /// MeshTimeout of a route to a destination port.
    pub fn route_timeout(&self, route: &Kri, outbound: &Kri) -> Option<mesh_timeout::Conf> {
        todo!()
    }
    /// MeshRetry of a route to a destination port.
    pub fn route_retry(&self, route: &Kri, outbound: &Kri) -> Option<mesh_retry::Conf> {
        todo!()
    }
    /// What the outbound for a destination port does (policy-engine.md §5). `outbound` is its name in Envoy.
    pub fn routing(
        &self,
        outbound: &Kri,
        destination: &Arc<Resource>,
        port: &Port,
        destinations: &Destinations,
    ) -> Routes {
        todo!()
    }
    /// What could not be applied, for people.
    pub fn warnings(&self) -> &[String] {
        todo!()
    }
}
