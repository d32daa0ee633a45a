//! The audit log: events of the tracing target [`TARGET`], one JSON object per line, in a file of their own that
//! is rotated by size. Without a file they are lines of the ordinary log like all others.
//!
//! The file gets every event whatever the log level is. What cannot be written to it goes to standard error.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::Clock;
use crate::config::Setting;
use crate::settings::setting;

/// Target of events that belong into the audit log.
pub const TARGET: &str = "audit";

/// Most rotated files.
const FILES_MAX: u32 = 1_000;

/// `audit`: the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditSettings {
    /// File; empty = the ordinary log.
    pub path: String,
    /// Length at which the file is put aside, in bytes.
    pub max_bytes: u64,
    /// How many files that were put aside are kept.
    pub max_files: u32,
}

impl Default for AuditSettings {
    fn default() -> Self {
        AuditSettings { path: String::new(), max_bytes: 64 << 20, max_files: 10 }
    }
}

impl AuditSettings {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting("audit.path", "AUDIT_PATH", "file of the audit log; empty: the ordinary log"),
        setting(
            "audit.maxBytes",
            "AUDIT_MAX_BYTES",
            "length at which the file is put aside as <path>.1, in bytes",
        ),
        setting("audit.maxFiles", "AUDIT_MAX_FILES", "how many files that were put aside are kept"),
    ];
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("audit.path: {}", path.display())]
pub struct Error {
    /// The file.
    path: PathBuf,
    /// The system's reason.
    #[source]
    source: io::Error,
}

/// Where events go once there is a file. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AuditLog(Arc<OnceLock<Rotating>>);

#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    max_bytes: u64,
    max_files: u32,
    clock: Clock,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
}

impl AuditLog {
    /// Opens the file; from now on every event goes there. A second call changes nothing.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn open(&self, settings: &AuditSettings, clock: Clock) -> Result<(), Error> {
        if settings.path.is_empty() {
            return Ok(());
        }
        let path = PathBuf::from(&settings.path);
        let open = Open::at(&path).map_err(|source| Error { path: path.clone(), source })?;
        let (max_bytes, max_files) = (settings.max_bytes.max(1), settings.max_files.min(FILES_MAX));
        let rotating = Rotating { path, max_bytes, max_files, clock, open: Mutex::new(open) };
        // Somebody else opened it before: then it is open.
        let _set = self.0.set(rotating);
        Ok(())
    }

    /// Whether there is a file.
    pub fn is_open(&self) -> bool {
        self.0.get().is_some()
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Open> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let len = file.metadata()?.len();
        Ok(Open { file, len })
    }
}

impl Rotating {
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        if open.len > 0 && open.len.saturating_add(line.len() as u64) > self.max_bytes {
            self.put_aside()?;
            *open = Open::at(&self.path)?;
        }
        // One call, so that a line is whole or not there at all.
        open.file.write_all(line)?;
        open.len += line.len() as u64;
        Ok(())
    }

    /// `<path>` becomes `<path>.1`, that `<path>.2`, and so on; the last one goes.
    fn put_aside(&self) -> io::Result<()> {
        let name = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let exists = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if self.max_files == 0 {
            return exists(std::fs::remove_file(&self.path));
        }
        for number in (1..self.max_files).rev() {
            exists(std::fs::rename(name(number), name(number + 1)))?;
        }
        std::fs::rename(&self.path, name(1))
    }
}

impl<S: Subscriber> Layer<S> for AuditLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(rotating) = self.0.get().filter(|_| event.metadata().target() == TARGET) else { return };
        let mut line = Line(Map::new());
        line.0.insert("time".into(), rotating.clock.now().to_string().into());
        event.record(&mut line);
        let mut bytes = Value::Object(line.0).to_string().into_bytes();
        bytes.push(b'\n');
        if let Err(error) = rotating.write(&bytes) {
            // No event: this is in the middle of one.
            let line = String::from_utf8_lossy(&bytes);
            let _last_resort =
                write!(io::stderr(), "audit.path: {}: {error}: {line}", rotating.path.display());
        }
    }
}

/// Collects the fields of an event.
struct Line(Map<String, Value>);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn every_event_of_the_target_is_one_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let log = AuditLog::default();
        let (clock, _hand) = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let settings = AuditSettings { path: path.display().to_string(), max_bytes: 200, max_files: 2 };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.clone()), || {
            tracing::info!(target: TARGET, number = 0_u64, "before the file");
            log.open(&settings, clock).expect("opened");
            for number in 1_u64..=8 {
                tracing::info!(target: TARGET, user = "jane \"x\"", number, "written");
                tracing::info!(number, "something else");
            }
        });
        let all: Vec<u64> = ["audit.log.2", "audit.log.1", "audit.log"]
            .iter()
            .flat_map(|name| lines(&dir.path().join(name)))
            .map(|line| {
                assert_eq!(
                    (&line["user"], &line["time"]),
                    (&"jane \"x\"".into(), &"1970-01-01T00:00:00Z".into())
                );
                line["number"].as_u64().expect("a number")
            })
            .collect();
        assert_eq!(all, [3, 4, 5, 6, 7, 8], "two lines a file, two files put aside");
        assert!(!dir.path().join("audit.log.3").exists());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let settings = AuditSettings { path: "/nonexistent/audit.log".into(), ..AuditSettings::default() };
        let error = AuditLog::default().open(&settings, Clock::system()).expect_err("refused");
        assert_eq!(error.to_string(), "audit.path: /nonexistent/audit.log");
    }
}
