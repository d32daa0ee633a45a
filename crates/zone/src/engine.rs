//! The single writer of the index: store changes and proxies in, snapshots out.
//!
//! Changes that queue up while one round runs are taken together; nothing waits for a timer but the renewal of
//! certificates and the resolution of DNS names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use graticule_envoygen::json::KeyMaterial;
use graticule_envoygen::{Secrets, SharedCache, Snapshot as EnvoySnapshot, snapshot};
use graticule_model::{Key, Kind, Resource, Timestamp};
use graticule_policy::{NodeFacts, ProxyInputs};
use graticule_runtime::{Clock, Drain, Random};
use graticule_store::{Event, Feed, Store};
use graticule_view::{Dirty, Index, ProxyId, Serving, ZoneSettings};
use graticule_xds::net::StreamId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::authorities::Authorities;
use crate::certificates::Certificates;
use crate::insights::InsightsHandle;
use crate::observations::Observations;

/// Requests that wait; senders wait when there are more.
const QUEUE_LEN_MAX: usize = 4_096;
/// Requests, and changes of the store, that one round takes: under a steady stream of them proxies are served too.
const ROUND_LEN_MAX: usize = 1_024;
/// Between two looks at DNS names that are used as addresses.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Settings of the index.
    pub zone: ZoneSettings,
}

enum Request {
    Connect {
        proxy: ProxyId,
        stream: StreamId,
        node: Box<NodeFacts>,
        reply: oneshot::Sender<watch::Receiver<Option<Arc<EnvoySnapshot>>>>,
    },
    Disconnect {
        proxy: ProxyId,
        stream: StreamId,
    },
    Inspect {
        proxy: ProxyId,
        reply: oneshot::Sender<Option<serde_json::Value>>,
    },
    Resolved {
        addresses: HashMap<String, IpAddr>,
    },
}

/// Cheap to clone; the only way in.
#[derive(Clone)]
pub struct EngineHandle(mpsc::Sender<Request>);

/// The engine has ended.
#[derive(Debug, thiserror::Error)]
#[error("the zone's engine has ended")]
pub(crate) struct Ended;

impl EngineHandle {
    /// A proxy connected with a stream: its snapshots from now on.
    pub(crate) async fn connect(
        &self,
        proxy: ProxyId,
        stream: StreamId,
        node: NodeFacts,
    ) -> Result<watch::Receiver<Option<Arc<EnvoySnapshot>>>, Ended> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Connect { proxy, stream, node: Box::new(node), reply };
        self.0.send(request).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// A proxy's stream ended. Says nothing about a newer stream of the same proxy.
    pub(crate) async fn disconnect(&self, proxy: ProxyId, stream: StreamId) {
        // The engine only ends with the process; then nobody needs to know.
        let _ended = self.0.send(Request::Disconnect { proxy, stream }).await;
    }

    /// What a connected proxy is sent, without key material (`_config`).
    pub async fn inspect(&self, proxy: ProxyId) -> Option<serde_json::Value> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Request::Inspect { proxy, reply }).await.ok()?;
        answer.await.ok()?
    }
}

/// A connected proxy.
struct Connected {
    /// The newest stream.
    stream: StreamId,
    publisher: watch::Sender<Option<Arc<EnvoySnapshot>>>,
    due: Option<Timestamp>,
}

/// Owns the index.
pub struct Engine {
    index: Index,
    requests: mpsc::Receiver<Request>,
    handle: EngineHandle,
    store: Arc<dyn Store>,
    observations: Observations,
    insights: InsightsHandle,
    certificates: Certificates,
    cache: SharedCache,
    clock: Clock,
    proxies: BTreeMap<ProxyId, Connected>,
    serving: BTreeMap<ProxyId, Serving>,
    warnings: BTreeMap<ProxyId, Vec<String>>,
}

impl Engine {
    /// An engine that reads `store`.
    pub fn new(
        settings: EngineSettings,
        store: Arc<dyn Store>,
        observations: Observations,
        insights: InsightsHandle,
        authorities: Authorities,
        clock: Clock,
        random: Random,
    ) -> (Engine, EngineHandle) {
        let (sender, requests) = mpsc::channel(QUEUE_LEN_MAX);
        let handle = EngineHandle(sender);
        let engine = Engine {
            index: Index::new(settings.zone),
            requests,
            handle: handle.clone(),
            store,
            observations,
            insights,
            certificates: Certificates::new(authorities, clock.clone(), random),
            cache: SharedCache::default(),
            clock,
            proxies: BTreeMap::new(),
            serving: BTreeMap::new(),
            warnings: BTreeMap::new(),
        };
        (engine, handle)
    }

