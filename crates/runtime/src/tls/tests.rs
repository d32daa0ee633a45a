use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::*;
use crate::{Drain, HttpLimits, ListenLimits, Peer, Random, TcpAcceptor, serve_http};

/// A result with any error.
type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn mk_cert(dir: &Path, hostnames: &[&str]) -> Result<ServerCert, Error> {
    let hostnames: Vec<String> = hostnames.iter().map(|name| (*name).to_owned()).collect();
    let options = CertOptions { cert_file: "", key_file: "", work_dir: dir, hostnames: &hostnames };
    ServerCert::load_or_generate(&options, Timestamp::now(), &Random::seeded(1))
}

#[test]
fn generates_once_with_private_modes() {
    let dir = tempfile::tempdir().expect("a directory");
    let work = dir.path().join("work");
    let cert = mk_cert(&work, &["cp.example", "10.0.0.9"]).expect("generated");
    let mode = |path: &Path| fs::metadata(path).expect("exists").permissions().mode() & 0o777;
    assert_eq!(mode(&work), 0o700);
    assert_eq!((mode(&work.join(CERT_FILE)), mode(&work.join(KEY_FILE))), (0o600, 0o600));
    assert!(cert.is_ca());
    assert_eq!(cert.sans().dns, ["cp.example", "localhost"]);
    let ips: Vec<String> = cert.sans().ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.9", "127.0.0.1", "::1"]);
    let again = mk_cert(&work, &["other"]).expect("loaded");
    assert_eq!(again.chain_pem(), cert.chain_pem());
}

#[test]
fn follows_its_files_and_survives_broken_ones() {
    let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let cert = mk_cert(dir.path(), &["one"]).expect("generated");
    let replacement = mk_cert(other.path(), &["another-name"]).expect("generated");
    let first = cert.chain_pem();
    fs::write(dir.path().join(CERT_FILE), "rubbish").expect("written");
    assert_eq!(cert.chain_pem(), first, "a broken file leaves the last good one");
    for file in [CERT_FILE, KEY_FILE] {
        fs::copy(other.path().join(file), dir.path().join(file)).expect("copied");
    }
    assert_eq!(cert.chain_pem(), replacement.chain_pem());
    assert_eq!(cert.sans().dns, ["another-name", "localhost"]);
}

#[test]
fn refuses_what_does_not_fit() {
    let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    mk_cert(dir.path(), &[]).expect("generated");
    mk_cert(other.path(), &[]).expect("generated");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let load = |cert: &str, key: &str| {
        let options = CertOptions { cert_file: cert, key_file: key, work_dir: dir.path(), hostnames: &[] };
        let result = ServerCert::load_or_generate(&options, Timestamp::now(), &Random::seeded(1));
        result.expect_err("refused").to_string()
    };
    let (cert, key) = (text(&dir.path().join(CERT_FILE)), text(&dir.path().join(KEY_FILE)));
    assert!(load(&cert, &text(&other.path().join(KEY_FILE))).contains("is not the key of"));
    assert!(load(&key, &key).contains("holds no PEM certificate"));
    assert!(load(&cert, &cert).contains("holds no PEM private key"));
    assert!(load(&cert, "").contains("must be set together"));
    assert!(load("/nonexistent", &key).contains("/nonexistent"));
    assert!(matches!(versions("TLSv1_1", ""), Err(Error::Version(_))));
    assert!(versions("TLSv1_3", "TLSv1_2").is_err());
    assert_eq!(versions("TLSv1_2", "").expect("all").len(), 2);
}

/// Says what the server saw of the connection.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let tls = request.extensions().get::<Peer>().is_some_and(|peer| peer.tls);
    Ok(Response::new(Full::new(Bytes::from(format!("{} tls={tls}", request.uri().path())))))
}

async fn get(
    address: std::net::SocketAddr,
    trust: &ClientTrust,
    name: &'static str,
    alpn: &str,
) -> Fallible<(Version, String)> {
    let connector = tokio_rustls::TlsConnector::from(client_config(trust, &[alpn])?);
    let stream = TcpStream::connect(address).await?;
    let stream = connector.connect(ServerName::try_from(name)?, stream).await?;
    let uri = format!("https://{name}/x");
    let request = Request::builder().uri(uri).header("host", name).body(Full::new(Bytes::new()))?;
    let io = TokioIo::new(stream);
    let (head, body) = if alpn == "h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        drive(connection, sender.send_request(request)).await?.into_parts()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        drive(connection, sender.send_request(request)).await?.into_parts()
    };
    Ok((head.version, body))
}

/// Runs a client connection until its one response is complete.
async fn drive<E>(
    connection: impl Future<Output = Result<(), E>>,
    response: impl Future<Output = hyper::Result<Response<Incoming>>>,
) -> Fallible<Response<String>> {
    let whole = async {
        let (head, body) = response.await?.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, String::from_utf8(bytes.to_vec())?))
    };
    tokio::select! {
        biased;
        whole = whole => whole,
        _ = connection => Err("the connection ended early".into()),
    }
}

