//! Calls of the REST API (rest-api.md §2–§4); every error says what to do next.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use graticule_model::Kind;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio::time::Instant;

use crate::tls;

/// Items of a page when everything is read.
const PAGE_SIZE: usize = 1000;
/// Pages of one list; more is a server whose links go round in circles.
const PAGES_MAX: usize = 10_000;

/// Longest time of a call that moves a file.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Which control plane, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// URL of the REST API.
    pub(crate) address: String,
    /// User token.
    pub(crate) token: Option<String>,
    /// PEM of the authority of an https address.
    pub(crate) ca_cert_file: Option<PathBuf>,
    /// PEM chain that the client shows.
    pub(crate) client_cert_file: Option<PathBuf>,
    /// Its key.
    pub(crate) client_key_file: Option<PathBuf>,
    /// No check of the server's certificate.
    pub(crate) skip_verify: bool,
    /// More headers of every request.
    pub(crate) headers: Vec<(String, String)>,
}

/// A control plane's REST API.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    address: String,
    token: Option<String>,
    /// Time that a call may take.
    timeout: Option<Duration>,
}

/// One segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Path of a resource.
pub(crate) fn resource_path(kind: Kind, mesh: &str, name: &str) -> String {
    format!("{}/{}", list_path(kind, Some(mesh)), segment(name))
}

/// Path of the list of a kind; `mesh` absent: of all meshes.
pub(crate) fn list_path(kind: Kind, mesh: Option<&str>) -> String {
    let descriptor = kind.descriptor();
    match mesh {
        Some(mesh) if !descriptor.is_global_scoped() => {
            format!("/meshes/{}/{}", segment(mesh), descriptor.path)
        }
        _ => format!("/{}", descriptor.path),
    }
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    pub(crate) total: u64,
    /// Offset of the next page.
    pub(crate) next_offset: Option<String>,
}

impl Client {
    /// A client; `timeout` absent: calls may take any time.
    pub(crate) fn new(target: &Target, timeout: Option<Duration>) -> Result<Client> {
        let address = target.address.trim_end_matches('/').to_owned();
        let base = Url::parse(&address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(base) = base else {
            bail!("--address {address:?} is not a URL such as http://localhost:5681");
        };
        let mut builder = reqwest::Client::builder()
            .default_headers(headers(&target.headers)?)
            .user_agent(concat!("grat/", env!("CARGO_PKG_VERSION")));
        if let Some(timeout) = timeout {
            builder = builder.timeout(timeout);
        }
        builder = builder.tls_backend_preconfigured(tls::config(target)?);
        Ok(Client { http: builder.build()?, base, address, token: target.token.clone(), timeout })
    }

    /// The URL that is called.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    async fn call(&self, method: Method, url: &str, body: Option<&Value>) -> Result<String> {
        let start = Instant::now();
        let is_read = method == Method::GET;
        let mut request = self.http.request(method, url).header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let text = response.text().await.context("the answer broke off; try again")?;
        // Timers tick once in a millisecond, which may be after the answer. A write that was done is never late.
        if is_read && self.timeout.is_some_and(|timeout| start.elapsed() > timeout) {
            return Err(self.late("operation timed out"));
        }
        if status.is_success() {
            return Ok(text);
        }
        Err(ApiError::new(status, &text, self.token.is_some()).into())
    }

    /// GET of a file; what is read from it takes any time.
    pub(crate) async fn download(&self, path: &str) -> Result<Response> {
        self.transfer(self.http.get(self.url(path))).await
    }

    /// POST of a file, answered by a JSON document.
    pub(crate) async fn upload(
        &self,
        path: &str,
        query: &[(String, String)],
        file: tokio::fs::File,
    ) -> Result<Value> {
        let len = file.metadata().await?.len();
        let request = self.http.post(self.url(&with_query(path, query))).body(file);
        let request =
            request.header("content-type", "application/octet-stream").header("content-length", len);
        let response = self.transfer(request).await?;
        read_json(path, &response.text().await.context("the answer broke off; try again")?)
    }

