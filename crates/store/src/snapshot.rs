//! Snapshots: persistent maps, so that a copy costs one reference count and a change costs one path.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource, labels};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

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
    all: Shelves,
    /// Owner → what it owns directly.
    owned: HashTrieMapSync<Key, Shelves>,
    /// Label → resources by name. A display name that is the name is not in it: nearly all resources have one.
    by_label: HashTrieMapSync<LabelKey, Shelf>,
}

/// Resources by kind, then mesh; no shelf is empty.
#[derive(Clone, Default)]
struct Shelves(RedBlackTreeMapSync<Kind, RedBlackTreeMapSync<String, Shelf>>);

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

    /// What a backend read from its storage. Quickest when it comes ordered by kind, mesh and name; of several
    /// resources with one key, the last one counts.
    pub fn restore(revision: Revision, resources: impl IntoIterator<Item = Arc<Resource>>) -> Snapshot {
        let mut all: Vec<Arc<Resource>> = resources.into_iter().collect();
        if !all.is_sorted_by(|a, b| position(a) < position(b)) {
            all.sort_by(|a, b| position(a).cmp(&position(b)));
            all.dedup_by(|later, kept| {
                let is_same = position(later) == position(kept);
                if is_same {
                    std::mem::swap(later, kept);
                }
                is_same
            });
        }
        Snapshot(Arc::new(Inner::of_sorted(revision, &all)))
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
        self.0.all.iter()
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

    fn shelves<'a>(&'a self, kind: Kind, mesh: Option<&str>) -> impl Iterator<Item = &'a Shelf> + use<'a> {
        self.0.all.of_kind(kind, mesh)
    }

    /// What this resource owns directly, ordered by key.
    pub fn owned_by<'a>(&'a self, owner: &Key) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
        self.0.owned.get(owner).into_iter().flat_map(Shelves::iter)
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
        let label = LabelKey { kind, mesh: mesh.to_owned(), key, value };
        let found = self.0.by_label.get(&label).into_iter().flat_map(Shelf::iter);
        if label.key != labels::DISPLAY_NAME {
            return Box::new(found);
        }
        let mut found: Vec<_> = found.collect();
        if let Some(named) = self.0.all.shelf(kind, mesh).and_then(|shelf| shelf.get(&label.value))
            && named.meta.label(labels::DISPLAY_NAME) == Some(&label.value)
        {
            let at = found.partition_point(|other| other.meta.name < named.meta.name);
            found.insert(at, named);
        }
        Box::new(found.into_iter())
    }
}

