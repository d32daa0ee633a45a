//! A resource, and its REST form (resources.md §2).

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kinds::Validate;
pub use crate::kinds::registry::{Spec, Status};
use crate::schema::{self, Schema};
use crate::{Descriptor, Family, Key, Kind, Kri, Meta, Violations};

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

/// A port of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationPort {
    /// Section of KRIs and SNIs: the name, or the decimal port.
    pub section: String,
    /// Port on the virtual address.
    pub number: u32,
    /// Protocol on the wire, such as `http`; `tcp` where none is declared.
    pub protocol: String,
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

/// Reads the JSON form of a spec and fills schema defaults in.
pub(crate) fn read_spec<S: DeserializeOwned + Validate>(value: &Value) -> Result<S, DecodeError> {
    let mut spec: S = from_value(value)?;
    spec.apply_defaults();
    Ok(spec)
}

pub(crate) fn to_value<T: Serialize>(spec: &T) -> Value {
    serde_json::to_value(spec).unwrap_or_else(|_| Value::Object(Map::new()))
}

pub(crate) fn to_text<T: Serialize>(spec: &T) -> String {
    serde_json::to_string(spec).unwrap_or_else(|_| "{}".into())
}

/// As [`from_value`] of the parsed text, without the value in between when there is no need: stores read many.
pub(crate) fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, DecodeError> {
    // Only the value knows that a null is no member, and where an error is.
    if !text.contains("null")
        && let Ok(read) = serde_json::from_str(text)
    {
        return Ok(read);
    }
    let malformed = |error: serde_json::Error| DecodeError::Malformed {
        path: String::new(),
        message: format!("not JSON: {error}"),
    };
    from_value(&serde_json::from_str(text).map_err(malformed)?)
}

/// As [`read_spec`] of the parsed text.
pub(crate) fn read_spec_text<S: DeserializeOwned + Validate>(text: &str) -> Result<S, DecodeError> {
    let mut spec: S = from_text(text)?;
    spec.apply_defaults();
    Ok(spec)
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
        Resource::of_members(kind, checked_members(kind, Some(kind.schema()), value)?)
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
            Resource::of_members(kind, checked_members(kind, None, value)?)
        }
    }

    fn of_members(kind: Kind, members: &Map<String, Value>) -> Result<Resource, DecodeError> {
        let meta = read_meta(kind.descriptor(), members);
        let spec = Spec::from_json(kind, &spec_of(kind.descriptor(), members))?;
        let status = match members.get("status") {
            Some(status @ Value::Object(_)) if kind.descriptor().is_plugin() => {
                Status::from_json(kind, status)?
            }
            _ => Status::empty(kind),
        };
        Ok(Resource { meta, spec, status })
    }

    /// The REST form, with KRI, SNIs and times.
    pub fn to_rest(&self) -> Value {
        let descriptor = self.kind().descriptor();
        let mut out = write_meta(self.kind(), &self.meta);
        let snis = self.snis();
        if !snis.is_empty() {
            let snis =
                snis.into_iter().map(|(port, sni)| serde_json::json!({"port": port, "sni": sni})).collect();
            out.insert("snis".into(), Value::Array(snis));
        }
        add_spec(&mut out, descriptor, self.spec.to_json());
        if descriptor.is_plugin() && descriptor.capabilities.has_status {
            out.insert("status".into(), self.status.to_json());
        }
        Value::Object(out)
    }

    /// Ports of a destination in their order; none for other kinds.
    pub fn ports(&self) -> Vec<DestinationPort> {
        let port = |number: u32, section: String, protocol: &str| DestinationPort {
            section,
            number,
            protocol: if protocol.is_empty() { "tcp".into() } else { protocol.into() },
        };
        match &self.spec {
            Spec::MeshService(service) => {
                service.ports.iter().map(|p| port(p.port, p.section(), &p.app_protocol)).collect()
            }
            Spec::MeshMultiZoneService(service) => {
                service.ports.iter().map(|p| port(p.port, p.section(), &p.app_protocol)).collect()
            }
            Spec::MeshExternalService(service) => {
                vec![port(service.r#match.port, service.section(), service.r#match.protocol.name())]
            }
            _ => Vec::new(),
        }
    }

    /// Ports and SNIs of a destination, ascending by port; ports that cannot be encoded are left out.
    pub fn snis(&self) -> Vec<(u32, String)> {
        let Some(kri) = self.kri() else { return Vec::new() };
        let mut snis: Vec<(u32, String)> = self
            .ports()
            .into_iter()
            .filter_map(|port| Some((port.number, crate::sni(&kri.clone().with_section(port.section)).ok()?)))
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

/// Metadata of the REST form.
pub(crate) fn read_meta(descriptor: &Descriptor, members: &Map<String, Value>) -> Meta {
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
    meta
}

/// The spec in the REST form: a member of plugin kinds, the members that are not metadata for proto kinds.
pub(crate) fn spec_of<'a>(descriptor: &Descriptor, members: &'a Map<String, Value>) -> Cow<'a, Value> {
    match descriptor.family {
        Family::Plugin => Cow::Borrowed(members.get("spec").unwrap_or(&Value::Null)),
        Family::Proto => {
            let flat = members.iter().filter(|(key, _)| !META_KEYS.contains(&key.as_str()));
            Cow::Owned(Value::Object(flat.map(|(key, value)| (key.clone(), value.clone())).collect()))
        }
    }
}

/// The members of the REST form that every kind has.
pub(crate) fn write_meta(kind: Kind, meta: &Meta) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("type".into(), kind.name().into());
    if !meta.mesh.is_empty() {
        out.insert("mesh".into(), meta.mesh.clone().into());
    }
    out.insert("name".into(), meta.name.clone().into());
    out.insert("creationTime".into(), rest_time(meta.creation_time).into());
    out.insert("modificationTime".into(), rest_time(meta.modification_time).into());
    if !meta.labels.is_empty() {
        out.insert("labels".into(), to_value(&meta.labels));
    }
    if let Some(kri) = Kri::of(kind, meta) {
        out.insert("kri".into(), kri.to_string().into());
    }
    out
}

/// The reverse of [`spec_of`].
pub(crate) fn add_spec(out: &mut Map<String, Value>, descriptor: &Descriptor, spec: Value) {
    match (descriptor.family, spec) {
        (Family::Plugin, spec) => {
            out.insert("spec".into(), spec);
        }
        (Family::Proto, Value::Object(spec)) => out.extend(spec),
        (Family::Proto, _) => {}
    }
}

/// The members of a document that has the form of its kind (resources.md §2.2), or what is wrong: for plugin kinds
/// every violation of the outer form and of the spec's schema, sorted.
pub(crate) fn checked_members<'a>(
    kind: Kind,
    schema: Option<&Schema>,
    value: &'a Value,
) -> Result<&'a Map<String, Value>, DecodeError> {
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
        if let Some((path, wanted)) = kind.schema().misshapen("", value) {
            return Err(DecodeError::Malformed { message: format!("{path} must be {wanted}"), path });
        }
        return Ok(members);
    }
    let mut errors = outer_errors(kind, members);
    if let (Some(schema), Some(spec @ Value::Object(_))) = (schema, members.get("spec")) {
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
