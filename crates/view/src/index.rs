//! The index of one zone: what a batch of changes means for which proxies, and the inputs of one proxy.
//!
//! Single writer. Work is proportional to what changed (DESIGN decision 3): observations and counters make nobody
//! dirty, a changed endpoint only those that have the destination, policies and identities the proxies of their
//! mesh. A resync takes the same path as a batch (DESIGN decision 6).

mod assemble;
mod mesh;
mod share;
#[cfg(test)]
mod tests;
mod transparent;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use graticule_model::kinds::mesh_identity::MeshIdentity;
use graticule_model::{Key, Kind, Resource};
use graticule_policy::inputs::ConnectionLife;
use graticule_policy::{NodeFacts, ProxyId, ProxyInputs};

use crate::derive::{AuthorityReport, DeriveSettings, DeriveState};
use crate::identity;
use crate::proxy::Serving;
use crate::resources::ResourceSet;
pub use assemble::InputsError;
use mesh::{Effects, MeshView};

/// Settings of a zone.
#[derive(Debug, Clone)]
pub struct ZoneSettings {
    /// Name of the zone.
    pub zone: String,
    /// CIDRs of internal addresses (`ipam.knownInternalCIDRs`).
    pub internal_cidrs: Vec<String>,
    /// Life of connections to other zones (DESIGN decision 15); none = unlimited.
    pub cross_zone: Option<ConnectionLife>,
}

impl ZoneSettings {
    /// A zone with default settings.
    pub fn new(zone: impl Into<String>) -> ZoneSettings {
        let cidrs = [
            "10.0.0.0/8",
            "192.168.0.0/16",
            "172.16.0.0/12",
            "fc00::/7",
            "fd00::/8",
            "127.0.0.1/32",
            "::1/128",
        ];
        let internal_cidrs = cidrs.into_iter().map(str::to_owned).collect();
        ZoneSettings { zone: zone.into(), internal_cidrs, cross_zone: None }
    }
}

/// What a change concerns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Connected proxies whose inputs may be different now.
    pub proxies: BTreeSet<ProxyId>,
    /// Meshes that the leader derives again (`derive_meshes`).
    pub meshes: BTreeSet<String>,
}

impl Dirty {
    /// Adds what another change concerns.
    pub fn merge(&mut self, other: Dirty) {
        self.proxies.extend(other.proxies);
        self.meshes.extend(other.meshes);
    }

    /// Nobody is concerned.
    pub fn is_empty(&self) -> bool {
        self.proxies.is_empty() && self.meshes.is_empty()
    }
}

/// The MeshIdentity that a Dataplane gets.
#[derive(Debug, Clone, PartialEq)]
pub struct BestIdentity {
    /// The resource; it may not be ready.
    pub resource: Arc<Resource>,
    /// Its path derives from the label `kuma.io/workload`, which a token then has to vouch for.
    pub needs_workload: bool,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    settings: ZoneSettings,
    cidrs: InternalCidrs,
    set: ResourceSet,
    meshes: BTreeMap<String, MeshView>,
    serving: BTreeMap<ProxyId, Serving>,
    resolved: HashMap<String, IpAddr>,
}

#[derive(Debug)]
struct InternalCidrs {
    both: Arc<Vec<String>>,
    ipv4: Arc<Vec<String>>,
}

impl InternalCidrs {
    fn new(given: &[String]) -> InternalCidrs {
        let list = |cidrs: Vec<String>| {
            let none = || ["127.0.0.1/32", "::1/128"].into_iter().map(str::to_owned).collect();
            Arc::new(if cidrs.is_empty() { none() } else { cidrs })
        };
        let ipv4 = given.iter().filter(|cidr| !cidr.contains(':')).cloned().collect();
        InternalCidrs { both: list(given.to_vec()), ipv4: list(ipv4) }
    }
}

/// What a mesh needs to know of the zone.
struct Surroundings<'a> {
    settings: &'a ZoneSettings,
    cidrs: &'a InternalCidrs,
    serving: &'a BTreeMap<ProxyId, Serving>,
    resolved: &'a HashMap<String, IpAddr>,
}