    async fn transfer(&self, mut request: RequestBuilder) -> Result<Response> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response =
            request.timeout(TRANSFER_TIMEOUT).send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.context("the answer broke off; try again")?;
        Err(ApiError::new(status, &text, self.token.is_some()).into())
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let causes: Vec<String> =
            anyhow::Error::new(error.without_url()).chain().map(ToString::to_string).collect();
        let cause = causes.last().cloned().unwrap_or_default();
        let all = causes.join(": ");
        let address = &self.address;
        if all.contains("certificate") || all.contains("UnknownIssuer") {
            return anyhow!(
                "the certificate of {address} is not trusted: {cause}\ngive its authority with --ca-cert-file, or leave the check out with --skip-verify"
            );
        }
        if all.contains("timed out") {
            return self.late(&cause);
        }
        anyhow!(
            "no control plane answers at {address}: {cause}\nstart it, or name another one with --address, GRATICULE_ADDRESS or `grat config control-planes add`"
        )
    }

    fn late(&self, cause: &str) -> anyhow::Error {
        let address = &self.address;
        anyhow!(
            "{address} did not answer in time: {cause}\nis the address right? A longer time is set with --api-timeout"
        )
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// GET as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        self.call(Method::GET, &self.url(path), None).await
    }

    /// GET of a JSON document.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        read_json(path, &self.text(path).await?)
    }

    /// GET of a JSON document that may not exist.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Ok(document) => Ok(Some(document)),
            Err(error) if is_status(&error, StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page of a list.
    pub(crate) async fn page(&self, path: &str, query: &[(String, String)]) -> Result<Page> {
        self.page_at(&self.url(&with_query(path, query))).await
    }

    async fn page_at(&self, url: &str) -> Result<Page> {
        let document = read_json(url, &self.call(Method::GET, url, None).await?)?;
        let next = document["next"].as_str().and_then(|next| self.base.join(next).ok());
        let offset = |url: Url| url.query_pairs().find(|(key, _)| key == "offset").map(|(_, v)| v.into());
        Ok(Page {
            total: document["total"].as_u64().unwrap_or_default(),
            next_offset: next.and_then(offset),
            items: match document {
                Value::Object(mut members) => match members.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                },
                _ => Vec::new(),
            },
        })
    }

    /// Every item of a list: follows `next` to the end.
    pub(crate) async fn list(&self, path: &str, query: &[(String, String)]) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut offset: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.to_vec();
            query.push(("size".into(), PAGE_SIZE.to_string()));
            query.extend(offset.iter().map(|offset| ("offset".to_owned(), offset.clone())));
            let page = self.page(path, &query).await?;
            items.extend(page.items);
            match page.next_offset {
                None => return Ok(items),
                next if next == offset => break,
                next => offset = next,
            }
        }
        bail!("{path}: the links to the next page do not end; is {} a control plane?", self.address)
    }

    /// PUT of a JSON document.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let text = self.call(Method::PUT, &self.url(path), Some(body)).await?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// POST of a JSON document, answered by text.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<String> {
        self.call(Method::POST, &self.url(path), Some(body)).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, &self.url(path), None).await.map(|_| ())
    }

    /// `zone` or `global`, when the control plane tells.
    pub(crate) async fn mode(&self) -> Option<String> {
        self.get("/config").await.ok()?["mode"].as_str().map(str::to_owned)
    }
}

fn read_json(what: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .with_context(|| format!("{what} answered no JSON: is --address a control plane?"))
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(name), Ok(value)) = header else { bail!("--headers {name}=…: no HTTP header") };
        headers.insert(name, value);
    }
    Ok(headers)
}

