use proptest::prelude::{
    BoxedStrategy, Just, Strategy, TestCaseError, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Map, Value, json};

use super::json::Dialect;
use super::{
    Field, Form, Schema, any, boolean, common, field, int_or_text, int32, list, map, object, one_of, text,
};
use crate::{Family, Kind, Spec};

const SMALL: Schema = object(&[
    field("kind", "Test.", one_of(&["A", "B"])).required(),
    field("size", "Test.", int32().min(1).max(9).default_int(3)),
    field("names", "Test.", list(&text().min_len(1).max_len(3)).min_items(1).max_items(2)),
    field("labels", "Test.", map(&text())),
    field("share", "Test.", int_or_text()),
    field("flag", "Test.", boolean()),
    field("header", "Test.", common::HEADER_NAME),
    field("extra", "Test.", any()),
]);

#[test]
fn sentences() {
    for (value, wanted) in [
        (json!({"kind": "A", "unknown": 1, "extra": [1], "share": "2.5", "size": 2.0}), &[][..]),
        (json!({}), &["spec.kind in body is required"]),
        (json!({"kind": null}), &["spec.kind in body is required"]),
        (json!({"kind": "C"}), &["spec.kind in body should be one of [A B]"]),
        (json!({"kind": 1}), &["spec.kind in body must be of type string: \"number\""]),
        (json!({"kind": "A", "size": 0}), &["spec.size in body should be greater than or equal to 1"]),
        (json!({"kind": "A", "size": 10}), &["spec.size in body should be less than or equal to 9"]),
        (json!({"kind": "A", "size": 1.5}), &["spec.size in body must be of type integer: \"number\""]),
        (json!({"kind": "A", "names": []}), &["spec.names in body should have at least 1 items"]),
        (
            json!({"kind": "A", "names": ["", "abcd", "é"]}),
            &[
                "spec.names in body should have at most 2 items",
                "spec.names[0] in body should be at least 1 chars long",
                "spec.names[1] in body should be at most 3 chars long",
            ],
        ),
        (json!({"kind": "A", "names": "a"}), &["spec.names in body must be of type array: \"string\""]),
        (
            json!({"kind": "A", "labels": {"k": true}}),
            &["spec.labels.k in body must be of type string: \"boolean\""],
        ),
        (
            json!({"kind": "A", "share": 1.5}),
            &["spec.share in body must be of type integer,string: \"number\""],
        ),
        (json!({"kind": "A", "flag": "yes"}), &["spec.flag in body must be of type boolean: \"string\""]),
        (
            json!({"kind": "A", "header": "Upper"}),
            &["spec.header in body should match '^[a-z0-9!#$%&'*+\\-.^_\\x60|~]+$'"],
        ),
    ] {
        assert_eq!(SMALL.check("spec", &value), wanted, "{value}");
    }
}

#[test]
fn defaults() {
    let mut value = json!({"size": null, "labels": {}});
    SMALL.fill_defaults(&mut value);
    assert_eq!(value, json!({"size": 3, "labels": {}}));
}

#[test]
fn published_forms() {
    let published = SMALL.publish(Dialect::JsonSchema, Family::Plugin);
    assert_eq!(published["required"], json!(["kind"]));
    let test = |mut schema: Value| {
        schema["description"] = "Test.".into();
        schema
    };
    let properties = &published["properties"];
    assert_eq!(properties["kind"], test(json!({"type": "string", "enum": ["A", "B"]})));
    let size = json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 9, "default": 3});
    assert_eq!(properties["size"], test(size));
    assert_eq!(properties["labels"]["additionalProperties"], json!({"type": "string"}));
    assert_eq!(properties["extra"], test(json!({})));
    assert_eq!(properties["share"], test(json!({"type": ["integer", "string"]})));

    let lenient = SMALL.publish(Dialect::JsonSchema, Family::Proto);
    let size = json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9},
        {"type": "string", "pattern": "^[0-9]+$"}]});
    assert_eq!(lenient["properties"]["size"], test(size));

    let kubernetes = SMALL.publish(Dialect::Kubernetes, Family::Plugin);
    assert_eq!(kubernetes["properties"]["share"]["x-kubernetes-int-or-string"], json!(true));
    assert_eq!(kubernetes["properties"]["extra"]["x-kubernetes-preserve-unknown-fields"], json!(true));
}

/// Everything about a tree: calls `see` with the path and the field.
fn walk(path: &str, schema: &Schema, see: &mut dyn FnMut(&str, &Field)) {
    match schema.form {
        Form::Object(fields) => {
            for field in fields {
                let path = format!("{path}.{}", field.name);
                see(&path, field);
                walk(&path, &field.schema, see);
            }
        }
        Form::Map(values) => walk(&format!("{path}.*"), values, see),
        Form::List(items) => walk(&format!("{path}[]"), items, see),
        _ => {}
    }
}

#[test]
fn everything_is_described() {
    let is_sentence = |text: &str| {
        let begins = text.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || c == '`');
        begins && text.ends_with('.') && text.len() > 3
    };
    for kind in Kind::all() {
        assert!(is_sentence(kind.description()), "{kind}: {}", kind.description());
        let mut names = Vec::new();
        for (path, schema) in [("spec", kind.schema()), ("status", kind.status_schema())] {
            walk(path, schema, &mut |path, field| {
                assert!(is_sentence(field.description), "{kind} {path}: {:?}", field.description);
                names.push(path.to_owned());
            });
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{kind} has a field twice");
    }
}

