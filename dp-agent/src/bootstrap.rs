//! The bootstrap request and its answer (dataplane-agent.md §1.2).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use graticule_model::yaml;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use crate::admin;
use crate::config::{Config, ControlPlane, Forwarded};
use crate::dataplane::Proxy;
use crate::envoy;
use crate::host;
use crate::http1::{self, Origin, Peer};
use crate::tls;
use crate::token::Token;
use crate::version;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const BODY_LEN_MAX: usize = 8 * 1024 * 1024;
/// Longest part of an answer's body that is shown in a message, in bytes.
const SHOWN_LEN_MAX: usize = 2048;
/// What the REST API answers to a path that it does not have.
const WRONG_PORT_BODY: &str = "404: Page Not Found";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BootstrapRequest<'a> {
    mesh: &'a str,
    name: &'a str,
    proxy_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataplane_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataplane_token_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataplane_resource: Option<&'a str>,
    version: Versions<'a>,
    ca_cert: &'a str,
    dynamic_metadata: BTreeMap<&'static str, &'a str>,
    dns_port: u16,
    readiness_port: u16,
    operating_system: &'static str,
    features: Vec<&'static str>,
    resources: Resources,
    workdir: String,
    metrics_resources: MetricsResources,
    system_ca_path: String,
    ipv6_enabled: bool,
    spire_resources: SpireResources<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions<'a> {
    kuma_dp: AgentVersion,
    envoy: EnvoyVersion<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentVersion {
    version: &'static str,
    git_tag: &'static str,
    git_commit: &'static str,
    build_date: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EnvoyVersion<'a> {
    version: &'a str,
    build: &'a str,
    kuma_dp_compatible: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    max_heap_size_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricsResources {
    cert_path: String,
    key_path: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpireResources<'a> {
    socket_path: &'a str,
}

/// Facts that are known before the first attempt.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) config: &'a Config,
    pub(crate) proxy: &'a Proxy,
    pub(crate) token: Option<&'a Token>,
    /// The given authority as PEM, or nothing.
    pub(crate) ca_pem: &'a str,
    pub(crate) workdir: &'a Path,
}

/// What the control plane says.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    /// Envoy's configuration, unchanged.
    pub(crate) text: Vec<u8>,
    /// Where Envoy's admin interface will be.
    pub(crate) admin: admin::Address,
    /// The proxy's own address.
    pub(crate) networking_address: Option<IpAddr>,
}

/// Why there is no bootstrap configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("invalid request: {0}")]
    Refused(String),
    #[error("no bootstrap configuration within {0:?}")]
    GaveUp(Duration, #[source] Box<AttemptError>),
    #[error(transparent)]
    Envoy(#[from] envoy::Error),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("the bootstrap request cannot be built")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why one attempt failed; another one may succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error("the request failed")]
    Http(#[source] http1::Error),
    #[error("the control plane does not have this Dataplane or its mesh (yet)")]
    NotFound,
    #[error(
        "there is no /bootstrap at this address: check that it has the port of the data plane server (5678 by default), not of the REST API (5681 by default)"
    )]
    WrongPort,
    #[error("the control plane answered {0}")]
    Status(StatusCode),
    #[error("the answer cannot be used: {0}")]
    Answer(String),
}

/// What an answer means (dataplane-agent.md §1.2, client behaviour).
#[derive(Debug)]
enum Verdict {
    Accepted,
    Retry(AttemptError),
    Refused(String),
}

fn classify(status: StatusCode, body: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_LEN_MAX)]);
    let text = text.trim();
    match status {
        StatusCode::OK => Verdict::Accepted,
        StatusCode::NOT_FOUND if text.is_empty() => Verdict::Retry(AttemptError::NotFound),
        StatusCode::NOT_FOUND if text == WRONG_PORT_BODY => Verdict::Retry(AttemptError::WrongPort),
        status if status.is_client_error() && text.is_empty() => Verdict::Refused(status.to_string()),
        status if status.is_client_error() => Verdict::Refused(text.into()),
        status => Verdict::Retry(AttemptError::Status(status)),
    }
}

/// The features that are true of this agent and its settings (dataplane-agent.md §1.4).
fn features(forwarded: &Forwarded) -> Vec<&'static str> {
    [
        (true, "feature-tcp-accesslog-via-named-pipe"),
        (forwarded.bind_outbounds, "feature-bind-outbounds"),
        (forwarded.spire_supported, "feature-spire"),
        (forwarded.strict_inbound_ports, "feature-strict-inbound-ports"),
        (forwarded.reuse_port, "feature-reuse-port"),
    ]
    .into_iter()
    .filter_map(|(enabled, feature)| enabled.then_some(feature))
    .collect()
}

