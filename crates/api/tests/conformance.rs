//! Runs the cases of the neutral conformance data that concern resources and label rules, when
//! `GRATICULE_CONFORMANCE_DIR` names the data. Cases that need kinds or endpoints which do not exist yet are
//! skipped, each with its reason.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use graticule_api::{Api, Deps, Instance, MeshSetup, Options};
use graticule_model::{Kind, Mode, Resource, Timestamp, yaml};
use graticule_runtime::{Clock, Peer, Random};
use graticule_store::{MemoryStore, Txn};
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

const VARIABLE: &str = "GRATICULE_CONFORMANCE_DIR";
const SUITES: [&str; 5] =
    ["api/crud", "api/origin-label", "api/base-endpoints", "api/dataplane-overview", "label-validation"];
const ADDRESS: &str = "127.0.0.1:5681";

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

#[tokio::test]
async fn conformance() {
    let Ok(root) = std::env::var(VARIABLE) else {
        println!("skipped: {VARIABLE} is not set");
        return;
    };
    let root = PathBuf::from(root);
    let mut failures = Vec::new();
    for suite in SUITES {
        let (mut passed, mut skipped) = (0, BTreeMap::<String, usize>::new());
        let failed_before = failures.len();
        for case in cases(&root.join(suite)) {
            match run(suite, &case).await {
                Outcome::Passed => passed += 1,
                Outcome::Failed(why) => failures.push(format!("{}: {why}", case.display())),
                Outcome::Skipped(why) => *skipped.entry(why).or_insert(0) += 1,
            }
        }
        let failed = failures.len() - failed_before;
        let skips: usize = skipped.values().sum();
        println!("{suite}: {passed} passed, {failed} failed, {skips} skipped");
        for (why, count) in skipped {
            println!("  skipped {count}: {why}");
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// Directories below `suite` with a `case.yaml`, sorted.
fn cases(suite: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![suite.to_owned()];
    while let Some(dir) = queue.pop() {
        if dir.join("case.yaml").is_file() {
            found.push(dir.clone());
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
        queue.extend(entries.filter(|path| path.is_dir()));
    }
    found.sort();
    found
}

async fn run(suite: &str, dir: &Path) -> Outcome {
    let case = match fs::read_to_string(dir.join("case.yaml"))
        .map_err(|e| e.to_string())
        .and_then(|text| yaml::parse_one(&text).map_err(|error| error.to_string()))
    {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(error),
    };
    let steps: Vec<&Value> = case["steps"].as_array().into_iter().flatten().collect();
    for step in &steps {
        if let Some(reason) = unsupported(step["path"].as_str().unwrap_or_default()) {
            return Outcome::Skipped(reason);
        }
    }
    let mut stored = Vec::new();
    if let Some(file) = case["resources"].as_str() {
        let text = match fs::read_to_string(dir.join(file)) {
            Ok(text) => text,
            Err(error) => return Outcome::Failed(format!("{file}: {error}")),
        };
        for value in yaml::parse_all(&text).unwrap() {
            let kind = value["type"].as_str().unwrap_or_default();
            let Ok(kind) = Kind::from_name(kind) else {
                return Outcome::Skipped(format!("kind {kind} does not exist yet"));
            };
            match Resource::from_rest(kind, &value) {
                Ok(resource) => stored.push(resource),
                Err(error) => return Outcome::Failed(format!("{file}: {error}")),
            }
        }
    }
    let router = server(suite, dir, &case, stored);
    for (number, step) in steps.into_iter().enumerate() {
        if let Err(why) = check(&router, dir, step).await {
            return Outcome::Failed(format!("step {number}: {why}"));
        }
    }
    Outcome::Passed
}

/// Why a path cannot be tried yet.
fn unsupported(path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let segment = match segments[..] {
        ["meshes", _, kind, ..] => kind,
        [first, ..] => first,
        [] => return None,
    };
    let system = ["_resources", "who-am-i", "policies", "_kri", ""];
    let base = segment.trim_end_matches("+insights");
    if path == "/_resources" {
        return Some("lists kinds that do not exist yet".into());
    }
    (!system.contains(&segment) && Kind::from_path(base).is_none())
        .then(|| format!("path segment {segment} is no kind yet"))
}

fn server(suite: &str, dir: &Path, case: &Value, stored: Vec<Resource>) -> Router {
    let is_label_suite = suite == "label-validation";
    let is_zone =
        if is_label_suite { dir.iter().any(|part| part == "zone-uni") } else { case["mode"] == "zone" };
    let is_federated = is_label_suite || case["server"]["federated"] == true;
    let mode = match (is_zone, is_federated) {
        (false, _) => Mode::Global,
        (true, true) => Mode::FederatedZone,
        (true, false) => Mode::StandaloneZone,
    };
    let default_zone = if is_label_suite { "kuma-4" } else { "default" };
    let zone = case["server"]["zoneName"].as_str().unwrap_or(default_zone);
    let mut options = Options::default();
    options.rules.unsafe_delete = true;
    options.rules.skip_origin_validation = case["server"]["disableOriginLabelValidation"] == true;
    let store = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let soft = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let mesh = serde_json::json!({"type": "Mesh", "name": "multizone-label-validation"});
    let extra = is_label_suite.then(|| Resource::from_rest(Kind::Mesh, &mesh).unwrap());
    for resource in stored.into_iter().chain(extra) {
        let is_soft = resource.kind().descriptor().capabilities.soft;
        let store = if is_soft { &soft } else { &store };
        store.commit_now(Txn::put(resource)).unwrap();
    }
    let deps = Deps {
        store,
        soft,
        mode,
        zone: if is_zone { zone.to_owned() } else { String::new() },
        clock: Clock::system(),
        random: Random::seeded(1),
        instance: Instance::default(),
        config: Value::Null,
        mesh_setup: MeshSetup::default(),
    };
    Api::new(options, deps)
}

async fn check(router: &Router, dir: &Path, step: &Value) -> Result<(), String> {
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    // Clients percent-encode what a request target cannot hold.
    let path = text("path").replace('[', "%5B").replace(']', "%5D");
    let body = match step["request"].as_str() {
        Some(file) => fs::read(dir.join(file)).map_err(|error| format!("{file}: {error}"))?,
        None => Vec::new(),
    };
    let address = if text("client") == "external" { "192.0.2.10:4000" } else { "127.0.0.1:4000" };
    let peer = Peer { address: address.parse().unwrap(), local: ADDRESS.parse().unwrap(), tls: false };
    let mut request = Request::builder().method(text("method")).uri(&path).extension(peer);
    request = request.header("host", ADDRESS).header("content-type", "application/json");
    for (name, value) in step["headers"].as_object().into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap_or_default().replace("{{address}}", ADDRESS));
    }
    let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
    let response = router.clone().oneshot(request).await.map_err(|error| error.to_string())?;
    let status = u64::from(response.status().as_u16());
    let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let actual_text = String::from_utf8_lossy(&bytes).replace(ADDRESS, "{{address}}");
    if Some(status) != step["status"].as_u64() {
        return Err(format!(
            "{} {path}: status {status}, want {}: {actual_text}",
            text("method"),
            step["status"]
        ));
    }
    let actual = without_times(&serde_json::from_str(&actual_text).unwrap_or(Value::Null));
    if let Some(file) = step["response"].as_str() {
        let wanted = fs::read_to_string(dir.join(file)).map_err(|error| format!("{file}: {error}"))?;
        let wanted = without_times(&serde_json::from_str(&wanted).map_err(|error| error.to_string())?);
        if actual != wanted {
            return Err(format!(
                "{} {path}: body differs\n    got  {actual}\n    want {wanted}",
                text("method")
            ));
        }
    }
    for (pointer, wanted) in step["responseFields"].as_object().into_iter().flatten() {
        if actual.pointer(pointer) != Some(wanted) {
            return Err(format!("{path}: {pointer} is {:?}, want {wanted}", actual.pointer(pointer)));
        }
    }
    for pointer in step["absentFields"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if actual.pointer(pointer).is_some() {
            return Err(format!("{path}: {pointer} must be absent"));
        }
    }
    Ok(())
}

/// Times are made equal, numbers are compared by value.
fn without_times(value: &Value) -> Value {
    match value {
        Value::String(text) if is_time(text) => "0001-01-01T00:00:00Z".into(),
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        Value::Array(items) => items.iter().map(without_times).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(key, value)| (key.clone(), without_times(value))).collect())
        }
        other => other.clone(),
    }
}

fn is_time(text: &str) -> bool {
    let shape = b"0000-00-00T00:00:0";
    let bytes = text.as_bytes();
    bytes.len() > shape.len()
        && bytes.iter().zip(shape).all(|(b, s)| if *s == b'0' { b.is_ascii_digit() } else { b == s })
}
