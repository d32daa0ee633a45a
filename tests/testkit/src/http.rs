//! A small HTTP client for REST calls and for requests through the mesh.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, lower-case names.
    pub headers: Vec<(String, String)>,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A client that keeps connections open; make another one for new connections.
#[derive(Debug, Clone)]
pub struct Client(reqwest::Client);

impl Client {
    /// A client without proxies, redirects or TLS roots.
    pub fn new() -> Result<Client> {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()?;
        Ok(Client(client))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let body = response.text().await?;
        Ok(Answer { status, headers, body })
    }

    /// GET.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        self.send(self.0.get(url)).await
    }

    /// PUT of a JSON document.
    pub async fn put(&self, url: &str, body: &Value) -> Result<Answer> {
        self.send(self.0.put(url).json(body)).await
    }

    /// POST of a JSON document.
    pub async fn post(&self, url: &str, body: &Value) -> Result<Answer> {
        self.send(self.0.post(url).json(body)).await
    }

    /// PUT of any bytes; without a content type when that is empty.
    pub async fn put_bytes(&self, url: &str, content_type: &str, body: Vec<u8>) -> Result<Answer> {
        let request = self.0.put(url).body(body);
        let request =
            if content_type.is_empty() { request } else { request.header("content-type", content_type) };
        self.send(request).await
    }

    /// PUT of a JSON document with more headers.
    pub async fn put_with(&self, url: &str, headers: &[(&str, &str)], body: &Value) -> Result<Answer> {
        let request = self.0.put(url).json(body);
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// DELETE.
    pub async fn delete(&self, url: &str) -> Result<Answer> {
        self.send(self.0.delete(url)).await
    }
}

/// Fails with status and body unless the status is one of `wanted`.
pub fn expect(answer: Answer, wanted: &[u16], what: &str) -> Result<Answer> {
    if wanted.contains(&answer.status) {
        return Ok(answer);
    }
    bail!("{what}: status {} instead of {wanted:?}: {}", answer.status, answer.body.trim())
}
