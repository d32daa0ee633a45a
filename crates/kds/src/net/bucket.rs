//! How much the log says about somebody who may say as much as he likes.

use std::time::Duration;

/// A token bucket. Times are monotonic.
#[derive(Debug)]
pub(super) struct Bucket {
    left: u32,
    max: u32,
    every: Duration,
    /// Since when the next one is counted.
    filled: Duration,
    /// What was left out since something was said.
    unsaid: u64,
}

impl Bucket {
    /// At most `max` at once, and one more after each `every`.
    pub(super) fn new(max: u32, every: Duration) -> Bucket {
        Bucket { left: max, max, every, filled: Duration::ZERO, unsaid: 0 }
    }

    /// What is said about one zone: 10 lines at once, and one every 10 s.
    pub(super) fn of_zone() -> Bucket {
        Bucket::new(10, Duration::from_secs(10))
    }

    /// What is said about all who did not prove who they are: 20 lines at once, and one every 5 s.
    pub(super) fn of_strangers() -> Bucket {
        Bucket::new(20, Duration::from_secs(5))
    }

    /// Takes one; tells how much was left out before. `None`: this is left out as well.
    pub(super) fn take(&mut self, now: Duration) -> Option<u64> {
        let passed = now.saturating_sub(self.filled).as_nanos() / self.every.as_nanos().max(1);
        if passed > 0 {
            self.left = self.left.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX)).min(self.max);
            self.filled = now;
        }
        if self.left == 0 {
            self.unsaid += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// What the log says about lines that it left out.
pub(super) fn and_more(unsaid: u64) -> String {
    if unsaid == 0 { String::new() } else { format!("; and {unsaid} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_after_another() {
        let at = Duration::from_millis;
        let mut bucket = Bucket::new(2, Duration::from_secs(1));
        for (now, want) in [
            (0, Some(0)),
            (0, Some(0)),
            (1, None),
            (999, None),
            (1_000, Some(2)),
            (1_500, None),
            (2_000, Some(1)),
            (60_000, Some(0)),
            (60_000, Some(0)),
            (60_000, None),
        ] {
            assert_eq!(bucket.take(at(now)), want, "{now}");
        }
    }
}
