//! The accepted differences of the suite.

use crate::accepted::{Accepted, Ours};

const YAML: &str = "YAML is taken and given (deviations: REST)";

/// Every one is in `docs/deviations.md`.
pub(super) static ACCEPTED: &[Accepted] = &[
    differs("04-mesh-global#3* PUT /meshes/m4", "/status", Ours::Is("201"), YAML),
    differs("01-index-*#51 GET /meshes", "/status", Ours::Is("200"), YAML),
];

const fn differs(case: &'static str, path: &'static str, ours: Ours, reason: &'static str) -> Accepted {
    Accepted { case, path, ours, reason }
}
