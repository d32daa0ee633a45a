//! Numbers about the streams of proxies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_model::Resource;
use graticule_policy::ProxyId;
use graticule_runtime::metrics::{Counts, Durations, Measured};
use graticule_runtime::{Clock, Metrics};
use graticule_xds::core::hds::HealthReport;
use graticule_xds::core::{Event, Hello, ResourceType};
use graticule_xds::net::{ConnectError, End, Proxies, Snapshots, StreamId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// What is remembered of an open stream. Times are monotonic.
struct Open {
    since: Duration,
    sent: [Option<Duration>; ResourceType::ALL.len()],
}

struct Measuring {
    proxies: Arc<dyn Proxies>,
    clock: Clock,
    streams: Arc<Mutex<HashMap<StreamId, Open>>>,
    connections: Counts,
    ends: Counts,
    responses: Counts,
    rejections: Counts,
    acks: Durations,
    serving: Durations,
}

/// Measures the streams of proxies.
pub fn measure_proxies(proxies: Arc<dyn Proxies>, metrics: &Metrics, clock: &Clock) -> Arc<dyn Proxies> {
    let streams: Arc<Mutex<HashMap<StreamId, Open>>> = Arc::default();
    let open = streams.clone();
    metrics.look_up(move || {
        let connected =
            Measured::gauge("graticule_xds_connected_proxies", "Proxies with an open stream here");
        vec![connected.with([], open.lock().len() as f64)]
    });
    Arc::new(Measuring {
        proxies,
        clock: clock.clone(),
        streams,
        connections: metrics.counts("graticule_xds_connections", "Connections of proxies, by outcome"),
        ends: metrics.counts("graticule_xds_disconnections", "Ends of streams, by reason"),
        responses: metrics.counts("graticule_xds_responses", "Responses sent to proxies, by type"),
        rejections: metrics.counts("graticule_xds_rejections", "Responses that proxies rejected, by type"),
        acks: metrics
            .durations("graticule_xds_ack_seconds", "From a response until the proxy accepted it, by type"),
        serving: metrics.durations(
            "graticule_xds_serving_seconds",
            "From the connection of a proxy until it may receive traffic, by mesh",
        ),
    })
}

fn name(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "cluster",
        ResourceType::Endpoint => "endpoint",
        ResourceType::Listener => "listener",
        ResourceType::Secret => "secret",
    }
}

fn reason(end: End) -> &'static str {
    match end {
        End::Client => "client",
        End::Refused => "refused",
        End::Replaced => "replaced",
        End::Shutdown => "shutdown",
        End::Dropped => "dropped",
    }
}

impl Measuring {
    fn measure(&self, id: &ProxyId, stream: &StreamId, event: &Event) {
        let now = self.clock.monotonic();
        let mut streams = self.streams.lock();
        let Some(open) = streams.get_mut(stream) else { return };
        match event {
            Event::Sent { kind, .. } => {
                // Of several that are on their way, the first is the one that waits.
                open.sent[*kind as usize].get_or_insert(now);
                self.responses.count([("type", name(*kind))]);
            }
            Event::Acked { kind, .. } => {
                if let Some(sent) = open.sent[*kind as usize].take() {
                    self.acks.observe([("type", name(*kind))], now.saturating_sub(sent));
                }
            }
            Event::Nacked { kind, .. } => {
                open.sent[*kind as usize] = None;
                self.rejections.count([("type", name(*kind))]);
            }
            Event::Serving => self.serving.observe([("mesh", &id.mesh)], now.saturating_sub(open.since)),
            Event::Synced { .. } => {}
        }
    }
}

#[async_trait]
impl Proxies for Measuring {
    async fn stored_dataplane(&self, id: &ProxyId) -> Option<Arc<Resource>> {
        self.proxies.stored_dataplane(id).await
    }

    async fn has_mesh(&self, mesh: &str) -> bool {
        self.proxies.has_mesh(mesh).await
    }

    async fn refusal(&self, id: &ProxyId) -> Option<String> {
        self.proxies.refusal(id).await
    }

    async fn connect(&self, hello: Hello, stream: &StreamId) -> Result<Snapshots, ConnectError> {
        let open = Open { since: self.clock.monotonic(), sent: Default::default() };
        self.streams.lock().insert(stream.clone(), open);
        let connected = self.proxies.connect(hello, stream).await;
        let outcome = match &connected {
            Ok(_) => "accepted",
            Err(ConnectError::Unavailable(_)) => "unavailable",
            Err(ConnectError::Refused(_)) => "refused",
        };
        self.connections.count([("outcome", outcome)]);
        connected
    }

    fn event(&self, id: &ProxyId, stream: &StreamId, event: Event) {
        self.measure(id, stream, &event);
        self.proxies.event(id, stream, event);
    }

    fn disconnected(&self, id: &ProxyId, stream: &StreamId, end: End) {
        if self.streams.lock().remove(stream).is_some() {
            self.ends.count([("reason", reason(end))]);
        }
        self.proxies.disconnected(id, stream, end);
    }

    async fn watch_dataplane(&self, id: &ProxyId) -> watch::Receiver<Option<Arc<Resource>>> {
        self.proxies.watch_dataplane(id).await
    }

    async fn health(&self, id: &ProxyId, report: HealthReport) {
        self.proxies.health(id, report).await;
    }

    async fn drain(&self, id: &ProxyId) -> Result<(), ConnectError> {
        self.proxies.drain(id).await
    }
}
