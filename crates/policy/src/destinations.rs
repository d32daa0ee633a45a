//! Destinations of one mesh, indexed by labels (policy-engine.md §4).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graticule_model::kinds::dataplane::{OutboundBackendRef, ReachableBackendRef};
use graticule_model::targetref::{BackendRef, TargetKind};
use graticule_model::{Key, Kind, Kri, Meta, Resource, Spec, labels};

use crate::inputs::Protocol;

/// A port of a destination, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name, or the decimal port: the section of KRIs, SNIs and Envoy names.
    pub section: String,
    /// Port on the VIP.
    pub number: u32,
    /// Declared protocol.
    pub protocol: Protocol,
}

/// A destination port that a reference leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Name in Envoy: the section is the one of the reference (policy-engine.md §4.3).
    pub kri: Kri,
    /// The destination.
    pub resource: Arc<Resource>,
    /// The port.
    pub port: Port,
}

/// Destinations of one mesh. Cloning copies the index, so share it behind an `Arc` or a reference.
#[derive(Debug, Clone, Default)]
pub struct Destinations {
    by_key: BTreeMap<Key, Arc<Resource>>,
    by_kri: HashMap<Kri, BTreeSet<Key>>,
    by_label: HashMap<(Kind, String, String), BTreeSet<Key>>,
    /// Replaced whenever an answer of the index may change; compared by address.
    stamp: Arc<Stamp>,
}

