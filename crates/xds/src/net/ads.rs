//! One delta ADS stream on the wire: authenticates, registers, then moves messages between the client, the core
//! and the control plane (dataplane-agent.md §5.1).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use futures::Stream as FuturesStream;
use graticule_policy::ProxyId;
use tonic::{Status, Streaming};

use super::deps::{ConnectError, End, Proxies, Snapshots, StreamId};
use super::leases::Lease;
use super::server::{Credential, FIRST_REQUEST_TIMEOUT, Shared};
use crate::core::{Hello, Stream, read_node};

/// Operators search logs for this text.
const ALREADY_ACTIVE: &str = "there is already an active stream from this node, try again later";

/// Serves a stream. Nothing runs unless the result is polled, and dropping it ends everything.
pub(super) fn serve(
    shared: Arc<Shared>,
    credential: Credential,
    requests: Streaming<DeltaDiscoveryRequest>,
) -> impl FuturesStream<Item = Result<DeltaDiscoveryResponse, Status>> + Send + 'static {
    let session = Session { shared, requests, ready: VecDeque::new(), phase: Phase::Hello(credential) };
    futures::stream::unfold(session, |mut session| async move {
        let item = session.next().await?;
        Some((item, session))
    })
}

struct Session {
    shared: Arc<Shared>,
    requests: Streaming<DeltaDiscoveryRequest>,
    ready: VecDeque<DeltaDiscoveryResponse>,
    phase: Phase,
}

enum Phase {
    Hello(Credential),
    Open(Box<Open>),
    Done,
}

/// An authenticated stream.
struct Open {
    core: Stream,
    snapshots: Snapshots,
    lease: Lease,
    wake_at: Option<Duration>,
    registration: Registration,
}

/// Tells the control plane about the end of the stream, however it comes.
struct Registration {
    proxies: Arc<dyn Proxies>,
    id: ProxyId,
    stream: StreamId,
    end: End,
}

impl Drop for Registration {
    fn drop(&mut self) {
        tracing::info!(mesh = self.id.mesh, proxy = self.id.name, stream = %self.stream, end = ?self.end, "proxy disconnected");
        self.proxies.disconnected(&self.id, &self.stream, self.end);
    }
}

impl Session {
    async fn next(&mut self) -> Option<Result<DeltaDiscoveryResponse, Status>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Some(Ok(response));
            }
            let result = match &mut self.phase {
                Phase::Done => return None,
                Phase::Hello(credential) => {
                    let credential = std::mem::replace(credential, Credential::None);
                    self.hello(credential).await
                }
                Phase::Open(open) => open.turn(&self.shared, &mut self.requests, &mut self.ready).await,
            };
            match result {
                Ok(()) => {}
                Err(Ended::Quietly) => self.phase = Phase::Done,
                Err(Ended::With(status)) => {
                    self.phase = Phase::Done;
                    return Some(Err(status));
                }
            }
        }
    }

    /// From the first request to the first step of the core.
    async fn hello(&mut self, credential: Credential) -> Result<(), Ended> {
        let shared = self.shared.clone();
        let first = tokio::select! {
            biased;
            () = shared.drain.signaled() => return Err(shutting_down()),
            first = self.requests.message() => first,
            () = shared.deps.clock.sleep(FIRST_REQUEST_TIMEOUT) => {
                return Err(Ended::With(Status::deadline_exceeded("no request came")));
            }
        };
        let first = match first {
            Ok(Some(first)) => first,
            Ok(None) => return Err(Ended::Quietly),
            Err(status) => return Err(unreadable("", status)),
        };
        let mut hello = read_node(first.node.as_ref())
            .map_err(|refusal| refused(first.node.as_ref().map_or("", |n| &n.id), &refusal.to_string()))?;
        hello.resumes = !first.initial_resource_versions.is_empty();
        let node_id = hello.id.to_string();
        authenticate(&shared, &credential, &hello).await.map_err(|reason| refused(&node_id, &reason))?;
        drop(credential);

        let stream = StreamId(shared.deps.random.uuid().into());
        let lease = tokio::select! {
            biased;
            () = shared.drain.signaled() => return Err(shutting_down()),
            lease = shared.leases.take(&hello.id, &stream, &shared.deps.clock) => lease,
        };
        let lease = lease.map_err(|_| refused(&node_id, ALREADY_ACTIVE))?;
        let mut registration = Registration {
            proxies: shared.deps.proxies.clone(),
            id: hello.id.clone(),
            stream: stream.clone(),
            end: End::Refused,
        };
        let snapshots = match shared.deps.proxies.connect(hello, &stream).await {
            Ok(snapshots) => snapshots,
            Err(ConnectError::Refused(reason)) => return Err(refused(&node_id, &reason)),
            Err(ConnectError::Unavailable(reason)) => return Err(Ended::With(Status::unavailable(reason))),
        };
        registration.end = End::Client;
        tracing::info!(mesh = registration.id.mesh, proxy = registration.id.name, stream = %stream, "proxy connected");
        let core = Stream::new(node_id, &*shared.deps.instance_id);
        let mut open = Box::new(Open { core, snapshots, lease, wake_at: None, registration });
        open.take_snapshot();
        open.take_request(&first)?;
        open.flush(&shared, &mut self.ready);
        self.phase = Phase::Open(open);
        Ok(())
    }
}

