//! Snapshots: persistent maps, so that a copy costs one reference count and a change costs one path.

use std::fmt;
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource, labels};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::shelf::Shelf;
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
    len: usize,
    /// By kind, then mesh; no shelf is empty.
    shelves: RedBlackTreeMapSync<Kind, RedBlackTreeMapSync<String, Shelf>>,
    /// Owner → what it owns directly.
    owned: HashTrieMapSync<Key, RedBlackTreeSetSync<Key>>,
    /// Label → resources by name.
    by_label: HashTrieMapSync<LabelKey, Shelf>,
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
        self.0.len
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// One resource.
    pub fn get(&self, key: &Key) -> Option<Arc<Resource>> {
        self.0.get(key).cloned()
    }

    /// Whether the key is taken.
    pub fn contains(&self, key: &Key) -> bool {
        self.0.get(key).is_some()
    }

    /// Everything, ordered by kind, mesh and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.shelves.values().flat_map(RedBlackTreeMapSync::values).flat_map(Shelf::iter)
    }

    /// Resources of a kind, ordered by mesh and name; of one mesh, or of all with `None`.
    pub fn list<'a>(
        &'a self,
        kind: Kind,
        mesh: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
        self.shelves(kind, mesh).flat_map(Shelf::iter)
    }

    /// How many [`list`](Self::list) gives, without walking them.
    pub fn count(&self, kind: Kind, mesh: Option<&str>) -> usize {
        self.shelves(kind, mesh).map(Shelf::len).sum()
    }

    /// [`list`](Self::list) without the first `count`, which are not walked one by one.
    pub fn list_skip<'a>(
        &'a self,
        kind: Kind,
        mesh: Option<&str>,
        mut count: usize,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
        self.shelves(kind, mesh).flat_map(move |shelf| {
            let skipped = count.min(shelf.len());
            count -= skipped;
            shelf.skip(skipped)
        })
    }

    /// The shelves of a kind, ordered by mesh.
    fn shelves<'a>(&'a self, kind: Kind, mesh: Option<&str>) -> impl Iterator<Item = &'a Shelf> + use<'a> {
        let of_kind = self.0.shelves.get(&kind);
        let (one, all) = match mesh {
            Some(mesh) => (of_kind.and_then(|meshes| meshes.get(mesh)), None),
            None => (None, of_kind),
        };
        one.into_iter().chain(all.into_iter().flat_map(RedBlackTreeMapSync::values))
    }

    /// What this resource owns directly, ordered by key.
    pub fn owned_by<'a>(&'a self, owner: &Key) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
        let keys = self.0.owned.get(owner);
        keys.into_iter().flat_map(RedBlackTreeSetSync::iter).filter_map(|key| self.0.get(key))
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
        Box::new(found.into_iter().flat_map(Shelf::iter))
    }
}

impl Inner {
    fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.shelves.get(&key.kind)?.get(&key.mesh)?.get(&key.name)
    }

    /// Puts a resource on its shelf.
    fn put(&mut self, key: &Key, resource: Arc<Resource>) {
        if !self.shelves.contains_key(&key.kind) {
            self.shelves.insert_mut(key.kind, RedBlackTreeMapSync::new_sync());
        }
        let meshes = self.shelves.get_mut(&key.kind).expect("it is there, or was just made");
        match meshes.get_mut(&key.mesh) {
            Some(shelf) => shelf.put(resource),
            None => {
                let mut shelf = Shelf::default();
                shelf.put(resource);
                meshes.insert_mut(key.mesh.clone(), shelf);
            }
        }
    }

    /// Takes a resource from its shelf.
    fn remove(&mut self, key: &Key) {
        let Some(meshes) = self.shelves.get_mut(&key.kind) else { return };
        let Some(shelf) = meshes.get_mut(&key.mesh) else { return };
        shelf.remove(&key.name);
        if shelf.is_empty() {
            meshes.remove_mut(&key.mesh);
        }
    }

    fn replace(&mut self, key: Key, new: Option<Arc<Resource>>) {
        let old = self.get(&key).cloned();
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
            if old.is_some() {
                self.len -= 1;
                self.remove(&key);
            }
            return;
        };
        for (label, value) in indexed_labels(&new) {
            self.index_label(&key, label, value, new.clone());
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
        self.len += usize::from(old.is_none());
        self.put(&key, new);
    }

    fn index_label(&mut self, key: &Key, label: &str, value: &str, resource: Arc<Resource>) {
        let label = LabelKey::new(key, label, value);
        match self.by_label.get_mut(&label) {
            Some(shelf) => shelf.put(resource),
            None => {
                let mut shelf = Shelf::default();
                shelf.put(resource);
                self.by_label.insert_mut(label, shelf);
            }
        }
    }

    fn unindex_label(&mut self, key: &Key, label: &str, value: &str) {
        let label = LabelKey::new(key, label, value);
        if let Some(shelf) = self.by_label.get_mut(&label) {
            shelf.remove(&key.name);
            if shelf.is_empty() {
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
