//! Runs the public conformance data against our programs.
//!
//! The data is not part of the workspace: its directory is an argument. Suites: [`SUITES`].

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use graticule_testkit::Binaries;

pub mod accepted;
pub mod compare;
pub mod report;
mod rest_recordings;
mod two_zones;

pub use report::{CaseReport, SuiteReport};

/// The suites that exist.
pub const SUITES: [&str; 2] = ["rest-recordings", "two-zones"];

/// A new work directory with a short path, wherever the checkout lies: the agent shortens the names of its sockets
/// when the path of one would be longer than the system allows, and shortened names are not the recorded ones.
pub fn work_dir() -> PathBuf {
    std::env::temp_dir().join(format!("graticule-{}", std::process::id()))
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data set.
    pub data: PathBuf,
    /// Our programs and Envoy.
    pub binaries: Binaries,
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
/// An unknown suite, missing data, or a program that does not start. Failed cases are no error.
pub async fn run(options: &Options, done: &mut dyn FnMut(&CaseReport)) -> Result<Vec<SuiteReport>> {
    if let Some(suite) = &options.suite
        && !SUITES.contains(&suite.as_str())
    {
        bail!("unknown suite {suite:?}; there are: {}", SUITES.join(", "));
    }
    let wanted = |name: &str| options.suite.as_ref().is_none_or(|suite| suite == name);
    let mut reports = Vec::new();
    if wanted(rest_recordings::NAME) {
        reports.push(rest_recordings::run(options, done).await?);
    }
    if wanted(two_zones::NAME) {
        reports.push(two_zones::run(options, done).await?);
    }
    ensure!(
        reports.iter().any(|report| !report.cases.is_empty()),
        "no case has {:?} in its name",
        options.case.as_deref().unwrap_or_default()
    );
    Ok(reports)
}
