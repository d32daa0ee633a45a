//! One GET over TLS or plain TCP, with limits.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graticule_identity::CertificateKey;
use graticule_runtime::Clock;
use graticule_runtime::supervisor::chain;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Body as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::request::Endpoint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TLS_TIMEOUT: Duration = Duration::from_secs(3);

/// Trusts this authority alone and shows this certificate.
pub(super) fn client_config(
    authority_pem: &str,
    own: &CertificateKey,
) -> Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
    let chain = CertificateDer::pem_slice_iter(own.cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes())?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// The body of an answer 200, at most `body_len_max` bytes. The error is a text for people.
pub(super) async fn get(
    endpoint: &Endpoint,
    path: &str,
    tls: Option<Arc<ClientConfig>>,
    clock: &Clock,
    body_len_max: usize,
) -> Result<Bytes, String> {
    let request = Request::get(path)
        .header(header::HOST, endpoint.authority())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let connect = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let stream = within(clock, CONNECT_TIMEOUT, "cannot connect", connect).await?;
    let Some(config) = tls else { return exchange(stream, request, body_len_max).await };
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| format!("{:?} is neither a host name nor an address", endpoint.host))?;
    let handshake = tokio_rustls::TlsConnector::from(config).connect(name, stream);
    let stream = within(clock, TLS_TIMEOUT, "the TLS handshake failed", handshake).await?;
    exchange(stream, request, body_len_max).await
}

async fn within<T>(
    clock: &Clock,
    limit: Duration,
    what: &str,
    step: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    tokio::select! {
        done = step => done.map_err(|error| format!("{what}: {error}")),
        () = clock.sleep(limit) => Err(format!("{what} within {limit:?}")),
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>, body_len_max: usize) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("the exchange failed: {}", chain(&error)))?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async move {
        let answer = sender.send_request(request).await;
        let (head, body) =
            answer.map_err(|error| format!("the exchange failed: {}", chain(&error)))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("the answer is {}", head.status));
        }
        let too_long = || format!("the answer has more than {body_len_max} bytes");
        if body.size_hint().lower() > body_len_max as u64 {
            return Err(too_long());
        }
        let body = Limited::new(body, body_len_max).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                return too_long();
            }
            format!("the answer cannot be read: {error}")
        })
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
