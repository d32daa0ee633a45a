//! What every command gets: the screen, the time, the settings of the call.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use graticule_model::GoDuration;
use jiff::Timestamp;

use crate::client::{Client, Target};
use crate::contexts::{self, Contexts};
use crate::screen::Screen;

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Options {
    /// URL of a control plane's REST API; without it, the active control plane of the configuration.
    #[arg(long, global = true, hide_env_values = true, env = "GRATICULE_ADDRESS", value_name = "URL")]
    pub(crate) address: Option<String>,
    /// User token.
    #[arg(long, global = true, hide_env_values = true, env = "GRATICULE_TOKEN", value_name = "JWT")]
    pub(crate) token: Option<String>,
    /// PEM file with the authority of an https address.
    #[arg(long, global = true, hide_env_values = true, env = "GRATICULE_CA_CERT_FILE", value_name = "FILE")]
    pub(crate) ca_cert_file: Option<PathBuf>,
    /// PEM file with the certificate that grat shows.
    #[arg(
        long,
        global = true,
        hide_env_values = true,
        env = "GRATICULE_CLIENT_CERT_FILE",
        value_name = "FILE"
    )]
    pub(crate) client_cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(
        long,
        global = true,
        hide_env_values = true,
        env = "GRATICULE_CLIENT_KEY_FILE",
        value_name = "FILE"
    )]
    pub(crate) client_key_file: Option<PathBuf>,
    /// Leaves out the check of the server's certificate.
    #[arg(long, global = true)]
    pub(crate) skip_verify: bool,
    /// Header of every request, `name=value`; repeatable.
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) headers: Vec<(String, String)>,
    /// File with control planes; kumactl's form. [default: ~/.config/graticule/config]
    #[arg(long, global = true, hide_env_values = true, env = "GRATICULE_CONFIG", value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,
    /// Control plane of the configuration, instead of the active one.
    #[arg(long, global = true, hide_env_values = true, env = "GRATICULE_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Ignores the configuration file.
    #[arg(long, global = true)]
    pub(crate) no_config: bool,
    /// Longest time of a call, such as 30s; 0 is no limit.
    #[arg(long, global = true, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub(crate) api_timeout: GoDuration,
}

/// `name=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not of the form name=value"))
}

/// A duration as Kuma writes it, and days besides: `720h`, `90m`, `30d`.
pub(crate) fn duration(text: &str) -> Result<GoDuration, String> {
    let wrong = || format!("`{text}` is no duration; write 90s, 30m, 24h or 30d");
    if let Some(days) = text.strip_suffix('d') {
        let hours = days.parse::<i64>().ok().and_then(|days| days.checked_mul(24)).ok_or_else(wrong)?;
        return GoDuration::from_str(&format!("{hours}h")).map_err(|_| wrong());
    }
    GoDuration::from_str(text).map_err(|_| wrong())
}

/// A run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) screen: Screen,
    pub(crate) options: Options,
    /// When it started.
    pub(crate) now: Timestamp,
}

impl Session {
    /// Where the list of control planes is.
    pub(crate) fn config_file(&self) -> Result<PathBuf> {
        if let Some(file) = &self.options.config_file {
            return Ok(file.clone());
        }
        let below =
            |variable: &str| std::env::var_os(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let dir = below("XDG_CONFIG_HOME").or_else(|| Some(below("HOME")?.join(".config")));
        let dir =
            dir.context("neither --config-file nor GRATICULE_CONFIG, XDG_CONFIG_HOME or HOME is set")?;
        Ok(dir.join("graticule/config"))
    }

    /// The list of control planes.
    pub(crate) fn contexts(&self) -> Result<Contexts> {
        if self.options.no_config {
            return Ok(Contexts::default());
        }
        match (self.config_file(), &self.options.config_file) {
            (Err(_), None) => Ok(Contexts::default()),
            (file, _) => contexts::load(&file?),
        }
    }

    /// Which control plane, as whom, and the mesh that its context presets. Options come before the configuration,
    /// but credentials of the configuration go to no other address than its own.
    pub(crate) fn target(&self) -> Result<(Target, Option<String>)> {
        let options = &self.options;
        let (mut target, mesh) = match (&options.address, &options.context) {
            (Some(address), None) => (Target { address: address.clone(), ..Target::default() }, None),
            (address, context) => {
                let (mut target, mesh) = self.contexts()?.target(context.as_deref())?;
                if let Some(address) = address {
                    target.address.clone_from(address);
                }
                (target, mesh)
            }
        };
        target.token = options.token.clone().or(target.token).map(|token| token.trim().to_owned());
        target.ca_cert_file = options.ca_cert_file.clone().or(target.ca_cert_file);
        target.client_cert_file = options.client_cert_file.clone().or(target.client_cert_file);
        target.client_key_file = options.client_key_file.clone().or(target.client_key_file);
        target.skip_verify |= options.skip_verify;
        target.headers.extend(options.headers.iter().cloned());
        Ok((target, mesh))
    }

    /// Longest time of a call.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>> {
        match self.options.api_timeout.0 {
            0 => Ok(None),
            nanoseconds if nanoseconds < 0 => bail!("--api-timeout must not be negative"),
            _ => Ok(Some(self.options.api_timeout.to_std())),
        }
    }

