//! Life of proxies: registration, streams, health, drain, deregistration (dataplane-agent.md §5, DESIGN decision 16).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_model::kinds::dataplane::{Dataplane, Health, InboundState};
use graticule_model::labels::{self, Site};
use graticule_model::{Key, Kind, Mode, Resource, TypedSpec};
use graticule_runtime::{Clock, Drain, Spawner};
use graticule_store::{CommitError, Event as FeedEvent, Expect, Store, Txn, Write};
use graticule_view::{ProxyId, Serving};
use graticule_xds::net::{ConnectError, End, Proxies, Snapshots, StreamId};
use graticule_xds::{Event, HealthReport, Hello};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::authenticator::identity_needs_workload;
use crate::engine::EngineHandle;
use crate::insights::InsightsHandle;
use crate::observations::Observations;
use crate::probe;

/// Writes of one Dataplane that lose races before the writer gives up.
const WRITE_ATTEMPTS: u32 = 8;
/// Proxies that may come and go at the same time; the same proxy never does both at once.
const GATES: usize = 64;

/// Settings of proxies.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Role of the control plane.
    pub mode: Mode,
    /// Name of the zone.
    pub zone: String,
    /// How long a Dataplane outlives its last stream (`xdsServer.dataplaneDeregistrationDelay`).
    pub deregistration_delay: Duration,
}

/// The proxies of a zone. Cheap to clone.
#[derive(Clone)]
pub struct ZoneProxies(Arc<Shared>);

struct Shared {
    settings: ProxySettings,
    store: Arc<dyn Store>,
    engine: EngineHandle,
    observations: Observations,
    insights: InsightsHandle,
    spawner: Spawner,
    clock: Clock,
    registrations: Mutex<BTreeMap<ProxyId, Registration>>,
    /// Held while a proxy's Dataplane is stored or removed, so that a late removal never hits a proxy that is back.
    gates: [tokio::sync::Mutex<()>; GATES],
}

/// What is remembered of a proxy while it is registered.
struct Registration {
    /// Its newest stream.
    stream: StreamId,
    /// It brought its Dataplane itself, so the Dataplane goes with it.
    is_self_registered: bool,
    /// Its Envoy was seen healthy: from now on, bad health means something.
    was_healthy: bool,
}

impl ZoneProxies {
    /// Proxies that are stored in `store` and served by `engine`.
    pub fn new(
        settings: ProxySettings,
        store: Arc<dyn Store>,
        engine: EngineHandle,
        observations: Observations,
        insights: InsightsHandle,
        spawner: Spawner,
        clock: Clock,
    ) -> ZoneProxies {
        let registrations = Mutex::default();
        let gates = std::array::from_fn(|_| tokio::sync::Mutex::default());
        ZoneProxies(Arc::new(Shared {
            settings,
            store,
            engine,
            observations,
            insights,
            spawner,
            clock,
            registrations,
            gates,
        }))
    }

    fn dataplane(&self, proxy: &ProxyId) -> Option<Arc<Resource>> {
        self.0.store.snapshot().get(&proxy.key())
    }

    /// Stores the Dataplane that a proxy brought: spec and labels of the request, computed labels on top.
    async fn register(&self, mut brought: Resource) -> Result<(), ConnectError> {
        let shared = &self.0;
        let site = Site { mode: shared.settings.mode, zone: &shared.settings.zone };
        let key = brought.key();
        if let Some(mut spec) = brought.spec_as::<Dataplane>().cloned() {
            prepare(&mut spec, &shared.settings.zone);
            brought.spec = spec.wrap();
        }
        let meta = &mut brought.meta;
        meta.labels =
            labels::compute(site, Kind::Dataplane, &meta.mesh, &meta.name, &brought.spec, &meta.labels);
        meta.owner = Some(Key::new(Kind::Mesh, "", meta.mesh.clone()));
        let put = Write::Put { resource: Box::new(brought), expect: Expect::Any, touch: false };
        let txn = Txn { at: Some(shared.clock.now()), writes: vec![put] };
        match shared.store.commit(txn).await {
            Ok(_) => Ok(()),
            Err(CommitError::OwnerMissing { owner, .. }) => {
                Err(ConnectError::Refused(format!("mesh \"{}\" does not exist", owner.name)))
            }
            Err(error) => Err(ConnectError::Unavailable(format!("{key} cannot be stored: {error}"))),
        }
    }

