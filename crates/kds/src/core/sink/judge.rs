//! What becomes of a single resource, and of what a response does not have: taken, refused, removed, held back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::kinds::config::{CLUSTER_ID, Config};
use graticule_model::{Key, Kind, Resource, Status, labels};
use graticule_proto::discovery::DeltaDiscoveryResponse;
use graticule_store::Expect;

use super::super::filter::is_hashed;
use super::super::{leave, rewrite, trust};
use super::{GlobalSeen, Held, KindState, Obstacle, Rejection, Side, Sink};
use crate::wire;

/// A resource that is taken.
pub(super) struct Taken {
    pub(super) resource: Resource,
    /// `None`: nothing to write.
    pub(super) write: Option<Expect>,
}

impl Sink {
    /// The federation that a zone's copies are of.
    pub(super) fn own_federation(&self, held: &dyn Held) -> Option<String> {
        let stored = held.get(&Key::new(Kind::Config, "", CLUSTER_ID))?;
        if self.side == Side::Zone && self.side.owns(&stored) { id_of(&stored) } else { None }
    }

    /// Whether this is the global whose copies the zone holds. The federation's id says so: global keeps it, and every
    /// backup and every zone has it.
    pub(super) fn judge_global(&self, response: &DeltaDiscoveryResponse, held: &dyn Held) -> GlobalSeen {
        let Some(own) = self.own_federation(held) else { return GlobalSeen::Known };
        let offered = self.claimed_id(response, &own);
        if offered == own || self.agreed.as_ref() == Some(&offered) {
            GlobalSeen::Known
        } else {
            GlobalSeen::Other { own, offered }
        }
    }

    /// The id that a global says or confirms; empty: it has none.
    fn claimed_id(&self, response: &DeltaDiscoveryResponse, own: &str) -> String {
        let configs = response.resources.iter().filter_map(|item| wire::decode(Kind::Config, item).ok());
        let mut ids = configs.filter(|config| config.meta.name == CLUSTER_ID);
        if let Some(offered) = ids.find_map(|config| id_of(&config)) {
            return offered;
        }
        let key = Key::new(Kind::Config, "", CLUSTER_ID);
        let mut removed = response.removed_resources.iter();
        let is_removed = removed.any(|name| wire::key_of(Kind::Config, name).as_ref() == Some(&key));
        // Nobody mentions what was presented and is still right; whoever presented nothing hears everything.
        if is_removed || !self.present_versions { String::new() } else { own.to_owned() }
    }

    /// Whether an operator agreed to another global than this one: what this one does not have is another question.
    pub(super) fn is_void(&self, response: &DeltaDiscoveryResponse, held: &dyn Held) -> bool {
        let own = self.own_federation(held).unwrap_or_default();
        self.agreed.as_ref().is_some_and(|agreed| *agreed != self.claimed_id(response, &own))
    }

    /// A zone that stood alone made it, and now it belongs to global: global never had it, so that its absence there is no
    /// wish to delete it.
    pub(super) fn is_no_copy_yet(&self, stored: &Resource) -> bool {
        self.side == Side::Zone && self.protection.number > 0 && stored.meta.is_local_to_zone()
    }

    /// A Mesh in which the zone has proxies, or resources that somebody wrote there. They would go with it, and global cannot
    /// have seen all of them.
    pub(super) fn is_in_use(&self, stored: &Resource, held: &dyn Held) -> bool {
        if self.side != Side::Zone || stored.kind() != Kind::Mesh || self.protection.number == 0 {
            return false;
        }
        // With another federation goes what it does not have.
        self.agreed.is_none() && has_own(&stored.meta.name, held)
    }

    /// Whether a stored resource is a copy of the peer's.
    pub(super) fn is_copy(&self, stored: &Resource) -> bool {
        self.side.owns(stored) && self.meshes.include(&stored.key())
    }

    /// Copies of meshes that the zone takes no part in, which it decided itself: nothing of it is held back. The Mesh goes
    /// last, and stays while the zone has something of its own there, because that would go with it.
    pub fn unwanted(&self, held: &dyn Held) -> Vec<Key> {
        if self.side != Side::Zone || self.meshes.is_all() {
            return Vec::new();
        }
        let is_unwanted = |stored: &Arc<Resource>| {
            self.side.owns(stored)
                && !stored.meta.is_local_to_zone()
                && !self.meshes.include(&stored.key())
                && (stored.kind() != Kind::Mesh
                    || !(has_own(&stored.meta.name, held) || has_own_secrets(&stored.meta.name, held)))
        };
        let of = |kind: &Kind| held.list(*kind).into_iter().filter(is_unwanted).map(|stored| stored.key());
        let (meshes, others): (Vec<Key>, Vec<Key>) =
            self.kinds.keys().flat_map(of).partition(|key| key.kind == Kind::Mesh);
        others.into_iter().chain(meshes).collect()
    }

    /// Whether so much is missing when the stream begins that it waits for a decision.
    pub(super) fn holds_back(&self, kind: Kind, state: &KindState, removed: usize, held: &dyn Held) -> bool {
        if removed == 0 || !state.first || !self.protection.concerns(kind) {
            return false;
        }
        if self.agreed_removals.get(&kind).is_some_and(|agreed| removed <= *agreed) {
            return false;
        }
        if self.estranged {
            return true;
        }
        if self.agreed.is_some() {
            // Another federation was agreed to, with all that it does not have.
            return false;
        }
        let waits = |name: &str| state.given_up.contains(name) || state.held_back.contains(name);
        let copies = held.list(kind);
        let counted = copies.iter().filter(|copy| self.is_copy(copy) && !waits(&wire::wire_name(&copy.meta)));
        self.protection.holds(kind, removed, counted.count())
    }

