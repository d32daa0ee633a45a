//! Replays recorded conversations with the reference against a fresh control plane, when
//! `GRATICULE_CONFORMANCE_DIR` names the data: same statuses, content types and bodies, but for what
//! [`DIFFERENT`] lists.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use graticule_api::{Api, Deps, Instance, MeshSetup, NoInspector, Options};
use graticule_identity::tokens::SigningKey;
use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::labels::Site;
use graticule_model::{Kind, Meta, Mode, Resource, defaults};
use graticule_runtime::{Clock, Peer, Random};
use graticule_store::{MemoryStore, Store, Txn};
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

const VARIABLE: &str = "GRATICULE_CONFORMANCE_DIR";
const HOST: &str = "127.0.0.1:5681";

const FILES: [&str; 21] = [
    "01-index-global",
    "04-mesh-global",
    "05-policy-meshcircuitbreaker",
    "05-policy-meshhttproute",
    "05-policy-meshretry",
    "05-policy-meshtcproute",
    "05-policy-meshtimeout",
    "05-policy-meshtls",
    "05-policy-meshtrafficpermission",
    "06-kind-hostnamegenerator-global",
    "06-kind-hostnamegenerator-zone",
    "06-kind-meshservice-zone",
    "06-kind-meshzoneaddress-zone",
    "10-errors-global",
    "10-errors-zone",
    "12-secrets-global",
    "13-zones-and-read-only-global",
    "15-dataplanes-zone",
    "16-tokens-global",
    "16-tokens-zone",
    "18-localhost-is-admin-global",
];

/// Answers that differ, by a part of "FILE: METHOD path request-body", and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("POST /tokens/zone {validFor:24h,zone:}", "a token for no zone is of no use: refused"),
    ("POST /tokens/zone {}", "the same"),
    ("POST /tokens/zone null", "the same"),
    (
        "meshcircuitbreakers/bad {mesh:default,name:bad,spec:{rules:[{default:{}}]}",
        "names the field that is there, spec.rules, not spec.from",
    ),
    (
        "meshretries/bad {mesh:default,name:bad,spec:{to:[{default:{}",
        "names the field that is there, without conf",
    ),
    ("meshretries/bad {mesh:default,name:bad,spec:{to:[{default:{http:{retryOn:[nope]}", "the same"),
    ("meshretries/bad {mesh:default,name:bad,spec:{to:[{default:{grpc:{},http:{}}", "the same"),
    (
        "meshtrafficpermissions/bad {mesh:default,name:bad,spec:{rules:[{default:{allow:[{spiffeID:{type:Exact,value:not-",
        "names the field that is there, with default",
    ),
    ("template:{{ .Nope }}", "words of a template library"),
    ("template:{{},", "words of a template library"),
    ("meshservices/bad {mesh:default,name:bad,spec:{ports:[{port:0}]", "warnings do not exist yet"),
    ("gateway:{tags:{a:b},type:BUILTIN}", "says everything that is wrong"),
    ("reachableBackends:{refs:[{kind:X}]}", "names the field as it is written"),
    ("GET /workloads ", "no generator runs here"),
    ("GET /meshservices ", "no generator runs here"),
    ("GET /meshes/default/meshservices/web", "no generator runs here"),
    ("GET /meshes/default/meshexternalservices/e", "no generator runs here"),
    ("DELETE /zones/zone-1", "a zone control plane keeps its own zone"),
    ("/zones/other", "a zone control plane has its own zone only"),
    ("15-dataplanes-zone: GET /zones ", "follows from those"),
];

#[tokio::test]
async fn recordings() {
    let Ok(root) = std::env::var(VARIABLE) else {
        println!("skipped: {VARIABLE} is not set");
        return;
    };
    let dir = PathBuf::from(root).join("recordings/rest");
    let mut failures = Vec::new();
    for file in FILES {
        let (passed, skipped) = replay(&dir, file, &mut failures).await;
        println!("{file}: {passed} steps passed, {skipped} skipped");
    }
    assert!(failures.is_empty(), "{} steps differ:\n{}", failures.len(), failures.join("\n"));
}

