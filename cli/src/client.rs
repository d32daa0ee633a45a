//! Calls of the REST API; every error says what to do next.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use graticule_model::Kind;
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// Longest time of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A control plane's REST API.
pub(crate) struct Client {
    http: reqwest::Client,
    address: String,
    token: Option<String>,
}

/// Path of a resource.
pub(crate) fn resource_path(kind: Kind, mesh: &str, name: &str) -> String {
    format!("{}/{name}", list_path(kind, mesh))
}

/// Path of the list of a kind.
pub(crate) fn list_path(kind: Kind, mesh: &str) -> String {
    let descriptor = kind.descriptor();
    if descriptor.is_global_scoped() {
        format!("/{}", descriptor.path)
    } else {
        format!("/meshes/{mesh}/{}", descriptor.path)
    }
}

impl Client {
    /// A client of the API at `address`.
    pub(crate) fn new(address: &str, ca_cert_file: Option<&Path>, token: Option<String>) -> Result<Client> {
        let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .user_agent(concat!("grat/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = ca_cert_file {
            let pem = std::fs::read(file).with_context(|| format!("--ca-cert-file {}", file.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("--ca-cert-file {}: no PEM certificates", file.display()))?;
            builder = builder.tls_certs_only(certificates);
        }
        let address = address.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&address);
        if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            bail!("--address {address:?} is not a URL such as http://localhost:5681");
        }
        Ok(Client { http: builder.build()?, address, token })
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.address) };
        let mut request = self.http.request(method, &url).header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| {
            format!(
                "no control plane answers at {}: start it, or name another one with --address",
                self.address
            )
        })?;
        let status = response.status();
        let text = response.text().await.context("the answer broke off; try again")?;
        if status.is_success() {
            return Ok(text);
        }
        Err(explain(status, &text))
    }

    /// GET of a JSON document.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let text = self.call(Method::GET, path, None).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("{path} answered no JSON: is --address a control plane?"))
    }

    /// Every item of a list: follows `next` to the end.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let page = self.get(&path).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            // The link carries the host that the server knows; only its path and query matter here.
            next = page["next"].as_str().map(|url| {
                match url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])) {
                    Some(path) => path.to_owned(),
                    None => url.to_owned(),
                }
            });
        }
        Ok(items)
    }

    /// PUT of a JSON document.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let text = self.call(Method::PUT, path, Some(body)).await?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// POST of a JSON document, answered by text.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<String> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(|_| ())
    }

    /// Whether a resource exists.
    pub(crate) async fn exists(&self, path: &str) -> Result<bool> {
        match self.get(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.downcast_ref::<NotFound>().is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Answer 404.
#[derive(Debug)]
pub(crate) struct NotFound(String);

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFound {}

fn explain(status: StatusCode, text: &str) -> anyhow::Error {
    let Ok(document) = serde_json::from_str::<Value>(text) else {
        let text = text.trim();
        return match text {
            "" => anyhow!("{status} without a reason: is --address the REST API of a control plane?"),
            _ => anyhow!("the control plane answered {status}: {text}"),
        };
    };
    let field = |name: &str| document[name].as_str().unwrap_or_default().trim().to_owned();
    let mut message = format!("{} ({})", field("title"), field("detail"));
    for parameter in document["invalid_parameters"].as_array().into_iter().flatten() {
        let part = |name: &str| parameter[name].as_str().unwrap_or_default();
        message.push_str(&format!("\n* {}: {}", part("field"), part("reason")));
    }
    match status {
        StatusCode::NOT_FOUND => anyhow::Error::new(NotFound(message)),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            anyhow!("{message}\npass a user token with --token, or call from the control plane's own host")
        }
        _ => anyhow!(message),
    }
}

/// Reads JSON or YAML documents.
pub(crate) fn documents(text: &str, source: &str) -> Result<Vec<Value>> {
    let documents = graticule_model::yaml::parse_all(text).with_context(|| source.to_owned())?;
    if documents.is_empty() {
        bail!("{source} holds no resource");
    }
    Ok(documents)
}
