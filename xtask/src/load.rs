//! `cargo xtask load`: measurements of running control planes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use graticule_load::api;

use crate::cargo;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Load {
    /// PUT, GET and LIST of the REST API of global with many resources in its store; prints one JSON object.
    Api(Api),
}

/// Arguments of `load api`.
#[derive(Args)]
pub(crate) struct Api {
    /// Resources in the store.
    #[arg(long, default_value_t = 50_000)]
    resources: usize,
    /// Connections that ask at the same time.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each kind of call is measured; the best run counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// A `global-cp` that exists, instead of building one.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Measures.
pub(crate) fn run(load: Load) -> Result<()> {
    let Load::Api(arguments) = load;
    let global_cp = match arguments.program {
        Some(program) => program,
        None => {
            let arguments =
                ["build", "--locked", "--profile", cargo::PROFILE, "--package", "graticule-global-cp"];
            cargo::run(&mut cargo::command(&arguments))?;
            cargo::target_dir().join(cargo::PROFILE).join("global-cp")
        }
    };
    let dir = cargo::target_dir().join(format!("load/api-{}", std::process::id()));
    let options = api::Options {
        global_cp,
        dir: dir.clone(),
        resources: arguments.resources,
        connections: arguments.connections,
        duration: Duration::from_secs(arguments.seconds),
        runs: arguments.runs,
    };
    // One thread: the control plane needs the others.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report =
        runtime.block_on(api::run(&options)).with_context(|| format!("logs are in {}", dir.display()))?;
    println!("{}", serde_json::to_string(&report)?);
    std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
}
