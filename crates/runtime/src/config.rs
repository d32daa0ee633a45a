//! Settings: defaults, then a YAML file, then environment variables.
//!
//! A program describes its settings in a table ([`Schema`]): path in the file, variable without prefix,
//! documentation. The types come from the `Default` value of the program's own settings struct. Variables
//! are read as `GRATICULE_<name>` and as `KUMA_<name>`; the former wins. What Kuma knows and the program does not
//! use ([`Foreign`]) gives a warning, what nobody knows is an error that names the nearest known name.

mod overlay;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use graticule_settings::nearest;
pub use graticule_settings::{Fate, Foreign, KUMA_PREFIX, PREFIX, Setting};

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All names that a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Its settings.
    pub settings: &'static [Setting],
    /// Kuma's other settings.
    pub foreign: &'static [Foreign],
    /// Further variables with our prefix (named without it) that other programs, other parts of this one or its
    /// tests read. A `*` at the end stands for anything.
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

/// What a configuration means for a program; see [`examine`].
#[derive(Debug)]
pub struct Examined<T> {
    /// The settings; defaults stand in place of what cannot be used.
    pub value: T,
    /// Settings whose value is not the default, ordered by path.
    pub changed: Vec<Changed>,
    /// Settings of Kuma and of the other control plane that are not used, in the order of the sources.
    pub ignored: Vec<Ignored>,
    /// Variables with Kuma's prefix that neither Kuma nor this program knows.
    pub unknown_kuma: Vec<String>,
    /// Everything that cannot be used.
    pub errors: Vec<Error>,
}

/// A setting that is not at its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Path in the file.
    pub path: &'static str,
    /// The value that counts.
    pub value: Value,
    /// The value when nothing is set.
    pub default: Value,
    /// Where the value comes from: `configuration file`, or the name of a variable.
    pub source: String,
}

/// A setting of Kuma that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// `setting a.b` or `environment variable KUMA_A_B`.
    pub name: String,
    /// What comes of it.
    pub fate: Fate,
}

/// Loads settings. `environment` is usually [`environment`]'s.
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
    examine(schema, file, environment)?.into_loaded()
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
    examine_text(schema, file, environment)?.into_loaded()
}

/// Finds out all that a configuration means: values, what is ignored, and every error instead of the first.
///
/// # Errors
/// The program's own defaults do not serialise.
pub fn examine<T>(
    schema: &Schema,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Examined<T>, Error>
where
    T: Serialize + DeserializeOwned + Default,
{
    let text = file.map(|path| (path, read(path)));
    match text {
        None => examine_text(schema, None, environment),
        Some((path, Ok(text))) => examine_text(schema, Some((path, &text)), environment),
        Some((_, Err(error))) => {
            let mut examined = examine_text(schema, None, environment)?;
            examined.errors.insert(0, error);
            Ok(examined)
        }
    }
}

fn examine_text<T>(
    schema: &Schema,
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Examined<T>, Error>
where
    T: Serialize + DeserializeOwned + Default,
{
    let defaults = serde_json::to_value(T::default()).map_err(Error::Defaults)?;
    let mut overlay = overlay::Overlay::new(schema, &defaults);
    if let Some((path, text)) = file {
        match document(path, text) {
            Ok(document) => overlay.file::<T>(document),
            Err(error) => overlay.errors.push(error),
        }
    }
    let variables = variables(schema, environment, &mut overlay);
    for (setting, variable, text) in variables.found {
        overlay.variable::<T>(setting.path, variable, &text);
    }
    let value = overlay.settle::<T>();
    Ok(Examined {
        value,
        changed: overlay.changed(),
        ignored: overlay.ignored,
        unknown_kuma: variables.unknown_kuma,
        errors: overlay.errors,
    })
}

fn document(path: &Path, text: &str) -> Result<Map<String, Value>, Error> {
    let syntax = |reason: String| Error::Syntax { path: path.into(), reason };
    let document: Option<Value> = serde_saphyr::from_str(text).map_err(|error| syntax(error.to_string()))?;
    match document {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(document)) => Ok(document),
        Some(_) => Err(syntax("is not a mapping of settings".into())),
    }
}

impl<T> Examined<T> {
    /// The settings, if all can be used.
    ///
    /// # Errors
    /// The first unknown name or unusable value.
    pub fn into_loaded(mut self) -> Result<Loaded<T>, Error> {
        if !self.errors.is_empty() {
            return Err(self.errors.swap_remove(0));
        }
        let warnings = self.warnings();
        Ok(Loaded { value: self.value, warnings })
    }

    /// One line for each reason why settings are ignored, with all of the settings.
    pub fn warnings(&self) -> Vec<String> {
        let mut by_fate: Vec<(Fate, Vec<&str>)> = Vec::new();
        for ignored in &self.ignored {
            match by_fate.iter_mut().find(|(fate, _)| *fate == ignored.fate) {
                Some((_, names)) => names.push(&ignored.name),
                None => by_fate.push((ignored.fate, vec![&ignored.name])),
            }
        }
        by_fate.iter().map(|(fate, names)| format!("{}: {}", names.join(", "), fate.explain())).collect()
    }
}

/// The process's environment; variables that are not UTF-8 are left out.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Variables that set something: setting, whole name, text.
struct Variables {
    found: Vec<(&'static Setting, String, String)>,
    unknown_kuma: Vec<String>,
}

/// Sorts the environment, ours in place of Kuma's where both exist.
fn variables(
    schema: &Schema,
    environment: impl IntoIterator<Item = (String, String)>,
    overlay: &mut overlay::Overlay<'_>,
) -> Variables {
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
    let foreign = |name: &str| schema.foreign.iter().find(|known| !known.env.is_empty() && known.env == name);
    let mut ignore = |variable: &str, known: &Foreign| {
        let name = format!("environment variable {variable}");
        overlay.ignored.push(Ignored { name, fate: known.fate });
    };
    let (mut found, mut unknown_kuma, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (name, text) in kumas {
        let variable = format!("{KUMA_PREFIX}{name}");
        if let Some(setting) = find(&name) {
            if !ours.contains_key(&name) {
                found.push((setting, variable, text));
            }
        } else if let Some(known) = foreign(&name) {
            ignore(&variable, known);
        } else if !is_reserved(schema, &name) && !is_service_link(&name, &text) {
            unknown_kuma.push(variable);
        }
    }
    for (name, text) in ours {
        let variable = format!("{PREFIX}{name}");
        if let Some(setting) = find(&name) {
            found.push((setting, variable, text));
        } else if let Some(known) = foreign(&name) {
            ignore(&variable, known);
        } else if !is_reserved(schema, &name) && !is_service_link(&name, &text) {
            let known = schema.settings.iter().map(|s| s.env).filter(|env| !env.is_empty());
            let nearest = nearest(&name, known).map(|nearest| format!("{PREFIX}{nearest}"));
            errors.push(Error::Unknown { what: "environment variable", name: variable, nearest });
        }
    }
    overlay.errors.extend(errors);
    Variables { found, unknown_kuma }
}

fn is_reserved(schema: &Schema, name: &str) -> bool {
    schema.reserved.iter().any(|reserved| match reserved.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *reserved,
    })
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
