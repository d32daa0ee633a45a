//! `MeshLoadBalancingStrategy` (policies.md §7).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check::{self, MUST_BE_DEFINED};
use super::mesh_http_route::Decimal;
use crate::schema::common::{DECIMAL, DURATION, TARGET_REF, TEXTS, TO_TARGET_REF};
use crate::schema::{Schema, boolean, field, int32, list, object, one_of, text};
use crate::targetref::{self, TargetKind, ToItem};
use crate::{GoDuration, Meta, TargetRef, Violations};

/// How requests are spread over endpoints and zones.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshLoadBalancingStrategy {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Outbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ToItem<Conf>>>,
}

/// How requests are spread.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Preference for near endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality_awareness: Option<LocalityAwareness>,
    /// The algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// What the hash of a request is made of, for algorithms that hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_policies: Option<Vec<HashPolicy>>,
}

/// Preference for near endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityAwareness {
    /// All endpoints are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Within the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_zone: Option<LocalZone>,
    /// To other zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_zone: Option<CrossZone>,
}

/// Preference within the zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalZone {
    /// Labels that near endpoints share with the client, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_tags: Option<Vec<AffinityTag>>,
}

/// A label that near endpoints share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AffinityTag {
    /// The label's key.
    pub key: String,
    /// Share of traffic relative to the other tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

/// What happens when the zone cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrossZone {
    /// Rules, first one first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Vec<Failover>>,
    /// Share of healthy endpoints below which traffic leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_threshold: Option<FailoverThreshold>,
}

/// One failover rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failover {
    /// Zones whose clients it is for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FromZones>,
    /// Zones that serve.
    pub to: ToZones,
}

/// Zones of clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FromZones {
    /// Their names.
    pub zones: Vec<String>,
}

/// Zones that serve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToZones {
    /// How `zones` is meant.
    pub r#type: ToZonesType,
    /// Names; only with `Only` and `AnyExcept`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<String>>,
}

/// How a list of zones is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToZonesType {
    /// No zone.
    None,
    /// These.
    Only,
    /// All.
    Any,
    /// All but these.
    AnyExcept,
}

impl ToZonesType {
    /// Wire name.
    pub fn name(self) -> &'static str {
        match self {
            ToZonesType::None => "None",
            ToZonesType::Only => "Only",
            ToZonesType::Any => "Any",
            ToZonesType::AnyExcept => "AnyExcept",
        }
    }
}

/// When traffic leaves the zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FailoverThreshold {
    /// Percent of healthy endpoints.
    pub percentage: Decimal,
}

/// The algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// Which one.
    pub r#type: LoadBalancerType,
    /// No settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_robin: Option<NoSettings>,
    /// Of `LeastRequest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_request: Option<LeastRequest>,
    /// Of `RingHash`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<RingHash>,
    /// No settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<NoSettings>,
    /// Of `Maglev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maglev: Option<Maglev>,
}

/// Algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the members of LoadBalancer")]
pub enum LoadBalancerType {
    RoundRobin,
    LeastRequest,
    RingHash,
    Random,
    Maglev,
}

/// An algorithm without settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct NoSettings {}

/// The endpoint with the fewest requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeastRequest {
    /// How many random endpoints are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_count: Option<u32>,
    /// How much active requests count against weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_request_bias: Option<Decimal>,
}

/// A ring of hashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingHash {
    /// Hash function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_function: Option<HashFunction>,
    /// Fewest entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ring_size: Option<u32>,
    /// Most entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ring_size: Option<u32>,
}

/// Hash functions of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HashFunction {
    /// xxHash.
    XXHash,
    /// MurmurHash 2.
    MurmurHash2,
}

/// A Maglev table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Maglev {
    /// Entries; Envoy wants a prime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
}

/// One part of the hash of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HashPolicy {
    /// Which member is set.
    pub r#type: HashPolicyType,
    /// When this part is there, the following are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
    /// A header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Named>,
    /// A cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<Cookie>,
    /// The connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// A query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_parameter: Option<Named>,
    /// A filter state object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_state: Option<FilterState>,
}

/// Kinds of [`HashPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the members of HashPolicy")]
pub enum HashPolicyType {
    Header,
    Cookie,
    Connection,
    QueryParameter,
    FilterState,
}

/// A header or query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// A cookie, which Envoy makes when it has a lifetime.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// Its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Connection {
    /// Its source address.
    #[serde(default, rename = "sourceIP", skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<bool>,
}

/// A filter state object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FilterState {
    /// Its key.
    pub key: String,
}

