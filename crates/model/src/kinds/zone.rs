//! `Zone` and `ZoneInsight` (resources.md §7.7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dataplane_insight::uint64;
use super::{Validate, is_default};
use crate::schema::{Schema, boolean, field, list, map, object, text, time, uint32, uint64};
use crate::{Meta, Timestamp, Violations, name};

/// A zone that global knows, or the own zone of a zone control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Zone {
    /// `false`: resources of this zone are not passed on to other zones. Absent means `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

impl Zone {
    /// Whether the zone's resources are passed on.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }
}

impl Validate for Zone {
    const DESCRIPTION: &'static str = "A zone of the federation.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, meta: &Meta, violations: &mut Violations) {
        if let Some(message) = name::dns1035_error(meta.display_name()) {
            violations.add("name", message);
        }
    }
}

/// What a control plane observed of a federation connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZoneInsight {
    /// One per GlobalToZoneSync stream, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<KdsSubscription>,
    /// Deprecated form of `kds_streams` for the admin streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_admin_streams: Option<EnvoyAdminStreams>,
    /// Last health check call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Which instance holds which stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kds_streams: Option<KdsStreams>,
}

impl ZoneInsight {
    /// Online = some subscription connected and not disconnected.
    pub fn is_online(&self) -> bool {
        self.subscriptions.iter().any(|s| s.connect_time.is_some() && s.disconnect_time.is_none())
    }
}

impl Validate for ZoneInsight {
    const DESCRIPTION: &'static str = "What global observed of the connection of a zone.";
    const SCHEMA: &'static Schema = &INSIGHT;
}

/// One connection of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KdsSubscription {
    /// UUID.
    pub id: String,
    /// Instance of global.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub global_instance_id: String,
    /// Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<Timestamp>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_time: Option<Timestamp>,
    /// Counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<KdsSubscriptionStatus>,
    /// Version of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<ControlPlaneVersions>,
    /// Liveness mark.
    #[serde(skip_serializing_if = "is_default")]
    pub generation: u32,
    /// Configuration of the zone control plane as JSON text, secrets masked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// An authorization header was present.
    #[serde(skip_serializing_if = "is_default")]
    pub auth_token_provided: bool,
    /// Instance of the zone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone_instance_id: String,
}

/// Counters of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KdsSubscriptionStatus {
    /// When they last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
    /// All kinds together.
    pub total: KdsStats,
    /// By kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stat: BTreeMap<String, KdsStats>,
}

/// Counters of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KdsStats {
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

/// Versions that the peer reported.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlPlaneVersions {
    /// The control plane's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kuma_cp: Option<ControlPlaneVersion>,
}

/// Version of a control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlPlaneVersion {
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
    /// Same major version and minor within two of global's.
    #[serde(skip_serializing_if = "is_default")]
    pub kuma_cp_global_compatible: bool,
}

/// Instances of global that hold the admin streams.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyAdminStreams {
    /// Holder of the configuration dump stream.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config_dump_global_instance_id: String,
    /// Holder of the statistics stream.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stats_global_instance_id: String,
    /// Holder of the clusters stream.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub clusters_global_instance_id: String,
}

/// Time of the last health check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthCheck {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// The five streams.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KdsStreams {
    /// Clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<KdsStream>,
    /// Configuration dumps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_dump: Option<KdsStream>,
    /// Statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<KdsStream>,
    /// Sync down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_to_zone: Option<KdsStream>,
    /// Sync up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_to_global: Option<KdsStream>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KdsStream {
    /// Instance of global that holds it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub global_instance_id: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<Timestamp>,
}

/// What a document of a Zone looks like.
const SPEC: Schema = object(&[field(
    "enabled",
    "Whether the zone's resources are passed on to other zones; absent is yes.",
    boolean(),
)]);

const STATS: Schema = object(&[
    field("responsesSent", "Responses sent to the zone.", uint64()),
    field("responsesAcknowledged", "Responses that the zone took over.", uint64()),
    field("responsesRejected", "Responses that the zone refused.", uint64()),
]);
const STREAM: Schema = object(&[
    field("globalInstanceId", "Instance of global that holds the stream.", text()),
    field("connectTime", "When the stream was opened.", time()),
]);
const SUBSCRIPTION: Schema = object(&[
    field("id", "Unique id of the connection.", text()),
    field("globalInstanceId", "Instance of global that the zone is connected to.", text()),
    field("connectTime", "When the connection began.", time()),
    field("disconnectTime", "When the connection ended; absent while it lasts.", time()),
    field(
        "status",
        "Counters of the connection.",
        object(&[
            field("lastUpdateTime", "When the counters last changed.", time()),
            field("total", "All kinds together.", STATS),
            field("stat", "Counters by kind.", map(&STATS)),
        ]),
    ),
    field(
        "version",
        "Version of the zone control plane.",
        object(&[field(
            "kumaCp",
            "The control plane.",
            object(&[
                field("version", "Version.", text()),
                field("gitTag", "Tag that it was built from.", text()),
                field("gitCommit", "Commit that it was built from.", text()),
                field("buildDate", "When it was built.", text()),
                field("kumaCpGlobalCompatible", "Whether the version fits that of global.", boolean()),
            ]),
        )]),
    ),
    field("generation", "Counts up while the connection is alive.", uint32()),
    field("config", "Configuration of the zone control plane as JSON text, secrets masked.", text()),
    field("authTokenProvided", "Whether the zone sent a token.", boolean()),
    field("zoneInstanceId", "Instance of the zone control plane.", text()),
]);

/// What a document of a ZoneInsight looks like.
const INSIGHT: Schema = object(&[
    field("subscriptions", "Connections, the newest last.", list(&SUBSCRIPTION)),
    field(
        "envoyAdminStreams",
        "Instances of global that hold the streams of the inspection; older form of `kdsStreams`.",
        object(&[
            field("configDumpGlobalInstanceId", "Holder of the stream of configurations.", text()),
            field("statsGlobalInstanceId", "Holder of the stream of statistics.", text()),
            field("clustersGlobalInstanceId", "Holder of the stream of clusters.", text()),
        ]),
    ),
    field("healthCheck", "Last sign of life.", object(&[field("time", "When it came.", time())])),
    field(
        "kdsStreams",
        "Streams of the zone.",
        object(&[
            field("clusters", "Inspection of clusters.", STREAM),
            field("configDump", "Inspection of configurations.", STREAM),
            field("stats", "Inspection of statistics.", STREAM),
            field("globalToZone", "Resources from global.", STREAM),
            field("zoneToGlobal", "Resources to global.", STREAM),
        ]),
    ),
]);
