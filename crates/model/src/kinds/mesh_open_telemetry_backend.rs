//! `MeshOpenTelemetryBackend`: a collector that policies name (policies.md §20).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check;
use super::mesh_external_service::is_ip_or_host;
use crate::schema::{Schema, boolean, field, int32, object, one_of, text};
use crate::{Meta, Violations};

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeshOpenTelemetryBackend {
    /// Where it is; absent: beside the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Protocol; absent: gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// How far `OTEL_…` variables of the proxy count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Env>,
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// IP address or DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port; absent: 4317.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Base path; only with HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Protocols of a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP.
    Http,
}

/// How far `OTEL_…` variables of the proxy count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Env {
    /// Whether they are read.
    #[serde(default)]
    pub mode: EnvMode,
    /// What wins.
    #[serde(default)]
    pub precedence: EnvPrecedence,
    /// Variables of a single signal count as well; absent: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_signal_overrides: Option<bool>,
}

/// Whether variables are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum EnvMode {
    /// No.
    Disabled,
    /// If there are any.
    #[default]
    Optional,
    /// They must be there.
    Required,
}

/// What wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum EnvPrecedence {
    /// The resource.
    ExplicitFirst,
    /// The variables.
    #[default]
    EnvFirst,
}

/// How a policy names a collector: the oldest one that has all labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackendRef {
    /// The kind.
    pub kind: BackendKind,
    /// Labels it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Kinds that a [`BackendRef`] may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BackendKind {
    /// The only one.
    MeshOpenTelemetryBackend,
}

/// Checks a reference to a collector at `path`, which is the one of the member that holds it.
pub(super) fn validate_ref(backend: Option<&BackendRef>, path: &str, violations: &mut Violations) {
    let path = format!("{path}.backendRef");
    match backend {
        None => violations.add(path, check::MUST_BE_DEFINED),
        Some(backend) if backend.labels.as_ref().is_none_or(BTreeMap::is_empty) => {
            violations.add(path, "backendRef must have exactly one defined: labels");
        }
        Some(_) => {}
    }
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "endpoint",
        "Where the collector is.",
        object(&[
            field("address", "IP address or hostname; without it, the node that the proxy runs on.", text()),
            field("path", "Path prefix, for HTTP.", text()),
            field("port", "Port of the collector.", int32()),
        ]),
    ),
    field(
        "env",
        "Whether environment variables of the agent may say where the collector is.",
        object(&[
            field(
                "allowSignalOverrides",
                "Admits variables for a single signal (logs, metrics, traces).",
                boolean(),
            ),
            field(
                "mode",
                "Whether variables are ignored, used, or needed.",
                one_of(&["Disabled", "Optional", "Required"]).default_text("Optional"),
            ),
            field(
                "precedence",
                "Which wins when both are given.",
                one_of(&["ExplicitFirst", "EnvFirst"]).default_text("EnvFirst"),
            ),
        ]),
    ),
    field("protocol", "OTLP over gRPC or over HTTP.", one_of(&["grpc", "http"])),
]);

impl Validate for MeshOpenTelemetryBackend {
    const DESCRIPTION: &'static str = "An OpenTelemetry collector that policies refer to.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let Some(endpoint) = &self.endpoint else { return };
        match endpoint.address.as_deref() {
            Some("") => violations.add("spec.endpoint.address", "must not be empty"),
            Some(address) if !is_ip_or_host(address) => {
                violations.add("spec.endpoint.address", "address has to be a valid IP or hostname");
            }
            _ => {}
        }
        if let Some(port) = endpoint.port {
            check::port(port, "spec.endpoint.port".into(), violations);
        }
        let Some(path) = endpoint.path.as_deref() else { return };
        let message = if self.protocol.unwrap_or_default() == Protocol::Grpc {
            "must not be set when protocol is grpc"
        } else if !path.starts_with('/') {
            "must start with /"
        } else if path.contains(['?', '#']) {
            "must not contain query or fragment"
        } else {
            return;
        };
        violations.add("spec.endpoint.path", message);
    }
}