    /// Runs until drained.
    pub async fn run(mut self, drain: Drain) {
        let mut feed = self.store.watch(None);
        let mut observed = self.observations.changes();
        let mut taken = *observed.borrow();
        let clock = self.clock.clone();
        let mut resolve = Box::pin(clock.sleep(Duration::ZERO));
        loop {
            let wait = self.until_due();
            let mut dirty = Dirty::default();
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                event = feed.next() => match event {
                    Some(event) => dirty.merge(self.on_event(event)),
                    None => return,
                },
                Some(request) = self.requests.recv() => dirty.merge(self.on_request(request)),
                Ok(()) = observed.changed() => {}
                () = clock.sleep(wait) => dirty.proxies.extend(self.due()),
                () = &mut resolve => {
                    resolve = Box::pin(clock.sleep(RESOLVE_INTERVAL));
                    self.resolve();
                }
            }
            self.take_queued(&mut *feed, &mut dirty).await;
            let newest = *observed.borrow();
            if taken != newest {
                taken = newest;
                dirty.merge(self.take_observations());
            }
            for proxy in dirty.proxies {
                self.publish(&proxy);
            }
        }
    }

    /// Takes what queued up meanwhile, so that one build serves all of it.
    async fn take_queued(&mut self, feed: &mut dyn Feed, dirty: &mut Dirty) {
        for _ in 0..ROUND_LEN_MAX {
            let Ok(request) = self.requests.try_recv() else { break };
            dirty.merge(self.on_request(request));
        }
        for _ in 0..ROUND_LEN_MAX {
            tokio::select! {
                biased;
                event = feed.next() => match event {
                    Some(event) => dirty.merge(self.on_event(event)),
                    None => return,
                },
                () = std::future::ready(()) => return,
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Dirty {
        match event {
            Event::Resync(snapshot) => {
                let all: Vec<Arc<Resource>> = snapshot.iter().cloned().collect();
                let mut dirty = self.index.reset(all.into_iter());
                dirty.proxies.extend(self.proxies.keys().cloned());
                dirty
            }
            Event::Batch(batch) => {
                let changes: Vec<(Key, Option<Arc<Resource>>)> =
                    batch.changes.iter().map(|change| (change.key.clone(), change.new.clone())).collect();
                let mut dirty = self.index.apply(&changes);
                for (key, new) in &changes {
                    match key.kind {
                        // A new authority: certificates are looked at again.
                        Kind::Secret => {
                            let of_mesh = self.proxies.keys().filter(|proxy| proxy.mesh == key.mesh);
                            dirty.proxies.extend(of_mesh.cloned());
                        }
                        Kind::Dataplane if new.is_none() => self.certificates.forget(&ProxyId::from(key)),
                        _ => {}
                    }
                }
                dirty
            }
        }
    }

    fn on_request(&mut self, request: Request) -> Dirty {
        match request {
            Request::Connect { proxy, stream, node, reply } => {
                let connected = self.proxies.entry(proxy.clone()).or_insert_with(|| Connected {
                    stream: stream.clone(),
                    publisher: watch::Sender::new(None),
                    due: None,
                });
                connected.stream = stream;
                // A stream that is gone again does not matter: its end is reported apart.
                let _gone = reply.send(connected.publisher.subscribe());
                self.index.connect(proxy, *node)
            }
            Request::Disconnect { proxy, stream } => {
                if self.proxies.get(&proxy).is_none_or(|connected| connected.stream != stream) {
                    return Dirty::default();
                }
                self.proxies.remove(&proxy);
                self.warnings.remove(&proxy);
                self.index.disconnect(&proxy)
            }
            Request::Inspect { proxy, reply } => {
                let _gone = reply.send(self.inspect(&proxy));
                Dirty::default()
            }
            Request::Resolved { addresses } => {
                let mut dirty = Dirty::default();
                for (host, address) in addresses {
                    dirty.merge(self.index.set_resolved(&host, Some(address)));
                }
                dirty
            }
        }
    }

    fn take_observations(&mut self) -> Dirty {
        let observed = self.observations.state().serving;
        let mut dirty = Dirty::default();
        let known: BTreeSet<ProxyId> = self.serving.keys().chain(observed.keys()).cloned().collect();
        for proxy in known {
            let serving = observed.get(&proxy).copied().unwrap_or_default();
            if self.serving.get(&proxy).copied().unwrap_or_default() != serving {
                dirty.merge(self.index.set_serving(proxy, serving));
            }
        }
        self.serving = observed;
        dirty
    }

    /// Builds and publishes what a connected proxy is sent; nothing when nothing differs.
    fn publish(&mut self, proxy: &ProxyId) {
        let Some(connected) = self.proxies.get_mut(proxy) else { return };
        // Without inputs there is nothing to renew; a moment that is past would wake the engine again and again.
        connected.due = None;
        let Some(inputs) = self.inputs(proxy) else { return };
        let stored = self.store.snapshot();
        let identity = self.index.best_identity(&proxy.mesh, &inputs.labels).map(|best| best.resource);
        let material = self.certificates.material(proxy, &inputs, identity.as_deref(), &stored);
        if let Some(news) = material.news {
            self.insights.certificate(proxy, news);
        }
        let Some(connected) = self.proxies.get_mut(proxy) else { return };
        connected.due = material.due;
        let previous = connected.publisher.borrow().clone();
        let mut next = snapshot(&inputs, &material.secrets, previous.as_deref(), &self.cache);
        next.revision = stored.revision().0;
        if previous.as_ref().is_none_or(|previous| differs(previous, &next)) {
            connected.publisher.send_replace(Some(Arc::new(next)));
        }
    }

    /// The inputs; the last good snapshot stays in place when there are none.
    fn inputs(&mut self, proxy: &ProxyId) -> Option<Arc<ProxyInputs>> {
        match self.index.inputs(proxy) {
            Ok(assembled) => {
                let known = self.warnings.get(proxy);
                if known.map_or(!assembled.warnings.is_empty(), |known| *known != assembled.warnings) {
                    for warning in &assembled.warnings {
                        tracing::warn!(%proxy, warning, "part of the configuration is left out");
                    }
                    self.warnings.insert(proxy.clone(), assembled.warnings);
                }
                Some(assembled.inputs)
            }
            Err(error) => {
                tracing::debug!(%proxy, %error, "no configuration yet");
                None
            }
        }
    }

    fn inspect(&mut self, proxy: &ProxyId) -> Option<serde_json::Value> {
        let inputs = self.inputs(proxy)?;
        let shown = snapshot(&inputs, &Secrets::default(), None, &self.cache);
        match shown.to_json(KeyMaterial::Redacted) {
            Ok(json) => Some(json),
            Err(error) => {
                tracing::error!(%proxy, %error, "configuration cannot be shown");
                None
            }
        }
    }

    fn until_due(&self) -> Duration {
        const FOREVER: Duration = Duration::from_secs(3600);
        let next = self.proxies.values().filter_map(|connected| connected.due).min();
        let now = self.clock.now();
        next.map_or(FOREVER, |due| {
            Duration::try_from(due.duration_since(now)).unwrap_or_default().min(FOREVER)
        })
    }

    fn due(&self) -> Vec<ProxyId> {
        let now = self.clock.now();
        let due = self.proxies.iter().filter(|(_, connected)| connected.due.is_some_and(|due| due <= now));
        due.map(|(proxy, _)| proxy.clone()).collect()
    }

    /// Asks for the addresses of DNS names, in the background; the last good answer stays in use.
    fn resolve(&self) {
        let hosts = self.index.hosts();
        if hosts.is_empty() {
            return;
        }
        let handle = self.handle.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by the resolver's own timeout and by its interval"
        )]
        tokio::spawn(async move {
            let mut addresses = HashMap::new();
            for host in hosts {
                // The smallest text, so that every replica takes the same one (xds.md §3.8).
                let found = tokio::net::lookup_host((host.as_str(), 0)).await;
                let smallest = found.map(|found| found.map(|a| a.ip()).min_by_key(IpAddr::to_string));
                match smallest {
                    Ok(Some(address)) => {
                        addresses.insert(host, address);
                    }
                    Ok(None) => tracing::warn!(host, "address has no IP address"),
                    Err(error) => tracing::warn!(host, %error, "address cannot be resolved"),
                }
            }
            let _ended = handle.0.send(Request::Resolved { addresses }).await;
        });
    }
}

/// Whether a snapshot holds anything else than another one; the revision alone is no difference.
fn differs(previous: &EnvoySnapshot, next: &EnvoySnapshot) -> bool {
    previous.clusters != next.clusters
        || previous.endpoints != next.endpoints
        || previous.listeners != next.listeners
        || previous.secrets != next.secrets
}

#[cfg(test)]
mod tests;
