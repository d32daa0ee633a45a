//! Documents with one thing wrong.

use graticule_model::schema::{Field, Form, Schema};
use graticule_model::{Family, Kind};
use serde_json::{Value, json};

use crate::Generator;
use crate::path::{at, steps};

/// What was changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Damage {
    /// The document, with one thing wrong.
    pub document: Value,
    /// Where, from the root of the document.
    pub path: String,
    /// What, for messages of tests.
    pub what: &'static str,
    /// The schema admits it: the error comes from reading the text of a duration, a time, or bytes.
    pub is_unreadable: bool,
}

/// A change that makes the document invalid.
struct Change {
    path: String,
    what: &'static str,
    is_unreadable: bool,
    /// `None` removes.
    value: Option<Value>,
}

impl Generator {
    /// A valid document with one random thing made wrong; `None` if the kind has nothing that can be wrong.
    pub fn damaged(&mut self, kind: Kind) -> Option<Damage> {
        for _ in 0..20 {
            let mut document = self.document(kind);
            let mut changes = Vec::new();
            let is_lenient = kind.descriptor().family == Family::Proto;
            let (path, root) = if is_lenient { ("", &document) } else { ("spec", &document["spec"]) };
            collect(path, kind.schema(), root, is_lenient, &mut changes);
            if changes.is_empty() {
                continue;
            }
            let index = self.index(changes.len());
            let Change { path, what, is_unreadable, value } = changes.swap_remove(index);
            apply(&mut document, &path, value);
            return Some(Damage { document, path, what, is_unreadable });
        }
        None
    }
}

fn apply(document: &mut Value, path: &str, value: Option<Value>) {
    let steps = steps(path);
    match value {
        Some(value) => {
            if let Some(place) = at(document, &steps) {
                *place = value;
            }
        }
        None => {
            let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
            let parent = crate::path::steps(parent);
            if let Some(Value::Object(members)) = at(document, &parent) {
                members.remove(name);
            }
        }
    }
}

fn collect(path: &str, schema: &Schema, value: &Value, is_lenient: bool, out: &mut Vec<Change>) {
    let mut add = |what, value| {
        out.push(Change { path: path.to_owned(), what, is_unreadable: false, value: Some(value) })
    };
    if !path.is_empty() {
        wrong_type(schema, &mut add);
    }
    if !is_lenient {
        out_of_bounds(schema, value, &mut add);
    }
    if !schema.one_of.is_empty() {
        add("unknown enum value", "Unheard".into());
    }
    let unreadable = match (schema.form, schema.format) {
        (Form::Duration, _) => Some("10 parrots"),
        (Form::Text, Some("date-time")) => Some("yesterday"),
        (Form::Text, Some("byte")) => Some("*"),
        _ => None,
    };
    if let Some(text) = unreadable {
        let path = path.to_owned();
        out.push(Change { path, what: "unreadable text", is_unreadable: true, value: Some(text.into()) });
    }
    match (schema.form, value) {
        (Form::Object(fields), Value::Object(members)) => {
            for Field { name, schema, is_required, .. } in fields {
                let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                let Some(member) = members.get(*name) else { continue };
                if *is_required && schema.default.is_none() && !is_lenient {
                    let what = "missing member";
                    out.push(Change { path: path.clone(), what, is_unreadable: false, value: None });
                }
                collect(&path, schema, member, is_lenient, out);
            }
        }
        (Form::Map(values), Value::Object(members)) => {
            // Keys with dots cannot be told apart in a path.
            for (key, member) in members.iter().filter(|(key, _)| !key.contains('.')) {
                collect(&format!("{path}.{key}"), values, member, is_lenient, out);
            }
        }
        (Form::List(items), Value::Array(entries)) => {
            for (index, entry) in entries.iter().enumerate() {
                collect(&format!("{path}[{index}]"), items, entry, is_lenient, out);
            }
        }
        _ => {}
    }
}

fn wrong_type(schema: &Schema, add: &mut dyn FnMut(&'static str, Value)) {
    let wrong: &[Value] = match schema.form {
        Form::Object(_) | Form::Map(_) => &[json!("text"), json!([]), json!(5)],
        Form::List(_) => &[json!("text"), json!({}), json!(5)],
        Form::Text | Form::Duration => &[json!({}), json!([]), json!(true)],
        Form::Integer => &[json!("text"), json!({}), json!([]), json!(1.5)],
        Form::Boolean => &[json!("text"), json!({}), json!(5)],
        Form::IntOrText => &[json!({}), json!([]), json!(true)],
        Form::Any => &[],
    };
    wrong.iter().for_each(|value| add("wrong type", value.clone()));
}

fn out_of_bounds(schema: &Schema, value: &Value, add: &mut dyn FnMut(&'static str, Value)) {
    if let Some(minimum) = schema.minimum {
        add("too small", (minimum - 1).into());
    }
    if let Some(maximum) = schema.maximum {
        add("too large", (maximum + 1).into());
    }
    if schema.min_len.is_some_and(|least| least > 0) {
        add("too short", "".into());
    }
    if let Some(most) = schema.max_len {
        add("too long", "a".repeat(most + 1).into());
    }
    if schema.pattern.is_some() {
        add("no match", "Ä ?".into());
    }
    if let Value::Array(entries) = value {
        if schema.min_items.is_some_and(|least| least > 0) {
            add("too few entries", json!([]));
        }
        if let (Some(most), Some(entry)) = (schema.max_items, entries.first()) {
            add("too many entries", vec![entry.clone(); most + 1].into());
        }
    }
}
