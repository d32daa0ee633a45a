//! A resource, and its REST form (resources.md §2).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::kinds::registry::{Spec, Status};
use crate::{Family, Key, Kind, Kri, Meta, Violations, schema};

/// The status of kinds that have none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoStatus {}

/// A spec type that the registry knows.
pub trait TypedSpec: Sized {
    /// Its kind.
    const KIND: Kind;
    /// The kind's status type.
    type Status: Default + Clone;
    /// The typed spec, if the kind is right.
    fn peek(spec: &Spec) -> Option<&Self>;
    /// Wraps into the sum type.
    fn wrap(self) -> Spec;
    /// The typed status, if the kind is right.
    fn peek_status(status: &Status) -> Option<&Self::Status>;
    /// Wraps into the sum type.
    fn wrap_status(status: Self::Status) -> Status;
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Metadata.
    pub meta: Meta,
    /// What was decided.
    pub spec: Spec,
    /// What the control plane derived; the empty status for kinds without one.
    pub status: Status,
}

/// Why a document is no resource of its kind.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A value has the wrong type or form; `path` is where, from the start of the decoded value.
    #[error("{message}")]
    Malformed {
        /// Path of the value, may be empty.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The document breaks rules of its schema.
    #[error("{0}")]
    Invalid(Violations),
}

pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    let pruned = drop_nulls(value);
    serde_path_to_error::deserialize(pruned).map_err(|error| DecodeError::Malformed {
        path: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

pub(crate) fn to_value<T: Serialize>(spec: &T) -> Value {
    serde_json::to_value(spec).unwrap_or_else(|_| Value::Object(Map::new()))
}

/// `null` means absent everywhere (policy-engine.md §3.2).
fn drop_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), drop_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(drop_nulls).collect()),
        other => other.clone(),
    }
}

const META_KEYS: [&str; 8] =
    ["type", "mesh", "name", "labels", "kri", "snis", "creationTime", "modificationTime"];

