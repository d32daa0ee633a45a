//! A policy of any kind in the one form that matching and merging work on.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::targetref::{Match, TargetKind};
use graticule_model::{Key, Kri, Meta, Resource, TargetRef, labels};
use serde::Serialize;
use serde_json::{Value, json};

/// Who a result comes from, in the form that inspection shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceMeta {
    /// Kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Mesh; empty for global-scoped kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mesh: String,
    /// Stored name.
    pub name: String,
    /// KRI without section.
    pub kri: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl ResourceMeta {
    /// Metadata of a resource.
    pub fn of(resource: &Resource) -> ResourceMeta {
        ResourceMeta {
            kind: resource.kind().name(),
            mesh: resource.meta.mesh.clone(),
            name: resource.meta.name.clone(),
            kri: resource.kri().map(|kri| kri.to_string()).unwrap_or_default(),
            labels: resource.meta.labels.clone(),
        }
    }
}

/// The place in a policy that a result comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// The policy.
    #[serde(flatten)]
    pub policy: Arc<Policy>,
    /// Index in its `to` or `rules`.
    #[serde(rename = "ruleIndex")]
    pub rule_index: usize,
}

/// A policy, prepared: keys and the JSON form of its spec are computed once.
#[derive(Debug, PartialEq)]
pub struct Policy {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Its metadata for inspection.
    pub meta: ResourceMeta,
    /// Its KRI, without section.
    pub kri: Kri,
    /// Its role.
    pub role: Role,
    /// What it says.
    pub body: PolicyBody,
    pub(crate) priority: Priority,
    pub(crate) key: Key,
}

/// Only the metadata: what a policy is in a result.
impl Serialize for Policy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.meta.serialize(serializer)
    }
}

/// The spec of a policy of any kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyBody {
    /// Which proxies; none = the whole mesh.
    pub target_ref: Option<TargetRef>,
    /// Outbound configuration.
    pub to: Vec<OutboundItem>,
    /// Inbound configuration.
    pub rules: Vec<InboundItem>,
    /// Configuration of the whole proxy.
    pub proxy_default: Option<Value>,
    /// Parts that could not be read and count as absent.
    pub problems: Vec<String>,
}

/// One entry of `to`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboundItem {
    /// Destination.
    pub target_ref: TargetRef,
    /// Configuration.
    #[serde(rename = "default")]
    pub conf: Arc<Value>,
}

/// One entry of `rules`.
#[derive(Debug, Clone, PartialEq)]
pub struct InboundItem {
    /// Any of these; empty = everything.
    pub matches: Vec<Match>,
    /// Configuration.
    pub conf: Arc<Value>,
}

/// Role of a policy; the order is the order of priority (policy-engine.md §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A label value that means nothing.
    Unknown,
    /// Of the operator; the default.
    System,
    /// Of the owner of the destination.
    Producer,
    /// Of the owner of the client.
    Consumer,
    /// Of the owner of the proxy.
    WorkloadOwner,
}

impl Role {
    /// Reads the role label.
    pub fn of(meta: &Meta) -> Role {
        match meta.label(labels::POLICY_ROLE) {
            None | Some("" | "system") => Role::System,
            Some("producer") => Role::Producer,
            Some("consumer") => Role::Consumer,
            Some("workload-owner") => Role::WorkloadOwner,
            Some(_) => Role::Unknown,
        }
    }

    /// Limited to proxies of the policy's namespace.
    pub fn is_namespaced(self) -> bool {
        matches!(self, Role::Consumer | Role::WorkloadOwner)
    }
}

/// Comparator of policies, ascending by priority (policy-engine.md §3.1). The members before `name` are
/// compared before those of `to` items.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Priority {
    pub(crate) scope: Scope,
    name: Reverse<String>,
    mesh: String,
    stored_name: String,
}

/// The first four comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    top_level: u8,
    sectioned: bool,
    origin: u8,
    role: Role,
}

/// Comparator of `to` items.
pub(crate) type ItemPriority<'a> = (Scope, u8, bool, &'a Priority);

