//! Members that no schema knows: they are ignored when a document is read, which is seldom what its author meant.

use serde_json::Value;

use super::{Form, Schema};

impl Schema {
    /// Paths of the members of `value` that are read by nobody, in the order of the document.
    pub fn unknown_members(&self, path: &str, value: &Value) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_unknown(path, value, &mut paths);
        paths
    }

    fn collect_unknown(&self, path: &str, value: &Value, paths: &mut Vec<String>) {
        match (&self.form, value) {
            (Form::Object(fields), Value::Object(members)) => {
                for (key, member) in members {
                    let path = format!("{path}.{key}");
                    match fields.iter().find(|field| field.name == key) {
                        Some(field) => field.schema.collect_unknown(&path, member, paths),
                        None => paths.push(path),
                    }
                }
            }
            (Form::Map(values), Value::Object(members)) => {
                for (key, member) in members {
                    values.collect_unknown(&format!("{path}.{key}"), member, paths);
                }
            }
            (Form::List(items), Value::Array(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    items.collect_unknown(&format!("{path}[{index}]"), entry, paths);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Kind;

    #[test]
    fn paths_of_unknown_members() {
        let schema = Kind::MeshTimeout.schema();
        let spec = json!({
            "to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimout": "3s", "http": {"requestTimeout": "1s"}}}],
            "form": [],
        });
        let mut found = schema.unknown_members("spec", &spec);
        found.sort();
        assert_eq!(found, ["spec.form", "spec.to[0].default.idleTimout"]);
    }
}
