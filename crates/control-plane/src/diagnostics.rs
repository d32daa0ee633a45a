//! The diagnostics port of both control planes: liveness, readiness, metrics, log levels (rest-api.md §1.2).
//!
//! Reading is open; log levels are changed from this machine only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use axum::{Extension, Router};
use graticule_runtime::logging::levels::{LevelError, Levels};
use graticule_runtime::{Metrics, Peer, metrics};
use graticule_store::{Health, Store};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

/// Largest request body, in bytes.
const BODY_MAX: usize = 4 * 1024;

/// Body of `PUT /logging`.
#[derive(Deserialize)]
struct Change {
    component: String,
    level: String,
}

/// What `/ready` answers; the reason is its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// 200.
    Ready,
    /// 200: it serves, and something is wrong.
    Impaired(String),
    /// 503.
    NotReady(String),
}

/// Readiness out of the health of a store: a control plane is not ready before its store was current once. Later it
/// stays ready, because reads go on whatever happens: proxies and zones are better served with what it has than sent
/// away. What is wrong is in the answer.
pub fn readiness_of(store: Arc<dyn Store>) -> impl Fn() -> Readiness + Clone + Send + Sync + 'static {
    let was_current = Arc::new(AtomicBool::new(false));
    move || match store.health() {
        Health::Ready => {
            was_current.store(true, Ordering::Relaxed);
            Readiness::Ready
        }
        Health::ReadOnly(reason) => {
            was_current.store(true, Ordering::Relaxed);
            Readiness::Impaired(format!("the store takes no writes: {reason}"))
        }
        Health::Stale(reason) if was_current.load(Ordering::Relaxed) => {
            Readiness::Impaired(format!("the store may be behind: {reason}"))
        }
        Health::Stale(reason) => Readiness::NotReady(format!("the store has not caught up: {reason}")),
    }
}

