//! The agent's configuration: a flag wins over a `GRATICULE_…` variable, which wins over the `KUMA_…` variable
//! of the same name, which wins over the default (dataplane-agent.md §3.1).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use graticule_settings::{KUMA_PREFIX, PREFIX as OWN_PREFIX, nearest};

use crate::cli::{LogLevel, RunArgs, parse_duration};
use crate::dataplane;
use crate::http1::Origin;
use crate::settings::{FOREIGN, SETTINGS};
use crate::template::{self, Variables};
use crate::tls::Trust;
use crate::token;

/// Starts of the names that only the agent uses; unknown names below them are mistakes.
const OWN_GROUPS: [&str; 5] = ["CONTROL_PLANE_", "DATAPLANE_", "READINESS_", "APPLICATION_PROBE_", "DNS_"];
/// Settings of control planes, which may share an environment with the agent.
const FOREIGN_GROUP: &str = "DNS_SERVER_";

/// Why the agent cannot be configured as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{origin}: {reason}")]
    Value { origin: String, reason: String },
    #[error("{origin} is not available in this version of the agent: {reason}")]
    Unavailable { origin: String, reason: &'static str },
    #[error("unknown variable {name}{nearest}")]
    UnknownVariable { name: String, nearest: String },
    #[error(
        "nothing says which Dataplane to run: give --dataplane-file, --dataplane, or --name and --mesh of one that the control plane has"
    )]
    NoDataplane,
    #[error("{0} cannot be given together with a Dataplane: its name and mesh are in the Dataplane")]
    NameWithDataplane(&'static str),
    #[error(transparent)]
    Variable(#[from] template::Error),
}

/// The environment of the process, read once. Values that are no UTF-8 are left out, empty ones count as unset.
#[derive(Debug, Default)]
pub(crate) struct Env(BTreeMap<String, String>);

impl Env {
    /// From the variables of a process.
    pub(crate) fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Env {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Env(vars.into_iter().filter_map(text).filter(|(_, value)| !value.is_empty()).collect())
    }

    /// A variable by its whole name.
    fn plain(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A setting by its name without prefix: the variable's name and its value.
    fn setting(&self, suffix: &str) -> Option<(String, &str)> {
        [OWN_PREFIX, KUMA_PREFIX].into_iter().find_map(|prefix| {
            let name = format!("{prefix}{suffix}");
            self.0.get(&name).map(|value| (name, value.as_str()))
        })
    }

    /// A setting read by its type.
    fn parse<T>(&self, suffix: &str) -> Result<Option<T>, Error>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.parse_with(suffix, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn duration(&self, suffix: &str) -> Result<Option<Duration>, Error> {
        self.parse_with(suffix, parse_duration)
    }

    fn path(&self, suffix: &str) -> Option<PathBuf> {
        self.setting(suffix).map(|(_, value)| value.into())
    }

    fn text(&self, suffix: &str) -> Option<String> {
        self.setting(suffix).map(|(_, value)| value.into())
    }

    /// Yes or no, in all the words that kuma-dp takes.
    fn bool(&self, suffix: &str) -> Result<Option<bool>, Error> {
        self.parse_with(suffix, |text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err("expected true or false".into()),
        })
    }

    fn parse_with<T>(
        &self,
        suffix: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some((name, value)) = self.setting(suffix) else { return Ok(None) };
        parse(value).map(Some).map_err(|reason| Error::Value { origin: name, reason })
    }

    fn check_names(&self) -> Result<(), Error> {
        for name in self.0.keys() {
            let Some(suffix) = name.strip_prefix(OWN_PREFIX) else { continue };
            let ours = OWN_GROUPS.iter().any(|group| suffix.starts_with(group));
            let mut known = SETTINGS.iter().map(|s| s.env).chain(FOREIGN.iter().map(|f| f.env));
            if ours && !suffix.starts_with(FOREIGN_GROUP) && !known.any(|known| known == suffix) {
                let nearest = nearest(suffix, SETTINGS.iter().map(|setting| setting.env));
                let nearest = nearest
                    .map(|nearest| format!(", did you mean {OWN_PREFIX}{nearest}?"))
                    .unwrap_or_default();
                return Err(Error::UnknownVariable { name: name.clone(), nearest });
            }
        }
        Ok(())
    }
}

/// How to reach the control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) origin: Origin,
    pub(crate) trust: Trust,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_max_duration: Duration,
}

/// Which Envoy to run and how.
#[derive(Debug)]
pub(crate) struct Envoy {
    pub(crate) binary: String,
    pub(crate) concurrency: u32,
    pub(crate) log_level: String,
    pub(crate) component_log_level: Option<String>,
    pub(crate) drain_time: Duration,
}

/// What is passed on to the control plane and to Envoy.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) metrics_cert_path: Option<PathBuf>,
    pub(crate) metrics_key_path: Option<PathBuf>,
    pub(crate) bind_outbounds: bool,
    pub(crate) dns_port: u16,
    pub(crate) system_ca_path: Option<PathBuf>,
    pub(crate) ipv6_enabled: bool,
    pub(crate) spire_supported: bool,
    pub(crate) spire_socket_path: String,
    pub(crate) strict_inbound_ports: bool,
    pub(crate) reuse_port: bool,
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) host_ip: Option<String>,
}