/// `path?k=v&…`.
pub(crate) fn with_query(path: &str, query: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        query.iter().map(|(key, value)| format!("{}={}", segment(key), segment(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Whether an error is this answer of the API.
pub(crate) fn is_status(error: &anyhow::Error, status: StatusCode) -> bool {
    error.downcast_ref::<ApiError>().is_some_and(|error| error.status == status)
}

/// An answer that is no success (rest-api.md §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// Its status.
    pub(crate) status: StatusCode,
    message: String,
    fields: Vec<(String, String)>,
    hint: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, text: &str, has_token: bool) -> ApiError {
        let hint = match (status, has_token) {
            (StatusCode::UNAUTHORIZED, _) => {
                "the token is not accepted here: is it of this control plane, expired or revoked? A new one is made with `grat generate user-token`"
            }
            (StatusCode::FORBIDDEN, false) => {
                "give a user token with --token, GRATICULE_TOKEN or `grat config control-planes add --auth-type tokens`; an administrator makes one with `grat generate user-token`. On the control plane's own host none is needed"
            }
            (StatusCode::FORBIDDEN, true) => {
                "the user of this token may not do it: `grat who-am-i` shows who you are; ask for a group that may"
            }
            (StatusCode::NOT_IMPLEMENTED, _) => "this version of the control plane cannot do it yet",
            _ => "",
        };
        let Ok(document @ Value::Object(_)) = serde_json::from_str::<Value>(text) else {
            let message = match text.trim() {
                text if status == StatusCode::NOT_FOUND && text.contains("Page Not Found") => {
                    "the control plane answered 404: Page Not Found\nit does not know this request: is it another version, or is a part of its path missing in --address?".to_owned()
                }
                "" => format!("{status} without a reason: is --address the REST API of a control plane?"),
                text => format!("the control plane answered {status}: {text}"),
            };
            return ApiError { status, message, fields: Vec::new(), hint };
        };
        let part = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().trim().to_owned();
        let (title, mut detail) = (part(&document, "title"), part(&document, "detail"));
        if detail.is_empty() {
            detail = part(&document, "details");
        }
        let message = match (title.is_empty(), detail.is_empty()) {
            (true, true) => format!("the control plane answered {status}"),
            (false, true) => title,
            (true, false) => detail,
            (false, false) => format!("{title} ({detail})"),
        };
        let parameters = document["invalid_parameters"].as_array().into_iter().flatten();
        let fields = parameters.map(|p| (part(p, "field"), part(p, "reason"))).collect();
        ApiError { status, message, fields, hint }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (field, reason) in &self.fields {
            match field.as_str() {
                "" => write!(f, "\n* {reason}")?,
                field => write!(f, "\n* {field}: {reason}")?,
            }
        }
        if !self.hint.is_empty() {
            write!(f, "\n{}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[test]
    fn answers_are_explained() {
        let check = |status: u16, text: &str, has_token: bool, wanted: Expect| {
            let status = StatusCode::from_u16(status).expect("status");
            wanted.assert_eq(&ApiError::new(status, text, has_token).to_string());
        };
        let document = r#"{"status":400,"title":"Could not process a resource","detail":"Resource is not valid",
            "invalid_parameters":[{"field":"spec.to[0].default","reason":"cannot be empty"},{"field":"","reason":"odd"}]}"#;
        check(
            400,
            document,
            false,
            expect![[r#"
                Could not process a resource (Resource is not valid)
                * spec.to[0].default: cannot be empty
                * odd"#]],
        );
        check(
            403,
            r#"{"title":"Access Denied","detail":"user \"jane/a\" cannot access x"}"#,
            true,
            expect![[r#"
                Access Denied (user "jane/a" cannot access x)
                the user of this token may not do it: `grat who-am-i` shows who you are; ask for a group that may"#]],
        );
        check(
            404,
            "404: Page Not Found",
            false,
            expect![[r#"
                the control plane answered 404: Page Not Found
                it does not know this request: is it another version, or is a part of its path missing in --address?"#]],
        );
        check(
            502,
            "",
            false,
            expect!["502 Bad Gateway without a reason: is --address the REST API of a control plane?"],
        );
        check(500, "[]", false, expect!["the control plane answered 500 Internal Server Error: []"]);
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(resource_path(Kind::MeshTimeout, "m/1", "a b?"), "/meshes/m%2F1/meshtimeouts/a%20b%3F");
        assert_eq!(resource_path(Kind::Zone, "ignored", "east"), "/zones/east");
        assert_eq!(list_path(Kind::Dataplane, None), "/dataplanes");
        let query = [("filter[labels.a/b]".to_owned(), "x y".to_owned())];
        assert_eq!(with_query("/p", &query), "/p?filter%5Blabels.a%2Fb%5D=x%20y");
    }
}
