//! Builders for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource, Timestamp, yaml};

use crate::derive::AuthorityReport;
use crate::{DeriveSettings, DeriveState, Derived, DerivedWrite, ProxyId, ResourceSet, Serving, derive};

/// Resources from YAML documents in REST form.
pub(crate) fn resources(text: &str) -> Vec<Arc<Resource>> {
    text.split("\n---").filter(|document| !document.trim().is_empty()).map(resource).collect()
}

/// One resource in REST form.
pub(crate) fn resource(text: &str) -> Arc<Resource> {
    let value = yaml::parse_one(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let kind = Kind::from_name(value["type"].as_str().expect("a type")).expect("a known kind");
    let mut resource = Resource::from_rest(kind, &value).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    resource.meta.version = 1;
    Arc::new(resource)
}

/// A zone with everything that the derivation needs.
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    pub(crate) set: ResourceSet,
    pub(crate) settings: DeriveSettings,
    pub(crate) connected: BTreeSet<ProxyId>,
    pub(crate) serving: BTreeMap<ProxyId, Serving>,
    pub(crate) authorities: BTreeMap<Key, AuthorityReport>,
    pub(crate) now: Timestamp,
}

impl Zone {
    pub(crate) fn new(name: &'static str, text: &str) -> Zone {
        Zone {
            name,
            set: resources(text).into_iter().collect(),
            settings: DeriveSettings::default(),
            connected: BTreeSet::new(),
            serving: BTreeMap::new(),
            authorities: BTreeMap::new(),
            now: "2026-03-01T12:00:00Z".parse().expect("a time"),
        }
    }

    pub(crate) fn put(&mut self, text: &str) {
        for resource in resources(text) {
            self.set.set(resource.key(), Some(resource));
        }
    }

    pub(crate) fn remove(&mut self, kind: Kind, name: &str) {
        assert!(self.set.set(Key::new(kind, "default", name), None).is_some(), "{name} was stored");
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> &Resource {
        self.set.get(&Key::new(kind, "default", name)).unwrap_or_else(|| panic!("{kind} {name} is stored"))
    }

    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        self.set.get(&Key::new(kind, "default", name)).is_some()
    }

    pub(crate) fn derive(&self) -> Derived {
        let state = DeriveState {
            resources: &self.set,
            zone: self.name,
            settings: &self.settings,
            connected: &self.connected,
            serving: &self.serving,
            authorities: &self.authorities,
        };
        derive(&state, "default", self.now)
    }

    /// Derives and stores the result as a store does; deriving again must then write nothing.
    pub(crate) fn settle(&mut self) -> Derived {
        let derived = self.derive();
        for write in derived.writes.clone() {
            match write {
                DerivedWrite::Delete(key) => drop(self.set.set(key, None)),
                DerivedWrite::Put(mut resource) => {
                    let stored = self.set.get(&resource.key());
                    assert_eq!(resource.meta.version, stored.map_or(0, |stored| stored.meta.version));
                    if resource.meta.version == 0 {
                        resource.meta.creation_time = self.now;
                        assert_eq!(resource.meta.owner, Some(Key::new(Kind::Mesh, "", "default")));
                    }
                    resource.meta.version += 1;
                    self.set.set(resource.key(), Some(Arc::new(resource)));
                }
            }
        }
        assert_eq!(self.derive().writes, [], "a derivation of its own result writes nothing");
        derived
    }
}