/// `/healthy` (the process runs), `/ready` (`ready` says so), `/metrics` and `/logging` (`levels`, where logging is set
/// up).
pub fn router(
    ready: impl Fn() -> Readiness + Clone + Send + Sync + 'static,
    metrics: Metrics,
    levels: Option<&'static Levels>,
) -> Router {
    let answer = move || {
        std::future::ready(match ready() {
            Readiness::Ready => StatusCode::OK.into_response(),
            Readiness::Impaired(reason) => text(StatusCode::OK, &reason),
            Readiness::NotReady(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
        })
    };
    let asking = Arc::default();
    let router = Router::new()
        .route("/ready", get(answer))
        .route("/healthy", get(|| async { StatusCode::OK }))
        .route("/metrics", get(async move || numbers(metrics, asking).await));
    let router = match levels {
        Some(levels) => router.merge(logging(levels)),
        None => router,
    };
    router.fallback(|| async { text(StatusCode::NOT_FOUND, "404 page not found") })
}

/// One answer at a time, beside everything else: with many zones and resources it takes a while, and anybody may ask.
async fn numbers(metrics: Metrics, asking: Arc<Mutex<()>>) -> Response {
    let _turn = asking.lock().await;
    let failed = |reason: String| {
        text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be written: {reason}"))
    };
    match tokio::task::spawn_blocking(move || metrics.text()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

fn logging(levels: &'static Levels) -> Router {
    Router::new()
        .route("/logging", get(list).put(change).delete(reset_all))
        .route("/logging/{component}", delete(reset))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(levels)
}

async fn list(State(levels): State<&'static Levels>) -> Response {
    let body = json!({"components": levels.list()}).to_string();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn change(
    State(levels): State<&'static Levels>,
    peer: Option<Extension<Peer>>,
    body: Bytes,
) -> Response {
    if let Some(refusal) = refusal(peer) {
        return refusal;
    }
    let Ok(change) = serde_json::from_slice::<Change>(&body) else {
        return text(StatusCode::BAD_REQUEST, "invalid request body");
    };
    let done = levels.set(&change.component, &change.level);
    if done.is_ok() {
        tracing::info!(component = change.component, level = change.level, "log level changed");
    }
    outcome(done)
}

async fn reset(
    State(levels): State<&'static Levels>,
    Path(component): Path<String>,
    peer: Option<Extension<Peer>>,
) -> Response {
    refusal(peer).unwrap_or_else(|| outcome(levels.reset(&component)))
}

async fn reset_all(state: State<&'static Levels>, peer: Option<Extension<Peer>>) -> Response {
    if let Some(refusal) = refusal(peer) {
        return refusal;
    }
    match state.reset_all() {
        Ok(()) => list(state).await,
        error => outcome(error),
    }
}

fn outcome(done: Result<(), LevelError>) -> Response {
    match done {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error @ LevelError::Refused(_)) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// This port has no authentication, so what changes something is for this machine.
fn refusal(peer: Option<Extension<Peer>>) -> Option<Response> {
    let is_local = peer.is_some_and(|Extension(peer)| peer.address.ip().to_canonical().is_loopback());
    (!is_local).then(|| text(StatusCode::FORBIDDEN, "log levels are changed from the machine itself"))
}

fn text(status: StatusCode, line: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, headers, format!("{line}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    fn levels() -> &'static Levels {
        Box::leak(Box::new(Levels::new("info".into(), |_| Ok(()))))
    }

    async fn call(router: &Router, from: &str, method: &str, path: &str, body: &str) -> (u16, String) {
        let peer = Peer {
            address: from.parse().expect("an address"),
            local: "127.0.0.1:5680".parse().expect("an address"),
            tls: false,
        };
        let request = Request::builder().method(method).uri(path).extension(peer);
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn levels_are_changed_from_this_machine_only() {
        let router = router(|| Readiness::NotReady("it starts".into()), Metrics::new(), Some(levels()));
        let debug = r#"{"component": "xds", "level": "debug"}"#;
        let (here, away) = ("127.0.0.1:4000", "192.0.2.1:4000");
        let large = format!(r#"{{"component": "{}", "level": "debug"}}"#, "x".repeat(BODY_MAX));
        for (from, method, path, body, want) in [
            (here, "GET", "/ready", "", (503, "it starts\n")),
            (away, "GET", "/healthy", "", (200, "")),
            (away, "PUT", "/logging", debug, (403, "log levels are changed from the machine itself\n")),
            (away, "DELETE", "/logging", "", (403, "log levels are changed from the machine itself\n")),
            (away, "GET", "/logging", "", (200, r#"{"components":{}}"#)),
            (here, "PUT", "/logging", debug, (200, "")),
            (away, "DELETE", "/logging/xds", "", (403, "log levels are changed from the machine itself\n")),
            (here, "GET", "/logging", "", (200, r#"{"components":{"xds":"debug"}}"#)),
            (here, "PUT", "/logging", "{", (400, "invalid request body\n")),
            (here, "DELETE", "/logging/xds", "", (200, "")),
            (here, "DELETE", "/logging", "", (200, r#"{"components":{}}"#)),
            (here, "GET", "/nope", "", (404, "404 page not found\n")),
        ] {
            let (status, text) = call(&router, from, method, path, body).await;
            assert_eq!((status, text.as_str()), want, "{from} {method} {path}");
        }
        assert_eq!(call(&router, here, "PUT", "/logging", &large).await.0, 413);
    }

    #[tokio::test]
    async fn metrics_are_for_everybody() {
        let metrics = Metrics::new();
        metrics.counts("graticule_test_calls", "Calls").count([("from", "x")]);
        let router = router(|| Readiness::Ready, metrics, None);
        let (status, text) = call(&router, "192.0.2.1:1", "GET", "/metrics", "").await;
        assert_eq!(status, 200);
        assert!(text.lines().any(|line| line == "graticule_test_calls_total{from=\"x\"} 1"), "{text}");
    }

    struct Ailing(parking_lot::Mutex<Health>);

    #[async_trait::async_trait]
    impl Store for Ailing {
        async fn commit(
            &self,
            _txn: graticule_store::Txn,
        ) -> Result<graticule_store::Committed, graticule_store::CommitError> {
            Err(graticule_store::CommitError::Unavailable("a test".into()))
        }

        fn snapshot(&self) -> graticule_store::Snapshot {
            graticule_store::Snapshot::empty()
        }

        fn watch(&self, _from: Option<graticule_store::Revision>) -> Box<dyn graticule_store::Feed> {
            unreachable!("readiness reads nothing")
        }

        fn health(&self) -> Health {
            self.0.lock().clone()
        }
    }

    #[tokio::test]
    async fn readiness_follows_the_store() {
        let store = Arc::new(Ailing(parking_lot::Mutex::new(Health::Ready)));
        let router = router(readiness_of(store.clone()), Metrics::new(), None);
        for (health, want) in [
            (
                Health::Stale("there is no leader".into()),
                (503, "the store has not caught up: there is no leader\n"),
            ),
            (Health::Ready, (200, "")),
            (
                Health::Stale("there is no leader".into()),
                (200, "the store may be behind: there is no leader\n"),
            ),
            (
                Health::ReadOnly("the disk is full".into()),
                (200, "the store takes no writes: the disk is full\n"),
            ),
            (Health::Ready, (200, "")),
        ] {
            *store.0.lock() = health.clone();
            let (status, text) = call(&router, "192.0.2.1:1", "GET", "/ready", "").await;
            assert_eq!((status, text.as_str()), want, "{health:?}");
        }
    }
}
