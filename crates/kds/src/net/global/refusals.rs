//! A zone with a wrong token comes back again and again, with several calls each time: said once, and again
//! after a while.

use std::collections::VecDeque;
use std::time::Duration;

/// A refusal that goes on is said again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Refusals that are remembered; the oldest is forgotten first.
const REMEMBERED_MAX: usize = 64;

/// What was refused lately.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<(Duration, String, String)>);

impl Refusals {
    /// Whether this refusal has not been said lately; it counts as said from now on. `now` is monotonic.
    pub(super) fn is_news(&mut self, zone: &str, reason: &str, now: Duration) -> bool {
        self.0.retain(|(said, _, _)| now.saturating_sub(*said) < REPEAT_AFTER);
        if self.0.iter().any(|(_, z, r)| z == zone && r == reason) {
            return false;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, zone.into(), reason.into()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_a_minute() {
        let mut refusals = Refusals::default();
        for (zone, reason, at, is_news) in [
            ("east", "expired", 0, true),
            ("east", "expired", 1, false),
            ("west", "expired", 1, true),
            ("east", "other zone", 2, true),
            ("east", "expired", 59, false),
            ("east", "expired", 60, true),
        ] {
            let got = refusals.is_news(zone, reason, Duration::from_secs(at));
            assert_eq!(got, is_news, "{zone} {reason} at {at}");
        }
        for zone in 0..10 * REMEMBERED_MAX {
            refusals.is_news(&zone.to_string(), "", Duration::from_secs(61));
        }
        assert!(refusals.0.len() <= REMEMBERED_MAX);
    }
}
