//! Laying one source of settings over another, as JSON values; pure.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Error, Schema};

/// Most names are within this distance of what was meant.
const DISTANCE_MAX: usize = 8;

/// Reads the settings out of a value; an error is (path, reason).
pub(super) fn check<T: DeserializeOwned>(value: &Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| (error.path().to_string(), error.inner().to_string()))
}

/// Lays a file's document over `target`.
pub(super) fn merge(
    schema: &Schema,
    target: &mut Value,
    document: Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    merge_below(schema, "", target, document, warnings)
}

fn merge_below(
    schema: &Schema,
    parent: &str,
    target: &mut Value,
    document: Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    for (key, value) in document {
        let path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
        if let Some(known) = schema.meaningless.iter().find(|m| is_at_or_below(&path, m.path)) {
            warnings.push(format!("setting {path} has no effect: {}", known.instead));
            continue;
        }
        let is_leaf = schema.settings.iter().any(|setting| setting.path == path);
        if is_leaf {
            // An empty key ("port:") keeps the default.
            if !value.is_null() {
                *child(target, &key) = value;
            }
            continue;
        }
        let known = schema.settings.iter().map(|s| s.path).chain(schema.meaningless.iter().map(|m| m.path));
        if !known.clone().any(|known| is_at_or_below(known, &path)) {
            let nearest = nearest(&path, prefixes(schema.settings.iter().map(|s| s.path)));
            return Err(Error::Unknown { what: "setting", name: path, nearest });
        }
        match value {
            Value::Null => {}
            Value::Object(below) => {
                // Where nothing below means anything, the settings have no such section.
                let has_own = schema.settings.iter().any(|setting| is_at_or_below(setting.path, &path));
                let mut nowhere = Value::Null;
                let section = if has_own { child(target, &key) } else { &mut nowhere };
                merge_below(schema, &path, section, below, warnings)?;
            }
            _ => return Err(Error::Value { name: path, reason: "must be a mapping of settings".into() }),
        }
    }
    Ok(())
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
pub(super) fn set<T: DeserializeOwned>(value: &mut Value, path: &str, text: &str) -> Result<(), String> {
    let slot = path.split('.').fold(&mut *value, |value, key| child(value, key));
    let old = slot.clone();
    let mut reason = None;
    for candidate in candidates(&old, text)? {
        *path.split('.').fold(&mut *value, |value, key| child(value, key)) = candidate;
        match check::<T>(value) {
            Ok(_) => return Ok(()),
            Err((_, error)) => reason.get_or_insert(error),
        };
    }
    *path.split('.').fold(&mut *value, |value, key| child(value, key)) = old;
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

/// The known name with the smallest edit distance, unless all are far away.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = (name.chars().count() / 2).clamp(1, DISTANCE_MAX);
    known
        .map(|known| (distance(name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known.to_owned())
}

/// Insertions, deletions, replacements and swaps of neighbours between two names, case ignored.
fn distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|name| name.chars().flat_map(char::to_lowercase).collect::<Vec<_>>());
    // rows[i][j]: distance between the first i characters of a and the first j of b.
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let shortest = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { shortest.min(rows[i - 2][j - 2] + 1) } else { shortest }
            };
        }
    }
    rows[a.len()][b.len()]
}
