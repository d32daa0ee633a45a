//! Two proxies under one name replace each other's streams for ever; the second of them is made to wait, longer
//! each time (xds.md §1.5).

use std::time::Duration;

/// Replacements of a live stream that are free within [`WINDOW`]: an agent restart, a flapping network.
const FREE: u32 = 3;
/// Replacements that are further apart than this do not add up.
const WINDOW: Duration = Duration::from_secs(30);
/// First wait; doubles with each further replacement.
const BASE: Duration = Duration::from_secs(1);
/// Longest wait.
const MAX: Duration = Duration::from_secs(15);

/// Replacements of the streams of one proxy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Contention {
    last: Duration,
    count: u32,
}

impl Contention {
    /// A stream wants to replace a live one. Returns how long it has to wait before it may.
    pub fn on_replace(&mut self, now: Duration) -> Duration {
        let is_over = now.saturating_sub(self.last) > WINDOW;
        self.count = if is_over { 1 } else { self.count.saturating_add(1) };
        self.last = now;
        match self.count.saturating_sub(FREE) {
            0 => Duration::ZERO,
            over => BASE.saturating_mul(1 << (over - 1).min(16)).min(MAX),
        }
    }

    /// Replacements in a row.
    pub fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slows_down_a_fight_and_forgets_it() {
        let mut contention = Contention::default();
        let mut now = Duration::from_secs(100);
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                let wait = contention.on_replace(now);
                now += wait + Duration::from_secs(1);
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 15, 15]);
        assert_eq!(contention.on_replace(now + WINDOW), Duration::ZERO);
    }
}
