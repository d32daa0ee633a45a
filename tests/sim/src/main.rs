//! Runs seeds; what `cargo xtask sim` calls.

use std::fmt::Display;
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use graticule_sim::{federation, store};
use parking_lot::Mutex;

/// Seeds between two lines of progress.
const PROGRESS: u64 = 100;

/// What glibc's allocator keeps for itself. A run is short.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "1000000000"),
    ("MALLOC_TRIM_THRESHOLD_", "1000000000"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Members of the embedded store.
    Store,
    /// Global with its zones.
    Federation,
}

/// Simulates members of the store, or a federation; each seed is a run of its own.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to simulate.
    what: What,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The seed behind the last one.
    #[arg(long, default_value_t = 10)]
    to: u64,
    /// Members of the store.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=7))]
    members: u64,
    /// Seeds that run at once.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Runs each seed twice: both runs must be the same.
    #[arg(long)]
    twice: bool,
    /// Runs the first seed in this process, and writes the log of everybody.
    #[arg(long)]
    log: bool,
    /// Runs the first seed in this process and prints its report.
    #[arg(long, hide = true)]
    one: bool,
}

impl Arguments {
    /// The command that repeats a seed.
    fn again(&self, seed: u64) -> String {
        match self.what {
            What::Store => format!("cargo xtask sim store --seed {seed} --members {}", self.members),
            What::Federation => format!("cargo xtask sim federation --seed {seed}"),
        }
    }

    fn name(&self) -> String {
        match self.what {
            What::Store => format!("{} members", self.members),
            What::Federation => "federation".into(),
        }
    }
}

/// What a run saw, as one line.
trait Report: Default + Display + FromStr<Err = anyhow::Error> + Send {
    /// Adds what another run saw.
    fn add(&mut self, other: &Self);
}

impl Report for store::Report {
    fn add(&mut self, other: &Self) {
        store::Report::add(self, other);
    }
}

impl Report for federation::Report {
    fn add(&mut self, other: &Self) {
        federation::Report::add(self, other);
    }
}

#[derive(Default)]
struct Sum<R> {
    passed: u64,
    failed: u64,
    counts: R,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env();
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=info"));
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let seed = arguments.from;
    let is_one = arguments.log || arguments.one;
    match arguments.what {
        What::Store if is_one => one(store::simulate(seed, usize::try_from(arguments.members).unwrap_or(3))),
        What::Federation if is_one => one(federation::simulate(seed)),
        What::Store => all::<store::Report>(&arguments),
        What::Federation => all::<federation::Report>(&arguments),
    }
}

/// Says what became of one seed.
#[expect(clippy::print_stdout, reason = "what the command is for")]
fn one(outcome: Result<impl Report>) -> ExitCode {
    match outcome {
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
fn run<R: Report>(seed: u64, arguments: &Arguments) -> Result<R> {
    let mut command = Command::new(std::env::current_exe()?);
    let what = arguments.what.to_possible_value().context("it has a name")?;
    command.arg(what.get_name());
    // Compression takes and gives back large pieces of memory all the time; the system need not see that.
    command.envs(ALLOCATOR);
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
fn all<R: Report>(arguments: &Arguments) -> ExitCode {
    let next = AtomicU64::new(arguments.from);
    let sum = Mutex::new(Sum::<R>::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.to {
                        return;
                    }
                    let outcome = run::<R>(seed, arguments);
                    let mut sum = sum.lock();
                    match outcome {
                        Ok(report) => {
                            sum.passed += 1;
                            sum.counts.add(&report);
                        }
                        Err(error) => {
                            sum.failed += 1;
                            println!("seed {seed} failed: {error:#}");
                            println!("  again: {}", arguments.again(seed));
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
    println!("sim: {}: {} seeds passed, {} failed; {}", arguments.name(), sum.passed, sum.failed, sum.counts);
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
