//! `cargo xtask conformance`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use graticule_conformance::{CaseReport, Options, SUITES, needs_programs};
use graticule_testkit::Binaries;

use crate::{cargo, tools};

/// Builds the programs and runs the data set at `dir` against them; fails when a case does.
pub(crate) fn run(dir: PathBuf, suite: Option<String>, case: Option<String>, show: bool) -> Result<()> {
    ensure!(dir.is_dir(), "{} is no directory", dir.display());
    if let Some(suite) = &suite {
        ensure!(
            SUITES.contains(&suite.as_str()),
            "unknown suite {suite:?}; there are: {}",
            SUITES.join(", ")
        );
    }
    let binaries = if suite.as_deref().is_none_or(needs_programs) {
        // Somebody may have built them already.
        Some(match Binaries::from_env() {
            Some(binaries) => binaries,
            None => Binaries {
                envoy: tools::envoy()?,
                dir: cargo::build_tested_programs(&[])?,
                root: cargo::root(),
            },
        })
    } else {
        None
    };
    let work = graticule_conformance::work_dir();
    let options = Options { data: dir, binaries, work: work.clone(), suite, case };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let reports = runtime
        .block_on(graticule_conformance::run(&options, &mut |case| print(case, show)))
        .with_context(|| format!("logs are in {}", work.display()))?;
    for report in &reports {
        print!("{}", report.deferred());
        println!("{}", report.summary());
    }
    if reports.iter().any(|report| report.failed() > 0) {
        let logs = if work.is_dir() { format!("; logs are in {}", work.display()) } else { String::new() };
        bail!("cases failed{logs}");
    }
    if work.is_dir() {
        std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    Ok(())
}

fn print(case: &CaseReport, show: bool) {
    match &case.failure {
        Some(failure) => println!("failed {}\n{}", case.name, failure.trim_end()),
        None if show => match &case.deferred {
            Some(endpoint) => println!("needs the policy engine {} ({endpoint})", case.name),
            None => println!("passed {}", case.name),
        },
        None => {}
    }
    for (difference, entry) in case.accepted.iter().filter(|_| show) {
        println!("    accepted: {difference}\n              because {}", entry.reason);
    }
}
