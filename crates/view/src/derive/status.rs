//! State, counters, identities and TLS readiness of local services (xds.md §4.9, §5.3).

use std::collections::BTreeSet;

use graticule_model::kinds::mesh_service::{DataplaneProxies, Identity, MeshService, State, Tls};
use graticule_model::{Spec, Status};

use super::Draft;
use super::dataplanes::{Dataplanes, Entry};
use super::identities::Identities;

/// Refreshes everything that the owning zone says about a service; copies are left as they are.
pub(super) fn refresh(service: &mut Draft, dataplanes: &Dataplanes<'_>, identities: &Identities) {
    if !service.resource.meta.is_local_to_zone() {
        return;
    }
    let Spec::MeshService(spec) = &mut service.resource.spec else { return };
    let selected = dataplanes.selected(&spec.selector);
    let healthy = selected.iter().filter(|entry| serves_every_port(spec, entry)).count();
    let counters = DataplaneProxies {
        connected: count(selected.iter().filter(|entry| entry.is_connected).count()),
        healthy: count(healthy),
        total: count(selected.len()),
    };
    spec.state = Some(if healthy > 0 { State::Available } else { State::Unavailable });
    let ids: BTreeSet<String> =
        selected.iter().flat_map(|entry| identities.spiffe_ids(&entry.resource.meta.labels)).collect();
    spec.identities = ids.into_iter().map(Identity::spiffe).collect();
    let Status::MeshService(status) = &mut service.resource.status else { return };
    status.dataplane_proxies = counters;
    status.tls = Tls { status: tls(&status.tls.status, &selected, identities).into() };
}

fn serves_every_port(service: &MeshService, entry: &Entry<'_>) -> bool {
    let inbounds = &entry.dataplane.networking().inbound;
    entry.accepts_traffic
        && service.ports.iter().all(|port| {
            inbounds
                .iter()
                .any(|inbound| port.is_served_by(inbound.port, &inbound.name) && inbound.is_ready())
        })
}

fn tls(current: &str, selected: &[&Entry<'_>], identities: &Identities) -> &'static str {
    if identities.is_empty() {
        return "NotReady";
    }
    let ready = || selected.iter().all(|entry| identities.is_trusted(&entry.resource.meta.labels));
    if current == "Ready" || ready() { "Ready" } else { "NotReady" }
}

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
