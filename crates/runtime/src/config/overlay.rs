//! Laying one source of settings over another, as JSON values; pure.

use std::collections::BTreeMap;

use graticule_settings::nearest;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Changed, Error, Ignored, Schema};

/// What a value from the file is said to come from.
const FILE: &str = "configuration file";

/// A tree of values that starts with the defaults, and what was noticed on the way.
pub(super) struct Overlay<'a> {
    schema: &'a Schema,
    defaults: &'a Value,
    value: Value,
    /// Setting → where its value comes from.
    sources: BTreeMap<&'static str, String>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) errors: Vec<Error>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(schema: &'a Schema, defaults: &'a Value) -> Self {
        let (sources, ignored, errors) = (BTreeMap::new(), Vec::new(), Vec::new());
        Overlay { schema, defaults, value: defaults.clone(), sources, ignored, errors }
    }

    /// Lays a file's document over the values.
    pub(super) fn file<T: DeserializeOwned + Default>(&mut self, document: Map<String, Value>) {
        let mut value = std::mem::take(&mut self.value);
        self.merge("", &mut value, document);
        self.value = value;
        // Here, so that an error names the file's key and not a variable.
        self.settle::<T>();
    }

    fn merge(&mut self, parent: &str, target: &mut Value, document: Map<String, Value>) {
        for (key, value) in document {
            let path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
            let schema = self.schema;
            if let Some(known) = schema.foreign.iter().find(|known| is_at_or_below(&path, known.path)) {
                self.ignored.push(Ignored { name: format!("setting {path}"), fate: known.fate });
                continue;
            }
            if let Some(setting) = schema.settings.iter().find(|setting| setting.path == path) {
                // An empty key ("port:") keeps the default.
                if !value.is_null() {
                    *child(target, &key) = value;
                    self.sources.insert(setting.path, FILE.into());
                }
                continue;
            }
            let mut known =
                schema.settings.iter().map(|s| s.path).chain(schema.foreign.iter().map(|f| f.path));
            if !known.any(|known| is_at_or_below(known, &path)) {
                let nearest = nearest(&path, prefixes(schema.settings.iter().map(|s| s.path)));
                self.errors.push(Error::Unknown { what: "setting", name: path, nearest });
                continue;
            }
            match value {
                Value::Null => {}
                Value::Object(below) => {
                    // Where nothing below is used, the settings have no such section.
                    let has_own = schema.settings.iter().any(|setting| is_at_or_below(setting.path, &path));
                    let mut nowhere = Value::Null;
                    let section = if has_own { child(target, &key) } else { &mut nowhere };
                    self.merge(&path, section, below);
                }
                _ => {
                    let reason = "must be a mapping of settings".into();
                    self.errors.push(Error::Value { name: path, reason });
                }
            }
        }
    }

    /// Lays the text of a variable over the values.
    pub(super) fn variable<T: DeserializeOwned>(&mut self, path: &'static str, name: String, text: &str) {
        match set::<T>(&mut self.value, path, text) {
            Ok(()) => {
                self.sources.insert(path, name);
            }
            Err(reason) => self.errors.push(Error::Value { name, reason }),
        }
    }

    /// Reads the settings out of the values; what cannot be read is an error and gets its default back.
    pub(super) fn settle<T: DeserializeOwned + Default>(&mut self) -> T {
        for _ in 0..=self.schema.settings.len() {
            let (path, reason) = match check::<T>(&self.value) {
                Ok(value) => return value,
                Err(error) => error,
            };
            let at = |setting: &&str| path.strip_prefix(*setting).is_some_and(ends_name);
            let setting = self.schema.settings.iter().map(|setting| setting.path).find(at);
            self.errors.push(Error::Value { name: path.clone(), reason });
            let Some(setting) = setting else { break };
            let default = value_at(self.defaults, setting);
            *slot(&mut self.value, setting) = default;
            self.sources.remove(setting);
        }
        self.value = self.defaults.clone();
        self.sources.clear();
        T::default()
    }

    /// Settings whose value is not the default.
    pub(super) fn changed(&self) -> Vec<Changed> {
        let changed = |(path, source): (&&'static str, &String)| {
            let value = value_at(&self.value, path);
            let default = value_at(self.defaults, path);
            (value != default).then(|| Changed { path, value, default, source: source.clone() })
        };
        self.sources.iter().filter_map(changed).collect()
    }
}

