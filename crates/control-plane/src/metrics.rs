//! Numbers that both control planes have: their store and their REST API.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use graticule_model::Kind;
use graticule_runtime::metrics::{Durations, Measured};
use graticule_runtime::{Clock, Metrics};
use graticule_store::{
    CommitError, Committed, Feed, Health, Leader, Leadership, Replacement, Revision, Snapshot, Store, Txn,
};
use tokio::sync::watch;

/// A store whose writes are measured.
struct Measuring {
    store: Arc<dyn Store>,
    clock: Clock,
    commits: Durations,
}

/// Measures the writes of a store, and looks at it when somebody asks for the numbers.
pub fn measure_store(store: Arc<dyn Store>, metrics: &Metrics, clock: &Clock) -> Arc<dyn Store> {
    let commits = metrics.durations(
        "graticule_store_commit_seconds",
        "From the call of a transaction until it is durable, or refused, by outcome",
    );
    let looked_at = store.clone();
    metrics.look_up(move || of_store(looked_at.as_ref()));
    Arc::new(Measuring { store, clock: clock.clone(), commits })
}

fn of_store(store: &dyn Store) -> Vec<Measured> {
    let snapshot = store.snapshot();
    let mut resources = Measured::gauge("graticule_store_resources", "Stored resources, by kind");
    for kind in Kind::all() {
        let stored = snapshot.count(kind, None);
        if stored > 0 {
            resources.add([("kind", kind.name())], stored as f64);
        }
    }
    let leadership = store.leadership().borrow().clone();
    let (leads, has_leader) = match leadership.leader {
        Leader::Myself => (true, true),
        Leader::Other(_) => (false, true),
        Leader::Unknown => (false, false),
    };
    let health = store.health();
    let mut states =
        Measured::gauge("graticule_store_health", "1 for the state that the store is in, else 0");
    for (state, holds) in [
        ("ready", matches!(health, Health::Ready)),
        ("readOnly", matches!(health, Health::ReadOnly(_))),
        ("stale", matches!(health, Health::Stale(_))),
    ] {
        states.add([("state", state)], flag(holds));
    }
    let one = |name, help, value| Measured::gauge(name, help).with([], value);
    vec![
        resources,
        states,
        one(
            "graticule_store_revision",
            "Newest revision that can be read here",
            snapshot.revision().0 as f64,
        ),
        one("graticule_store_leader", "1 when this replica leads", flag(leads)),
        one("graticule_store_has_leader", "1 when some replica leads", flag(has_leader)),
        one("graticule_store_term", "Term of the leader; grows with every election", leadership.term as f64),
    ]
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Few words for all outcomes.
fn outcome<T>(result: &Result<T, CommitError>) -> &'static str {
    match result {
        Ok(_) => "committed",
        Err(CommitError::Unavailable(_)) => "unavailable",
        Err(CommitError::Uncertain(_)) => "uncertain",
        Err(CommitError::Fenced(_)) => "fenced",
        Err(
            CommitError::Exists(_)
            | CommitError::NotFound(_)
            | CommitError::Conflict { .. }
            | CommitError::OwnerMissing { .. }
            | CommitError::Moved { .. }
            | CommitError::Invalid(_),
        ) => "refused",
    }
}

impl Measuring {
    async fn measured<T>(
        &self,
        write: impl Future<Output = Result<T, CommitError>>,
    ) -> Result<T, CommitError> {
        let begun = self.clock.monotonic();
        let result = write.await;
        self.commits.observe([("outcome", outcome(&result))], since(&self.clock, begun));
        result
    }
}

fn since(clock: &Clock, begun: Duration) -> Duration {
    clock.monotonic().saturating_sub(begun)
}

#[async_trait]
impl Store for Measuring {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.measured(self.store.commit(txn)).await
    }

    async fn commit_as(&self, term: u64, txn: Txn) -> Result<Committed, CommitError> {
        self.measured(self.store.commit_as(term, txn)).await
    }

    async fn replace_all(&self, replacement: Replacement) -> Result<Revision, CommitError> {
        self.store.replace_all(replacement).await
    }

    async fn read_barrier(&self) -> Result<(), CommitError> {
        self.store.read_barrier().await
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.store.watch(from)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.store.leadership()
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

/// Measures the requests of an API.
pub fn measure_requests(router: Router, metrics: &Metrics, clock: &Clock) -> Router {
    let requests = metrics.durations(
        "graticule_api_request_seconds",
        "From the head of a request until the head of its response, by method and status",
    );
    let clock = clock.clone();
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (requests, clock) = (requests.clone(), clock.clone());
        async move {
            let (method, begun) = (method(request.method()), clock.monotonic());
            let response = next.run(request).await;
            let status = response.status();
            requests.observe([("method", method), ("status", status.as_str())], since(&clock, begun));
            response
        }
    }))
}

/// Clients may invent methods.
fn method(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use graticule_model::Key;
    use graticule_store::{Expect, MemoryStore};
    use tower::ServiceExt as _;

    use super::*;

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.text().expect("text");
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }

    #[tokio::test]
    async fn writes_by_outcome_and_what_is_stored() {
        let (metrics, clock) = (Metrics::new(), Clock::system());
        let now = clock.clone();
        let store = measure_store(Arc::new(MemoryStore::new(move || now.now())), &metrics, &clock);
        has(&metrics, "graticule_store_revision 0.0");
        let mesh = || mesh("default");
        store.commit(Txn::default().and_put(mesh(), Expect::Absent)).await.expect("free");
        store.commit(Txn::default().and_put(mesh(), Expect::Absent)).await.expect_err("taken");
        store.commit_as(99, Txn::put(mesh())).await.expect_err("not this term");
        store.commit(Txn::delete(Key::new(Kind::Mesh, "", "nope"))).await.expect("nothing to do");
        for line in [
            "graticule_store_commit_seconds_count{outcome=\"committed\"} 2",
            "graticule_store_commit_seconds_count{outcome=\"refused\"} 1",
            "graticule_store_commit_seconds_count{outcome=\"fenced\"} 1",
            "graticule_store_resources{kind=\"Mesh\"} 1.0",
            "graticule_store_revision 1.0",
            "graticule_store_leader 1.0",
            "graticule_store_health{state=\"ready\"} 1.0",
            "graticule_store_health{state=\"stale\"} 0.0",
        ] {
            has(&metrics, line);
        }
    }

    fn mesh(name: &str) -> graticule_model::Resource {
        use graticule_model::{Meta, Resource, kinds::mesh::Mesh};
        Resource::new(Meta::new("", name), Mesh::default())
    }

    #[tokio::test]
    async fn requests_by_method_and_status() {
        let metrics = Metrics::new();
        let router = Router::new().route("/there", get(|| async {}));
        let router = measure_requests(router, &metrics, &Clock::system());
        for (method, path) in [("GET", "/there"), ("GET", "/there"), ("BREW", "/there"), ("PUT", "/nope")] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
            router.clone().oneshot(request).await.expect("infallible");
        }
        for line in [
            "graticule_api_request_seconds_count{method=\"GET\",status=\"200\"} 2",
            "graticule_api_request_seconds_count{method=\"other\",status=\"405\"} 1",
            "graticule_api_request_seconds_count{method=\"PUT\",status=\"404\"} 1",
        ] {
            has(&metrics, line);
        }
    }
}
