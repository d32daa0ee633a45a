//! The published forms: JSON Schema 2020-12, and the structural schema of Kubernetes.

use serde_json::{Map, Value, json};

use super::{Form, Schema};
use crate::{Family, Kind, Scope};

/// Who reads the published form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// JSON Schema 2020-12, and so OpenAPI 3.1.
    JsonSchema,
    /// The structural schema of a Kubernetes custom resource definition.
    Kubernetes,
}

/// Regular expression of a duration in Go notation.
pub const DURATION_PATTERN: &str =
    r"^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)$";
/// Regular expression of a whole number in a text.
const DIGITS_PATTERN: &str = "^[0-9]+$";

impl Schema {
    /// The published form. Proto kinds are read more leniently than they are written: numbers also from decimal
    /// texts, enums also from numbers (resources.md §2.2), and the published form says so.
    pub fn publish(&self, dialect: Dialect, family: Family) -> Value {
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| {
            out.insert(key.to_owned(), value);
        };
        let is_kubernetes = dialect == Dialect::Kubernetes;
        let is_lenient = family == Family::Proto;
        match self.form {
            Form::Object(fields) => {
                put("type", "object".into());
                let members = fields.iter().map(|field| {
                    let mut member = field.schema.publish(dialect, family);
                    member["description"] = field.description.into();
                    (field.name.to_owned(), member)
                });
                let members: Map<String, Value> = members.collect();
                if !members.is_empty() {
                    put("properties", Value::Object(members));
                }
                let is_required = |field: &&super::Field| field.is_required && field.schema.default.is_none();
                let required: Vec<&str> = fields.iter().filter(is_required).map(|f| f.name).collect();
                if !required.is_empty() {
                    put("required", json!(required));
                }
            }
            Form::Map(values) => {
                put("type", "object".into());
                put("additionalProperties", values.publish(dialect, family));
            }
            Form::List(items) => {
                put("type", "array".into());
                put("items", items.publish(dialect, family));
            }
            Form::Text if is_lenient && !self.one_of.is_empty() => match dialect {
                Dialect::JsonSchema => {
                    put("anyOf", json!([{"type": "string", "enum": self.one_of}, {"type": "integer"}]));
                }
                Dialect::Kubernetes => put_int_or_text(&mut put),
            },
            Form::Integer if is_lenient => match dialect {
                Dialect::JsonSchema => {
                    let mut number = json!({"type": "integer"});
                    self.bounds(&mut |key, value| number[key] = value);
                    let mut forms = [number, json!({"type": "string", "pattern": DIGITS_PATTERN})];
                    if self.format == Some("uint64") {
                        forms.reverse();
                    }
                    put("anyOf", json!(forms));
                }
                Dialect::Kubernetes => put_int_or_text(&mut put),
            },
            Form::Text => put("type", "string".into()),
            Form::Duration => {
                put("type", "string".into());
                put("pattern", unescaped(DURATION_PATTERN).into());
            }
            Form::Integer => {
                put("type", "integer".into());
                self.bounds(&mut put);
            }
            Form::Boolean => put("type", "boolean".into()),
            Form::IntOrText if is_kubernetes => put_int_or_text(&mut put),
            Form::IntOrText => put("type", json!(["integer", "string"])),
            Form::Any if is_kubernetes => put("x-kubernetes-preserve-unknown-fields", true.into()),
            Form::Any => {}
        }
        if !is_lenient {
            if !self.one_of.is_empty() {
                put("enum", json!(self.one_of));
            }
            if let Some(default) = self.default {
                put("default", default.to_value());
            }
        }
        if let Some(format) = self.format.filter(|_| matches!(self.form, Form::Text) || !is_lenient) {
            put("format", format.into());
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
        Value::Object(out)
    }

    fn bounds(&self, put: &mut dyn FnMut(&str, Value)) {
        for (key, number) in [("minimum", self.minimum), ("maximum", self.maximum)] {
            if let Some(number) = number {
                put(key, number.into());
            }
        }
    }
}

fn put_int_or_text(put: &mut dyn FnMut(&str, Value)) {
    put("anyOf", json!([{"type": "integer"}, {"type": "string"}]));
    put("x-kubernetes-int-or-string", true.into());
}

/// The two letters µ, as themselves: not every reader knows the escapes.
fn unescaped(pattern: &str) -> String {
    pattern.replace(r"\u00b5", "\u{b5}").replace(r"\u03bc", "\u{3bc}")
}

/// Where the schema of a kind is published, under the address of a control plane.
pub fn path(kind: Kind) -> String {
    format!("/schemas/{kind}.json")
}

/// The JSON Schema of a kind's documents, as REST reads and writes them (resources.md §2.1, §2.2).
pub fn document(kind: Kind) -> Value {
    let mut out = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": path(kind),
        "title": kind.name(),
    });
    if let (Value::Object(out), Value::Object(body)) = (&mut out, body(kind)) {
        out.extend(body);
    }
    out
}

/// [`document`] without the members that say which schema it is, to be put into another document.
pub fn body(kind: Kind) -> Value {
    let descriptor = kind.descriptor();
    let mut properties = json!({
        "type": {"const": kind.name(), "description": "Kind of the resource."},
        "name": {"type": "string", "description": "Name, unique within kind and mesh."},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Labels. Those below `kuma.io/` are set by the control plane or checked by it.",
        },
        "creationTime": read_only(json!({"type": "string", "format": "date-time"}), "When it was stored first."),
        "modificationTime": read_only(json!({"type": "string", "format": "date-time"}), "When it was stored last."),
    });
    let mut required = vec!["type", "name"];
    if descriptor.scope == Scope::Mesh {
        properties["mesh"] = json!({"type": "string", "description": "The mesh that it belongs to."});
        if descriptor.family == Family::Proto {
            required.push("mesh");
        } else {
            properties["mesh"]["default"] = "default".into();
        }
    }
    if !descriptor.short_name.is_empty() {
        let text = json!({"type": "string"});
        properties["kri"] = read_only(text, "Identifier of the resource across the federation.");
    }
    if descriptor.capabilities.destination {
        let sni = json!({"type": "object", "properties": {
            "port": {"type": "integer", "description": "Port of the service."},
            "sni": {"type": "string", "description": "Server name of the port."},
        }});
        let list = json!({"type": "array", "items": sni});
        properties["snis"] = read_only(list, "Server names that clients in other zones use.");
    }
    let spec = kind.schema().publish(Dialect::JsonSchema, descriptor.family);
    match descriptor.family {
        Family::Plugin => {
            properties["spec"] = spec;
            properties["spec"]["description"] = "What is wanted.".into();
            required.push("spec");
        }
        Family::Proto => {
            if let (Value::Object(properties), Some(Value::Object(members))) =
                (&mut properties, spec.get("properties"))
            {
                properties.extend(members.clone());
            }
        }
    }
    if descriptor.capabilities.has_status {
        let status = kind.status_schema().publish(Dialect::JsonSchema, descriptor.family);
        properties["status"] = read_only(status, "What the control plane made of it.");
    }
    json!({
        "description": kind.description(),
        "type": "object",
        "properties": properties,
        "required": required,
    })
}

fn read_only(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema["readOnly"] = true.into();
    schema
}