impl Shelves {
    /// Ordered by kind, mesh and name.
    fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.values().flat_map(RedBlackTreeMapSync::values).flat_map(Shelf::iter)
    }

    /// The shelves of a kind, ordered by mesh.
    fn of_kind<'a>(&'a self, kind: Kind, mesh: Option<&str>) -> impl Iterator<Item = &'a Shelf> + use<'a> {
        let of_kind = self.0.get(&kind);
        let (one, all) = match mesh {
            Some(mesh) => (of_kind.and_then(|meshes| meshes.get(mesh)), None),
            None => (None, of_kind),
        };
        one.into_iter().chain(all.into_iter().flat_map(RedBlackTreeMapSync::values))
    }

    fn shelf(&self, kind: Kind, mesh: &str) -> Option<&Shelf> {
        self.0.get(&kind)?.get(mesh)
    }

    fn put(&mut self, key: &Key, resource: Arc<Resource>) {
        if !self.0.contains_key(&key.kind) {
            self.0.insert_mut(key.kind, RedBlackTreeMapSync::new_sync());
        }
        let meshes = self.0.get_mut(&key.kind).expect("it is there, or was just made");
        match meshes.get_mut(&key.mesh) {
            Some(shelf) => shelf.put(resource),
            None => {
                meshes.insert_mut(key.mesh.clone(), Shelf::of_sorted(&[resource]));
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(meshes) = self.0.get_mut(&key.kind) else { return };
        let Some(shelf) = meshes.get_mut(&key.mesh) else { return };
        shelf.remove(&key.name);
        if shelf.is_empty() {
            meshes.remove_mut(&key.mesh);
            if meshes.is_empty() {
                self.0.remove_mut(&key.kind);
            }
        }
    }

    /// All at once: ordered by [`position`], each position once.
    fn of_sorted(resources: &[Arc<Resource>]) -> Shelves {
        let mut shelves = Shelves::default();
        for of_kind in resources.chunk_by(|a, b| a.kind() == b.kind()) {
            let mut meshes = RedBlackTreeMapSync::new_sync();
            for shelf in of_kind.chunk_by(|a, b| mesh_of(a) == mesh_of(b)) {
                meshes.insert_mut(mesh_of(&shelf[0]).to_owned(), Shelf::of_sorted(shelf));
            }
            shelves.0.insert_mut(of_kind[0].kind(), meshes);
        }
        shelves
    }
}

/// Mesh of the key.
fn mesh_of(resource: &Resource) -> &str {
    if resource.kind().descriptor().is_global_scoped() { "" } else { &resource.meta.mesh }
}

/// The key, without a copy.
fn position(resource: &Resource) -> (Kind, &str, &str) {
    (resource.kind(), mesh_of(resource), &resource.meta.name)
}

impl Inner {
    /// All at once: ordered by [`position`], each position once.
    fn of_sorted(revision: Revision, resources: &[Arc<Resource>]) -> Inner {
        let mut owned: HashMap<&Key, Vec<Arc<Resource>>> = HashMap::new();
        let mut by_label: HashMap<(Kind, &str, &str, &str), Vec<Arc<Resource>>> = HashMap::new();
        for resource in resources {
            if let Some(owner) = &resource.meta.owner {
                owned.entry(owner).or_default().push(resource.clone());
            }
            let (kind, mesh) = (resource.kind(), mesh_of(resource));
            for (label, value) in indexed_labels(resource) {
                by_label.entry((kind, mesh, label, value)).or_default().push(resource.clone());
            }
        }
        let mut inner =
            Inner { revision, len: resources.len(), all: Shelves::of_sorted(resources), ..Inner::default() };
        for (owner, resources) in owned {
            inner.owned.insert_mut(owner.clone(), Shelves::of_sorted(&resources));
        }
        for ((kind, mesh, key, value), resources) in by_label {
            let (mesh, key, value) = (mesh.to_owned(), key.to_owned(), value.to_owned());
            inner.by_label.insert_mut(LabelKey { kind, mesh, key, value }, Shelf::of_sorted(&resources));
        }
        inner
    }

    fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.all.shelf(key.kind, &key.mesh)?.get(&key.name)
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
                self.all.remove(&key);
            }
            return;
        };
        for (label, value) in indexed_labels(&new) {
            self.index_label(&key, label, value, new.clone());
        }
        if let Some(owner) = &new.meta.owner {
            match self.owned.get_mut(owner) {
                Some(shelves) => shelves.put(&key, new.clone()),
                None => {
                    let mut shelves = Shelves::default();
                    shelves.put(&key, new.clone());
                    self.owned.insert_mut(owner.clone(), shelves);
                }
            }
        }
        self.len += usize::from(old.is_none());
        self.all.put(&key, new);
    }

    fn index_label(&mut self, key: &Key, label: &str, value: &str, resource: Arc<Resource>) {
        let label = LabelKey::new(key, label, value);
        match self.by_label.get_mut(&label) {
            Some(shelf) => shelf.put(resource),
            None => {
                self.by_label.insert_mut(label, Shelf::of_sorted(&[resource]));
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
        if let Some(shelves) = self.owned.get_mut(owner) {
            shelves.remove(key);
            if shelves.0.is_empty() {
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
    let name = resource.meta.name.as_str();
    labels.filter(move |(key, value)| match *key {
        labels::DISPLAY_NAME => *value != name,
        key => !UNSELECTIVE_LABELS.contains(&key),
    })
}
