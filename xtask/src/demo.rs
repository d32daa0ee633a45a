//! `cargo xtask demo`.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use graticule_testkit::scenario::{self, Ending, Figure, Progress};
use graticule_testkit::{Binaries, Federation};
use tokio::signal::unix::{SignalKind, signal};

use crate::{cargo, tools};

/// Builds, starts everything, shows it; `once` ends afterwards, else everything stays up until Ctrl-C.
pub(crate) fn run(once: bool, dir: Option<PathBuf>) -> Result<()> {
    // Somebody may have built them already.
    let binaries = match Binaries::from_env() {
        Some(binaries) => binaries,
        None => {
            println!("building the programs (the first time takes some minutes)");
            Binaries { envoy: tools::envoy()?, dir: cargo::build_programs()?, root: cargo::root() }
        }
    };
    let dir = dir.unwrap_or_else(|| cargo::target_dir().join("demo").join(std::process::id().to_string()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    println!("logs and work directories: {}", dir.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Interrupted or not, what was started ends with the federation.
        let mut terminate = signal(SignalKind::terminate())?;
        let outcome = tokio::select! {
            outcome = show(binaries, &dir, once) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow!("terminated")),
        };
        outcome.with_context(|| format!("logs are in {}", dir.display()))
    })
}

async fn show(binaries: Binaries, dir: &std::path::Path, once: bool) -> Result<()> {
    let mut federation = Federation::start(binaries, dir).await.context("step: global starts")?;
    let ending = if once { Ending::KillGlobal } else { Ending::StayUp };
    let report = scenario::run(&mut federation, &mut Terminal::default(), ending).await?;
    println!("\nFigures");
    for Figure { name, value, unit } in &report.figures {
        println!("  {value:>9.1} {unit:<3} {name}");
    }
    if once {
        println!("\nEverything was shown.");
        return Ok(());
    }
    println!("\nEverything stays up until Ctrl-C:");
    println!("  global API   {}", federation.global.api);
    for (name, zone) in &federation.zones {
        println!("  zone {name:<7} {}", zone.api);
    }
    println!("  the mesh     curl {}", federation.proxy("client-1")?.outbound_url("/hello"));
    std::future::pending().await
}

/// Progress on a terminal.
#[derive(Default)]
struct Terminal {
    number: u32,
}

impl Progress for Terminal {
    fn step(&mut self, title: &str) {
        self.number += 1;
        println!("\n{}. {title}", self.number);
    }

    fn proved(&mut self, text: &str) {
        println!("   ✓ {text}");
    }
}
