//! What the leader of a zone derives from the zone's resources: MeshServices and Workloads from Dataplanes, their
//! status, virtual addresses and hostnames, the status of MeshIdentities and the MeshTrusts that they publish.
//!
//! Pure functions from a consistent state to writes. They are called after every batch with the meshes that it
//! touched (DESIGN decision 2: nothing here waits for an interval). Deriving from a state that holds the result
//! of the last derivation writes nothing.

mod identities;
mod services;
mod status;
mod vips;
mod workloads;

mod dataplanes;
mod hostnames;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use graticule_model::{Key, Kind, Resource, Timestamp};
use graticule_policy::ProxyId;

use crate::proxy::Serving;
use crate::resources::ResourceSet;
pub use identities::{AuthorityReport, AuthorityRequest, AuthoritySource, Material};

/// What the derivation depends on.
#[derive(Debug, Clone, Copy)]
pub struct DeriveState<'a> {
    /// Resources of the zone.
    pub resources: &'a ResourceSet,
    /// Name of the zone.
    pub zone: &'a str,
    /// Settings.
    pub settings: &'a DeriveSettings,
    /// Proxies with an open stream, to any replica.
    pub connected: &'a BTreeSet<ProxyId>,
    /// What is observed of proxies.
    pub serving: &'a BTreeMap<ProxyId, Serving>,
    /// What came of earlier [`AuthorityRequest`]s, by MeshIdentity.
    pub authorities: &'a BTreeMap<Key, AuthorityReport>,
}

/// Settings of the derivation.
#[derive(Debug, Clone)]
pub struct DeriveSettings {
    /// Network address of the range that MeshServices get addresses from (`ipam.meshService.cidr`).
    pub vip_network: Ipv4Addr,
    /// Prefix length of that range.
    pub vip_prefix_len: u8,
    /// How long a generated MeshService outlives its last Dataplane (`meshService.deletionGracePeriod`).
    pub deletion_grace_period: Duration,
}

impl Default for DeriveSettings {
    fn default() -> Self {
        DeriveSettings {
            vip_network: Ipv4Addr::new(241, 0, 0, 0),
            vip_prefix_len: 8,
            deletion_grace_period: Duration::from_secs(3600),
        }
    }
}

/// One write of the derivation.
#[derive(Debug, Clone, PartialEq)]
pub enum DerivedWrite {
    /// Creates (version 0) or replaces the stored version that `meta.version` names.
    Put(Resource),
    /// Removes.
    Delete(Key),
}

impl DerivedWrite {
    /// What is written.
    pub fn key(&self) -> Key {
        match self {
            DerivedWrite::Put(resource) => resource.key(),
            DerivedWrite::Delete(key) => key.clone(),
        }
    }
}

/// Result of a derivation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Derived {
    /// To be committed together; each key at most once, ascending.
    pub writes: Vec<DerivedWrite>,
    /// Certificate authorities that are to be made or loaded; the outcome leads to another derivation.
    pub authorities: Vec<AuthorityRequest>,
    /// When time alone changes the result.
    pub next_deadline: Option<Timestamp>,
    /// Resources that cannot be used as they are, and why. They stop nothing else.
    pub problems: Vec<(Key, String)>,
}

/// Derives for one mesh.
pub fn derive(state: &DeriveState<'_>, mesh: &str, now: Timestamp) -> Derived {
    derive_meshes(state, [mesh], now)
}

/// Derives for several meshes from the same state: addresses are unique across meshes.
pub fn derive_meshes<'m>(
    state: &DeriveState<'_>,
    meshes: impl IntoIterator<Item = &'m str>,
    now: Timestamp,
) -> Derived {
    let meshes: BTreeSet<&str> = meshes.into_iter().collect();
    let mut vips = vips::Vips::of(state);
    let mut derived = Derived::default();
    for mesh in meshes {
        // Without the mesh there is no owner; what belonged to it went with it.
        if state.resources.get(&Key::new(Kind::Mesh, "", mesh)).is_some() {
            derive_mesh(state, mesh, now, &mut vips, &mut derived);
        }
    }
    derived.writes.sort_by_cached_key(DerivedWrite::key);
    derived
}

fn derive_mesh(
    state: &DeriveState<'_>,
    mesh: &str,
    now: Timestamp,
    vips: &mut vips::Vips,
    derived: &mut Derived,
) {
    let identities = identities::derive(state, mesh, derived);
    let dataplanes = dataplanes::Dataplanes::of(state, mesh);
    let mut services = services::derive(state, mesh, now, &dataplanes, derived);
    for service in &mut services {
        status::refresh(service, &dataplanes, &identities);
        vips.assign(service, derived);
    }
    hostnames::refresh(state, mesh, &mut services);
    derived.writes.extend(services.into_iter().filter_map(Draft::into_write));
    workloads::derive(state, mesh, &dataplanes, derived);
}

/// A resource while it is derived.
#[derive(Debug)]
struct Draft {
    stored: Option<Arc<Resource>>,
    resource: Resource,
    /// Creation time; `now` for what is not stored yet.
    created: Timestamp,
}

impl Draft {
    fn of(stored: &Arc<Resource>) -> Draft {
        let resource = Resource::clone(stored);
        Draft { created: resource.meta.creation_time, stored: Some(stored.clone()), resource }
    }

    fn new(resource: Resource, now: Timestamp) -> Draft {
        Draft { stored: None, resource, created: now }
    }

    fn into_write(self) -> Option<DerivedWrite> {
        let unchanged = self.stored.is_some_and(|stored| stored.same_content(&self.resource));
        (!unchanged).then_some(DerivedWrite::Put(self.resource))
    }
}

/// Owner of everything in a mesh.
fn mesh_owner(mesh: &str) -> Option<Key> {
    Some(Key::new(Kind::Mesh, "", mesh))
}
