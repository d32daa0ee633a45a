//! `docs/settings.md`: what the programs say about their settings.

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// Where the page is, relative to the workspace.
const PAGE: &str = "docs/settings.md";

/// Packages whose programs have a command `settings`, in the order of the page.
const PACKAGES: [&str; 4] =
    ["graticule-global-cp", "graticule-zone-cp", "graticule-dp-agent", "graticule-cli"];

const HEAD: &str = "# Settings\n\n\
    Made by `cargo xtask codegen` from the programs themselves; `<program> settings` prints the same list \
    (`-o table|yaml|json`).\n\n\
    Values come from their defaults, then the configuration file (`--config-file`), then variables, then flags. A variable \
    is also understood with Kuma's prefix, `KUMA_` for `GRATICULE_`; ours wins. An unknown key or `GRATICULE_` variable is \
    an error that names the nearest one. Settings of Kuma, and of the other control plane, that a program does not use give one warning. \
    `run --check-config` says what a configuration means, with all its errors, and starts nothing.\n\n\
    Durations are texts such as `1m30s`; lists in variables are separated by commas.\n";

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    let mut page = HEAD.to_owned();
    for package in PACKAGES {
        let mut command = cargo::command(&[
            "run",
            "--quiet",
            "--locked",
            "--package",
            package,
            "--",
            "settings",
            "-o",
            "markdown",
        ]);
        let output = command.stderr(std::process::Stdio::inherit()).output().context("run cargo")?;
        ensure!(output.status.success(), "{package} does not list its settings");
        page.push('\n');
        page.push_str(&String::from_utf8(output.stdout).context("not UTF-8")?);
    }
    let path = cargo::root().join(PAGE);
    std::fs::write(&path, page).with_context(|| path.display().to_string())
}
