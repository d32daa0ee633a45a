//! `cargo xtask dist`: `grat` as one static file.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// Builds `grat` with the C library inside, and checks that it needs no other file.
///
/// Names are looked up by the program itself (the C library's own look-up would load plug-ins at run time), so that
/// the file runs on any Linux of its architecture.
pub(crate) fn run(profile: &str) -> Result<()> {
    let triple = host()?;
    let mut build = cargo::command(&["build", "--locked", "--package", "graticule-cli", "--target", &triple]);
    // With a target of its own, build scripts and macros are built as usual.
    build.args(["--profile", profile]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo::run(&mut build)?;
    let dir = if profile == "dev" { "debug" } else { profile };
    let built = cargo::target_dir().join(&triple).join(dir).join("grat");
    let place = cargo::target_dir().join("dist");
    std::fs::create_dir_all(&place)?;
    let program = place.join("grat");
    std::fs::copy(&built, &program).with_context(|| built.display().to_string())?;
    let linked = Command::new("ldd").arg(&program).output().context("ldd")?;
    let said = String::from_utf8_lossy(&linked.stdout) + String::from_utf8_lossy(&linked.stderr);
    ensure!(
        said.contains("statically linked") || said.contains("not a dynamic executable"),
        "{} is not static: {}",
        program.display(),
        said.trim()
    );
    let version = Command::new(&program).arg("--version").output()?;
    ensure!(version.status.success(), "{} does not run", program.display());
    let size = std::fs::metadata(&program)?.len() / 1024;
    println!(
        "{}: {}, {size} KiB, static",
        program.display(),
        String::from_utf8_lossy(&version.stdout).trim()
    );
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let output =
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(line.to_owned())
}
