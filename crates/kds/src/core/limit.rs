//! How much one zone may store at global.

use graticule_model::Kind;
use serde::Serialize;

/// The limits (`federation.zoneLimit`); 0: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ZoneLimit {
    /// Resources of all kinds, with those that say how proxies do.
    pub resources: usize,
    /// Bytes of them, as they travel.
    pub bytes: usize,
}

impl Default for ZoneLimit {
    fn default() -> Self {
        ZoneLimit { resources: 100_000, bytes: 256 << 20 }
    }
}

impl ZoneLimit {
    /// No limit.
    pub const NONE: ZoneLimit = ZoneLimit { resources: 0, bytes: 0 };

    /// Why a resource is not taken: one that is new, or one that grows, by so many bytes. What is there may grow a little
    /// beyond the limit: up to twice of it.
    pub(super) fn refuses(&self, used: Used, is_new: bool, growth: usize) -> Option<String> {
        let is_over = |limit: usize, needed: usize| limit > 0 && needed > limit;
        let bytes_max = if is_new { self.bytes } else { self.bytes.saturating_mul(2) };
        if is_new && is_over(self.resources, used.resources + 1) {
            return Some(format!(
                "the zone has as many resources at global as it may: {} (federation.zoneLimit.resources)",
                self.resources
            ));
        }
        (growth > 0 && is_over(bytes_max, used.bytes + growth)).then(|| {
            format!(
                "the zone's resources take {} bytes at global, this one {growth} more, and may take {} \
                 (federation.zoneLimit.bytes)",
                used.bytes, self.bytes
            )
        })
    }
}

/// What resources take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) resources: usize,
    pub(super) bytes: usize,
}

impl Used {
    /// With this change.
    pub(super) fn changed(self, change: Change) -> Used {
        Used {
            resources: self.resources.saturating_add_signed(change.resources),
            bytes: self.bytes.saturating_add_signed(change.bytes),
        }
    }
}

/// How what a zone takes changes with one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) resources: isize,
    pub(super) bytes: isize,
}

impl Change {
    /// What takes it back.
    pub(super) fn undone(self) -> Change {
        Change { resources: -self.resources, bytes: self.bytes.saturating_neg() }
    }

    /// A resource of `before` bytes has `after` bytes; absent: there is none.
    pub(super) fn of(before: Option<usize>, after: Option<usize>) -> Change {
        let signed = |len: Option<usize>| isize::try_from(len.unwrap_or_default()).unwrap_or(isize::MAX);
        Change {
            resources: isize::from(after.is_some()) - isize::from(before.is_some()),
            bytes: signed(after) - signed(before),
        }
    }
}

/// How much a zone stores at global, and how much it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Resources of all kinds.
    pub resources: usize,
    /// Most resources; 0: any number.
    pub resources_max: usize,
    /// Their bytes, as they travel.
    pub bytes: usize,
    /// Most bytes; 0: any number.
    pub bytes_max: usize,
}

/// Sums of all kinds.
pub(super) fn total<'a>(kinds: impl Iterator<Item = (&'a Kind, Used)>) -> Used {
    kinds.fold(Used::default(), |sum, (_, used)| Used {
        resources: sum.resources + used.resources,
        bytes: sum.bytes + used.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limit = ZoneLimit { resources: 10, bytes: 1_000 };
        for (resources, bytes, is_new, growth, wanted) in [
            (9, 0, true, 100, ""),
            (10, 0, true, 100, "zoneLimit.resources"),
            (9, 950, true, 50, ""),
            (9, 950, true, 51, "zoneLimit.bytes"),
            // What is there is changed all the same, within reason.
            (20, 950, false, 51, ""),
            (20, 5_000, false, 0, ""),
            (20, 1_990, false, 11, "zoneLimit.bytes"),
        ] {
            let said = limit.refuses(Used { resources, bytes }, is_new, growth).unwrap_or_default();
            assert_eq!((said.is_empty(), said.contains(wanted)), (wanted.is_empty(), true), "{said}");
        }
        let much = Used { resources: 1 << 30, bytes: 1 << 40 };
        assert_eq!(ZoneLimit::NONE.refuses(much, true, 1 << 30), None);
    }

    #[test]
    fn changes_add_up() {
        let mut used = Used::default();
        for (before, after, wanted) in [
            (None, Some(10), (1, 10)),
            (None, Some(20), (2, 30)),
            (Some(10), Some(15), (2, 35)),
            (Some(20), None, (1, 15)),
            (Some(15), None, (0, 0)),
            // Something else changed it: never below nothing.
            (Some(15), None, (0, 0)),
        ] {
            used = used.changed(Change::of(before, after));
            assert_eq!((used.resources, used.bytes), wanted);
        }
    }
}