/// Identity of a state of a collection. Not zero-sized, so that two of them never share an address.
#[derive(Debug, Default)]
pub(crate) struct Stamp(#[expect(dead_code, reason = "gives the allocation a size")] u8);

impl Destinations {
    /// Indexes destinations; resources of other kinds are ignored.
    pub fn new(resources: impl IntoIterator<Item = Arc<Resource>>) -> Destinations {
        let mut destinations = Destinations::default();
        for resource in resources {
            destinations.insert(resource);
        }
        destinations
    }

    /// Adds or replaces a destination. True if labels or ports changed, so that references may resolve
    /// differently; a change of status or of identities alone gives false.
    pub fn insert(&mut self, resource: Arc<Resource>) -> bool {
        if !resource.kind().descriptor().capabilities.destination {
            return false;
        }
        let key = resource.key();
        if let Some(known) = self.by_key.get_mut(&key)
            && known.meta.labels == resource.meta.labels
            && known.meta.creation_time == resource.meta.creation_time
            && ports(known) == ports(&resource)
        {
            *known = resource;
            return false;
        }
        self.unindex(&key);
        for (label, value) in &resource.meta.labels {
            let posting = (key.kind, label.clone(), value.clone());
            self.by_label.entry(posting).or_default().insert(key.clone());
        }
        if resource.meta.label(labels::DISPLAY_NAME).is_none_or(str::is_empty) {
            let posting = (key.kind, DISPLAY_NAME_FALLBACK.to_owned(), resource.meta.name.clone());
            self.by_label.entry(posting).or_default().insert(key.clone());
        }
        if let Some(kri) = resource.kri() {
            self.by_kri.entry(kri).or_default().insert(key.clone());
        }
        self.by_key.insert(key, resource);
        self.stamp = Arc::default();
        true
    }

    /// Removes a destination; true if it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let removed = self.unindex(key);
        if removed {
            self.stamp = Arc::default();
        }
        removed
    }

    fn unindex(&mut self, key: &Key) -> bool {
        let Some(old) = self.by_key.remove(key) else { return false };
        let fallback = (DISPLAY_NAME_FALLBACK.to_owned(), old.meta.name.clone());
        let pairs = old.meta.labels.iter().map(|(label, value)| (label.clone(), value.clone()));
        for (label, value) in pairs.chain([fallback]) {
            let posting = (key.kind, label, value);
            if let Some(keys) = self.by_label.get_mut(&posting) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_label.remove(&posting);
                }
            }
        }
        if let Some(kri) = old.kri()
            && let Some(keys) = self.by_kri.get_mut(&kri)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_kri.remove(&kri);
            }
        }
        true
    }

    pub(crate) fn stamp(&self) -> &Arc<Stamp> {
        &self.stamp
    }

    /// All destinations by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_key.values()
    }

    /// The destination with this key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.by_key.get(key)
    }

    /// The destination with this KRI, whatever its section. Of several (an own resource and a copy of
    /// another with the same identity), the first by stored name.
    pub fn by_kri(&self, kri: &Kri) -> Option<&Arc<Resource>> {
        let keys = self.by_kri.get(&kri.clone().without_section())?;
        keys.first().and_then(|key| self.by_key.get(key))
    }

    /// What a `to` reference means (policy-engine.md §4.1): all destinations of the kind that have every
    /// label and, if a section is given, a port of exactly that name. The KRIs carry the section.
    /// Sorted by stored name.
    pub fn resolve(
        &self,
        kind: TargetKind,
        wanted: Option<&BTreeMap<String, String>>,
        section: Option<&str>,
    ) -> Vec<(Kri, Arc<Resource>)> {
        let (Some(kind), Some(wanted)) = (destination_kind(kind), wanted) else { return Vec::new() };
        self.select(kind, wanted, DisplayName::Label)
            .into_iter()
            .filter(|resource| {
                section.is_none_or(|section| ports(resource).iter().any(|port| port.section == section))
            })
            .filter_map(|resource| {
                Some((resource.kri()?.with_section(section.unwrap_or_default()), resource.clone()))
            })
            .collect()
    }

    /// The one destination port that a backend reference of a route means (policy-engine.md §4.3);
    /// `route` is the metadata of the owning route. `None`: unresolved, or the port does not exist.
    pub fn resolve_backend(&self, backend: &BackendRef, route: &Meta) -> Option<Backend> {
        let kind = destination_kind(backend.target.kind)?;
        let mut wanted = backend.target.labels.clone().filter(|labels| !labels.is_empty())?;
        if let Some(namespace) = route.namespace()
            && wanted.contains_key(labels::DISPLAY_NAME)
        {
            wanted.entry(labels::NAMESPACE.to_owned()).or_insert_with(|| namespace.to_owned());
        }
        let section = match (backend.target.section(), backend.port) {
            (Some(section), _) => section.to_owned(),
            (None, Some(port)) if port > 0 => port.to_string(),
            _ => String::new(),
        };
        let oldest =
            self.select(kind, &wanted, DisplayName::OrStoredName).into_iter().min_by_key(|resource| {
                (resource.meta.creation_time, resource.kri().map(|kri| kri.to_string()))
            })?;
        backend_of(oldest, &section)
    }

    /// The destination ports that an explicit outbound means (policy-engine.md §4.4): every match, with the
    /// decimal port as section of the KRI.
    pub fn resolve_outbound(&self, backend: &OutboundBackendRef, dataplane: &Meta) -> Vec<Backend> {
        let port = Some(backend.port).filter(|port| *port > 0);
        self.resolve_named(&backend.kind, &backend.name, "", port, &backend.labels, dataplane)
    }

    /// The destination ports that an entry of `reachableBackends` means; without port: all ports of each
    /// match, with their own sections.
    pub fn resolve_reachable(&self, backend: &ReachableBackendRef, dataplane: &Meta) -> Vec<Backend> {
        let port = backend.port.filter(|port| *port > 0);
        self.resolve_named(&backend.kind, &backend.name, &backend.namespace, port, &backend.labels, dataplane)
    }

    fn resolve_named(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
        port: Option<u32>,
        given: &BTreeMap<String, String>,
        dataplane: &Meta,
    ) -> Vec<Backend> {
        let kind = match kind {
            "MeshService" => TargetKind::MeshService,
            "MeshExternalService" => TargetKind::MeshExternalService,
            "MeshMultiZoneService" => TargetKind::MeshMultiZoneService,
            _ => return Vec::new(),
        };
        let mut port = port;
        let mut wanted = given.clone();
        if wanted.is_empty() {
            if name.is_empty() {
                return Vec::new();
            }
            let (name, named_namespace, named_port) = split_legacy_name(name)
                .filter(|_| kind == TargetKind::MeshService)
                .unwrap_or((name, "", None));
            port = port.or(named_port);
            wanted.insert(labels::DISPLAY_NAME.into(), name.into());
            let namespace = [namespace, named_namespace, dataplane.namespace().unwrap_or_default()]
                .into_iter()
                .find(|namespace| !namespace.is_empty());
            if let Some(namespace) = namespace {
                wanted.insert(labels::NAMESPACE.into(), namespace.into());
            }
        }
        let Some(kind) = destination_kind(kind) else { return Vec::new() };
        let matches = self.select(kind, &wanted, DisplayName::OrStoredName).into_iter();
        match port {
            Some(port) => matches.filter_map(|resource| backend_of(resource, &port.to_string())).collect(),
            None => matches
                .flat_map(|resource| {
                    ports(resource).into_iter().filter_map(|port| {
                        let kri = resource.kri()?.with_section(port.section.clone());
                        Some(Backend { kri, resource: resource.clone(), port })
                    })
                })
                .collect(),
        }
    }

    /// Resources of a kind that have all labels, sorted by stored name.
    fn select(
        &self,
        kind: Kind,
        wanted: &BTreeMap<String, String>,
        display_name: DisplayName,
    ) -> Vec<&Arc<Resource>> {
        let has_all = |resource: &Resource| {
            wanted.iter().all(|(label, value)| match resource.meta.label(label) {
                _ if label == labels::DISPLAY_NAME && display_name == DisplayName::OrStoredName => {
                    resource.meta.display_name() == value
                }
                found => found == Some(value),
            })
        };
        let keys: BTreeSet<&Key> = match wanted.get(labels::DISPLAY_NAME) {
            Some(name) if display_name == DisplayName::OrStoredName => {
                [labels::DISPLAY_NAME, DISPLAY_NAME_FALLBACK]
                    .into_iter()
                    .flat_map(|label| self.posting(kind, label, name))
                    .collect()
            }
            _ => wanted
                .iter()
                .map(|(label, value)| self.posting(kind, label, value))
                .min_by_key(|keys| keys.size_hint())
                .map_or_else(
                    || self.by_key.keys().filter(|key| key.kind == kind).collect(),
                    Iterator::collect,
                ),
        };
        let candidates = keys.into_iter().filter_map(|key| self.by_key.get(key));
        candidates.filter(|resource| has_all(resource)).collect()
    }

    fn posting(&self, kind: Kind, label: &str, value: &str) -> impl Iterator<Item = &Key> + use<'_> {
        let keys = self.by_label.get(&(kind, label.to_owned(), value.to_owned()));
        keys.map(BTreeSet::iter).unwrap_or_default()
    }
}