    /// Waits for a part of an answer.
    pub(crate) async fn in_time<T>(&self, part: impl Future<Output = T>) -> Result<T> {
        let Some(limit) = self.timeout()? else { return Ok(part.await) };
        let waited = tokio::time::timeout(limit, part).await;
        waited.map_err(|_| {
            anyhow!("nothing more arrived within {limit:?}; a longer time is set with --api-timeout")
        })
    }

    /// A client of the control plane.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.target()?.0, self.timeout()?)
    }

    /// A client, after a look at the version of the control plane: a different one is worth a warning, nothing else.
    /// (What keeps the control plane from answering is said by the call that follows.)
    pub(crate) async fn checked_client(&self) -> Result<Client> {
        let client = self.client()?;
        if let Ok(index) = client.get("/").await
            && let Some(warning) = version_warning(&index, env!("CARGO_PKG_VERSION"))
        {
            self.screen.warn(&warning);
        }
        Ok(client)
    }

    /// The mesh that is meant.
    pub(crate) fn mesh(&self, given: Option<&str>) -> Result<String> {
        match given {
            Some(mesh) => Ok(mesh.to_owned()),
            None => Ok(self.target()?.1.unwrap_or_else(|| "default".into())),
        }
    }
}

/// Minor versions of Graticule that differ.
fn version_warning(index: &serde_json::Value, ours: &str) -> Option<String> {
    let text = |key: &str| index[key].as_str().unwrap_or_default();
    let (product, version) = (text("product"), text("version"));
    let minor = |version: &str| version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let differs = product == "Graticule" && !version.is_empty() && minor(version) != minor(ours);
    differs.then(|| format!("this is grat {ours}, the control plane is {version}: not everything may fit"))
}

/// A number that says what it counts.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        return format!("1 {what}");
    }
    match what.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{count} {stem}ies"),
        _ => format!("{count} {what}s"),
    }
}

/// An error of the command line that clap does not see.
pub(crate) fn usage(text: impl std::fmt::Display) -> anyhow::Error {
    anyhow!(Usage(text.to_string()))
}

/// The command line is wrong.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_say_what_they_count() {
        for (count, what, text) in [
            (1, "copy", "1 copy"),
            (5, "copy", "5 copies"),
            (0, "zone", "0 zones"),
            (2, "key", "2 keys"),
            (3, "more MeshRetry", "3 more MeshRetries"),
        ] {
            assert_eq!(counted(count, what), text);
        }
    }

    #[test]
    fn versions() {
        let index = |product: &str, version: &str| json!({"product": product, "version": version});
        assert_eq!(version_warning(&index("Graticule", "0.1.7"), "0.1.0"), None);
        assert!(version_warning(&index("Graticule", "0.2.0"), "0.1.0").is_some());
        assert_eq!(version_warning(&index("Kuma", "3.0.0"), "0.1.0"), None);
        assert_eq!(version_warning(&json!({}), "0.1.0"), None);
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30d").expect("days").to_string(), "720h0m0s");
        assert_eq!(duration("24h").expect("hours").to_string(), "24h0m0s");
        for text in ["", "d", "x", "3600", "99999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
