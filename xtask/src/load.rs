//! `cargo xtask load`: measurements of running control planes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use graticule_load::{api, store, zones};
use graticule_testkit::Binaries;

use crate::cargo;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Load {
    /// PUT, GET and LIST of the REST API of global with many resources in its store; prints one JSON object.
    Api(Api),
    /// Played zones against one global: from a PUT to the ACK of the last zone; prints one JSON object.
    Zones(Zones),
    /// Writes into the embedded store of one or several replicas of global, with resources of about 3 KB: latency,
    /// throughput, the time without a leader, cold start and memory; prints one JSON object.
    Store(Store),
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

/// Arguments of `load zones`.
#[derive(Args)]
pub(crate) struct Zones {
    /// Zones that are measured.
    #[arg(long, default_value_t = 50)]
    zones: usize,
    /// Besides these: zones that take the first state and read nothing more.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// Besides these: zones that connect again as soon as they have the first state.
    #[arg(long, default_value_t = 0)]
    churning: usize,
    /// Policies at global.
    #[arg(long, default_value_t = 10_000)]
    resources: usize,
    /// Changes that are measured.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Changes per second; 0: one after the other, each when all zones have the one before.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// A `global-cp` that exists, instead of building one.
    #[arg(long)]
    program: Option<PathBuf>,
    /// The REST API of a global that runs, of this or another make, instead of starting one; it must take zones
    /// without tokens and TLS.
    #[arg(long, requires = "kds", conflicts_with = "program")]
    api: Option<SocketAddr>,
    /// The port for zones of that global.
    #[arg(long, requires = "api")]
    kds: Option<SocketAddr>,
    /// The process of that global, to read its memory and CPU time.
    #[arg(long, requires = "api")]
    pid: Option<u32>,
}

/// Arguments of `load store`.
#[derive(Args)]
pub(crate) struct Store {
    /// Replicas.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Resources in the store.
    #[arg(long, default_value_t = 10_000)]
    resources: usize,
    /// Connections that write at the same time, after one that writes alone.
    #[arg(long, default_value_t = 64)]
    writers: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Snapshots that the leader has finished before the writes of all connections end.
    #[arg(long, default_value_t = 1)]
    snapshots: usize,
    /// How often the leader is killed; needs three members.
    #[arg(long, default_value_t = 0)]
    failovers: usize,
    /// A directory with our programs, instead of building them.
    #[arg(long)]
    programs: Option<PathBuf>,
}

/// Measures. The side that plays is optimised as well: one that is not would measure itself.
pub(crate) fn run(load: Load) -> Result<()> {
    if cfg!(debug_assertions) {
        let mut again =
            cargo::command(&["run", "--locked", "--profile", cargo::PROFILE, "--package", "xtask", "--"]);
        return cargo::run(again.args(std::env::args_os().skip(1)));
    }
    match load {
        Load::Api(arguments) => run_api(arguments),
        Load::Zones(arguments) => run_zones(arguments),
        Load::Store(arguments) => run_store(arguments),
    }
}

fn run_api(arguments: Api) -> Result<()> {
    measured("api", async |dir| {
        let options = api::Options {
            global_cp: global_cp(arguments.program)?,
            dir,
            resources: arguments.resources,
            connections: arguments.connections,
            duration: Duration::from_secs(arguments.seconds),
            runs: arguments.runs,
        };
        Ok(serde_json::to_string(&api::run(&options).await?)?)
    })
}

fn run_zones(arguments: Zones) -> Result<()> {
    measured("zones", async |dir| {
        let global = match (arguments.api, arguments.kds) {
            (Some(api), Some(kds)) => zones::Global::Running { api, kds, pid: arguments.pid },
            _ => zones::Global::Program(global_cp(arguments.program)?),
        };
        let options = zones::Options {
            global,
            dir,
            zones: arguments.zones,
            slow: arguments.slow,
            churning: arguments.churning,
            resources: arguments.resources,
            changes: arguments.changes,
            rate: arguments.rate,
        };
        Ok(serde_json::to_string(&zones::run(&options).await?)?)
    })
}

fn run_store(arguments: Store) -> Result<()> {
    measured("store", async |dir| {
        let programs = match arguments.programs {
            Some(programs) => programs,
            None => cargo::build_programs()?,
        };
        let options = store::Options {
            // No proxy takes part.
            binaries: Binaries { dir: programs, envoy: PathBuf::new(), root: cargo::root() },
            dir,
            members: arguments.members,
            resources: arguments.resources,
            duration: Duration::from_secs(arguments.seconds),
            writers: arguments.writers.max(1),
            snapshots: arguments.snapshots,
            failovers: arguments.failovers,
        };
        Ok(serde_json::to_string(&store::run(&options).await?)?)
    })
}

fn global_cp(program: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(program) = program {
        return Ok(program);
    }
    let arguments = ["build", "--locked", "--profile", cargo::PROFILE, "--package", "graticule-global-cp"];
    cargo::run(&mut cargo::command(&arguments))?;
    Ok(cargo::target_dir().join(cargo::PROFILE).join("global-cp"))
}

/// Prints what a measurement says; its directory stays if it fails.
fn measured(name: &str, measure: impl AsyncFnOnce(PathBuf) -> Result<String>) -> Result<()> {
    let dir = cargo::target_dir().join(format!("load/{name}-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report =
        runtime.block_on(measure(dir.clone())).with_context(|| format!("logs are in {}", dir.display()))?;
    println!("{report}");
    std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
}
