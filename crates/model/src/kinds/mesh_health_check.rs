//! `MeshHealthCheck` (policies.md §15).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check;
use super::mesh_rate_limit::Headers;
use crate::schema::common::{DURATION, SET_AND_ADD_HEADERS, TARGET_REF, TEXTS, TO_TARGET_REF};
use crate::schema::{Schema, boolean, field, int32, list, object, text};
use crate::targetref::{self, TargetKind, ToItem};
use crate::{GoDuration, Meta, TargetRef, Violations};

/// How proxies probe the endpoints that they call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshHealthCheck {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Outbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ToItem<Conf>>>,
}

/// Probes of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Between probes; absent: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Of one probe; absent: 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Failures until an endpoint is left out; absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<i32>,
    /// Successes until it is used again; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<i32>,
    /// Random pause before the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_jitter: Option<GoDuration>,
    /// Random pause before each probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_jitter: Option<GoDuration>,
    /// Random pause before each probe, in percent of the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_jitter_percent: Option<i32>,
    /// In panic no endpoint is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_traffic_on_panic: Option<bool>,
    /// File for events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log_path: Option<String>,
    /// Logs every failure, not only the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always_log_health_check_failures: Option<bool>,
    /// Between probes of endpoints that were never called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_traffic_interval: Option<GoDuration>,
    /// One connection for all probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse_connection: Option<bool>,
    /// Probes of TCP destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// Probes of HTTP destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Probes of gRPC destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
}

/// A connection, and bytes if wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Tcp {
    /// Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// What is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// What must come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<Vec<String>>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Its path; absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers_to_add: Option<Headers>,
    /// Status codes of a healthy endpoint; absent: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_statuses: Option<Vec<i32>>,
}

/// A call of the gRPC health service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grpc {
    /// Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Which service is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// `:authority` of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

const CONF: Schema = object(&[
    field("alwaysLogHealthCheckFailures", "Logs every failed check, not only the first of a row.", boolean()),
    field("eventLogPath", "File beside the proxy that events are logged to.", text()),
    field(
        "failTrafficOnPanic",
        "When too few instances are healthy, requests fail instead of going to all of them.",
        boolean(),
    ),
    field(
        "grpc",
        "Checks with the gRPC health protocol.",
        object(&[
            field("authority", "Value of the header `:authority`.", text()),
            field("disabled", "Turns gRPC checks off.", boolean()),
            field("serviceName", "Service that is asked for.", text()),
        ]),
    ),
    field(
        "healthyThreshold",
        "Checks that must succeed in a row until an instance is healthy again.",
        int32(),
    ),
    field(
        "http",
        "Checks with HTTP requests.",
        object(&[
            field("disabled", "Turns HTTP checks off.", boolean()),
            field("expectedStatuses", "Statuses that mean success.", list(&int32())),
            field("path", "Path of the request.", text()),
            field("requestHeadersToAdd", "Headers of the request.", SET_AND_ADD_HEADERS),
        ]),
    ),
    field("initialJitter", "Longest random delay before the first check.", DURATION),
    field("interval", "Time between two checks.", DURATION),
    field("intervalJitter", "Longest random time that is added to the interval.", DURATION),
    field(
        "intervalJitterPercent",
        "Longest random time that is added to the interval, in percent of it.",
        int32(),
    ),
    field("noTrafficInterval", "Time between two checks while the destination was never used.", DURATION),
    field("reuseConnection", "Keeps the connection between checks.", boolean()),
    field(
        "tcp",
        "Checks with TCP connections.",
        object(&[
            field("disabled", "Turns TCP checks off.", boolean()),
            field(
                "receive",
                "Byte blocks, in base64, that must be in what comes back, in this order.",
                TEXTS,
            ),
            field("send", "Bytes, in base64, that are sent after connecting.", text()),
        ]),
    ),
    field("timeout", "Time until a check counts as failed.", DURATION),
    field("unhealthyThreshold", "Checks that must fail in a row until an instance is unhealthy.", int32()),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Destinations that are checked.",
        list(&object(&[
            field("default", "How the destination is checked.", CONF),
            field("targetRef", "The destination.", TO_TARGET_REF).required(),
        ])),
    ),
]);

impl Validate for MeshHealthCheck {
    const DESCRIPTION: &'static str =
        "Checks instances of destinations actively and leaves unhealthy ones out.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        for (index, item) in self.to.iter().flatten().enumerate() {
            let path = format!("spec.to[{index}]");
            let allowed = [
                TargetKind::Mesh,
                TargetKind::MeshService,
                TargetKind::MeshExternalService,
                TargetKind::MeshMultiZoneService,
            ];
            targetref::validate(&item.target_ref, &format!("{path}.targetRef"), &allowed, violations);
            validate_conf(&item.default, &format!("{path}.default"), violations);
        }
    }
}

fn validate_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    for (field, duration) in [
        ("interval", conf.interval),
        ("timeout", conf.timeout),
        ("initialJitter", conf.initial_jitter),
        ("intervalJitter", conf.interval_jitter),
        ("noTrafficInterval", conf.no_traffic_interval),
    ] {
        check::positive(duration, format!("{path}.{field}"), violations);
    }
    check::positive_int(conf.unhealthy_threshold, format!("{path}.unhealthyThreshold"), violations);
    check::positive_int(conf.healthy_threshold, format!("{path}.healthyThreshold"), violations);
    if conf.interval_jitter_percent.is_some_and(|percent| !(0..=100).contains(&percent)) {
        violations.add(format!("{path}.intervalJitterPercent"), "must be in inclusive range [0, 100]");
    }
    if conf.event_log_path.as_ref().is_some_and(|file| !check::is_file_path(file)) {
        violations.add(format!("{path}.eventLogPath"), "must be a valid path when defined");
    }
    if conf.http.is_none() && conf.tcp.is_none() && conf.grpc.is_none() {
        violations.add(path, "must have at least one defined: http, tcp, grpc");
    }
    if let Some(http) = &conf.http {
        if http.path.as_ref().is_some_and(String::is_empty) {
            violations.add(format!("{path}.http.path"), check::MUST_BE_DEFINED);
        }
        for (index, status) in http.expected_statuses.iter().flatten().enumerate() {
            check::status_code(
                (*status).into(),
                format!("{path}.http.expectedStatuses[{index}]"),
                violations,
            );
        }
    }
}
