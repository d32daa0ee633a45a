//! `MeshCircuitBreaker` (policies.md §16).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::mesh_http_route::Decimal;
use crate::schema::common::{DECIMAL, DURATION, TARGET_REF, TO_TARGET_REF};
use crate::schema::{Schema, boolean, field, int32, list, object};
use crate::targetref::{self, Rule, TargetKind, ToItem};
use crate::{GoDuration, Meta, TargetRef, Violations};

/// Limits and ejection of bad endpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshCircuitBreaker {
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

/// Limits and ejection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limits: Option<ConnectionLimits>,
    /// Ejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
}

/// Limits of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionLimits {
    /// Connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Connection pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connection_pools: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Retries at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Requests at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
}

/// Ejection of bad endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Time between analyses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Base of the ejection time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<GoDuration>,
    /// Most endpoints that may be ejected, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_percent: Option<u32>,
    /// Local-origin failures count apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_external_and_local_errors: Option<bool>,
    /// Share of healthy endpoints below which all are used, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_panic_threshold: Option<Decimal>,
    /// What counts as bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detectors: Option<Detectors>,
}

/// What counts as bad.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detectors {
    /// Any error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_failures: Option<Consecutive>,
    /// 502, 503, 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_failures: Option<Consecutive>,
    /// Connection failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_origin_failures: Option<Consecutive>,
    /// Success rate far below the others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// Share of failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percentage: Option<FailurePercentage>,
}

/// A row of failures.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Consecutive {
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive: Option<u32>,
}

/// Success rate far below the others'.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRate {
    /// Fewest endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_hosts: Option<u32>,
    /// Fewest requests per interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_volume: Option<u32>,
    /// Standard deviations below the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_deviation_factor: Option<Decimal>,
}

/// Share of failures.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailurePercentage {
    /// Fewest endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_hosts: Option<u32>,
    /// Fewest requests per interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_volume: Option<u32>,
    /// Percent of failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

const CONF: Schema = object(&[
    field(
        "connectionLimits",
        "Limits on connections and requests; what exceeds them fails at once.",
        object(&[
            field("maxConnectionPools", "Most connection pools at the same time.", int32()),
            field("maxConnections", "Most connections to the destination.", int32()),
            field("maxPendingRequests", "Most requests that wait for a connection.", int32()),
            field("maxRequests", "Most requests in flight.", int32()),
            field("maxRetries", "Most retries in flight.", int32()),
        ]),
    ),
    field(
        "outlierDetection",
        "Takes instances that fail out of the balancing for a while.",
        object(&[
            field(
                "baseEjectionTime",
                "For how long an instance is taken out the first time; grows with each further time.",
                DURATION,
            ),
            field("detectors", "What makes an instance count as failing.", DETECTORS),
            field("disabled", "Turns the detection off.", boolean()),
            field(
                "healthyPanicThreshold",
                "Share of healthy instances, in percent, below which all instances are used.",
                DECIMAL,
            ),
            field("interval", "Time between two looks at the instances.", DURATION),
            field(
                "maxEjectionPercent",
                "Largest share of the instances that is taken out, in percent.",
                int32(),
            ),
            field(
                "splitExternalAndLocalErrors",
                "Counts errors of the connection apart from errors that the instance answers.",
                boolean(),
            ),
        ]),
    ),
]);

