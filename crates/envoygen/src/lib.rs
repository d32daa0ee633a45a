//! ProxyInputs to named Envoy resources, and the bootstrap; nothing else knows Envoy's configuration messages.
//!
//! ```text
//! ProxyInputs + Secrets ──► snapshot() ──► Snapshot { clusters, endpoints, listeners, secrets }
//!                              │  equal part of the input: the same Arc, version and bytes
//!                              ▼
//!             previous snapshot of the proxy, else SharedCache, else the builders below
//! ```

pub mod bootstrap;
mod cache;
mod cluster;
mod inbound;
pub mod json;
mod listener;
mod message;
mod outbound;
mod rbac;
mod retry;
mod route;
mod snapshot;
mod system;
mod timeout;
mod tls;

pub use cache::SharedCache;
pub use snapshot::{AdminTls, EnvoyResource, LeafSecret, Resources, Secrets, Snapshot, snapshot};

/// Type URLs of the resources in a [`Snapshot`] (xds.md §1.2).
pub mod type_url {
    /// Clusters (CDS).
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// Load assignments (EDS).
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// Listeners (LDS).
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// Certificates and validation contexts (SDS).
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
}
