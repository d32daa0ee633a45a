//! Every suite, when the data is there.

#![expect(clippy::print_stdout, reason = "what failed, and what was not tried, is for people to read")]

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use graticule_conformance::{Options, SUITES, needs_programs};
use graticule_testkit::Binaries;

fn data() -> Option<PathBuf> {
    let data = std::env::var_os("GRATICULE_CONFORMANCE_DIR").map(PathBuf::from);
    if data.is_none() {
        println!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
    }
    data
}

/// Runs one suite; fails when a case does.
async fn check(suite: &str, data: PathBuf, binaries: Option<Binaries>) -> Result<()> {
    let work = graticule_conformance::work_dir();
    let has_processes = binaries.is_some();
    let options = Options { data, binaries, work: work.clone(), suite: Some(suite.to_owned()), case: None };
    let reports = graticule_conformance::run(&options, &mut |case| {
        if let Some(failure) = &case.failure {
            println!("failed {}\n{failure}", case.name);
        }
    })
    .await
    .with_context(|| format!("logs are in {}", work.display()))?;
    for report in &reports {
        print!("{}", report.deferred());
        println!("{}", report.summary());
        ensure!(report.failed() == 0, "{}; logs are in {}", report.summary(), work.display());
        ensure!(report.passed() > 0, "{}", report.summary());
    }
    if has_processes && work.is_dir() {
        std::fs::remove_dir_all(&work)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_every_suite_in_this_process_passes() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    for suite in SUITES.into_iter().filter(|suite| !needs_programs(suite)) {
        check(suite, data.clone(), None).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_every_suite_with_programs_passes() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask test`, which builds the programs and finds Envoy");
        return Ok(());
    };
    for suite in SUITES.into_iter().filter(|suite| needs_programs(suite)) {
        check(suite, data.clone(), Some(binaries.clone())).await?;
    }
    Ok(())
}
