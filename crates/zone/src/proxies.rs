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
use graticule_store::{CommitError, Committed, Event as FeedEvent, Expect, Store, Txn, Write};
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

mod orphans;

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
    /// Other replicas may serve the same proxies: a Dataplane is removed only if nobody else wrote it meanwhile.
    pub has_replicas: bool,
    /// Proxies of other meshes are refused (`multizone.zone.meshes`); empty: none is.
    pub meshes: Vec<String>,
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
    /// Version of its Dataplane after the last write of this replica: any other one is somebody else's, such as the
    /// replica that the proxy went to.
    version: u64,
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

    /// Stores the Dataplane that a proxy brought: spec and labels of the request, computed labels on top. Gives its
    /// version. `known` = the version that this replica wrote last, 0 = none: unless that is what is stored, a new
    /// version tells the other replicas that the proxy is here now.
    async fn register(&self, mut brought: Resource, known: u64) -> Result<u64, ConnectError> {
        let shared = &self.0;
        let site = Site { mode: shared.settings.mode, zone: &shared.settings.zone };
        let key = brought.key();
        // Not its owner: a Dataplane outlives its mesh (federation.md §5.4).
        if !self.has_mesh(&key.mesh).await {
            return Err(ConnectError::Refused(format!("mesh \"{}\" does not exist", key.mesh)));
        }
        if let Some(mut spec) = brought.spec_as::<Dataplane>().cloned() {
            prepare(&mut spec, &shared.settings.zone);
            brought.spec = spec.wrap();
        }
        let meta = &mut brought.meta;
        meta.labels =
            labels::compute(site, Kind::Dataplane, &meta.mesh, &meta.name, &brought.spec, &meta.labels);
        let commit = |resource: Resource, expect: Expect, touch: bool| {
            let writes = vec![Write::Put { resource: Box::new(resource), expect, touch }];
            shared.store.commit(Txn { at: Some(shared.clock.now()), writes })
        };
        let mut outcome = None;
        if shared.settings.has_replicas && known > 0 {
            outcome = match commit(brought.clone(), Expect::Version(known), false).await {
                Err(CommitError::Conflict { .. } | CommitError::NotFound(_)) => None,
                outcome => Some(outcome),
            };
        }
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => commit(brought, Expect::Any, shared.settings.has_replicas).await,
        };
        match outcome {
            Ok(committed) => Ok(version_of(&committed, &key)
                .or_else(|| Some(shared.store.snapshot().get(&key)?.meta.version))
                .unwrap_or_default()),
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
            let gone = self.if_newest(&proxy, &stream, |_| {
                tracing::info!(%proxy, "its stream broke and its ports refuse connections: no endpoint any more");
                shared.observations.set_serving(&proxy, Serving::Gone);
            });
            if gone.is_some() {
                self.withdraw(&proxy).await;
            }
        }
        shared.clock.sleep(shared.settings.deregistration_delay).await;
        let _gate = self.gate(&proxy).await;
        let newest = |newest: &mut Registration| (newest.is_self_registered, newest.version);
        let Some((is_self_registered, version)) = self.if_newest(&proxy, &stream, newest) else {
            return;
        };
        if is_self_registered {
            self.deregister(&proxy, version).await;
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

    /// Proxies that were lost here and came back at another replica, as a new version of their Dataplane says, are
    /// judged by what is stored again.
    pub async fn look_for_found(self, drain: Drain) {
        if !self.0.settings.has_replicas {
            return;
        }
        let mut feed = self.0.store.watch(None);
        while let Some(event) = drain.unless_signaled(feed.next()).await {
            match event {
                FeedEvent::Batch(batch) => {
                    for new in batch.changes.iter().filter_map(|change| change.new.as_ref()) {
                        self.forget_found(new);
                    }
                }
                FeedEvent::Resync(snapshot) => {
                    snapshot.list(Kind::Dataplane, None).for_each(|stored| self.forget_found(stored));
                }
            }
        }
    }

    fn forget_found(&self, stored: &Resource) {
        if stored.kind() != Kind::Dataplane {
            return;
        }
        let (shared, proxy) = (&self.0, ProxyId::new(&*stored.meta.mesh, &*stored.meta.name));
        if shared.observations.serving(&proxy) != Serving::Gone {
            return;
        }
        let registrations = shared.registrations.lock();
        if registrations.get(&proxy).is_none_or(|known| known.version < stored.meta.version) {
            shared.observations.set_serving(&proxy, Serving::Unknown);
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

    async fn deregister(&self, proxy: &ProxyId, version: u64) {
        let shared = &self.0;
        let expect = if shared.settings.has_replicas { Expect::Version(version) } else { Expect::Any };
        let writes = vec![Write::Delete { key: proxy.key(), expect }];
        match shared.store.commit(Txn { at: Some(shared.clock.now()), writes }).await {
            Err(CommitError::Conflict { .. } | CommitError::NotFound(_)) => {
                tracing::info!(%proxy, "went to another replica, or was written by somebody else: Dataplane stays");
                shared.observations.set_serving(proxy, Serving::Unknown);
                shared.insights.forget(proxy);
            }
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

    /// Tells the other replicas that a proxy takes no traffic any more: what this one observed is not theirs. Only what
    /// the proxy brought itself, because it brings it again when it comes back.
    async fn withdraw(&self, proxy: &ProxyId) {
        let shared = &self.0;
        let known =
            shared.registrations.lock().get(proxy).map(|known| (known.is_self_registered, known.version));
        let Some((true, version)) = known.filter(|_| shared.settings.has_replicas) else { return };
        // At any other version somebody else has it.
        let Some(stored) = self.dataplane(proxy).filter(|stored| stored.meta.version == version) else {
            return;
        };
        let Some(mut spec) = stored.spec_as::<Dataplane>().cloned() else { return };
        if !unready(&mut spec) {
            return;
        }
        let resource =
            Resource { meta: stored.meta.clone(), spec: spec.wrap(), status: stored.status.clone() };
        let txn = Txn::default().and_put(resource, Expect::Version(version));
        match shared.store.commit(Txn { at: Some(shared.clock.now()), ..txn }).await {
            Ok(committed) => self.note_version(proxy, version, &committed),
            Err(error) => {
                tracing::debug!(%proxy, %error, "other replicas were not told that it takes no traffic");
            }
        }
    }

    /// Remembers the version that this replica wrote after `before`.
    fn note_version(&self, proxy: &ProxyId, before: u64, committed: &Committed) {
        if let Some(version) = version_of(committed, &proxy.key())
            && let Some(registration) = self.0.registrations.lock().get_mut(proxy)
            && registration.version == before
        {
            registration.version = version;
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
                Ok(committed) => {
                    self.note_version(proxy, stored.meta.version, &committed);
                    return Ok(());
                }
                Err(error @ (CommitError::Conflict { .. } | CommitError::NotFound(_))) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// The version that a transaction gave a resource; none when it changed nothing.
fn version_of(committed: &Committed, key: &Key) -> Option<u64> {
    let change = committed.batch.changes.iter().find(|change| change.key == *key)?;
    Some(change.new.as_ref()?.meta.version)
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

/// Makes all inbounds unready; tells whether anything changed.
fn unready(spec: &mut Dataplane) -> bool {
    let inbounds = spec.networking.iter_mut().flat_map(|networking| &mut networking.inbound);
    let ready = inbounds.filter(|inbound| inbound.state == InboundState::Ready);
    let mut changed = false;
    for inbound in ready {
        inbound.state = InboundState::NotReady;
        inbound.health = Some(Health { ready: false });
        changed = true;
    }
    changed
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

    /// Of a mesh that the zone takes no part in it has no policies and no identity. A proxy that is there already is served
    /// until it goes: the zone keeps such a mesh that long.
    async fn refusal(&self, id: &ProxyId) -> Option<String> {
        let meshes = &self.0.settings.meshes;
        if meshes.is_empty() || meshes.contains(&id.mesh) || self.dataplane(id).is_some() {
            return None;
        }
        Some(format!("this zone takes no part in mesh {:?}: multizone.zone.meshes does not name it", id.mesh))
    }

    async fn connect(&self, hello: Hello, stream: &StreamId) -> Result<Snapshots, ConnectError> {
        let shared = &self.0;
        let proxy = hello.id;
        if hello.dataplane.is_some()
            && let Some(refusal) = self.refusal(&proxy).await
        {
            return Err(ConnectError::Refused(refusal));
        }
        let (is_self_registered, resumes) = (hello.dataplane.is_some(), hello.resumes);
        if let Some(brought) = &hello.dataplane {
            self.check_workload(brought)?;
        }
        let _gate = self.gate(&proxy).await;
        // Remembered before it is stored: whatever becomes of this future, the end of the stream cleans up.
        let mut registration =
            Registration { stream: stream.clone(), is_self_registered, was_healthy: false, version: 0 };
        let known = {
            let mut registrations = shared.registrations.lock();
            let known = registrations.get(&proxy).map_or(0, |known| known.version);
            registration.version = known;
            registrations.insert(proxy.clone(), registration);
            known
        };
        if let Some(brought) = hello.dataplane {
            let version = self.register(brought, known).await?;
            self.if_newest(&proxy, stream, |newest| newest.version = version);
        }
        self.if_newest(&proxy, stream, |_| {
            // A proxy whose connection merely broke goes on serving, and so does one that was judged by its Dataplane alone
            // since this process was started; any other one has to load its listeners first.
            let goes_on = match shared.observations.serving(&proxy) {
                Serving::Serving => true,
                Serving::Unknown => resumes,
                Serving::Starting | Serving::Draining | Serving::Gone => false,
            };
            if !goes_on {
                shared.observations.set_serving(&proxy, Serving::Starting);
            }
            shared.observations.set_connected(&proxy, true);
        });
        shared.insights.open(&proxy, &stream.0, hello.metadata, is_self_registered);
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
        if self.0.settings.has_replicas && self.0.observations.serving(proxy) == Serving::Draining {
            // The other replicas were told that it takes no traffic.
            return;
        }
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
        self.withdraw(proxy).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