async fn replay(dir: &Path, file: &str, failures: &mut Vec<String>) -> (usize, usize) {
    let text = fs::read_to_string(dir.join(file).with_extension("json")).unwrap();
    let recording: Value = serde_json::from_str(&text).unwrap();
    let router = if recording["role"] == "zone" { fresh_zone().await } else { fresh_global().await };
    let (mut passed, mut skipped) = (0, 0);
    for (number, step) in recording["steps"].as_array().into_iter().flatten().enumerate() {
        let request = &step["request"];
        let label = format!("{file}: {} {} {}", request["method"], request["path"], body_of(request))
            .replace('"', "");
        if is_yaml(request) {
            // The reference refuses it, so later steps are about a system that never saw it.
            skipped += 1;
            continue;
        }
        if is_out_of_reach(request, &step["response"])
            || DIFFERENT.iter().any(|(part, _)| label.contains(part))
        {
            // Later steps see what it did, so it is sent all the same.
            let _ = send(&router, request).await;
            skipped += 1;
            continue;
        }
        match differences(&router, request, &step["response"]).await {
            None => passed += 1,
            Some(why) => failures.push(format!("#{number} {label:.200}\n    {why}")),
        }
    }
    (passed, skipped)
}

/// YAML is taken and given here; the reference answers 415 and 406.
fn is_yaml(request: &Value) -> bool {
    let headers = request["headers"].as_object().into_iter().flatten();
    headers.filter_map(|(_, value)| value.as_str()).any(|value| value.contains("yaml"))
}

/// Steps about kinds, forms and pages that do not exist yet, and steps with values of the recorded system.
fn is_out_of_reach(request: &Value, response: &Value) -> bool {
    let path = request["path"].as_str().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let kind = match segments[..] {
        ["meshes", _, kind, ..] => kind,
        [kind, ..] => kind,
        [] => "",
    };
    let is_later =
        ["gui", "mesh-insights", "_resources", "policies", "global-insight", "global-insights", "config"];
    is_later.contains(&kind)
        || query.contains("format=k")
        || body_of(request).contains('<')
        || segments.get(4).is_some_and(|last| *last != "_overview")
        || path.starts_with("/_kri/") && query.contains("format")
        || matches!(segments[..], ["meshes", _, kind, ..] if Kind::from_path(kind.trim_end_matches("+insights")).is_none())
            && response["body_text"] != "404: Page Not Found"
            && kind != "service-insights"
}

fn body_of(request: &Value) -> String {
    match (&request["body_text"], &request["body"]) {
        (Value::String(text), _) => text.clone(),
        (_, Value::Null) => String::new(),
        (_, body) => body.to_string(),
    }
}

