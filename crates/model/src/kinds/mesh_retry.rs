//! `MeshRetry` (policies.md §17).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Validate;
use super::mesh_http_route::HeaderMatch;
use crate::schema::common::{DURATION, HEADER_NAME, LABELS, TARGET_REF, TEXTS, TO_TARGET_REF};
use crate::schema::{Schema, field, int32, int64, list, object, one_of, text};
use crate::targetref::{self, TargetKind, ToItem};
use crate::{GoDuration, Meta, TargetRef, Violations};

/// Retries of outbound traffic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshRetry {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Outbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ToItem<Conf>>>,
}

/// Retries by protocol.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Conf {
    /// TCP destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// HTTP destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// gRPC destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
}

/// TCP.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tcp {
    /// Connection attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connect_attempt: Option<u32>,
}

/// HTTP.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_retries: Option<u32>,
    /// Time of one try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<GoDuration>,
    /// Pause between tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOff>,
    /// Pause that the server asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// Conditions, methods and status codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<Vec<String>>,
    /// Response headers that make a response retriable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retriable_response_headers: Option<Vec<HeaderMatch>>,
    /// Request headers without which nothing is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retriable_request_headers: Option<Vec<HeaderMatch>>,
    /// Which endpoint a retry takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_selection: Option<Vec<HostSelection>>,
    /// How often an endpoint is chosen again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_selection_max_attempts: Option<i64>,
}

/// gRPC.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grpc {
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_retries: Option<u32>,
    /// Time of one try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<GoDuration>,
    /// Pause between tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOff>,
    /// Pause that the server asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// Status codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<Vec<GrpcRetryOn>>,
}

/// gRPC status codes that can be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrpcRetryOn {
    /// Cancelled.
    Canceled,
    /// Deadline exceeded.
    DeadlineExceeded,
    /// Internal.
    Internal,
    /// Resource exhausted.
    ResourceExhausted,
    /// Unavailable.
    Unavailable,
}

/// Pause between tries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackOff {
    /// First.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_interval: Option<GoDuration>,
    /// Longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<GoDuration>,
}

/// Pause that the server asks for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitedBackOff {
    /// Headers that carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_headers: Option<Vec<ResetHeader>>,
    /// Longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<GoDuration>,
}

/// A header with a pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetHeader {
    /// Header name.
    pub name: String,
    /// How it is read.
    pub format: ResetFormat,
}

/// How a reset header is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

/// Which endpoint a retry takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSelection {
    /// The rule.
    pub predicate: HostPredicate,
    /// Tags of endpoints to leave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// After how many tries priorities change.
    #[serde(default = "two", skip_serializing_if = "Option::is_none")]
    pub update_frequency: Option<i32>,
}

fn two() -> Option<i32> {
    Some(2)
}

/// Rules of host selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPredicate {
    /// Not the endpoints already tried.
    OmitPreviousHosts,
    /// Not endpoints with these tags.
    OmitHostsWithTags,
    /// Not the priorities already tried.
    OmitPreviousPriorities,
}

const HTTP_CONDITIONS: [&str; 17] = [
    "5xx",
    "GatewayError",
    "Reset",
    "Retriable4xx",
    "ConnectFailure",
    "EnvoyRatelimited",
    "RefusedStream",
    "Http3PostConnectFailure",
    "HttpMethodConnect",
    "HttpMethodDelete",
    "HttpMethodGet",
    "HttpMethodHead",
    "HttpMethodOptions",
    "HttpMethodPatch",
    "HttpMethodPost",
    "HttpMethodPut",
    "HttpMethodTrace",
];

const RATE_LIMITED_BACK_OFF: Schema = object(&[
    field("maxInterval", "Longest wait that a header may ask for.", DURATION),
    field(
        "resetHeaders",
        "Headers that say when to try again; the first that is there counts.",
        list(&object(&[
            field(
                "format",
                "What the value is: seconds from now or a Unix time.",
                one_of(&["Seconds", "UnixTimestamp"]),
            )
            .required(),
            field("name", "Name of the header.", HEADER_NAME).required(),
        ])),
    ),
]);

const GRPC: Schema = object(&[
    field(
        "backOff",
        "Waits between tries.",
        object(&[
            field("baseInterval", "Wait before the first retry; grows with each further one.", DURATION),
            field("maxInterval", "Longest wait.", DURATION),
        ]),
    ),
    field("numRetries", "Most retries of a call.", int32()),
    field("perTryTimeout", "Time of one try.", DURATION),
    field("rateLimitedBackOff", "Waits when the server says that it is overloaded.", RATE_LIMITED_BACK_OFF),
    field(
        "retryOn",
        "Statuses that are tried again.",
        list(&one_of(&["Canceled", "DeadlineExceeded", "Internal", "ResourceExhausted", "Unavailable"])),
    ),
]);

const RETRIABLE_HEADERS: Schema = list(&object(&[
    field("name", "Name of the header.", HEADER_NAME).required(),
    field(
        "type",
        "How the value is compared.",
        one_of(&["Exact", "Present", "RegularExpression", "Absent", "Prefix"]).default_text("Exact"),
    ),
    field("value", "Value or regular expression.", text()),
]));

