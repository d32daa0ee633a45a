//! The routes of the port, and what their handlers share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::{any, post};
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::health::v3 as health;
use envoy_types::pb::envoy::service::health::v3::health_discovery_service_server::{
    HealthDiscoveryService, HealthDiscoveryServiceServer,
};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use graticule_runtime::{Connection, Drain, HttpLimits, serve_http};
use tonic::{Request, Response, Status, Streaming};

use super::deps::Deps;
use super::leases::Leases;
use super::options::Options;
use super::{ads, bootstrap, drain};

/// Bytes of one request message; a proxy that resumes names all its resources with their versions.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Time for the first request of a stream.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that an HDS stream waits for the Dataplane of its proxy.
pub(super) const DATAPLANE_WAIT: Duration = Duration::from_secs(30);
/// Pings on quiet connections, and the time for their answer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Streams on one connection (the connections are limited by their listener).
const STREAMS_MAX: u32 = 1_000_000;

/// What all handlers share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) deps: Deps,
    pub(super) leases: Arc<Leases>,
    pub(super) drain: Drain,
}

/// The data plane server of a zone.
pub struct DataplaneServer {
    shared: Arc<Shared>,
}

impl DataplaneServer {
    /// A server that finishes when `drain` says so.
    pub fn new(options: Options, deps: Deps, drain: Drain) -> DataplaneServer {
        DataplaneServer { shared: Arc::new(Shared { options, deps, leases: Arc::default(), drain }) }
    }

    /// Serves connections until drained: proxies are sent away at once (they keep what they have and go to another
    /// replica), HTTP requests in progress finish.
    pub async fn run(self, incoming: impl Stream<Item = std::io::Result<Connection>> + Send) {
        let limits = HttpLimits {
            header_read_timeout: self.shared.options.read_header_timeout.to_std(),
            max_streams: STREAMS_MAX,
            keep_alive: KEEP_ALIVE,
            ..HttpLimits::default()
        };
        let drain = self.shared.drain.clone();
        serve_http(self.router(), incoming, limits, drain).await;
    }

    /// All routes, for a server that brings its own listener.
    pub fn router(&self) -> Router {
        let ads = AggregatedDiscoveryServiceServer::new(Ads(self.shared.clone()))
            .max_decoding_message_size(REQUEST_BYTES_MAX);
        let router = Router::new()
            .route("/bootstrap", any(bootstrap::serve))
            .route("/proxies/{mesh}/{name}/drain", post(drain::serve))
            .route_service(&path_of::<AggregatedDiscoveryServiceServer<Ads>>(), ads);
        let router = match self.shared.options.hds.enabled {
            true => {
                let hds = HealthDiscoveryServiceServer::new(Hds(self.shared.clone()))
                    .max_decoding_message_size(REQUEST_BYTES_MAX);
                router.route_service(&path_of::<HealthDiscoveryServiceServer<Hds>>(), hds)
            }
            false => router,
        };
        router.fallback(not_found).with_state(self.shared.clone())
    }
}

impl std::fmt::Debug for DataplaneServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataplaneServer").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

fn path_of<S: tonic::server::NamedService>() -> String {
    format!("/{}/{{*method}}", S::NAME)
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented("no such service").into_http::<Body>();
    }
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "404 page not found\n")
        .into_response()
}

/// What a client presents in `authorization`. Never printed.
pub(super) enum Credential {
    None,
    One(String),
    Invalid(&'static str),
}

impl Credential {
    pub(super) fn of(headers: &HeaderMap) -> Credential {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Credential::None,
            (Some(value), None) => match value.to_str() {
                Ok(text) => Credential::One(text.to_owned()),
                Err(_) => Credential::Invalid("authentication failed: the authorization header is not text"),
            },
            (Some(_), Some(_)) => {
                Credential::Invalid("authentication failed: more than one authorization header")
            }
        }
    }

    pub(super) fn single(&self) -> Result<Option<&str>, String> {
        match self {
            Credential::None => Ok(None),
            Credential::One(text) => Ok(Some(text)),
            Credential::Invalid(reason) => Err((*reason).to_owned()),
        }
    }
}

struct Ads(Arc<Shared>);

#[async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<discovery::DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream =
        BoxStream<'static, Result<discovery::DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state-of-the-world xDS is not served, use the delta protocol"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let credential = Credential::of(request.metadata().as_ref());
        Ok(Response::new(ads::serve(self.0.clone(), credential, request.into_inner()).boxed()))
    }
}

struct Hds(Arc<Shared>);

#[async_trait]
impl HealthDiscoveryService for Hds {
    type StreamHealthCheckStream = BoxStream<'static, Result<health::HealthCheckSpecifier, Status>>;

    async fn stream_health_check(
        &self,
        request: Request<Streaming<health::HealthCheckRequestOrEndpointHealthResponse>>,
    ) -> Result<Response<Self::StreamHealthCheckStream>, Status> {
        let credential = Credential::of(request.metadata().as_ref());
        Ok(Response::new(super::health::serve(self.0.clone(), credential, request.into_inner()).boxed()))
    }

    async fn fetch_health_check(
        &self,
        _request: Request<health::HealthCheckRequestOrEndpointHealthResponse>,
    ) -> Result<Response<health::HealthCheckSpecifier>, Status> {
        Err(Status::unimplemented("use the stream"))
    }
}
