//! What is counted of everything, kept up to date change by change: a read costs what changed since the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt as _;
use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::kinds::dataplane_insight::DataplaneInsight;
use graticule_model::kinds::mesh_insight::{DataplaneStat, MeshInsight, ResourceStat};
use graticule_model::kinds::mesh_service::MeshService;
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Kind, Resource, Timestamp, labels};
use graticule_store::{Event, Feed, Revision, Snapshot, Store};

use super::{Health, version_of};

/// A version that nobody reported.
const UNKNOWN_VERSION: &str = "unknown";

/// Counters of everything.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counters {
    meshes: BTreeMap<String, MeshCounters>,
    /// Services by the health of the proxies behind them.
    internal_services: DataplaneStat,
    /// Delegated gateways by mesh and the service that their tags name.
    gateway_services: BTreeMap<(String, String), DataplaneStat>,
    zones: u32,
    zones_online: u32,
    /// By mesh and name.
    proxies: BTreeMap<(String, String), Proxy>,
}

/// Counters of one mesh.
#[derive(Debug, Default, PartialEq)]
struct MeshCounters {
    insight: MeshInsight,
    /// When its resources were modified, and how many then.
    modified: BTreeMap<Timestamp, u32>,
}

/// What a proxy is counted by.
#[derive(Debug, Clone, Default, PartialEq)]
struct Proxy {
    dataplane: Option<Arc<Resource>>,
    insight: Option<Arc<Resource>>,
}

/// In or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    In,
    Out,
}

impl Step {
    fn by(self, count: &mut u32) {
        *count = match self {
            Step::In => count.saturating_add(1),
            Step::Out => count.saturating_sub(1),
        };
    }

    fn of(self, health: Health, stat: &mut DataplaneStat) {
        self.by(&mut stat.total);
        self.by(match health {
            Health::Offline => &mut stat.offline,
            Health::PartiallyDegraded => &mut stat.partially_degraded,
            Health::Online => &mut stat.online,
        });
    }

    fn among<K: Ord + Clone>(self, health: Health, key: K, stats: &mut BTreeMap<K, DataplaneStat>) {
        let stat = stats.entry(key.clone()).or_default();
        self.of(health, stat);
        if stat.total == 0 {
            stats.remove(&key);
        }
    }
}

impl MeshCounters {
    fn is_empty(&self) -> bool {
        self.insight.resources.is_empty()
    }

    fn resource(&mut self, step: Step, resource: &Resource) {
        let kind = resource.kind().name();
        let stat: &mut ResourceStat = self.insight.resources.entry(kind.to_owned()).or_default();
        step.by(&mut stat.total);
        if stat.total == 0 {
            self.insight.resources.remove(kind);
        }
        let at = resource.meta.modification_time;
        let count = self.modified.entry(at).or_default();
        step.by(count);
        if *count == 0 {
            self.modified.remove(&at);
        }
    }

    fn proxy(&mut self, step: Step, dataplane: &Dataplane, observed: Option<&DataplaneInsight>) {
        let insight = &mut self.insight;
        let health = Health::of(dataplane, observed);
        step.of(health, &mut insight.dataplanes);
        if dataplane.is_gateway() {
            step.of(health, &mut insight.dataplanes_by_type.gateway);
            step.of(health, &mut insight.dataplanes_by_type.gateway_delegated);
        } else {
            step.of(health, &mut insight.dataplanes_by_type.standard);
        }
        let version = observed.and_then(|observed| observed.subscriptions.last()).and_then(version_of);
        let (agent, envoy) = version.unwrap_or_default();
        let known = |version: String| if version.is_empty() { UNKNOWN_VERSION.to_owned() } else { version };
        step.among(health, known(agent), &mut insight.dp_versions.kuma_dp);
        step.among(health, known(envoy), &mut insight.dp_versions.envoy);
        let Some(mtls) = observed.and_then(|observed| observed.mtls.as_ref()) else { return };
        if !mtls.issued_backend.is_empty() {
            step.among(health, mtls.issued_backend.clone(), &mut insight.mtls.issued_backends);
        }
        for backend in mtls.supported_backends.iter().collect::<BTreeSet<_>>() {
            step.among(health, backend.clone(), &mut insight.mtls.supported_backends);
        }
    }
}