const HTTP: Schema = object(&[
    field(
        "backOff",
        "Waits between tries.",
        object(&[
            field("baseInterval", "Wait before the first retry; grows with each further one.", DURATION),
            field("maxInterval", "Longest wait.", DURATION),
        ]),
    ),
    field(
        "hostSelection",
        "Which instances a retry avoids.",
        list(&object(&[
            field(
                "predicate",
                "What is avoided.",
                one_of(&["OmitPreviousHosts", "OmitHostsWithTags", "OmitPreviousPriorities"]),
            )
            .required(),
            field("tags", "Tags of the instances that are avoided.", LABELS),
            field(
                "updateFrequency",
                "After how many tries priorities are computed anew.",
                int32().default_int(2),
            ),
        ])),
    ),
    field(
        "hostSelectionMaxAttempts",
        "How often another instance is drawn before one that should be avoided is taken.",
        int64(),
    ),
    field("numRetries", "Most retries of a request.", int32()),
    field("perTryTimeout", "Time of one try.", DURATION),
    field("rateLimitedBackOff", "Waits when the server says that it is overloaded.", RATE_LIMITED_BACK_OFF),
    field(
        "retriableRequestHeaders",
        "Only requests with one of these headers are tried again.",
        RETRIABLE_HEADERS,
    ),
    field(
        "retriableResponseHeaders",
        "Answers with one of these headers are tried again.",
        RETRIABLE_HEADERS,
    ),
    field("retryOn", "Conditions and statuses that are tried again.", TEXTS),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Outgoing traffic that is tried again.",
        list(&object(&[
            field(
                "default",
                "How it is tried again.",
                object(&[
                    field("grpc", "Retries of gRPC calls.", GRPC),
                    field("http", "Retries of HTTP requests.", HTTP),
                    field(
                        "tcp",
                        "Retries of TCP connections.",
                        object(&[field("maxConnectAttempt", "Most tries to connect.", int32())]),
                    ),
                ]),
            ),
            field("targetRef", "Destination of the outgoing traffic.", TO_TARGET_REF).required(),
        ])),
    ),
]);

impl Validate for MeshRetry {
    const DESCRIPTION: &'static str = "Tries failed requests and connections again.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        for (index, item) in self.to.iter().flatten().enumerate() {
            let allowed = [
                TargetKind::Mesh,
                TargetKind::MeshService,
                TargetKind::MeshExternalService,
                TargetKind::MeshMultiZoneService,
                TargetKind::MeshHTTPRoute,
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
    if conf.tcp.is_none() && conf.http.is_none() && conf.grpc.is_none() {
        violations.add(path, "at least one of the 'tcp', 'http', 'grpc' must be specified");
    }
    if let Some(tcp) = &conf.tcp {
        match tcp.max_connect_attempt {
            None => violations.add(format!("{path}.tcp"), "must not be empty"),
            Some(0) => violations.add(format!("{path}.tcp.maxConnectAttempt"), "must be greater than 0"),
            Some(_) => {}
        }
    }
    if let Some(http) = &conf.http {
        let path = format!("{path}.http");
        if *http == Http::default() {
            violations.add(&path, "must not be empty");
        }
        validate_pauses(http.back_off.as_ref(), http.rate_limited_back_off.as_ref(), &path, violations);
        for (index, condition) in http.retry_on.iter().flatten().enumerate() {
            let is_status = condition.parse().is_ok_and(|code: u16| (100..600).contains(&code));
            if !is_status && !HTTP_CONDITIONS.contains(&condition.as_str()) {
                violations.add(format!("{path}.retryOn[{index}]"), format!("unknown item '{condition}'"));
            }
        }
        validate_host_selection(http.host_selection.as_deref().unwrap_or_default(), &path, violations);
    }
    if let Some(grpc) = &conf.grpc {
        let path = format!("{path}.grpc");
        if *grpc == Grpc::default() {
            violations.add(&path, "must not be empty");
        }
        validate_pauses(grpc.back_off.as_ref(), grpc.rate_limited_back_off.as_ref(), &path, violations);
    }
}

fn validate_pauses(
    back_off: Option<&BackOff>,
    limited: Option<&RateLimitedBackOff>,
    path: &str,
    violations: &mut Violations,
) {
    if back_off.is_some_and(|b| *b == BackOff::default()) {
        violations.add(format!("{path}.backOff"), "must not be empty");
    }
    let Some(limited) = limited else { return };
    if limited.max_interval.is_some_and(|t| t.0 <= 0) {
        violations
            .add(format!("{path}.rateLimitedBackOff.maxInterval"), "must be defined and greater than zero");
    }
    match limited.reset_headers.as_deref() {
        None | Some([]) => {
            violations.add(format!("{path}.rateLimitedBackOff.resetHeaders"), "must be defined")
        }
        Some(headers) => {
            for (index, header) in headers.iter().enumerate().filter(|(_, h)| h.name.is_empty()) {
                let _ = header;
                violations
                    .add(format!("{path}.rateLimitedBackOff.resetHeaders[{index}].name"), "must be defined");
            }
        }
    }
}

fn validate_host_selection(selections: &[HostSelection], path: &str, violations: &mut Violations) {
    let mut previous_priorities = 0;
    for (index, selection) in selections.iter().enumerate() {
        let path = format!("{path}.hostSelection[{index}]");
        match selection.predicate {
            HostPredicate::OmitHostsWithTags if selection.tags.as_ref().is_none_or(BTreeMap::is_empty) => {
                violations.add(format!("{path}.tags"), "must be defined");
            }
            HostPredicate::OmitPreviousPriorities => {
                previous_priorities += 1;
                if previous_priorities > 1 {
                    violations.add(
                        format!("{path}.predicate"),
                        "OmitPreviousPriorities must only be specified once",
                    );
                }
                if selection.update_frequency.is_some_and(|n| n <= 0) {
                    violations
                        .add(format!("{path}.updateFrequency"), "must be greater than zero when defined");
                }
            }
            _ => {}
        }
    }
}
