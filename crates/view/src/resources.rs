//! A consistent set of resources, ordered by kind, mesh and stored name.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource, TypedSpec};

/// Resources of one zone. Observations (soft kinds) are never part of it: nothing is derived from them
/// (DESIGN decision 4).
#[derive(Debug, Clone, Default)]
pub struct ResourceSet(BTreeMap<Key, Arc<Resource>>);

impl ResourceSet {
    /// The resource stored under a key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.0.get(key)
    }

    /// Resources of a kind in a mesh (empty for global-scoped kinds), ascending by name.
    pub fn list<'a>(&'a self, kind: Kind, mesh: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> + 'a {
        self.0
            .range(Key::new(kind, mesh, "")..)
            .take_while(move |(key, _)| key.kind == kind && key.mesh == mesh)
            .map(|(_, resource)| resource)
    }

    /// Resources of a kind in all meshes, ascending by mesh and name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.range(Key::new(kind, "", "")..).take_while(move |(key, _)| key.kind == kind).map(|(_, r)| r)
    }

    /// Resources of a typed kind in a mesh, with their specs.
    pub fn typed<'a, S: TypedSpec + 'a>(
        &'a self,
        mesh: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<Resource>, &'a S)> + 'a {
        self.list(S::KIND, mesh).filter_map(|resource| Some((resource, resource.spec_as::<S>()?)))
    }

    /// Every resource, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Resource>)> {
        self.0.iter()
    }

    /// Stores or removes; returns what was there. Soft kinds are ignored.
    pub fn set(&mut self, key: Key, resource: Option<Arc<Resource>>) -> Option<Arc<Resource>> {
        if key.kind.descriptor().capabilities.soft {
            return None;
        }
        match resource {
            Some(resource) => self.0.insert(key, resource),
            None => self.0.remove(&key),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Arc<Resource>> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> Self {
        let mut set = ResourceSet::default();
        for resource in resources {
            set.set(resource.key(), Some(resource));
        }
        set
    }
}
