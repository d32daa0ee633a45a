//! One mesh of the index: resources by what they are looked up by, and endpoints of services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graticule_model::kinds::dataplane::{Dataplane, ListenerType};
use graticule_model::kinds::mesh_service::{MeshService, Port, Selector};
use graticule_model::kinds::mesh_trust::MeshTrust;
use graticule_model::kinds::mesh_zone_address::MeshZoneAddress;
use graticule_model::{Key, Kind, Resource, labels};
use graticule_policy::inputs::{Cluster, Endpoint, Endpoints, Locality, Outbound, Trust};
use graticule_policy::node::FEATURE_BIND_OUTBOUNDS;
use graticule_policy::{Destinations, Memo, NodeFacts, PolicySet};

use super::share::{Interner, Uses};
use super::{Surroundings, transparent};
use crate::identity;

/// Everything about one mesh.
#[derive(Debug, Default)]
pub(super) struct MeshView {
    pub(super) mesh: Option<Arc<Resource>>,
    pub(super) destinations: Destinations,
    pub(super) policies: PolicySet,
    pub(super) memo: Memo,
    pub(super) dataplanes: BTreeMap<String, Arc<Resource>>,
    by_label: HashMap<(String, String), BTreeSet<String>>,
    pub(super) identities: BTreeMap<String, Arc<Resource>>,
    trusts: BTreeMap<String, Arc<Resource>>,
    pub(super) trust: Arc<Trust>,
    zone_addresses: BTreeMap<String, Arc<Resource>>,
    /// By service and section of the port; made when first asked for.
    endpoints: HashMap<Key, BTreeMap<String, Arc<Endpoints>>>,
    pub(super) proxies: BTreeMap<String, NodeFacts>,
    pub(super) uses: Uses,
    pub(super) clusters: Interner<Cluster>,
    pub(super) outbounds: Interner<Outbound>,
}

/// What a change means, collected over a batch.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// All proxies.
    pub(super) everybody: bool,
    /// These proxies.
    pub(super) proxies: BTreeSet<String>,
    /// Proxies that refer to destinations, because references may lead elsewhere.
    pub(super) listing: bool,
    /// Proxies that reach destinations by their own addresses.
    pub(super) addresses: bool,
    /// Proxies that use these services.
    pub(super) users: BTreeSet<Key>,
    /// Proxies that use these services, if endpoints are different now.
    pub(super) endpoints: BTreeSet<Key>,
    /// The same for services of other zones.
    pub(super) remote_endpoints: bool,
    /// The trust is to be made anew.
    pub(super) trust: bool,
    /// The leader derives again.
    pub(super) derive: bool,
}

/// How far a proxy depends on which destinations there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Not at all.
    Nowhere,
    /// By references, on ports of its own.
    Declared,
    /// By the destinations' own addresses.
    Addresses,
    /// By addresses or as an ingress: whatever exists.
    Everywhere,
}

impl MeshView {
    /// Takes one change over; `old` is what the set held.
    pub(super) fn change(
        &mut self,
        key: &Key,
        old: Option<&Arc<Resource>>,
        new: Option<&Arc<Resource>>,
        effects: &mut Effects,
    ) {
        let is_same = match (old, new) {
            (Some(old), Some(new)) => {
                old.same_content(new) && old.meta.creation_time == new.meta.creation_time
            }
            (old, new) => old.is_none() && new.is_none(),
        };
        let name = &key.name;
        match key.kind {
            Kind::Dataplane => {
                self.index_dataplane(name, old, new);
                if !is_same {
                    effects.derive = true;
                    effects.proxies.insert(name.clone());
                    let services =
                        old.into_iter().chain(new).flat_map(|dataplane| self.services_of(dataplane));
                    effects.endpoints.extend(services.collect::<Vec<_>>());
                }
            }
            Kind::MeshIdentity => {
                put(&mut self.identities, name, new);
                if !is_same {
                    effects.derive = true;
                    effects.everybody = true;
                    effects.remote_endpoints = true;
                }
            }
            Kind::MeshTrust => {
                put(&mut self.trusts, name, new);
                effects.derive |= !is_same;
                effects.trust |= !is_same;
            }
            Kind::MeshZoneAddress => {
                put(&mut self.zone_addresses, name, new);
                effects.remote_endpoints |= !is_same;
            }
            Kind::Mesh => {
                self.mesh = new.cloned();
                effects.derive |= !is_same;
                effects.everybody |= !is_same;
            }
            Kind::Secret | Kind::Workload => effects.derive |= !is_same,
            kind if kind.descriptor().is_policy() && is_same => {}
            kind if kind.descriptor().is_policy() => {
                effects.everybody = true;
                match new {
                    Some(new) => drop(self.policies.insert(new.clone())),
                    None => drop(self.policies.remove(key)),
                }
            }
            kind if kind.descriptor().capabilities.destination => {
                let listing = match new {
                    Some(new) => self.destinations.insert(new.clone()),
                    None => self.destinations.remove(key),
                };
                effects.derive |= !is_same;
                destination_effects(key, old, new, listing, effects);
            }
            _ => {}
        }
    }

