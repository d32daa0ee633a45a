//! Calls of members about the cluster itself: who there is, joining, changes. HTTP/1.1 with JSON on connections that are
//! authenticated in both directions; one call a connection.

use std::convert::Infallible;
use std::time::Duration;

use graticule_api::cluster::Member;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::tls::MemberTls;

/// Version of these calls; it is in their paths.
pub(super) const STATE: &str = "/v1/state";
/// Asks for the caller to be added.
pub(super) const JOIN: &str = "/v1/join";
/// Members as this one sees them.
pub(super) const MEMBERS: &str = "/v1/members";
/// What the member observes, as a stream that does not end.
pub(super) const STATUS: &str = "/v1/status";
/// A question that the member can answer.
pub(super) const ASK: &str = "/v1/ask";

/// Longest body of a call or an answer, in bytes.
pub(super) const BODY_LEN_MAX: usize = 256 * 1024;
/// Time for a short call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to be added: a new member takes over everything before it votes.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    /// Its number, in hexadecimal.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) address: String,
    /// Empty until it belongs to a cluster.
    pub(super) cluster: String,
    /// Whether it belongs to a cluster.
    pub(super) is_initialized: bool,
    /// Members without a cluster that it has seen, itself included.
    pub(super) sees: Vec<String>,
}

/// Who wants to be a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Join {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) address: String,
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) reason: String,
}

/// Why a call failed: the member's own reason, or that it did not answer, when nothing is known about the effect.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {reason}")]
pub(super) struct CallError {
    address: String,
    reason: String,
}

/// Calls other members. Cheap to clone.
#[derive(Clone)]
pub(super) struct Calls(pub(super) MemberTls);

impl Calls {
    pub(super) async fn state(&self, address: &str) -> Result<State, CallError> {
        self.call(address, Method::GET, STATE, &(), CALL_TIMEOUT).await
    }

    pub(super) async fn members(&self, address: &str) -> Result<Vec<Member>, CallError> {
        self.call(address, Method::GET, MEMBERS, &(), CALL_TIMEOUT).await
    }

    pub(super) async fn join(&self, address: &str, join: &Join) -> Result<(), CallError> {
        self.call(address, Method::POST, JOIN, join, JOIN_TIMEOUT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        address: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, CallError> {
        let failed = |reason: String| CallError { address: address.to_owned(), reason };
        let answered = timeout(limit, self.exchange(address, method, path, body, BODY_LEN_MAX)).await;
        let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        let (status, bytes) = answered.map_err(failed)?;
        if status.is_success() {
            let unreadable = |error| failed(format!("its answer cannot be read: {error}"));
            return serde_json::from_slice(&bytes).map_err(unreadable);
        }
        let refusal: Result<Refusal, _> = serde_json::from_slice(&bytes);
        Err(failed(refusal.map_or_else(|_| format!("it answered {status}"), |refusal| refusal.reason)))
    }

    /// Asks; what the member answers is the caller's to read.
    pub(super) async fn ask(
        &self,
        address: &str,
        question: &impl Serialize,
        limit: Duration,
        len_max: usize,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let failed = |reason: String| CallError { address: address.to_owned(), reason };
        let answered = timeout(limit, self.exchange(address, Method::POST, ASK, question, len_max)).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))).map_err(failed)
    }

    /// Gives every piece of an answer that does not end to `each`, until it does, or nothing comes for `silence_max`, or
    /// `each` has enough. Gives the reason.
    pub(super) async fn follow(
        &self,
        address: &str,
        path: &str,
        silence_max: Duration,
        mut each: impl FnMut(Bytes) -> Result<(), String>,
    ) -> CallError {
        let reason = match self.pieces(address, path, silence_max, &mut each).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        CallError { address: address.to_owned(), reason }
    }

    async fn pieces(
        &self,
        address: &str,
        path: &str,
        silence_max: Duration,
        each: &mut impl FnMut(Bytes) -> Result<(), String>,
    ) -> Result<Infallible, String> {
        let silent = |_| format!("nothing heard for {silence_max:?}");
        let request = request(address, Method::GET, path, Vec::new())?;
        let connecting = timeout(silence_max, self.0.connect_calls(address)).await;
        let io = connecting.map_err(silent)?.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let pieces = async {
            let response = timeout(silence_max, sender.send_request(request)).await.map_err(silent)?;
            let (head, mut body) = response.map_err(|error| error.to_string())?.into_parts();
            if !head.status.is_success() {
                return Err(format!("it answered {}", head.status));
            }
            loop {
                let frame = timeout(silence_max, body.frame()).await.map_err(silent)?;
                let frame = frame.ok_or("it ended the answer")?.map_err(|error| error.to_string())?;
                if let Ok(bytes) = frame.into_data() {
                    each(bytes)?;
                }
            }
        };
        tokio::select! {
            biased;
            ended = pieces => ended,
            _ = connection => Err("the connection broke".to_owned()),
        }
    }

    async fn exchange(
        &self,
        address: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
        len_max: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        let request = request(address, method, path, body)?;
        let io = self.0.connect_calls(address).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, len_max).collect().await.map_err(|error| error.to_string())?;
            // The connection ends when nobody can send any more.
            drop(sender);
            Ok((head.status, body.to_bytes()))
        };
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }
}

fn request(address: &str, method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())
}
