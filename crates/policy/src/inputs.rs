//! `ProxyInputs`: everything that decides the Envoy resources of one proxy, and nothing else.
//!
//! Parts that several proxies share are behind `Arc`, so that they are built once (DESIGN decision 3).
//! All collections are ordered: the serialised form of a part identifies the resource that is made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::mesh_http_route::{Filter, RouteMatch};
use graticule_model::kinds::{
    mesh_circuit_breaker, mesh_retry, mesh_timeout, mesh_tls, mesh_traffic_permission,
};
use serde::Serialize;

use crate::node::NodeFacts;

/// The complete input of Envoy generation for one proxy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProxyInputs {
    /// Mesh of the proxy.
    pub mesh: String,
    /// Stored name of its Dataplane.
    pub name: String,
    /// The local zone.
    pub zone: String,
    /// Labels of the Dataplane.
    pub labels: BTreeMap<String, String>,
    /// `networking.address`, resolved to an IP address.
    pub address: String,
    /// What the proxy said about itself.
    pub node: NodeFacts,
    /// Its identity; none = plaintext.
    pub identity: Option<Identity>,
    /// Trust of the mesh; also for proxies without identity.
    pub trust: Arc<Trust>,
    /// CIDRs for `internal_address_config`, IPv6 ones already dropped where the proxy has none.
    pub internal_cidrs: Arc<Vec<String>>,
    /// Outbound requests carry `x-kuma-tags` (the mesh has a MeshFaultInjection).
    pub sends_tags_header: bool,
    /// Inbounds in the order of the Dataplane; entries for the service-less port are left out.
    pub inbounds: Vec<Inbound>,
    /// Outbound listeners, sorted by name.
    pub outbounds: Vec<Arc<Outbound>>,
    /// Destination clusters that outbounds, mirrors and ingress chains use, by name.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Zone ingress listeners.
    pub zone_ingresses: Vec<ZoneIngress>,
    /// Effective transparent proxy settings; none = off.
    pub transparent_proxy: Option<TransparentProxy>,
    /// DNS records for the agent (`/dns`), sorted by name; none = no such route.
    pub dns: Option<Dns>,
}

/// A proxy's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Name of the SDS secret: KRI of the MeshIdentity, empty section.
    pub secret_name: String,
    /// `spiffe://…`
    pub spiffe_id: String,
}

/// Certificate authorities by trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Trust {
    /// Trust domain → PEM texts (concatenated with a line break in the bundle), in a fixed order.
    pub domains: BTreeMap<String, Vec<String>>,
}

/// One inbound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inbound {
    /// Name or decimal port.
    pub section: String,
    /// Listener address.
    pub address: String,
    /// Listener port.
    pub port: u32,
    /// Workload address.
    pub workload_address: String,
    /// Workload port.
    pub workload_port: u32,
    /// Protocol.
    pub protocol: Protocol,
    /// TLS settings: merged catch-all of MeshTLS, `Strict` by default.
    pub tls: mesh_tls::Conf,
    /// MeshTrafficPermission rules in list order.
    pub permissions: Vec<Permission>,
    /// MeshTimeout.
    pub timeout: InboundTimeout,
    /// Merged catch-all of MeshCircuitBreaker.
    pub circuit_breaker: Option<mesh_circuit_breaker::Conf>,
}

/// MeshTimeout on an inbound (policies.md §13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum InboundTimeout {
    /// No rule at all: the built-in defaults are written.
    Defaults,
    /// Rules exist, but none without matches: the generator's own values stay.
    Untouched,
    /// Merge of the rules without matches.
    CatchAll(mesh_timeout::Conf),
}

/// One MeshTrafficPermission rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permission {
    /// KRI of the policy, which names the action.
    pub policy: String,
    /// Verdicts.
    pub conf: mesh_traffic_permission::Conf,
}

/// Protocols that make a difference; everything unknown is `Tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Protocol {
    /// HTTP/1.1
    Http,
    /// HTTP/2
    Http2,
    /// gRPC
    Grpc,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// Reads a declared protocol, whatever its case (xds.md §3.2).
    pub fn parse(text: &str) -> Protocol {
        match text.to_ascii_lowercase().as_str() {
            "http" => Protocol::Http,
            "http2" => Protocol::Http2,
            "grpc" => Protocol::Grpc,
            _ => Protocol::Tcp,
        }
    }

    /// http, http2 or grpc.
    pub fn is_http_based(self) -> bool {
        self != Protocol::Tcp
    }
}

/// One outbound listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outbound {
    /// KRI of the destination with section: name of listener, route config and virtual host.
    pub name: String,
    /// Address it listens on.
    pub address: String,
    /// Port it listens on.
    pub port: u32,
    /// `Some(false)` behind a transparent proxy, else unset.
    pub bind_to_port: Option<bool>,
    /// Protocol of the destination port.
    pub protocol: Protocol,
    /// What it does.
    pub routing: Routing,
    /// MeshTimeout for the destination; none = built-in defaults.
    pub timeout: Option<mesh_timeout::Conf>,
    /// MeshRetry for the destination.
    pub retry: Option<mesh_retry::Conf>,
}

