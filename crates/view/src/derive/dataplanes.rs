//! Dataplanes of a mesh, found by label.

use std::collections::HashMap;
use std::sync::Arc;

use graticule_model::kinds::dataplane::{Dataplane, InboundState};
use graticule_model::kinds::mesh_service::Selector;
use graticule_model::{Resource, labels};
use graticule_policy::ProxyId;

use super::DeriveState;

/// One Dataplane with what is observed of its proxy.
pub(super) struct Entry<'a> {
    pub(super) resource: &'a Arc<Resource>,
    pub(super) dataplane: &'a Dataplane,
    pub(super) is_connected: bool,
    pub(super) accepts_traffic: bool,
}

impl Entry<'_> {
    /// Label `kuma.io/workload`, if it is not empty.
    pub(super) fn workload(&self) -> Option<&str> {
        self.resource.meta.label(labels::WORKLOAD).filter(|name| !name.is_empty())
    }

    /// Every inbound that is looked at is ready, and there is one.
    pub(super) fn all_inbounds_ready(&self) -> bool {
        let mut inbounds = self
            .dataplane
            .networking()
            .inbound
            .iter()
            .filter(|inbound| inbound.state != InboundState::Ignored)
            .peekable();
        self.accepts_traffic && inbounds.peek().is_some() && inbounds.all(|inbound| inbound.is_ready())
    }
}

/// Dataplanes in the order in which they contribute: creation time, then name.
pub(super) struct Dataplanes<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Dataplanes<'a> {
    pub(super) fn of(state: &DeriveState<'a>, mesh: &'a str) -> Dataplanes<'a> {
        let mut entries: Vec<Entry<'a>> = state
            .resources
            .typed::<Dataplane>(mesh)
            .map(|(resource, dataplane)| {
                let proxy = ProxyId::new(mesh, resource.meta.name.clone());
                Entry {
                    resource,
                    dataplane,
                    is_connected: state.connected.contains(&proxy),
                    accepts_traffic: state.serving.get(&proxy).copied().unwrap_or_default().accepts_traffic(),
                }
            })
            .collect();
        entries.sort_by(|a, b| {
            let key = |entry: &Entry<'a>| (entry.resource.meta.creation_time, &entry.resource.meta.name);
            key(a).cmp(&key(b))
        });
        let mut by_label: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        let mut by_name = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            by_name.insert(entry.resource.meta.name.as_str(), index);
            for (key, value) in &entry.resource.meta.labels {
                by_label.entry((key, value)).or_default().push(index);
            }
        }
        Dataplanes { entries, by_label, by_name }
    }

    /// Dataplanes that a service selects: those with an inbound (xds.md §5.1).
    pub(super) fn selected(&self, selector: &Selector) -> Vec<&Entry<'a>> {
        if let Some(reference) = &selector.dataplane_ref {
            return self
                .by_name
                .get(reference.name.as_str())
                .map(|index| self.at(*index))
                .into_iter()
                .flatten()
                .collect();
        }
        let Some(selector) = &selector.dataplane_labels else { return Vec::new() };
        let wanted = &selector.match_labels;
        let postings = wanted.iter().map(|(key, value)| self.by_label.get(&(key.as_str(), value.as_str())));
        match postings.map(|found| found.map_or(&[][..], Vec::as_slice)).min_by_key(|found| found.len()) {
            Some(fewest) => fewest
                .iter()
                .filter_map(|index| self.at(*index))
                .filter(|entry| labels::matches(wanted, &entry.resource.meta.labels))
                .collect(),
            None => (0..self.entries.len()).filter_map(|index| self.at(index)).collect(),
        }
    }

    fn at(&self, index: usize) -> Option<&Entry<'a>> {
        self.entries.get(index).filter(|entry| !entry.dataplane.networking().inbound.is_empty())
    }
}
