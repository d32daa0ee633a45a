//! Properties of every kind, on documents that are generated from its schema.

use std::collections::BTreeSet;

use graticule_generate::{Generator, fields};
use graticule_model::schema::json;
use graticule_model::{DecodeError, Kind, Resource, Spec, Status, Violation, yaml};
use proptest::prelude::*;
use serde_json::Value;

/// Documents per kind; each test goes through all kinds.
const CASES: u64 = 60;

/// What is written is what was read: YAML → model → JSON → model → YAML → model.
#[test]
fn valid_documents_survive() {
    for kind in Kind::all() {
        for seed in 0..CASES {
            let document = Generator::new(seed).document(kind);
            let context = format!("{kind}, seed {seed}: {document}");
            let text = yaml::to_string(&document).expect("writes");
            let read = yaml::parse_one(&text).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(read, document, "{context}");
            let resource =
                Resource::from_rest(kind, &read).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(resource.validate(), Ok(()), "{context}");

            let written = resource.to_rest().to_string();
            let again: Value = serde_json::from_str(&written).expect("JSON");
            assert_eq!(Resource::from_rest(kind, &again).as_ref(), Ok(&resource), "{context} → {written}");
            assert_eq!(Resource::from_stored(kind, &again).as_ref(), Ok(&resource), "{context} → {written}");
            let yaml = yaml::to_string(&again).expect("writes");
            let again = yaml::parse_one(&yaml).unwrap_or_else(|error| panic!("{context} → {yaml}: {error}"));
            assert_eq!(Resource::from_rest(kind, &again).as_ref(), Ok(&resource), "{context} → {yaml}");
            assert_eq!(
                Spec::from_json(kind, &resource.spec.to_json()).as_ref(),
                Ok(&resource.spec),
                "{context}"
            );
        }
    }
}

/// A spec and a status read from their text are those that are read from the value of the text.
#[test]
fn texts_say_what_values_say() {
    let (mut direct, mut refused) = (0, 0);
    for kind in Kind::all() {
        for seed in 0..CASES {
            let document = Generator::new(seed).document(kind);
            let resource = Resource::from_rest(kind, &document).expect("valid");
            let value = resource.spec.to_json();
            let context = format!("{kind}, seed {seed}: {value}");
            for text in [resource.spec.to_text(), value.to_string(), value.to_string().replace("{}", "null")]
            {
                let parsed: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(Spec::from_text(kind, &text), Spec::from_json(kind, &parsed), "{context}: {text}");
                direct += usize::from(!text.contains("null"));
            }
            let written: Value = serde_json::from_str(&resource.spec.to_text()).expect("JSON");
            assert_eq!(written, value, "{context}");
            if let Some(damage) = Generator::new(seed).damaged(kind) {
                let spec = damage.document.get("spec").unwrap_or(&damage.document);
                let read = Spec::from_text(kind, &spec.to_string());
                assert_eq!(read, Spec::from_json(kind, spec), "{kind}, seed {seed}: {spec}");
                refused += usize::from(read.is_err());
            }
            let status = Generator::new(seed).admitted(kind.status_schema(), "");
            let read = Status::from_json(kind, &status);
            assert_eq!(Status::from_text(kind, &status.to_string()), read, "{kind} {status}");
            if let Ok(read) = read {
                assert_eq!(Status::from_text(kind, &read.to_text()), Ok(read), "{kind} {status}");
            }
        }
        let error = Spec::from_text(kind, "{").expect_err("no JSON").to_string();
        assert!(error.contains("not JSON"), "{kind}: {error}");
    }
    assert!(direct > 0 && refused > 0, "{direct} texts without null, {refused} refused");
}

/// A schema of its own for each kind's status, so that every member of it is written and read.
#[test]
fn statuses_survive() {
    for kind in Kind::all().filter(|kind| kind.descriptor().capabilities.has_status) {
        for seed in 0..CASES {
            let value = Generator::new(seed).admitted(kind.status_schema(), "");
            let status =
                Status::from_json(kind, &value).unwrap_or_else(|error| panic!("{kind} {value}: {error}"));
            let written = status.to_json();
            assert_eq!(Status::from_json(kind, &written).as_ref(), Ok(&status), "{kind} {value} → {written}");
            lost("status", &value, &written, &mut |path| {
                panic!("{kind} {value} → {written}: {path} is lost")
            });
        }
    }
}

/// Reports members that were read but not written; zeros and empty values may be left out.
fn lost(path: &str, read: &Value, written: &Value, report: &mut dyn FnMut(&str)) {
    let is_empty = match read {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(entries) => entries.is_empty(),
        Value::Object(members) => members.is_empty(),
    };
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => {
            for (key, member) in read {
                lost(&format!("{path}.{key}"), member, written.get(key).unwrap_or(&Value::Null), report);
            }
        }
        (Value::Array(read), Value::Array(written)) if read.len() == written.len() => {
            for (index, (read, written)) in read.iter().zip(written).enumerate() {
                lost(&format!("{path}[{index}]"), read, written, report);
            }
        }
        // Objects that hold nothing but zeros.
        (Value::Object(read), Value::Null) => {
            read.iter()
                .for_each(|(key, member)| lost(&format!("{path}.{key}"), member, &Value::Null, report));
        }
        (read, written) if read == written || is_empty => {}
        _ => report(path),
    }
}

