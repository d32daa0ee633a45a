//! A trust domain belongs to the zone that published it first (DESIGN decision 14), also when two zones publish it at two
//! replicas of global at the same moment: with the MeshTrust goes a claim, an internal Config that only one of them can
//! make. It goes when the MeshTrust goes, and counts for nothing once the MeshTrust has another domain.

use graticule_model::kinds::config::Config;
use graticule_model::kinds::mesh_trust::MeshTrust;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_store::{Expect, Write};

use super::sink::Held;

/// Beginning of the names of claims; mesh and trust domain follow.
const CLAIM_PREFIX: &str = "graticule-trust-domain.";

fn claim_key(mesh: &str, domain: &str) -> Key {
    Key::new(Kind::Config, "", format!("{CLAIM_PREFIX}{mesh}.{domain}"))
}

/// The other zone that published the trust domain of this MeshTrust in its mesh.
pub(super) fn owner(resource: &Resource, zone: &str, held: &dyn Held) -> Option<String> {
    let trust = resource.spec_as::<MeshTrust>()?;
    owner_of(&resource.meta.mesh, &trust.trust_domain, zone, held)
}

/// The zone, other than this one, that published a trust domain in a mesh.
pub(super) fn owner_of(mesh: &str, domain: &str, zone: &str, held: &dyn Held) -> Option<String> {
    let claim = held.get(&claim_key(mesh, domain)).filter(|claim| counts(claim, domain, held));
    let claimed = claim.as_ref().and_then(|claim| claim.spec_as::<Config>());
    if let Some(claimed) = claimed.filter(|claimed| claimed.config != zone) {
        return Some(claimed.config.clone());
    }
    let others = held.list(Kind::MeshTrust);
    let first = others.iter().find(|other| {
        other.meta.mesh == mesh
            && !other.meta.is_local_to_global()
            && other.meta.zone().is_some_and(|owner| owner != zone)
            && other.spec_as::<MeshTrust>().is_some_and(|other| other.trust_domain == domain)
    })?;
    first.meta.zone().map(str::to_owned)
}

/// The write that makes the trust domain of a MeshTrust this zone's, to be committed together with the MeshTrust.
/// `None`: it is.
pub(super) fn claim(resource: &Resource, zone: &str, held: &dyn Held) -> Option<Write> {
    let trust = resource.spec_as::<MeshTrust>()?;
    let domain = &trust.trust_domain;
    let key = claim_key(&resource.meta.mesh, domain);
    let expect = match held.get(&key) {
        Some(claim) if counts(&claim, domain, held) => return None,
        // Left behind by a MeshTrust that has another domain now.
        Some(claim) => Expect::Version(claim.meta.version),
        None => Expect::Absent,
    };
    let mut meta = Meta::new("", key.name);
    meta.owner = Some(resource.key());
    let claim = Box::new(Resource::new(meta, Config { config: zone.to_owned() }));
    Some(Write::Put { resource: claim, expect, touch: false })
}

/// Whether what a claim belongs to still has the trust domain.
fn counts(claim: &Resource, domain: &str, held: &dyn Held) -> bool {
    let owner = claim.meta.owner.as_ref().and_then(|key| held.get(key));
    owner.is_some_and(|owner| owner.spec_as::<MeshTrust>().is_some_and(|owner| owner.trust_domain == domain))
}

/// Whether this is the key of a claim.
pub(crate) fn is_claim(key: &Key) -> bool {
    key.kind == Kind::Config && key.name.starts_with(CLAIM_PREFIX)
}

/// What a claim belongs to.
pub(crate) fn claimant(write: &Write) -> Option<&Key> {
    match write {
        Write::Put { resource, .. } if resource.kind() == Kind::Config && is_claim(&resource.key()) => {
            resource.meta.owner.as_ref()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use graticule_model::kinds::mesh::Mesh;
    use graticule_model::{Timestamp, yaml};
    use graticule_store::{MemoryStore, Store as _, Txn};

    use super::*;

    /// As global does with a MeshTrust of a zone; tells who the domain belongs to otherwise.
    fn publish(store: &MemoryStore, zone: &str, domain: &str) -> Option<String> {
        let (resource, held) = (trust(zone, domain), store.snapshot());
        if let Some(owner) = owner(&resource, zone, &held) {
            return Some(owner);
        }
        let claim = claim(&resource, zone, &held);
        let put = Write::Put { resource: Box::new(resource), expect: Expect::Any, touch: false };
        store
            .commit_now(Txn { at: None, writes: std::iter::once(put).chain(claim).collect() })
            .expect("its turn");
        None
    }

    fn trust(zone: &str, domain: &str) -> Resource {
        let text = format!(
            "{{type: MeshTrust, mesh: default, name: of-{zone},
               labels: {{kuma.io/origin: zone, kuma.io/zone: {zone}}},
               spec: {{trustDomain: {domain}, caBundles: [{{type: Pem, pem: {{value: x}}}}]}}}}"
        );
        Resource::from_rest(Kind::MeshTrust, &yaml::parse_one(&text).unwrap()).unwrap()
    }

    #[test]
    fn a_domain_belongs_to_who_published_it_first_until_it_has_another_one() {
        let store = MemoryStore::new(|| Timestamp::UNIX_EPOCH);
        store.commit_now(Txn::put(Resource::new(Meta::new("", "default"), Mesh::default()))).expect("a Mesh");
        for (zone, domain, belongs_to) in [
            ("east", "one.local", None),
            ("west", "one.local", Some("east")),
            ("west", "two.local", None),
            // East changes its domain: nobody has the old one.
            ("east", "three.local", None),
            ("west", "one.local", None),
            ("east", "one.local", Some("west")),
        ] {
            assert_eq!(publish(&store, zone, domain).as_deref(), belongs_to, "{zone} {domain}");
        }
    }
}