/// Everything that `run` needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) control_plane: ControlPlane,
    pub(crate) dataplane: dataplane::Source,
    pub(crate) variables: Variables,
    pub(crate) token: token::Source,
    pub(crate) envoy: Envoy,
    pub(crate) work_dir: Option<PathBuf>,
    pub(crate) readiness_port: u16,
    /// Running in a pod, where probes come from outside of it.
    pub(crate) in_pod: bool,
    pub(crate) forwarded: Forwarded,
    /// Settings that were given and change nothing.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// Puts flags, variables and defaults together.
    pub(crate) fn resolve(args: &RunArgs, log_level: LogLevel, env: &Env) -> Result<Config, Error> {
        env.check_names()?;
        refuse_unavailable(args, env)?;
        let text = |flag: &Option<String>, suffix| flag.clone().or_else(|| env.text(suffix));
        let path = |flag: &Option<PathBuf>, suffix| flag.clone().or_else(|| env.path(suffix));
        let proxy_type = text(&args.proxy_type, "DATAPLANE_PROXY_TYPE").unwrap_or_default();
        if !matches!(proxy_type.as_str(), "" | "dataplane") {
            let reason = format!("{proxy_type:?} does not exist, the only type is \"dataplane\"");
            return Err(Error::Value { origin: "--proxy-type".into(), reason });
        }
        let token = match text(&args.dataplane_token, "DATAPLANE_RUNTIME_TOKEN") {
            Some(token) if args.dataplane_token_file.is_none() => token::Source::Inline(token),
            _ => match path(&args.dataplane_token_file, "DATAPLANE_RUNTIME_TOKEN_PATH") {
                Some(path) => token::Source::File(path),
                None => token::Source::None,
            },
        };
        let port = |flag: Option<u16>, suffix, default: u16| -> Result<u16, Error> {
            match flag.map_or_else(|| env.parse(suffix), |port| Ok(Some(port)))? {
                Some(0) => Err(Error::Value {
                    origin: format!("{OWN_PREFIX}{suffix}"),
                    reason: "must not be 0".into(),
                }),
                port => Ok(port.unwrap_or(default)),
            }
        };
        let flag_or_env = |flag: Option<bool>, suffix, default| -> Result<bool, Error> {
            Ok(flag.map_or_else(|| env.bool(suffix), |flag| Ok(Some(flag)))?.unwrap_or(default))
        };
        Ok(Config {
            control_plane: control_plane(args, env)?,
            dataplane: dataplane_source(args, env)?,
            variables: template::parse_variables(&args.dataplane_vars)?,
            token,
            envoy: Envoy {
                binary: text(&args.binary_path, "DATAPLANE_RUNTIME_BINARY_PATH")
                    .unwrap_or_else(|| "envoy".into()),
                concurrency: match args.concurrency {
                    Some(number) => number,
                    None => env.parse("DATAPLANE_RUNTIME_CONCURRENCY")?.unwrap_or(0),
                },
                log_level: text(&args.envoy_log_level, "DATAPLANE_RUNTIME_ENVOY_LOG_LEVEL")
                    .unwrap_or_else(|| log_level.as_str().into()),
                component_log_level: text(
                    &args.envoy_component_log_level,
                    "DATAPLANE_RUNTIME_ENVOY_COMPONENT_LOG_LEVEL",
                ),
                drain_time: match args.drain_time {
                    Some(time) => time,
                    None => env.duration("DATAPLANE_DRAIN_TIME")?.unwrap_or(Duration::from_secs(30)),
                },
            },
            work_dir: path(&args.work_dir, "DATAPLANE_RUNTIME_WORK_DIR"),
            readiness_port: port(None, "READINESS_PORT", 9902)?,
            in_pod: env.plain("POD_NAME").is_some(),
            forwarded: Forwarded {
                metrics_cert_path: path(&args.metrics_cert_path, "DATAPLANE_RUNTIME_METRICS_CERT_PATH"),
                metrics_key_path: path(&args.metrics_key_path, "DATAPLANE_RUNTIME_METRICS_KEY_PATH"),
                bind_outbounds: flag_or_env(args.bind_outbounds, "DATAPLANE_RUNTIME_BIND_OUTBOUNDS", false)?,
                dns_port: port(args.dns_proxy_port, "DNS_PROXY_PORT", 15053)?,
                system_ca_path: env.path("DATAPLANE_RUNTIME_DYNAMIC_SYSTEM_CA_PATH"),
                ipv6_enabled: env.bool("DATAPLANE_RUNTIME_IPV6_ENABLED")?.unwrap_or(true),
                spire_supported: env.bool("DATAPLANE_RUNTIME_SPIRE_SUPPORTED")?.unwrap_or(false),
                spire_socket_path: env.text("DATAPLANE_RUNTIME_SPIRE_SOCKET_PATH").unwrap_or_default(),
                strict_inbound_ports: env
                    .bool("DATAPLANE_RUNTIME_STRICT_INBOUND_PORTS_ENABLED")?
                    .unwrap_or(true),
                reuse_port: env.bool("DATAPLANE_RUNTIME_REUSE_PORT_ENABLED")?.unwrap_or(true),
                memory_bytes_max: env
                    .parse("DATAPLANE_RESOURCES_MAX_MEMORY_BYTES")?
                    .filter(|bytes| *bytes > 0),
                host_ip: env.plain("HOST_IP").map(str::to_owned),
            },
            warnings: warnings(env),
        })
    }
}

