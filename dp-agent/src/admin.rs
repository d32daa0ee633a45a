//! Envoy's admin interface, as far as the agent uses it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::http1::{self, Peer, Response};

const TIMEOUT: Duration = Duration::from_secs(5);
const BODY_LEN_MAX: usize = 64 * 1024;

/// Where Envoy's admin interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A Unix socket.
    Socket(PathBuf),
    /// TCP.
    Tcp(IpAddr, u16),
}

/// Why an admin request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} on Envoy's admin interface")]
    Request {
        path: &'static str,
        #[source]
        source: http1::Error,
    },
    #[error("{path} on Envoy's admin interface answered {status}")]
    Status { path: &'static str, status: StatusCode },
}

impl Address {
    /// Finds it in a bootstrap configuration; `None` when it has no (usable) admin interface.
    pub(crate) fn in_bootstrap(bootstrap: &Value) -> Option<Address> {
        let address = bootstrap.pointer("/admin/address")?;
        if let Some(path) = address.pointer("/pipe/path").and_then(Value::as_str) {
            return Some(Address::Socket(path.into()));
        }
        let socket = address.get("socketAddress")?;
        let ip = socket.get("address")?.as_str()?.parse().ok()?;
        let port = u16::try_from(socket.get("portValue")?.as_u64()?).ok()?;
        Some(Address::Tcp(ip, port))
    }

    fn peer(&self) -> Peer {
        match self {
            Address::Socket(path) => Peer::Unix(path.clone()),
            Address::Tcp(ip, port) => Peer::Tcp(ip.to_string(), *port),
        }
    }

    async fn send(&self, method: Method, path: &'static str) -> Result<Response, Error> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        http1::send(&self.peer(), request, TIMEOUT, BODY_LEN_MAX)
            .await
            .map_err(|source| Error::Request { path, source })
    }

    async fn post(&self, path: &'static str) -> Result<(), Error> {
        let status = self.send(Method::POST, path).await?.status;
        if status.is_success() { Ok(()) } else { Err(Error::Status { path, status }) }
    }

    /// Whether Envoy is ready, in its own words.
    pub(crate) async fn ready(&self) -> Result<Response, Error> {
        self.send(Method::GET, "/ready").await
    }

    /// Makes Envoy's own health check fail, so that nobody sends new work.
    pub(crate) async fn fail_health_check(&self) -> Result<(), Error> {
        self.post("/healthcheck/fail").await
    }

    /// Lets inbound connections finish and accepts no new ones after a while.
    pub(crate) async fn drain_inbound_listeners(&self) -> Result<(), Error> {
        self.post("/drain_listeners?inboundonly&graceful&skip_exit").await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses() {
        let tcp = |address: &str, port: u64| json!({"admin": {"address": {"socketAddress": {"address": address, "portValue": port}}}});
        for (bootstrap, expected) in [
            (
                json!({"admin": {"address": {"pipe": {"path": "/run/a.sock", "mode": 384}}}}),
                Some(Address::Socket("/run/a.sock".into())),
            ),
            (tcp("127.0.0.1", 9901), Some(Address::Tcp(IpAddr::from([127, 0, 0, 1]), 9901))),
            (tcp("localhost", 9901), None),
            (tcp("127.0.0.1", 99010), None),
            (json!({}), None),
        ] {
            assert_eq!(Address::in_bootstrap(&bootstrap), expected, "{bootstrap}");
        }
    }
}
