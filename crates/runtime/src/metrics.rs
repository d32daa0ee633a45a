//! Numbers about a process for Prometheus: what counts while it works, and what is looked up when somebody asks.
//!
//! Names are `graticule_<component>_<what>_<unit>`; those about the process itself are the ones that every client
//! library of Prometheus uses. Labels have few values each: zones, kinds, meshes, outcomes; never
//! proxies or resources.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::version;

mod process;

/// `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper limits of all histograms, in seconds: 0.25 ms to 16 s.
const BUCKETS: (f64, f64, u16) = (0.000_25, 2.0, 17);

/// The numbers of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<RwLock<Registry>>);

/// Something that is looked up when somebody asks: a gauge, or a counter that somebody else counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Its name; without the `_total` of a counter.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// It only grows.
    pub is_counter: bool,
    /// For each set of labels.
    pub values: Vec<(Labels<String>, f64)>,
}

/// Labels of one value.
pub type Labels<V> = Vec<(&'static str, V)>;

/// Counts for each set of labels.
#[derive(Clone, Debug)]
pub struct Counts(Family<Labels<String>, Counter>);

/// Durations for each set of labels.
#[derive(Clone, Debug)]
pub struct Durations(Family<Labels<String>, Histogram>);

impl Measured {
    /// A gauge.
    pub fn gauge(name: &'static str, help: &'static str) -> Measured {
        Measured { name, help, is_counter: false, values: Vec::new() }
    }

    /// A counter.
    pub fn counter(name: &'static str, help: &'static str) -> Measured {
        Measured { is_counter: true, ..Measured::gauge(name, help) }
    }

    /// One value more.
    pub fn with<const N: usize>(mut self, labels: [(&'static str, &str); N], value: f64) -> Measured {
        self.add(labels, value);
        self
    }

    /// One value more.
    pub fn add<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: f64) {
        self.values.push((owned(labels), value));
    }
}

impl Counts {
    /// One more.
    pub fn count<const N: usize>(&self, labels: [(&'static str, &str); N]) {
        self.0.get_or_create(&owned(labels)).inc();
    }
}

impl Durations {
    /// One more.
    pub fn observe<const N: usize>(&self, labels: [(&'static str, &str); N], duration: std::time::Duration) {
        self.0.get_or_create(&owned(labels)).observe(duration.as_secs_f64());
    }
}

fn histogram() -> Histogram {
    let (start, factor, len) = BUCKETS;
    Histogram::new(exponential_buckets(start, factor, len))
}

fn owned<const N: usize>(labels: [(&'static str, &str); N]) -> Labels<String> {
    labels.into_iter().map(|(key, value)| (key, value.to_owned())).collect()
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Those of the process itself: memory, CPU, files, version.
    pub fn new() -> Metrics {
        let metrics = Metrics(Arc::new(RwLock::new(Registry::default())));
        metrics.look_up(|| {
            let build = Measured::gauge("graticule_build_info", "Version of the program; always 1");
            let mut all = process::measured();
            all.push(build.with([("version", version::VERSION), ("kuma", version::KUMA_COMPATIBLE)], 1.0));
            all
        });
        metrics
    }

    /// Counts of events; the name is without `_total`.
    pub fn counts(&self, name: &'static str, help: &'static str) -> Counts {
        let family = Family::default();
        self.0.write().register(name, help, family.clone());
        Counts(family)
    }

    /// How long something takes; the name ends with `_seconds`.
    pub fn durations(&self, name: &'static str, help: &'static str) -> Durations {
        let family = Family::new_with_constructor(histogram as fn() -> Histogram);
        self.0.write().register(name, help, family.clone());
        Durations(family)
    }

    /// Asks `source` whenever somebody asks for the numbers. It must not block for long.
    pub fn look_up(&self, source: impl Fn() -> Vec<Measured> + Send + Sync + 'static) {
        self.0.write().register_collector(Box::new(Source(Box::new(source))));
    }

    /// All of them in the text form of OpenMetrics, see [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// A name or label that has no text form.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.read())?;
        Ok(text)
    }
}

struct Source(Box<dyn Fn() -> Vec<Measured> + Send + Sync>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Measured { name, help, is_counter, values } in (self.0)() {
            let kind = if is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            match values.as_slice() {
                // Without labels there are no braces either.
                [(labels, value)] if labels.is_empty() => encode(is_counter, *value, family)?,
                values => {
                    for (labels, value) in values {
                        encode(is_counter, *value, family.encode_family(labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode(is_counter: bool, value: f64, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    if is_counter { ConstCounter::new(value).encode(encoder) } else { ConstGauge::new(value).encode(encoder) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
        text.lines().filter(|line| line.starts_with(prefix)).collect()
    }

    #[test]
    fn all_forms() {
        let metrics = Metrics::new();
        let writes = metrics.durations("graticule_test_write_seconds", "Writes");
        let refusals = metrics.counts("graticule_test_refusals", "Refusals");
        writes.observe([("outcome", "done")], Duration::from_millis(3));
        writes.observe([("outcome", "done")], Duration::from_secs(60));
        refusals.count([("reason", "a \"b\"\nc")]);
        refusals.count([("reason", "a \"b\"\nc")]);
        metrics.look_up(|| {
            let zones = Measured::gauge("graticule_test_zones", "Zones");
            vec![zones.with([("zone", "east")], 1.0).with([("zone", "west")], 0.0)]
        });
        let text = metrics.text().expect("text");
        for line in [
            "# TYPE graticule_test_write_seconds histogram",
            "graticule_test_write_seconds_count{outcome=\"done\"} 2",
            "graticule_test_write_seconds_bucket{le=\"0.002\",outcome=\"done\"} 0",
            "graticule_test_write_seconds_bucket{le=\"0.004\",outcome=\"done\"} 1",
            "graticule_test_write_seconds_bucket{le=\"+Inf\",outcome=\"done\"} 2",
            "graticule_test_refusals_total{reason=\"a \\\"b\\\"\\nc\"} 2",
            "graticule_test_zones{zone=\"east\"} 1.0",
            "graticule_test_zones{zone=\"west\"} 0.0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn about_this_process() {
        let text = Metrics::new().text().expect("text");
        let value = |name: &str| {
            let line = lines(&text, &format!("{name} ")).first().copied().unwrap_or_default().to_owned();
            line.rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok())
                .unwrap_or_else(|| panic!("{name}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0, "{text}");
        assert!(value("process_open_fds") >= 3.0, "{text}");
        assert!(value("process_max_fds") >= value("process_open_fds"), "{text}");
        assert!(value("process_start_time_seconds") > 1.7e9, "{text}");
        let version = format!("graticule_build_info{{version=\"{}\"", version::VERSION);
        assert_eq!(lines(&text, &version).len(), 1, "{text}");
    }
}
