//! [`Shelf`]: resources of one kind and mesh, sorted by name, as a persistent sequence that can be counted and
//! entered at any position without walking what lies before it.

use std::ops::Bound;
use std::sync::Arc;

use graticule_model::Resource;
use rpds::RedBlackTreeMapSync;

/// Most resources in one chunk. A write copies one chunk, a position is found by counting chunks.
const CHUNK_LEN_MAX: usize = 128;
/// Resources in a chunk when many come at once: there is room for some more.
const CHUNK_LEN_BULK: usize = CHUNK_LEN_MAX * 3 / 4;
/// Chunks shorter than this join the next one, when both fit into three quarters of a chunk.
const CHUNK_LEN_MIN: usize = CHUNK_LEN_MAX / 4;

type Chunk = Arc<Vec<Arc<Resource>>>;

/// A sorted sequence of resources with different names.
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    len: usize,
    /// By a name that is not above those of the chunk and above those of the chunk before; the key of the first
    /// is empty, so that every name has a chunk. No chunk is empty.
    chunks: RedBlackTreeMapSync<Arc<str>, Chunk>,
}

impl Shelf {
    /// All at once: the names must be in order, each once.
    pub(crate) fn of_sorted(resources: &[Arc<Resource>]) -> Shelf {
        let mut shelf = Shelf { len: resources.len(), ..Shelf::default() };
        for (number, chunk) in resources.chunks(CHUNK_LEN_BULK).enumerate() {
            let key = if number == 0 { "" } else { chunk[0].meta.name.as_str() };
            shelf.chunks.insert_mut(key.into(), Arc::new(chunk.to_vec()));
        }
        shelf
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        let (_, chunk) = self.chunk_of(name)?;
        let position = position(chunk, name).ok()?;
        chunk.get(position)
    }

    /// Inserts or replaces.
    pub(crate) fn put(&mut self, resource: Arc<Resource>) {
        let name = resource.meta.name.as_str();
        let Some(key) = self.chunk_of(name).map(|(key, _)| key.clone()) else {
            self.chunks.insert_mut("".into(), Arc::new(vec![resource]));
            self.len = 1;
            return;
        };
        let chunk = self.chunks.get_mut(&key).expect("the key was just found");
        let items = Arc::make_mut(chunk);
        let at = match position(items, name) {
            Ok(at) => {
                items[at] = resource;
                return;
            }
            Err(at) => at,
        };
        items.insert(at, resource);
        self.len += 1;
        if items.len() > CHUNK_LEN_MAX {
            // Names that come in order leave full chunks behind them.
            let half = if at + 1 == items.len() { at } else { items.len() / 2 };
            let upper = items.split_off(half);
            self.chunks.insert_mut(upper[0].meta.name.as_str().into(), Arc::new(upper));
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let Some((key, at)) =
            self.chunk_of(name).and_then(|(key, chunk)| Some((key.clone(), position(chunk, name).ok()?)))
        else {
            return;
        };
        self.len -= 1;
        let chunk = self.chunks.get_mut(&key).expect("the key was just found");
        let items = Arc::make_mut(chunk);
        items.remove(at);
        let len = items.len();
        if len == 0 {
            self.chunks.remove_mut(&key);
            self.rekey_first();
        } else if len < CHUNK_LEN_MIN {
            self.join_next(&key, len);
        }
    }

    fn rekey_first(&mut self) {
        if let Some((key, chunk)) = self.chunks.first()
            && !key.is_empty()
        {
            let (key, chunk) = (key.clone(), chunk.clone());
            self.chunks.remove_mut(&key);
            self.chunks.insert_mut("".into(), chunk);
        }
    }

    fn join_next(&mut self, key: &Arc<str>, len: usize) {
        let mut behind = self.chunks.range::<str, _>((Bound::Excluded(&**key), Bound::Unbounded));
        let Some((next_key, next)) = behind.next() else { return };
        if len + next.len() > CHUNK_LEN_MAX - CHUNK_LEN_MIN {
            return;
        }
        let (next_key, next) = (next_key.clone(), next.clone());
        self.chunks.remove_mut(&next_key);
        let chunk = self.chunks.get_mut(key).expect("another key was removed");
        Arc::make_mut(chunk).extend(next.iter().cloned());
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.chunks.values().flat_map(|chunk| chunk.iter())
    }

    /// From the one at this position on, by name.
    pub(crate) fn skip(&self, mut count: usize) -> impl Iterator<Item = &Arc<Resource>> {
        self.chunks.values().flat_map(move |chunk| {
            let skipped = count.min(chunk.len());
            count -= skipped;
            chunk.get(skipped..).unwrap_or_default()
        })
    }

    /// Where `name` is, or would be.
    fn chunk_of(&self, name: &str) -> Option<(&Arc<str>, &Chunk)> {
        if self.chunks.size() == 1 {
            // Its key is empty. Most shelves of an index are as short as that.
            return self.chunks.first();
        }
        self.chunks.range::<str, _>((Bound::Unbounded, Bound::Included(name))).next_back()
    }
}

fn position(chunk: &[Arc<Resource>], name: &str) -> Result<usize, usize> {
    chunk.binary_search_by(|resource| resource.meta.name.as_str().cmp(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use graticule_model::kinds::mesh::Mesh;
    use graticule_model::{Meta, Resource};
    use proptest::prelude::*;

    use super::*;

    fn resource(name: &str) -> Arc<Resource> {
        Arc::new(Resource::new(Meta::new("", name), Mesh::default()))
    }

    fn names<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> Vec<String> {
        resources.map(|resource| resource.meta.name.clone()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The same as a sorted set, through growth, splits, joins and back to nothing; older copies stay.
        #[test]
        fn like_a_set(
            puts in prop::collection::vec(0..2_000_u32, 1..900),
            removals in prop::collection::vec(0..2_000_u32, 0..2_000),
            skipped in 0..900_usize,
            some in 0..2_000_u32,
        ) {
            let name = |number: u32| format!("n{number:04}");
            let (mut shelf, mut set) = (Shelf::default(), BTreeSet::new());
            for number in puts {
                shelf.put(resource(&name(number)));
                set.insert(name(number));
            }
            let (copy, copied) = (shelf.clone(), set.clone());
            for number in removals {
                shelf.remove(&name(number));
                set.remove(&name(number));
            }
            for (shelf, set) in [(&shelf, &set), (&copy, &copied)] {
                let all: Vec<String> = set.iter().cloned().collect();
                prop_assert_eq!(shelf.len(), set.len());
                prop_assert_eq!(names(shelf.iter()), all.clone());
                prop_assert_eq!(names(shelf.skip(skipped)), all.iter().skip(skipped).cloned().collect::<Vec<_>>());
                let found = shelf.get(&name(some)).map(|resource| resource.meta.name.clone());
                prop_assert_eq!(found, set.get(&name(some)).cloned());
                prop_assert!(shelf.chunks.values().all(|chunk| (1..=CHUNK_LEN_MAX).contains(&chunk.len())));
            }
        }
    }

    #[test]
    fn names_in_order_fill_chunks() {
        let mut shelf = Shelf::default();
        for number in 0..10_000 {
            shelf.put(resource(&format!("n{number:05}")));
        }
        assert_eq!(shelf.chunks.size(), 10_000_usize.div_ceil(CHUNK_LEN_MAX));
        for number in 0..10_000 {
            shelf.remove(&format!("n{number:05}"));
        }
        assert!(shelf.is_empty() && shelf.chunks.is_empty());
    }
}
