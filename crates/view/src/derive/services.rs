//! MeshServices from the Dataplanes' label `kuma.io/workload` (xds.md §5.2).

use std::collections::BTreeMap;

use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::kinds::mesh_service::{
    DataplaneLabels, IntOrString, MeshService, Port, Selector, State,
};
use graticule_model::{Key, Kind, Meta, Resource, Spec, Timestamp, labels, name};

use super::dataplanes::{Dataplanes, Entry};
use super::{DeriveState, Derived, DerivedWrite, Draft, mesh_owner};

/// All MeshServices of the mesh as they should be, ascending by creation time and name; status not refreshed yet.
pub(super) fn derive(
    state: &DeriveState<'_>,
    mesh: &str,
    now: Timestamp,
    dataplanes: &Dataplanes<'_>,
    derived: &mut Derived,
) -> Vec<Draft> {
    let mut contributions = contributions(dataplanes, derived);
    let mut drafts = Vec::new();
    for stored in state.resources.list(Kind::MeshService, mesh) {
        let mut draft = Draft::of(stored);
        let contributed = contributions.remove(stored.meta.name.as_str());
        if !is_generated(&stored.meta) {
            if contributed.is_some() && stored.meta.label(labels::MANAGED_BY).is_none() {
                let message = "not generated from Dataplanes: a MeshService of this name exists already";
                derived.problems.push((stored.key(), message.into()));
            }
        } else if let Some(contributed) = contributed {
            update(state, mesh, &contributed, &mut draft.resource, derived);
        } else if let Some(deadline) = expiry(state, now, &mut draft.resource) {
            if deadline <= now {
                derived.writes.push(DerivedWrite::Delete(stored.key()));
                continue;
            }
            derived.next_deadline = Some(derived.next_deadline.map_or(deadline, |other| other.min(deadline)));
        }
        drafts.push(draft);
    }
    for (workload, contributed) in contributions {
        let mut meta = Meta::new(mesh, workload);
        meta.owner = mesh_owner(mesh);
        let spec = MeshService { state: Some(State::Unavailable), ..MeshService::default() };
        let mut resource = Resource::new(meta, spec);
        update(state, mesh, &contributed, &mut resource, derived);
        drafts.push(Draft::new(resource, now));
    }
    drafts.sort_by(|a, b| (a.created, &a.resource.meta.name).cmp(&(b.created, &b.resource.meta.name)));
    drafts
}

/// Made by this generator in this zone: the only MeshServices that it may change.
fn is_generated(meta: &Meta) -> bool {
    meta.is_local_to_zone() && meta.label(labels::MANAGED_BY) == Some(labels::MESH_SERVICE_GENERATOR)
}

/// What one Dataplane says about a service.
struct Contribution<'a> {
    dataplane: &'a Meta,
    ports: Vec<Port>,
}

/// By workload; oldest Dataplane first.
fn contributions<'a>(
    dataplanes: &Dataplanes<'a>,
    derived: &mut Derived,
) -> BTreeMap<&'a str, Vec<Contribution<'a>>> {
    let mut by_workload: BTreeMap<&str, Vec<Contribution<'a>>> = BTreeMap::new();
    for Entry { resource, dataplane, .. } in &dataplanes.entries {
        let workload = resource.meta.label(labels::WORKLOAD).unwrap_or_default();
        let ports = ports(dataplane);
        if workload.is_empty() || ports.is_empty() {
            continue;
        }
        if !name::is_dns1035_label(workload) {
            let message =
                format!("no MeshService: label {} \"{workload}\" is not a DNS label", labels::WORKLOAD);
            derived.problems.push((resource.key(), message));
            continue;
        }
        by_workload.entry(workload).or_default().push(Contribution { dataplane: &resource.meta, ports });
    }
    by_workload
}

fn ports(dataplane: &Dataplane) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for inbound in &dataplane.networking().inbound {
        let protocol = inbound.protocol.to_ascii_lowercase();
        let port = Port {
            name: inbound.section(),
            port: inbound.port,
            target_port: Some(IntOrString::Int(inbound.port)),
            app_protocol: match protocol.as_str() {
                "http" | "http2" | "grpc" => protocol,
                _ => "tcp".into(),
            },
        };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// Writes selector, ports and labels; state and identities stay until the status is refreshed.
fn update(
    state: &DeriveState<'_>,
    mesh: &str,
    contributed: &[Contribution<'_>],
    resource: &mut Resource,
    derived: &mut Derived,
) {
    let workload = resource.meta.name.clone();
    let meta = &mut resource.meta;
    meta.labels.remove(labels::DELETION_GRACE_PERIOD_STARTED_AT);
    for (key, value) in [
        (labels::MESH, mesh),
        (labels::DISPLAY_NAME, &workload),
        (labels::MANAGED_BY, labels::MESH_SERVICE_GENERATOR),
        (labels::ENV, "universal"),
        (labels::ZONE, state.zone),
        (labels::ORIGIN, labels::Origin::Zone.as_str()),
    ] {
        meta.labels.insert(key.into(), value.into());
    }
    let key = resource.key();
    let Spec::MeshService(spec) = &mut resource.spec else { return };
    let match_labels = BTreeMap::from([(labels::WORKLOAD.to_owned(), workload)]);
    spec.selector =
        Selector { dataplane_ref: None, dataplane_labels: Some(DataplaneLabels { match_labels }) };
    // The current ports stay as long as one Dataplane agrees with them; else the oldest Dataplane decides.
    if !contributed.iter().any(|contribution| contribution.ports == spec.ports)
        && let Some(oldest) = contributed.first()
    {
        spec.ports = oldest.ports.clone();
    }
    for other in contributed.iter().filter(|contribution| contribution.ports != spec.ports) {
        let message = format!("inbounds differ from the ports of MeshService \"{}\"", key.name);
        derived.problems.push((
            Key::new(Kind::Dataplane, other.dataplane.mesh.clone(), other.dataplane.name.clone()),
            message,
        ));
    }
}

/// Marks a service without Dataplanes; returns when it is to be deleted, `None` when that is never.
fn expiry(state: &DeriveState<'_>, now: Timestamp, resource: &mut Resource) -> Option<Timestamp> {
    let label = labels::DELETION_GRACE_PERIOD_STARTED_AT;
    let started = resource.meta.label(label).and_then(|text| text.parse::<Timestamp>().ok());
    let started = started.unwrap_or_else(|| {
        // Whole seconds: the form that other control planes write.
        let started = Timestamp::from_second(now.as_second()).unwrap_or(now);
        resource.meta.labels.insert(label.into(), started.to_string());
        started
    });
    started.checked_add(state.settings.deletion_grace_period).ok()
}
