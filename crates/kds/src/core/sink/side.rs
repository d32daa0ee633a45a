//! Who receives, and what is the peer's of what is stored here.

use graticule_model::{Resource, Status};

use crate::wire::{Encoded, Version};

/// Who receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A zone, from global.
    Zone,
    /// Global, from this zone.
    Global {
        /// The authenticated sender.
        zone: String,
    },
}

impl Side {
    /// Whether a stored resource is a copy that this peer controls (federation.md §5.1, step 3).
    pub(super) fn owns(&self, stored: &Resource) -> bool {
        match self {
            Side::Global { zone } => !stored.meta.is_local_to_global() && stored.meta.zone() == Some(zone),
            Side::Zone => {
                !stored.kind().descriptor().kds.provided_by_zone() || !stored.meta.is_local_to_zone()
            }
        }
    }

    /// Version of a copy in the form in which the peer sends it.
    pub(super) fn own_version(&self, copy: &Resource) -> Option<Version> {
        self.own(copy).map(|(version, _)| version)
    }

    /// Version and bytes of a copy in that form.
    pub(super) fn own(&self, copy: &Resource) -> Option<(Version, usize)> {
        let encoded = match self {
            Side::Global { .. } => Encoded::of(copy),
            Side::Zone => Encoded::of(&Resource { status: Status::empty(copy.kind()), ..copy.clone() }),
        };
        encoded.ok().map(|encoded| (encoded.version.clone(), encoded.len_max()))
    }
}
