//! `DataplaneInsight` (resources.md §7.3): what the zone observed of a proxy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Validate, is_default};
use crate::Timestamp;
use crate::schema::common::{PLUGIN_CONFIG, TEXTS};
use crate::schema::{Schema, boolean, field, list, map, object, text, time, uint32, uint64};

/// Observations of one proxy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataplaneInsight {
    /// One per ADS stream, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<DiscoverySubscription>,
    /// Its certificate.
    #[serde(rename = "mTLS", skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MTls>,
    /// xDS node metadata, verbatim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// OpenTelemetry backends and what is sent to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<OpenTelemetry>,
}

impl DataplaneInsight {
    /// Online = some subscription connected and not disconnected.
    pub fn is_online(&self) -> bool {
        self.subscriptions.iter().any(|s| s.connect_time.is_some() && s.disconnect_time.is_none())
    }
}

impl Validate for DataplaneInsight {
    const DESCRIPTION: &'static str =
        "What a zone observed of a proxy: its streams, versions and certificate.";
    const SCHEMA: &'static Schema = &SPEC;
}

/// One ADS stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoverySubscription {
    /// UUID.
    pub id: String,
    /// Zone control plane instance.
    pub control_plane_instance_id: String,
    /// Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<Timestamp>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_time: Option<Timestamp>,
    /// Counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<DiscoverySubscriptionStatus>,
    /// Reported versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Versions>,
    /// Liveness mark.
    #[serde(skip_serializing_if = "is_default")]
    pub generation: u32,
}

/// Counters of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoverySubscriptionStatus {
    /// When they last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
    /// All types, SDS included.
    pub total: DiscoveryStats,
    /// Clusters.
    pub cds: DiscoveryStats,
    /// Endpoints.
    pub eds: DiscoveryStats,
    /// Listeners.
    pub lds: DiscoveryStats,
    /// Routes (unused).
    pub rds: DiscoveryStats,
}

/// Counters of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoveryStats {
    /// Responses sent.
    #[serde(with = "uint64", skip_serializing_if = "is_default")]
    pub responses_sent: u64,
    /// Responses acknowledged.
    #[serde(with = "uint64", skip_serializing_if = "is_default")]
    pub responses_acknowledged: u64,
    /// Responses rejected.
    #[serde(with = "uint64", skip_serializing_if = "is_default")]
    pub responses_rejected: u64,
}

/// Versions that a proxy reports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Versions {
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kuma_dp: Option<AgentVersion>,
    /// Envoy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy: Option<EnvoyVersion>,
    /// Others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, String>,
}

/// Version of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentVersion {
    /// Version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_tag: String,
    /// Commit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// Date of the build.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_date: String,
    /// Computed by the control plane.
    #[serde(skip_serializing_if = "is_default")]
    pub kuma_cp_compatible: bool,
}

/// Version of Envoy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyVersion {
    /// Version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Build text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build: String,
    /// Computed by the agent.
    #[serde(skip_serializing_if = "is_default")]
    pub kuma_dp_compatible: bool,
}

/// The proxy's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MTls {
    /// Not after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expiration_time: Option<Timestamp>,
    /// Last issue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_certificate_regeneration: Option<Timestamp>,
    /// How often one was issued.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate_regenerations: u32,
    /// KRI of the MeshIdentity.
    #[serde(rename = "issuedBackend", skip_serializing_if = "String::is_empty")]
    pub issued_backend: String,
    /// KRIs of all MeshTrusts of the mesh.
    #[serde(rename = "supportedBackends", skip_serializing_if = "Vec::is_empty")]
    pub supported_backends: Vec<String>,
}

/// OpenTelemetry backends of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenTelemetry {
    /// The backends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<OtelBackend>,
}

/// One OpenTelemetry backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OtelBackend {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<OtelSignal>,
    /// Logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<OtelSignal>,
    /// Metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<OtelSignal>,
}

