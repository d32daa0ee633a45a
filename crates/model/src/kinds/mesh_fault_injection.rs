//! `MeshFaultInjection` (policies.md §11).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check::{self, MUST_BE_DEFINED};
use super::mesh_http_route::Decimal;
use crate::schema::common::{DECIMAL, DURATION, MATCHES, TARGET_REF, TO_TARGET_REF};
use crate::schema::{Schema, field, int32, list, object, text};
use crate::targetref::{self, Rule, TargetKind, ToItem};
use crate::{GoDuration, Meta, TargetRef, Violations};

/// Failures on purpose.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshFaultInjection {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Outbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ToItem<Conf>>>,
    /// Inbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule<Conf>>>,
}

/// Faults.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Conf {
    /// Faults of HTTP traffic, each independent of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<Fault>>,
}

/// What happens to a share of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Answered with an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// Held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Answered slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bandwidth: Option<ResponseBandwidth>,
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// Status code.
    pub http_status: i32,
    /// Share of requests, in percent.
    pub percentage: Decimal,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Delay {
    /// How long.
    pub value: GoDuration,
    /// Share of requests, in percent.
    pub percentage: Decimal,
}

/// A slow answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResponseBandwidth {
    /// Such as `50kbps`.
    pub limit: String,
    /// Share of requests, in percent.
    pub percentage: Decimal,
}

impl ResponseBandwidth {
    /// The limit in kilobits per second, if it can be read: a whole number and `kbps`, `Mbps` or `Gbps`.
    pub fn kbps(&self) -> Option<u64> {
        let (number, scale) = [("kbps", 1), ("Mbps", 1_000), ("Gbps", 1_000_000)]
            .into_iter()
            .find_map(|(unit, scale)| Some((self.limit.strip_suffix(unit)?, scale)))?;
        let number = number.trim_end();
        let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(scale)
    }
}

const CONF: Schema = object(&[field("http", "Faults; each is drawn by itself.", list(&HTTP_ITEM))]);

const HTTP_ITEM: Schema = object(&[
    field(
        "abort",
        "Answers a request with an error instead of passing it on.",
        object(&[
            field("httpStatus", "Status of the answer.", int32()).required(),
            field("percentage", "Share of the requests, in percent.", DECIMAL).required(),
        ]),
    ),
    field(
        "delay",
        "Holds a request back.",
        object(&[
            field("percentage", "Share of the requests, in percent.", DECIMAL).required(),
            field("value", "For how long.", DURATION).required(),
        ]),
    ),
    field(
        "responseBandwidth",
        "Slows an answer down.",
        object(&[
            field("limit", "Speed limit, such as `50 kbps`.", text()).required(),
            field("percentage", "Share of the answers, in percent.", DECIMAL).required(),
        ]),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "rules",
        "Incoming requests that get faults.",
        list(&object(&[
            field("default", "Faults of the incoming requests.", CONF).required(),
            field("matches", "Conditions on the client; without any, every client.", MATCHES),
        ])),
    ),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Outgoing requests that get faults.",
        list(&object(&[
            field("default", "Faults of the outgoing requests.", CONF),
            field("targetRef", "Destination of the outgoing requests.", TO_TARGET_REF).required(),
        ])),
    ),
]);

impl Validate for MeshFaultInjection {
    const DESCRIPTION: &'static str =
        "Delays, slows down or refuses requests on purpose, to test what clients make of it.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let rules = self.rules.as_deref().unwrap_or_default();
        let to = self.to.as_deref().unwrap_or_default();
        targetref::validate_top(self.target_ref.as_ref(), !rules.is_empty(), violations);
        let whole_mesh = self.target_ref.as_ref().is_none_or(|target| target.kind == TargetKind::Mesh);
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            for (position, condition) in rule.matches.iter().flatten().enumerate() {
                targetref::validate_match(condition, &format!("{path}.matches[{position}]"), violations);
            }
            validate_conf(&rule.default, &format!("{path}.default"), violations);
        }
        if !whole_mesh && !to.is_empty() {
            violations.add("spec.to", "must not be defined");
            return;
        }
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

fn validate_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    for (index, fault) in conf.http.iter().flatten().enumerate() {
        let path = format!("{path}.http[{index}]");
        if let Some(abort) = &fault.abort {
            check::status_code(abort.http_status.into(), format!("{path}.abort.httpStatus"), violations);
            check::percent(&abort.percentage, format!("{path}.abort.percentage"), violations);
        }
        if let Some(delay) = &fault.delay {
            if delay.value.0 < 0 {
                violations.add(format!("{path}.delay.value"), "must not be negative when defined");
            }
            check::percent(&delay.percentage, format!("{path}.delay.percentage"), violations);
        }
        if let Some(bandwidth) = &fault.response_bandwidth {
            if bandwidth.limit.is_empty() {
                violations.add(format!("{path}.responseBandwidth.limit"), MUST_BE_DEFINED);
            } else if bandwidth.kbps().is_none() {
                violations.add(format!("{path}.responseBandwidth.limit"), "must be in kbps/Mbps/Gbps units");
            }
            check::percent(&bandwidth.percentage, format!("{path}.responseBandwidth.percentage"), violations);
        }
    }
}
