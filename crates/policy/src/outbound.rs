//! Rules by destination: map from KRI to merged configuration (policy-engine.md §3.4).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graticule_model::targetref::TargetKind;
use graticule_model::{Kind, Kri, Resource, TargetRef, labels};
use serde_json::Value;

use crate::body::{ItemPriority, Origin, Policy, ResourceMeta};
use crate::destinations::Destinations;
use crate::merge::merge;
use crate::routes;
use crate::select::legacy_routes;
use crate::set::PolicySet;
use crate::typed::Typed;

/// The rule of one destination, one of its ports, one route, or the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceRule {
    /// The resource, as it was when labels or ports last changed.
    pub resource: ResourceMeta,
    /// Port, or empty for the whole resource.
    pub section: String,
    /// Merged configuration; one element in practice.
    pub conf: Vec<Value>,
    /// Contributors, lowest priority first.
    pub origins: Vec<Origin>,
    /// MeshHTTPRoute only: who decides a set of matches, by its hash.
    pub origin_by_matches: BTreeMap<String, Origin>,
    pub(crate) typed: Typed,
}

impl ResourceRule {
    /// Nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.conf.first().is_none_or(|conf| conf.as_object().is_some_and(serde_json::Map::is_empty))
    }
}

/// Rules of one kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResourceRules {
    /// By KRI with section.
    pub rules: BTreeMap<Kri, ResourceRule>,
    mesh: Option<Kri>,
}

/// One `to` item of a matched policy.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboundEntry {
    /// Where it comes from.
    pub origin: Origin,
    /// Destination.
    pub target_ref: TargetRef,
    /// Configuration.
    pub conf: Arc<Value>,
}

impl OutboundEntry {
    fn priority(&self) -> ItemPriority<'_> {
        self.origin.policy.priority.of_item(&self.target_ref)
    }
}

/// What references resolve against.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Policies of the mesh; routes can be destinations of `to` items.
    pub policies: &'a PolicySet,
    /// Destinations of the mesh.
    pub destinations: &'a Destinations,
    /// The Mesh resource.
    pub mesh: Option<&'a Arc<Resource>>,
}

/// `to` items of policies, ascending by priority. Fails where a stored policy targets routes that do
/// not exist.
pub fn entries(policies: &[Arc<Policy>], all: &PolicySet) -> Result<Vec<OutboundEntry>, String> {
    let mut entries = Vec::new();
    for policy in policies {
        if policy.body.target().kind == TargetKind::MeshHTTPRoute && !policy.body.to.is_empty() {
            entries.extend(legacy_entries(policy, all)?);
            continue;
        }
        entries.extend(policy.body.to.iter().enumerate().map(|(rule_index, item)| OutboundEntry {
            origin: Origin { policy: policy.clone(), rule_index },
            target_ref: item.target_ref.clone(),
            conf: item.conf.clone(),
        }));
    }
    entries.sort_by(|a, b| a.priority().cmp(&b.priority()));
    Ok(entries)
}

/// A stored policy on routes applies to the destinations of the routes, once per rule of the route.
fn legacy_entries(policy: &Arc<Policy>, all: &PolicySet) -> Result<Vec<OutboundEntry>, String> {
    let fail = || "failed to get 'to' entries: can't resolve MeshHTTPRoute policy".to_owned();
    let mut entries: Vec<OutboundEntry> = Vec::new();
    let routes = legacy_routes(policy, policy.body.target(), all);
    if routes.is_empty() {
        return Err(fail());
    }
    for destination in routes.iter().flat_map(|route| &route.body.to) {
        let target = &destination.target_ref;
        let has_name = target.labels.iter().flatten().any(|(label, _)| label == labels::DISPLAY_NAME);
        if target.kind == TargetKind::MeshService && !has_name {
            return Err(fail());
        }
        let rules = destination.conf.get("rules").and_then(Value::as_array).map_or(0, Vec::len);
        for _ in 0..rules {
            for item in &policy.body.to {
                let origin = Origin { policy: policy.clone(), rule_index: entries.len() };
                entries.push(OutboundEntry { origin, target_ref: target.clone(), conf: item.conf.clone() });
            }
        }
    }
    Ok(entries)
}

impl World<'_> {
    /// What a `to` reference means; KRIs with section.
    fn resolve(&self, target: &TargetRef) -> Vec<(Kri, Arc<Resource>)> {
        match target.kind {
            TargetKind::Mesh => {
                self.mesh.iter().filter_map(|mesh| Some((mesh.kri()?, Arc::clone(mesh)))).collect()
            }
            TargetKind::MeshHTTPRoute => {
                let Some(wanted) = &target.labels else { return Vec::new() };
                let routes = self.policies.of(Kind::MeshHTTPRoute).iter();
                routes
                    .filter(|route| labels::matches(wanted, &route.resource.meta.labels))
                    .map(|route| (route.kri.clone(), route.resource.clone()))
                    .collect()
            }
            _ => self.destinations.resolve(target.kind, target.labels.as_ref(), target.section()),
        }
    }
}

