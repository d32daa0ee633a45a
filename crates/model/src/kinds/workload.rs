//! `Workload`: one per value of the label `kuma.io/workload` (resources.md §9).

use serde::{Deserialize, Serialize};

use super::mesh_service::{DataplaneProxies, PROXIES};
use super::{Described, Validate};
use crate::schema::{Schema, field, object};

/// A workload; everything about it is in its status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Workload {}

/// What a document must look like.
const SPEC: Schema = object(&[]);

impl Validate for Workload {
    const DESCRIPTION: &'static str =
        "Proxies that run the same program; made by the zone from the label `kuma.io/workload`.";
    const SCHEMA: &'static Schema = &SPEC;
}

/// Counters of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Proxies of the workload.
    #[serde(default, serialize_with = "with_zeros")]
    pub dataplane_proxies: DataplaneProxies,
}

/// Unlike those of a MeshService, these counters are written when they are zero, too.
fn with_zeros<S: serde::Serializer>(counters: &DataplaneProxies, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeStruct as _;
    let mut out = serializer.serialize_struct("DataplaneProxies", 3)?;
    out.serialize_field("connected", &counters.connected)?;
    out.serialize_field("healthy", &counters.healthy)?;
    out.serialize_field("total", &counters.total)?;
    out.end()
}

impl Described for WorkloadStatus {
    const SCHEMA: &'static Schema =
        &object(&[field("dataplaneProxies", "Proxies of the workload.", PROXIES)]);
}
