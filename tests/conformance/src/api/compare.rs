//! JSON comparison (conformance/README.md §2.1).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What every time becomes.
const TIME: &str = "0001-01-01T00:00:00Z";

static TIMES: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d[^"]+"#).expect("the pattern is correct"));

/// The text with every time made equal.
pub(crate) fn without_times(text: &str) -> String {
    TIMES.replace_all(text, TIME).into_owned()
}

/// The first difference: where, ours and what is wanted.
pub(crate) fn difference(ours: &Value, wanted: &Value) -> Option<String> {
    at("", ours, wanted)
}

fn at(path: &str, ours: &Value, wanted: &Value) -> Option<String> {
    match (ours, wanted) {
        (Value::Object(left), Value::Object(right)) => {
            if let Some(key) = left.keys().find(|key| !right.contains_key(*key)) {
                return Some(format!("{path}/{key}: must be absent, is {}", left[key]));
            }
            right.iter().find_map(|(key, wanted)| match left.get(key) {
                None => Some(format!("{path}/{key}: is missing, must be {wanted}")),
                Some(ours) => at(&format!("{path}/{key}"), ours, wanted),
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(index, (ours, wanted))| at(&format!("{path}/{index}"), ours, wanted))
        }
        // 1 is 1.0
        (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => None,
        _ if ours == wanted => None,
        _ => Some(format!("{}: is {ours}, must be {wanted}", if path.is_empty() { "/" } else { path })),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences() {
        for (ours, wanted, want) in [
            (json!({"a": 1, "b": [1.0]}), json!({"b": [1], "a": 1}), None),
            (json!({"a": null}), json!({}), Some("/a: must be absent, is null")),
            (json!({}), json!({"a": null}), Some("/a: is missing, must be null")),
            (json!([1, 2]), json!([2, 1]), Some("/0: is 1, must be 2")),
            (json!([1]), json!([1, 2]), Some("/: is [1], must be [1,2]")),
            (json!({"a": {"b": "x"}}), json!({"a": {"b": "y"}}), Some("/a/b: is \"x\", must be \"y\"")),
            (json!([]), json!(null), Some("/: is [], must be null")),
        ] {
            assert_eq!(difference(&ours, &wanted).as_deref(), want);
        }
        let text = r#"{"t":"2026-01-02T03:04:05.678Z","u":"2026-01-02"}"#;
        assert_eq!(without_times(text), r#"{"t":"0001-01-01T00:00:00Z","u":"2026-01-02"}"#);
    }
}
