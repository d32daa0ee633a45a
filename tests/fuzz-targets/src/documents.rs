//! Documents of REST, and names.

use graticule_model::{Family, Kind, Kri, Resource, Status, yaml};
use serde_json::Value;

pub(crate) fn json_proto(data: &[u8]) {
    json(data, Family::Proto);
}

pub(crate) fn json_plugin(data: &[u8]) {
    json(data, Family::Plugin);
}

pub(crate) fn yaml_proto(data: &[u8]) {
    yaml_stream(data, Family::Proto);
}

pub(crate) fn yaml_plugin(data: &[u8]) {
    yaml_stream(data, Family::Plugin);
}

fn json(data: &[u8], family: Family) {
    if let Ok(value) = serde_json::from_slice(data) {
        document(&value, family);
    }
}

fn yaml_stream(data: &[u8], family: Family) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(documents) = yaml::parse_all(text) else { return };
    for value in documents {
        document(&value, family);
        // What the YAML reader understands, the writer can write and the reader read again.
        let written = yaml::to_string(&value).expect("a value can be written");
        let again = yaml::parse_one(&written);
        if !value.is_null() {
            assert!(
                again.as_ref().is_ok_and(|again| *again == value),
                "{value} became {again:?} by {written:?}"
            );
        }
    }
}

/// Documents say their kind; one that does not is tried with all of the family.
fn document(value: &Value, family: Family) {
    let of_family = |kind: &Kind| kind.descriptor().family == family;
    let named = value.get("type").and_then(Value::as_str).and_then(|name| Kind::from_name(name).ok());
    match named.filter(of_family) {
        Some(kind) => resource(kind, value),
        None => Kind::all().filter(of_family).for_each(|kind| resource(kind, value)),
    }
}

/// An empty mesh is read as it is, so that the API can refuse it (it is not the mesh of the path); it is not written.
fn is_storable(resource: &Resource) -> bool {
    resource.kind().descriptor().is_global_scoped() || !resource.meta.mesh.is_empty()
}

/// Whatever is read is written so that it is read as the same again.
fn resource(kind: Kind, value: &Value) {
    if let Some(resource) = Resource::from_rest(kind, value).ok().filter(is_storable) {
        let valid = resource.validate();
        let written = resource.to_rest();
        let again = Resource::from_stored(kind, &written);
        assert_eq!(again.as_ref(), Ok(&resource), "{value} is written as {written}");
        assert_eq!(again.map(|again| again.validate()), Ok(valid), "{value} is written as {written}");
    }
    if let Some(resource) = Resource::from_stored(kind, value).ok().filter(is_storable) {
        let written = resource.to_rest();
        assert_eq!(
            Resource::from_stored(kind, &written).as_ref(),
            Ok(&resource),
            "{value} is written as {written}"
        );
    }
    if let Ok(status) = Status::from_json(kind, value) {
        let written = status.to_json();
        assert_eq!(
            Status::from_json(kind, &written).as_ref(),
            Ok(&status),
            "{value} is written as {written}"
        );
    }
}

pub(crate) fn kri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(kri) = Kri::parse(text) {
        let written = kri.to_string();
        assert_eq!(Kri::parse(&written).as_ref(), Ok(&kri), "{text:?} is written as {written:?}");
        let _ = (kri.plain_key(), kri.hashed_key());
    }
}
