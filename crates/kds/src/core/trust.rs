//! A trust domain belongs to the zone that published it first (DESIGN decision 14), also when two zones publish it at two
//! replicas of global at the same moment: with the MeshTrust goes a claim, an internal Config that only one of them can
//! make. It goes when the MeshTrust goes.

use graticule_model::kinds::config::Config;
use graticule_model::kinds::mesh_trust::MeshTrust;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_store::{Expect, Write};

use super::sink::Held;

/// Beginning of the names of claims; mesh and trust domain follow.
const CLAIM_PREFIX: &str = "graticule-trust-domain.";

fn claim_key(mesh: &str, trust: &MeshTrust) -> Key {
    Key::new(Kind::Config, "", format!("{CLAIM_PREFIX}{mesh}.{}", trust.trust_domain))
}

/// The other zone that published this trust domain in the mesh.
pub(super) fn owner(resource: &Resource, zone: &str, held: &dyn Held) -> Option<String> {
    let trust = resource.spec_as::<MeshTrust>()?;
    let claim = held.get(&claim_key(&resource.meta.mesh, trust));
    let claimed = claim.as_ref().and_then(|claim| claim.spec_as::<Config>());
    if let Some(claimed) = claimed.filter(|claimed| claimed.config != zone) {
        return Some(claimed.config.clone());
    }
    let others = held.list(Kind::MeshTrust);
    let first = others.iter().find(|other| {
        other.meta.mesh == resource.meta.mesh
            && !other.meta.is_local_to_global()
            && other.meta.zone().is_some_and(|owner| owner != zone)
            && other.spec_as::<MeshTrust>().is_some_and(|other| other.trust_domain == trust.trust_domain)
    })?;
    first.meta.zone().map(str::to_owned)
}

/// The write that makes the trust domain of a MeshTrust this zone's, to be committed together with the MeshTrust.
/// `None`: it is.
pub(super) fn claim(resource: &Resource, zone: &str, held: &dyn Held) -> Option<Write> {
    let trust = resource.spec_as::<MeshTrust>()?;
    let key = claim_key(&resource.meta.mesh, trust);
    if held.get(&key).is_some() {
        return None;
    }
    let mut meta = Meta::new("", key.name);
    meta.owner = Some(resource.key());
    let claim = Box::new(Resource::new(meta, Config { config: zone.to_owned() }));
    Some(Write::Put { resource: claim, expect: Expect::Absent, touch: false })
}

/// Whether this is the key of a claim.
pub(crate) fn is_claim(key: &Key) -> bool {
    key.kind == Kind::Config && key.name.starts_with(CLAIM_PREFIX)
}

/// What a claim belongs to.
pub(crate) fn claimant(write: &Write) -> Option<&Key> {
    match write {
        Write::Put { resource, .. } if is_claim(&resource.key()) => resource.meta.owner.as_ref(),
        _ => None,
    }
}