const HASH_POLICY: Schema = object(&[
    field(
        "connection",
        "Hashes facts of the connection.",
        object(&[field("sourceIP", "The client's address.", boolean())]),
    ),
    field(
        "cookie",
        "Hashes a cookie.",
        object(&[
            field("name", "Name of the cookie.", text().min_len(1)).required(),
            field("path", "Path of the cookie that is made when there is none.", text()),
            field("ttl", "Lifetime of the cookie that is made when there is none.", DURATION),
        ]),
    ),
    field(
        "filterState",
        "Hashes an object of Envoy's filter state.",
        object(&[field("key", "Name of the object.", text().min_len(1)).required()]),
    ),
    field(
        "header",
        "Hashes a header.",
        object(&[field("name", "Name of the header.", text().min_len(1)).required()]),
    ),
    field(
        "queryParameter",
        "Hashes a query parameter.",
        object(&[field("name", "Name of the parameter.", text().min_len(1)).required()]),
    ),
    field("terminal", "Stops here when this policy gave a hash.", boolean()),
    field(
        "type",
        "Which of the policies is meant.",
        one_of(&["Header", "Cookie", "Connection", "QueryParameter", "FilterState"]),
    )
    .required(),
]);

const LOAD_BALANCER: Schema = object(&[
    field(
        "leastRequest",
        "Prefers instances with fewer requests in flight.",
        object(&[
            field("activeRequestBias", "How much requests in flight count; 0 is round robin.", DECIMAL),
            field("choiceCount", "How many random instances are compared.", int32().min(2)),
        ]),
    ),
    field(
        "maglev",
        "Consistent hashing with a table.",
        object(&[field("tableSize", "Entries of the table; a prime number.", int32().min(1).max(5000011))]),
    ),
    field("random", "A random instance.", object(&[])),
    field(
        "ringHash",
        "Consistent hashing on a ring.",
        object(&[
            field("hashFunction", "The hash function.", one_of(&["XXHash", "MurmurHash2"])),
            field("maxRingSize", "Most entries of the ring.", int32().min(1).max(8000000)),
            field("minRingSize", "Fewest entries of the ring.", int32().min(1).max(8000000)),
        ]),
    ),
    field("roundRobin", "One instance after the other.", object(&[])),
    field(
        "type",
        "Which of the balancers is used.",
        one_of(&["RoundRobin", "LeastRequest", "RingHash", "Random", "Maglev"]),
    )
    .required(),
]);

const LOCALITY_AWARENESS: Schema = object(&[
    field(
        "crossZone",
        "Whether and how other zones take over.",
        object(&[
            field(
                "failover",
                "Rules, the first that fits the own zone is used.",
                list(&object(&[
                    field(
                        "from",
                        "Zones that the rule is for; without it, all zones.",
                        object(&[field("zones", "Names of the zones.", TEXTS).required()]),
                    ),
                    field(
                        "to",
                        "Zones that take over.",
                        object(&[
                            field(
                                "type",
                                "How the zones are meant.",
                                one_of(&["None", "Only", "Any", "AnyExcept"]),
                            )
                            .required(),
                            field("zones", "Names of the zones.", TEXTS),
                        ]),
                    )
                    .required(),
                ])),
            ),
            field(
                "failoverThreshold",
                "When other zones take over.",
                object(&[field(
                    "percentage",
                    "Share of healthy instances, in percent, below which they do.",
                    DECIMAL,
                )
                .required()]),
            ),
        ]),
    ),
    field("disabled", "Treats all zones alike.", boolean()),
    field(
        "localZone",
        "Preferences inside the own zone.",
        object(&[field(
            "affinityTags",
            "Tags; instances with the same value as the client are preferred.",
            list(&object(&[
                field("key", "Name of the tag.", text()).required(),
                field(
                    "weight",
                    "How strongly; each tag weighs more than the next one when none is given.",
                    int32(),
                ),
            ])),
        )]),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Destinations whose instances are balanced.",
        list(&object(&[
            field(
                "default",
                "How instances are chosen.",
                object(&[
                    field("hashPolicies", "What consistent hashing hashes.", list(&HASH_POLICY)),
                    field("loadBalancer", "How instances are chosen inside a locality.", LOAD_BALANCER),
                    field("localityAwareness", "How near and far instances are weighed.", LOCALITY_AWARENESS),
                ]),
            ),
            field("targetRef", "The destination.", TO_TARGET_REF).required(),
        ])),
    ),
]);

impl Validate for MeshLoadBalancingStrategy {
    const DESCRIPTION: &'static str =
        "Says how instances of a destination are chosen, and how near and far zones are weighed.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        for (index, item) in self.to.iter().flatten().enumerate() {
            let path = format!("spec.to[{index}]");
            targetref::validate(&item.target_ref, &format!("{path}.targetRef"), &check::TO_KINDS, violations);
            validate_conf(&item.default, &item.target_ref, &format!("{path}.default"), violations);
        }
    }
}

