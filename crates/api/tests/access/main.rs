//! Who may do what over the REST API, and the audit log: tokens, keys, roles (tokens-and-access.md §1–§6).

#![expect(clippy::unwrap_used, reason = "what a test sets up must work")]

mod audit;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use graticule_api::{Api, Deps, Instance, MeshSetup, NoEnvoyAdmin, NoInspector, Options};
use graticule_identity::tokens::{SigningKey, StaticKey, UserClaims, issue};
use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::{GoDuration, Key, Kind, Meta, Mode, Resource, Timestamp};
use graticule_runtime::{Clock, Peer, Random};
use graticule_store::{MemoryStore, Store, Txn};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Server {
    router: Router,
    store: Arc<MemoryStore>,
    clock: Clock,
}

/// Global with the mesh "default" and a first signing key for user tokens.
fn mk_server(change: impl FnOnce(&mut Options)) -> Server {
    let store = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let pem = SigningKey::generate().unwrap().to_pem().into_bytes();
    store.commit_now(Txn::put(global_secret("user-token-signing-key-1", pem))).unwrap();
    store.commit_now(Txn::put(Resource::new(Meta::new("", "default"), Mesh::default()))).unwrap();
    let (clock, _hand) = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
    let deps = Deps {
        store: store.clone(),
        soft: Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH)),
        mode: Mode::Global,
        zone: String::new(),
        clock: clock.clone(),
        random: Random::seeded(1),
        instance: Instance::default(),
        config: Value::Null,
        mesh_setup: MeshSetup::default(),
        backups: graticule_api::Backups::default(),
        inspector: Arc::new(NoInspector),
        admin: Arc::new(NoEnvoyAdmin),
        cluster: graticule_api::NoCluster::shared(),
        federation: graticule_api::NoFederation::shared(),
    };
    let mut options = Options::default();
    change(&mut options);
    Server { router: Api::new(options, deps), store, clock }
}

fn global_secret(name: &str, data: Vec<u8>) -> Resource {
    Resource::new(Meta::new("", name), GlobalSecret { data: SecretBytes(data) })
}

