//! The command line of both control planes: `run --config-file F --log-level L`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use graticule_api::Instance;
use graticule_runtime::audit::AuditLog;
use graticule_runtime::config::{self, Examined, Schema};
use graticule_runtime::logging::{self, Format};
use graticule_runtime::settings::RaftSettings;
use graticule_runtime::supervisor::chain;
use graticule_runtime::{host, tls, version};
use graticule_settings::{List, Output, Page, flag_rows, rows};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Time that tasks have to finish after a signal.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "Settings come from their defaults, then the configuration file, then variables \
    (GRATICULE_..., else KUMA_...). The command `settings` lists them all.";

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
    #[command(after_help = AFTER_HELP)]
    Run(Run),
    /// Lists all settings: key in the file, variable, flag, default, meaning.
    Settings(List),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration file (YAML); variables win over it.
    #[arg(short, long)]
    pub config_file: Option<PathBuf>,
    /// Data directory of the embedded store (setting store.dataDir).
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Joins the cluster that the member at this `host:port` belongs to; repeatable (setting store.raft.join).
    #[arg(long, value_name = "ADDRESS")]
    pub join: Vec<String>,
    /// File with the token of that cluster (setting store.raft.tokenFile).
    #[arg(long, value_name = "FILE", requires = "join")]
    pub join_token_file: Option<PathBuf>,
    /// What is logged: off, error, warn, info, debug, or directives such as `info,graticule_kds=debug`.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Form of the log.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Says what the configuration means here: values that differ from the defaults, what has no effect, all
    /// errors. Starts nothing; the exit code is 1 when the control plane could not run.
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

/// A program: its settings, and what to check about them.
pub struct Program<T> {
    /// Its name.
    pub name: &'static str,
    /// What is said before its settings in the documentation.
    pub about: &'static str,
    /// The names of its settings.
    pub schema: Schema,
    /// What the types of the settings do not say: one line for each mistake.
    pub check: fn(&T) -> Vec<String>,
}

/// What a program starts with.
#[derive(Debug)]
pub struct Started<T> {
    /// Its settings, checked.
    pub settings: T,
    /// The audit log, to be opened.
    pub audit: AuditLog,
    /// The argument `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// The arguments `--join`.
    pub join: Vec<String>,
    /// The argument `--join-token-file`.
    pub join_token_file: Option<PathBuf>,
}

impl<T> Started<T> {
    /// Puts the arguments about the cluster over its settings.
    pub fn apply(&self, raft: &mut RaftSettings) {
        if !self.join.is_empty() {
            raft.join.clone_from(&self.join);
        }
        if let Some(file) = &self.join_token_file {
            raft.token_file = file.to_string_lossy().into_owned();
        }
    }
}

impl<T: Serialize + DeserializeOwned + Default> Program<T> {
    /// All settings, for people, programs and the documentation.
    ///
    /// # Errors
    /// The defaults do not serialise.
    pub fn list(&self, output: Output) -> Result<String, Failure> {
        let defaults = serde_json::to_value(T::default())?;
        // The flags of `run`.
        let command = CommandLine::command();
        let run = command.find_subcommand("run").map(|run| flag_rows(run, &[])).unwrap_or_default();
        let rows = run.into_iter().chain(rows(self.schema.settings, &defaults)).collect();
        let page = Page { program: self.name, about: self.about, rows, foreign: self.schema.foreign };
        page.to_text(output).map_err(|error| anyhow::anyhow!(error))
    }

    /// The configuration, and every line that says why it cannot be used.
    fn examine(&self, arguments: &Run) -> Result<(Examined<T>, Vec<String>), Failure> {
        let file = arguments.config_file.as_deref();
        let examined = config::examine::<T>(&self.schema, file, config::environment())?;
        let errors: Vec<String> = examined.errors.iter().map(|error| chain(error)).collect();
        let checked = if errors.is_empty() { (self.check)(&examined.value) } else { Vec::new() };
        Ok((examined, errors.into_iter().chain(checked).collect()))
    }
}

/// Does what the command line says: lists the settings, checks the configuration, or runs `app`.
pub fn main<T, F>(program: &Program<T>, app: F) -> ExitCode
where
    T: Serialize + DeserializeOwned + Default,
    F: AsyncFnOnce(Started<T>) -> Result<(), Failure>,
{
    let outcome = match CommandLine::parse().command {
        Command::Run(arguments) if arguments.check_config => check(program, &arguments),
        Command::Run(arguments) => run(program, &arguments, app),
        Command::Settings(arguments) => program.list(arguments.output).and_then(|text| print(&text)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(program.name, &format!("{failure:#}"));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Says what the configuration means; starts nothing.
fn check<T>(program: &Program<T>, arguments: &Run) -> Result<(), Failure>
where
    T: Serialize + DeserializeOwned + Default,
{
    tls::install_crypto_provider();
    let (examined, mut errors) = program.examine(arguments)?;
    print(&crate::report::text(program.name, &examined, errors.len()))?;
    let Some(last) = errors.pop() else { return Ok(()) };
    for error in errors {
        report(program.name, &error);
    }
    Err(Failure::msg(last))
}

/// Sets the process up and runs `app`.
fn run<T, F>(program: &Program<T>, arguments: &Run, app: F) -> Result<(), Failure>
where
    T: Serialize + DeserializeOwned + Default,
    F: AsyncFnOnce(Started<T>) -> Result<(), Failure>,
{
    tls::install_crypto_provider();
    let format = match arguments.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let audit =
        logging::init(&arguments.log_level, format).map_err(|error| Failure::msg(error.to_string()))?;
    let (examined, errors) = program.examine(arguments)?;
    if let Some(first) = errors.into_iter().next() {
        return Err(Failure::msg(first));
    }
    for warning in examined.warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(app(Started {
        settings: examined.value,
        audit,
        data_dir: arguments.data_dir.clone(),
        join: arguments.join.clone(),
        join_token_file: arguments.join_token_file.clone(),
    }))
}

/// Why a control plane ended, with its causes in `{:#}`.
pub type Failure = anyhow::Error;

/// Failures go to stderr whatever the log level is.
#[expect(clippy::print_stderr, reason = "the last words of a process")]
fn report(program: &str, text: &str) {
    eprintln!("{program}: {text}");
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

/// The table of Kuma's settings that lies beside the conformance data, for tests; none, said on standard error,
/// when the variable `GRATICULE_CONFORMANCE_DIR` is not set or there is no such table.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn reference_table() -> Option<String> {
    let path = std::env::var_os("GRATICULE_CONFORMANCE_DIR")
        .map(|dir| PathBuf::from(dir).join("../reference/kuma-settings.tsv"));
    let table = path.and_then(|path| std::fs::read_to_string(path).ok());
    if table.is_none() {
        eprintln!("skipped: GRATICULE_CONFORMANCE_DIR names no data with a table of settings beside it");
    }
    table
}
