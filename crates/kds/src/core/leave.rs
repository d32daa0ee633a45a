//! What becomes of a zone's copies when it leaves its global: what global wrote becomes the zone's own, what belongs to
//! other zones goes. Nothing else of the zone changes, so that its proxies notice nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use graticule_model::kinds::hostname_generator::{HostnameGenerator, LabelSelector};
use graticule_model::labels::{self, Origin};
use graticule_model::{Key, Kind, Resource, Spec, name};
use graticule_store::{Expect, Write};
use serde::Serialize;

use super::catalog::Plane;
use super::kinds_for_zones;
use super::sink::Held;

/// What becomes of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fate {
    /// Kind of the copy.
    pub kind: &'static str,
    /// Its mesh; empty for kinds without.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mesh: String,
    /// The name under which it is stored.
    pub name: String,
    /// The name that it gets; absent when it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub becomes: Option<String>,
    /// It was brought from this other zone, and goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_zone: Option<String>,
}

/// One copy, what becomes of it, and the writes that make it so; they belong into one transaction.
#[derive(Debug, Clone)]
pub struct Step {
    /// For people.
    pub fate: Fate,
    /// For the store.
    pub writes: Vec<Write>,
}

/// What remains to be done until `zone` has no copies any more: first what it keeps, then what goes. Empty: nothing.
pub fn steps(zone: &str, held: &dyn Held) -> Vec<Step> {
    let mut taken = BTreeSet::new();
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for kind in kinds_for_zones().filter(|kind| Plane::of(*kind) == Plane::Config) {
        for copy in held.list(kind).iter().filter(|stored| !stored.meta.is_local_to_zone()) {
            match copy.meta.zone().filter(|owner| *owner != zone) {
                Some(owner) => gone.push(removal(copy, owner)),
                None => kept.push(adoption(copy, held, &mut taken)),
            }
        }
    }
    kept.append(&mut gone);
    kept
}

fn fate(copy: &Resource) -> Fate {
    let (kind, meta) = (copy.kind().name(), &copy.meta);
    Fate { kind, mesh: meta.mesh.clone(), name: meta.name.clone(), becomes: None, of_zone: None }
}

fn removal(copy: &Resource, owner: &str) -> Step {
    let delete = Write::Delete { key: copy.key(), expect: Expect::Version(copy.meta.version) };
    Step { fate: Fate { of_zone: Some(owner.to_owned()), ..fate(copy) }, writes: vec![delete] }
}

/// The copy as a resource of the zone. Nothing that a proxy's configuration is named after changes: neither the display
/// name nor the labels of zone and namespace.
fn adoption(copy: &Arc<Resource>, held: &dyn Held, taken: &mut BTreeSet<Key>) -> Step {
    let kind = copy.kind();
    let mut own = Resource::clone(copy);
    if kind.descriptor().is_policy() {
        // Counts less than what the zone wrote itself, as a policy of global does.
        own.meta.labels.remove(labels::ORIGIN);
    } else {
        own.meta.labels.insert(labels::ORIGIN.into(), Origin::Zone.as_str().into());
    }
    own.meta.labels.insert(labels::FROM_GLOBAL.into(), "yes".into());
    if let Spec::HostnameGenerator(generator) = &mut own.spec {
        select_own(generator, held);
    }
    if !kind.descriptor().is_global_scoped() {
        let mesh = Key::new(Kind::Mesh, "", own.meta.mesh.clone());
        own.meta.owner = held.get(&mesh).map(|_| mesh);
    }
    let old = copy.key();
    let wanted = name_at_global(&own);
    if let Some(wanted) = wanted.filter(|name| is_free(&own, name, held, taken)) {
        own.meta.name = wanted;
    }
    let key = own.key();
    taken.insert(key.clone());
    let fate = Fate { becomes: Some(key.name.clone()), ..fate(copy) };
    let expect = |same: bool| if same { Expect::Version(copy.meta.version) } else { Expect::Absent };
    let put = Write::Put { expect: expect(key == old), resource: Box::new(own), touch: false };
    let mut writes = vec![put];
    if key != old {
        writes.push(Write::Delete { key: old, expect: expect(true) });
    }
    Step { fate, writes }
}

/// The name without the hash. The authority of a MeshIdentity and the MeshTrust of it belong to its name, which stays.
fn name_at_global(copy: &Resource) -> Option<String> {
    let renamed = !copy.kind().descriptor().capabilities.keeps_name && copy.kind() != Kind::MeshIdentity;
    let name = copy.meta.display_name();
    let is_other = renamed && name != copy.meta.name && name::resource_name_error(name).is_none();
    is_other.then(|| name.to_owned())
}

fn is_free(own: &Resource, name: &str, held: &dyn Held, taken: &BTreeSet<Key>) -> bool {
    let mut renamed = own.clone();
    renamed.meta.name = name.to_owned();
    let key = renamed.key();
    held.get(&key).is_none() && !taken.contains(&key) && renamed.validate().is_ok()
}

/// What global's generators select by its origin has the origin of the zone now. A generator of the zone that does the same
/// already is enough.
fn select_own(generator: &mut HostnameGenerator, held: &dyn Held) {
    let mut own = generator.clone();
    let selectors = [&mut own.selector.mesh_external_service, &mut own.selector.mesh_multi_zone_service];
    let mut changed = false;
    for selector in selectors.into_iter().flatten() {
        changed |= select_zone(selector);
    }
    let others = held.list(Kind::HostnameGenerator);
    let does_the_same = |other: &Arc<Resource>| {
        other.meta.is_local_to_zone()
            && other
                .spec_as::<HostnameGenerator>()
                .is_some_and(|other| other.selector == own.selector && other.template == own.template)
    };
    if changed && !others.iter().any(does_the_same) {
        *generator = own;
    }
}

fn select_zone(selector: &mut LabelSelector) -> bool {
    let origin = selector.match_labels.as_mut().and_then(|labels| labels.get_mut(labels::ORIGIN));
    let Some(origin) = origin.filter(|origin| *origin == Origin::Global.as_str()) else { return false };
    *origin = Origin::Zone.as_str().into();
    true
}

/// What a zone kept of a copy when it left, and nobody changed since: it gives way to the copy that comes again.
pub(super) fn former(copy: &Resource, held: &dyn Held) -> Option<Arc<Resource>> {
    let key = Key::new(copy.kind(), copy.meta.mesh.clone(), copy.meta.display_name());
    if key == copy.key() {
        return None;
    }
    held.get(&key).filter(|stored| is_former(stored))
}

/// Whether a stored resource is what was kept of a copy.
pub(super) fn is_former(stored: &Resource) -> bool {
    stored.meta.is_local_to_zone() && stored.meta.label(labels::FROM_GLOBAL).is_some()
}
