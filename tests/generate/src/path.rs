//! Paths of violations, such as `spec.to[0].default.http`.

use graticule_model::schema::{Form, Schema};
use graticule_model::{Family, Kind};
use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    Entry(usize),
}

/// The steps of a path. Keys of maps that hold dots are not told apart: such a path leads nowhere.
pub(crate) fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut parts = part.split('[');
        if let Some(name) = parts.next().filter(|name| !name.is_empty()) {
            steps.push(Step::Member(name.to_owned()));
        }
        for index in parts.filter_map(|index| index.strip_suffix(']')?.parse().ok()) {
            steps.push(Step::Entry(index));
        }
    }
    steps
}

/// The value at a path.
pub(crate) fn at<'a>(value: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Member(name) => value.get_mut(name.as_str()),
        Step::Entry(index) => value.get_mut(*index),
    })
}

/// The schema at a path of a document.
pub(crate) fn schema_at(kind: Kind, steps: &[Step]) -> Option<&'static Schema> {
    let (mut schema, steps) = match (kind.descriptor().family, steps) {
        (Family::Plugin, [Step::Member(spec), rest @ ..]) if spec == "spec" => (kind.schema(), rest),
        (Family::Plugin, _) => return None,
        (Family::Proto, steps) => (kind.schema(), steps),
    };
    for step in steps {
        schema = match (step, schema.form) {
            (Step::Member(name), Form::Object(fields)) => {
                &fields.iter().find(|field| field.name == name)?.schema
            }
            (Step::Member(_), Form::Map(values)) => values,
            (Step::Entry(_), Form::List(items)) => items,
            _ => return None,
        };
    }
    Some(schema)
}

/// Paths of all fields that a kind's schema has, without indices: `spec.to.default.http`.
pub fn fields(kind: Kind) -> Vec<String> {
    fn walk(path: &str, schema: &Schema, out: &mut Vec<String>) {
        match schema.form {
            Form::Object(fields) => {
                for field in fields {
                    let path = if path.is_empty() {
                        field.name.to_owned()
                    } else {
                        format!("{path}.{}", field.name)
                    };
                    walk(&path, &field.schema, out);
                    out.push(path);
                }
            }
            Form::Map(inner) | Form::List(inner) => walk(path, inner, out),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk(if kind.descriptor().is_plugin() { "spec" } else { "" }, kind.schema(), &mut out);
    out
}