    /// What a response asks to delete. Follows the reference: a peer that says that it has nothing left is believed,
    /// unless [`Sink::holds_back`] finds it too much at once.
    pub(super) fn removals(
        &self,
        kind: Kind,
        state: &KindState,
        response: &DeltaDiscoveryResponse,
        mentioned: &BTreeSet<Key>,
        held: &dyn Held,
    ) -> Vec<Arc<Resource>> {
        let mut gone: BTreeMap<Key, Arc<Resource>> = BTreeMap::new();
        if state.complete && !self.is_part(response) {
            gone.extend(held.list(kind).into_iter().map(|copy| (copy.key(), copy)));
            gone.retain(|key, _| !state.mentioned.contains(key));
        }
        let removed = response.removed_resources.iter().filter_map(|name| wire::key_of(kind, name));
        gone.extend(removed.filter_map(|key| Some((key.clone(), held.get(&key)?))));
        gone.retain(|key, copy| !mentioned.contains(key) && self.is_copy(copy));
        gone.into_values().collect()
    }

    /// `None`: out of scope, ignored.
    pub(super) fn take(&self, mut resource: Resource, held: &dyn Held) -> Result<Option<Taken>, Rejection> {
        let name = wire::wire_name(&resource.meta);
        let kind = resource.kind();
        let refuse = |reason: String, obstacle| Rejection { name: name.clone(), reason, obstacle };
        if !self.meshes.include(&resource.key()) {
            return Ok(None);
        }
        match &self.side {
            Side::Global { zone } => rewrite::as_owned_by_zone(&mut resource, zone),
            Side::Zone if kind.descriptor().kds.provided_by_zone() && resource.meta.is_local_to_zone() => {
                return Ok(None);
            }
            Side::Zone => resource.status = Status::empty(kind),
        }
        resource.validate().map_err(|violations| refuse(violations.to_string(), None))?;
        if let Side::Global { zone } = &self.side
            && let Some(owner) = trust::owner(&resource, zone, held)
        {
            let reason = format!("spec.trustDomain: belongs to zone \"{owner}\", which published it first");
            return Err(refuse(reason, Obstacle::trust_domain(&resource)));
        }
        let Some(stored) = held.get(&resource.key()) else {
            if self.side == Side::Zone
                && let Some(former) = leave::former(&resource, held)
            {
                resource.status = former.status.clone();
            }
            return Ok(Some(Taken { resource, write: Some(Expect::Absent) }));
        };
        if !self.side.owns(&stored) && !self.may_replace(&resource, &stored) {
            let reason = format!("user error\nresource already exists: {}", resource.key());
            return Err(refuse(reason, Some(Obstacle::Resource(resource.key()))));
        }
        if self.side == Side::Zone {
            resource.status = stored.status.clone();
        }
        let changed = !resource.same_content(&stored) || !self.side.owns(&stored);
        let write = changed.then_some(Expect::Version(stored.meta.version));
        Ok(Some(Taken { resource, write }))
    }

    /// Whether a name that somebody else holds goes to the sender: it does when the sender's claim to the
    /// name is the hash, and the holder's is not (DESIGN decision 17).
    pub(super) fn may_replace(&self, resource: &Resource, stored: &Resource) -> bool {
        let capabilities = resource.kind().descriptor().capabilities;
        match self.side {
            // The id of its federation replaces the one that a zone which stood alone made for itself.
            Side::Zone if resource.key() == Key::new(Kind::Config, "", CLUSTER_ID) => true,
            Side::Zone => !capabilities.keeps_name && is_hashed(resource) || leave::is_former(stored),
            Side::Global { .. } => {
                !stored.meta.is_local_to_global() && is_hashed(resource) && !is_hashed(stored)
            }
        }
    }
}

/// Whether a zone has proxies in the mesh, or resources that somebody wrote there.
fn has_own(mesh: &str, held: &dyn Held) -> bool {
    let is_written = |kind: &Kind| {
        let kds = kind.descriptor().kds;
        *kind == Kind::Dataplane
            || kds.provided_by_zone()
                && kds.requested_by_zones()
                && !matches!(kind, Kind::Secret | Kind::MeshTrust)
    };
    Kind::all().filter(is_written).any(|kind| {
        held.list(kind).iter().any(|own| {
            own.meta.mesh == mesh
                && own.meta.is_local_to_zone()
                && own.meta.label(labels::MANAGED_BY).is_none()
        })
    })
}

/// Whether somebody wrote Secrets of the mesh in the zone. Those of its authorities are made anew.
fn has_own_secrets(mesh: &str, held: &dyn Held) -> bool {
    let is_of_an_authority =
        |own: &Resource| own.meta.owner.as_ref().is_some_and(|owner| owner.kind == Kind::MeshIdentity);
    held.list(Kind::Secret)
        .iter()
        .any(|own| own.meta.mesh == mesh && own.meta.is_local_to_zone() && !is_of_an_authority(own))
}

fn id_of(resource: &Resource) -> Option<String> {
    resource.spec_as::<Config>().map(|config| config.config.clone())
}
