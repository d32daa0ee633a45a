//! `cargo xtask fuzz`: every decoder under libFuzzer for a bounded time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// The cargo-fuzz that is installed when there is none.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// Time that one input may take, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory of one target, in MiB.
const MEMORY_MIB_MAX: u32 = 2048;

/// Runs all targets, or those named, each for `seconds`; fails with the first finding of each.
pub(crate) fn run(seconds: u32, only: &[String]) -> Result<()> {
    let tool = cargo_fuzz()?;
    let work = cargo::target_dir().join("fuzz");
    let targets = targets()?;
    if let Some(unknown) = only.iter().find(|name| !targets.contains(name)) {
        bail!("no target {unknown}; there are: {}", targets.join(", "));
    }
    println!("building the targets with instrumentation (the first time takes some minutes)");
    // The same versions of everything as in the programs.
    std::fs::copy(cargo::root().join("Cargo.lock"), cargo::root().join("fuzz/Cargo.lock"))?;
    let fuzz_dir = cargo::root().join("fuzz");
    // No sanitizer: the workspace forbids unsafe code, and so the stable toolchain is enough.
    let mut build = Command::new(&tool);
    build.current_dir(cargo::root()).env("CARGO_TARGET_DIR", &work).args(["fuzz", "build", "--fuzz-dir"]);
    cargo::run(build.arg(&fuzz_dir).args(["--sanitizer", "none", "--strip-dead-code"]))?;
    println!("writing seeds");
    let seeds = work.join("seeds");
    let mut test =
        cargo::command(&["test", "--locked", "--package", "graticule-fuzz-targets", "--test", "corpus"]);
    cargo::run(test.env("GRATICULE_FUZZ_SEEDS_DIR", &seeds).args(["--", "--quiet", "seeds_for_the_fuzzer"]))?;
    let binaries = work.join(host_triple()?).join("release");
    let mut found = Vec::new();
    for name in targets.iter().filter(|name| only.is_empty() || only.contains(name)) {
        match one(&binaries.join(name), name, &work, &seeds.join(name), seconds) {
            Ok(executed) => println!("{name:<14} {executed:>9} runs in {seconds} s, nothing found"),
            Err(error) => {
                println!("{name:<14} {error:#}");
                found.push(name.as_str());
            }
        }
    }
    ensure!(
        found.is_empty(),
        "findings in {}; put the input into tests/fuzz-targets/corpus/",
        found.join(", ")
    );
    Ok(())
}

/// Runs one target; how often, or what it found.
fn one(binary: &Path, name: &str, work: &Path, seeds: &Path, seconds: u32) -> Result<u64> {
    let (corpus, artifacts) = (work.join("corpus").join(name), work.join("artifacts").join(name));
    for dir in [&corpus, &artifacts] {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let log = work.join(format!("{name}.log"));
    let status = Command::new(binary)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .args([&corpus, seeds])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).with_context(|| log.display().to_string())?)
        .status()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let number = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    if !status.success() {
        let reason =
            text.lines().find(|line| line.contains("panicked at") || line.contains("ERROR: libFuzzer"));
        bail!(
            "FOUND: {} (input in {}, log {})",
            reason.unwrap_or("see the log"),
            artifacts.display(),
            log.display()
        );
    }
    text.lines().find_map(number).with_context(|| format!("{} says nothing of runs", log.display()))
}

/// Names of the targets, from the manifest of `fuzz/`.
fn targets() -> Result<Vec<String>> {
    let file = cargo::root().join("fuzz/Cargo.toml");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let binaries = text.split("[[bin]]").skip(1);
    let names = binaries.filter_map(|binary| binary.split_once("name = \"")?.1.split_once('"'));
    Ok(names.map(|(name, _)| name.to_owned()).collect())
}

/// `cargo-fuzz` in `PATH`, else installed below the target directory.
fn cargo_fuzz() -> Result<PathBuf> {
    let works = |program: &Path| {
        let mut command = Command::new(program);
        command.args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let in_path = PathBuf::from("cargo-fuzz");
    if works(&in_path) {
        return Ok(in_path);
    }
    let dir = cargo::target_dir().join("tools").join(format!("cargo-fuzz-{CARGO_FUZZ_VERSION}"));
    let program = dir.join("bin/cargo-fuzz");
    if !works(&program) {
        println!("installing cargo-fuzz {CARGO_FUZZ_VERSION} into {}", dir.display());
        let version = format!("cargo-fuzz@{CARGO_FUZZ_VERSION}");
        let mut install = cargo::command(&["install", "--quiet", "--locked", "--root"]);
        cargo::run(install.arg(&dir).arg(version)).with_context(|| {
            "no cargo-fuzz: it needs a C++ compiler for libFuzzer and the registry for `cargo install cargo-fuzz`"
        })?;
    }
    Ok(program)
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}