/// What is written has a place in the published schemas: no field of a type is forgotten.
#[test]
fn documents_have_no_unknown_fields() {
    let mut found = Vec::new();
    for document in crate::yaml::parse_all(include_str!("../../tests/documents.yaml")).expect("YAML") {
        let kind = Kind::from_name(document["type"].as_str().expect("a type")).expect("a kind");
        let resource = crate::Resource::from_rest(kind, &document).expect("valid");
        found.extend(kind.schema().unknown_members(kind.name(), &resource.spec.to_json()));
        found.extend(kind.status_schema().unknown_members(kind.name(), &resource.status.to_json()));
    }
    assert_eq!(found, Vec::<String>::new());
}

proptest! {
    /// Functions of patterns say the same as their texts.
    #[test]
    fn patterns(text in "[a-z0-9A-Z._%^`~| -]{0,6}") {
        for pattern in [common::HEADER_NAME_PATTERN, common::HOST_PATTERN, common::ATTRIBUTE_KEY_PATTERN] {
            let regex = regex::Regex::new(pattern.text).expect("a regular expression");
            prop_assert_eq!((pattern.matches)(&text), regex.is_match(&text), "{} on {:?}", pattern.text, text);
        }
    }

    /// Whatever a schema admits can be read, survives a round trip, and has the defaults that the schema names.
    #[test]
    fn schemas_and_types_agree((kind, document) in any_document()) {
        let schema = kind.schema();
        prop_assert_eq!(schema.check("spec", &document), Vec::<String>::new(), "{} {}", kind, document);
        let read = |value: &Value| Spec::from_json(kind, value).map_err(|e| TestCaseError::fail(format!("{kind} {value}: {e}")));
        let spec = read(&document)?;
        let written = spec.to_json();
        prop_assert_eq!(schema.check("spec", &written), Vec::<String>::new(), "{} {}", kind, written);
        prop_assert_eq!(&read(&written)?, &spec, "{} {}", kind, written);
        let mut filled = document.clone();
        schema.fill_defaults(&mut filled);
        prop_assert_eq!(&read(&filled)?, &spec, "{} {}", kind, filled);
    }

    /// Checking never fails on any JSON.
    #[test]
    fn any_json_is_checked(kind in any_kind(), (_, document) in any_document()) {
        let schema = kind.schema();
        let errors = schema.check("spec", &document);
        prop_assert!(errors.is_sorted());
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let kinds: Vec<Kind> = Kind::all().filter(|kind| kind.descriptor().is_plugin()).collect();
    proptest::sample::select(kinds)
}

fn any_document() -> impl Strategy<Value = (Kind, Value)> {
    any_kind().prop_flat_map(|kind| (Just(kind), admitted(kind.schema())))
}

/// Documents that a schema admits.
fn admitted(schema: &Schema) -> BoxedStrategy<Value> {
    match schema.form {
        Form::Object(fields) => {
            let members: Vec<BoxedStrategy<Option<(&'static str, Value)>>> = fields
                .iter()
                .map(|field| {
                    let member = admitted(&field.schema).prop_map(|value| Some((field.name, value)));
                    if field.is_required { member.boxed() } else { prop_oneof![Just(None), member].boxed() }
                })
                .collect();
            members
                .prop_map(|members| {
                    let members = members.into_iter().flatten().map(|(name, value)| (name.to_owned(), value));
                    Value::Object(members.collect::<Map<_, _>>())
                })
                .boxed()
        }
        Form::Map(values) => proptest::collection::btree_map("[a-c]", admitted(values), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed(),
        Form::List(items) => {
            let least = schema.min_items.unwrap_or(0);
            let most = schema.max_items.unwrap_or(2).min(2);
            proptest::collection::vec(admitted(items), least..=most).prop_map(Value::Array).boxed()
        }
        Form::Text if !schema.one_of.is_empty() => {
            proptest::sample::select(schema.one_of).prop_map(Value::from).boxed()
        }
        Form::Duration => {
            proptest::sample::select(vec!["10s", "1m30s", "0s", "250ms"]).prop_map(Value::from).boxed()
        }
        Form::Text => {
            let pattern = schema.pattern;
            let texts = ["10s", "web", "a.b"];
            let fits = |text: &&str| pattern.is_none_or(|pattern| (pattern.matches)(text));
            let texts: Vec<&str> = texts.into_iter().filter(fits).collect();
            proptest::sample::select(texts).prop_map(Value::from).boxed()
        }
        Form::Integer => {
            let (least, most) = (schema.minimum.unwrap_or(0), schema.maximum.unwrap_or(1000));
            (least..=most).prop_map(Value::from).boxed()
        }
        Form::Boolean => proptest::bool::ANY.prop_map(Value::from).boxed(),
        Form::IntOrText => prop_oneof![Just(json!(5)), Just(json!("2.5"))].boxed(),
        Form::Any => prop_oneof![Just(json!({"a": [1, "x"]})), Just(json!("text"))].boxed(),
    }
}