impl Priority {
    fn of(meta: &Meta, role: Role, target: &TargetRef) -> Priority {
        let origin = match meta.label(labels::ORIGIN).unwrap_or_default() {
            "global" => 1,
            "" => 2,
            "zone" => 3,
            _ => 0,
        };
        let sectioned = target.kind == TargetKind::Dataplane && target.section().is_some();
        Priority {
            scope: Scope { top_level: target.kind.rank(), sectioned, origin, role },
            name: Reverse(meta.display_name().to_owned()),
            mesh: meta.mesh.clone(),
            stored_name: meta.name.clone(),
        }
    }

    /// With the comparisons of a `to` item's target between scope and name. Only MeshService targets are
    /// ordered by section.
    pub(crate) fn of_item(&self, target: &TargetRef) -> ItemPriority<'_> {
        let sectioned = target.kind == TargetKind::MeshService && target.section().is_some();
        (self.scope, target.kind.rank(), sectioned, self)
    }
}

impl Policy {
    /// Prepares a policy; `None` for resources of other kinds.
    pub fn new(resource: Arc<Resource>) -> Option<Policy> {
        if !resource.kind().descriptor().is_policy() {
            return None;
        }
        let body = PolicyBody::read(resource.kind().name(), &resource.spec.to_json());
        let role = Role::of(&resource.meta);
        Some(Policy {
            kri: resource.kri()?,
            meta: ResourceMeta::of(&resource),
            priority: Priority::of(&resource.meta, role, body.target()),
            key: resource.key(),
            role,
            body,
            resource,
        })
    }

    /// Only counts in what-if answers.
    pub fn is_shadow(&self) -> bool {
        self.resource.meta.label(labels::EFFECT) == Some("shadow")
    }
}

impl PolicyBody {
    /// The top-level reference.
    pub fn target(&self) -> &TargetRef {
        self.target_ref.as_ref().unwrap_or(&TargetRef::MESH)
    }

    /// Reads the JSON form of a spec.
    fn read(kind: &str, spec: &Value) -> PolicyBody {
        let mut problems = Vec::new();
        let mut read_target = |value: Option<&Value>, path: String| {
            let value = value?;
            serde_json::from_value::<TargetRef>(value.clone())
                .map_err(|error| problems.push(format!("{path}: {error}")))
                .ok()
        };
        let target_ref = read_target(spec.get("targetRef"), "spec.targetRef".into());
        let to = items(spec, "to")
            .enumerate()
            .filter_map(|(index, item)| {
                let target_ref = read_target(item.get("targetRef"), format!("spec.to[{index}].targetRef"))?;
                Some(OutboundItem { conf: Arc::new(outbound_conf(kind, item)), target_ref })
            })
            .collect();
        let rules = items(spec, "rules")
            .enumerate()
            .filter_map(|(index, rule)| {
                let matches = rule.get("matches").cloned().unwrap_or_else(|| json!([]));
                let matches = serde_json::from_value(matches)
                    .map_err(|error| problems.push(format!("spec.rules[{index}].matches: {error}")))
                    .ok()?;
                Some(InboundItem { matches, conf: Arc::new(default_of(rule)) })
            })
            .collect();
        PolicyBody { target_ref, to, rules, proxy_default: spec.get("default").cloned(), problems }
    }
}

fn items<'a>(spec: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    spec.get(member).and_then(Value::as_array).into_iter().flatten()
}

fn default_of(item: &Value) -> Value {
    item.get("default").cloned().unwrap_or_else(|| json!({}))
}

/// The configuration of a `to` item. Routes have rules instead of a `default`:
/// HTTP rules are reversed, because merging lets later ones win (policy-engine.md §5.2), and of TCP rules
/// there is at most one; none stands for the destination itself (§5.5).
fn outbound_conf(kind: &str, item: &Value) -> Value {
    match kind {
        "MeshHTTPRoute" => {
            let rules: Vec<&Value> = items(item, "rules").collect();
            let mut conf = json!({"rules": rules.into_iter().rev().collect::<Vec<_>>()});
            if let Some(hostnames) = item.get("hostnames") {
                conf["hostnames"] = hostnames.clone();
            }
            conf
        }
        "MeshTCPRoute" => match items(item, "rules").next() {
            Some(rule) => default_of(rule),
            None => {
                let mut backend = item.get("targetRef").cloned().unwrap_or_default();
                backend["weight"] = 1.into();
                json!({"backendRefs": [backend]})
            }
        },
        _ => default_of(item),
    }
}
