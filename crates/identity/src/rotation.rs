//! When a certificate is due for replacement (xds.md §4.3).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Share of the lifetime after which a certificate is replaced at the latest.
const LATEST: f64 = 0.8;
/// Share of the lifetime over which replacements spread, before [`LATEST`].
const SPREAD: f64 = 0.05;

/// The moment of replacement: 4/5 of the lifetime, earlier by up to a twentieth of the lifetime with
/// `jitter` (`0.0..1.0`), so that proxies that started together do not all come at once.
pub fn at(generated: Timestamp, not_after: Timestamp, jitter: f64) -> Timestamp {
    let lifetime = Duration::try_from(not_after.duration_since(generated)).unwrap_or(Duration::ZERO);
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
    let age = lifetime.mul_f64(LATEST - SPREAD * jitter);
    SignedDuration::try_from(age).ok().and_then(|age| generated.checked_add(age).ok()).unwrap_or(not_after)
}

/// Whether a certificate is due at `now`; see [`at`].
pub fn due(generated: Timestamp, not_after: Timestamp, now: Timestamp, jitter: f64) -> bool {
    now >= at(generated, not_after, jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths() {
        let time = |second| Timestamp::from_second(second).expect("in range");
        let is_due = |now, jitter| due(time(1_000), time(2_000), time(now), jitter);
        for (now, jitter, expect) in [
            (1_799, 0.0, false),
            (1_800, 0.0, true),
            (1_749, 1.0, false),
            (1_751, 1.0, true),
            (900, 1.0, false),
            (3_000, f64::NAN, true),
        ] {
            assert_eq!(is_due(now, jitter), expect, "{now} {jitter}");
        }
        assert!(due(time(2_000), time(1_000), time(2_001), 0.0), "a certificate that never was valid is due");
    }
}
