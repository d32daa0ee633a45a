//! `MeshInsight`: counters of one mesh (resources.md §7.5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Validate, is_default};
use crate::schema::{Schema, field, map, object, uint32};

/// Counters of the mesh that has the same name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshInsight {
    /// All proxies.
    pub dataplanes: DataplaneStat,
    /// Proxies by version.
    pub dp_versions: DpVersions,
    /// Proxies by identity.
    #[serde(rename = "mTLS")]
    pub mtls: MTls,
    /// Proxies by what they are.
    pub dataplanes_by_type: DataplanesByType,
    /// Resources by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, ResourceStat>,
}

/// Counters of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataplaneStat {
    /// All.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u32,
    /// Connected, everything ready.
    #[serde(skip_serializing_if = "is_default")]
    pub online: u32,
    /// Not connected, or nothing ready.
    #[serde(skip_serializing_if = "is_default")]
    pub offline: u32,
    /// Connected, not everything ready.
    #[serde(alias = "partially_degraded", skip_serializing_if = "is_default")]
    pub partially_degraded: u32,
}

/// Proxies by version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DpVersions {
    /// Of the agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kuma_dp: BTreeMap<String, DataplaneStat>,
    /// Of Envoy.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub envoy: BTreeMap<String, DataplaneStat>,
}

/// Proxies by identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MTls {
    /// By the KRI of the MeshIdentity that their certificate is from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub issued_backends: BTreeMap<String, DataplaneStat>,
    /// By the KRIs of the MeshTrusts that they accept.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub supported_backends: BTreeMap<String, DataplaneStat>,
}

/// Proxies by what they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataplanesByType {
    /// Beside a workload.
    pub standard: DataplaneStat,
    /// Gateways of all sorts.
    pub gateway: DataplaneStat,
    /// Delegated gateways.
    pub gateway_delegated: DataplaneStat,
}

/// Counter of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceStat {
    /// How many.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u32,
}

impl Validate for MeshInsight {
    const DESCRIPTION: &'static str = "Counters of the mesh of the same name.";
    const SCHEMA: &'static Schema = &SPEC;
}

const STAT: Schema = object(&[
    field("total", "All.", uint32()),
    field("online", "Connected, everything ready.", uint32()),
    field("offline", "Not connected, or nothing ready.", uint32()),
    field("partiallyDegraded", "Connected, not everything ready.", uint32()),
]);
const STATS: Schema = map(&STAT);
const COUNT: Schema = object(&[field("total", "How many.", uint32())]);

/// What a document looks like.
const SPEC: Schema = object(&[
    field("dataplanes", "All proxies.", STAT),
    field(
        "dpVersions",
        "Proxies by version.",
        object(&[
            field("kumaDp", "By version of the agent.", STATS),
            field("envoy", "By version of Envoy.", STATS),
        ]),
    ),
    field(
        "mTLS",
        "Proxies by identity.",
        object(&[
            field("issuedBackends", "By the identity that their certificate is from.", STATS),
            field("supportedBackends", "By the trusts that they accept.", STATS),
        ]),
    ),
    field(
        "dataplanesByType",
        "Proxies by what they are.",
        object(&[
            field("standard", "Beside a workload.", STAT),
            field("gateway", "Gateways of all sorts.", STAT),
            field("gatewayDelegated", "Delegated gateways.", STAT),
        ]),
    ),
    field("resources", "Resources by kind.", map(&COUNT)),
]);
