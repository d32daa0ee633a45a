//! Runs the public conformance data against our programs.
//!
//! The data is not part of the workspace: its directory is an argument. Suites: [`SUITES`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use graticule_testkit::Binaries;

pub mod accepted;
mod api;
pub mod compare;
mod kds;
pub mod report;
mod rest_recordings;
mod two_zones;

pub use report::{CaseReport, SuiteReport};

/// The suites that exist.
pub const SUITES: [&str; 6] = [
    "api",
    "label-validation",
    rest_recordings::NAME,
    rest_recordings::kumactl::NAME,
    kds::NAME,
    two_zones::NAME,
];

/// Whether a suite runs our programs, rather than parts of them in this process.
pub fn needs_programs(suite: &str) -> bool {
    [rest_recordings::NAME, rest_recordings::kumactl::NAME, kds::NAME, two_zones::NAME].contains(&suite)
}

/// A work directory with a short path, of no other call, wherever the checkout lies: the agent shortens the names of
/// its sockets when the path of one would be longer than the system allows, and shortened names are not the recorded
/// ones.
pub fn work_dir() -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("graticule-{}-{call}", std::process::id()))
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data set.
    pub data: PathBuf,
    /// Our programs and Envoy, for the suites that [need](needs_programs) them.
    pub binaries: Option<Binaries>,
    /// Logs and work directories of the processes go here.
    pub work: PathBuf,
    /// Only this suite.
    pub suite: Option<String>,
    /// Only cases whose name contains this.
    pub case: Option<String>,
}

/// Runs the suites; `done` hears of each case as it ends.
///
/// # Errors
/// An unknown suite, missing data, or a program that is not given or does not start. Failed cases are no error.
pub async fn run(options: &Options, done: &mut dyn FnMut(&CaseReport)) -> Result<Vec<SuiteReport>> {
    if let Some(suite) = &options.suite
        && !SUITES.contains(&suite.as_str())
    {
        bail!("unknown suite {suite:?}; there are: {}", SUITES.join(", "));
    }
    let mut reports = Vec::new();
    for suite in SUITES.into_iter().filter(|suite| options.suite.as_deref().is_none_or(|one| one == *suite)) {
        if !needs_programs(suite) {
            reports.push(api::run(suite, options, done).await?);
            continue;
        }
        let binaries =
            options.binaries.as_ref().with_context(|| format!("{suite} needs our programs and Envoy"))?;
        reports.push(match suite {
            rest_recordings::NAME => rest_recordings::run(options, binaries, done).await?,
            rest_recordings::kumactl::NAME => rest_recordings::kumactl::run(options, binaries, done).await?,
            kds::NAME => kds::run(options, binaries, done).await?,
            _ => two_zones::run(options, binaries, done).await?,
        });
    }
    ensure!(
        reports.iter().any(|report| !report.cases.is_empty()),
        "no case has {:?} in its name",
        options.case.as_deref().unwrap_or_default()
    );
    Ok(reports)
}