fn request_body<'a>(inputs: &Inputs<'a>, envoy: &'a envoy::Version) -> BootstrapRequest<'a> {
    let forwarded = &inputs.config.forwarded;
    let path_text = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    };
    let system_ca_path = forwarded.system_ca_path.clone().or_else(host::system_ca_path);
    BootstrapRequest {
        mesh: &inputs.proxy.mesh,
        name: &inputs.proxy.name,
        proxy_type: "dataplane",
        dataplane_token: inputs.token.map(|token| token.text.as_str()),
        dataplane_token_path: inputs.token.map(|token| token.path.display().to_string()),
        dataplane_resource: inputs.proxy.resource.as_deref(),
        version: Versions {
            kuma_dp: AgentVersion {
                version: version::WIRE,
                git_tag: concat!("v", env!("CARGO_PKG_VERSION")),
                git_commit: "unknown",
                build_date: "unknown",
            },
            envoy: EnvoyVersion {
                version: &envoy.version,
                build: &envoy.build,
                kuma_dp_compatible: envoy.is_supported(),
            },
        },
        ca_cert: inputs.ca_pem,
        dynamic_metadata: forwarded.host_ip.as_deref().map(|ip| ("HOST_IP", ip)).into_iter().collect(),
        dns_port: forwarded.dns_port,
        readiness_port: inputs.config.readiness_port,
        operating_system: std::env::consts::OS,
        features: features(forwarded),
        resources: Resources {
            max_heap_size_bytes: forwarded.memory_bytes_max.unwrap_or_else(host::memory_limit),
        },
        workdir: inputs.workdir.display().to_string(),
        metrics_resources: MetricsResources {
            cert_path: path_text(&forwarded.metrics_cert_path),
            key_path: path_text(&forwarded.metrics_key_path),
        },
        system_ca_path: path_text(&system_ca_path),
        ipv6_enabled: forwarded.ipv6_enabled && host::has_ipv6(),
        spire_resources: SpireResources { socket_path: &forwarded.spire_socket_path },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    bootstrap: String,
    #[serde(default)]
    kuma_sidecar_configuration: SidecarConfiguration,
}

#[derive(Default, Deserialize)]
struct SidecarConfiguration {
    #[serde(default)]
    networking: Networking,
}

#[derive(Default, Deserialize)]
struct Networking {
    #[serde(default)]
    address: String,
}

fn read_answer(body: &[u8]) -> Result<Bootstrap, AttemptError> {
    let fail = |what: String| AttemptError::Answer(what);
    let answer: Answer = serde_json::from_slice(body).map_err(|error| fail(error.to_string()))?;
    let text = STANDARD
        .decode(answer.bootstrap)
        .map_err(|error| fail(format!("bootstrap is no base64: {error}")))?;
    let config = std::str::from_utf8(&text)
        .map_err(|error| fail(format!("bootstrap is no UTF-8: {error}")))
        .and_then(|text| yaml::parse_one(text).map_err(|error| fail(format!("bootstrap: {error}"))))?;
    let admin = admin::Address::in_bootstrap(&config)
        .ok_or_else(|| fail("bootstrap: admin.address: neither a pipe nor an address".into()))?;
    let networking_address = answer.kuma_sidecar_configuration.networking.address.parse().ok();
    Ok(Bootstrap { text, admin, networking_address })
}

/// Asks until there is an answer, the control plane refuses, or the time for retries is over.
pub(crate) async fn fetch(inputs: Inputs<'_>, binary: &Path) -> Result<Bootstrap, Error> {
    let control_plane = &inputs.config.control_plane;
    let deadline = tokio::time::Instant::now() + control_plane.retry_max_duration;
    let peer = peer(control_plane)?;
    loop {
        let envoy = envoy::version(binary).await?;
        if !envoy.is_supported() {
            let (major, minor) = version::ENVOY;
            tracing::warn!(version = envoy.version, "this agent is made for Envoy {major}.{minor}");
        }
        let body = serde_json::to_vec(&request_body(&inputs, &envoy))
            .map_err(|error| Error::Request(error.into()))?;
        let failure = match attempt(&peer, &control_plane.origin, body).await? {
            Ok(bootstrap) => return Ok(bootstrap),
            Err(failure) => failure,
        };
        if tokio::time::Instant::now() + control_plane.retry_backoff >= deadline {
            return Err(Error::GaveUp(control_plane.retry_max_duration, Box::new(failure)));
        }
        tracing::warn!(
            url = control_plane.origin.url("/bootstrap"),
            error = format!("{:#}", anyhow::Error::from(failure)),
            backoff = ?control_plane.retry_backoff,
            "cannot fetch the bootstrap configuration, trying again (the address must be of a zone control plane, not of the global one)"
        );
        tokio::time::sleep(control_plane.retry_backoff).await;
    }
}

async fn attempt(
    peer: &Peer,
    origin: &Origin,
    body: Vec<u8>,
) -> Result<Result<Bootstrap, AttemptError>, Error> {
    let mut request = post(origin, "/bootstrap", body)?;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(ACCEPT, json.clone());
    request.headers_mut().insert(CONTENT_TYPE, json);
    let answer = match http1::send(peer, request, TIMEOUT, BODY_LEN_MAX).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(AttemptError::Http(error))),
    };
    match classify(answer.status, &answer.body) {
        Verdict::Accepted => Ok(read_answer(&answer.body)),
        Verdict::Retry(failure) => Ok(Err(failure)),
        Verdict::Refused(reason) => Err(Error::Refused(reason)),
    }
}

/// The data plane server of the zone control plane.
pub(crate) fn peer(control_plane: &ControlPlane) -> Result<Peer, tls::Error> {
    let Origin { tls, host, port, .. } = &control_plane.origin;
    Ok(if *tls {
        Peer::Tls(host.clone(), *port, control_plane.trust.client_config()?)
    } else {
        Peer::Tcp(host.clone(), *port)
    })
}

/// A request to the data plane server.
pub(crate) fn post(origin: &Origin, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, Error> {
    let failed = |error: http::Error| Error::Request(error.into());
    Request::builder()
        .method(Method::POST)
        .uri(format!("{}{path}", origin.base_path))
        .header(HOST, origin.authority())
        .header(USER_AGENT, concat!("graticule-dp-agent/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))
        .map_err(failed)
}

#[cfg(test)]
mod tests;
