//! Filling defaults into a document.

use serde_json::Value;

use super::{Default, Form, Schema};

impl Schema {
    /// Sets members that are absent (or `null`) and have a default; an absent object is not made up for the
    /// defaults of its members.
    pub fn fill_defaults(&self, value: &mut Value) {
        match (&self.form, value) {
            (Form::Object(fields), Value::Object(members)) => {
                for field in *fields {
                    match (members.get_mut(field.name), &field.schema.default) {
                        (None | Some(Value::Null), Some(default)) => {
                            members.insert(field.name.into(), default.to_value());
                        }
                        (Some(member), _) => field.schema.fill_defaults(member),
                        (None, None) => {}
                    }
                }
            }
            (Form::Map(values), Value::Object(members)) => {
                members.values_mut().for_each(|member| values.fill_defaults(member));
            }
            (Form::List(items), Value::Array(entries)) => {
                entries.iter_mut().for_each(|entry| items.fill_defaults(entry));
            }
            _ => {}
        }
    }
}

impl Default {
    pub(super) fn to_value(self) -> Value {
        match self {
            Default::Text(text) => text.into(),
            Default::Int(number) => number.into(),
            Default::Bool(flag) => flag.into(),
        }
    }
}