    fn index_dataplane(&mut self, name: &str, old: Option<&Arc<Resource>>, new: Option<&Arc<Resource>>) {
        put(&mut self.dataplanes, name, new);
        if let (Some(old), Some(new)) = (old, new)
            && old.meta.labels == new.meta.labels
        {
            return;
        }
        for (label, value) in old.iter().flat_map(|old| &old.meta.labels) {
            let posting = (label.clone(), value.clone());
            if let Some(names) = self.by_label.get_mut(&posting) {
                names.remove(name);
                if names.is_empty() {
                    self.by_label.remove(&posting);
                }
            }
        }
        for (label, value) in new.iter().flat_map(|new| &new.meta.labels) {
            self.by_label.entry((label.clone(), value.clone())).or_default().insert(name.to_owned());
        }
    }

    /// Own services that select a Dataplane.
    pub(super) fn services_of<'a>(&'a self, dataplane: &'a Resource) -> impl Iterator<Item = Key> + 'a {
        self.destinations
            .iter()
            .filter(|service| service.meta.is_local_to_zone())
            .filter(|service| {
                service.spec_as::<MeshService>().is_some_and(|spec| selects(&spec.selector, dataplane))
            })
            .map(|service| service.key())
    }

    /// Dataplanes that a selector selects, ascending by name.
    fn selected<'a>(&'a self, selector: &'a Selector) -> Vec<&'a Arc<Resource>> {
        if let Some(reference) = &selector.dataplane_ref {
            return self.dataplanes.get(&reference.name).into_iter().collect();
        }
        let Some(selector_labels) = &selector.dataplane_labels else { return Vec::new() };
        let postings = selector_labels
            .match_labels
            .iter()
            .map(|(label, value)| self.by_label.get(&(label.clone(), value.clone())));
        match postings.min_by_key(|names| names.map_or(0, BTreeSet::len)) {
            Some(names) => names
                .into_iter()
                .flatten()
                .filter_map(|name| self.dataplanes.get(name))
                .filter(|dataplane| selects(selector, dataplane))
                .collect(),
            None => self.dataplanes.values().collect(),
        }
    }

    /// Draws the consequences of a batch: names of connected proxies whose inputs may differ.
    pub(super) fn settle(&mut self, around: &Surroundings<'_>, effects: Effects) -> BTreeSet<String> {
        let mut everybody = effects.everybody;
        if effects.trust {
            let trust = self.merged_trust();
            if *self.trust != trust {
                self.trust = Arc::new(trust);
                everybody = true;
            }
        }
        let mut users = effects.users;
        let mut services = effects.endpoints;
        if effects.remote_endpoints {
            let known = self.endpoints.keys();
            let remote =
                known.filter(|key| self.destinations.get(key).is_some_and(|s| !s.meta.is_local_to_zone()));
            services.extend(remote.cloned().collect::<Vec<_>>());
        }
        users.extend(services.into_iter().filter(|service| self.refresh_endpoints(around, service)));
        if everybody {
            return self.proxies.keys().cloned().collect();
        }
        let mut dirty: BTreeSet<String> = effects.proxies;
        dirty.extend(users.iter().flat_map(|service| self.uses.of(service)).cloned());
        dirty.retain(|name| self.proxies.contains_key(name));
        if effects.listing || effects.addresses {
            let depends = |reach: Reach| match reach {
                Reach::Nowhere => false,
                Reach::Declared => effects.listing,
                Reach::Addresses | Reach::Everywhere => true,
            };
            let concerned = self.proxies.iter().filter(|(name, node)| depends(self.reach(name, node)));
            dirty.extend(concerned.map(|(name, _)| name.clone()).collect::<Vec<_>>());
        }
        dirty
    }

