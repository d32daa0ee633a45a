//! Answers `GET /ready` for probes and for the control plane's route to them (dataplane-agent.md §3.8).

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::Address;

/// Probes answered at the same time; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after an accept that failed for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Why probes cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("cannot answer readiness probes on {address} (GRATICULE_READINESS_PORT sets the port)")]
pub(crate) struct Error {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Where to listen: where Envoy's admin interface listens if that is TCP; else on loopback, or everywhere in a
/// pod, in the address family of the proxy.
pub(crate) fn bind_ip(admin: &Address, in_pod: bool, networking_address: Option<IpAddr>) -> IpAddr {
    let v6 = networking_address.is_some_and(|address| address.is_ipv6());
    match (admin, in_pod, v6) {
        (Address::Tcp(ip, _), _, _) => *ip,
        (Address::Socket(_), true, false) => Ipv4Addr::UNSPECIFIED.into(),
        (Address::Socket(_), true, true) => Ipv6Addr::UNSPECIFIED.into(),
        (Address::Socket(_), false, false) => Ipv4Addr::LOCALHOST.into(),
        (Address::Socket(_), false, true) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Answers probes once bound.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    admin: Address,
    terminating: watch::Receiver<bool>,
}

impl Server {
    /// Binds; a port of 0 takes a free one.
    pub(crate) async fn bind(
        address: SocketAddr,
        admin: Address,
        terminating: watch::Receiver<bool>,
    ) -> Result<Server, Error> {
        let listener = TcpListener::bind(address).await.map_err(|source| Error { address, source })?;
        Ok(Server { listener, admin, terminating })
    }

    /// Answers until dropped.
    pub(crate) async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS_MAX {
                connections.join_next().await;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, self.admin.clone(), self.terminating.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a readiness probe");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn serve(stream: TcpStream, admin: Address, terminating: watch::Receiver<bool>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (admin, terminating) = (admin.clone(), *terminating.borrow());
        async move { Ok::<_, Infallible>(answer(request.uri().path(), &admin, terminating).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        // A probe that keeps its connection would take a place from others.
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a readiness probe went wrong");
    }
}

async fn answer(path: &str, admin: &Address, terminating: bool) -> Response<Full<Bytes>> {
    if path != "/ready" {
        return own(StatusCode::NOT_FOUND, "not found");
    }
    if terminating {
        return own(StatusCode::SERVICE_UNAVAILABLE, "TERMINATING");
    }
    if matches!(admin, Address::Tcp(..)) {
        return own(StatusCode::OK, "READY");
    }
    match admin.ready().await {
        Err(error) => {
            tracing::debug!(error = format!("{:#}", anyhow::Error::from(error)), "Envoy is not ready");
            own(StatusCode::SERVICE_UNAVAILABLE, "envoy not ready")
        }
        Ok(answer) => {
            let mut response = Response::new(Full::new(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            for header in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
                response.headers_mut().remove(header);
            }
            response
        }
    }
}

fn own(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert("x-powered-by", HeaderValue::from_static("kuma-dp"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_addresses() {
        let socket = Address::Socket("/run/a.sock".into());
        let tcp = Address::Tcp(IpAddr::from([127, 0, 0, 7]), 9901);
        let v6: Option<IpAddr> = Some(Ipv6Addr::LOCALHOST.into());
        for (admin, in_pod, address, expected) in [
            (&socket, false, None, "127.0.0.1"),
            (&socket, false, v6, "::1"),
            (&socket, true, None, "0.0.0.0"),
            (&socket, true, v6, "::"),
            (&tcp, true, v6, "127.0.0.7"),
        ] {
            assert_eq!(bind_ip(admin, in_pod, address).to_string(), expected);
        }
    }
}
