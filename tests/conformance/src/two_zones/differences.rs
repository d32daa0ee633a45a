//! The accepted differences of the suite.

use crate::accepted::{Accepted, Ours};

/// Every one is also in `docs/deviations.md`, or is a property of the run and not of a product.
pub(super) static ACCEPTED: &[Accepted] = &[
    Accepted {
        case: "by-hand/*",
        path: "*/inlineBytes",
        ours: Ours::Deduplicated,
        reason: "equal CA certificates of one trust domain are in the bundle once",
    },
];
