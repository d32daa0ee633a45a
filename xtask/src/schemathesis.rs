//! `cargo xtask schemathesis`: requests that are generated from the OpenAPI document, against real control planes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use graticule_testkit::{Binaries, Federation};
use tokio::signal::unix::{SignalKind, signal};

use crate::cargo;

/// Pinned, so that runs can be compared.
const VERSION: &str = "4.32.5";

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// 501 is the documented answer of what waits for the policy engine; every other 5xx is a failure.
const CONFIGURATION: &str =
    "[checks.not_a_server_error]\nexpected-statuses = [\"2xx\", \"3xx\", \"4xx\", \"501\"]\n";

/// Starts a global and a zone control plane with memory stores and runs schemathesis against both, as the
/// administrator of this machine. Fails on a 5xx other than a documented 501, and on every undocumented answer.
pub(crate) fn run(examples: u32, seed: u64) -> Result<()> {
    let program = install()?;
    let bin_dir = programs()?;
    let dir = cargo::target_dir().join("schemathesis").join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    std::fs::write(dir.join("schemathesis.toml"), CONFIGURATION)?;
    println!("logs and reports: {}", dir.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Interrupted or not, what was started ends with the federation.
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            outcome = both(&program, bin_dir, &dir, examples, seed) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow!("terminated")),
        }
    })
}

/// One after the other: global, then a zone of it.
async fn both(program: &Path, bin_dir: PathBuf, dir: &Path, examples: u32, seed: u64) -> Result<()> {
    // No Envoy is started.
    let binaries = Binaries { dir: bin_dir, envoy: PathBuf::new(), root: cargo::root() };
    let mut federation = Federation::start(binaries, dir).await?;
    federation.start_zone("east").await?;
    federation.wait_zone_joined("east").await?;
    let mut failed = Vec::new();
    for name in ["global", "east"] {
        let api = federation.control_plane(name)?.api.clone();
        println!("\n=== {name}: {api} ===");
        let mut command = tokio::process::Command::new(program);
        command
            .kill_on_drop(true)
            .current_dir(dir)
            .args(["--config-file", "schemathesis.toml"])
            .args(["run", &format!("{api}/openapi.json"), "--url", &api, "--checks", CHECKS])
            .args(["--max-examples", &examples.to_string(), "--seed", &seed.to_string()])
            .args(["--phases", "coverage,fuzzing", "--continue-on-failure", "--no-color"])
            .args(["--suppress-health-check", "all", "--warnings", "off"])
            .args(["--report", "junit", "--report-junit-path", &format!("{name}.xml")]);
        let status = command.status().await.with_context(|| format!("cannot run {}", program.display()))?;
        if !status.success() {
            failed.push(name);
        }
        federation.control_plane(name)?.process.check_running()?;
    }
    ensure!(failed.is_empty(), "schemathesis found something on: {}", failed.join(", "));
    println!("\nschemathesis: nothing found on global and zone");
    Ok(())
}

/// `$GRATICULE_BIN_DIR`, else debug builds.
fn programs() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("GRATICULE_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    cargo::run(&mut cargo::command(&[
        "build",
        "--locked",
        "--package",
        "graticule-global-cp",
        "--package",
        "graticule-zone-cp",
    ]))?;
    Ok(cargo::target_dir().join("debug"))
}

/// The pinned version from PyPI, in an environment of its own below the target directory.
fn install() -> Result<PathBuf> {
    let dir = cargo::target_dir().join("tools").join(format!("schemathesis-{VERSION}"));
    let program = dir.join("bin/schemathesis");
    if program.is_file() {
        return Ok(program);
    }
    println!("installing schemathesis {VERSION} into {}", dir.display());
    installed_in(&dir).with_context(|| {
        format!("no schemathesis: make `python3 -m venv` and `pip install schemathesis=={VERSION}` work")
    })?;
    ensure!(program.is_file(), "pip made no {}", program.display());
    Ok(program)
}

fn installed_in(dir: &Path) -> Result<()> {
    cargo::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir))?;
    cargo::run(
        Command::new(dir.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("schemathesis=={VERSION}")),
    )
}
