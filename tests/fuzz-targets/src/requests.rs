//! Requests to the REST API: paths, query strings, headers, bodies.

use std::sync::Arc;

use axum::body::Body;
use graticule_api::{Api, Backups, Deps, Instance, MeshSetup, NoEnvoyAdmin, NoInspector, Options};
use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Kind, Meta, Mode, Resource, Timestamp, yaml};
use graticule_runtime::{Clock, Peer, Random};
use graticule_store::{MemoryStore, Txn};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// What the store holds, so that filters have something to filter.
const STATE: &str = "
type: Dataplane
mesh: default
name: web-1
labels: {app: web}
networking: {address: 10.0.0.5, inbound: [{port: 8080, name: main}]}
---
type: MeshTimeout
mesh: default
name: slow
labels: {team: payments}
spec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 1h}}]}
";

/// A request as text: a line with method and path, lines with headers, an empty line, the body.
pub(crate) fn rest_request(data: &[u8]) {
    let split = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = split.map_or((data, &[][..]), |at| (&data[..at], &data[at + 2..]));
    let Ok(head) = std::str::from_utf8(head) else { return };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    for mode in [Mode::Global, Mode::FederatedZone] {
        if let Some(request) = request(head, body) {
            runtime.block_on(answer(mode, request));
        }
    }
}

fn request(head: &str, body: &[u8]) -> Option<Request<Body>> {
    let mut lines = head.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(path).extension(peer());
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(Body::from(body.to_vec())).ok()
}

/// Asks a fresh control plane, as its administrator; no request is the control plane's fault, unless it says that
/// it cannot answer yet.
async fn answer(mode: Mode, request: Request<Body>) {
    let (clock, _hand) = Clock::manual(Timestamp::UNIX_EPOCH);
    let store = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    store.commit_now(Txn::put(Resource::new(Meta::new("", "default"), Mesh::default()))).expect("stored");
    for document in yaml::parse_all(STATE).expect("documents") {
        let kind = document["type"].as_str().and_then(|name| Kind::from_name(name).ok()).expect("a kind");
        let resource = Resource::from_rest(kind, &document).expect("a resource");
        store.commit_now(Txn::put(resource)).expect("stored");
    }
    let deps = Deps {
        store,
        soft: Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH)),
        mode,
        zone: if mode.is_global() { String::new() } else { "east".into() },
        clock,
        random: Random::seeded(1),
        instance: Instance::default(),
        config: serde_json::json!({}),
        mesh_setup: MeshSetup::default(),
        backups: Backups::default(),
        cluster: graticule_api::NoCluster::shared(),
        federation: graticule_api::NoFederation::shared(),
        inspector: Arc::new(NoInspector),
        admin: Arc::new(NoEnvoyAdmin),
    };
    let text = format!("{request:?}");
    let router = Api::new(Options::default(), deps);
    let Ok(response) = router.oneshot(request).await;
    let status = response.status();
    assert!(!status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED, "{status} for {text}");
    let is_json = response.headers().get("content-type").is_some_and(|value| value == "application/json");
    let body = response.into_body().collect().await.expect("bodies are whole").to_bytes();
    assert!(!is_json || serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "no JSON for {text}");
}

fn peer() -> Peer {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 40000));
    Peer { address, local: std::net::SocketAddr::from(([127, 0, 0, 1], 5681)), tls: false }
}
