use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use expect_test::{Expect as Golden, expect};
use graticule_identity::tokens::SigningKey;
use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::mesh_zone_address::MeshZoneAddress;
use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::kinds::zone::{KdsSubscription, Zone, ZoneInsight};
use graticule_model::{Key, Kind, Meta, Mode, Resource, Timestamp, labels};
use graticule_runtime::{Clock, Peer, Random};
use graticule_store::{Event, MemoryStore, Store, Txn};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

mod backup;
mod envoys;
mod federation;
mod views;

struct Server {
    router: Router,
    store: Arc<MemoryStore>,
    soft: Arc<MemoryStore>,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// Status, title, detail and parameters in one line.
    fn brief(&self) -> String {
        let body = self.json();
        let mut brief = self.status.as_u16().to_string();
        match body.get("title").and_then(Value::as_str) {
            Some(title) => brief
                .push_str(&format!(" {title}: {}", body["detail"].as_str().unwrap_or_default().trim_end())),
            None => {
                brief.push_str(&format!(" {}", self.text.split_whitespace().collect::<Vec<_>>().join(" ")))
            }
        }
        for parameter in body["invalid_parameters"].as_array().into_iter().flatten() {
            brief.push_str(&format!(" [{} {}]", parameter["field"], parameter["reason"]));
        }
        brief
    }
}

fn mk_server(mode: Mode, change: impl FnOnce(&mut Options)) -> Server {
    let (clock, _hand) = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
    let now = clock.clone();
    let store = Arc::new(MemoryStore::new(move || now.now()));
    let soft = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let mut options = Options::default();
    change(&mut options);
    let deps = Deps {
        store: store.clone(),
        soft: soft.clone(),
        mode,
        zone: if mode.is_global() { String::new() } else { "east".into() },
        clock,
        random: Random::seeded(1),
        instance: Instance { hostname: "cp".into(), product: "Graticule".into(), ..Instance::default() },
        config: json!({"mode": "x"}),
        mesh_setup: MeshSetup::default(),
        backups: Backups::default(),
        inspector: Arc::new(NoInspector),
        admin: Arc::new(NoEnvoyAdmin),
        cluster: crate::NoCluster::shared(),
        federation: crate::NoFederation::shared(),
    };
    store.commit_now(Txn::put(Resource::new(Meta::new("", "default"), Mesh::default()))).unwrap();
    Server { router: Api::new(options, deps), store, soft }
}

impl Server {
    async fn send(
        &self,
        peer: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:5681");
        }
        if !headers.iter().any(|(name, _)| *name == "content-type") && method != "GET" {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let address = format!("{peer}:40000").parse().unwrap();
        let peer = Peer { address, local: "127.0.0.1:5681".parse().unwrap(), tls: false };
        let request = request.extension(peer).body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn admin(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send("127.0.0.1", method, path, &[], &body).await
    }

    async fn external(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.send("192.0.2.10", method, path, headers, &body.to_string()).await
    }

    async fn check(&self, method: &str, path: &str, body: Value, want: Golden) {
        want.assert_eq(&self.admin(method, path, body).await.brief());
    }
}

fn timeout(name: &str, labels: Value) -> Value {
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": name, "labels": labels,
        "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "5s"}}]},
    })
}

fn address(name: &str, pairs: &[(&str, &str)]) -> Resource {
    let mut meta = Meta::new("default", name);
    meta.labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Resource::new(meta, MeshZoneAddress { address: "10.0.0.1".into(), port: 1 })
}

