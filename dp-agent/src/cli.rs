//! Command line: commands and flags of kuma-dp (dataplane-agent.md §3.1). Values stay optional here, so that
//! [`crate::config`] can tell a flag that was given from one that was not.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use graticule_model::GoDuration;

/// The data plane agent of Graticule: bootstraps and supervises one Envoy.
#[derive(Debug, Parser)]
#[command(name = "dp-agent", disable_version_flag = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Launch the proxy of one Dataplane and stay with it.
    Run(Box<RunArgs>),
    /// Wait until a proxy answers that it is ready.
    Wait(WaitArgs),
    /// List all settings: key, variable, flag, default, meaning.
    Settings(graticule_settings::List),
    /// Print the version.
    Version(VersionArgs),
    /// Become Envoy, tied to the life of the agent.
    #[command(hide = true)]
    ExecEnvoy(ExecEnvoyArgs),
}

/// Where logs go and how much of them.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Log level of the agent; Envoy takes it over unless it has its own.
    #[arg(long = "log-level", global = true, value_enum, default_value_t = LogLevel::Info)]
    pub(crate) level: LogLevel,
    /// File to append logs to, instead of standard error.
    #[arg(long = "log-output-path", global = true, value_name = "FILE")]
    pub(crate) output_path: Option<PathBuf>,
    /// Not available: let logrotate (copytruncate) or the service manager rotate logs.
    #[arg(long = "log-max-size", global = true, hide = true)]
    pub(crate) max_size: Option<u32>,
    /// Not available, see --log-max-size.
    #[arg(long = "log-max-retained-files", global = true, hide = true)]
    pub(crate) max_retained_files: Option<u32>,
    /// Not available, see --log-max-size.
    #[arg(long = "log-max-age", global = true, hide = true)]
    pub(crate) max_age: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Info,
    Debug,
}

impl LogLevel {
    /// The word that both command lines and Envoy use.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            LogLevel::Off => "off",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }
    }
}

/// Every flag may also be given as a variable `GRATICULE_…` or `KUMA_…`; a flag wins over both.
#[derive(Debug, Clone, Default, Args)]
#[command(args_override_self = true)]
pub(crate) struct RunArgs {
    /// URL of the data plane server of the zone control plane.
    #[arg(long, value_name = "URL")]
    pub(crate) cp_address: Option<String>,
    /// PEM file with the authority that signed the control plane's certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert_file: Option<PathBuf>,
    /// Do not verify the control plane's certificate when fetching the bootstrap configuration.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) skip_verify: Option<bool>,
    /// Name of a Dataplane that the control plane already has.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Mesh of a Dataplane that the control plane already has.
    #[arg(long)]
    pub(crate) mesh: Option<String>,
    /// Always `dataplane`.
    #[arg(long)]
    pub(crate) proxy_type: Option<String>,
    /// File with the Dataplane, YAML or JSON, may hold {{ variables }}; `-` is standard input.
    #[arg(long, short = 'd', value_name = "FILE")]
    pub(crate) dataplane_file: Option<String>,
    /// The Dataplane itself, instead of a file.
    #[arg(long, value_name = "TEXT")]
    pub(crate) dataplane: Option<String>,
    /// Value of a variable in the Dataplane; may be repeated.
    #[arg(long = "dataplane-var", short = 'v', value_name = "NAME=VALUE")]
    pub(crate) dataplane_vars: Vec<String>,
    /// File with the token of the proxy.
    #[arg(long, value_name = "FILE")]
    pub(crate) dataplane_token_file: Option<PathBuf>,
    /// The token itself, instead of a file.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) dataplane_token: Option<String>,
    /// Envoy, looked for in PATH, in the current directory and next to this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary_path: Option<String>,
    /// Directory for sockets and configuration; by default a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Worker threads of Envoy; 0 means one for each CPU that the agent may use.
    #[arg(long)]
    pub(crate) concurrency: Option<u32>,
    /// How long connections may finish after SIGTERM, such as 30s.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) drain_time: Option<Duration>,
    /// Log level of Envoy.
    #[arg(long)]
    pub(crate) envoy_log_level: Option<String>,
    /// Log levels of Envoy's components, such as upstream:debug,http:trace.
    #[arg(long)]
    pub(crate) envoy_component_log_level: Option<String>,
    /// Certificate for the proxy's Prometheus listener.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics_cert_path: Option<PathBuf>,
    /// Key for the proxy's Prometheus listener.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics_key_path: Option<PathBuf>,
    /// Let outbounds listen on loopback addresses.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) bind_outbounds: Option<bool>,
    /// Not available yet: this version has no DNS proxy, `true` is refused.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) dns_enabled: Option<bool>,
    /// Port of the DNS proxy, as told to the control plane.
    #[arg(long)]
    pub(crate) dns_proxy_port: Option<u16>,
    /// Not available yet: this version has no transparent proxying.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) transparent_proxy: Option<bool>,
    /// Not available yet: this version has no transparent proxying.
    #[arg(long, value_name = "FILE")]
    pub(crate) transparent_proxy_config: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// What to ask; the host must be loopback.
    #[arg(long, default_value = "http://localhost:9901/ready")]
    pub(crate) url: String,
    /// Unix socket to ask instead.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) unix_socket: Option<PathBuf>,
    /// Time between two questions.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub(crate) check_frequency: Duration,
    /// Longest time for one answer.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    pub(crate) request_timeout: Duration,
    /// Longest time for everything.
    #[arg(long, default_value = "180s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Also print the Envoy version that this agent is made for.
    #[arg(long, short = 'a')]
    pub(crate) detailed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecEnvoyArgs {
    /// Process id of the agent.
    #[arg(long)]
    pub(crate) agent_pid: u32,
    /// Envoy and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// A duration above zero in the notation of Go (`1m30s`).
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<GoDuration>().map_err(|error| error.to_string())?.to_std();
    if duration.is_zero() { Err("must be longer than zero".into()) } else { Ok(duration) }
}
