//! YAML in and out, with budgets against hostile documents.

use serde::Serialize;
use serde_json::Value;

/// A document that is no YAML, or breaks a budget.
#[derive(Debug, thiserror::Error)]
#[error("document {document}: {message}")]
pub struct YamlError {
    /// 1-based number of the document in its stream.
    pub document: usize,
    /// What is wrong, with line and column.
    pub message: String,
}

/// Reads a stream of documents separated by `---`; empty documents are skipped.
pub fn parse_all(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut documents = Vec::new();
    for (index, part) in split_documents(text).into_iter().enumerate() {
        let value: Option<Value> = serde_saphyr::from_str(&part)
            .map_err(|error| YamlError { document: index + 1, message: message(&error) })?;
        if let Some(value) = value
            && !value.is_null()
        {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// The parser's message with the lines around the place; a broken budget needs no lines but the reason.
fn message(error: &serde_saphyr::Error) -> String {
    let mut cause = error.without_snippet();
    while let serde_saphyr::Error::AliasError { error, .. } = cause {
        cause = error.without_snippet();
    }
    match cause {
        serde_saphyr::Error::Budget { location, .. } => format!(
            "line {} column {}: too many or too deeply nested values; are aliases multiplied?",
            location.line(),
            location.column()
        ),
        _ => error.to_string(),
    }
}

/// Reads exactly one document.
pub fn parse_one(text: &str) -> Result<Value, YamlError> {
    let mut documents = parse_all(text)?;
    match documents.len() {
        1 => Ok(documents.remove(0)),
        n => Err(YamlError { document: 1, message: format!("expected one document, found {n}") }),
    }
}

/// Writes one document. Texts of several lines are blocks; long lines stay lines, so that what is written can be
/// compared and searched.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, YamlError> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options)
        .map_err(|error| YamlError { document: 1, message: error.to_string() })
}

/// Splits at lines that are `---`; keeps line numbers by padding with empty lines.
fn split_documents(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut current = String::new();
    let mut has_content = false;
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            if has_content {
                parts.push(std::mem::take(&mut current));
            }
            current = "\n".repeat(number);
            has_content = false;
            if let Some(rest) = line.strip_prefix("--- ") {
                current.push_str(rest);
                has_content = !rest.trim().is_empty();
            }
        } else {
            has_content |= !line.trim().is_empty() && !line.trim_start().starts_with('#');
            current.push_str(line);
        }
        current.push('\n');
    }
    if has_content {
        parts.push(current);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams() {
        let docs = parse_all("---\na: 1\n---\n# nothing\n---\nb: [x]\n").expect("parses");
        assert_eq!(docs, vec![serde_json::json!({"a": 1}), serde_json::json!({"b": ["x"]})]);
        assert!(parse_one("a: [").is_err());
        assert!(parse_one("").is_err());
    }

    #[test]
    fn hostile_documents_end_in_one_line() {
        let row = |name: u32| {
            format!("a{}: &a{} [{}]\n", name + 1, name + 1, vec![format!("*a{name}"); 9].join(","))
        };
        let bomb = format!("a0: &a0 [x]\n{}", (0..12).map(row).collect::<String>());
        let error = parse_one(&bomb).expect_err("refused").to_string();
        assert!(error.contains("aliases") && error.lines().count() == 1, "{error}");
        assert!(parse_one(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn long_lines_stay_lines() {
        let value = serde_json::json!({"data": "x ".repeat(200).trim_end(), "pem": "a\nb\n"});
        let text = to_string(&value).expect("writes");
        assert_eq!(text.lines().next().map(str::len), Some(405), "{text}");
        assert!(text.ends_with("pem: |\n  a\n  b\n"), "{text}");
        assert_eq!(parse_one(&text).expect("reads"), value);
    }

    #[test]
    fn writes_what_it_reads() {
        let value = serde_json::json!({"version": "yes", "port": "10", "list": [1, {"a": null}]});
        assert_eq!(parse_one(&to_string(&value).expect("writes")).expect("reads"), value);
    }
}
