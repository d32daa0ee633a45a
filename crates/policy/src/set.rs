//! All policies of one mesh, in order of priority.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource};

use crate::body::Policy;
use crate::destinations::Stamp;

/// Policies of one mesh, prepared for matching: everything that does not depend on a proxy is computed
/// when a policy is added. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    kinds: BTreeMap<Kind, KindSet>,
}

#[derive(Debug, Clone, Default)]
struct KindSet {
    /// Ascending by priority.
    policies: Arc<Vec<Arc<Policy>>>,
    /// Replaced with each change; compared by address.
    stamp: Arc<Stamp>,
}

impl PolicySet {
    /// Prepares policies; resources of other kinds are ignored. Policies that are equal in everything that
    /// orders them keep the given order.
    pub fn new(resources: impl IntoIterator<Item = Arc<Resource>>) -> PolicySet {
        let mut kinds: BTreeMap<Kind, Vec<Arc<Policy>>> = BTreeMap::new();
        for policy in resources.into_iter().filter_map(Policy::new) {
            kinds.entry(policy.key.kind).or_default().push(Arc::new(policy));
        }
        let prepared = kinds.into_iter().map(|(kind, mut policies)| {
            policies.sort_by(|a, b| a.priority.cmp(&b.priority));
            (kind, KindSet { policies: Arc::new(policies), stamp: Arc::default() })
        });
        PolicySet { kinds: prepared.collect() }
    }

    /// Adds or replaces a policy; false for resources of other kinds.
    pub fn insert(&mut self, resource: Arc<Resource>) -> bool {
        let Some(policy) = Policy::new(resource) else { return false };
        let set = self.kinds.entry(policy.key.kind).or_default();
        let policies = Arc::make_mut(&mut set.policies);
        policies.retain(|known| known.key != policy.key);
        let position = policies.partition_point(|known| known.priority <= policy.priority);
        policies.insert(position, Arc::new(policy));
        set.stamp = Arc::default();
        true
    }

    /// Removes a policy; true if it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(set) = self.kinds.get_mut(&key.kind) else { return false };
        if !set.policies.iter().any(|known| known.key == *key) {
            return false;
        }
        Arc::make_mut(&mut set.policies).retain(|known| known.key != *key);
        set.stamp = Arc::default();
        true
    }

    /// Policies of a kind, ascending by priority.
    pub fn of(&self, kind: Kind) -> &[Arc<Policy>] {
        self.kinds.get(&kind).map_or(&[], |set| set.policies.as_slice())
    }

    /// Kinds with policies, in the order in which they are applied.
    pub fn kinds(&self) -> Vec<Kind> {
        let order = |kind: &Kind| kind.descriptor().capabilities.policy.map(|policy| policy.order);
        let mut kinds: Vec<Kind> =
            self.kinds.iter().filter(|(_, set)| !set.policies.is_empty()).map(|(kind, _)| *kind).collect();
        kinds.sort_by_key(order);
        kinds
    }

    /// Identity of the state of one kind.
    pub(crate) fn stamp(&self, kind: Kind) -> Option<&Arc<Stamp>> {
        self.kinds.get(&kind).map(|set| &set.stamp)
    }
}
