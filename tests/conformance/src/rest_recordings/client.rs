//! Sends recorded requests exactly as they were sent: nothing is normalised and no header is added.

use std::time::Duration;

use anyhow::{Context, Result};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A request, ready to be sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    /// GET of a path, as the loopback admin.
    pub(crate) fn get(port: u16, path: &str) -> Request {
        let headers = vec![
            ("Host".to_owned(), format!("127.0.0.1:{port}")),
            ("Accept".to_owned(), "application/json".to_owned()),
        ];
        Request { method: "GET".into(), path: path.into(), headers, body: String::new() }
    }

    /// The same with a body of JSON.
    pub(crate) fn with_body(port: u16, method: &str, path: &str, body: String) -> Request {
        let mut request = Request::get(port, path);
        request.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        Request { method: method.into(), body, ..request }
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

/// Sends a request on a new connection.
pub(crate) async fn send(port: u16, request: &Request) -> Result<Answer> {
    let what = || format!("{} {} on port {port}", request.method, request.path);
    tokio::time::timeout(ANSWER_LIMIT, exchange(port, request))
        .await
        .with_context(|| format!("{}: no answer within {ANSWER_LIMIT:?}", what()))?
        .with_context(what)
}

async fn exchange(port: u16, request: &Request) -> Result<Answer> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut message = http::Request::builder().method(request.method.as_str()).uri(encode(&request.path));
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    let message = message.body(request.body.clone())?;
    let answer = async {
        let response = sender.send_request(message).await?;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&bytes).into_owned();
        anyhow::Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            // Everything has arrived.
            answer.await
        }
    }
}

/// Percent-encodes what may not be in the target of a request.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        let is_allowed = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&byte);
        if is_allowed {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