#[tokio::test]
async fn serves_both_protocols_and_drains() {
    let dir = tempfile::tempdir().expect("a directory");
    let cert = mk_cert(dir.path(), &[]).expect("generated");
    let limits = ListenLimits { handshake_timeout: Duration::from_secs(5), ..ListenLimits::default() };
    let acceptor = TcpAcceptor::bind(([127, 0, 0, 1], 0).into(), "test", limits).await.expect("bound");
    let address = acceptor.local_addr();
    let taken = TcpAcceptor::bind(address, "apiServer.https.port", limits).await.expect_err("taken");
    assert_eq!(
        taken.to_string(),
        format!("address {address} is already in use; stop the other process or change apiServer.https.port")
    );
    let incoming = acceptor.tls(cert.config(&ServerTls::default()).expect("config"));
    let (signal, drain) = Drain::new();
    let server = serve_http(tower::service_fn(answer), incoming, HttpLimits::default(), drain);
    let requests = async {
        // Nobody's handshake waits for this silent connection.
        let silent = TcpStream::connect(address).await.expect("connected");
        let own = ClientTrust::Pem(cert.chain_pem().into_bytes());
        for (alpn, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
            let got = get(address, &own, "localhost", alpn).await.expect("answered");
            assert_eq!(got, (version, "/x tls=true".to_owned()));
        }
        get(address, &own, "127.0.0.1", "h2").await.expect("address in the certificate");
        get(address, &ClientTrust::Anybody, "whoever", "h2").await.expect("not verified");
        let wrong_name = get(address, &own, "other.example", "h2").await.expect_err("wrong name");
        assert!(wrong_name.to_string().contains("not valid for name"), "{wrong_name}");
        let (foreign, _) = self_signed(&["localhost".into()], Timestamp::now(), [1; 16]).expect("made");
        let foreign = ClientTrust::Pem(foreign.into_bytes());
        get(address, &foreign, "localhost", "h2").await.expect_err("another authority");
        signal.drain();
        drop(silent);
    };
    tokio::join!(server, requests);
}

#[tokio::test]
async fn connections_count_until_dropped() {
    let limits = ListenLimits { max_connections: 1, ..ListenLimits::default() };
    let acceptor = TcpAcceptor::bind(([127, 0, 0, 1], 0).into(), "test", limits).await.expect("bound");
    let address = acceptor.local_addr();
    let mut incoming = acceptor.plain();
    let _clients = [TcpStream::connect(address).await, TcpStream::connect(address).await];
    let first = incoming.next().await.expect("endless").expect("accepted");
    assert!(!first.peer().tls);
    assert!(futures::poll!(incoming.next()).is_pending());
    drop(first);
    incoming.next().await.expect("endless").expect("accepted");
}

#[test]
fn client_roots_must_be_certificates() {
    let error = client_config(&ClientTrust::Pem(b"rubbish".to_vec()), &[]).expect_err("refused");
    assert_eq!(error.to_string(), "authorities: holds no PEM certificate");
    let _: Arc<rustls::ClientConfig> = client_config(&ClientTrust::Anybody, &["h2"]).expect("accepted");
}

/// An authority, and a certificate of a client that it signed: PEM of the authority, chain and key of the client.
fn mk_client()
-> (Vec<u8>, Vec<rustls_pki_types::CertificateDer<'static>>, rustls_pki_types::PrivateKeyDer<'static>) {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let (authority_key, client_key) =
        (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).expect("signed");
    let issuer = Issuer::new(params, authority_key);
    let mut params = CertificateParams::new(vec!["client".to_owned()]).expect("a name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = params.signed_by(&client_key, &issuer).expect("signed");
    let key = rustls_pki_types::PrivateKeyDer::try_from(client_key.serialize_der()).expect("a key");
    (authority.pem().into_bytes(), vec![client.der().clone()], key)
}

#[tokio::test]
async fn clients_show_a_certificate_where_they_must() {
    let dir = tempfile::tempdir().expect("a directory");
    let cert = mk_cert(dir.path(), &[]).expect("generated");
    let (first, second) = (mk_client(), mk_client());
    let file = dir.path().join("authorities.pem");
    std::fs::write(&file, &first.0).expect("written");
    let server = ServerTls { client_ca: Some(file.clone()), ..ServerTls::default() };
    let acceptor =
        TcpAcceptor::bind(([127, 0, 0, 1], 0).into(), "test", ListenLimits::default()).await.expect("bound");
    let address = acceptor.local_addr();
    let incoming = acceptor.tls(cert.config(&server).expect("config"));
    let (signal, drain) = Drain::new();
    let server = serve_http(tower::service_fn(answer), incoming, HttpLimits::default(), drain);
    let broken = b"-----BEGIN CERTIFICATE-----".to_vec();
    let requests = async {
        // One configuration per client, as one program that keeps its sessions would have.
        let clients =
            [("no", None), ("first", Some(&first)), ("second", Some(&second))].map(|(name, client)| {
                (name, client_of(client.map(|(_, chain, key)| (chain.clone(), key.clone_key()))))
            });
        for (written, admitted) in [
            (None, "first"),
            (Some(second.0.clone()), "second"),
            (Some(broken), "second"),
            (Some([first.0.clone(), second.0.clone()].concat()), "first second"),
        ] {
            if let Some(text) = written {
                std::fs::write(&file, text).expect("written");
            }
            for (name, client) in &clients {
                let answered = ask(address, client).await;
                assert_eq!(answered.is_ok(), admitted.contains(name), "{name}, {admitted}: {answered:?}");
            }
        }
        signal.drain();
    };
    tokio::join!(server, requests);
}

type Credentials = (Vec<rustls_pki_types::CertificateDer<'static>>, rustls_pki_types::PrivateKeyDer<'static>);

fn client_of(credentials: Option<Credentials>) -> tokio_rustls::TlsConnector {
    let anybody = client_config(&ClientTrust::Anybody, &["http/1.1"]).expect("config");
    let mut config = rustls::ClientConfig::clone(&anybody);
    if let Some((chain, key)) = credentials {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(key).expect("a key");
        let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    }
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

async fn ask(address: std::net::SocketAddr, client: &tokio_rustls::TlsConnector) -> Fallible<String> {
    let stream = TcpStream::connect(address).await?;
    let stream = client.connect(ServerName::try_from("localhost")?, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().uri("/x").header("host", "x").body(Full::new(Bytes::new()))?;
    Ok(drive(connection, sender.send_request(request)).await?.into_body())
}
