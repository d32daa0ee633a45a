use graticule_api::envoy_admin::AdminFormat::{Json, Text};
use graticule_identity::CertificateKey;
use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::{Meta, Timestamp};
use graticule_store::{MemoryStore, Txn};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const DUMP: AdminQuery = AdminQuery::ConfigDump { include_eds: false };
const STATS: AdminQuery = AdminQuery::Stats { format: Text, used_only: true };

fn mk_dataplane(networking: Value) -> Resource {
    let proxy = json!({"type": "Dataplane", "mesh": "default", "name": "web", "networking": networking});
    Resource::from_rest(Kind::Dataplane, &proxy).unwrap()
}

fn mk_authority(serial: u8) -> AdminAuthority {
    AdminAuthority::generate(Timestamp::now(), [serial; 16]).unwrap()
}

fn mk_envoys(authority: &AdminAuthority, clock: Clock) -> ZoneEnvoys {
    let store = MemoryStore::new(Timestamp::now);
    let secret = GlobalSecret { data: SecretBytes(authority.to_secret()) };
    store.commit_now(Txn::put(Resource::new(Meta::new("", admin::SECRET), secret))).unwrap();
    ZoneEnvoys::new(Arc::new(store), clock, Random::seeded(1), 9901)
}

#[test]
fn endpoints() {
    for (networking, want) in [
        (json!({"address": "10.0.0.1"}), Ok("https://10.0.0.1:9901/stats")),
        (json!({"address": "web.example", "admin": {"port": 7}}), Ok("https://web.example:7/stats")),
        (json!({"address": "fd00::1", "admin": {}}), Ok("https://[fd00::1]:9901/stats")),
        (json!({"address": "127.0.0.1", "admin": {"port": 9}}), Ok("http://127.0.0.1:9/stats")),
        (json!({"address": "10.0.0.1", "admin": {"port": 65_536}}), Err("networking.admin.port")),
        (json!({}), Err("networking.address")),
    ] {
        let proxy = mk_dataplane(networking.clone());
        let endpoint = Endpoint::of(proxy.spec_as().unwrap(), 9901).map(|endpoint| endpoint.url("/stats"));
        match want {
            Ok(url) => assert_eq!(endpoint.as_deref(), Ok(url), "{networking}"),
            Err(part) => assert!(endpoint.clone().is_err_and(|error| error.contains(part)), "{endpoint:?}"),
        }
    }
    let proxy = mk_dataplane(json!({"address": "10.0.0.1"}));
    assert!(Endpoint::of(proxy.spec_as().unwrap(), 0).is_err(), "without an admin port");
}

#[test]
fn paths() {
    for (query, want) in [
        (DUMP, "/config_dump"),
        (AdminQuery::ConfigDump { include_eds: true }, "/config_dump?include_eds="),
        (STATS, "/stats?usedonly="),
        (AdminQuery::Stats { format: Json, used_only: true }, "/stats?format=json&usedonly="),
        (AdminQuery::Stats { format: Json, used_only: false }, "/stats?format=json"),
        (AdminQuery::Stats { format: Text, used_only: false }, "/stats"),
        (AdminQuery::Clusters { format: Text }, "/clusters"),
        (AdminQuery::Clusters { format: Json }, "/clusters?format=json"),
    ] {
        assert_eq!(path(query), want);
    }
}

#[test]
fn credentials_are_left_out() {
    let token = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl";
    let headers =
        |value: &str| json!([{"key": "Authorization", "value": value}, {"key": "x", "value": "kept"}]);
    for (dump, want) in [
        (
            json!({"ads_config": {"grpc_services": [{"initial_metadata": headers(&format!("Bearer {token}"))}]},
                   "node": {"metadata": {"note": format!("token={token};"), "token": "kept"}}}),
            json!({"ads_config": {"grpc_services": [{"initial_metadata": headers("[redacted]")}]},
                   "node": {"metadata": {"note": "token=[redacted];", "token": "kept"}}}),
        ),
        // Too short for a token: only where it stands as one.
        (
            json!({"initialMetadata": headers("a"), "other": "a banana"}),
            json!({"initialMetadata": headers("[redacted]"), "other": "a banana"}),
        ),
        (
            json!([{"initial_metadata": [{"key": "authorization", "raw_value": "QmVhcmVyIGFiY2RlZmdo"}]}]),
            json!([{"initial_metadata": [{"key": "authorization", "raw_value": "[redacted]"}]}]),
        ),
        (
            json!({"initial_metadata": "odd", "configs": []}),
            json!({"initial_metadata": "odd", "configs": []}),
        ),
    ] {
        let shown = without_credentials(dump.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&shown).unwrap(), want);
    }
    assert!(without_credentials(b"no JSON").is_err(), "what cannot be read is not shown");
}

/// An admin listener: wants a certificate of `clients`, shows `shown`, gives every connection this answer and
/// returns what it was asked first.
async fn mk_listener(
    clients: &AdminAuthority,
    shown: CertificateKey,
    answer: Vec<u8>,
) -> (u16, JoinHandle<Option<String>>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.cert_pem().as_bytes()).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let chain = CertificateDer::pem_slice_iter(shown.cert_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "the test awaits or aborts the task")]
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.ok()?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await.ok()?;
        let mut request = vec![0; 4096];
        let len = stream.read(&mut request).await.ok()?;
        // The other end may close before everything is sent.
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
        String::from_utf8_lossy(&request[..len]).lines().next().map(str::to_owned)
    });
    (port, task)
}

