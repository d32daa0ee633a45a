//! Runs seeds; what `cargo xtask sim` calls.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Writes the log of all members.
    #[arg(long)]
    log: bool,
}

#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    counts: Report,
}

fn run(seed: u64, members: usize, twice: bool) -> anyhow::Result<Report> {
    let report = simulate(seed, members)?;
    if twice {
        let again = simulate(seed, members)?;
        anyhow::ensure!(again == report, "the same seed led to {report:?} and to {again:?}");
    }
    Ok(report)
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env();
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=info"));
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let members = usize::try_from(arguments.members).unwrap_or(3);
    let next = AtomicU64::new(arguments.from);
    let sum = Mutex::new(Sum::default());
    // One thread per run: everything of a run happens in it.
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.to {
                        return;
                    }
                    let outcome = run(seed, members, arguments.twice);
                    let mut sum = sum.lock();
                    match outcome {
                        Ok(report) => {
                            sum.passed += 1;
                            sum.counts.add(&report);
                        }
                        Err(error) => {
                            sum.failed += 1;
                            println!("seed {seed} failed: {error:#}");
                            println!("  again: cargo xtask sim --seed {seed} --members {members}");
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
    let Report { acknowledged, refused, uncertain, reads, leaders, faults, .. } = sum.counts;
    println!(
        "sim: {members} members: {} seeds passed, {} failed; {faults} faults, {leaders} leaders, {acknowledged} writes \
         acknowledged, {refused} refused, {uncertain} uncertain, {reads} linearizable reads",
        sum.passed, sum.failed
    );
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