    fn reach(&self, name: &str, node: &NodeFacts) -> Reach {
        let dataplane = self.dataplanes.get(name).and_then(|resource| resource.spec_as::<Dataplane>());
        let Some(networking) = dataplane.map(Dataplane::networking) else { return Reach::Nowhere };
        if networking.listeners.iter().any(|listener| listener.r#type == ListenerType::ZoneIngress) {
            return Reach::Everywhere;
        }
        let has_references = networking.outbound.iter().any(|outbound| outbound.backend_ref.is_some());
        // The address family decides only whether the transparent proxy is on; on is the wider answer.
        let by_address = node.has(FEATURE_BIND_OUTBOUNDS)
            || transparent::effective(networking, node, "0.0.0.0").is_some()
            || transparent::effective(networking, node, &networking.address).is_some();
        match (by_address, has_references) {
            (true, _) => Reach::Addresses,
            (false, true) => Reach::Declared,
            (false, false) => Reach::Nowhere,
        }
    }

    /// Trust of all MeshTrusts, own and copied; an authority that appears twice is taken once.
    fn merged_trust(&self) -> Trust {
        let mut trust = Trust::default();
        let mut known: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        // Own ones first, so that a copy that comes back in another form changes nothing.
        let (own, copies): (Vec<_>, Vec<_>) =
            self.trusts.values().partition(|trust| trust.meta.is_local_to_zone());
        for resource in own.into_iter().chain(copies) {
            let Some(spec) = resource.spec_as::<MeshTrust>() else { continue };
            let domain = trust.domains.entry(spec.trust_domain.clone()).or_default();
            let known = known.entry(&spec.trust_domain).or_default();
            for pem in spec.pems() {
                let certificates = identity::certificates(pem);
                if certificates.iter().any(|certificate| !known.contains(certificate)) {
                    known.extend(certificates);
                    domain.push(pem.to_owned());
                }
            }
        }
        // A domain without any certificate would make the whole bundle invalid.
        trust.domains.retain(|_, pems| !pems.is_empty());
        trust
    }

    /// Endpoints of a service port; made once and kept until something changes.
    pub(super) fn endpoints(
        &mut self,
        around: &Surroundings<'_>,
        service: &Arc<Resource>,
        section: &str,
    ) -> Arc<Endpoints> {
        let key = service.key();
        if let Some(known) = self.endpoints.get(&key).and_then(|sections| sections.get(section)) {
            return known.clone();
        }
        let endpoints = Arc::new(self.make_endpoints(around, service, section));
        self.endpoints.entry(key).or_default().insert(section.to_owned(), endpoints.clone());
        endpoints
    }

    /// Makes known endpoints of a service anew; true if they are different.
    fn refresh_endpoints(&mut self, around: &Surroundings<'_>, key: &Key) -> bool {
        let Some(mut sections) = self.endpoints.remove(key) else { return false };
        let Some(service) = self.destinations.get(key).cloned() else { return true };
        let mut changed = false;
        for (section, known) in &mut sections {
            let endpoints = self.make_endpoints(around, &service, section);
            if **known != endpoints {
                *known = Arc::new(endpoints);
                changed = true;
            }
        }
        self.endpoints.insert(key.clone(), sections);
        changed
    }

    fn make_endpoints(&self, around: &Surroundings<'_>, service: &Resource, section: &str) -> Endpoints {
        let Some(spec) = service.spec_as::<MeshService>() else { return Endpoints::default() };
        let Some(port) = spec.ports.iter().find(|port| port.section() == section) else {
            return Endpoints::default();
        };
        if service.meta.is_local_to_zone() {
            self.local_endpoints(around, spec, port)
        } else {
            self.remote_endpoints(around, service)
        }
    }

    /// Ready inbounds of this zone's Dataplanes (xds.md §3.8).
    fn local_endpoints(&self, around: &Surroundings<'_>, service: &MeshService, port: &Port) -> Endpoints {
        let mut localities: BTreeMap<Option<String>, BTreeMap<(String, u32), Endpoint>> = BTreeMap::new();
        for resource in self.selected(&service.selector) {
            let Some(dataplane) = resource.spec_as::<Dataplane>() else { continue };
            if !around.accepts_traffic(resource) {
                continue;
            }
            let networking = dataplane.networking();
            let inbounds = networking.inbound.iter().filter(|inbound| inbound.is_ready());
            for inbound in inbounds.filter(|inbound| port.is_served_by(inbound.port, &inbound.name)) {
                let Some(address) = around.resolve(networking.inbound_address(inbound)) else { continue };
                let mut metadata = resource.meta.labels.clone();
                metadata.remove(labels::SERVICE);
                if !inbound.protocol.is_empty() {
                    metadata.insert(labels::PROTOCOL.into(), inbound.protocol.clone());
                }
                let zone = resource.meta.zone().map(str::to_owned);
                let place = (address.clone(), inbound.port);
                let endpoint = Endpoint { address, port: inbound.port, weight: 1, metadata };
                localities.entry(zone).or_default().entry(place).or_insert(endpoint);
            }
        }
        let locality = |(zone, endpoints): (Option<String>, BTreeMap<_, Endpoint>)| Locality {
            zone,
            priority: 0,
            endpoints: endpoints.into_values().collect(),
        };
        Endpoints { localities: localities.into_iter().map(locality).collect() }
    }

