//! `cargo xtask crash`: kills members of a cluster at random, for minutes.

use anyhow::Result;

use crate::{cargo, tools};

/// The test that does it.
const TEST: &str = "nothing_acknowledged_is_lost";

/// Runs the crash test of the end-to-end tests for this long.
pub(crate) fn run(minutes: u32) -> Result<()> {
    let envoy = tools::envoy()?;
    let bin_dir = cargo::build_tested_programs(&[])?;
    let mut command =
        cargo::command(&["test", "--locked", "--package", "graticule-e2e", "--test", "cluster"]);
    command.args(["--", "--exact", TEST, "--nocapture"]);
    command.env("ENVOY_BIN", envoy).env("GRATICULE_BIN_DIR", bin_dir);
    cargo::run(command.env("CRASH_SECONDS", (minutes * 60).to_string()))
}