#[tokio::test]
async fn life_of_a_resource() {
    let server = mk_server(Mode::Global, |_| {});
    let path = "/meshes/default/meshtimeouts/t";
    server.check("PUT", path, timeout("t", json!({"a": "b"})), expect!["201 {}"]).await;
    let first = server.admin("GET", path, Value::Null).await.json();
    assert_eq!(
        first["labels"],
        json!({"a": "b", "kuma.io/display-name": "t", "kuma.io/mesh": "default", "kuma.io/origin": "global"})
    );
    assert_eq!(
        (&first["kri"], &first["creationTime"]),
        (&json!("kri_mt_default___t_"), &json!("2026-01-01T00:00:00Z"))
    );
    let before = server.store.snapshot().revision();
    server.check("PUT", path, timeout("t", json!({})), expect!["200 {}"]).await;
    server.check("PUT", path, timeout("t", json!({})), expect!["200 {}"]).await;
    let stored = server.store.snapshot().get(&Key::new(Kind::MeshTimeout, "default", "t")).unwrap();
    assert_eq!((stored.meta.version, stored.meta.label("a")), (3, None));
    assert_eq!(stored.meta.owner, Some(Key::new(Kind::Mesh, "", "default")));
    assert_eq!(server.store.snapshot().revision().0, before.0 + 2, "an equal PUT moves the time");
    server.check("DELETE", path, Value::Null, expect!["200 {}"]).await;
    server.check("DELETE", path, Value::Null, expect!["404 Could not delete a resource: Not found"]).await;
    server.check("GET", path, Value::Null, expect!["404 Could not retrieve a resource: Not found"]).await;
}

#[tokio::test]
async fn dry_runs() {
    let server = mk_server(Mode::Global, |_| {});
    let (path, dry) = ("/meshes/default/meshtimeouts/t", "/_dry-run/meshes/default/meshtimeouts/t");
    let before = server.store.snapshot().revision();
    let answer = server.admin("PUT", dry, timeout("t", json!({"a": "b"}))).await;
    assert_eq!((answer.status, server.store.snapshot().revision()), (StatusCode::CREATED, before));
    let tried = answer.json()["resource"].clone();
    server.check("GET", path, Value::Null, expect!["404 Could not retrieve a resource: Not found"]).await;
    server.check("PUT", path, timeout("t", json!({"a": "b"})), expect!["201 {}"]).await;
    assert_eq!(server.admin("GET", path, Value::Null).await.json(), tried, "what it would be, it becomes");

    let answer = server.admin("PUT", dry, timeout("t", json!({}))).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["resource"]["labels"].get("a"), None);
    // Refused as the write would be.
    let foreign = timeout("t", json!({"kuma.io/origin": "zone"}));
    let refused = server.admin("PUT", path, foreign.clone()).await.brief();
    assert!(refused.starts_with("400"), "{refused}");
    assert_eq!(server.admin("PUT", dry, foreign).await.brief(), refused);
    let outside = server.external("PUT", dry, &[], timeout("t", json!({}))).await;
    assert_eq!(outside.status, StatusCode::FORBIDDEN);
    server.check("GET", dry, Value::Null, expect!["405 405: Method Not Allowed"]).await;
    server
        .check("PUT", "/_dry-run/meshes/default/meshtimeouts", json!({}), expect!["404 404: Page Not Found"])
        .await;
    server.check("DELETE", dry, Value::Null, expect!["405 405: Method Not Allowed"]).await;
    assert_eq!(server.admin("GET", path, Value::Null).await.json(), tried, "nothing was written");
}

