//! Development commands: `cargo xtask <command>`.

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod cargo;
mod check;
mod codegen;
mod codegen_protos;
mod codegen_schemas;
mod conformance;
mod crash;
mod demo;
mod dist;
mod fuzz;
mod load;
mod schemathesis;
mod settings;
mod sim;
mod tidy;
mod tools;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of Graticule")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job on this machine: global, two zones, real Envoys, requests across the zones.
    Demo {
        /// End after everything was shown; exit code 0 means that it was proved.
        #[arg(long)]
        once: bool,
        /// Where logs and work directories go (default: below target/demo).
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Everything that CI runs.
    Test,
    /// End-to-end tests only.
    E2e {
        /// Passed on to the test runner.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The public conformance data at DIR against our programs and real Envoys.
    Conformance {
        /// The data set.
        dir: PathBuf,
        /// Only this suite.
        #[arg(long)]
        suite: Option<String>,
        /// Only cases whose name contains this.
        #[arg(long)]
        case: Option<String>,
        /// Also show the cases that passed, and the accepted differences with their reasons.
        #[arg(long)]
        show: bool,
    },
    /// Measures running control planes.
    Load {
        /// What to measure.
        #[command(subcommand)]
        load: load::Load,
    },
    /// `grat` as one static file, in target/dist.
    Dist {
        /// Profile of cargo.
        #[arg(long, default_value = "release")]
        profile: String,
    },
    /// Formatting, lints and structure rules; writes nothing.
    Verify,
    /// Formats, and applies what clippy can fix.
    Fix,
    /// Makes the generated files again that are checked in.
    Codegen,
    /// Every decoder of foreign input under libFuzzer, for a bounded time each.
    Fuzz {
        /// Time of each target.
        #[arg(long, default_value_t = 30)]
        seconds: u32,
        /// Only these targets.
        targets: Vec<String>,
    },
    /// Requests generated from the OpenAPI document, against a global and a zone control plane.
    Schemathesis {
        /// Most requests that are generated for an operation, beside those that cover its parameters.
        #[arg(long, default_value_t = 20)]
        examples: u32,
        /// Start of the random numbers.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Members of the embedded store, or a whole federation, in a deterministic simulation with faults, many seeds; a
    /// seed that fails is printed with the command that repeats it.
    Sim(sim::Arguments),
    /// Three replicas of global, killed at random under writers and readers; then what everybody saw is checked.
    Crash {
        /// How long.
        #[arg(long, default_value_t = 2)]
        minutes: u32,
    },
    /// Structure rules only.
    Tidy,
    /// Installs what the demo and the tests need, and prints where it is.
    Tools,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if graticule_protoc::is_call(&arguments) {
        return protoc(arguments);
    }
    let outcome = match Arguments::parse().command {
        Command::Demo { once, dir } => demo::run(once, dir),
        Command::Test => check::test(),
        Command::E2e { arguments } => check::e2e(&arguments),
        Command::Conformance { dir, suite, case, show } => conformance::run(dir, suite, case, show),
        Command::Load { load } => load::run(load),
        Command::Dist { profile } => dist::run(&profile),
        Command::Verify => check::verify(),
        Command::Fix => check::fix(),
        Command::Codegen => check::codegen(),
        Command::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Command::Schemathesis { examples, seed } => schemathesis::run(examples, seed),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Crash { minutes } => crash::run(minutes),
        Command::Tidy => tidy::run(),
        Command::Tools => print_tools(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nfailed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A build script of a dependency takes this program for `protoc`, see `xtask/protoc/protoc`.
fn protoc(arguments: Vec<std::ffi::OsString>) -> ExitCode {
    match graticule_protoc::Call::parse(arguments).and_then(|call| call.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // A build script shows what is said here; if nobody reads, the exit code says it.
            let _ = writeln!(std::io::stderr(), "protoc: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn print_tools() -> Result<()> {
    println!("envoy: {}", tools::envoy()?.display());
    match tools::etcd() {
        Ok(path) => println!("etcd: {}", path.display()),
        Err(error) => println!("etcd: none: {error:#}"),
    }
    Ok(())
}