const DETECTORS: Schema = object(&[
    field(
        "failurePercentage",
        "Instances whose share of failures is too high.",
        object(&[
            field("minimumHosts", "Instances that must have enough requests before any is judged.", int32()),
            field(
                "requestVolume",
                "Requests within an interval that an instance needs to be judged.",
                int32(),
            ),
            field("threshold", "Share of failures, in percent, at which an instance is taken out.", int32()),
        ]),
    ),
    field(
        "gatewayFailures",
        "Gateway errors (502, 503, 504) in a row.",
        object(&[field("consecutive", "How many of them.", int32())]),
    ),
    field(
        "localOriginFailures",
        "Errors of the connection in a row, such as time-outs and resets.",
        object(&[field("consecutive", "How many of them.", int32())]),
    ),
    field(
        "successRate",
        "Instances that succeed clearly less often than the others.",
        object(&[
            field("minimumHosts", "Instances that must have enough requests before any is judged.", int32()),
            field(
                "requestVolume",
                "Requests within an interval that an instance needs to be judged.",
                int32(),
            ),
            field(
                "standardDeviationFactor",
                "How many standard deviations below the mean is too low.",
                DECIMAL,
            ),
        ]),
    ),
    field(
        "totalFailures",
        "Errors of any sort (5xx) in a row.",
        object(&[field("consecutive", "How many of them.", int32())]),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "rules",
        "Incoming traffic that is limited.",
        list(&object(&[field("default", "Limits of the incoming traffic.", CONF)])),
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

impl Validate for MeshCircuitBreaker {
    const DESCRIPTION: &'static str =
        "Limits connections and requests, and takes failing instances out of the balancing.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let rules = self.rules.as_deref().unwrap_or_default();
        let to = self.to.as_deref().unwrap_or_default();
        targetref::validate_top(self.target_ref.as_ref(), !rules.is_empty(), violations);
        if rules.is_empty() && to.is_empty() {
            violations.add("spec", "at least one of 'to' or 'rules' has to be defined");
        }
        for (index, rule) in rules.iter().enumerate() {
            validate_conf(&rule.default, &format!("spec.rules[{index}].default"), violations);
        }
        for (index, item) in to.iter().enumerate() {
            let allowed = [
                TargetKind::Mesh,
                TargetKind::MeshService,
                TargetKind::MeshExternalService,
                TargetKind::MeshMultiZoneService,
            ];
            targetref::validate(
                &item.target_ref,
                &format!("spec.to[{index}].targetRef"),
                &allowed,
                violations,
            );
            validate_conf(&item.default, &format!("spec.to[{index}].default"), violations);
        }
    }
}

fn validate_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    if conf.connection_limits.is_none() && conf.outlier_detection.is_none() {
        violations
            .add(path, "at least one of: 'connectionLimits' or 'outlierDetection' should be configured");
    }
    let mut positive = |field: &str, value: Option<u32>| {
        if value == Some(0) {
            violations.add(format!("{path}.{field}"), "must be greater than 0");
        }
    };
    if let Some(limits) = &conf.connection_limits {
        positive("connectionLimits.maxConnections", limits.max_connections);
        positive("connectionLimits.maxConnectionPools", limits.max_connection_pools);
        positive("connectionLimits.maxPendingRequests", limits.max_pending_requests);
        positive("connectionLimits.maxRetries", limits.max_retries);
        positive("connectionLimits.maxRequests", limits.max_requests);
    }
    if let Some(outliers) = &conf.outlier_detection {
        validate_outliers(outliers, &format!("{path}.outlierDetection"), violations);
    }
}

fn validate_outliers(outliers: &OutlierDetection, path: &str, violations: &mut Violations) {
    for (field, value) in [("interval", outliers.interval), ("baseEjectionTime", outliers.base_ejection_time)]
    {
        if value.is_some_and(|t| t.0 <= 0) {
            violations.add(format!("{path}.{field}"), "must be greater than zero when defined");
        }
    }
    if outliers.max_ejection_percent.is_some_and(|p| p > 100) {
        violations.add(format!("{path}.maxEjectionPercent"), "must be in inclusive range [0, 100]");
    }
    if let Some(threshold) = &outliers.healthy_panic_threshold {
        match threshold.value() {
            None => violations.add(format!("{path}.healthyPanicThreshold"), "string must be a valid number"),
            Some(value) if !(0.0..=100.0).contains(&value) => {
                violations
                    .add(format!("{path}.healthyPanicThreshold"), "must be in inclusive range [0.0, 100.0]");
            }
            Some(_) => {}
        }
    }
    let path = format!("{path}.detectors");
    let Some(detectors) = &outliers.detectors else {
        violations.add(path, "must be defined");
        return;
    };
    if *detectors == Detectors::default() {
        violations.add(
            &path,
            "must have at least one defined: totalFailures, gatewayFailures, localOriginFailures, successRate, failurePercentage",
        );
    }
    let mut positive = |field: &str, value: Option<u32>| {
        if value == Some(0) {
            violations.add(format!("{path}.{field}"), "must be greater than 0");
        }
    };
    for (name, detector) in [
        ("totalFailures", &detectors.total_failures),
        ("gatewayFailures", &detectors.gateway_failures),
        ("localOriginFailures", &detectors.local_origin_failures),
    ] {
        positive(&format!("{name}.consecutive"), detector.as_ref().and_then(|d| d.consecutive));
    }
    if let Some(rate) = &detectors.success_rate {
        positive("successRate.minimumHosts", rate.minimum_hosts);
        positive("successRate.requestVolume", rate.request_volume);
        if let Some(factor) = &rate.standard_deviation_factor {
            let path = format!("{path}.successRate.standardDeviationFactor");
            match factor.value() {
                None => violations.add(path, "invalid number"),
                Some(value) if value <= 0.0 => violations.add(path, "must be greater than 0"),
                Some(_) => {}
            }
        }
    }
    if let Some(share) = &detectors.failure_percentage {
        let mut positive = |field: &str, value: Option<u32>| {
            if value == Some(0) {
                violations.add(format!("{path}.failurePercentage.{field}"), "must be greater than 0");
            }
        };
        positive("minimumHosts", share.minimum_hosts);
        positive("requestVolume", share.request_volume);
        if share.threshold.is_some_and(|p| p > 100) {
            violations
                .add(format!("{path}.failurePercentage.threshold"), "must be in inclusive range [0, 100]");
        }
    }
}
