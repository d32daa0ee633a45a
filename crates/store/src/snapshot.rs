//! Snapshots: persistent maps, so that a copy costs one reference count and a change costs one path.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource, labels};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::{ChangeBatch, Revision};

/// Labels that nearly every resource has with one of a few values: an index over them would repeat the store.
/// [`Snapshot::by_label`] filters a listing instead.
const UNSELECTIVE_LABELS: [&str; 3] = [labels::MESH, labels::ORIGIN, labels::ENV];

/// A consistent, immutable view of everything at one revision. Cheap to clone.
#[derive(Clone, Default)]
pub struct Snapshot(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    revision: Revision,
    /// Ordered by kind, mesh, name.
    resources: RedBlackTreeMapSync<Key, Arc<Resource>>,
    /// Owner → what it owns directly.
    owned: HashTrieMapSync<Key, RedBlackTreeSetSync<Key>>,
    /// Label → resources by name.
    by_label: HashTrieMapSync<LabelKey, RedBlackTreeMapSync<String, Arc<Resource>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct LabelKey {
    kind: Kind,
    mesh: String,
    key: String,
    value: String,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Contents stay out of logs: there are secrets among them.
        f.debug_struct("Snapshot").field("revision", &self.0.revision).field("len", &self.len()).finish()
    }
}

impl Snapshot {
    /// Nothing, at revision 0.
    pub fn empty() -> Snapshot {
        Snapshot::default()
    }

    /// What a backend read from its storage.
    pub fn restore(revision: Revision, resources: impl IntoIterator<Item = Arc<Resource>>) -> Snapshot {
        let mut inner = Inner { revision, ..Inner::default() };
        for resource in resources {
            inner.replace(resource.key(), Some(resource));
        }
        Snapshot(Arc::new(inner))
    }

    /// The snapshot after `batch`. The batch must be the one that follows this snapshot's revision, or a
    /// later one when the revisions between changed nothing.
    pub fn with(&self, batch: &ChangeBatch) -> Snapshot {
        let mut inner = Inner::clone(&self.0);
        inner.revision = batch.revision;
        for change in &batch.changes {
            inner.replace(change.key.clone(), change.new.clone());
        }
        Snapshot(Arc::new(inner))
    }

    /// The last revision that it holds.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// How many resources it holds.
    pub fn len(&self) -> usize {
        self.0.resources.size()
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.resources.is_empty()
    }

    /// One resource.
    pub fn get(&self, key: &Key) -> Option<Arc<Resource>> {
        self.0.resources.get(key).cloned()
    }

    /// Whether the key is taken.
    pub fn contains(&self, key: &Key) -> bool {
        self.0.resources.contains_key(key)
    }

    /// Everything, ordered by kind, mesh and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.resources.values()
    }

    /// Resources of a kind, ordered by mesh and name; of one mesh, or of all with `None`.
    pub fn list<'a>(
        &'a self,
        kind: Kind,
        mesh: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
        self.list_after(kind, mesh, None)
    }

    /// [`list`](Self::list), continued behind the resource of this mesh and name (which need not exist).
    pub fn list_after<'a>(
        &'a self,
        kind: Kind,
        mesh: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
        let first = Key { kind, mesh: mesh.unwrap_or_default().to_owned(), name: String::new() };
        let start = match after {
            Some((mesh, name)) => {
                let after = Key { kind, mesh: mesh.to_owned(), name: name.to_owned() };
                if after < first { Bound::Included(first) } else { Bound::Excluded(after) }
            }
            None => Bound::Included(first),
        };
        let mesh = mesh.map(str::to_owned);
        self.0
            .resources
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| {
                key.kind == kind && mesh.as_ref().is_none_or(|mesh| *mesh == key.mesh)
            })
            .map(|(_, resource)| resource)
    }

    /// What this resource owns directly, ordered by key.
    pub fn owned_by<'a>(&'a self, owner: &Key) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
        let keys = self.0.owned.get(owner);
        keys.into_iter().flat_map(RedBlackTreeSetSync::iter).filter_map(|key| self.0.resources.get(key))
    }

    /// Resources of a kind and mesh (empty for global-scoped kinds) with this label, ordered by name.
    pub fn by_label<'a>(
        &'a self,
        kind: Kind,
        mesh: &str,
        key: &str,
        value: &str,
    ) -> Box<dyn Iterator<Item = &'a Arc<Resource>> + 'a> {
        let (key, value) = (key.to_owned(), value.to_owned());
        if UNSELECTIVE_LABELS.contains(&key.as_str()) {
            let all = self.list(kind, Some(mesh));
            return Box::new(all.filter(move |resource| resource.meta.label(&key) == Some(&value)));
        }
        let found = self.0.by_label.get(&LabelKey { kind, mesh: mesh.to_owned(), key, value });
        Box::new(found.into_iter().flat_map(RedBlackTreeMapSync::values))
    }
}

impl Inner {
    fn replace(&mut self, key: Key, new: Option<Arc<Resource>>) {
        let old = self.resources.get(&key).cloned();
        if let Some(old) = &old {
            let kept = |k: &str, v: &str| new.as_ref().is_some_and(|new| new.meta.label(k) == Some(v));
            for (label, value) in indexed_labels(old).filter(|(k, v)| !kept(k, v)) {
                self.unindex_label(&key, label, value);
            }
            if let Some(owner) = &old.meta.owner
                && new.as_ref().and_then(|new| new.meta.owner.as_ref()) != Some(owner)
            {
                self.unindex_owner(owner, &key);
            }
        }
        let Some(new) = new else {
            self.resources.remove_mut(&key);
            return;
        };
        for (label, value) in indexed_labels(&new) {
            self.index_label(&key, label, value, &new);
        }
        if let Some(owner) = &new.meta.owner {
            match self.owned.get_mut(owner) {
                Some(keys) => {
                    keys.insert_mut(key.clone());
                }
                None => {
                    let mut keys = RedBlackTreeSetSync::new_sync();
                    keys.insert_mut(key.clone());
                    self.owned.insert_mut(owner.clone(), keys);
                }
            }
        }
        self.resources.insert_mut(key, new);
    }

    fn index_label(&mut self, key: &Key, label: &str, value: &str, resource: &Arc<Resource>) {
        let label = LabelKey::new(key, label, value);
        match self.by_label.get_mut(&label) {
            Some(names) => {
                names.insert_mut(key.name.clone(), resource.clone());
            }
            None => {
                let mut names = RedBlackTreeMapSync::new_sync();
                names.insert_mut(key.name.clone(), resource.clone());
                self.by_label.insert_mut(label, names);
            }
        }
    }

    fn unindex_label(&mut self, key: &Key, label: &str, value: &str) {
        let label = LabelKey::new(key, label, value);
        if let Some(names) = self.by_label.get_mut(&label) {
            names.remove_mut(&key.name);
            if names.is_empty() {
                self.by_label.remove_mut(&label);
            }
        }
    }

    fn unindex_owner(&mut self, owner: &Key, key: &Key) {
        if let Some(keys) = self.owned.get_mut(owner) {
            keys.remove_mut(key);
            if keys.is_empty() {
                self.owned.remove_mut(owner);
            }
        }
    }
}

impl LabelKey {
    fn new(resource: &Key, key: &str, value: &str) -> LabelKey {
        LabelKey {
            kind: resource.kind,
            mesh: resource.mesh.clone(),
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }
}

fn indexed_labels(resource: &Resource) -> impl Iterator<Item = (&str, &str)> {
    let labels = resource.meta.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    labels.filter(|(key, _)| !UNSELECTIVE_LABELS.contains(key))
}