impl Server {
    async fn send(&self, peer: &str, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
        let address = format!("{peer}:40000").parse().unwrap();
        let peer = Peer { address, local: "127.0.0.1:5681".parse().unwrap(), tls: false };
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost:5681");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.header("content-type", "application/json").extension(peer);
        let response =
            self.router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A user token of the administrator's making.
    async fn token(&self, name: &str, groups: &[&str]) -> String {
        let request = json!({"name": name, "groups": groups, "validFor": "1h"}).to_string();
        let (status, token) = self.send(LOCAL, "POST", "/tokens/user", "", &request).await;
        assert_eq!(status, 200, "{token}");
        token
    }

    /// Who a caller with this token is; none: the token is refused.
    async fn who(&self, token: &str) -> Option<String> {
        let (status, answer) = self.send(REMOTE, "GET", "/who-am-i", token, "").await;
        assert!(matches!(status, 200 | 401), "{status} {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        (status == 200).then(|| answer["name"].as_str().unwrap().to_owned())
    }

    fn put(&self, resource: Resource) {
        self.store.commit_now(Txn::put(resource)).unwrap();
    }

    fn delete(&self, name: &str) {
        self.store.commit_now(Txn::delete(Key::new(Kind::GlobalSecret, "", name))).unwrap();
    }
}

const LOCAL: &str = "127.0.0.1";
const REMOTE: &str = "192.0.2.10";

/// Header or payload of a token.
fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn the_newest_key_signs_and_every_key_checks() {
    let server = mk_server(|_| {});
    let first = server.token("first", &[]).await;
    assert_eq!(part(&first, 0), json!({"alg": "RS256", "kid": "1", "typ": "JWT"}));
    for serial in [2, 10] {
        let pem = SigningKey::generate().unwrap().to_pem().into_bytes();
        server.put(global_secret(&format!("user-token-signing-key-{serial}"), pem));
    }
    let last = server.token("last", &[]).await;
    assert_eq!(part(&last, 0)["kid"], "10", "serial numbers compare as numbers");
    assert_eq!(server.who(&first).await.as_deref(), Some("first"), "old tokens stay valid");
    assert_eq!(server.who(&last).await.as_deref(), Some("last"));
    server.delete("user-token-signing-key-1");
    assert_eq!(server.who(&first).await, None, "until their key goes");
    assert_eq!(server.who(&last).await.as_deref(), Some("last"));
    // A key that cannot be read is no reason to sign with an older one.
    server.put(global_secret("user-token-signing-key-11", b"rubbish".to_vec()));
    let request = json!({"name": "x", "validFor": "1h"}).to_string();
    let (status, answer) = server.send(LOCAL, "POST", "/tokens/user", "", &request).await;
    assert_eq!(status, 500, "{answer}");
    assert!(
        answer.contains("Could not issue a token") && answer.contains("Internal Server Error"),
        "{answer}"
    );
}

#[tokio::test]
async fn revoked_tokens_are_refused() {
    let server = mk_server(|_| {});
    let (first, second) = (server.token("first", &[]).await, server.token("second", &[]).await);
    let id = |token: &str| part(token, 1)["jti"].as_str().unwrap().to_owned();
    let list = format!("{},{}\n", uuid(), id(&first));
    server.put(global_secret("user-token-revocations", list.into_bytes()));
    assert_eq!(server.who(&first).await, None);
    assert_eq!(server.who(&second).await.as_deref(), Some("second"));
    server.delete("user-token-revocations");
    assert_eq!(server.who(&first).await.as_deref(), Some("first"));
}

fn uuid() -> String {
    Random::seeded(9).uuid()
}

#[tokio::test]
async fn tokens_signed_elsewhere() {
    let key = SigningKey::generate().unwrap();
    let configured = StaticKey { kid: "offline".into(), mesh: String::new(), key: key.public() };
    let server = mk_server(|options| {
        options.user_token_keys = vec![configured];
        options.server.authn.tokens.validator.use_secrets = false;
        options.server.authn.tokens.enable_issuer = false;
    });
    let claims = UserClaims { name: "jane".into(), groups: Some(vec!["team".into()]) };
    let hour = GoDuration::from_secs(3600);
    let token = issue(&claims, &key, "offline", server.clock.now(), hour, "id").unwrap();
    assert_eq!(server.who(&token).await.as_deref(), Some("jane"));
    let of_secret = {
        let data =
            graticule_api::read_secret(&server.store.snapshot(), None, "user-token-signing-key-1").unwrap();
        SigningKey::from_secret(&data).unwrap()
    };
    let other = issue(&claims, &of_secret, "1", server.clock.now(), hour, "id").unwrap();
    assert_eq!(server.who(&other).await, None, "secrets are not used");
    let request = json!({"name": "x", "validFor": "1h"}).to_string();
    let (status, answer) = server.send(LOCAL, "POST", "/tokens/user", "", &request).await;
    assert_eq!(status, 400);
    assert!(answer.contains("issuing tokens using the control plane is disabled."), "{answer}");
}

#[tokio::test]
async fn roles_are_users_and_groups() {
    let server = mk_server(|options| {
        let access = &mut options.access.r#static;
        access.admin_resources.groups.push("keepers".into());
        access.generate_zone_token.users.push("jane".into());
        access.control_plane_metadata = graticule_api::options::Allowed::default();
    });
    let jane = server.token("jane", &["team"]).await;
    let keeper = server.token("joe", &["keepers"]).await;
    let zone = json!({"zone": "east"}).to_string();
    let dataplane = json!({"mesh": "default"}).to_string();
    let secret = json!({"type": "GlobalSecret", "name": "s", "data": "dGVzdA=="}).to_string();
    for (who, token, method, path, body, status, says) in [
        ("jane", &jane, "POST", "/tokens/zone", &zone, 404, "Signing Key not found"),
        (
            "jane",
            &jane,
            "POST",
            "/tokens/dataplane",
            &dataplane,
            403,
            "user \\\"jane/team,mesh-system:authenticated\\\" cannot access generate dataplane token",
        ),
        (
            "joe",
            &keeper,
            "POST",
            "/tokens/zone",
            &zone,
            403,
            "cannot access generate zone token for zone 'east'",
        ),
        ("joe", &keeper, "POST", "/tokens/user", &zone, 403, "action not allowed"),
        ("jane", &jane, "PUT", "/global-secrets/s", &secret, 403, "cannot access the resource of type"),
        ("joe", &keeper, "PUT", "/global-secrets/s", &secret, 201, "{}"),
        ("joe", &keeper, "GET", "/global-secrets/s", &String::new(), 200, "dGVzdA=="),
        ("jane", &jane, "GET", "/global-secrets", &String::new(), 403, "cannot access the resource of type"),
        ("joe", &keeper, "GET", "/config", &String::new(), 403, "cannot access control-plane metadata"),
    ] {
        let (got, answer) = server.send(REMOTE, method, path, token, body).await;
        assert_eq!(got, status, "{who} {method} {path}: {answer}");
        assert!(answer.contains(says), "{who} {method} {path}: {answer}");
    }
}
