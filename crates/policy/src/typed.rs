//! Merged configurations as the types of their kinds.

use graticule_model::Kind;
use graticule_model::kinds::mesh_http_route::RouteRule;
use graticule_model::kinds::{mesh_circuit_breaker, mesh_retry, mesh_tcp_route, mesh_timeout, mesh_tls};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A merged configuration of a kind that Envoy generation asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Typed {
    /// No configuration, or a kind that nobody asks for by type.
    #[default]
    None,
    Timeout(mesh_timeout::Conf),
    Retry(mesh_retry::Conf),
    CircuitBreaker(mesh_circuit_breaker::Conf),
    Tls(mesh_tls::Conf),
    Http(HttpConf),
    Tcp(mesh_tcp_route::Conf),
}

/// Merged rules of MeshHTTPRoutes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub(crate) struct HttpConf {
    #[serde(default)]
    pub(crate) rules: Vec<RouteRule>,
}

impl Typed {
    /// Reads a merged configuration.
    pub(crate) fn new(kind: Kind, conf: Option<&Value>) -> Result<Typed, String> {
        let Some(conf) = conf else { return Ok(Typed::None) };
        Ok(match kind {
            Kind::MeshTimeout => Typed::Timeout(read(conf)?),
            Kind::MeshRetry => Typed::Retry(read(conf)?),
            Kind::MeshCircuitBreaker => Typed::CircuitBreaker(read(conf)?),
            Kind::MeshTLS => Typed::Tls(read(conf)?),
            Kind::MeshHTTPRoute => Typed::Http(read(conf)?),
            Kind::MeshTCPRoute => Typed::Tcp(read(conf)?),
            _ => Typed::None,
        })
    }
}

pub(crate) fn read<T: DeserializeOwned>(conf: &Value) -> Result<T, String> {
    T::deserialize(conf).map_err(|error| error.to_string())
}
