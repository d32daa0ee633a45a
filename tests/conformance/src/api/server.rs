//! The server under test: the router of the API over empty memory stores (conformance/README.md §3.1).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use graticule_api::{Access, Api, Deps, Instance, MeshSetup, NoEnvoyAdmin, NoInspector, Options};
use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Kind, Meta, Mode, Resource, Timestamp, yaml};
use graticule_runtime::{Clock, Random};
use graticule_store::{MemoryStore, Txn};
use serde_json::{Value, json};

use super::case::{self, Case};

/// Zone of a case that names none.
const ZONE: &str = "default";
/// Zone and mesh of the suite `label-validation`.
const LABELS_ZONE: &str = "kuma-4";
const LABELS_MESH: &str = "multizone-label-validation";

/// A fresh server with the resources of the case.
pub(crate) fn start(suite: &str, dir: &Path, case: &Case) -> Result<Router> {
    let is_about_labels = suite == "label-validation";
    let in_folder = |name: &str| dir.iter().any(|part| part == name);
    let is_zone = case.mode.map_or_else(|| in_folder("zone-uni"), |mode| mode == case::Mode::Zone);
    let mode = match (is_zone, case.server.federated || is_about_labels) {
        (false, _) => Mode::Global,
        (true, true) => Mode::FederatedZone,
        (true, false) => Mode::StandaloneZone,
    };
    let zone = case.server.zone_name.as_deref().unwrap_or(if is_about_labels { LABELS_ZONE } else { ZONE });
    let mut options = Options { access: access(case)?, ..Options::default() };
    // Resource managers of the data set guard nothing, and make nothing.
    options.rules.unsafe_delete = true;
    options.rules.skip_origin_validation = case.server.disable_origin_label_validation;
    let store = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let soft = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    let mut resources = preloaded(dir, case)?;
    if is_about_labels {
        resources.push(Resource::new(Meta::new("", LABELS_MESH), Mesh::default()));
    }
    for resource in resources {
        let is_soft = resource.kind().descriptor().capabilities.soft;
        let store = if is_soft { &soft } else { &store };
        let key = resource.key();
        store.commit_now(Txn::put(resource)).with_context(|| key.to_string())?;
    }
    let deps = Deps {
        store,
        soft,
        mode,
        zone: if is_zone { zone.to_owned() } else { String::new() },
        clock: Clock::system(),
        random: Random::seeded(1),
        instance: Instance::default(),
        config: json!({}),
        mesh_setup: MeshSetup::default(),
        backups: graticule_api::Backups::default(),
        inspector: Arc::new(NoInspector),
        admin: Arc::new(NoEnvoyAdmin),
        cluster: graticule_api::NoCluster::shared(),
        federation: graticule_api::NoFederation::shared(),
    };
    Ok(Api::new(options, deps))
}

/// The default access settings with those of the case merged in.
fn access(case: &Case) -> Result<Access> {
    let Some(given) = &case.server.access else { return Ok(Access::default()) };
    let mut given = given.clone();
    if let Value::Object(members) = &mut given {
        // Names the only sort of access control that there is.
        members.remove("type");
    }
    let given = if given.get("static").is_some() { given } else { json!({"static": given}) };
    let mut settings = serde_json::to_value(Access::default())?;
    merge(&mut settings, given);
    serde_json::from_value(settings).context("server.access")
}

/// Objects are merged member by member, everything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Resources straight from the file: no labels are computed, nothing is checked but that they can be read.
fn preloaded(dir: &Path, case: &Case) -> Result<Vec<Resource>> {
    let Some(file) = &case.resources else { return Ok(Vec::new()) };
    let path = dir.join(file);
    let documents = yaml::parse_all(&case::read(&path)?).with_context(|| path.display().to_string())?;
    let resource = |document: &Value| {
        let kind = Kind::from_name(document["type"].as_str().unwrap_or_default())?;
        anyhow::Ok(Resource::from_stored(kind, document)?)
    };
    documents.iter().map(|document| resource(document).with_context(|| file.clone())).collect()
}