/// What an outbound does with traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Routing {
    /// Routes requests; in order of precedence, the catch-all last.
    Http(Vec<HttpRoute>),
    /// Splits connections; empty = the listener is left out.
    Tcp(Vec<Share>),
}

/// Part of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Cluster name; a key of [`ProxyInputs::clusters`].
    pub cluster: String,
    /// Weight.
    pub weight: u32,
}

/// One route (policies.md §4), before path prefixes are expanded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpRoute {
    /// `kri_mhttpr_…_rule_<i>`, or the hash of the default match.
    pub name: String,
    /// Condition.
    pub condition: RouteMatch,
    /// Filters in list order.
    pub filters: Vec<Filter>,
    /// Clusters that mirror filters send to, in the order of the mirror filters; none = target unknown.
    pub mirrors: Vec<Option<String>>,
    /// Usable backends.
    pub split: Vec<Share>,
    /// Weight of declared backends that cannot be used: that share is answered with 500.
    pub unresolved_weight: u64,
    /// Backends were declared and none can be used: everything is answered with 500.
    pub all_unresolved: bool,
    /// Some backend is a MeshExternalService.
    pub auto_host_rewrite: bool,
    /// MeshTimeout for this route, with fallback to the destination's.
    pub timeout: Option<mesh_timeout::Conf>,
    /// MeshRetry for this route, with fallback to the destination's.
    pub retry: Option<mesh_retry::Conf>,
}

/// A destination cluster and its endpoints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// KRI of the destination with section.
    pub name: String,
    /// Who uses it.
    pub role: ClusterRole,
    /// Protocol of the destination port.
    pub protocol: Protocol,
    /// mTLS to the destination; none = plaintext.
    pub tls: Option<UpstreamTls>,
    /// MeshTimeout; none = built-in defaults.
    pub timeout: Option<mesh_timeout::Conf>,
    /// MeshCircuitBreaker.
    pub circuit_breaker: Option<mesh_circuit_breaker::Conf>,
    /// Bounded life of connections to other zones (DESIGN decision 15).
    pub connection_life: Option<ConnectionLife>,
    /// Endpoints.
    pub endpoints: Arc<Endpoints>,
}

/// Who uses a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ClusterRole {
    /// A sidecar's outbound: HTTP/2 between proxies.
    Outbound,
    /// A zone ingress: bytes to local endpoints.
    ZoneIngress,
}

/// mTLS to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamTls {
    /// Server name.
    pub sni: String,
    /// Accepted SPIFFE ids, sorted; empty = any of a trusted domain.
    pub spiffe_ids: Vec<String>,
    /// Name of the SDS secret with the own certificate.
    pub identity_secret: String,
    /// MeshTLS of the mesh.
    pub params: mesh_tls::Conf,
}

/// Limits of one upstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConnectionLife {
    /// Requests.
    pub max_requests: u32,
    /// Milliseconds; used where no policy limits the duration.
    pub max_duration_ms: u64,
}

/// Endpoints by locality, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Endpoints {
    /// Groups, sorted by zone.
    pub localities: Vec<Locality>,
}

/// Endpoints of one zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Locality {
    /// Zone, if known.
    pub zone: Option<String>,
    /// 0 = first.
    pub priority: u32,
    /// Sorted by address and port.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    /// IP address.
    pub address: String,
    /// Port.
    pub port: u32,
    /// Weight.
    pub weight: u32,
    /// `envoy.lb` and `envoy.transport_socket_match` metadata.
    pub metadata: BTreeMap<String, String>,
}

/// One zone ingress listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ZoneIngress {
    /// Name or decimal port.
    pub section: String,
    /// Address.
    pub address: String,
    /// Port.
    pub port: u32,
    /// One per local destination port, sorted by SNI; empty = no listener.
    pub chains: Vec<IngressChain>,
    /// MeshTimeout of the listener: `idleTimeout` of the catch-all.
    pub timeout: InboundTimeout,
}

/// One destination behind an ingress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IngressChain {
    /// Server name that selects it.
    pub sni: String,
    /// Cluster; a key of [`ProxyInputs::clusters`].
    pub cluster: String,
}

/// Effective transparent proxy settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransparentProxy {
    /// Redirect port of inbound traffic; none = inbound is not redirected.
    pub inbound_port: Option<u32>,
    /// Redirect port of outbound traffic; none = outbound is not redirected.
    pub outbound_port: Option<u32>,
    /// IPv6 as well.
    pub ipv6: bool,
}

/// DNS records for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Name → addresses.
    pub records: BTreeMap<String, Vec<String>>,
    /// Constant labels of the agent's DNS metrics.
    pub extra_labels: BTreeMap<String, String>,
}