impl Resource {
    /// A resource with an empty status.
    pub fn new<S: TypedSpec>(meta: Meta, spec: S) -> Resource {
        Resource { meta, spec: spec.wrap(), status: Status::empty(S::KIND) }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// The key.
    pub fn key(&self) -> Key {
        Key::new(self.kind(), self.meta.mesh.clone(), self.meta.name.clone())
    }

    /// The KRI, for kinds that have one.
    pub fn kri(&self) -> Option<Kri> {
        Kri::of(self.kind(), &self.meta)
    }

    /// The typed spec, if the kind is right.
    pub fn spec_as<S: TypedSpec>(&self) -> Option<&S> {
        S::peek(&self.spec)
    }

    /// The typed status, if the kind is right.
    pub fn status_of<S: TypedSpec>(&self) -> Option<&S::Status> {
        S::peek_status(&self.status)
    }

    /// Equal in everything that people and zones decide: labels, spec and status, not times and version.
    pub fn same_content(&self, other: &Resource) -> bool {
        self.meta.labels == other.meta.labels && self.spec == other.spec && self.status == other.status
    }

    /// Semantic validation of the spec (not of names and labels, which depend on the request).
    pub fn validate(&self) -> Result<(), Violations> {
        let mut violations = Violations::default();
        self.spec.validate(&self.meta, &mut violations);
        violations.into_result()
    }

    /// Reads the REST form of a write: metadata, spec, and the status if present. KRI and SNIs are ignored.
    ///
    /// # Errors
    /// The outer form or the spec breaks the schema ([`DecodeError::Invalid`], all violations, sorted), or a value
    /// cannot be read although its schema admits it ([`DecodeError::Malformed`], such as a bad duration).
    pub fn from_rest(kind: Kind, value: &Value) -> Result<Resource, DecodeError> {
        Resource::of_members(kind, body_error(kind, value)?)
    }

    /// Reads the REST form of a resource that was admitted before, maybe by another version: as
    /// [`from_rest`](Self::from_rest), but the spec's schema is not checked.
    ///
    /// # Errors
    /// The outer form is wrong, or the spec cannot be read.
    pub fn from_stored(kind: Kind, value: &Value) -> Result<Resource, DecodeError> {
        let members = object(value)?;
        if kind.descriptor().is_plugin() {
            refuse(outer_errors(kind, members))?;
            Resource::of_members(kind, members)
        } else {
            Resource::of_members(kind, body_error(kind, value)?)
        }
    }

    fn of_members(kind: Kind, members: &Map<String, Value>) -> Result<Resource, DecodeError> {
        let descriptor = kind.descriptor();
        let text = |key: &str| members.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mesh = if descriptor.is_global_scoped() {
            String::new()
        } else {
            match members.get("mesh") {
                None | Some(Value::Null) if descriptor.is_plugin() => "default".into(),
                _ => text("mesh"),
            }
        };
        let mut meta = Meta::new(mesh, text("name"));
        if let Some(Value::Object(labels)) = members.get("labels") {
            meta.labels =
                labels.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().into())).collect();
        }
        for (key, target) in
            [("creationTime", &mut meta.creation_time), ("modificationTime", &mut meta.modification_time)]
        {
            if let Some(time) = members
                .get(key)
                .and_then(Value::as_str)
                .filter(|t| *t != UNKNOWN_TIME)
                .and_then(|t| t.parse().ok())
            {
                *target = time;
            }
        }
        let (spec, status) = match descriptor.family {
            Family::Plugin => {
                let spec = Spec::from_json(kind, members.get("spec").unwrap_or(&Value::Null))?;
                let status = match members.get("status") {
                    Some(status @ Value::Object(_)) => Status::from_json(kind, status)?,
                    _ => Status::empty(kind),
                };
                (spec, status)
            }
            Family::Proto => {
                let flat: Map<String, Value> = members
                    .iter()
                    .filter(|(key, _)| !META_KEYS.contains(&key.as_str()))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                (Spec::from_json(kind, &Value::Object(flat))?, Status::empty(kind))
            }
        };
        Ok(Resource { meta, spec, status })
    }

    /// The REST form, with KRI, SNIs and times.
    pub fn to_rest(&self) -> Value {
        let kind = self.kind();
        let descriptor = kind.descriptor();
        let mut out = Map::new();
        out.insert("type".into(), kind.name().into());
        if !self.meta.mesh.is_empty() {
            out.insert("mesh".into(), self.meta.mesh.clone().into());
        }
        out.insert("name".into(), self.meta.name.clone().into());
        out.insert("creationTime".into(), rest_time(self.meta.creation_time).into());
        out.insert("modificationTime".into(), rest_time(self.meta.modification_time).into());
        if !self.meta.labels.is_empty() {
            out.insert("labels".into(), to_value(&self.meta.labels));
        }
        if let Some(kri) = self.kri() {
            out.insert("kri".into(), kri.to_string().into());
        }
        let snis = self.snis();
        if !snis.is_empty() {
            let snis =
                snis.into_iter().map(|(port, sni)| serde_json::json!({"port": port, "sni": sni})).collect();
            out.insert("snis".into(), Value::Array(snis));
        }
        match descriptor.family {
            Family::Plugin => {
                out.insert("spec".into(), self.spec.to_json());
                if descriptor.capabilities.has_status {
                    out.insert("status".into(), self.status.to_json());
                }
            }
            Family::Proto => {
                if let Value::Object(spec) = self.spec.to_json() {
                    out.extend(spec);
                }
            }
        }
        Value::Object(out)
    }

    /// Ports and SNIs of a destination, ascending by port; ports that cannot be encoded are left out.
    pub fn snis(&self) -> Vec<(u32, String)> {
        let Some(kri) = self.kri() else { return Vec::new() };
        let ports: Vec<(u32, String)> = match &self.spec {
            Spec::MeshService(service) => service.ports.iter().map(|p| (p.port, p.section())).collect(),
            Spec::MeshMultiZoneService(service) => {
                service.ports.iter().map(|p| (p.port, p.section())).collect()
            }
            Spec::MeshExternalService(service) => vec![(service.r#match.port, service.section())],
            _ => Vec::new(),
        };
        let mut snis: Vec<(u32, String)> = ports
            .into_iter()
            .filter_map(|(port, section)| Some((port, crate::sni(&kri.clone().with_section(section)).ok()?)))
            .collect();
        snis.sort();
        snis
    }
}

/// How a time that is not known is written.
const UNKNOWN_TIME: &str = "0001-01-01T00:00:00Z";

fn rest_time(time: crate::Timestamp) -> String {
    if time == crate::Timestamp::UNIX_EPOCH { UNKNOWN_TIME.into() } else { time.to_string() }
}

/// The members of a document that has the form of its kind (resources.md §2.2), or what is wrong: for plugin kinds
/// every violation of the outer form and of the spec's schema, sorted.
pub fn body_error(kind: Kind, value: &Value) -> Result<&Map<String, Value>, DecodeError> {
    let members = object(value)?;
    if !kind.descriptor().is_plugin() {
        for key in ["type", "mesh", "name"] {
            if let Some(value) = members.get(key)
                && !value.is_string()
                && !value.is_null()
            {
                return Err(DecodeError::Malformed {
                    path: key.into(),
                    message: format!("{key} must be a string"),
                });
            }
        }
        if let Some(labels) = members.get("labels") {
            let ok = match labels {
                Value::Null => true,
                Value::Object(labels) => labels.values().all(Value::is_string),
                _ => false,
            };
            if !ok {
                let message = "labels must be an object of strings".into();
                return Err(DecodeError::Malformed { path: "labels".into(), message });
            }
        }
        return Ok(members);
    }
    let mut errors = outer_errors(kind, members);
    if let (Some(schema), Some(spec @ Value::Object(_))) = (kind.schema(), members.get("spec")) {
        errors.extend(schema.check("spec", spec));
    }
    refuse(errors)?;
    Ok(members)
}

fn object(value: &Value) -> Result<&Map<String, Value>, DecodeError> {
    let malformed = || DecodeError::Malformed { path: String::new(), message: "expected an object".into() };
    value.as_object().ok_or_else(malformed)
}

fn refuse(mut errors: Vec<String>) -> Result<(), DecodeError> {
    errors.sort();
    let mut violations = Violations::default();
    schema::add_to(&mut violations, errors);
    violations.into_result().map_err(DecodeError::Invalid)
}

/// What is wrong with the members of a plugin resource, apart from what is inside its spec.
fn outer_errors(kind: Kind, members: &Map<String, Value>) -> Vec<String> {
    let mut errors = Vec::new();
    for (key, wanted, required) in [
        ("type", "string", true),
        ("name", "string", true),
        ("spec", "object", true),
        ("mesh", "string", false),
        ("labels", "object", false),
    ] {
        match members.get(key) {
            None if required => errors.push(format!(".{key} in body is required")),
            None => {}
            Some(Value::Null) if key == "mesh" => {}
            Some(found) if schema::type_name(found) != wanted => {
                errors.push(format!(
                    "{key} in body must be of type {wanted}: \"{}\"",
                    schema::type_name(found)
                ));
            }
            Some(Value::String(name)) if key == "type" && name != kind.name() => {
                errors.push(format!("type in body should be one of [{kind}]"));
            }
            Some(Value::Object(labels)) if key == "labels" => {
                for (label, value) in labels.iter().filter(|(_, v)| !v.is_string()) {
                    let found = schema::type_name(value);
                    errors.push(format!("labels.{label} in body must be of type string: \"{found}\""));
                }
            }
            Some(_) => {}
        }
    }
    errors
}