fn value_at(values: &Value, path: &str) -> Value {
    path.split('.').try_fold(values, |value, key| value.get(key)).cloned().unwrap_or_default()
}

fn slot<'v>(value: &'v mut Value, path: &str) -> &'v mut Value {
    path.split('.').fold(value, |value, key| child(value, key))
}

/// Whether a name ends before `rest`: nothing, a member or an index follows.
fn ends_name(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

/// Reads the settings out of a value; an error is (path, reason).
fn check<T: DeserializeOwned>(value: &Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| (error.path().to_string(), error.inner().to_string()))
}

fn is_at_or_below(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The paths and all their parents.
fn prefixes<'a>(paths: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    paths.flat_map(|path| path.match_indices('.').map(|(end, _)| &path[..end]).chain([path]))
}

/// The member `key`; anything that is no object becomes one.
fn child<'a>(target: &'a mut Value, key: &str) -> &'a mut Value {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    &mut target[key]
}

/// Sets the value at `path` from the text of a variable, in the form that the settings accept there.
fn set<T: DeserializeOwned>(value: &mut Value, path: &str, text: &str) -> Result<(), String> {
    let old = slot(value, path).clone();
    let mut reason = None;
    for candidate in candidates(&old, text)? {
        *slot(value, path) = candidate;
        match check::<T>(value) {
            Ok(_) => return Ok(()),
            Err((_, error)) => reason.get_or_insert(error),
        };
    }
    *slot(value, path) = old;
    Err(reason.unwrap_or_else(|| format!("{text:?} cannot be used")))
}

/// What a text may mean, likeliest first, given the value that it replaces.
fn candidates(old: &Value, text: &str) -> Result<Vec<Value>, String> {
    let string = || Value::String(text.to_owned());
    Ok(match old {
        Value::Bool(_) => vec![Value::Bool(boolean(text)?)],
        Value::Number(_) => {
            vec![scalar(text).filter(Value::is_number).ok_or_else(|| format!("{text:?} is not a number"))?]
        }
        Value::String(_) => vec![string()],
        Value::Array(_) => list(text)?,
        Value::Object(_) => vec![mapping(text)?],
        // The default is "not set", which says nothing about the type.
        Value::Null => [Some(string()), scalar(text)].into_iter().flatten().chain(list(text)?).collect(),
    })
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" | "True" | "TRUE" | "1" | "t" | "T" => Ok(true),
        "false" | "False" | "FALSE" | "0" | "f" | "F" => Ok(false),
        _ => Err(format!("{text:?} is not true or false")),
    }
}

fn scalar(text: &str) -> Option<Value> {
    serde_saphyr::from_str::<Value>(text).ok().filter(|value| !value.is_object() && !value.is_array())
}

/// `a,b,c`, as texts or as numbers; also a YAML list in brackets.
fn list(text: &str) -> Result<Vec<Value>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(vec![Value::Array(Vec::new())]);
    }
    if text.starts_with('[') {
        return serde_saphyr::from_str(text).map(|value| vec![value]).map_err(|error| error.to_string());
    }
    let parts = || text.split(',').map(str::trim);
    let texts = parts().map(|part| Value::String(part.to_owned())).collect();
    let scalars: Option<Vec<Value>> = parts().map(scalar).collect();
    Ok([Some(texts), scalars].into_iter().flatten().map(Value::Array).collect())
}

/// `key:value,key:value`; also a YAML mapping in braces.
fn mapping(text: &str) -> Result<Value, String> {
    let text = text.trim();
    if text.starts_with('{') {
        return serde_saphyr::from_str(text).map_err(|error| error.to_string());
    }
    let mut map = Map::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (key, value) =
            part.split_once(':').ok_or_else(|| format!("{part:?} is not of the form key:value"))?;
        map.insert(key.trim().to_owned(), Value::String(value.trim().to_owned()));
    }
    Ok(Value::Object(map))
}