impl Open {
    /// Waits for whatever happens next and deals with it. Cancel-safe.
    async fn turn(
        &mut self,
        shared: &Shared,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        ready: &mut VecDeque<DeltaDiscoveryResponse>,
    ) -> Result<(), Ended> {
        let now = shared.deps.clock.monotonic();
        let wake_at = self.wake_at;
        let wake = async {
            match wake_at {
                Some(at) => shared.deps.clock.sleep(at.saturating_sub(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.drain.signaled() => {
                self.registration.end = End::Shutdown;
                return Err(shutting_down());
            }
            () = self.lease.taken() => {
                self.registration.end = End::Replaced;
                return Err(Ended::With(Status::unknown("replaced by a newer stream of the same proxy")));
            }
            request = requests.message() => match request {
                Ok(Some(request)) => self.take_request(&request)?,
                end => {
                    // A connection that is replaced and breaks at the same moment counts as replaced.
                    if self.lease.is_taken() {
                        self.registration.end = End::Replaced;
                    }
                    return Err(match end {
                        Err(status) => unreadable(&self.registration.id.to_string(), status),
                        _ => Ended::Quietly,
                    });
                }
            },
            changed = self.snapshots.changed() => {
                if changed.is_err() {
                    self.registration.end = End::Dropped;
                    return Err(Ended::With(Status::unknown("the Dataplane was deleted")));
                }
                self.take_snapshot();
            }
            () = wake => {}
        }
        self.flush(shared, ready);
        Ok(())
    }

    fn take_snapshot(&mut self) {
        if let Some(snapshot) = self.snapshots.borrow_and_update().clone() {
            self.core.on_snapshot(snapshot);
        }
    }

    fn take_request(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Ended> {
        match self.core.on_request(request) {
            Ok(events) => {
                self.report(events);
                Ok(())
            }
            Err(error) => {
                self.registration.end = End::Refused;
                Err(refused(&self.registration.id.to_string(), &error.to_string()))
            }
        }
    }

    fn flush(&mut self, shared: &Shared, ready: &mut VecDeque<DeltaDiscoveryResponse>) {
        let step = self.core.poll(shared.deps.clock.monotonic());
        self.wake_at = step.wake_at;
        ready.extend(step.responses);
        self.report(step.events);
    }

    fn report(&self, events: Vec<crate::core::Event>) {
        let Registration { proxies, id, stream, .. } = &self.registration;
        for event in events {
            if let crate::core::Event::Nacked { kind, names, message, .. } = &event {
                tracing::warn!(
                    mesh = id.mesh,
                    proxy = id.name,
                    type_url = kind.type_url(),
                    ?names,
                    message,
                    "proxy rejected configuration"
                );
            }
            proxies.event(id, stream, event);
        }
    }
}

enum Ended {
    Quietly,
    With(Status),
}

fn shutting_down() -> Ended {
    Ended::With(Status::unavailable("the control plane is shutting down"))
}

/// What was received is no message: too large, or not of this protocol. A status with a source is a connection
/// that broke, which nobody is left to be told.
fn unreadable(node_id: &str, status: Status) -> Ended {
    if std::error::Error::source(&status).is_some() {
        return Ended::Quietly;
    }
    tracing::warn!(node = node_id, reason = status.message(), "xDS stream ended: unreadable request");
    Ended::With(status)
}

/// Refusals are `UNKNOWN` with a text (xds.md §1.4).
fn refused(node_id: &str, reason: &str) -> Ended {
    let node: String = node_id.chars().take(256).collect();
    tracing::warn!(node, reason, "xDS stream refused");
    Ended::With(Status::unknown(reason))
}

/// The credential must be good for what the proxy brings, and for what is stored under the same name.
async fn authenticate(shared: &Shared, credential: &Credential, hello: &Hello) -> Result<(), String> {
    let credential = credential.single()?;
    let stored = shared.deps.proxies.stored_dataplane(&hello.id).await;
    let check = |dataplane| shared.deps.authenticator.authenticate(credential, dataplane);
    let failed = |error| format!("authentication failed: {error}");
    match (&hello.dataplane, &stored) {
        (None, None) => {
            return Err(format!(
                "resource {:?} not found; create a Dataplane in the control plane first or pass it as an argument to the agent",
                hello.id.to_string()
            ));
        }
        (Some(brought), None) => check(brought).await.map_err(failed)?,
        (None, Some(stored)) => check(stored).await.map_err(failed)?,
        (Some(brought), Some(stored)) => {
            check(brought).await.map_err(failed)?;
            check(stored).await.map_err(failed)?;
        }
    }
    Ok(())
}
