//! Sharing of equal resources between proxies (DESIGN decision 3).

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::snapshot::EnvoyResource;

/// Bump when the same input is turned into different bytes, so that proxies fetch them after an upgrade.
const FORMAT: &[u8] = b"graticule-envoygen 1\n";
/// Default number of entries that one generation of each part of the cache keeps.
const DEFAULT_CAPACITY: usize = 65_536;

/// Identifies an ordered part of the input.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 16]);

impl Digest {
    /// Digest of the serialised form of a part.
    pub(crate) fn of<T: Serialize + ?Sized>(what: &str, part: &T) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT).update(what.as_bytes()).update(b"\n");
        if let Err(error) = serde_json::to_writer(&mut hasher, part) {
            // Only maps with odd keys cannot be written; what was written up to there still identifies most of it.
            hasher.update(error.to_string().as_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Digest(digest)
    }

    /// Lower-case hexadecimal form: the version of a resource.
    pub(crate) fn version(self) -> Arc<str> {
        self.to_string().into()
    }
}

impl Digest {
    /// Whether `version` is this digest's version.
    pub(crate) fn is_version(self, version: &str) -> bool {
        let mut buffer = [0; 32];
        for (index, byte) in self.0.iter().enumerate() {
            buffer[index * 2] = hex_digit(byte >> 4);
            buffer[index * 2 + 1] = hex_digit(byte & 15);
        }
        version.as_bytes() == buffer
    }
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 15)]
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a shared part of the input lies, what surrounds it, and which kind of resource is made of it.
pub(crate) type PartKey = (usize, Digest, &'static str);

/// A resource and the part it was made of, which is held so that its address is not taken by another one.
type Known = (Arc<dyn Any + Send + Sync>, Arc<EnvoyResource>);

/// Shares resources between proxies: equal input parts give the same `Arc`.
///
/// Parts are first known by address, which costs no hashing, then by content. Bounded: each has two generations
/// of entries; when the young one is full it becomes the old one and the old one goes.
pub struct SharedCache {
    by_content: Mutex<Generations<Digest, Arc<EnvoyResource>>>,
    by_address: Mutex<Generations<PartKey, Known>>,
}

impl Default for SharedCache {
    fn default() -> Self {
        SharedCache::with_capacity(DEFAULT_CAPACITY)
    }
}

impl fmt::Debug for SharedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCache").field("resources", &self.len()).finish_non_exhaustive()
    }
}

impl SharedCache {
    /// A cache that keeps at most twice `capacity` resources.
    pub fn with_capacity(capacity: usize) -> SharedCache {
        SharedCache {
            by_content: Mutex::new(Generations::new(capacity)),
            by_address: Mutex::new(Generations::new(capacity)),
        }
    }

    /// Number of resources held.
    pub fn len(&self) -> usize {
        self.by_content.lock().len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The resource of an input part, built when it is not known.
    pub(crate) fn resource(
        &self,
        key: Digest,
        build: impl FnOnce() -> Option<Arc<EnvoyResource>>,
    ) -> Option<Arc<EnvoyResource>> {
        let found = self.by_content.lock().get(&key);
        if found.is_some() {
            return found;
        }
        // Built without the lock; when two proxies race, the first one wins so that they still share.
        let built = build()?;
        Some(self.by_content.lock().get_or_insert(key, built))
    }

    /// The resource that was made of the very same part before.
    pub(crate) fn known(&self, key: PartKey) -> Option<Arc<EnvoyResource>> {
        self.by_address.lock().get(&key).map(|(_, resource)| resource)
    }

    /// Remembers what was made of a part.
    pub(crate) fn remember<T: Send + Sync + 'static>(
        &self,
        key: PartKey,
        part: &Arc<T>,
        resource: &Arc<EnvoyResource>,
    ) {
        let holder: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(part);
        self.by_address.lock().get_or_insert(key, (holder, Arc::clone(resource)));
    }
}

/// A bounded map that forgets what was not asked for during one generation.
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: std::hash::Hash + Eq + Clone, V: Clone> Generations<K, V> {
    fn new(capacity: usize) -> Self {
        Generations { young: HashMap::new(), old: HashMap::new(), capacity: capacity.max(1) }
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    fn get_or_insert(&mut self, key: K, value: V) -> V {
        if let Some(found) = self.get(&key) {
            return found;
        }
        self.insert(key, value.clone());
        value
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_bounded_and_keep_what_is_used() {
        let mut map = Generations::new(2);
        for key in 0..10 {
            map.get_or_insert(key, key * 10);
            assert_eq!(map.get(&0), Some(0));
            assert!(map.len() <= 4);
        }
        assert_eq!(map.get(&1), None);
        assert_eq!(map.get_or_insert(0, 7), 0);
    }

    #[test]
    fn digests() {
        let one = Digest::of("x", &[1, 2]);
        assert!(one == Digest::of("x", &vec![1, 2]) && one != Digest::of("x", &[2, 1]));
        assert!(one != Digest::of("y", &[1, 2]));
        assert!(one.version().len() == 32 && one.is_version(&one.version()));
        assert!(!one.is_version("") && !one.is_version(&Digest::of("y", &[1, 2]).version()));
    }

    #[test]
    fn an_address_is_not_reused_while_it_is_known() {
        let cache = SharedCache::with_capacity(4);
        let resource =
            Arc::new(EnvoyResource { name: "a".into(), version: "1".into(), body: bytes::Bytes::new() });
        let part = Arc::new(7_u64);
        let key = (Arc::as_ptr(&part) as usize, Digest::of("x", &()), "clusters");
        cache.remember(key, &part, &resource);
        let weak = Arc::downgrade(&part);
        drop(part);
        assert!(
            weak.upgrade().is_some() && cache.known(key).is_some_and(|known| Arc::ptr_eq(&known, &resource))
        );
    }
}
