//! Workloads: one per value of the label `kuma.io/workload` (resources.md §9).

use std::collections::BTreeMap;

use graticule_model::kinds::mesh_service::DataplaneProxies;
use graticule_model::kinds::workload::{Workload, WorkloadStatus};
use graticule_model::{Key, Kind, Meta, Resource, TypedSpec, labels, name};

use super::dataplanes::Dataplanes;
use super::status::count;
use super::{DeriveState, Derived, DerivedWrite, Draft, mesh_owner};

pub(super) fn derive(
    state: &DeriveState<'_>,
    mesh: &str,
    dataplanes: &Dataplanes<'_>,
    derived: &mut Derived,
) {
    let mut wanted: BTreeMap<&str, DataplaneProxies> = BTreeMap::new();
    for entry in &dataplanes.entries {
        let Some(workload) = entry.workload() else { continue };
        if let Some(error) = name::resource_name_error(workload) {
            let message = format!("no Workload: label {} \"{workload}\": {error}", labels::WORKLOAD);
            derived.problems.push((entry.resource.key(), message));
            continue;
        }
        let counters = wanted.entry(workload).or_default();
        counters.total = count(counters.total as usize + 1);
        counters.connected += u32::from(entry.is_connected);
        counters.healthy += u32::from(entry.all_inbounds_ready());
    }
    for stored in state.resources.list(Kind::Workload, mesh) {
        if !wanted.contains_key(stored.meta.name.as_str()) && is_generated(&stored.meta) {
            derived.writes.push(DerivedWrite::Delete(stored.key()));
        }
    }
    for (workload, dataplane_proxies) in wanted {
        let stored = state.resources.get(&Key::new(Kind::Workload, mesh, workload));
        let mut draft = match stored {
            Some(stored) if is_generated(&stored.meta) => Draft::of(stored),
            Some(_) => continue,
            None => {
                let mut meta = Meta::new(mesh, workload);
                meta.owner = mesh_owner(mesh);
                Draft::new(Resource::new(meta, Workload {}), graticule_model::Timestamp::UNIX_EPOCH)
            }
        };
        for (key, value) in [
            (labels::ENV, "universal"),
            (labels::MANAGED_BY, labels::WORKLOAD_GENERATOR),
            (labels::MESH, mesh),
            (labels::ZONE, state.zone),
        ] {
            draft.resource.meta.labels.insert(key.into(), value.into());
        }
        draft.resource.status = Workload::wrap_status(WorkloadStatus { dataplane_proxies });
        derived.writes.extend(draft.into_write());
    }
}

fn is_generated(meta: &Meta) -> bool {
    meta.is_local_to_zone() && meta.label(labels::MANAGED_BY) == Some(labels::WORKLOAD_GENERATOR)
}
