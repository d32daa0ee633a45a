//! `cargo xtask sim store|federation`: the deterministic simulations.

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::cargo;

/// The two simulations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Members of the embedded store.
    Store,
    /// Replicas of global and of five zones.
    Federation,
}

/// What to simulate.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Which simulation.
    #[arg(value_enum)]
    what: What,
    /// Seeds, the second one not included.
    #[arg(long, default_value = "0..100", value_name = "A..B")]
    seeds: String,
    /// Only this seed, with the log of everybody.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Members of the store: 3 to 7.
    #[arg(long, default_value_t = 3)]
    members: u64,
    /// Seeds that run at once.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Runs each seed twice: both runs must be the same.
    #[arg(long)]
    twice: bool,
}

/// Builds and runs a simulation.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (from, to) = match arguments.seed {
        Some(seed) => (seed, seed.checked_add(1).context("--seed is too large")?),
        None => range(&arguments.seeds)?,
    };
    let mut command =
        cargo::command(&["run", "--locked", "--profile", "sim", "--package", "graticule-sim", "--"]);
    command.arg(match arguments.what {
        What::Store => "store",
        What::Federation => "federation",
    });
    // Random choices inside tokio follow the seed only with this; everything is built for it, in a place of its own.
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    command.env("RUSTFLAGS", format!("{flags} --cfg tokio_unstable").trim_start());
    command.env("CARGO_TARGET_DIR", cargo::target_dir().join("sim"));
    for (name, value) in
        [("--from", from), ("--to", to), ("--members", arguments.members), ("--jobs", arguments.jobs)]
    {
        command.arg(name).arg(value.to_string());
    }
    if arguments.seed.is_some() {
        command.arg("--log");
    }
    if arguments.twice {
        command.arg("--twice");
    }
    cargo::run(&mut command)
}

fn range(text: &str) -> Result<(u64, u64)> {
    let wanted = || format!("--seeds {text:?} is not of the form A..B");
    let (from, to) = text.split_once("..").with_context(wanted)?;
    let (from, to) = (from.parse().with_context(wanted)?, to.parse().with_context(wanted)?);
    ensure!(from < to, "--seeds {text:?} holds no seed");
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("5..7").expect("fine"), (5, 7));
        for bad in ["", "5", "7..5", "a..b", "5..=7", "5..5"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
