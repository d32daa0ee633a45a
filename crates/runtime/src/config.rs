//! Settings: defaults, then a YAML file, then environment variables.
//!
//! A program describes its settings in a table ([`Schema`]): path in the file, variable without prefix,
//! documentation. The types come from the `Default` value of the program's own settings struct. Variables
//! are read as `GRATICULE_<name>` and as `KUMA_<name>`; the former wins. What Kuma knows and Graticule has no
//! use for gives a warning, what nobody knows is an error that names the nearest known name.

mod overlay;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Prefix of our variables.
pub const PREFIX: &str = "GRATICULE_";
/// Prefix of Kuma's variables.
pub const KUMA_PREFIX: &str = "KUMA_";

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Path in the file, `multizone.zone.name`.
    pub path: &'static str,
    /// Variable without prefix, `MULTIZONE_ZONE_NAME`; empty: not settable by a variable.
    pub env: &'static str,
    /// What it does, with unit and default where they are not obvious.
    pub doc: &'static str,
}

/// A setting of Kuma that means nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaningless {
    /// Path in the file. Everything below it counts too.
    pub path: &'static str,
    /// Variable without prefix; may be empty.
    pub env: &'static str,
    /// What replaces it, as the end of a sentence ("changes are pushed at once").
    pub instead: &'static str,
}

/// All names that a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Its settings.
    pub settings: &'static [Setting],
    /// Kuma's other settings.
    pub meaningless: &'static [Meaningless],
    /// Further variables with our prefix (named without it) that other parts of the program or its tests read.
    pub reserved: &'static [&'static str],
}

/// Settings, and what to tell the operator once logging is up.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// The settings.
    pub value: T,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Why settings cannot be used. Each message names the file key or the variable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("configuration file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is no YAML mapping, or too large.
    #[error("configuration file {}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Reason with line and column.
        reason: String,
    },
    /// Nobody knows this key or variable.
    #[error("unknown {what} {name}{}", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// `setting` or `environment variable`.
        what: &'static str,
        /// As written.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type or form.
    #[error("{name}: {reason}")]
    Value {
        /// Key or variable.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The program's own default value does not serialise.
    #[error("default settings")]
    Defaults(#[source] serde_json::Error),
}

/// Loads settings. `environment` is usually `std::env::vars_os()` turned to text (see [`environment`]).
///
/// # Errors
/// The first unknown name or unusable value.
pub fn load<T>(
    schema: &Schema,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, Error>
where
    T: Serialize + DeserializeOwned + Default,
{
    let text = file.map(|path| Ok::<_, Error>((path, read(path)?))).transpose()?;
    let text = text.as_ref().map(|(path, text)| (*path, text.as_str()));
    load_from(schema, text, environment)
}

/// As [`load`], with the file's text in place of the file; its path is for messages.
///
/// # Errors
/// As [`load`].
pub fn load_from<T>(
    schema: &Schema,
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, Error>
where
    T: Serialize + DeserializeOwned + Default,
{
    let mut value = serde_json::to_value(T::default()).map_err(Error::Defaults)?;
    let mut warnings = Vec::new();
    if let Some((path, text)) = file {
        let document: Option<Value> = serde_saphyr::from_str(text)
            .map_err(|error| Error::Syntax { path: path.into(), reason: error.to_string() })?;
        match document {
            None | Some(Value::Null) => {}
            Some(Value::Object(document)) => {
                overlay::merge(schema, &mut value, document, &mut warnings)?;
                overlay::check::<T>(&value).map_err(|(name, reason)| Error::Value { name, reason })?;
            }
            Some(_) => {
                return Err(Error::Syntax {
                    path: path.into(),
                    reason: "is not a mapping of settings".into(),
                });
            }
        }
    }
    for (setting, variable, text) in variables(schema, environment, &mut warnings)? {
        overlay::set::<T>(&mut value, setting.path, &text)
            .map_err(|reason| Error::Value { name: variable, reason })?;
    }
    match overlay::check::<T>(&value) {
        Ok(value) => Ok(Loaded { value, warnings }),
        Err((name, reason)) => Err(Error::Value { name, reason }),
    }
}

/// The process's environment; variables that are not UTF-8 are left out.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The variables that set something, ours in place of Kuma's where both exist.
fn variables(
    schema: &Schema,
    environment: impl IntoIterator<Item = (String, String)>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(&'static Setting, String, String)>, Error> {
    let mut ours = BTreeMap::new();
    let mut kumas = BTreeMap::new();
    for (name, text) in environment {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            ours.insert(rest.to_owned(), text);
        } else if let Some(rest) = name.strip_prefix(KUMA_PREFIX) {
            kumas.insert(rest.to_owned(), text);
        }
    }
    let find =
        |name: &str| schema.settings.iter().find(|setting| !setting.env.is_empty() && setting.env == name);
    let meaningless = |name: &str| schema.meaningless.iter().find(|m| !m.env.is_empty() && m.env == name);
    let mut found = Vec::new();
    for (name, text) in kumas {
        let variable = format!("{KUMA_PREFIX}{name}");
        if let Some(setting) = find(&name) {
            if !ours.contains_key(&name) {
                found.push((setting, variable, text));
            }
        } else if let Some(known) = meaningless(&name) {
            warnings.push(format!("environment variable {variable} has no effect: {}", known.instead));
        }
    }
    for (name, text) in ours {
        let variable = format!("{PREFIX}{name}");
        if let Some(setting) = find(&name) {
            found.push((setting, variable, text));
        } else if let Some(known) = meaningless(&name) {
            warnings.push(format!("environment variable {variable} has no effect: {}", known.instead));
        } else if !schema.reserved.contains(&name.as_str()) && !is_service_link(&name, &text) {
            let nearest =
                overlay::nearest(&name, schema.settings.iter().map(|s| s.env).filter(|e| !e.is_empty()));
            let nearest = nearest.map(|nearest| format!("{PREFIX}{nearest}"));
            return Err(Error::Unknown { what: "environment variable", name: variable, nearest });
        }
    }
    Ok(found)
}

/// Kubernetes puts variables for every Service of a namespace into each container
/// (`<SERVICE>_SERVICE_HOST`, `<SERVICE>_PORT_5681_TCP_ADDR`, …); a Service called `graticule-…` must not
/// keep a control plane from starting.
fn is_service_link(name: &str, text: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || text.starts_with("tcp://")
        || text.starts_with("udp://")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.contains("_TCP") || rest.contains("_UDP"))
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { path: path.into(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::Syntax {
            path: path.into(),
            reason: format!("is larger than {FILE_BYTES_MAX} bytes"),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
