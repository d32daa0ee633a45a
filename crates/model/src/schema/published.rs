//! The files that are generated from the schemas and checked in.

use serde_json::Value;

use super::{crd, json};
use crate::{Kind, yaml};

/// Folder of the JSON Schemas in the checkout.
pub const SCHEMAS: &str = "docs/api/schemas";
/// Folder of the custom resource definitions in the checkout.
pub const DEFINITIONS: &str = "deploy/crds";

/// A generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path from the root of the checkout.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// The JSON Schemas of all kinds and the custom resource definitions of those that have one.
pub fn files() -> Vec<File> {
    let schemas = Kind::all()
        .map(|kind| File { path: format!("{SCHEMAS}/{kind}.json"), text: to_json(&json::document(kind)) });
    let definitions = Kind::all().filter_map(|kind| {
        let definition = crd::definition(kind)?;
        let name = definition["spec"]["names"]["plural"].as_str()?.to_owned();
        Some(File { path: format!("{DEFINITIONS}/{}_{name}.yaml", crd::GROUP), text: to_yaml(&definition) })
    });
    schemas.chain(definitions).collect()
}

/// Indented JSON, keys sorted.
pub fn to_json(value: &Value) -> String {
    format!("{:#}\n", sorted(value))
}

/// YAML, keys sorted.
pub fn to_yaml(value: &Value) -> String {
    yaml::to_string(&sorted(value)).unwrap_or_default()
}

/// Whether maps of `serde_json` keep their order or sort depends on what else is built; files must not.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut pairs: Vec<(&String, &Value)> = members.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            Value::Object(pairs.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(entries) => Value::Array(entries.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
