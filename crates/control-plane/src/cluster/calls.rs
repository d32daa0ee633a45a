//! Calls of members about the cluster itself: who there is, joining, changes. HTTP/1.1 with JSON on connections that are
//! authenticated in both directions; one call a connection.

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
        let answered = timeout(limit, self.exchange(address, method, path, body)).await;
        let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        let (status, bytes) = answered.map_err(failed)?;
        if status.is_success() {
            let unreadable = |error| failed(format!("its answer cannot be read: {error}"));
            return serde_json::from_slice(&bytes).map_err(unreadable);
        }
        let refusal: Result<Refusal, _> = serde_json::from_slice(&bytes);
        Err(failed(refusal.map_or_else(|_| format!("it answered {status}"), |refusal| refusal.reason)))
    }

    async fn exchange(
        &self,
        address: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(StatusCode, Bytes), String> {
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let io = self.0.connect_calls(address).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, BODY_LEN_MAX).collect().await.map_err(|error| error.to_string())?;
            // The connection ends when nobody can send any more.
            drop(sender);
            Ok((head.status, body.to_bytes()))
        };
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }
}
