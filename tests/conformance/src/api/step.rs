//! One request to the server under test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use axum::Router;
use axum::body::Body;
use graticule_runtime::Peer;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::case::{self, Client, Step};
use super::compare::{difference, without_times};
use super::endpoint;

/// Where the server under test believes to listen.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5681);
const ADDRESS_PLACEHOLDER: &str = "{{address}}";

/// What came of a step, or of a case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// The endpoint needs the policy engine and says so.
    Deferred {
        endpoint: String,
    },
}

/// Sends a step's request and compares the answer.
pub(crate) async fn run(router: &Router, dir: &Path, step: &Step) -> Result<Outcome> {
    let (status, text) = send(router, dir, step).await?;
    if status == StatusCode::NOT_IMPLEMENTED
        && let Some(endpoint) = endpoint::needing_policies(&step.path)
    {
        return Ok(Outcome::Deferred { endpoint });
    }
    let what = format!("{} {}", step.method, step.path);
    ensure!(status == step.status, "{what}: status is {status}, must be {}: {text}", step.status);
    check_body(dir, step, &text).context(what)?;
    Ok(Outcome::Passed)
}

async fn send(router: &Router, dir: &Path, step: &Step) -> Result<(StatusCode, String)> {
    let body = match &step.request {
        Some(file) => fs::read(dir.join(file)).with_context(|| file.clone())?,
        None => Vec::new(),
    };
    let client = match step.client {
        Client::Loopback => "127.0.0.1:4000",
        Client::External => "192.0.2.10:4000",
    };
    let peer = Peer { address: client.parse()?, local: ADDRESS, tls: false };
    // Clients percent-encode what a request target cannot hold.
    let target = step.path.replace('[', "%5B").replace(']', "%5D");
    let address = ADDRESS.to_string();
    let given = |name: &str| step.headers.keys().any(|key| key.eq_ignore_ascii_case(name));
    let mut request = Request::builder().method(step.method.as_str()).uri(target).extension(peer);
    if !given("host") {
        request = request.header("host", &address);
    }
    if step.method != "GET" && !given("content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in &step.headers {
        request = request.header(name, value.replace(ADDRESS_PLACEHOLDER, &address));
    }
    let response = router.clone().oneshot(request.body(Body::from(body))?).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&bytes).replace(&address, ADDRESS_PLACEHOLDER)))
}

fn check_body(dir: &Path, step: &Step, text: &str) -> Result<()> {
    if step.response.is_none() && step.response_fields.is_empty() && step.absent_fields.is_empty() {
        return Ok(());
    }
    let ours: Value = serde_json::from_str(&without_times(text))
        .with_context(|| format!("the answer is no JSON: {text}"))?;
    if let Some(file) = &step.response {
        let wanted = case::read(&dir.join(file))?;
        let wanted: Value = serde_json::from_str(&without_times(&wanted)).with_context(|| file.clone())?;
        if let Some(difference) = difference(&ours, &wanted) {
            bail!("{difference}\n    ours   {ours}\n    wanted {wanted}");
        }
    }
    for (pointer, wanted) in &step.response_fields {
        let found = ours.pointer(pointer).with_context(|| format!("{pointer}: is missing in {ours}"))?;
        let wanted: Value = serde_json::from_str(&without_times(&wanted.to_string()))?;
        if let Some(difference) = difference(found, &wanted) {
            bail!("{pointer}{difference}");
        }
    }
    if let Some(pointer) = step.absent_fields.iter().find(|pointer| ours.pointer(pointer).is_some()) {
        bail!("{pointer}: must be absent in {ours}");
    }
    Ok(())
}
