//! Runs seeds; what `cargo xtask sim` calls.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use graticule_sim::store::{Report, simulate};
use parking_lot::Mutex;

/// Seeds between two lines of progress.
const PROGRESS: u64 = 100;

/// Simulates members of the store, each seed a run of its own.
#[derive(Debug, Parser)]
struct Arguments {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The seed behind the last one.
    #[arg(long, default_value_t = 10)]
    to: u64,
    /// Members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=7))]
    members: u64,
    /// Seeds that run at once.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Runs each seed twice: both runs must be the same.
    #[arg(long)]
    twice: bool,
    /// Runs the first seed in this process, and writes the log of all members.
    #[arg(long)]
    log: bool,
    /// Runs the first seed in this process and prints its report.
    #[arg(long, hide = true)]
    one: bool,
}

#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    counts: Report,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env();
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=info"));
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    if arguments.log || arguments.one { one(&arguments) } else { all(&arguments) }
}

/// One seed, in this process.
#[expect(clippy::print_stdout, reason = "what the command is for")]
fn one(arguments: &Arguments) -> ExitCode {
    match simulate(arguments.from, usize::try_from(arguments.members).unwrap_or(3)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One seed, in a process of its own: what follows from a seed also follows from what ran in the process before.
fn run(seed: u64, arguments: &Arguments) -> Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", "--from", &seed.to_string(), "--members", &arguments.members.to_string()]);
    let mut once = || -> Result<String> {
        let output = Command::output(&mut command).context("cannot run a seed")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            bail!(
                "{text} {}",
                String::from_utf8_lossy(&output.stderr).lines().take(3).collect::<Vec<_>>().join(" ")
            );
        }
        Ok(text)
    };
    let text = once()?;
    if arguments.twice {
        let again = once()?;
        ensure!(again == text, "the same seed led to {text} and to {again}");
    }
    text.parse()
}

/// Many seeds.
#[expect(clippy::print_stdout, reason = "what the command is for")]
fn all(arguments: &Arguments) -> ExitCode {
    let next = AtomicU64::new(arguments.from);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.to {
                        return;
                    }
                    let outcome = run(seed, arguments);
                    let mut sum = sum.lock();
                    match outcome {
                        Ok(report) => {
                            sum.passed += 1;
                            sum.counts.add(&report);
                        }
                        Err(error) => {
                            sum.failed += 1;
                            println!("seed {seed} failed: {error:#}");
                            println!(
                                "  again: cargo xtask sim --seed {seed} --members {}",
                                arguments.members
                            );
                        }
                    }
                    let done = sum.passed + sum.failed;
                    if done % PROGRESS == 0 {
                        println!("{done} seeds, {} failed", sum.failed);
                    }
                }
            });
        }
    });
    let sum = sum.into_inner();
    println!(
        "sim: {} members: {} seeds passed, {} failed; {}",
        arguments.members, sum.passed, sum.failed, sum.counts
    );
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
