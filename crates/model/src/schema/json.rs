//! The published form: JSON Schema as OpenAPI 3 and Kubernetes read it.

use serde_json::{Map, Value, json};

use super::{Form, Schema};

impl Schema {
    /// The structural schema of a Kubernetes custom resource definition.
    pub fn to_json_schema(&self) -> Value {
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| {
            out.insert(key.to_owned(), value);
        };
        match self.form {
            Form::Object(fields) => {
                put("type", "object".into());
                if !fields.is_empty() {
                    let members = fields.iter().map(|f| (f.name.to_owned(), f.schema.to_json_schema()));
                    put("properties", Value::Object(members.collect()));
                }
                let required: Vec<&str> = fields.iter().filter(|f| f.is_required).map(|f| f.name).collect();
                if !required.is_empty() {
                    put("required", json!(required));
                }
            }
            Form::Map(values) => {
                put("type", "object".into());
                put("additionalProperties", values.to_json_schema());
            }
            Form::List(items) => {
                put("type", "array".into());
                put("items", items.to_json_schema());
            }
            Form::Text => put("type", "string".into()),
            Form::Integer { format } => {
                put("type", "integer".into());
                if let Some(format) = format {
                    put("format", format.into());
                }
            }
            Form::Boolean => put("type", "boolean".into()),
            Form::IntOrText => {
                put("anyOf", json!([{"type": "integer"}, {"type": "string"}]));
                put("x-kubernetes-int-or-string", true.into());
            }
            Form::Any => put("x-kubernetes-preserve-unknown-fields", true.into()),
        }
        if !self.one_of.is_empty() {
            put("enum", json!(self.one_of));
        }
        let numbers = [("minimum", self.minimum), ("maximum", self.maximum)];
        for (key, number) in numbers {
            if let Some(number) = number {
                put(key, number.into());
            }
        }
        let lengths = [
            ("minLength", self.min_len),
            ("maxLength", self.max_len),
            ("minItems", self.min_items),
            ("maxItems", self.max_items),
        ];
        for (key, length) in lengths {
            if let Some(length) = length {
                put(key, length.into());
            }
        }
        if let Some(pattern) = &self.pattern {
            put("pattern", pattern.text.into());
        }
        if let Some(default) = self.default {
            put("default", default.to_value());
        }
        Value::Object(out)
    }
}
