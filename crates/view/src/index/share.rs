//! Sharing: equal parts of inputs are one allocation, and proxies with the same destinations are one group.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use graticule_model::Key;

/// Keeps one allocation per distinct value under a name, as long as somebody uses it.
#[derive(Debug)]
pub(super) struct Interner<T> {
    values: HashMap<String, Vec<Weak<T>>>,
    inserted: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner { values: HashMap::new(), inserted: 0 }
    }
}

impl<T: PartialEq> Interner<T> {
    pub(super) fn share(&mut self, name: &str, value: T) -> Arc<T> {
        if let Some(known) = self.values.get_mut(name) {
            known.retain(|weak| weak.strong_count() > 0);
            if let Some(shared) = known.iter().filter_map(Weak::upgrade).find(|shared| **shared == value) {
                return shared;
            }
        }
        let shared = Arc::new(value);
        self.values.entry(name.to_owned()).or_default().push(Arc::downgrade(&shared));
        self.inserted += 1;
        // Names that nobody uses any more go once as many values were added as there are names.
        if self.inserted > self.values.len() {
            self.values.retain(|_, known| known.iter().any(|weak| weak.strong_count() > 0));
            self.inserted = 0;
        }
        shared
    }
}

/// Which proxies use which destinations. Proxies with equal sets share one.
#[derive(Debug, Default)]
pub(super) struct Uses {
    groups: HashMap<Arc<[Key]>, BTreeSet<String>>,
    by_destination: HashMap<Key, Vec<Arc<[Key]>>>,
    of_proxy: HashMap<String, Arc<[Key]>>,
}

impl Uses {
    /// Replaces what a proxy uses.
    pub(super) fn set(&mut self, proxy: &str, destinations: BTreeSet<Key>) {
        let keys: Vec<Key> = destinations.into_iter().collect();
        if self.of_proxy.get(proxy).is_some_and(|known| **known == *keys) {
            return;
        }
        self.remove(proxy);
        let group = match self.groups.get_key_value(keys.as_slice()) {
            Some((group, _)) => group.clone(),
            None => {
                let group: Arc<[Key]> = keys.into();
                for key in group.iter() {
                    self.by_destination.entry(key.clone()).or_default().push(group.clone());
                }
                group
            }
        };
        self.groups.entry(group.clone()).or_default().insert(proxy.to_owned());
        self.of_proxy.insert(proxy.to_owned(), group);
    }

    /// Forgets a proxy.
    pub(super) fn remove(&mut self, proxy: &str) {
        let Some(group) = self.of_proxy.remove(proxy) else { return };
        let Some(members) = self.groups.get_mut(&group) else { return };
        members.remove(proxy);
        if !members.is_empty() {
            return;
        }
        self.groups.remove(&group);
        for key in group.iter() {
            if let Some(groups) = self.by_destination.get_mut(key) {
                groups.retain(|known| !Arc::ptr_eq(known, &group));
                if groups.is_empty() {
                    self.by_destination.remove(key);
                }
            }
        }
    }

    /// Proxies that use a destination.
    pub(super) fn of(&self, destination: &Key) -> impl Iterator<Item = &String> {
        let groups = self.by_destination.get(destination).into_iter().flatten();
        groups.filter_map(|group| self.groups.get(group)).flatten()
    }
}