impl Surroundings<'_> {
    /// The IP address that an address stands for; none while a DNS name is not resolved.
    fn resolve(&self, address: &str) -> Option<String> {
        if address.parse::<IpAddr>().is_ok() {
            return Some(address.to_owned());
        }
        self.resolved.get(address).map(IpAddr::to_string)
    }

    fn accepts_traffic(&self, dataplane: &Resource) -> bool {
        let proxy = ProxyId::new(dataplane.meta.mesh.clone(), dataplane.meta.name.clone());
        self.serving.get(&proxy).copied().unwrap_or_default().accepts_traffic()
    }
}

impl Index {
    /// An empty index.
    pub fn new(settings: ZoneSettings) -> Index {
        Index {
            cidrs: InternalCidrs::new(&settings.internal_cidrs),
            settings,
            set: ResourceSet::default(),
            meshes: BTreeMap::new(),
            serving: BTreeMap::new(),
            resolved: HashMap::new(),
        }
    }

    /// All resources, as the batches so far left them.
    pub fn resources(&self) -> &ResourceSet {
        &self.set
    }

    /// The state that the leader derives from; `connected` counts the proxies of all replicas.
    pub fn derive_state<'a>(
        &'a self,
        settings: &'a DeriveSettings,
        connected: &'a BTreeSet<ProxyId>,
        authorities: &'a BTreeMap<Key, AuthorityReport>,
    ) -> DeriveState<'a> {
        let (resources, zone, serving) = (&self.set, self.settings.zone.as_str(), &self.serving);
        DeriveState { resources, zone, settings, connected, serving, authorities }
    }

    /// Proxies connected to this replica.
    pub fn connected(&self) -> BTreeSet<ProxyId> {
        let names =
            self.meshes.iter().flat_map(|(mesh, view)| view.proxies.keys().map(move |name| (mesh, name)));
        names.map(|(mesh, name)| ProxyId::new(mesh, name)).collect()
    }

    /// Replaces everything: a batch that holds everything.
    pub fn reset(&mut self, all: impl Iterator<Item = Arc<Resource>>) -> Dirty {
        let mut changes: BTreeMap<Key, Option<Arc<Resource>>> =
            self.set.iter().map(|(key, _)| (key.clone(), None)).collect();
        changes.extend(all.map(|resource| (resource.key(), Some(resource))));
        self.apply(&changes.into_iter().collect::<Vec<_>>())
    }

    /// Takes a batch over: each key with what it holds now.
    pub fn apply(&mut self, changes: &[(Key, Option<Arc<Resource>>)]) -> Dirty {
        let mut effects: BTreeMap<String, Effects> = BTreeMap::new();
        let mut derive_all = false;
        for (key, new) in changes {
            if key.kind.descriptor().capabilities.soft {
                continue;
            }
            let old = self.set.set(key.clone(), new.clone());
            let mesh = match key.kind {
                Kind::Mesh => &key.name,
                kind if kind.descriptor().is_global_scoped() => {
                    derive_all |= kind == Kind::HostnameGenerator
                        && old.as_ref().map(|r| &r.spec) != new.as_ref().map(|r| &r.spec);
                    continue;
                }
                _ => &key.mesh,
            };
            let view = self.meshes.entry(mesh.clone()).or_default();
            view.change(key, old.as_ref(), new.as_ref(), effects.entry(mesh.clone()).or_default());
        }
        let mut dirty = self.settle(effects);
        if derive_all {
            dirty.meshes.extend(self.set.all(Kind::Mesh).map(|mesh| mesh.meta.name.clone()));
        }
        dirty
    }

    fn settle(&mut self, effects: BTreeMap<String, Effects>) -> Dirty {
        let mut dirty = Dirty::default();
        let Index { settings, cidrs, meshes, serving, resolved, .. } = self;
        let around = Surroundings { settings, cidrs, serving, resolved };
        for (mesh, effects) in effects {
            let Some(view) = meshes.get_mut(&mesh) else { continue };
            if effects.derive {
                dirty.meshes.insert(mesh.clone());
            }
            let names = view.settle(&around, effects);
            dirty.proxies.extend(names.into_iter().map(|name| ProxyId::new(mesh.clone(), name)));
        }
        dirty
    }

    /// A proxy has an open stream to this replica, or says something new about itself.
    pub fn connect(&mut self, proxy: ProxyId, node: NodeFacts) -> Dirty {
        let view = self.meshes.entry(proxy.mesh.clone()).or_default();
        view.proxies.insert(proxy.name.clone(), node);
        Dirty { meshes: BTreeSet::from([proxy.mesh.clone()]), proxies: BTreeSet::from([proxy]) }
    }

    /// A proxy's stream ended.
    pub fn disconnect(&mut self, proxy: &ProxyId) -> Dirty {
        let Some(view) = self.meshes.get_mut(&proxy.mesh) else { return Dirty::default() };
        view.uses.remove(&proxy.name);
        if view.proxies.remove(&proxy.name).is_none() {
            return Dirty::default();
        }
        Dirty { meshes: BTreeSet::from([proxy.mesh.clone()]), proxies: BTreeSet::new() }
    }

    /// What is observed of a proxy, on whatever replica.
    pub fn set_serving(&mut self, proxy: ProxyId, serving: Serving) -> Dirty {
        let old = match serving {
            Serving::Unknown => self.serving.remove(&proxy),
            serving => self.serving.insert(proxy.clone(), serving),
        };
        if old.unwrap_or_default().accepts_traffic() == serving.accepts_traffic() {
            return Dirty::default();
        }
        let Some(view) = self.meshes.get(&proxy.mesh) else { return Dirty::default() };
        let Some(dataplane) = view.dataplanes.get(&proxy.name) else { return Dirty::default() };
        let endpoints = view.services_of(dataplane).collect();
        let effects = Effects { derive: true, endpoints, ..Effects::default() };
        self.settle(BTreeMap::from([(proxy.mesh, effects)]))
    }

    /// The address that a DNS name stands for; none = it does not resolve (keep the last good one while unsure).
    pub fn set_resolved(&mut self, host: &str, address: Option<IpAddr>) -> Dirty {
        let old = match address {
            Some(address) => self.resolved.insert(host.to_owned(), address),
            None => self.resolved.remove(host),
        };
        if old == address {
            return Dirty::default();
        }
        let effects =
            self.meshes.iter().map(|(mesh, view)| (mesh.clone(), view.host_effects(host))).collect();
        self.settle(effects)
    }

    /// DNS names in use as addresses, for the caller to resolve.
    pub fn hosts(&self) -> BTreeSet<String> {
        let hosts = self.meshes.values().flat_map(MeshView::hosts);
        hosts.filter(|host| !host.is_empty() && host.parse::<IpAddr>().is_err()).map(str::to_owned).collect()
    }

    /// DNS names in use as addresses that have no address: their endpoints are left out.
    pub fn unresolved(&self) -> BTreeSet<String> {
        self.hosts().into_iter().filter(|host| !self.resolved.contains_key(host)).collect()
    }

    /// Inputs of a connected proxy, with what had to be left out.
    pub fn inputs(&mut self, proxy: &ProxyId) -> Result<Assembled, InputsError> {
        let Index { settings, cidrs, meshes, serving, resolved, .. } = self;
        let around = Surroundings { settings, cidrs, serving, resolved };
        let not_connected = || InputsError::NotConnected(proxy.clone());
        let view = meshes.get_mut(&proxy.mesh).ok_or_else(not_connected)?;
        let node = view.proxies.get(&proxy.name).cloned().ok_or_else(not_connected)?;
        assemble::assemble(view, &around, proxy, node)
    }

    /// The MeshIdentity for a Dataplane with these labels (xds.md §4.1), ready or not.
    pub fn best_identity(&self, mesh: &str, labels: &BTreeMap<String, String>) -> Option<BestIdentity> {
        let resource = identity::best(self.meshes.get(mesh)?.identities.values(), labels)?;
        let needs_workload = resource.spec_as::<MeshIdentity>().is_some_and(MeshIdentity::path_uses_workload);
        Some(BestIdentity { resource: resource.clone(), needs_workload })
    }
}

/// Inputs of a proxy.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The inputs.
    pub inputs: Arc<ProxyInputs>,
    /// What had to be left out or could not be applied, for people.
    pub warnings: Vec<String>,
}
