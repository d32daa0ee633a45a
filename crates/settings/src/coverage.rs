//! Compares a table of settings with the type that it describes.

use serde_json::Value;

use crate::Setting;

/// One line for each setting that the tree of default values does not have, and for each value in the tree that
/// no setting describes. For tests.
pub fn uncovered(settings: &[Setting], defaults: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for setting in settings {
        if defaults.pointer(&format!("/{}", setting.path.replace('.', "/"))).is_none() {
            found.push(format!("{} is in the table and not in the type", setting.path));
        }
    }
    visit(settings, "", defaults, &mut found);
    found
}

fn visit(settings: &[Setting], path: &str, value: &Value, found: &mut Vec<String>) {
    if settings.iter().any(|setting| setting.path == path) {
        return;
    }
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                visit(settings, &path, value, found);
            }
        }
        _ => found.push(format!("{path} is in the type and not in the table")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::setting;

    #[test]
    fn both_directions() {
        let settings = [setting("a.b", "", ""), setting("c", "", ""), setting("map", "", "")];
        let found = uncovered(&settings, &json!({"a": {"b": 1, "d": 2}, "map": {"x": 1}}));
        assert_eq!(
            found,
            ["c is in the table and not in the type", "a.d is in the type and not in the table"]
        );
    }
}