fn control_plane(args: &RunArgs, env: &Env) -> Result<ControlPlane, Error> {
    let (origin, url) = match (&args.cp_address, env.setting("CONTROL_PLANE_URL")) {
        (Some(url), _) => ("--cp-address".to_owned(), url.clone()),
        (None, Some((name, url))) => (name, url.to_owned()),
        (None, None) => ("--cp-address".to_owned(), "https://localhost:5678".to_owned()),
    };
    let skip_verify = match args.skip_verify {
        Some(skip) => skip,
        None => env.bool("CONTROL_PLANE_TLS_SKIP_VERIFY")?.unwrap_or(false),
    };
    let ca_file = args.ca_cert_file.clone().or_else(|| env.path("CONTROL_PLANE_CA_CERT_FILE"));
    Ok(ControlPlane {
        origin: Origin::parse(&url).map_err(|reason| Error::Value { origin, reason })?,
        trust: Trust { pem: env.text("CONTROL_PLANE_CA_CERT"), pem_file: ca_file, skip_verify },
        retry_backoff: env.duration("CONTROL_PLANE_RETRY_BACKOFF")?.unwrap_or(Duration::from_secs(3)),
        retry_max_duration: env
            .duration("CONTROL_PLANE_RETRY_MAX_DURATION")?
            .unwrap_or(Duration::from_secs(300)),
    })
}

