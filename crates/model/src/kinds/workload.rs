//! `Workload`: one per value of the label `kuma.io/workload` (resources.md §9).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::mesh_service::DataplaneProxies;

/// A workload; everything about it is in its status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Workload {}

impl Validate for Workload {}

/// Counters of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Proxies of the workload.
    #[serde(default)]
    pub dataplane_proxies: DataplaneProxies,
}