async fn send(router: &Router, step: &Value) -> (u16, String, String) {
    let path = step["path"].as_str().unwrap_or_default().replace('[', "%5B").replace(']', "%5D");
    let peer = Peer { address: "127.0.0.1:4000".parse().unwrap(), local: HOST.parse().unwrap(), tls: false };
    let mut request =
        Request::builder().method(step["method"].as_str().unwrap_or_default()).uri(path).extension(peer);
    let headers = step["headers"].as_object().cloned().unwrap_or_default();
    let given = |name: &str| headers.keys().any(|key| key.eq_ignore_ascii_case(name));
    for (name, value) in
        [("Host", HOST), ("Accept", "application/json"), ("Content-Type", "application/json")]
    {
        if !given(name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in &headers {
        if let Some(value) = value.as_str() {
            request = request.header(name, value.replace("<port>", "5681"));
        }
    }
    let response = router.clone().oneshot(request.body(Body::from(body_of(step))).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let media_type =
        response.headers().get(header::CONTENT_TYPE).map_or("", |v| v.to_str().unwrap()).to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, media_type, String::from_utf8_lossy(&bytes).into_owned())
}

async fn differences(router: &Router, request: &Value, wanted: &Value) -> Option<String> {
    let (status, media_type, text) = send(router, request).await;
    let want_status = match wanted["status"].as_u64() {
        // The reference crashed.
        Some(0) => return (status != 400).then(|| format!("status {status}, want 400")),
        Some(want) => want,
        None => return Some("the recording has no status".into()),
    };
    if u64::from(status) != want_status {
        return Some(format!("status {status}, want {want_status}: {text}"));
    }
    if wanted["content_type"].as_str().is_some_and(|want| want != media_type) && !text.is_empty() {
        return Some(format!("content type {media_type}, want {}", wanted["content_type"]));
    }
    if let want @ (Value::Object(_) | Value::Array(_)) = &wanted["body"] {
        let got: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        // Wording of refused writes is free (rest-api.md §5.4), as are texts of libraries.
        let is_library_text = want["detail"].as_str().is_some_and(|detail| detail.contains(" object: \""));
        if status == 405 || same(&got, want) || is_library_text && got["title"] == want["title"] {
            return None;
        }
        return Some(format!("got  {got}\n    want {want}"));
    }
    match wanted["body_text"].as_str() {
        Some(want) if !matches(&text, want) => Some(format!("text {text:?}, want {want:?}")),
        _ => None,
    }
}

fn same(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::String(got), Value::String(want)) => matches(got, want),
        (Value::Array(got), Value::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| same(got, want))
        }
        (Value::Object(got), Value::Object(want)) => {
            got.len() == want.len()
                && want.iter().all(|(key, want)| got.get(key).is_some_and(|got| same(got, want)))
        }
        (Value::Number(got), Value::Number(want)) => got.as_f64() == want.as_f64(),
        _ => got == want,
    }
}

/// `<kind-N>` stands for any value.
fn matches(got: &str, want: &str) -> bool {
    want.starts_with('<') && want.ends_with('>') || got == want.replace("<address>", HOST)
}

async fn fresh_global() -> Router {
    let keys = ["admin-user-token", "inter-cp-ca", "user-token-signing-key-1", "zone-token-signing-key-1"];
    fresh(Site { mode: Mode::Global, zone: "" }, &keys).await
}

async fn fresh_zone() -> Router {
    let keys = [
        "admin-user-token",
        "envoy-admin-ca",
        "inter-cp-ca",
        "user-token-signing-key-1",
        "zone-token-signing-key-1",
    ];
    fresh(Site { mode: Mode::StandaloneZone, zone: "zone-1" }, &keys).await
}

/// The default mesh with its policies and keys, as the reference has them soon after its start.
async fn fresh(site: Site<'_>, keys: &[&str]) -> Router {
    let clock = Clock::system();
    let now = clock.clone();
    let store = Arc::new(MemoryStore::new(move || now.now()));
    let pem = SigningKey::generate().unwrap().to_pem();
    let make = pem.clone();
    let mesh_setup = MeshSetup { policies: true, signing_key: Some(Arc::new(move || Ok(make.clone()))) };
    let mesh = Resource::new(Meta::new("", "default"), Mesh::default());
    store.commit_now(mesh_setup.txn(site, &store.snapshot(), mesh, Some(pem.clone()))).unwrap();
    let secret = |name: &&str| {
        Resource::new(Meta::new("", *name), GlobalSecret { data: SecretBytes(pem.clone().into_bytes()) })
    };
    for resource in keys.iter().map(secret).chain(defaults::hostname_generators(site)) {
        store.commit(Txn::put(resource)).await.unwrap();
    }
    let now = clock.clone();
    let instance = Instance { gui: "/gui".into(), product: "Kuma".into(), ..Instance::default() };
    let deps = Deps {
        store,
        soft: Arc::new(MemoryStore::new(move || now.now())),
        mode: site.mode,
        zone: site.zone.into(),
        clock,
        random: Random::seeded(1),
        instance,
        config: Value::Null,
        mesh_setup,
        inspector: Arc::new(NoInspector),
    };
    Api::new(Options::default(), deps)
}