fn dataplane_source(args: &RunArgs, env: &Env) -> Result<dataplane::Source, Error> {
    // A flag of either form wins over a variable of either form; a file wins over a text.
    let given = [
        args.dataplane_file.clone().map(dataplane::Source::File),
        args.dataplane.clone().map(dataplane::Source::Inline),
        env.text("DATAPLANE_RUNTIME_RESOURCE_PATH").map(dataplane::Source::File),
        env.text("DATAPLANE_RUNTIME_RESOURCE").map(dataplane::Source::Inline),
    ];
    let name = args.name.clone().or_else(|| env.text("DATAPLANE_NAME"));
    let mesh = args.mesh.clone().or_else(|| env.text("DATAPLANE_MESH"));
    match given.into_iter().flatten().next() {
        Some(_) if name.is_some() => Err(Error::NameWithDataplane("--name")),
        Some(_) if mesh.is_some() => Err(Error::NameWithDataplane("--mesh")),
        Some(source) => Ok(source),
        None => {
            let pod = || Some(format!("{}.{}", env.plain("POD_NAME")?, env.plain("POD_NAMESPACE")?));
            // An unexpanded `$(POD_NAME)` counts as no name.
            let name = name.filter(|name| !name.contains(['$', '(', ')', '{', '}'])).or_else(pod);
            match (name, mesh) {
                (Some(name), Some(mesh)) => Ok(dataplane::Source::Stored { mesh, name }),
                _ => Err(Error::NoDataplane),
            }
        }
    }
}

/// Refuses what would otherwise silently do nothing.
fn refuse_unavailable(args: &RunArgs, env: &Env) -> Result<(), Error> {
    const NO_TRANSPARENT_PROXY: &str =
        "it has no transparent proxying; list outbounds in the Dataplane's `networking.outbound` instead";
    const NO_DNS: &str = "it has no DNS proxy; run without (--dns-enabled=false)";
    const NO_OTEL: &str =
        "it does not receive OpenTelemetry data for Envoy; leave the setting out, and Envoy sends directly";
    const NO_PROBES: &str = "it has no proxy for application probes";
    let unavailable = |origin: &str, reason| Err(Error::Unavailable { origin: origin.into(), reason });
    if args.transparent_proxy == Some(true) {
        return unavailable("--transparent-proxy", NO_TRANSPARENT_PROXY);
    }
    if !args.transparent_proxy_config.is_empty() {
        return unavailable("--transparent-proxy-config", NO_TRANSPARENT_PROXY);
    }
    if let Some((name, value)) = env.setting("DATAPLANE_RUNTIME_TRANSPARENT_PROXY")
        && value != "null"
    {
        return unavailable(&name, NO_TRANSPARENT_PROXY);
    }
    match args.dns_enabled {
        Some(true) => return unavailable("--dns-enabled", NO_DNS),
        Some(false) => {}
        None => refuse_true(env, "DNS_ENABLED", NO_DNS)?,
    }
    refuse_true(env, "DATAPLANE_RUNTIME_OTEL_PIPE_ENABLED", NO_OTEL)?;
    match env.parse::<u16>("APPLICATION_PROBE_PROXY_PORT")? {
        None | Some(0) => Ok(()),
        Some(_) => unavailable(&format!("{OWN_PREFIX}APPLICATION_PROBE_PROXY_PORT"), NO_PROBES),
    }
}

fn refuse_true(env: &Env, suffix: &str, reason: &'static str) -> Result<(), Error> {
    match (env.bool(suffix)?, env.setting(suffix)) {
        (Some(true), Some((origin, _))) => Err(Error::Unavailable { origin, reason }),
        _ => Ok(()),
    }
}

fn warnings(env: &Env) -> Vec<String> {
    let given = FOREIGN.iter().filter_map(|known| Some((env.setting(known.env)?.0, known.fate)));
    given.map(|(name, fate)| format!("{name}: {}", fate.explain())).collect()
}

#[cfg(test)]
mod tests;
