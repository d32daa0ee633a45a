//! A zone with a wrong token comes back again and again, with several calls each time: said once, and again
//! after a while.

use std::collections::VecDeque;
use std::time::Duration;

use crate::net::bucket::Bucket;

/// A refusal that goes on is said again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Refusals that are remembered; the oldest is forgotten first.
const REMEMBERED_MAX: usize = 64;

/// What was refused lately.
#[derive(Debug)]
pub(super) struct Refusals {
    said: VecDeque<(Duration, String, String)>,
    /// Who is refused may call himself differently each time.
    bucket: Bucket,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { said: VecDeque::new(), bucket: Bucket::of_strangers() }
    }
}

impl Refusals {
    /// Whether this refusal has not been said lately, and may be now; it counts as said from then on. Tells how many were
    /// left out before. `now` is monotonic.
    pub(super) fn is_news(&mut self, zone: &str, reason: &str, now: Duration) -> Option<u64> {
        self.said.retain(|(said, _, _)| now.saturating_sub(*said) < REPEAT_AFTER);
        if self.said.iter().any(|(_, z, r)| z == zone && r == reason) {
            return None;
        }
        let unsaid = self.bucket.take(now)?;
        if self.said.len() >= REMEMBERED_MAX {
            self.said.pop_front();
        }
        self.said.push_back((now, zone.into(), reason.into()));
        Some(unsaid)
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
            assert_eq!(got.is_some(), is_news, "{zone} {reason} at {at}");
        }
    }

    /// Before authentication a name costs nothing.
    #[test]
    fn new_names_do_not_flood_the_log() {
        let mut refusals = Refusals::default();
        let mut said = 0;
        for second in 0..100 {
            for zone in 0..100 {
                let news = refusals.is_news(&format!("z{second}-{zone}"), "", Duration::from_secs(second));
                said += usize::from(news.is_some());
            }
        }
        assert_eq!(said, 20 + 99 / 5);
        assert!(refusals.said.len() <= REMEMBERED_MAX);
        let unsaid = refusals.is_news("another", "", Duration::from_secs(1_000));
        assert!(unsaid.is_some_and(|unsaid| unsaid > 100), "{unsaid:?}");
    }
}
