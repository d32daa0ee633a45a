//! The file with the control planes that a person works with. It has kumactl's form (rest-api.md appendix A), so
//! either program reads the other's; members that are not known stay in it.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::client::Target;

/// Where a control plane is that nobody configured.
pub(crate) const LOCAL_ADDRESS: &str = "http://localhost:5681";
/// Its name.
pub(crate) const LOCAL_NAME: &str = "local";

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Contexts {
    /// Control planes.
    #[serde(default)]
    pub(crate) control_planes: Vec<ControlPlane>,
    /// Names that people switch between.
    #[serde(default)]
    pub(crate) contexts: Vec<Named>,
    /// The active one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) current_context: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ControlPlane {
    /// Its name here.
    pub(crate) name: String,
    /// How to reach it.
    #[serde(default)]
    pub(crate) coordinates: Coordinates,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// How to reach a control plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Coordinates {
    #[serde(default)]
    pub(crate) api_server: ApiServer,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Its REST API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiServer {
    #[serde(default)]
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) ca_cert_file: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) client_cert_file: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) client_key_file: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) headers: Vec<Header>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) auth_type: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) auth_conf: Map<String, Value>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skip_verify: bool,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

/// A header of every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// A context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) control_plane: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) defaults: Option<Defaults>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What a context presets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Defaults {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) mesh: String,
}

impl Default for Contexts {
    fn default() -> Contexts {
        let mut contexts = Contexts {
            control_planes: Vec::new(),
            contexts: Vec::new(),
            current_context: String::new(),
            others: Map::new(),
        };
        contexts.put(LOCAL_NAME, ApiServer { url: LOCAL_ADDRESS.into(), ..ApiServer::default() });
        contexts
    }
}

impl Contexts {
    fn put(&mut self, name: &str, api_server: ApiServer) {
        let coordinates = Coordinates { api_server, others: Map::new() };
        match self.control_planes.iter_mut().find(|plane| plane.name == name) {
            Some(plane) => plane.coordinates = coordinates,
            None => {
                self.control_planes.push(ControlPlane { name: name.into(), coordinates, others: Map::new() })
            }
        }
        if !self.contexts.iter().any(|context| context.name == name) {
            self.contexts.push(Named {
                name: name.into(),
                control_plane: name.into(),
                defaults: None,
                others: Map::new(),
            });
        }
        self.current_context = name.into();
    }

    /// Adds a control plane and makes it the active one.
    ///
    /// # Errors
    /// There is one of this name and it may not be replaced.
    pub(crate) fn add(&mut self, name: &str, api_server: ApiServer, overwrite: bool) -> Result<()> {
        if !overwrite && self.control_planes.iter().any(|plane| plane.name == name) {
            bail!(
                "Control Plane with name \"{name}\" already exists. Use --overwrite to replace an existing one."
            );
        }
        self.put(name, api_server);
        Ok(())
    }

    /// Makes a control plane the active one.
    pub(crate) fn switch(&mut self, name: &str) -> Result<()> {
        ensure!(self.contexts.iter().any(|context| context.name == name), self.no_such(name));
        self.current_context = name.into();
        Ok(())
    }

    /// Forgets a control plane; if it was the active one, the first of the others is.
    pub(crate) fn remove(&mut self, name: &str) -> Result<()> {
        ensure!(self.control_planes.iter().any(|plane| plane.name == name), self.no_such(name));
        self.control_planes.retain(|plane| plane.name != name);
        self.contexts.retain(|context| context.name != name && context.control_plane != name);
        if !self.contexts.iter().any(|context| context.name == self.current_context) {
            self.current_context =
                self.contexts.first().map(|context| context.name.clone()).unwrap_or_default();
        }
        Ok(())
    }

    fn no_such(&self, name: &str) -> String {
        let known: Vec<&str> = self.contexts.iter().map(|context| context.name.as_str()).collect();
        format!("there is no Control Plane with name \"{name}\"; there are: {}", known.join(", "))
    }

