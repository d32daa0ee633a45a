//! The scenario of the demo, as a test.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use anyhow::{Context as _, Result};
use graticule_testkit::scenario::{self, Ending, Progress};
use graticule_testkit::{Binaries, Federation};

struct Log;

impl Progress for Log {
    fn step(&mut self, title: &str) {
        println!("{title}");
    }

    fn proved(&mut self, text: &str) {
        println!("  {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_crosses_two_zones_and_keeps_doing_so() -> Result<()> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(());
    };
    let dir = binaries.dir.join(format!("../e2e/first-light-{}", std::process::id()));
    let mut federation = Federation::start(binaries, &dir).await?;
    let report = scenario::run(&mut federation, &mut Log, Ending::KillGlobal)
        .await
        .with_context(|| format!("logs are in {}", dir.display()))?;
    for figure in &report.figures {
        println!("{:>9.1} {:<3} {}", figure.value, figure.unit, figure.name);
    }
    assert!(report.figures.len() >= 15, "figures are missing: {:?}", report.figures);
    drop(federation);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
