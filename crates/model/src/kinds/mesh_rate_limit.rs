//! `MeshRateLimit` (policies.md §12).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check::MUST_BE_DEFINED;
use super::mesh_http_route::HeaderKeyValue;
use crate::schema::common::{DURATION, MATCHES, SET_AND_ADD_HEADERS, TARGET_REF, TO_TARGET_REF};
use crate::schema::{Schema, boolean, field, int32, list, object};
use crate::targetref::{self, Rule, TargetKind, ToItem};
use crate::{GoDuration, Meta, TargetRef, Violations};

/// Limits of what each proxy admits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshRateLimit {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Outbound; without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ToItem<Conf>>>,
    /// Inbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule<Conf>>>,
}

/// Limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Conf {
    /// Counted by each proxy for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
}

/// Limits by protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Local {
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<LocalHttp>,
    /// Connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<LocalTcp>,
}

/// Limits of requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalHttp {
    /// Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<Rate>,
    /// What the others get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_rate_limit: Option<OnRateLimit>,
}

/// Limits of connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalTcp {
    /// Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_rate: Option<Rate>,
}

/// So many per interval.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub num: u32,
    /// In which time.
    pub interval: GoDuration,
}

/// The answer to what is over the limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct OnRateLimit {
    /// Status code; absent: 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
}

/// Headers to set and to add.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Headers {
    /// Replace or add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Vec<HeaderKeyValue>>,
    /// Append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Vec<HeaderKeyValue>>,
}

/// Envoy refuses shorter intervals, and this one as well.
const INTERVAL_FLOOR: GoDuration = GoDuration::from_millis(50);

const CONF: Schema = object(&[field(
    "local",
    "Limits that each proxy counts by itself.",
    object(&[
        field(
            "http",
            "Limit of requests.",
            object(&[
                field("disabled", "Turns the limit off.", boolean()),
                field(
                    "onRateLimit",
                    "What a refused request is answered with.",
                    object(&[
                        field("headers", "Headers of the answer.", SET_AND_ADD_HEADERS),
                        field("status", "Status of the answer.", int32()),
                    ]),
                ),
                field("requestRate", "How many requests are let through.", REQUEST_RATE),
            ]),
        ),
        field(
            "tcp",
            "Limit of connections.",
            object(&[
                field("connectionRate", "How many connections are let through.", REQUEST_RATE),
                field("disabled", "Turns the limit off.", boolean()),
            ]),
        ),
    ]),
)]);

const REQUEST_RATE: Schema = object(&[
    field("interval", "Time in which they are counted.", DURATION).required(),
    field("num", "How many.", int32()).required(),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "rules",
        "Incoming traffic that is limited.",
        list(&object(&[
            field("default", "Limits of the incoming traffic.", CONF),
            field("matches", "Conditions on the client; without any, every client.", MATCHES),
        ])),
    ),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Outgoing traffic that is limited.",
        list(&object(&[
            field("default", "Limits of the outgoing traffic.", CONF),
            field("targetRef", "Destination of the outgoing traffic.", TO_TARGET_REF).required(),
        ])),
    ),
]);

impl Validate for MeshRateLimit {
    const DESCRIPTION: &'static str =
        "Limits how many requests or connections a proxy lets through in a time.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let rules = self.rules.as_deref().unwrap_or_default();
        let to = self.to.as_deref().unwrap_or_default();
        targetref::validate_top(self.target_ref.as_ref(), !rules.is_empty(), violations);
        if !rules.is_empty() && !to.is_empty() {
            violations.add("spec", "field 'to' must be empty when 'rules' is defined");
        }
        if rules.is_empty() && to.is_empty() {
            violations.add("spec", "at least one of 'to' or 'rules' has to be defined");
        }
        let whole_mesh = self.target_ref.as_ref().is_none_or(|target| target.kind == TargetKind::Mesh);
        if whole_mesh && !rules.is_empty() {
            violations.add("spec.rules", "must not be defined");
        } else {
            for (index, rule) in rules.iter().enumerate() {
                validate_rule(rule, &format!("spec.rules[{index}]"), violations);
            }
        }
        if !whole_mesh && !to.is_empty() {
            violations.add("spec.to", "must not be defined");
        } else {
            for (index, item) in to.iter().enumerate() {
                let path = format!("spec.to[{index}]");
                targetref::validate(
                    &item.target_ref,
                    &format!("{path}.targetRef"),
                    &[TargetKind::Mesh],
                    violations,
                );
                validate_conf(&item.default, &format!("{path}.default"), violations);
            }
        }
    }
}

fn validate_rule(rule: &Rule<Conf>, path: &str, violations: &mut Violations) {
    targetref::validate_rule_matches(rule.matches.as_deref(), path, violations);
    let is_conditional = rule.matches.iter().flatten().any(|condition| condition.spiffe_id.is_some());
    if is_conditional && rule.default.local.as_ref().is_some_and(|local| local.tcp.is_some()) {
        violations.add(
            format!("{path}.default.local.tcp"),
            "can't be specified when matches contain spiffeID because this field cannot be conditioned on source identity",
        );
    }
    validate_conf(&rule.default, &format!("{path}.default"), violations);
}

fn validate_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    let path = format!("{path}.local");
    let Some(local) = &conf.local else {
        violations.add(path, MUST_BE_DEFINED);
        return;
    };
    if local.http.is_none() && local.tcp.is_none() {
        violations.add(&path, "must have at least one defined: tcp, http");
    }
    if let Some(http) = &local.http {
        let path = format!("{path}.http");
        if *http == LocalHttp::default() {
            violations.add(&path, "must have at least one defined: disabled, requestRate, onRateLimit");
        }
        if let Some(rate) = &http.request_rate {
            validate_rate(rate, &format!("{path}.requestRate"), violations);
        }
        if http.on_rate_limit.as_ref().is_some_and(|answer| answer.status == Some(0)) {
            violations.add(format!("{path}.onRateLimit.status"), "must be greater than 0");
        }
    }
    if let Some(tcp) = &local.tcp {
        let path = format!("{path}.tcp");
        if *tcp == LocalTcp::default() {
            violations.add(&path, "must have at least one defined: disabled, connectionRate");
        }
        if let Some(rate) = &tcp.connection_rate {
            validate_rate(rate, &format!("{path}.connectionRate"), violations);
        }
    }
}

fn validate_rate(rate: &Rate, path: &str, violations: &mut Violations) {
    if rate.num == 0 {
        violations.add(format!("{path}.num"), "must be greater than 0");
    }
    if rate.interval <= INTERVAL_FLOOR {
        violations.add(format!("{path}.interval"), format!("must be greater than: {INTERVAL_FLOOR}"));
    }
}
