//! Cases on disk (conformance/README.md §2, §3).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use graticule_model::yaml;
use serde::Deserialize;
use serde_json::Value;

/// One `case.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Path below the suite; information.
    #[serde(rename = "name")]
    _name: String,
    /// Absent in `label-validation`, where the folder says it.
    pub(crate) mode: Option<Mode>,
    #[serde(default)]
    pub(crate) server: Server,
    /// What the harness must be able to do; ours can forge peers.
    #[serde(default, rename = "requires")]
    _requires: Vec<Ability>,
    /// File of what is stored from the start.
    pub(crate) resources: Option<String>,
    pub(crate) steps: Vec<Step>,
    /// Readable form of the request; information.
    #[serde(default, rename = "input")]
    _input: Option<String>,
}

/// Role of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Zone,
    Global,
}

/// Abilities of a harness.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ability {
    ClientAddress,
}

/// Deviations from the standard server.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) zone_name: Option<String>,
    pub(crate) federated: bool,
    pub(crate) disable_origin_label_validation: bool,
    /// Merged into the access settings.
    pub(crate) access: Option<Value>,
}

/// One request and what its answer must be.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    /// Reason phrase of the recorded status line; information.
    #[serde(default, rename = "statusText")]
    _status_text: Option<String>,
    /// File of the body.
    pub(crate) request: Option<String>,
    /// File of the wanted body.
    pub(crate) response: Option<String>,
    /// JSON pointer → wanted value.
    #[serde(default)]
    pub(crate) response_fields: BTreeMap<String, Value>,
    /// JSON pointers that must lead nowhere.
    #[serde(default)]
    pub(crate) absent_fields: Vec<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) client: Client,
}

/// Where the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Client {
    #[default]
    Loopback,
    External,
}

impl Case {
    pub(crate) fn read(dir: &Path) -> Result<Case> {
        let file = dir.join("case.yaml");
        let text = read(&file)?;
        let value = yaml::parse_one(&text).with_context(|| file.display().to_string())?;
        serde_json::from_value(value).with_context(|| file.display().to_string())
    }
}

/// The text of a file; errors name it.
pub(crate) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

/// Directories below `root` that hold a case, sorted.
pub(crate) fn directories(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        if dir.join("case.yaml").is_file() {
            found.push(dir.clone());
        }
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                queue.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(anyhow!("{} holds no cases", root.display()));
    }
    Ok(found)
}
