//! `DataplaneInsight` (resources.md §7.3): what the zone observed of a proxy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Validate, is_default};
use crate::Timestamp;

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
    /// OpenTelemetry backends, verbatim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<Value>,
}

impl DataplaneInsight {
    /// Online = some subscription connected and not disconnected.
    pub fn is_online(&self) -> bool {
        self.subscriptions.iter().any(|s| s.connect_time.is_some() && s.disconnect_time.is_none())
    }
}

impl Validate for DataplaneInsight {}

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
