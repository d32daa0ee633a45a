//! Calls of cargo.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Profile in which the programs of the demo and of measurements are built.
pub(crate) const PROFILE: &str = "quick-release";

/// Packages of our programs, and what the programs are called.
const PROGRAMS: [(&str, &str); 5] = [
    ("graticule-global-cp", "global-cp"),
    ("graticule-zone-cp", "zone-cp"),
    ("graticule-dp-agent", "dp-agent"),
    ("graticule-cli", "grat"),
    ("graticule-demo-app", "demo-app"),
];

/// Features that the programs have here and that the default build leaves out.
pub(crate) const FEATURES: &str = "graticule-global-cp/etcd,graticule-zone-cp/etcd";

/// Root of the checkout.
pub(crate) fn root() -> PathBuf {
    graticule_testkit::binaries::root()
}

/// The target directory.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command at the root of the checkout.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    if let Ok(this) = std::env::current_exe() {
        // Build scripts that call protoc get this program, see `xtask/protoc/protoc`.
        command.env("XTASK_PROTOC", this);
    }
    command
}

/// Runs a command; fails with its text.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = format!("{command:?}").replace('"', "");
    let status = command.status().with_context(|| format!("cannot run {text}"))?;
    ensure!(status.success(), "{text}: {status}");
    Ok(())
}

/// Builds our programs, optimised; gives their directory.
pub(crate) fn build_programs() -> Result<PathBuf> {
    let mut build = command(&["build", "--locked", "--profile", PROFILE, "--features", FEATURES]);
    for (package, _) in PROGRAMS {
        build.args(["--package", package]);
    }
    run(&mut build)?;
    Ok(target_dir().join(PROFILE))
}

/// What the unit tests are built with: all crates but the end-to-end tests.
pub(crate) const UNIT_TESTS: [&str; 6] =
    ["--locked", "--workspace", "--exclude", "graticule-e2e", "--features", FEATURES];

/// Builds our programs for tests, with all assertions; gives their directory. `more` is built along: with `--tests`, what
/// programs and tests share is compiled once.
pub(crate) fn build_tested_programs(more: &[&str]) -> Result<PathBuf> {
    let mut build = command(&["build"]);
    build.args(UNIT_TESTS).args(more);
    for (_, program) in PROGRAMS {
        build.args(["--bin", program]);
    }
    run(&mut build)?;
    Ok(target_dir().join("debug"))
}
