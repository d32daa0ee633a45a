//! Checking a document against a schema.

use serde_json::Value;

use super::{Form, Schema};
use crate::Violations;

impl Schema {
    /// Everything that is wrong with a value at `path`, each as a whole sentence that starts with a path, sorted.
    pub fn check(&self, path: &str, value: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        self.collect(path, value, &mut errors);
        errors.sort();
        errors
    }

    /// The first place where an object or a list is wanted and something else is there, and what is wanted: readers
    /// of proto kinds would take a list for an object whose members have no names.
    pub(crate) fn misshapen(&self, path: &str, value: &Value) -> Option<(String, &'static str)> {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match (&self.form, value) {
            (_, Value::Null) => None,
            (Form::Object(fields), Value::Object(members)) => fields.iter().find_map(|field| {
                let member = members.get(field.name)?;
                field.schema.misshapen(&below(field.name), member)
            }),
            (Form::Map(values), Value::Object(members)) => {
                members.iter().find_map(|(key, member)| values.misshapen(&below(key), member))
            }
            (Form::List(items), Value::Array(entries)) => entries
                .iter()
                .enumerate()
                .find_map(|(index, entry)| items.misshapen(&format!("{path}[{index}]"), entry)),
            (Form::Object(_) | Form::Map(_), _) => Some((path.to_owned(), "an object")),
            (Form::List(_), _) => Some((path.to_owned(), "a list")),
            _ => None,
        }
    }

    fn collect(&self, path: &str, value: &Value, errors: &mut Vec<String>) {
        if value.is_null() {
            return;
        }
        if let Some(wanted) = self.refusal(value) {
            errors.push(format!("{path} in body must be of type {wanted}: \"{}\"", type_name(value)));
            return;
        }
        match (&self.form, value) {
            (Form::Object(fields), Value::Object(members)) => {
                for field in *fields {
                    let path = format!("{path}.{}", field.name);
                    match members.get(field.name) {
                        None | Some(Value::Null) if field.is_required && field.schema.default.is_none() => {
                            errors.push(format!("{path} in body is required"));
                        }
                        None => {}
                        Some(member) => field.schema.collect(&path, member, errors),
                    }
                }
            }
            (Form::Map(values), Value::Object(members)) => {
                for (key, member) in members {
                    values.collect(&format!("{path}.{key}"), member, errors);
                }
            }
            (Form::List(items), Value::Array(entries)) => {
                if self.min_items.is_some_and(|least| entries.len() < least) {
                    let least = self.min_items.unwrap_or_default();
                    errors.push(format!("{path} in body should have at least {least} items"));
                }
                if self.max_items.is_some_and(|most| entries.len() > most) {
                    let most = self.max_items.unwrap_or_default();
                    errors.push(format!("{path} in body should have at most {most} items"));
                }
                for (index, entry) in entries.iter().enumerate() {
                    items.collect(&format!("{path}[{index}]"), entry, errors);
                }
            }
            (Form::Text, Value::String(text)) => self.collect_text(path, text, errors),
            (Form::Integer, Value::Number(number)) => {
                let number = number.as_f64().unwrap_or_default();
                #[expect(clippy::cast_precision_loss, reason = "bounds in schemas are small")]
                let (minimum, maximum) = (self.minimum.map(|n| n as f64), self.maximum.map(|n| n as f64));
                if let Some(minimum) = minimum.filter(|minimum| number < *minimum) {
                    errors.push(format!("{path} in body should be greater than or equal to {minimum}"));
                }
                if let Some(maximum) = maximum.filter(|maximum| number > *maximum) {
                    errors.push(format!("{path} in body should be less than or equal to {maximum}"));
                }
            }
            _ => {}
        }
    }

    fn collect_text(&self, path: &str, text: &str, errors: &mut Vec<String>) {
        if !self.one_of.is_empty() && !self.one_of.contains(&text) {
            errors.push(format!("{path} in body should be one of [{}]", self.one_of.join(" ")));
        }
        let len = text.chars().count();
        if let Some(least) = self.min_len.filter(|least| len < *least) {
            errors.push(format!("{path} in body should be at least {least} chars long"));
        }
        if let Some(most) = self.max_len.filter(|most| len > *most) {
            errors.push(format!("{path} in body should be at most {most} chars long"));
        }
        if let Some(pattern) = self.pattern.filter(|pattern| !(pattern.matches)(text)) {
            errors.push(format!("{path} in body should match '{}'", pattern.text));
        }
    }

    /// The type that the value should have had.
    fn refusal(&self, value: &Value) -> Option<&'static str> {
        let (fits, wanted) = match self.form {
            Form::Object(_) | Form::Map(_) => (value.is_object(), "object"),
            Form::List(_) => (value.is_array(), "array"),
            Form::Text | Form::Duration => (value.is_string(), "string"),
            Form::Integer => (is_whole(value), "integer"),
            Form::Boolean => (value.is_boolean(), "boolean"),
            Form::IntOrText => (is_whole(value) || value.is_string(), "integer,string"),
            Form::Any => (true, ""),
        };
        (!fits).then_some(wanted)
    }
}

/// Adds sentences of [`Schema::check`] as violations: one that starts with a path below `spec` is split after
/// the path, the others have no path (policy-engine.md §8.1).
pub(crate) fn add_to(violations: &mut Violations, sentences: Vec<String>) {
    for sentence in sentences {
        match sentence.split_once(' ') {
            Some((path, message)) if path.starts_with("spec.") => violations.add(path, message),
            _ => violations.add("", sentence),
        }
    }
}

/// Name of a JSON type in messages.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}
