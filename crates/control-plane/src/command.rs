//! The command line of both control planes: `run --config-file F --log-level L`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use graticule_api::Instance;
use graticule_runtime::config::{self, Schema};
use graticule_runtime::logging::{self, Format};
use graticule_runtime::{host, tls, version};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::list::List;

/// Time that tasks have to finish after a signal.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Command line.
#[derive(Debug, Parser)]
#[command(version, about = "A control plane of Graticule", long_about = None)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the control plane.
    Run(Run),
    /// Lists all settings: key in the file, variable, default, meaning.
    Settings(List),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration file (YAML); variables win over it.
    #[arg(short, long)]
    pub config_file: Option<PathBuf>,
    /// What is logged: off, error, warn, info, debug, or directives such as `info,graticule_kds=debug`.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Form of the log.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Checks the configuration, says what has no effect, and ends.
    #[arg(long)]
    pub check_config: bool,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Does what the command line says: lists `schema` and the defaults of `T`, or runs `app`.
pub fn main<T, F>(program: &str, schema: &Schema, app: F) -> ExitCode
where
    T: Serialize + Default,
    F: AsyncFnOnce(&Run) -> Result<(), Failure>,
{
    match CommandLine::parse().command {
        Command::Run(arguments) => run(program, &arguments, app),
        Command::Settings(arguments) => {
            match crate::list::write::<T>(schema, &arguments, &mut std::io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => {
                    report(program, &format!("settings cannot be listed: {failure:#}"));
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Sets the process up and runs `app`; a failure is logged with its causes and gives exit code 1.
fn run<F>(program: &str, arguments: &Run, app: F) -> ExitCode
where
    F: AsyncFnOnce(&Run) -> Result<(), Failure>,
{
    tls::install_crypto_provider();
    let format = match arguments.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    if let Err(error) = logging::init(&arguments.log_level, format) {
        report(program, &error.to_string());
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(program, &format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(app(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(program, &format!("{failure:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Why a control plane ended, with its causes in `{:#}`.
pub type Failure = anyhow::Error;

/// Failures go to stderr whatever the log level is.
#[expect(clippy::print_stderr, reason = "the last words of a process")]
fn report(program: &str, text: &str) {
    eprintln!("{program}: {text}");
}

/// Loads settings and logs what has no effect.
///
/// # Errors
/// An unknown name or a value that cannot be used.
pub fn load<T>(schema: &Schema, arguments: &Run) -> Result<T, Failure>
where
    T: Serialize + DeserializeOwned + Default,
{
    let loaded = config::load::<T>(schema, arguments.config_file.as_deref(), config::environment())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.value)
}

/// What the index of the REST API says.
pub fn instance(id: &str) -> Instance {
    Instance {
        hostname: host::name(),
        id: id.into(),
        product: version::PRODUCT.into(),
        version: version::VERSION.into(),
        based_on_kuma: version::KUMA_COMPATIBLE.into(),
        gui: String::new(),
    }
}