fn mk_answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn mk_cert(authority: &AdminAuthority, address: &str) -> CertificateKey {
    authority.server_cert(address, Timestamp::now(), [7; 16]).unwrap()
}

fn mk_proxy(port: u16) -> Resource {
    mk_dataplane(json!({"address": "127.0.0.2", "admin": {"port": port}}))
}

#[tokio::test]
async fn an_envoy_answers_its_control_plane() {
    let authority = mk_authority(1);
    let envoys = mk_envoys(&authority, Clock::system());
    let body = r#"{"initial_metadata": [{"key": "authorization", "value": "secret"}]}"#;
    for (query, asked, want) in [
        (STATS, "GET /stats?usedonly= HTTP/1.1", body.to_owned()),
        (DUMP, "GET /config_dump HTTP/1.1", "[redacted]".to_owned()),
    ] {
        let (port, task) =
            mk_listener(&authority, mk_cert(&authority, "127.0.0.2"), mk_answer("200 OK", body)).await;
        let answer = envoys.ask(&mk_proxy(port), query).await.unwrap();
        let answer = String::from_utf8(answer.into()).unwrap();
        assert!(answer.contains(&want), "{answer}");
        assert_eq!(answer.contains("\"secret\""), query == STATS);
        assert_eq!(task.await.unwrap().as_deref(), Some(asked));
    }
}

#[tokio::test]
async fn what_is_no_answer() {
    let (authority, other) = (mk_authority(1), mk_authority(2));
    let good = || mk_cert(&authority, "127.0.0.2");
    let ok = || mk_answer("200 OK", "x");
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER_LEN_MAX + 1).into_bytes();
    for (clients, shown, answer, want) in [
        (&authority, good(), mk_answer("503 Service Unavailable", "x"), "the answer is 503"),
        (&authority, good(), endless, "the answer has more than 33554432 bytes"),
        (&authority, good(), b"nonsense\r\n\r\n".to_vec(), "the exchange failed"),
        (&authority, mk_cert(&authority, "127.0.0.3"), ok(), "the TLS handshake failed"),
        (&authority, mk_cert(&other, "127.0.0.2"), ok(), "the TLS handshake failed"),
        // With TLS 1.3 a client hears only afterwards that it is not trusted.
        (&other, good(), ok(), "the exchange failed"),
    ] {
        let (port, task) = mk_listener(clients, shown, answer).await;
        let envoys = mk_envoys(&authority, Clock::system());
        let Err(Unheard::Failed(why)) = envoys.ask(&mk_proxy(port), STATS).await else { panic!("{want}") };
        let url =
            format!("unable to send GET to config_dump: Get \"https://127.0.0.2:{port}/stats?usedonly=\": ");
        assert!(why.starts_with(&url) && why.contains(want), "{want}: {why}");
        task.abort();
    }
}

#[tokio::test]
async fn an_answer_of_unknown_length_is_limited() {
    let authority = mk_authority(1);
    for (limit, want) in [(10, Ok("0123456789".into())), (9, Err("the answer has more than 9 bytes".into()))]
    {
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n0123456789".to_vec();
        let (port, _task) = mk_listener(&authority, mk_cert(&authority, "127.0.0.2"), answer).await;
        let clock = Clock::system();
        let tls = mk_envoys(&authority, clock.clone()).client().unwrap();
        let endpoint = Endpoint { host: "127.0.0.2".into(), port, tls: true };
        assert_eq!(http::get(&endpoint, "/stats", Some(tls), &clock, limit).await, want);
    }
}

#[tokio::test]
async fn an_envoy_that_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (clock, hand) = Clock::manual(Timestamp::now());
    let envoys = mk_envoys(&mk_authority(1), clock);
    let proxy = mk_proxy(port);
    let asking = envoys.ask(&proxy, DUMP);
    let stuck = async {
        // Accepted, and silent while time passes.
        let _connection = listener.accept().await.unwrap();
        hand.advance(ASK_TIMEOUT);
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = asking => answer,
        () = stuck => unreachable!("it never ends"),
    };
    let Err(Unheard::Failed(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("within"), "{why}");
}

#[tokio::test]
async fn nobody_to_ask() {
    let envoys = mk_envoys(&mk_authority(1), Clock::system());
    let unknown = envoys.ask_by_name("default", "web", STATS).await;
    assert_eq!(unknown, Err("there is no Dataplane \"web\" in mesh \"default\"".into()));
    let free = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap().port();
    let Err(Unheard::Failed(why)) = envoys.ask(&mk_proxy(free), STATS).await else {
        panic!("nobody listens")
    };
    assert!(why.contains("cannot connect"), "{why}");
    let store = Arc::new(MemoryStore::new(Timestamp::now));
    let bare = ZoneEnvoys::new(store, Clock::system(), Random::seeded(1), 9901);
    let Err(Unheard::Failed(why)) = bare.ask(&mk_proxy(free), STATS).await else { panic!("no authority") };
    assert!(why.contains("envoy-admin-ca"), "{why}");
}