/// What is known about one signal of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OtelSignal {
    /// A policy sends it.
    #[serde(skip_serializing_if = "is_default")]
    pub enabled: bool,
    /// Variables of the agent may say where.
    #[serde(skip_serializing_if = "is_default")]
    pub env_allowed: bool,
    /// Variables of the agent do.
    #[serde(skip_serializing_if = "is_default")]
    pub env_input_present: bool,
    /// Outcome.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// What variables override.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub override_kinds: Vec<String>,
    /// What is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_fields: Vec<String>,
    /// Why it is not sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked_reasons: Vec<String>,
}

/// `u64` as a decimal string, as proto JSON has it; numbers are accepted on input.
pub(crate) mod uint64 {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Text(String),
    }

    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(value),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

const STATS: Schema = object(&[
    field("responsesSent", "Responses sent to the proxy.", uint64()),
    field("responsesAcknowledged", "Responses that the proxy took over.", uint64()),
    field("responsesRejected", "Responses that the proxy refused.", uint64()),
]);
const TEXT: Schema = text();
const VERSIONS: Schema = object(&[
    field(
        "kumaDp",
        "The agent.",
        object(&[
            field("version", "Version.", text()),
            field("gitTag", "Tag that it was built from.", text()),
            field("gitCommit", "Commit that it was built from.", text()),
            field("buildDate", "When it was built.", text()),
            field("kumaCpCompatible", "Whether the version fits that of the control plane.", boolean()),
        ]),
    ),
    field(
        "envoy",
        "Envoy.",
        object(&[
            field("version", "Version.", text()),
            field("build", "Text that names the build.", text()),
            field("kumaDpCompatible", "Whether the version fits that of the agent.", boolean()),
        ]),
    ),
    field("dependencies", "Versions of other parts by name.", map(&TEXT)),
]);
const OTEL_SIGNAL: Schema = object(&[
    field("enabled", "A policy sends it.", boolean()),
    field("envAllowed", "Environment variables of the agent may say where to.", boolean()),
    field("envInputPresent", "Environment variables of the agent do.", boolean()),
    field("state", "Whether it is sent.", text()),
    field("overrideKinds", "What environment variables override.", TEXTS),
    field("missingFields", "What is missing to send it.", TEXTS),
    field("blockedReasons", "Why it is not sent.", TEXTS),
]);
const OTEL_BACKEND: Schema = object(&[
    field("name", "Name of the backend.", text()),
    field("traces", "Traces.", OTEL_SIGNAL),
    field("logs", "Logs.", OTEL_SIGNAL),
    field("metrics", "Metrics.", OTEL_SIGNAL),
]);
const SUBSCRIPTION: Schema = object(&[
    field("id", "Unique id of the stream.", text()),
    field("controlPlaneInstanceId", "Instance of the zone control plane.", text()),
    field("connectTime", "When the stream began.", time()),
    field("disconnectTime", "When the stream ended; absent while it lasts.", time()),
    field(
        "status",
        "Counters of the stream.",
        object(&[
            field("lastUpdateTime", "When the counters last changed.", time()),
            field("total", "All types together.", STATS),
            field("cds", "Clusters.", STATS),
            field("eds", "Endpoints.", STATS),
            field("lds", "Listeners.", STATS),
            field("rds", "Routes.", STATS),
        ]),
    ),
    field("version", "Versions that the proxy told.", VERSIONS),
    field("generation", "Counts up while the stream is alive.", uint32()),
]);

/// What a document looks like.
const SPEC: Schema = object(&[
    field("subscriptions", "Streams, the newest last.", list(&SUBSCRIPTION)),
    field(
        "mTLS",
        "Certificate of the proxy.",
        object(&[
            field("certificateExpirationTime", "When it expires.", time()),
            field("lastCertificateRegeneration", "When it was issued.", time()),
            field("certificateRegenerations", "How often one was issued.", uint32()),
            field("issuedBackend", "The MeshIdentity that it is from.", text()),
            field("supportedBackends", "The MeshTrusts that the proxy accepts.", TEXTS),
        ]),
    ),
    field("metadata", "Metadata of the xDS node, as the proxy sent it.", map(&PLUGIN_CONFIG)),
    field(
        "openTelemetry",
        "OpenTelemetry backends of the proxy.",
        object(&[field("backends", "The backends.", list(&OTEL_BACKEND))]),
    ),
]);
