//! Latencies and rates.

use std::time::Duration;

use serde::Serialize;

/// What many calls of one kind took.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Calls that were made.
    pub calls: usize,
    /// Calls in a second.
    pub per_second: f64,
    /// Half of the calls took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 calls took no longer, in milliseconds.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

impl Figures {
    /// Of calls that took `latencies`, all within `elapsed`.
    pub fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Figures {
        latencies.sort_unstable();
        let milliseconds = |rank: usize| {
            let latency = latencies.get(rank.min(latencies.len().saturating_sub(1))).copied();
            rounded(latency.unwrap_or_default().as_secs_f64() * 1_000.0)
        };
        let len = latencies.len();
        Figures {
            calls: len,
            per_second: rounded(len as f64 / elapsed.as_secs_f64().max(1e-9)),
            p50_ms: milliseconds(len / 2),
            p99_ms: milliseconds(len * 99 / 100),
            max_ms: milliseconds(len.saturating_sub(1)),
        }
    }
}

/// Three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let latencies: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let figures = Figures::new(latencies, Duration::from_secs(2));
        assert_eq!((figures.calls, figures.per_second), (100, 50.0));
        assert_eq!((figures.p50_ms, figures.p99_ms, figures.max_ms), (51.0, 100.0, 100.0));
        assert_eq!(Figures::new(Vec::new(), Duration::from_secs(1)).max_ms, 0.0);
    }
}
