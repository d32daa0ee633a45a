//! Logs to standard error, as text or as one JSON object per line.

use std::str::FromStr;

use tracing_subscriber::filter::{FilterExt as _, LevelFilter, dynamic_filter_fn, filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, reload};

pub mod levels;

use levels::Levels;

use crate::audit::{self, AuditLog};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a level nor a filter.
    #[error(
        "log level {level:?} is not one of off, error, warn, info, debug, trace, nor a filter such as \"info,graticule_kds=debug\""
    )]
    Level {
        /// As given.
        level: String,
        /// The parser's reason.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Not a format.
    #[error("log format {0:?} is not one of text, json")]
    Format(String),
    /// Called twice, or another library was first.
    #[error("logging is already set up")]
    AlreadySet,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Format, Error> {
        match text {
            "text" | "console" | "" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(Error::Format(other.into())),
        }
    }
}

/// Sets logging up for the whole process. `level` is a level or a list of `target=level`. Gives the audit log,
/// which is a part of this log until it is opened as a file of its own.
pub fn init(level: &str, format: Format) -> Result<AuditLog, Error> {
    let audit = AuditLog::default();
    let in_file = audit.clone();
    // What goes to the file of the audit log is not said twice.
    let elsewhere =
        dynamic_filter_fn(move |metadata, _| metadata.target() != audit::TARGET || !in_file.is_open());
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let filter = filter.and(elsewhere.with_max_level_hint(LevelFilter::TRACE));
    let only_audit = filter_fn(|metadata| metadata.target() == audit::TARGET);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(audit.clone().with_filter(only_audit));
    let done = match format {
        Format::Text => registry.with(layer.with_ansi(false).with_filter(filter)).try_init(),
        Format::Json => {
            let layer = layer.json().flatten_event(true).with_current_span(false);
            registry.with(layer.with_filter(filter)).try_init()
        }
    };
    done.map_err(|_| Error::AlreadySet)?;
    let base = quiet(if level.is_empty() { "info" } else { level });
    let apply = move |filter| handle.reload(filter).map_err(|error| error.to_string());
    levels::set_of_process(Levels::new(base, apply));
    Ok(audit)
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    // A bare word that is no level would be taken for the name of a target, and hide everything.
    let is_word = !level.is_empty() && !level.contains(['=', ',', '[']);
    let text = if level.is_empty() { "info" } else { level };
    let error = |source| Error::Level { level: level.into(), source };
    if is_word && LevelFilter::from_str(text).is_err() {
        // "=" makes the word a level position, so that the parser gives its own reason.
        return EnvFilter::builder().parse(format!("graticule={text}")).map_err(error);
    }
    EnvFilter::builder().parse(quiet(text)).map_err(error)
}

/// The TLS library warns of every client that names an IP address as the server name, which every Envoy does
/// that reaches its control plane by address; the Raft library tells every step of a start, and every call of a member
/// that is down (the store says once that it is). Who wants to see that says so with a directive.
fn quiet(text: &str) -> String {
    match text {
        "warn" => "warn,rustls=error,openraft=error".to_owned(),
        "info" => "info,rustls=error,openraft=error".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for good in ["", "off", "info", "debug", "DEBUG", "info,graticule_kds=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["loud", "info,graticule_kds=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
        assert!(matches!("xml".parse::<Format>(), Err(Error::Format(_))));
    }
}
