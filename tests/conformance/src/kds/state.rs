//! What one side has been told: resources by kind and wire name, in a form that can be compared.

use std::collections::BTreeMap;

use anyhow::Result;
use graticule_kds::wire;
use graticule_model::{Family, Kind, Status};
use graticule_proto::discovery::{self, DeltaDiscoveryResponse};
use serde_json::{Map, Value, json};

use super::recording::Message;

/// Resources by kind and wire name.
pub(super) type State = BTreeMap<String, BTreeMap<String, Value>>;

/// Applies a recorded response.
pub(super) fn fold_recorded(state: &mut State, message: &Message) {
    let held = state.entry(message.kind().into()).or_default();
    for item in message.decoded["resources"].as_array().into_iter().flatten() {
        let Some(name) = item["name"].as_str() else { continue };
        held.insert(name.into(), shown(message.kind(), &item["resource"]));
    }
    for name in message.decoded["removed_resources"].as_array().into_iter().flatten() {
        held.remove(name.as_str().unwrap_or_default());
    }
}

/// Applies a response of ours.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn fold(state: &mut State, response: &DeltaDiscoveryResponse) -> Result<(), String> {
    if !response.system_version_info.is_empty() {
        return Err("it says something in system_version_info, where Kuma peers say nothing".into());
    }
    if response.control_plane.as_ref().is_none_or(|sender| sender.identifier.is_empty()) {
        return Err("it does not say who sends it".into());
    }
    let held = state.entry(response.type_url.clone()).or_default();
    for item in &response.resources {
        let value = item.resource.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        if *item.version != *wire::version_of(value) {
            return Err(format!("{}: its version is not the hash of its bytes", item.name));
        }
        held.insert(item.name.clone(), decoded(&response.type_url, item)?);
    }
    for name in &response.removed_resources {
        held.remove(name);
    }
    Ok(())
}

/// A resource of ours in the form of the recordings.
fn decoded(kind: &str, item: &discovery::Resource) -> Result<Value, String> {
    let kind = Kind::from_name(kind).map_err(|error| error.to_string())?;
    let resource = wire::decode(kind, item).map_err(|error| error.to_string())?;
    let message = wire::to_message(&resource).map_err(|error| error.to_string())?;
    let mut meta = json!({"name": resource.meta.name, "labels": resource.meta.labels});
    if !resource.meta.mesh.is_empty() {
        meta["mesh"] = resource.meta.mesh.clone().into();
    }
    let spec = match kind.descriptor().family {
        Family::Plugin => resource.spec.to_json(),
        _ => {
            let Value::Object(mut members) = resource.to_rest() else { return Err("no object".into()) };
            members.retain(|key, _| !NOT_SPEC.contains(&key.as_str()));
            Value::Object(members)
        }
    };
    let mut recorded = json!({
        "meta": meta,
        "spec_type_url": message.spec.map(|any| any.type_url).unwrap_or_default(),
        "spec": spec,
    });
    if resource.status != Status::empty(kind) {
        recorded["status"] = resource.status.to_json();
    }
    Ok(shown(kind.name(), &recorded))
}

/// Members of the REST form that are not of the spec.
const NOT_SPEC: [&str; 8] =
    ["type", "name", "mesh", "labels", "creationTime", "modificationTime", "kri", "status"];

/// What is compared of a resource: everything but what differs from run to run.
fn shown(kind: &str, resource: &Value) -> Value {
    let mut shown = resource.clone();
    let Some(members) = shown.as_object_mut() else { return shown };
    members.remove("status_type_url");
    if members.get("status").is_some_and(is_empty) {
        members.remove("status");
    }
    if let Some(meta) = members.get_mut("meta").and_then(Value::as_object_mut) {
        meta.entry("labels").or_insert_with(|| Value::Object(Map::new()));
    }
    if kind == "DataplaneInsight" {
        members.insert("spec".into(), "<counters>".into());
    }
    blur(&mut shown);
    shown
}

fn is_empty(value: &Value) -> bool {
    // The reference leaves the frame of what it cleared.
    value.as_object().is_some_and(|members| members.values().all(is_empty)) || value.is_null()
}

/// Replaces keys, certificates and identities by their form; numbers that are written as text by the text.
pub(super) fn blur(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(form) = form(text) {
                *text = form.into();
            }
        }
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Array(items) => items.iter_mut().for_each(blur),
        Value::Object(members) => members.values_mut().for_each(blur),
        Value::Null | Value::Bool(_) => {}
    }
}

/// The form of a text that is another one in every run.
fn form(text: &str) -> Option<&'static str> {
    // Base64 of `-----BEGIN` and of the first letters of a token.
    if text.starts_with("LS0tLS1CRUdJTi") {
        return Some("<base64 of PEM>");
    }
    if text.starts_with("ZXlKaGJHY2lP") {
        return Some("<base64 of a token>");
    }
    if text.starts_with("-----BEGIN ") {
        return Some("<PEM>");
    }
    let parts: Vec<&str> = text.split('-').collect();
    let is_uuid = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_uuid.then_some("<uuid>")
}
