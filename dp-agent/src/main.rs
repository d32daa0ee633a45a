//! The data plane agent: bootstraps and supervises one Envoy.
//!
//! `dp-agent run` takes the flags and variables of kuma-dp (dataplane-agent.md §3.1). It reads the
//! Dataplane, fetches the bootstrap configuration from the zone control plane, starts Envoy, answers
//! readiness probes, streams access logs, and drains before it ends. `dp-agent wait` waits for that
//! readiness; `dp-agent version` prints what this is; `dp-agent settings` lists all flags and variables.

mod accesslog;
mod admin;
mod app;
mod bootstrap;
mod cli;
mod config;
mod dataplane;
mod drain;
mod envoy;
mod host;
mod http1;
mod logging;
mod readiness;
mod settings;
mod template;
mod tls;
mod token;
mod version;
mod wait;
mod workdir;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::FromArgMatches as _;

use crate::cli::{Cli, Command};

/// Threads for name resolution; everything else runs on the main thread.
const BLOCKING_THREADS_MAX: usize = 2;
const BLOCKING_THREAD_STACK_LEN: usize = 512 * 1024;

fn main() -> ExitCode {
    let cli = match Cli::from_arg_matches(&settings::command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(error) = logging::init(&cli.log) {
        return fail(&error.into());
    }
    let outcome = match cli.command {
        Command::Run(args) => run(&args, cli.log.level),
        Command::Wait(args) => block_on(wait::run(&args)).map(|()| ExitCode::SUCCESS),
        Command::Version(args) => version::print(args.detailed).map(|()| ExitCode::SUCCESS),
        Command::Settings(args) => print_settings(&args),
        Command::ExecEnvoy(args) => Err(envoy::exec(&args).into()),
    };
    outcome.unwrap_or_else(|error| fail(&error))
}

fn run(args: &cli::RunArgs, log_level: cli::LogLevel) -> anyhow::Result<ExitCode> {
    let env = config::Env::new(std::env::vars_os());
    let config = config::Config::resolve(args, log_level, &env)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    block_on(app::run(config))
}

fn print_settings(args: &graticule_settings::List) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;
    std::io::stdout().lock().write_all(settings::to_text(args.output)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs everything on this thread: Envoy must be a child of the thread that lives as long as the process,
/// because its parent-death signal is tied to that thread.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(BLOCKING_THREAD_STACK_LEN)
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command, also when logging is off")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("Error: {error:#}");
    ExitCode::FAILURE
}