#[tokio::test]
async fn requests_that_do_not_match() {
    let server = mk_server(Mode::Global, |_| {});
    let path = "/meshes/default/meshtimeouts/a";
    let put = async |body: Value, want: Golden| server.check("PUT", path, body, want).await;
    put(timeout("b", json!({})), expect![[r#"400 Could not process a resource: Resource is not valid ["name" "name from the URL has to be the same as in body"]"#]]).await;
    put(json!({}), expect![[r#"400 Could not process a resource: Resource is not valid ["" ".name in body is required"] ["" ".spec in body is required"] ["" ".type in body is required"]"#]]).await;
    put(timeout("a", json!({"kuma.io/origin": "zone"})), expect![[r#"400 Could not process a resource: Resource is not valid ["labels[\"kuma.io/origin\"]" "the origin label must be set to 'global'"]"#]]).await;
    for (raw, want) in [
        ("", "400 Bad Request: invalid MeshTimeout object: \"unexpected end of JSON input\""),
        (
            "null",
            "400 Bad Request: invalid MeshTimeout object: \"json: cannot unmarshal null into Go value of type map[string]interface {}\"",
        ),
        (
            "[1]",
            "400 Bad Request: invalid MeshTimeout object: \"json: cannot unmarshal array into Go value of type map[string]interface {}\"",
        ),
    ] {
        assert_eq!(server.send("127.0.0.1", "PUT", path, &[], raw).await.brief(), want, "{raw}");
    }
    server
        .check(
            "PUT",
            "/meshes/none/meshtimeouts/a",
            timeout("a", json!({})),
            expect!["404 Failed to retrieve Mesh: Not found"],
        )
        .await;
    server.check("PUT", "/meshes/z.1", json!({"type": "Mesh", "name": "z.1"}), expect![[r#"400 Failed to create a resource: Resource is not valid ["name" "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"]"#]]).await;
    server.check("PUT", "/meshes/default/secrets/s", json!({"type": "Secret", "name": "s"}), expect![[r#"400 Could not process a resource: Resource is not valid ["mesh" "mesh from the URL has to be the same as in body"] ["mesh" "cannot be empty"]"#]]).await;
    server.check("PUT", path, timeout("a", json!({"kuma.io/zone": "z1"})), expect!["201 {}"]).await;
    put(timeout("a", json!({})), expect![[r#"400 Could not update a resource: Resource is not valid ["labels[\"kuma.io/zone\"]" "is immutable, cannot be removed (was \"z1\")"]"#]]).await;
    put(timeout("a", json!({"kuma.io/zone": "z2"})), expect![[r#"400 Could not update a resource: Resource is not valid ["labels[\"kuma.io/zone\"]" "is immutable, cannot be changed from \"z1\" to \"z2\""]"#]]).await;
}

#[tokio::test]
async fn framework_answers() {
    let server = mk_server(Mode::Global, |options| options.server.max_body_bytes = 1000);
    let plain = "text/plain; charset=utf-8";
    for (method, path, headers, status, text, allow) in [
        ("GET", "/nope", vec![], 404, "404: Page Not Found", ""),
        ("GET", "/meshes/default/nopes/x", vec![], 404, "404: Page Not Found", ""),
        ("POST", "/meshes", vec![], 405, "405: Method Not Allowed", "GET"),
        ("PATCH", "/meshes/default", vec![], 405, "405: Method Not Allowed", "PUT, DELETE, GET"),
        ("HEAD", "/meshes", vec![], 405, "", "GET"),
        ("PUT", "/tokens/user", vec![], 405, "405: Method Not Allowed", "POST"),
        ("PUT", "/meshes/m", vec![("content-type", "text/plain")], 415, "415: Unsupported Media Type", ""),
        ("PUT", "/meshes/m", vec![("content-type", "")], 415, "415: Unsupported Media Type", ""),
        (
            "GET",
            "/meshes",
            vec![("accept", "text/html")],
            406,
            "406: Not Acceptable\n\nAvailable representations: application/json",
            "",
        ),
    ] {
        let answer = server.send("127.0.0.1", method, path, &headers, "").await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, text), "{method} {path}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], plain);
        let got = answer.headers.get(header::ALLOW).map_or("", |value| value.to_str().unwrap());
        assert_eq!(got, allow, "{method} {path}");
    }
    for accept in ["*/*", "application/json", "text/html, application/json;q=0.5"] {
        let answer = server.send("127.0.0.1", "GET", "/meshes/default/", &[("accept", accept)], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{accept}");
    }
    let long = format!("{{\"type\":\"Mesh\",\"name\":\"m\",\"x\":\"{}\"}}", "x".repeat(2000));
    let answer = server.send("127.0.0.1", "PUT", "/meshes/m", &[], &long).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn yaml_in_and_out() {
    let server = mk_server(Mode::Global, |_| {});
    let yaml = "type: Mesh\nname: m\nskipCreatingInitialPolicies: ['*']\n";
    let headers = [("content-type", "application/yaml; charset=utf-8")];
    let answer = server.send("127.0.0.1", "PUT", "/meshes/m", &headers, yaml).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let answer = server.send("127.0.0.1", "GET", "/meshes/m", &[("accept", "application/yaml")], "").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/yaml");
    assert_eq!(
        graticule_model::yaml::parse_one(&answer.text).unwrap()["skipCreatingInitialPolicies"],
        json!(["*"])
    );
    let bad = server.send("127.0.0.1", "PUT", "/meshes/m", &headers, "a: [").await;
    assert!(bad.brief().starts_with("400 Bad Request: invalid Mesh object: \""), "{}", bad.brief());
}

#[tokio::test]
async fn writes_need_a_credential() {
    let mesh = json!({"type": "Mesh", "name": "m"});
    let server = mk_server(Mode::Global, |_| {});
    let answer = server.external("PUT", "/meshes/m", &[], mesh.clone()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(
        answer.brief().contains("user \"mesh-system:anonymous/mesh-system:unauthenticated\""),
        "{}",
        answer.brief()
    );
    assert_eq!(
        server.external("DELETE", "/meshes/default", &[], Value::Null).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(server.external("GET", "/meshes", &[], Value::Null).await.status, StatusCode::OK);
    let secrets = server.external("GET", "/secrets", &[], Value::Null).await;
    expect![[r#"403 Access Denied: user "mesh-system:anonymous/mesh-system:unauthenticated" cannot access the resource of type "Secret""#]].assert_eq(&secrets.brief());

    let open = mk_server(Mode::Global, |options| options.rules.anonymous_writes = true);
    assert_eq!(open.external("PUT", "/meshes/m", &[], mesh).await.status, StatusCode::CREATED);
    let secret = json!({"type": "GlobalSecret", "name": "s", "data": "dGVzdA=="});
    assert_eq!(open.external("PUT", "/global-secrets/s", &[], secret).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn user_tokens() {
    let server = mk_server(Mode::Global, |options| options.server.authn.localhost_is_admin = false);
    let anonymous = server.external("POST", "/tokens/user", &[], json!({})).await;
    expect!["403 Access Denied: action not allowed"].assert_eq(&anonymous.brief());

    let local = mk_server(Mode::Global, |_| {});
    local.check("POST", "/tokens/user", json!({"name": "jane", "validFor": "1h"}), expect![[r#"404 Signing Key not found: there is no signing key with KID 1. GlobalSecret of name "user-token-signing-key-1" is not found. If signing key was rotated, regenerate the token"#]]).await;
    let pem = SigningKey::generate().unwrap().to_pem().into_bytes();
    let key =
        Resource::new(Meta::new("", "user-token-signing-key-1"), GlobalSecret { data: SecretBytes(pem) });
    local.store.commit_now(Txn::put(key)).unwrap();
    local.check("POST", "/tokens/user", json!({"name": "", "validFor": "x"}), expect![[r#"400 Invalid request: Resource is not valid ["name" "cannot be empty"] ["validFor" "is invalid: time: invalid duration \"x\""] ["validFor" "cannot be empty or nil"]"#]]).await;
    let token = local
        .admin("POST", "/tokens/user", json!({"name": "jane", "groups": ["team"], "validFor": "1h"}))
        .await;
    assert_eq!(
        (token.status, &token.headers[header::CONTENT_TYPE]),
        (StatusCode::OK, &header::HeaderValue::from_static("text/plain"))
    );
    let bearer = format!("Bearer {}", token.text);
    let me = local.external("GET", "/who-am-i", &[("authorization", &bearer)], Value::Null).await;
    assert_eq!(me.json(), json!({"name": "jane", "groups": ["team", "mesh-system:authenticated"]}));
    let mesh = json!({"type": "Mesh", "name": "m"});
    assert_eq!(
        local.external("PUT", "/meshes/m", &[("authorization", &bearer)], mesh).await.status,
        StatusCode::CREATED
    );
    let bad = local.external("GET", "/no-such-path", &[("authorization", "Bearer abc")], Value::Null).await;
    expect!["401 Invalid authentication data: Unauthenticated"].assert_eq(&bad.brief());
    assert_eq!(
        local.external("GET", "/", &[("authorization", "Bearer abc")], Value::Null).await.status,
        StatusCode::OK
    );
    let unreadable = local.send("127.0.0.1", "POST", "/tokens/dataplane", &[], "{\"mesh\": 1}").await;
    assert_eq!((unreadable.status, unreadable.text.as_str()), (StatusCode::BAD_REQUEST, ""));
}

#[tokio::test]
async fn copies_are_read_only() {
    let zone = mk_server(Mode::FederatedZone, |_| {});
    let copy = address("copy-x", &[(labels::ORIGIN, "global")]);
    zone.store.commit_now(Txn::put(copy)).unwrap();
    let body = json!({"type": "MeshZoneAddress", "mesh": "default", "name": "copy-x",
        "labels": {"kuma.io/origin": "zone"}, "spec": {"address": "10.0.0.1", "port": 1}});
    let path = "/meshes/default/meshzoneaddresses/copy-x";
    zone.check("PUT", path, body, expect![[r#"400 Could not update a resource: Resource is not valid ["labels[\"kuma.io/origin\"]" "the resource is a copy of global's: change it on the global control plane"]"#]]).await;
    zone.check("DELETE", path, Value::Null, expect![[r#"400 Could not delete a resource: Resource is not valid ["[\"kuma.io/origin\"]" "the origin label must be set to 'zone'"]"#]]).await;
    zone.check("PUT", "/meshes/m", json!({"type": "Mesh", "name": "m"}), expect!["405 Method not allowed: resources of type Mesh belong to global: change them on the global control plane"]).await;
    zone.check("PUT", "/zones/west", json!({"type": "Zone", "name": "west"}), expect![[r#"400 Failed to create a resource: Resource is not valid ["name" "a zone control plane has its own zone only: east"]"#]]).await;

    let global = mk_server(Mode::Global, |_| {});
    let theirs = address("theirs", &[(labels::ORIGIN, "zone"), (labels::ZONE, "east")]);
    global.store.commit_now(Txn::put(theirs)).unwrap();
    global.check("DELETE", "/meshes/default/meshzoneaddresses/theirs", Value::Null, expect!["405 Method not allowed: resources of type MeshZoneAddress belong to zones: change them on the zone control plane"]).await;
}

#[tokio::test]
async fn a_zone_refuses_proxies_of_meshes_that_it_takes_no_part_in() {
    let zone = mk_server(Mode::FederatedZone, |options| options.rules.meshes = vec!["default".into()]);
    let body = |mesh: &str| {
        json!({"type": "Dataplane", "mesh": mesh, "name": "web-1",
            "networking": {"address": "192.0.2.1", "inbound": [{"port": 8080}]}})
    };
    zone.check("PUT", "/meshes/other/dataplanes/web-1", body("other"), expect![[r#"400 Failed to create a resource: Resource is not valid ["mesh" "this zone takes no part in mesh \"other\": multizone.zone.meshes does not name it"]"#]]).await;
    zone.check("PUT", "/meshes/default/dataplanes/web-1", body("default"), expect!["201 {}"]).await;
    let mesh = Resource::new(Meta::new("", "other"), Mesh::default());
    let stored = Resource::from_rest(Kind::Dataplane, &body("other")).unwrap();
    zone.store.commit_now(Txn::put(mesh)).unwrap();
    zone.store.commit_now(Txn::put(stored)).unwrap();
    zone.check("PUT", "/meshes/other/dataplanes/web-1", body("other"), expect!["200 {}"]).await;
}

/// What people registered is not lost with a mesh that was deleted against all warnings, and can be taken away.
#[tokio::test]
async fn a_dataplane_outlives_its_mesh() {
    let server = mk_server(Mode::FederatedZone, |_| ());
    let path = "/meshes/default/dataplanes/web-1";
    let dataplane = json!({
        "type": "Dataplane", "mesh": "default", "name": "web-1",
        "networking": {"address": "10.0.0.5", "inbound": [{"port": 80}]},
    });
    server.check("PUT", path, dataplane.clone(), expect!["201 {}"]).await;
    server.store.commit_now(Txn::delete(Key::new(Kind::Mesh, "", "default"))).unwrap();
    assert_eq!(server.admin("GET", path, Value::Null).await.status, 200);
    let refused = expect!["404 Failed to retrieve Mesh: Not found"];
    server.check("PUT", "/meshes/default/dataplanes/web-2", dataplane, refused).await;
    server.check("DELETE", path, Value::Null, expect!["200 {}"]).await;
    assert_eq!(server.admin("GET", path, Value::Null).await.status, 404);
}

#[tokio::test]
async fn zones() {
    let server = mk_server(Mode::Global, |_| {});
    server.store.commit_now(Txn::put(Resource::new(Meta::new("", "east"), Zone::default()))).unwrap();
    server
        .store
        .commit_now(Txn::put(address("theirs", &[(labels::ORIGIN, "zone"), (labels::ZONE, "east")])))
        .unwrap();
    let online = KdsSubscription { connect_time: Some(Timestamp::UNIX_EPOCH), ..KdsSubscription::default() };
    let insight = ZoneInsight { subscriptions: vec![online], ..ZoneInsight::default() };
    server.soft.commit_now(Txn::put(Resource::new(Meta::new("", "east"), insight))).unwrap();
    server.check("DELETE", "/zones/east", Value::Null, expect![[r#"400 Could not delete a resource: Resource is not valid ["zone" "unable to delete Zone, Zone CP is still connected, please shut it down first"]"#]]).await;
    let overview = server.admin("GET", "/zones/east/_overview", Value::Null).await.json();
    assert_eq!((&overview["type"], &overview["zone"]), (&json!("ZoneOverview"), &json!({})));
    assert_eq!(overview["zoneInsight"]["subscriptions"][0]["connectTime"], json!("1970-01-01T00:00:00Z"));
    let insight = server.admin("GET", "/global-insight", Value::Null).await.json();
    assert_eq!(insight["zones"]["controlPlanes"], json!({"online": 1, "total": 1}));

    let offline = Resource::new(Meta::new("", "east"), ZoneInsight::default());
    server.soft.commit_now(Txn::put(offline)).unwrap();
    server.check("DELETE", "/zones/east", Value::Null, expect!["200 {}"]).await;
    assert_eq!(server.store.snapshot().len(), 1, "what the zone brought went with it");
    assert!(server.soft.snapshot().is_empty());
}

#[tokio::test]
async fn a_mesh_brings_its_policies_and_key() {
    let (clock, _hand) = Clock::manual(Timestamp::UNIX_EPOCH);
    let store = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let deps = Deps {
        store: store.clone(),
        soft: Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH)),
        mode: Mode::Global,
        zone: String::new(),
        clock,
        random: Random::seeded(1),
        instance: Instance::default(),
        config: Value::Null,
        mesh_setup: MeshSetup { policies: true, signing_key: Some(Arc::new(|| Ok("pem".into()))) },
        backups: Backups::default(),
        inspector: Arc::new(NoInspector),
        admin: Arc::new(NoEnvoyAdmin),
        cluster: crate::NoCluster::shared(),
        federation: crate::NoFederation::shared(),
    };
    let soft = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let server = Server { router: Api::new(Options::default(), deps), store: store.clone(), soft };
    let mut feed = store.watch(Some(graticule_store::Revision(0)));
    server.check("PUT", "/meshes/m", json!({"type": "Mesh", "name": "m"}), expect!["201 {}"]).await;
    let Some(Event::Batch(batch)) = feed.next().await else { panic!("one batch") };
    let made: Vec<String> = batch.changes.iter().map(|c| format!("{}/{}", c.key.kind, c.key.name)).collect();
    expect![[r#"
        [
            "Mesh/m",
            "Secret/dataplane-token-signing-key-m-1",
            "MeshTimeout/mesh-timeout-all-m",
            "MeshTimeout/mesh-timeout-to-all-m",
            "MeshCircuitBreaker/mesh-circuit-breaker-all-m",
            "MeshRetry/mesh-retry-all-m",
        ]
    "#]]
    .assert_debug_eq(&made);
    server.check("DELETE", "/meshes/m", Value::Null, expect!["200 {}"]).await;
    assert!(store.snapshot().is_empty());
}

#[tokio::test]
async fn lists() {
    let server = mk_server(Mode::Global, |_| {});
    for name in ["b", "a", "c"] {
        let even = if name == "a" { "false" } else { "true" };
        let answer = server
            .admin(
                "PUT",
                &format!("/meshes/default/meshtimeouts/{name}"),
                timeout(name, json!({"even": even})),
            )
            .await;
        assert_eq!(answer.status, StatusCode::CREATED);
    }
    let list = async |query: &str| {
        let body =
            server.admin("GET", &format!("/meshes/default/meshtimeouts{query}"), Value::Null).await.json();
        let names: Vec<String> = body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect();
        (body["total"].as_u64().unwrap(), names.join(","), body["next"].as_str().map(str::to_owned))
    };
    assert_eq!(list("").await, (3, "a,b,c".into(), None));
    let next =
        "http://localhost:5681/meshes/default/meshtimeouts?filter%5Blabels.even%5D=true&offset=1&size=1";
    assert_eq!(list("?filter[labels.even]=true&size=1").await, (2, "b".into(), Some(next.into())));
    assert_eq!(list("?filter%5Blabels.even%5D=true&offset=1&size=1").await, (2, "c".into(), None));
    assert_eq!(list("?offset=50").await, (3, String::new(), None));
    server.check("GET", "/meshes/default/meshtimeouts?filter[name]=a", Value::Null, expect![[r#"400 Could not retrieve resources: Resource is not valid ["/meshes/{mesh}/meshtimeouts.filter[name]" "filters are only supported on labels"]"#]]).await;
    server
        .check(
            "GET",
            "/_kri/x",
            Value::Null,
            expect![[r#"400 Bad Request: bad request: invalid identifier string: "x""#]],
        )
        .await;
    server
        .check(
            "GET",
            "/_kri/kri_mt_default___z_",
            Value::Null,
            expect!["404 Could not retrieve a resource: Not found"],
        )
        .await;
    assert_eq!(
        server.admin("GET", "/_kri/kri_mt_default___a_", Value::Null).await.json()["name"],
        json!("a")
    );
    server
        .check(
            "GET",
            "/_kri/kri_mt_default_east__a_",
            Value::Null,
            expect!["404 Could not retrieve a resource: Not found"],
        )
        .await;
    let kubernetes =
        server.admin("GET", "/_kri/kri_mt_default___a_?format=k8s&namespace=ns1", Value::Null).await;
    assert_eq!(kubernetes.json()["metadata"]["namespace"], "ns1");
    assert_eq!(kubernetes.json()["metadata"]["labels"]["even"], "false");
    let mesh = server.admin("GET", "/meshes/default?format=kubernetes", Value::Null).await.json();
    assert_eq!((&mesh["kind"], &mesh["spec"]), (&json!("Mesh"), &json!({})));
    server.check("GET", "/meshes/default?format=x", Value::Null, expect![[r#"400 Could not retrieve a resource: Resource is not valid ["" "\"format\" must be one of [\"k8s\", \"kubernetes\", \"universal\"]"]"#]]).await;
}

#[test]
fn base_path() {
    let target = |base, path| find(base, path).ok().map(|route| route.target);
    for (base, path, want) in [
        ("/", "/who-am-i", Some(Target::WhoAmI)),
        ("/api", "/api", Some(Target::Index)),
        ("/api", "/api/", Some(Target::Index)),
        ("/api/", "/api/who-am-i", Some(Target::WhoAmI)),
        ("/api", "/apiwho-am-i", None),
        ("/api", "/who-am-i", None),
        ("/api", "/tokens/user", Some(Target::Tokens(route::Tokens::User))),
        ("/api", "/tokens/zone", None),
        ("/api", "/api/tokens/zone", Some(Target::Tokens(route::Tokens::Zone))),
        ("/api", "/api/tokens/user", None),
        ("/api", "/gui/x", Some(Target::Gui)),
        ("/api", "/api/gui/", None),
    ] {
        assert_eq!(target(base, path), want, "{base} {path}");
    }
}
