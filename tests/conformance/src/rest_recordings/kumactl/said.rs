//! Standard output, so that what means the same becomes the same (README of the recordings).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::command::Command;
use super::object;

/// Mark of outputs that are not recorded in full.
const CUT: &str = "<cut>";

static AGE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\d+[smhd]$").expect("a constant expression"));

/// The recorded output and ours, in comparable form.
pub(super) fn both(command: &Command, ours: &str) -> (Value, Value) {
    let recorded = command.stdout.as_str();
    if recorded.contains(CUT) || has_own_words(command) {
        // Only that there is some.
        let is_there =
            |text: &str| json!({"stdout": if text.trim().is_empty() { "nothing" } else { "something" }});
        return (is_there(recorded), is_there(ours));
    }
    let is_document = command.has("yaml") || command.has("json") || command.has("view");
    if is_document && let (Some(recorded), Some(ours)) = (document(recorded), document(ours)) {
        return (json!({"stdout": recorded}), json!({"stdout": ours}));
    }
    let in_order = recorded.replace("<age>", "").contains('<');
    (json!({"stdout": lines(recorded, in_order)}), json!({"stdout": lines(ours, in_order)}))
}

/// What is not compared: versions, which programs say of themselves; the dry run, which shows differences; overviews,
/// which the suite of the transcripts compares; exports, which leave other things out (docs/cli.md).
fn has_own_words(command: &Command) -> bool {
    let is_overview = command.begins(&["inspect", "dataplanes"]) || command.begins(&["inspect", "zones"]);
    let is_document = command.has("yaml") || command.has("json");
    command.begins(&["version"])
        || command.begins(&["export"])
        || command.has("--dry-run")
        || is_overview && is_document
        || command.begins(&["inspect", "meshes"]) && is_document
}

/// JSON is YAML, too.
fn document(text: &str) -> Option<Value> {
    graticule_model::yaml::parse_one(text).ok().filter(|value| value.is_object() || value.is_array())
}

/// Lines by their text, so that one that is missing does not shift the others; with placeholders, in order.
fn lines(text: &str, in_order: bool) -> Value {
    if text.contains("-----BEGIN") || text.starts_with("<pem") {
        return json!(text.trim_end());
    }
    let lines = text.lines().map(normal).filter(|line| !line.is_empty());
    if in_order {
        return lines.collect();
    }
    object(lines.map(|line| (line, json!("said"))))
}

/// Columns without padding, ages without numbers.
fn normal(line: &str) -> String {
    let words = line.split_whitespace().map(|word| if AGE.is_match(word) { "<age>" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_the_same() {
        assert_eq!(
            lines("NAME      AGE\ndemo      5m\n", false),
            lines("NAME   AGE\n\ndemo   <age>\n", false)
        );
        assert_ne!(lines("NAME   AGE\n", false), lines("NAME   AGE\ndemo   5m\n", false));
        assert_eq!(normal("a   12   3h  "), "a 12 <age>");
    }
}