/// Posting of resources without display name label, by stored name; no label key can be empty.
const DISPLAY_NAME_FALLBACK: &str = "";

/// How `kuma.io/display-name` in a selector is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DisplayName {
    /// With the stored label only.
    Label,
    /// With the label, or the stored name where there is none.
    OrStoredName,
}

/// The registered kind of a destination reference; `None` for other references and for kinds that the
/// model does not have.
fn destination_kind(kind: TargetKind) -> Option<Kind> {
    Kind::from_name(kind.name()).ok().filter(|kind| kind.descriptor().capabilities.destination)
}

/// `<service>_<namespace>_svc_<port>`
fn split_legacy_name(name: &str) -> Option<(&str, &str, Option<u32>)> {
    let parts: Vec<&str> = name.split('_').collect();
    let [service, namespace, "svc", port] = parts[..] else { return None };
    Some((service, namespace, Some(port.parse().ok()?)))
}

/// Ports of a destination in their order; none for other kinds.
pub fn ports(resource: &Resource) -> Vec<Port> {
    match &resource.spec {
        Spec::MeshService(service) => service
            .ports
            .iter()
            .map(|port| Port {
                section: port.section(),
                number: port.port,
                protocol: Protocol::parse(&port.app_protocol),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The port that a section means: its name or its number; an empty section means the only port
/// (policy-engine.md §4.3).
pub fn find_port(resource: &Resource, section: &str) -> Option<Port> {
    let mut ports = ports(resource);
    if section.is_empty() {
        return if ports.len() == 1 { ports.pop() } else { None };
    }
    ports.into_iter().find(|port| port.section == section || port.number.to_string() == section)
}

fn backend_of(resource: &Arc<Resource>, section: &str) -> Option<Backend> {
    let port = find_port(resource, section)?;
    let kri = resource.kri()?;
    let kri = match (section, &resource.spec) {
        ("", Spec::MeshService(_)) => kri.with_section(port.section.clone()),
        _ => kri.with_section(section),
    };
    Some(Backend { kri, resource: resource.clone(), port })
}

#[cfg(test)]
mod tests;
