//! Protection against the mass deletion that an empty or partial peer asks for (federation.md §8, weakness 7).
//!
//! A peer that takes away much of what it gave, all at once, has more often lost its disk than changed its mind. Such a
//! removal is held back: the copies work on, and wait until the peer has the resources again or until an operator decides.

use std::collections::VecDeque;
use std::time::Duration;

use graticule_model::Kind;

/// Removals within this time count as one.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Removals that are remembered, per kind.
const REMEMBERED_MAX: usize = 64;

/// How much may go at once.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// What was removed of one kind in the last moments.
#[derive(Debug, Default, Clone)]
pub(super) struct Removals(VecDeque<(Duration, usize)>);

impl Removals {
    pub(super) fn note(&mut self, number: usize, now: Duration) {
        if number > 0 {
            self.0.retain(|(at, _)| now.saturating_sub(*at) < AT_ONCE);
            if self.0.len() == REMEMBERED_MAX {
                // The sum stays right, only its time gets older.
                let oldest = self.0.pop_front().map_or(0, |(_, number)| number);
                if let Some(next) = self.0.front_mut() {
                    next.1 += oldest;
                }
            }
            self.0.push_back((now, number));
        }
    }

    fn lately(&self, now: Duration) -> usize {
        self.0.iter().filter(|(at, _)| now.saturating_sub(*at) < AT_ONCE).map(|(_, number)| number).sum()
    }
}

impl DeletionProtection {
    /// Whether the removal of `removed` of `held` copies is held back.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub(super) fn holds(
        &self,
        kind: Kind,
        removed: usize,
        held: usize,
        past: &Removals,
        now: Duration,
    ) -> bool {
        let lately = past.lately(now);
        let (removed, held) = (removed + lately, held + lately);
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
            let got = protection.holds(kind, removed, held, &Removals::default(), Duration::ZERO);
            assert_eq!(got, want, "{protection:?} {kind} {removed} of {held}");
        }
    }

    /// Many small steps in a moment are one large one; over time they are not.
    #[test]
    fn steps_add_up() {
        let protection = DeletionProtection::default();
        for (pause, want) in [(Duration::from_millis(100), Some(3)), (Duration::from_secs(11), None)] {
            let (mut past, mut held, mut now) = (Removals::default(), 30, Duration::ZERO);
            let mut stopped = None;
            for step in 0..6 {
                if protection.holds(Kind::MeshTimeout, 4, held, &past, now) {
                    stopped = Some(step);
                    break;
                }
                past.note(4, now);
                held -= 4;
                now += pause;
            }
            assert_eq!(stopped, want, "{pause:?}");
        }
        let mut past = Removals::default();
        for _ in 0..10 * REMEMBERED_MAX {
            past.note(1, Duration::ZERO);
        }
        assert_eq!((past.0.len(), past.lately(Duration::ZERO)), (REMEMBERED_MAX, 10 * REMEMBERED_MAX));
    }
}
