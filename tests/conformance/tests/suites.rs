//! Every suite, when the data is there.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use graticule_conformance::Options;
use graticule_testkit::Binaries;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_every_suite_passes() -> Result<()> {
    let Some(data) = std::env::var_os("GRATICULE_CONFORMANCE_DIR").map(PathBuf::from) else {
        println!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
        return Ok(());
    };
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask test`, which builds the programs and finds Envoy");
        return Ok(());
    };
    let work = graticule_conformance::work_dir();
    let options = Options { data, binaries, work: work.clone(), suite: Some("two-zones".into()), case: None };
    let reports = graticule_conformance::run(&options, &mut |case| {
        if let Some(failure) = &case.failure {
            println!("failed {}\n{failure}", case.name);
        }
    })
    .await
    .with_context(|| format!("logs are in {}", work.display()))?;
    for report in &reports {
        assert_eq!(report.failed(), 0, "{}; logs are in {}", report.summary(), work.display());
    }
    std::fs::remove_dir_all(&work)?;
    Ok(())
}