/// Entries by the resource they resolve to.
#[derive(Default)]
struct Resolved {
    /// Entries of kind Mesh: relevant to everything.
    mesh: Vec<usize>,
    /// Entry and section by resource.
    resources: HashMap<Kri, Vec<(usize, String)>>,
    /// Every key that some entry names.
    keys: BTreeMap<Kri, Arc<Resource>>,
}

impl Resolved {
    /// Entries that are relevant to a key, ascending.
    fn relevant(&self, key: &Kri) -> BTreeSet<usize> {
        // Sections of routes and of external services are ignored (policy-engine.md §3.4).
        let by_section = !matches!(key.kind.name(), "MeshExternalService" | "MeshHTTPRoute");
        let named = self.resources.get(&key.clone().without_section()).into_iter().flatten();
        let named = named
            .filter(|(_, section)| !by_section || section.is_empty() || *section == key.section)
            .map(|(position, _)| *position);
        self.mesh.iter().copied().chain(named).collect()
    }
}

impl ResourceRules {
    /// Builds the rules from the `to` items of policies that select the proxy (ascending by priority).
    pub fn build(kind: Kind, policies: &[Arc<Policy>], world: World<'_>) -> Result<ResourceRules, String> {
        let entries = entries(policies, world.policies)?;
        let mut resolved = Resolved::default();
        for (position, entry) in entries.iter().enumerate() {
            for (kri, resource) in world.resolve(&entry.target_ref) {
                if kri.kind == Kind::Mesh {
                    resolved.mesh.push(position);
                } else {
                    let sections = resolved.resources.entry(kri.clone().without_section()).or_default();
                    sections.push((position, kri.section.clone()));
                }
                resolved.keys.entry(kri).or_insert(resource);
            }
        }
        let mut rules = BTreeMap::new();
        for (key, resource) in &resolved.keys {
            let relevant: Vec<&OutboundEntry> =
                resolved.relevant(key).into_iter().map(|position| &entries[position]).collect();
            rules.insert(key.clone(), rule(kind, key, resource, &relevant)?);
        }
        Ok(ResourceRules { rules, mesh: world.mesh.and_then(|mesh| mesh.kri()) })
    }

    /// Candidates for a key, most specific first: itself, the whole resource, the mesh.
    fn candidates(&self, key: &Kri) -> impl Iterator<Item = &ResourceRule> {
        let whole = (!key.section.is_empty()).then(|| key.clone().without_section());
        let mesh = self.mesh.as_ref();
        [
            self.rules.get(key),
            whole.and_then(|key| self.rules.get(&key)),
            mesh.and_then(|key| self.rules.get(key)),
        ]
        .into_iter()
        .flatten()
    }

    /// The rule that applies to a destination port or a route.
    pub fn compute(&self, key: &Kri) -> Option<&ResourceRule> {
        self.candidates(key).next()
    }

    /// The same, passing over rules that configure nothing (policy-engine.md §3.4, "context").
    pub fn in_context(&self, key: &Kri) -> Option<&ResourceRule> {
        self.candidates(key).find(|rule| !rule.is_empty())
    }

    /// The rule of the route itself, if there is one that configures something.
    pub fn direct(&self, route: &Kri) -> Option<&ResourceRule> {
        let whole = route.clone().without_section();
        [self.rules.get(route), self.rules.get(&whole)].into_iter().flatten().find(|rule| !rule.is_empty())
    }

    /// The rule that applies to a route of an outbound.
    pub fn on_route(&self, route: &Kri, outbound: &Kri) -> Option<&ResourceRule> {
        self.direct(route).or_else(|| self.in_context(outbound))
    }
}

fn rule(
    kind: Kind,
    key: &Kri,
    resource: &Resource,
    relevant: &[&OutboundEntry],
) -> Result<ResourceRule, String> {
    let conf = merge(kind.name(), relevant.iter().map(|entry| &*entry.conf));
    let mut origins: Vec<Origin> = Vec::new();
    for entry in relevant {
        let is_known = |known: &Origin| {
            known.policy.key == entry.origin.policy.key && known.rule_index == entry.origin.rule_index
        };
        if !origins.iter().any(is_known) {
            origins.push(entry.origin.clone());
        }
    }
    let mut origin_by_matches = BTreeMap::new();
    if kind == Kind::MeshHTTPRoute {
        for entry in relevant {
            for rule in entry.conf.get("rules").and_then(Value::as_array).into_iter().flatten() {
                let matches = crate::typed::read::<Vec<_>>(rule.get("matches").unwrap_or(&Value::Null))?;
                origin_by_matches.insert(routes::hash(&matches), entry.origin.clone());
            }
        }
    }
    let typed = Typed::new(kind, conf.first())
        .map_err(|error| format!("merged configuration of {key} cannot be read: {error}"))?;
    let resource = ResourceMeta::of(resource);
    Ok(ResourceRule { resource, section: key.section.clone(), conf, origins, origin_by_matches, typed })
}