    /// The active control plane, or the one of the context `name`; with the mesh that the context presets.
    pub(crate) fn target(&self, name: Option<&str>) -> Result<(Target, Option<String>)> {
        let wanted = name.unwrap_or(&self.current_context);
        if wanted.is_empty() {
            return Ok((Target { address: LOCAL_ADDRESS.into(), ..Target::default() }, None));
        }
        let context = self.contexts.iter().find(|context| context.name == wanted);
        let context = context.with_context(|| self.no_such(wanted))?;
        let plane = self.control_planes.iter().find(|plane| plane.name == context.control_plane);
        let plane = plane.with_context(|| {
            format!(
                "the context \"{wanted}\" names a control plane \"{}\" that is not there",
                context.control_plane
            )
        })?;
        let mesh =
            context.defaults.as_ref().map(|defaults| defaults.mesh.clone()).filter(|mesh| !mesh.is_empty());
        Ok((plane.coordinates.api_server.target(), mesh))
    }
}

impl ApiServer {
    /// How to call it.
    pub(crate) fn target(&self) -> Target {
        let file = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
        let token = self.auth_conf.get("token").and_then(Value::as_str);
        Target {
            address: self.url.clone(),
            token: token.filter(|_| self.auth_type == "tokens").map(str::to_owned),
            ca_cert_file: file(&self.ca_cert_file),
            client_cert_file: file(&self.client_cert_file),
            client_key_file: file(&self.client_key_file),
            skip_verify: self.skip_verify,
            headers: self.headers.iter().map(|header| (header.key.clone(), header.value.clone())).collect(),
        }
    }
}

/// Reads the file; without one, the control plane of this machine.
pub(crate) fn load(path: &Path) -> Result<Contexts> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let hint = || format!("{}: no list of control planes; --no-config leaves it out", path.display());
    if text.trim().is_empty() {
        return Ok(Contexts::default());
    }
    let value = graticule_model::yaml::parse_one(&text).with_context(hint)?;
    serde_json::from_value(value).with_context(hint)
}

/// Writes the file as a whole; it may hold tokens, so nobody else can read it.
pub(crate) fn save(path: &Path, contexts: &Contexts) -> Result<()> {
    let what = || path.display().to_string();
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(what)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside);
    written
        .and_then(|mut file| file.write_all(render(contexts)?.as_bytes()))
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(what)
}

/// The text of the file.
pub(crate) fn render(contexts: &Contexts) -> std::io::Result<String> {
    let value = serde_json::to_value(contexts)?;
    graticule_model::yaml::to_string(&value).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn life_of_a_control_plane() {
        let mut contexts = Contexts::default();
        let global = ApiServer { url: "http://global:5681".into(), ..ApiServer::default() };
        contexts.add("g", global.clone(), false).expect("new");
        assert!(contexts.add("g", global.clone(), false).is_err(), "there is one");
        contexts.add("g", global, true).expect("replaced");
        assert_eq!(contexts.target(None).expect("active").0.address, "http://global:5681");
        assert_eq!(contexts.target(Some("local")).expect("by name").0.address, LOCAL_ADDRESS);
        contexts.switch("local").expect("known");
        assert_eq!(
            contexts.switch("x").expect_err("unknown").to_string(),
            "there is no Control Plane with name \"x\"; there are: local, g"
        );
        contexts.remove("local").expect("known");
        assert_eq!(contexts.current_context, "g");
        contexts.remove("g").expect("known");
        assert!(contexts.remove("g").is_err());
        assert_eq!(contexts.target(None).expect("default").0.address, LOCAL_ADDRESS);
    }

    #[test]
    fn a_file_of_the_reference_survives() {
        let text = "contexts:\n- name: z\n  controlPlane: z\n  defaults: {mesh: demo}\ncontrolPlanes:\n- name: z\n  coordinates:\n    apiServer:\n      url: https://zone:5682\n      authType: tokens\n      authConf: {token: abc}\n      headers: [{key: x-team, value: a}]\n      something: new\ncurrentContext: z\n";
        let value = graticule_model::yaml::parse_one(text).expect("yaml");
        let contexts: Contexts = serde_json::from_value(value).expect("reads");
        let (target, mesh) = contexts.target(None).expect("active");
        assert_eq!((target.token.as_deref(), mesh.as_deref()), (Some("abc"), Some("demo")));
        assert_eq!(target.headers, [("x-team".to_owned(), "a".to_owned())]);
        expect![[r#"
            contexts:
            - controlPlane: z
              defaults:
                mesh: demo
              name: z
            controlPlanes:
            - coordinates:
                apiServer:
                  authConf:
                    token: abc
                  authType: tokens
                  headers:
                  - key: x-team
                    value: a
                  something: new
                  url: https://zone:5682
              name: z
            currentContext: z
        "#]]
        .assert_eq(&render(&contexts).expect("writes"));
    }
}