fn validate_conf(conf: &Conf, target: &TargetRef, path: &str, violations: &mut Violations) {
    if target.kind == TargetKind::MeshHTTPRoute {
        for (field, is_set) in [
            ("loadBalancer", conf.load_balancer.is_some()),
            ("localityAwareness", conf.locality_awareness.is_some()),
        ] {
            if is_set {
                violations.add(
                    format!("{path}.{field}"),
                    "field is not allowed when targetRef.kind is MeshHTTPRoute, only hashPolicies is supported",
                );
            }
        }
    } else {
        if let Some(awareness) = &conf.locality_awareness {
            validate_locality(awareness, target, &format!("{path}.localityAwareness"), violations);
        }
        let bias = conf
            .load_balancer
            .as_ref()
            .and_then(|lb| lb.least_request.as_ref()?.active_request_bias.as_ref());
        if let Some(bias) = bias {
            let path = format!("{path}.loadBalancer.leastRequest.activeRequestBias");
            match bias.value() {
                None => violations.add(path, "string must be a valid number"),
                Some(value) if value < 0.0 => violations.add(path, "must be greater or equal then: 0"),
                Some(_) => {}
            }
        }
    }
    for (index, policy) in conf.hash_policies.iter().flatten().enumerate() {
        validate_hash_policy(policy, &format!("{path}.hashPolicies[{index}]"), violations);
    }
}

fn validate_locality(
    awareness: &LocalityAwareness,
    target: &TargetRef,
    path: &str,
    violations: &mut Violations,
) {
    if let Some(tags) = awareness.local_zone.as_ref().and_then(|zone| zone.affinity_tags.as_ref()) {
        let path = format!("{path}.localZone.affinityTags");
        for (index, tag) in tags.iter().enumerate() {
            if tag.key.is_empty() {
                violations.add(format!("{path}[{index}].key"), "must not be empty");
            }
            if tag.weight.is_some_and(|weight| weight <= 0) {
                violations.add(format!("{path}[{index}].weight"), "must be greater than 0");
            }
        }
        let weighted = tags.iter().filter(|tag| tag.weight.is_some()).count();
        if weighted != 0 && weighted != tags.len() {
            violations.add(path, "all or none affinity tags should have weight");
        }
    }
    let Some(cross_zone) = &awareness.cross_zone else { return };
    let path = format!("{path}.crossZone");
    let is_narrow = target.labels.is_some() || target.section().is_some();
    if target.kind == TargetKind::MeshService && is_narrow {
        violations.add(path, "must not be set: MeshService traffic is local");
        return;
    }
    for (index, failover) in cross_zone.failover.iter().flatten().enumerate() {
        validate_failover(failover, &format!("{path}.failover[{index}]"), violations);
    }
    if let Some(threshold) = &cross_zone.failover_threshold {
        let path = format!("{path}.failoverThreshold.percentage");
        match threshold.percentage.value() {
            Some(value) if value <= 0.0 => violations.add(path, "must be greater than 0"),
            _ => check::percent(&threshold.percentage, path, violations),
        }
    }
}

fn validate_failover(failover: &Failover, path: &str, violations: &mut Violations) {
    if let Some(from) = &failover.from {
        if from.zones.is_empty() {
            violations.add(format!("{path}.from.zones"), "must not be empty");
        }
        for (index, zone) in from.zones.iter().enumerate() {
            if zone.is_empty() {
                violations.add(format!("{path}.from.zones[{index}]"), "must not be empty");
            }
        }
    }
    let has_zones = failover.to.zones.as_ref().is_some_and(|zones| !zones.is_empty());
    let wants_zones = matches!(failover.to.r#type, ToZonesType::Only | ToZonesType::AnyExcept);
    let kind = failover.to.r#type.name();
    match (wants_zones, has_zones) {
        (true, false) => {
            violations.add(format!("{path}.to.zones"), format!("must not be empty when type is {kind}"));
        }
        (false, true) => {
            violations.add(format!("{path}.to.zones"), format!("must be empty when type is {kind}"))
        }
        _ => {}
    }
}

fn validate_hash_policy(policy: &HashPolicy, path: &str, violations: &mut Violations) {
    let (member, is_set) = match policy.r#type {
        HashPolicyType::Header => ("header", policy.header.is_some()),
        HashPolicyType::Cookie => ("cookie", policy.cookie.is_some()),
        HashPolicyType::Connection => ("connection", policy.connection.is_some()),
        HashPolicyType::QueryParameter => ("queryParameter", policy.query_parameter.is_some()),
        HashPolicyType::FilterState => ("filterState", policy.filter_state.is_some()),
    };
    if !is_set {
        violations.add(format!("{path}.{member}"), MUST_BE_DEFINED);
    }
    let cookie = policy.cookie.as_ref().filter(|_| policy.r#type == HashPolicyType::Cookie);
    if cookie.and_then(|cookie| cookie.path.as_ref()).is_some_and(|path| !path.starts_with('/')) {
        violations.add(format!("{path}.cookie.path"), "must be an absolute path");
    }
}
