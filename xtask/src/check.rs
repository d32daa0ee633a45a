//! What CI runs.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cargo, codegen, codegen_protos, codegen_schemas, settings, tidy, tools};

/// Everything that CI runs: verify, then unit tests, then end-to-end tests with real Envoys.
pub(crate) fn test() -> Result<()> {
    let envoy = tools::envoy()?;
    let etcd = etcd();
    step("formatting, lints, structure");
    verify()?;
    step("programs and tests");
    let bin_dir = cargo::build_tested_programs(&["--tests"])?;
    let prepare = |command: &mut Command| {
        command.env("ENVOY_BIN", &envoy).env("GRATICULE_BIN_DIR", &bin_dir);
        if let Some(etcd) = &etcd {
            command.env("ETCD_BIN", etcd);
        }
    };
    step("unit, property, golden, protocol and conformance tests");
    let mut unit = cargo::command(&["test"]);
    unit.args(cargo::UNIT_TESTS).arg("--no-fail-fast");
    prepare(&mut unit);
    let unit = cargo::run(&mut unit);
    step("end-to-end tests with real processes and real Envoys");
    let mut e2e = cargo::command(&["test", "--locked", "--package", "graticule-e2e", "--no-fail-fast"]);
    prepare(&mut e2e);
    e2e.args(["--", "--test-threads=1"]);
    let e2e = cargo::run(&mut e2e);
    ensure!(unit.is_ok() && e2e.is_ok(), "tests failed; see above");
    if etcd.is_none() {
        println!("\nskipped: the tests of the store over etcd, because there is no etcd (see the beginning)");
    }
    Ok(())
}

/// The real etcd, if there can be one here; said if not.
fn etcd() -> Option<std::path::PathBuf> {
    let found = tools::etcd();
    if let Err(error) = &found {
        println!("the tests of the store over etcd will be skipped: {error:#}");
    }
    found.ok()
}

/// End-to-end tests only; `arguments` go to the test runner.
pub(crate) fn e2e(arguments: &[String]) -> Result<()> {
    let envoy = tools::envoy()?;
    let bin_dir = cargo::build_tested_programs(&[])?;
    let mut command = cargo::command(&["test", "--locked", "--package", "graticule-e2e", "--"]);
    command.arg("--test-threads=1").args(arguments);
    if let Some(etcd) = etcd() {
        command.env("ETCD_BIN", etcd);
    }
    cargo::run(command.env("ENVOY_BIN", envoy).env("GRATICULE_BIN_DIR", bin_dir))
}

/// Formatting, lints and structure; writes nothing.
pub(crate) fn verify() -> Result<()> {
    cargo::run(&mut cargo::command(&["fmt", "--all", "--check"]))?;
    cargo::run(&mut cargo::command(&[
        "clippy",
        "--locked",
        "--workspace",
        "--features",
        cargo::FEATURES,
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    generated_files_are_fresh()?;
    tidy::run()
}

/// Makes the generated files that are checked in.
pub(crate) fn codegen() -> Result<()> {
    codegen_protos::protos()?;
    // Its freshness is a unit test of each program.
    settings::write()?;
    codegen_schemas::write()?;
    let file = cargo::root().join(codegen::DESCRIPTORS);
    std::fs::write(&file, codegen::descriptors(&cargo::root())?).with_context(|| file.display().to_string())
}

fn generated_files_are_fresh() -> Result<()> {
    codegen_protos::protos_fresh()?;
    codegen_schemas::fresh()?;
    let file = cargo::root().join(codegen::DESCRIPTORS);
    let stored = std::fs::read(&file).with_context(|| file.display().to_string())?;
    ensure!(
        stored == codegen::descriptors(&cargo::root())?,
        "{} is not what `cargo xtask codegen` makes",
        file.display()
    );
    println!("codegen: generated files are fresh");
    Ok(())
}

/// Formats, and applies what clippy can fix.
pub(crate) fn fix() -> Result<()> {
    cargo::run(&mut cargo::command(&["fmt", "--all"]))?;
    cargo::run(&mut cargo::command(&["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty"]))
}

fn step(title: &str) {
    println!("\n=== {title} ===");
}
