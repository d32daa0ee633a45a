//! One HTTP/1.1 request and its answer, over TCP, TLS or a Unix socket. No pools: the agent asks seldom.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The part of a URL before its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `https`, not `http`.
    pub(crate) tls: bool,
    /// Host name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path that every request path is appended to, without a slash at its end.
    pub(crate) base_path: String,
}

impl Origin {
    /// Reads `http://…` or `https://…`; the error says what is wrong.
    pub(crate) fn parse(url: &str) -> Result<Origin, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{url:?} must start with https:// or http://")),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(format!("{url:?} has no host"));
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Origin { tls, host, port, base_path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Host and port as the `Host` header has them.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whole URL of a path, for messages.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority(), self.base_path)
    }
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Plain TCP: host and port.
    Tcp(String, u16),
    /// TLS: host, port and what is trusted.
    Tls(String, u16, Arc<ClientConfig>),
    /// A Unix socket.
    Unix(PathBuf),
}

/// An answer, complete.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("the TLS handshake failed{}", tls_hint(.0))]
    Tls(#[source] std::io::Error),
    #[error("{0:?} is neither a host name nor an address")]
    Host(String),
    #[error("the exchange failed{}", if .0.is_parse() { " (does the address need https:// instead of http://?)" } else { "" })]
    Http(#[source] hyper::Error),
    #[error("the answer cannot be read")]
    Body(#[source] BoxError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Sends one request on a fresh connection. `body_len_max` limits the answer's body in bytes.
pub(crate) async fn send(
    peer: &Peer,
    request: Request<Full<Bytes>>,
    timeout: Duration,
    body_len_max: usize,
) -> Result<Response, Error> {
    let answer = async {
        match peer {
            Peer::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(Error::Connect)?;
                exchange(stream, request, body_len_max).await
            }
            Peer::Tcp(host, port) => exchange(connect(host, *port).await?, request, body_len_max).await,
            Peer::Tls(host, port, config) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| Error::Host(host.clone()))?;
                let stream = connect(host, *port).await?;
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let stream = connector.connect(name, stream).await.map_err(Error::Tls)?;
                exchange(stream, request, body_len_max).await
            }
        }
    };
    // On the heap: a TLS handshake is large, and this is awaited deep inside of other futures.
    tokio::time::timeout(timeout, Box::pin(answer)).await.unwrap_or(Err(Error::Timeout(timeout)))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect((host, port)).await.map_err(Error::Connect)?;
    stream.set_nodelay(true).map_err(Error::Connect)?;
    Ok(stream)
}

/// What a failed handshake means for the flags.
fn tls_hint(error: &std::io::Error) -> &'static str {
    use tokio_rustls::rustls::{CertificateError, Error as Rustls};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>()) {
        Some(Rustls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))) => {
            " (--ca-cert-file holds neither the certificate of this control plane nor its authority)"
        }
        Some(Rustls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => " (the control plane's certificate is not for the host of --cp-address)",
        Some(Rustls::InvalidMessage(_)) => {
            " (no TLS at --cp-address: is it the port of the data plane server, 5678 by default?)"
        }
        _ => "",
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, body_len_max: usize) -> Result<Response, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Error::Http)?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async move {
        let (head, body) = sender.send_request(request).await.map_err(Error::Http)?.into_parts();
        let body = Limited::new(body, body_len_max).collect().await.map_err(Error::Body)?.to_bytes();
        Ok(Response { status: head.status, headers: head.headers, body })
    });
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // Its error reaches the answer too.
            _ = &mut connection, if open => open = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (url, expected) in [
            ("https://localhost:5678", Ok(("localhost:5678", "https://localhost:5678/bootstrap"))),
            ("https://cp.example/", Ok(("cp.example:443", "https://cp.example:443/bootstrap"))),
            ("http://[::1]:80/x/", Ok(("[::1]:80", "http://[::1]:80/x/bootstrap"))),
            ("localhost:5678", Err("must start with")),
            ("ftp://x", Err("must start with")),
            ("https://", Err("no URL")),
            ("", Err("no URL")),
        ] {
            match (Origin::parse(url), expected) {
                (Ok(origin), Ok((authority, whole))) => {
                    assert_eq!(
                        (origin.authority().as_str(), origin.url("/bootstrap").as_str()),
                        (authority, whole)
                    );
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, _) => panic!("{url}: {got:?}"),
            }
        }
    }
}
