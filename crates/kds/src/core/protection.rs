//! Protection against the mass deletion that an empty or partial peer asks for (federation.md §8, weakness 7).
//!
//! A peer that comes back with little of what it gave has more often lost its disk than changed its mind. What it lacks when
//! a stream begins is held back then: the copies work on, and wait until the peer has the resources again or until an
//! operator decides. What is deleted while both are connected was decided on the other side, and is done at once.

use graticule_model::Kind;

/// How much may be missing when a stream begins (`federation.deletionProtection`).
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DeletionProtection {
    /// A removal is held back from this share on of what is held of the kind, 0 to 1.
    pub share: f64,
    /// … and from this number on; 0 turns the protection off.
    pub number: usize,
}

impl Default for DeletionProtection {
    fn default() -> Self {
        DeletionProtection { share: 0.5, number: 10 }
    }
}

impl DeletionProtection {
    /// Whether the removal of `removed` of `held` copies is held back.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub(super) fn holds(&self, kind: Kind, removed: usize, held: usize) -> bool {
        self.concerns(kind) && removed >= self.number && removed as f64 >= self.share * held as f64
    }

    /// What proxies come and go with is not protected: nobody builds on it but the zone that sends it.
    pub(super) fn concerns(&self, kind: Kind) -> bool {
        self.number > 0
            && !kind.descriptor().capabilities.soft
            && !matches!(kind, Kind::Dataplane | Kind::Workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back() {
        let default = DeletionProtection::default();
        let half = |number| DeletionProtection { share: 0.5, number };
        for (protection, kind, removed, held, want) in [
            (default, Kind::MeshTimeout, 9, 9, false),
            (default, Kind::MeshTimeout, 10, 20, true),
            (default, Kind::MeshTimeout, 10, 21, false),
            (default, Kind::MeshTimeout, 0, 0, false),
            (default, Kind::Dataplane, 1000, 1000, false),
            (default, Kind::DataplaneInsight, 1000, 1000, false),
            (half(1), Kind::MeshService, 1, 1, true),
            (half(0), Kind::MeshService, 1000, 1000, false),
        ] {
            let got = protection.holds(kind, removed, held);
            assert_eq!(got, want, "{protection:?} {kind} {removed} of {held}");
        }
    }
}