    /// The stream may go on only if the label that the identity needs is there (xds.md §1.4).
    fn check_workload(&self, brought: &Resource) -> Result<(), ConnectError> {
        let needs = identity_needs_workload(&self.0.store.snapshot(), brought);
        if needs && brought.meta.label(labels::WORKLOAD).is_none_or(str::is_empty) {
            let reason = format!("the label {} is required: the identity derives from it", labels::WORKLOAD);
            return Err(ConnectError::Refused(reason));
        }
        Ok(())
    }

    /// Waits until nobody else lets this proxy in or out.
    async fn gate(&self, proxy: &ProxyId) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        proxy.hash(&mut hasher);
        let slot = usize::try_from(hasher.finish() % GATES as u64).unwrap_or_default();
        self.0.gates[slot].lock().await
    }

    /// Does something if this is still the newest stream of the proxy, and nothing can change that meanwhile.
    fn if_newest<T>(
        &self,
        proxy: &ProxyId,
        stream: &StreamId,
        act: impl FnOnce(&mut Registration) -> T,
    ) -> Option<T> {
        let mut registrations = self.0.registrations.lock();
        let registration = registrations.get_mut(proxy)?;
        (registration.stream == *stream).then(|| act(registration))
    }

    /// After a stream broke: asks whether the Envoy is still there, waits for a comeback, then removes what the
    /// proxy registered.
    async fn see_off(self, proxy: ProxyId, stream: StreamId) {
        let shared = &self.0;
        shared.engine.disconnect(proxy.clone(), stream.clone()).await;
        let addresses = self
            .dataplane(&proxy)
            .and_then(|stored| stored.spec_as::<Dataplane>().map(|spec| probe::addresses(spec.networking())))
            .unwrap_or_default();
        if probe::is_gone(&addresses).await {
            self.if_newest(&proxy, &stream, |_| {
                tracing::info!(%proxy, "its stream broke and its ports refuse connections: no endpoint any more");
                shared.observations.set_serving(&proxy, Serving::Gone);
            });
        }
        shared.clock.sleep(shared.settings.deregistration_delay).await;
        let _gate = self.gate(&proxy).await;
        let Some(is_self_registered) = self.if_newest(&proxy, &stream, |newest| newest.is_self_registered)
        else {
            return;
        };
        if is_self_registered {
            self.deregister(&proxy).await;
        } else {
            shared.observations.set_serving(&proxy, Serving::Gone);
        }
        shared.registrations.lock().remove(&proxy);
    }

    /// After a start: Dataplanes of an earlier run whose proxy has not come back within the deregistration delay,
    /// and whose ports refuse connections, are no endpoints any more. Others may serve without this control plane.
    pub async fn look_for_lost(self, drain: Drain) {
        tokio::select! {
            () = self.mark_lost() => {}
            () = drain.signaled() => {}
        }
    }

    async fn mark_lost(&self) {
        let shared = &self.0;
        let stored: Vec<ProxyId> = {
            let snapshot = shared.store.snapshot();
            let dataplanes = snapshot.list(Kind::Dataplane, None);
            dataplanes.map(|stored| ProxyId::new(&*stored.meta.mesh, &*stored.meta.name)).collect()
        };
        shared.clock.sleep(shared.settings.deregistration_delay).await;
        for proxy in stored {
            if shared.registrations.lock().contains_key(&proxy) {
                continue;
            }
            let Some(dataplane) = self.dataplane(&proxy) else { continue };
            let addresses = dataplane.spec_as::<Dataplane>().map(|spec| probe::addresses(spec.networking()));
            if !probe::is_gone(&addresses.unwrap_or_default()).await {
                continue;
            }
            let _gate = self.gate(&proxy).await;
            if !shared.registrations.lock().contains_key(&proxy) {
                tracing::info!(%proxy, "not back since the start, and its ports refuse connections: no endpoint any more");
                shared.observations.set_serving(&proxy, Serving::Gone);
            }
        }
    }

    async fn deregister(&self, proxy: &ProxyId) {
        let shared = &self.0;
        let writes = vec![Write::Delete { key: proxy.key(), expect: Expect::Any }];
        match shared.store.commit(Txn { at: Some(shared.clock.now()), writes }).await {
            Ok(_) => {
                tracing::info!(%proxy, "did not come back: Dataplane removed");
                shared.observations.set_serving(proxy, Serving::Unknown);
                shared.insights.forget(proxy);
            }
            Err(error) => {
                tracing::warn!(%proxy, %error, "Dataplane cannot be removed");
                shared.observations.set_serving(proxy, Serving::Gone);
            }
        }
    }

    /// Changes the stored Dataplane with `change`, again when somebody else was faster.
    async fn update(
        &self,
        proxy: &ProxyId,
        change: impl Fn(&mut Dataplane) -> bool,
    ) -> Result<(), CommitError> {
        let mut last = CommitError::NotFound(proxy.key());
        for _ in 0..WRITE_ATTEMPTS {
            let Some(stored) = self.dataplane(proxy) else { return Ok(()) };
            let Some(mut spec) = stored.spec_as::<Dataplane>().cloned() else { return Ok(()) };
            if !change(&mut spec) {
                return Ok(());
            }
            let resource =
                Resource { meta: stored.meta.clone(), spec: spec.wrap(), status: stored.status.clone() };
            let expect = Expect::Version(stored.meta.version);
            let writes = vec![Write::Put { resource: Box::new(resource), expect, touch: false }];
            match self.0.store.commit(Txn { at: Some(self.0.clock.now()), writes }).await {
                Ok(_) => return Ok(()),
                Err(error @ (CommitError::Conflict { .. } | CommitError::NotFound(_))) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// What the manager of Dataplanes does with a new one (resources.md §7.2): probed inbounds begin unready, and a
/// gateway is marked with its zone.
fn prepare(spec: &mut Dataplane, zone: &str) {
    let Some(networking) = &mut spec.networking else { return };
    for inbound in networking.inbound.iter_mut().filter(|inbound| inbound.service_probe.is_some()) {
        inbound.state = InboundState::NotReady;
        inbound.health = Some(Health { ready: false });
    }
    if let Some(gateway) = &mut networking.gateway {
        gateway.tags.insert(labels::ZONE.into(), zone.into());
    }
}

/// Moves inbounds between Ready and NotReady as a report says; tells whether anything changed.
fn apply_health(spec: &mut Dataplane, report: &HealthReport) -> bool {
    let Some(networking) = &mut spec.networking else { return false };
    let mut changed = false;
    for inbound in &mut networking.inbound {
        let port = if inbound.service_port == 0 { inbound.port } else { inbound.service_port };
        let state = if report.is_healthy(port) { InboundState::Ready } else { InboundState::NotReady };
        if inbound.state == InboundState::Ignored || inbound.state == state {
            continue;
        }
        inbound.state = state;
        inbound.health = Some(Health { ready: state == InboundState::Ready });
        changed = true;
    }
    changed
}

#[async_trait]
impl Proxies for ZoneProxies {
    async fn stored_dataplane(&self, proxy: &ProxyId) -> Option<Arc<Resource>> {
        self.dataplane(proxy)
    }

    async fn has_mesh(&self, mesh: &str) -> bool {
        self.0.store.snapshot().contains(&Key::new(Kind::Mesh, "", mesh))
    }

    async fn connect(&self, hello: Hello, stream: &StreamId) -> Result<Snapshots, ConnectError> {
        let shared = &self.0;
        let proxy = hello.id;
        let is_self_registered = hello.dataplane.is_some();
        if let Some(brought) = &hello.dataplane {
            self.check_workload(brought)?;
        }
        let _gate = self.gate(&proxy).await;
        // Remembered before it is stored: whatever becomes of this future, the end of the stream cleans up.
        let registration = Registration { stream: stream.clone(), is_self_registered, was_healthy: false };
        shared.registrations.lock().insert(proxy.clone(), registration);
        if let Some(brought) = hello.dataplane {
            self.register(brought).await?;
        }
        self.if_newest(&proxy, stream, |_| {
            // A proxy whose connection merely broke goes on serving; any other one has to load its listeners first.
            if shared.observations.serving(&proxy) != Serving::Serving {
                shared.observations.set_serving(&proxy, Serving::Starting);
            }
            shared.observations.set_connected(&proxy, true);
        });
        shared.insights.open(&proxy, &stream.0, hello.metadata);
        let ended = |error: crate::engine::Ended| ConnectError::Unavailable(error.to_string());
        shared.engine.connect(proxy, stream.clone(), hello.node).await.map_err(ended)
    }

    fn event(&self, proxy: &ProxyId, stream: &StreamId, event: Event) {
        let recorded = self.if_newest(proxy, stream, |_| match &event {
            Event::Serving => {
                if self.0.observations.serving(proxy) != Serving::Draining {
                    self.0.observations.set_serving(proxy, Serving::Serving);
                }
            }
            Event::Nacked { kind, names, message, .. } => {
                tracing::warn!(%proxy, ?kind, ?names, message, "the proxy rejected configuration");
            }
            Event::Sent { .. } | Event::Acked { .. } | Event::Synced { .. } => {}
        });
        if recorded.is_some() {
            self.0.insights.happened(proxy, &stream.0, event);
        }
    }

    fn disconnected(&self, proxy: &ProxyId, stream: &StreamId, end: End) {
        self.0.insights.close(proxy, &stream.0);
        if end == End::Shutdown || end == End::Replaced {
            return;
        }
        let disconnect = |_: &mut Registration| self.0.observations.set_connected(proxy, false);
        if self.if_newest(proxy, stream, disconnect).is_none() {
            return;
        }
        let name = format!("see off {proxy}");
        self.0.spawner.best_effort(name, self.clone().see_off(proxy.clone(), stream.clone()));
    }

    async fn watch_dataplane(&self, proxy: &ProxyId) -> watch::Receiver<Option<Arc<Resource>>> {
        let key = proxy.key();
        let mut feed = self.0.store.watch(None);
        let (sender, receiver) = watch::channel(self.dataplane(proxy));
        self.0.spawner.best_effort(format!("watch {proxy}"), async move {
            loop {
                let event = tokio::select! {
                    () = sender.closed() => return,
                    event = feed.next() => event,
                };
                let current = match event {
                    None => return,
                    Some(FeedEvent::Resync(snapshot)) => snapshot.get(&key),
                    Some(FeedEvent::Batch(batch)) => {
                        match batch.changes.iter().find(|change| change.key == key) {
                            Some(change) => change.new.clone(),
                            None => continue,
                        }
                    }
                };
                sender.send_if_modified(|known| {
                    let changed = *known != current;
                    *known = current;
                    changed
                });
            }
        });
        receiver
    }

    async fn health(&self, proxy: &ProxyId, report: HealthReport) {
        let mut report = report;
        {
            // An Envoy that starts reports that it is not live yet; that is no news, and it would keep the proxy
            // out until the next report.
            let mut registrations = self.0.registrations.lock();
            let Some(registration) = registrations.get_mut(proxy) else { return };
            registration.was_healthy |= report.admin_healthy;
            report.admin_healthy |= !registration.was_healthy;
        }
        if let Err(error) = self.update(proxy, |spec| apply_health(spec, &report)).await {
            tracing::warn!(%proxy, %error, "health cannot be stored");
        }
    }

    async fn drain(&self, proxy: &ProxyId) -> Result<(), ConnectError> {
        tracing::info!(%proxy, "proxy drains");
        self.0.observations.set_serving(proxy, Serving::Draining);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
