//! Repairs a document until validation has nothing to say.

use graticule_model::schema::{Form, Schema};
use graticule_model::{DecodeError, Kind, Resource};
use serde_json::Value;

use crate::Generator;
use crate::path::{Step, at, schema_at, steps};

/// Most changes to one document.
const ROUNDS_MAX: usize = 300;

/// Whether the document is valid in the end.
pub(crate) fn repair(generator: &mut Generator, kind: Kind, document: &mut Value) -> bool {
    for _ in 0..ROUNDS_MAX {
        let paths = wrong(kind, document);
        if paths.is_empty() {
            return true;
        }
        for path in paths {
            fix(generator, kind, document, &path);
        }
    }
    false
}

/// Paths of what is wrong.
fn wrong(kind: Kind, document: &Value) -> Vec<Vec<Step>> {
    let is_plugin = kind.descriptor().is_plugin();
    let violations = match Resource::from_rest(kind, document) {
        Ok(resource) => match resource.validate() {
            Ok(()) => return Vec::new(),
            Err(violations) => violations,
        },
        Err(DecodeError::Invalid(violations)) => violations,
        Err(DecodeError::Malformed { path, .. }) => {
            let path = if is_plugin { format!("spec.{path}") } else { path };
            return vec![steps(&path)];
        }
    };
    let root: &[Step] = if is_plugin { &[Step::Member("spec".into())] } else { &[] };
    let of = |path: &str| {
        let steps = steps(path);
        // A violation outside the spec is about the whole.
        if schema_at(kind, &steps).is_some() { steps } else { root.to_vec() }
    };
    violations.0.iter().map(|violation| of(&violation.path)).collect()
}

/// Changes the value at a path, or one around it.
fn fix(generator: &mut Generator, kind: Kind, document: &mut Value, path: &[Step]) {
    // Mostly the place itself; now and then what is around it.
    let mut path = path;
    while path.len() > 1 && generator.chance(0.3) {
        path = &path[..path.len() - 1];
    }
    let Some(schema) = schema_at(kind, path) else { return };
    if let Some(value) = at(document, path) {
        match (schema.form, generator.index(3)) {
            (Form::Object(_), 0 | 1) => toggle(generator, schema, value),
            (_, 2) if remove(kind, document, path) => {}
            _ => replace(generator, schema, path, document),
        }
    } else if let Some((Step::Member(name), parent)) = path.split_last() {
        let made = generator.admitted(schema, name);
        match at(document, parent) {
            Some(Value::Object(members)) => {
                members.insert(name.clone(), made);
            }
            _ => fix(generator, kind, document, parent),
        }
    }
}

fn replace(generator: &mut Generator, schema: &Schema, path: &[Step], document: &mut Value) {
    let name = path.iter().rev().find_map(|step| match step {
        Step::Member(name) => Some(name.as_str()),
        Step::Entry(_) => None,
    });
    let made = generator.admitted(schema, name.unwrap_or_default());
    match (at(document, path), made) {
        // The root of a proto kind is not the whole document.
        (Some(Value::Object(members)), Value::Object(made)) if path.is_empty() => members.extend(made),
        (Some(value), made) => *value = made,
        (None, _) => {}
    }
}

/// Removes an optional member if it is there, adds it if not.
fn toggle(generator: &mut Generator, schema: &Schema, value: &mut Value) {
    let (Form::Object(fields), Value::Object(members)) = (schema.form, value) else { return };
    let optional: Vec<_> = fields.iter().filter(|field| !field.is_required).collect();
    if optional.is_empty() {
        return;
    }
    let field = optional[generator.index(optional.len())];
    if members.remove(field.name).is_none() {
        members.insert(field.name.to_owned(), generator.admitted(&field.schema, field.name));
    }
}

/// Removes an optional member or an entry; false if it must stay.
fn remove(kind: Kind, document: &mut Value, path: &[Step]) -> bool {
    let Some((last, parent)) = path.split_last() else { return false };
    match (last, schema_at(kind, parent).map(|schema| schema.form), at(document, parent)) {
        (Step::Member(name), Some(Form::Object(fields)), Some(Value::Object(members))) => {
            let is_required = fields.iter().any(|field| field.name == name && field.is_required);
            !is_required && members.remove(name).is_some()
        }
        (Step::Entry(index), _, Some(Value::Array(entries))) if *index < entries.len() => {
            entries.remove(*index);
            true
        }
        _ => false,
    }
}