/// Every field of every schema can be used: it is in some valid document.
#[test]
fn every_field_is_used() {
    let mut unused = BTreeSet::new();
    for kind in Kind::all() {
        let mut missing: BTreeSet<String> = fields(kind).into_iter().collect();
        for seed in 0..3000 {
            if missing.is_empty() {
                break;
            }
            seen("", &Generator::new(seed).document(kind), &mut missing);
        }
        unused.extend(missing.into_iter().map(|path| format!("{kind} {path}")));
    }
    assert_eq!(unused, BTreeSet::new());
}

fn seen(path: &str, value: &Value, missing: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                missing.remove(&path);
                seen(&path, member, missing);
                // Members of maps have no place in the path.
                let parent = path.rsplit_once('.').map(|(parent, _)| parent.to_owned()).unwrap_or_default();
                seen(&parent, member, missing);
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| seen(path, entry, missing)),
        _ => {}
    }
}

/// One thing wrong gives an error that names its place.
#[test]
fn invalid_documents_are_refused() {
    for kind in Kind::all() {
        for seed in 0..4 * CASES {
            let Some(damage) = Generator::new(seed).damaged(kind) else { continue };
            let context =
                format!("{kind}, seed {seed}, {} at {}: {}", damage.what, damage.path, damage.document);
            match Resource::from_rest(kind, &damage.document) {
                Ok(resource) => panic!("{context}: was read as {resource:?}"),
                Err(DecodeError::Invalid(violations)) => {
                    assert!(!damage.is_unreadable, "{context}: {violations}");
                    // What is wrong with the outer form has no path (rest-api.md §3).
                    let is_named = |violation: &Violation| {
                        let sentence = format!("{} ", damage.path);
                        violation.path == damage.path
                            || violation.path.is_empty() && violation.message.starts_with(&sentence)
                    };
                    let named = violations.0.iter().any(is_named);
                    assert!(named, "{context}: {violations}");
                }
                Err(DecodeError::Malformed { path, message }) => {
                    let path = if kind.descriptor().is_plugin() { format!("spec.{path}") } else { path };
                    assert_eq!(path, damage.path, "{context}: {message}");
                }
            }
        }
    }
}

/// What a kind's published schema says is what its reader does.
#[test]
fn published_schemas_say_what_is_read() {
    for kind in Kind::all() {
        let schema = json::document(kind);
        let validator =
            jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{kind}: {error}"));
        for seed in 0..CASES {
            let document = Generator::new(seed).document(kind);
            let refused = |error: jsonschema::ValidationError<'_>| panic!("{kind} {document}: {error}");
            validator.validate(&document).unwrap_or_else(refused);
            let resource = Resource::from_rest(kind, &document).expect("valid");
            let written = resource.to_rest();
            let refused = |error: jsonschema::ValidationError<'_>| panic!("{kind} {written}: {error}");
            validator.validate(&written).unwrap_or_else(refused);
            if let Some(damage) = Generator::new(seed).damaged(kind).filter(|damage| !damage.is_unreadable) {
                let context = format!("{kind}: {} at {}: {}", damage.what, damage.path, damage.document);
                assert!(!validator.is_valid(&damage.document), "{context}");
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        proptest::sample::select(vec![
            "spec",
            "to",
            "rules",
            "default",
            "targetRef",
            "kind",
            "networking",
            "labels"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A random place of a valid document gets a random value.
fn splice(document: &mut Value, steps: &[usize], value: Value) {
    let Some((&step, rest)) = steps.split_first() else {
        *document = value;
        return;
    };
    match document {
        Value::Object(members) if !members.is_empty() => {
            let index = step % members.len();
            if let Some(member) = members.values_mut().nth(index) {
                splice(member, rest, value);
            }
        }
        Value::Array(entries) if !entries.is_empty() => {
            let index = step % entries.len();
            splice(&mut entries[index], rest, value);
        }
        _ => *document = value,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever JSON comes, reading and validating give an answer.
    #[test]
    fn any_json_gets_an_answer(
        seed in any::<u64>(),
        index in any::<usize>(),
        steps in proptest::collection::vec(any::<usize>(), 0..7),
        value in any_json(),
    ) {
        let kinds: Vec<Kind> = Kind::all().collect();
        let kind = kinds[index % kinds.len()];
        let mut document = Generator::new(seed).document(kind);
        splice(&mut document, &steps, value);
        let read = [Resource::from_rest(kind, &document), Resource::from_stored(kind, &document)];
        for resource in read.into_iter().flatten() {
            let _ = resource.validate();
            let written = resource.to_rest();
            let again = Resource::from_stored(kind, &written);
            prop_assert_eq!(again.as_ref(), Ok(&resource), "{} {}", kind, document);
        }
        let _ = Status::from_json(kind, &document);
    }
}