impl Proxy {
    fn parts(&self) -> Option<(&Resource, &Dataplane, Option<&DataplaneInsight>)> {
        let resource = self.dataplane.as_deref()?;
        let observed = self.insight.as_ref().and_then(|resource| resource.spec_as());
        Some((resource, resource.spec_as()?, observed))
    }
}

impl Counters {
    /// Counters of this mesh, and when it was last modified; none when nothing is in it.
    pub(crate) fn mesh(&self, name: &str) -> (MeshInsight, Option<Timestamp>) {
        let Some(mesh) = self.meshes.get(name) else { return (MeshInsight::default(), None) };
        (mesh.insight.clone(), mesh.modified.last_key_value().map(|(at, _)| *at))
    }

    /// Services by the health of the proxies behind them.
    pub(crate) fn internal_services(&self) -> DataplaneStat {
        self.internal_services
    }

    /// Services of delegated gateways: online when all gateways are, offline when none is.
    pub(crate) fn gateway_services(&self) -> DataplaneStat {
        let mut all = DataplaneStat::default();
        for stat in self.gateway_services.values() {
            let health = if stat.online == stat.total {
                Health::Online
            } else if stat.offline == stat.total {
                Health::Offline
            } else {
                Health::PartiallyDegraded
            };
            Step::In.of(health, &mut all);
        }
        all
    }

    /// Zones that were seen, and those that are online.
    pub(crate) fn zones(&self) -> (u32, u32) {
        (self.zones, self.zones_online)
    }

    /// Takes an event of either store; `plane` tells whose kinds a resync is about.
    fn apply(&mut self, plane: Plane, event: &Event) {
        match event {
            Event::Batch(batch) => {
                for change in &batch.changes {
                    self.change(change.old.as_ref(), change.new.as_ref());
                }
            }
            Event::Resync(snapshot) => {
                self.forget(plane);
                for resource in snapshot.iter() {
                    self.change(None, Some(resource));
                }
            }
        }
    }

    /// Everything of one store is told anew.
    fn forget(&mut self, plane: Plane) {
        let proxies = std::mem::take(&mut self.proxies);
        let kept = |proxy: Proxy| match plane {
            Plane::Config => Proxy { dataplane: None, ..proxy },
            Plane::Status => Proxy { insight: None, ..proxy },
        };
        match plane {
            Plane::Config => {
                let (zones, zones_online) = (self.zones, self.zones_online);
                *self = Counters { zones, zones_online, ..Counters::default() };
            }
            Plane::Status => (self.zones, self.zones_online) = (0, 0),
        }
        for (key, proxy) in proxies {
            if plane == Plane::Status {
                self.count(Step::Out, &proxy);
            }
            let proxy = kept(proxy);
            if proxy != Proxy::default() {
                self.count(Step::In, &proxy);
                self.proxies.insert(key, proxy);
            }
        }
    }

    fn change(&mut self, old: Option<&Arc<Resource>>, new: Option<&Arc<Resource>>) {
        for (step, resource) in [(Step::Out, old), (Step::In, new)] {
            let Some(resource) = resource else { continue };
            if is_counted(resource.kind()) {
                let mesh = self.meshes.entry(resource.meta.mesh.clone()).or_default();
                mesh.resource(step, resource);
            }
            match resource.kind() {
                Kind::MeshService => step.of(service_health(resource), &mut self.internal_services),
                Kind::ZoneInsight => {
                    step.by(&mut self.zones);
                    if resource.spec_as().is_some_and(ZoneInsight::is_online) {
                        step.by(&mut self.zones_online);
                    }
                }
                _ => {}
            }
        }
        let Some(resource) = new.or(old) else { return };
        if matches!(resource.kind(), Kind::Dataplane | Kind::DataplaneInsight) {
            self.change_proxy(resource, new);
        }
        // Only now: its proxies were counted in it.
        if new.is_none() && self.meshes.get(&resource.meta.mesh).is_some_and(MeshCounters::is_empty) {
            self.meshes.remove(&resource.meta.mesh);
        }
    }