    /// The ingresses of the service's zone; they need mTLS, so nothing without a MeshIdentity (xds.md §3.8).
    fn remote_endpoints(&self, around: &Surroundings<'_>, service: &Resource) -> Endpoints {
        let Some(zone) = service.meta.zone().filter(|zone| *zone != around.settings.zone) else {
            return Endpoints::default();
        };
        if self.identities.is_empty() {
            return Endpoints::default();
        }
        let places: BTreeSet<(String, u32)> = self
            .zone_addresses
            .values()
            .filter(|address| address.meta.zone() == Some(zone))
            .filter_map(|address| address.spec_as::<MeshZoneAddress>())
            .filter_map(|address| Some((around.resolve(&address.address)?, address.port)))
            .collect();
        if places.is_empty() {
            return Endpoints::default();
        }
        let metadata = BTreeMap::from([(labels::ZONE.to_owned(), zone.to_owned())]);
        let endpoint = |(address, port)| Endpoint { address, port, weight: 1, metadata: metadata.clone() };
        let endpoints = places.into_iter().map(endpoint).collect();
        Endpoints { localities: vec![Locality { zone: Some(zone.into()), priority: 1, endpoints }] }
    }

    /// DNS names that stand for addresses.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        let dataplanes = self.dataplanes.values().filter_map(|resource| resource.spec_as::<Dataplane>());
        let own = dataplanes.flat_map(|dataplane| {
            let networking = dataplane.networking();
            let inbounds = networking.inbound.iter().map(|inbound| networking.inbound_address(inbound));
            inbounds.chain([networking.address.as_str()])
        });
        let addresses =
            self.zone_addresses.values().filter_map(|resource| resource.spec_as::<MeshZoneAddress>());
        own.chain(addresses.map(|address| address.address.as_str()))
    }

    /// What depends on the address that a DNS name stands for.
    pub(super) fn host_effects(&self, host: &str) -> Effects {
        let mut effects = Effects::default();
        for (name, resource) in &self.dataplanes {
            let Some(networking) = resource.spec_as::<Dataplane>().map(Dataplane::networking) else {
                continue;
            };
            let is_used = networking.address == host
                || networking.inbound.iter().any(|inbound| networking.inbound_address(inbound) == host);
            if is_used {
                effects.proxies.insert(name.clone());
                effects.endpoints.extend(self.services_of(resource));
            }
        }
        effects.remote_endpoints = self
            .zone_addresses
            .values()
            .filter_map(|resource| resource.spec_as::<MeshZoneAddress>())
            .any(|address| address.address == host);
        effects
    }
}

fn put(map: &mut BTreeMap<String, Arc<Resource>>, name: &str, new: Option<&Arc<Resource>>) {
    match new {
        Some(new) => drop(map.insert(name.to_owned(), new.clone())),
        None => drop(map.remove(name)),
    }
}

/// Whether a service with this selector has this Dataplane behind it.
fn selects(selector: &Selector, dataplane: &Resource) -> bool {
    match (&selector.dataplane_ref, &selector.dataplane_labels) {
        (Some(reference), _) => reference.name == dataplane.meta.name,
        (None, Some(wanted)) => labels::matches(&wanted.match_labels, &dataplane.meta.labels),
        (None, None) => false,
    }
}

/// `listing`: labels or ports are different, so that references may lead elsewhere. State and counters matter to
/// nobody.
fn destination_effects(
    key: &Key,
    old: Option<&Arc<Resource>>,
    new: Option<&Arc<Resource>>,
    listing: bool,
    effects: &mut Effects,
) {
    if listing {
        effects.listing = true;
        effects.users.insert(key.clone());
        effects.endpoints.insert(key.clone());
    }
    let (Some(old), Some(new)) = (old, new) else { return };
    if let (Some(before), Some(after)) = (old.spec_as::<MeshService>(), new.spec_as::<MeshService>()) {
        if before.selector != after.selector || before.ports != after.ports {
            effects.endpoints.insert(key.clone());
        }
        if before.identities != after.identities {
            effects.users.insert(key.clone());
        }
    }
    if let (Some(before), Some(after)) = (old.status_of::<MeshService>(), new.status_of::<MeshService>()) {
        if before.tls != after.tls {
            effects.users.insert(key.clone());
        }
        effects.addresses |= before.vips != after.vips || before.addresses != after.addresses;
    }
}
