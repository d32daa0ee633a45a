//! MeshTimeout on clusters, filters and routes (policies.md §13).

use envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::config::route::v3::RouteAction;
use graticule_model::GoDuration;
use graticule_model::kinds::mesh_timeout::{Conf, Http};
use graticule_policy::inputs::Protocol;

use crate::message::duration;

/// `connectionTimeout` when nothing is said.
pub(crate) const CONNECT: GoDuration = GoDuration::from_secs(5);
/// `idleTimeout` when nothing is said.
const IDLE: GoDuration = GoDuration::from_secs(3600);
/// `http.streamIdleTimeout` when nothing is said.
const STREAM_IDLE: GoDuration = GoDuration::from_secs(1800);
/// `http.requestTimeout` when nothing is said.
const REQUEST: GoDuration = GoDuration::from_secs(15);
/// No limit.
pub(crate) const NONE: GoDuration = GoDuration(0);
/// Inbounds without MeshTimeout have twice the default.
pub(crate) const INBOUND_CONNECT: GoDuration = GoDuration::from_secs(10);
/// See [`INBOUND_CONNECT`].
pub(crate) const INBOUND_IDLE: GoDuration = GoDuration::from_secs(7200);
/// See [`INBOUND_CONNECT`].
pub(crate) const INBOUND_STREAM_IDLE: GoDuration = GoDuration::from_secs(3600);

/// Effective timeouts: those of a policy, else the defaults.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timeouts<'a>(Option<&'a Conf>);

impl<'a> Timeouts<'a> {
    pub(crate) fn new(conf: Option<&'a Conf>) -> Self {
        Timeouts(conf)
    }

    fn http(&self, field: impl Fn(&Http) -> Option<GoDuration>) -> Option<GoDuration> {
        self.0.and_then(|conf| conf.http.as_ref()).and_then(field)
    }

    pub(crate) fn connect(&self) -> GoDuration {
        self.0.and_then(|conf| conf.connection_timeout).unwrap_or(CONNECT)
    }

    pub(crate) fn idle(&self) -> GoDuration {
        self.0.and_then(|conf| conf.idle_timeout).unwrap_or(IDLE)
    }

    pub(crate) fn request_headers(&self) -> GoDuration {
        self.http(|http| http.request_headers_timeout).unwrap_or(NONE)
    }

    pub(crate) fn max_connection(&self) -> GoDuration {
        self.http(|http| http.max_connection_duration).unwrap_or(NONE)
    }

    /// Limits of upstream connections; gRPC and TCP are left alone, as in the reference (policies.md §22 no. 14).
    pub(crate) fn upstream(&self, protocol: Protocol) -> Option<HttpProtocolOptions> {
        matches!(protocol, Protocol::Http | Protocol::Http2).then(|| HttpProtocolOptions {
            idle_timeout: Some(duration(self.idle())),
            max_stream_duration: Some(duration(self.http(|http| http.max_stream_duration).unwrap_or(NONE))),
            max_connection_duration: Some(duration(self.max_connection())),
            ..Default::default()
        })
    }

    /// Writes the limits of one request; what a broader policy wrote stays where this one is silent.
    pub(crate) fn apply(&self, action: &mut RouteAction) {
        action.timeout = Some(duration(self.http(|http| http.request_timeout).unwrap_or(REQUEST)));
        let stream_idle = self.http(|http| http.stream_idle_timeout).map(duration);
        action.idle_timeout =
            stream_idle.or_else(|| action.idle_timeout.take()).or_else(|| Some(duration(STREAM_IDLE)));
    }
}
