//! Stands in for the crate of this name, which openraft counts with (`[patch.crates-io]` in the workspace). That one
//! computes tables for 16 resolutions when the first value is counted, 26 MB that stay; openraft uses one of them,
//! and we read none of the counts. Here a value is counted by the number of its bits: 65 counters.
//!
//! ```
//! let mut sizes: base2histogram::Histogram = base2histogram::Histogram::new();
//! for size in [1, 2, 3, 100] {
//!     sizes.record(size);
//! }
//! let stats = sizes.percentile_stats();
//! assert_eq!((stats.samples, stats.p50, stats.p99), (4, 2, 64));
//! ```

use std::fmt;
use std::marker::PhantomData;

/// One for each number of bits that a value may need.
const BUCKETS: usize = 65;

/// How often values of each size were seen.
pub struct Histogram<T = ()> {
    /// By number of bits.
    counts: Box<[u64; BUCKETS]>,
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Nothing was seen.
    pub fn new() -> Histogram<T> {
        Histogram { counts: Box::new([0; BUCKETS]), of: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `times` times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bits) {
            *count = count.saturating_add(times);
        }
    }

    /// Percentiles, each rounded down to a power of two.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let at = |permille: u64| self.at(samples.saturating_mul(permille).div_ceil(1000).max(1));
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The smallest value of the bucket with the sample of this rank; 0 when there are none.
    fn at(&self, rank: u64) -> u64 {
        let mut seen = 0_u64;
        for (bits, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return bits.checked_sub(1).map_or(0, |shift| 1 << shift);
            }
        }
        0
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Histogram::new()
    }
}

impl<T> Clone for Histogram<T> {
    fn clone(&self) -> Self {
        Histogram { counts: self.counts.clone(), of: PhantomData }
    }
}

impl<T> PartialEq for Histogram<T> {
    fn eq(&self, other: &Self) -> bool {
        self.counts == other.counts
    }
}

impl<T> Eq for Histogram<T> {}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.percentile_stats(), f)
    }
}

/// Percentiles of a [`Histogram`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Values that were counted.
    pub samples: u64,
    /// 0.1 % are below.
    pub p0_1: u64,
    /// 1 % are below.
    pub p1: u64,
    /// 5 % are below.
    pub p5: u64,
    /// 10 % are below.
    pub p10: u64,
    /// Half are below.
    pub p50: u64,
    /// 90 % are below.
    pub p90: u64,
    /// 99 % are below.
    pub p99: u64,
    /// 99.9 % are below.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PercentileStats { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "{samples} samples, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}")
    }
}

/// Histograms under each other, one line each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    /// No lines.
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// One line more.
    #[must_use]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> AsciiChart {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }

    /// The same: there is nothing more to say.
    pub fn detailed(&self) -> &AsciiChart {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_their_bits() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        for value in [0, 1, 3, 1 << 40, u64::MAX] {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50, stats.p99), (5, 0, 2, 1 << 63));
    }
}
