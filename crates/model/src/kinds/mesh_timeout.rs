//! `MeshTimeout` (policies.md §13).

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::schema::common::{DURATION, MATCHES, TARGET_REF, TO_TARGET_REF};
use crate::schema::{Schema, field, list, object};
use crate::targetref::{self, Rule, TargetKind, ToItem};
use crate::{GoDuration, Meta, TargetRef, Violations};

/// Timeouts of inbound (`rules`) or outbound (`to`) traffic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTimeout {
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

/// Timeouts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// TCP connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_timeout: Option<GoDuration>,
    /// Idle connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<GoDuration>,
    /// HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
}

/// HTTP timeouts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// Whole request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<GoDuration>,
    /// Idle stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout: Option<GoDuration>,
    /// Longest stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<GoDuration>,
    /// Longest connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<GoDuration>,
    /// Receipt of request headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers_timeout: Option<GoDuration>,
}

const CONF: Schema = object(&[
    field("connectionTimeout", "Time to open a connection.", DURATION),
    field(
        "http",
        "Times of HTTP traffic.",
        object(&[
            field("maxConnectionDuration", "Longest life of a connection; 0 is no limit.", DURATION),
            field("maxStreamDuration", "Longest life of a stream; 0 is no limit.", DURATION),
            field(
                "requestHeadersTimeout",
                "Time for the headers of a request to arrive; 0 is no limit.",
                DURATION,
            ),
            field(
                "requestTimeout",
                "Time for the whole request, from its last byte to the last byte of the answer; 0 is no limit.",
                DURATION,
            ),
            field("streamIdleTimeout", "Time that a stream may be without data; 0 is no limit.", DURATION),
        ]),
    ),
    field(
        "idleTimeout",
        "Time that a connection may be without requests (TCP: without data); 0 is no limit.",
        DURATION,
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "rules",
        "Incoming traffic that has the times.",
        list(&object(&[
            field("default", "Times of the incoming traffic.", CONF),
            field("matches", "Conditions on the client; without any, every client.", MATCHES),
        ])),
    ),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Outgoing traffic that has the times.",
        list(&object(&[
            field("default", "Times of the outgoing traffic.", CONF),
            field("targetRef", "Destination of the outgoing traffic.", TO_TARGET_REF).required(),
        ])),
    ),
]);

impl Validate for MeshTimeout {
    const DESCRIPTION: &'static str = "Times of connections and requests.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let rules = self.rules.as_deref().unwrap_or_default();
        let to = self.to.as_deref().unwrap_or_default();
        targetref::validate_top(self.target_ref.as_ref(), !rules.is_empty(), violations);
        if !rules.is_empty() && !to.is_empty() {
            violations.add("spec", "fields 'to' must be empty when 'rules' is defined");
        }
        if rules.is_empty() && to.is_empty() {
            violations.add("spec", "at least one of 'to' or 'rules' has to be defined");
        }
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            targetref::validate_rule_matches(rule.matches.as_deref(), &path, violations);
            let conditional = rule.matches.iter().flatten().any(|m| m.spiffe_id.is_some());
            validate_conf(&rule.default, &format!("{path}.default"), conditional, violations);
        }
        for (index, item) in to.iter().enumerate() {
            let path = format!("spec.to[{index}]");
            let allowed = [
                TargetKind::Mesh,
                TargetKind::MeshService,
                TargetKind::MeshExternalService,
                TargetKind::MeshMultiZoneService,
                TargetKind::MeshHTTPRoute,
            ];
            targetref::validate(&item.target_ref, &format!("{path}.targetRef"), &allowed, violations);
            validate_conf(&item.default, &format!("{path}.default"), false, violations);
        }
    }
}

fn validate_conf(conf: &Conf, path: &str, conditional: bool, violations: &mut Violations) {
    if conf.connection_timeout.is_none() && conf.idle_timeout.is_none() && conf.http.is_none() {
        violations.add(path, "at least one timeout should be configured");
        return;
    }
    if conf.connection_timeout.is_some_and(|t| t.0 <= 0) {
        violations.add(format!("{path}.connectionTimeout"), "must be greater than zero when defined");
    }
    let http = conf.http.clone().unwrap_or_default();
    let fields = [
        ("idleTimeout", conf.idle_timeout),
        ("http.requestTimeout", http.request_timeout),
        ("http.streamIdleTimeout", http.stream_idle_timeout),
        ("http.maxStreamDuration", http.max_stream_duration),
        ("http.maxConnectionDuration", http.max_connection_duration),
        ("http.requestHeadersTimeout", http.request_headers_timeout),
    ];
    for (field, value) in fields {
        if value.is_some_and(|t| t.0 < 0) {
            violations.add(format!("{path}.{field}"), "must not be negative when defined");
        }
    }
    if conf.http.is_some() && fields[1..5].iter().all(|(_, value)| value.is_none()) {
        violations.add(format!("{path}.http"), "at least one timeout in this section should be configured");
    }
    if conditional {
        let whole_connection =
            [("connectionTimeout", conf.connection_timeout), fields[0], fields[5], fields[3], fields[4]];
        for (field, value) in whole_connection {
            if value.is_some() {
                violations.add(
                    format!("{path}.{field}"),
                    "can't be specified when matches contain spiffeID because this field cannot be conditioned on source identity",
                );
            }
        }
    }
}