    fn change_proxy(&mut self, resource: &Resource, new: Option<&Arc<Resource>>) {
        let key = (resource.meta.mesh.clone(), resource.meta.name.clone());
        let mut proxy = self.proxies.remove(&key).unwrap_or_default();
        self.count(Step::Out, &proxy);
        match resource.kind() {
            Kind::Dataplane => proxy.dataplane = new.cloned(),
            _ => proxy.insight = new.cloned(),
        }
        self.count(Step::In, &proxy);
        if proxy != Proxy::default() {
            self.proxies.insert(key, proxy);
        }
    }

    fn count(&mut self, step: Step, proxy: &Proxy) {
        let Some((resource, dataplane, observed)) = proxy.parts() else { return };
        let meta = &resource.meta;
        self.meshes.entry(meta.mesh.clone()).or_default().proxy(step, dataplane, observed);
        if let Some(gateway) = &dataplane.networking().gateway {
            let service = gateway.tags.get(labels::SERVICE).unwrap_or(&meta.name);
            let health = Health::of(dataplane, observed);
            step.among(health, (meta.mesh.clone(), service.clone()), &mut self.gateway_services);
        }
    }
}

fn is_counted(kind: Kind) -> bool {
    let descriptor = kind.descriptor();
    !descriptor.is_global_scoped() && !descriptor.capabilities.soft
}

/// A service is as online as the proxies behind it.
fn service_health(service: &Resource) -> Health {
    let proxies = service.status_of::<MeshService>().map(|status| status.dataplane_proxies);
    let proxies = proxies.unwrap_or_default();
    match proxies.connected.min(proxies.healthy) {
        0 => Health::Offline,
        working if working < proxies.total => Health::PartiallyDegraded,
        _ => Health::Online,
    }
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plane {
    Config,
    Status,
}

/// Counters that follow both stores when they are asked.
pub(crate) struct Aggregates {
    store: Arc<dyn Store>,
    soft: Arc<dyn Store>,
    followed: tokio::sync::Mutex<Followed>,
}

struct Followed {
    config: Position,
    status: Position,
    counters: Counters,
}

struct Position {
    feed: Box<dyn Feed>,
    at: Option<Revision>,
}

impl Position {
    /// Takes everything up to the revision, and whatever else is there.
    async fn follow(&mut self, plane: Plane, until: Revision, counters: &mut Counters) {
        loop {
            let event = match self.feed.next().now_or_never() {
                Some(event) => event,
                None if self.at.is_none_or(|at| at < until) => self.feed.next().await,
                None => return,
            };
            let Some(event) = event else { return };
            self.at = Some(match &event {
                Event::Batch(batch) => batch.revision,
                Event::Resync(snapshot) => snapshot.revision(),
            });
            counters.apply(plane, &event);
        }
    }
}

impl Aggregates {
    /// Nothing is read until somebody asks.
    pub(crate) fn new(store: Arc<dyn Store>, soft: Arc<dyn Store>) -> Aggregates {
        let position = |store: &Arc<dyn Store>| Position { feed: store.watch(None), at: None };
        let (config, status) = (position(&store), position(&soft));
        let followed = Followed { config, status, counters: Counters::default() };
        Aggregates { store, soft, followed: tokio::sync::Mutex::new(followed) }
    }

    /// Shows the counters of what is stored now.
    pub(crate) async fn read<T>(&self, show: impl FnOnce(&Counters, &Snapshot, &Snapshot) -> T) -> T {
        let mut followed = self.followed.lock().await;
        let (state, soft) = (self.store.snapshot(), self.soft.snapshot());
        let Followed { config, status, counters } = &mut *followed;
        config.follow(Plane::Config, state.revision(), counters).await;
        status.follow(Plane::Status, soft.revision(), counters).await;
        show(counters, &state, &soft)
    }
}

#[cfg(test)]
mod tests;
