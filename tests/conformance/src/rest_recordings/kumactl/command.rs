//! A recorded command.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A recorded command.
#[derive(Debug)]
pub(super) struct Command {
    number: usize,
    words: Vec<String>,
    pub(super) stdin: String,
    pub(super) requests: Vec<Value>,
    pub(super) stdout: String,
    pub(super) exit_code: i32,
}

/// What `grat` is called with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) arguments: Vec<String>,
    /// Standard output goes to this file.
    pub(super) redirect: Option<String>,
    /// Before anything is configured, `kumactl` asks a control plane on the port that ours does not have here.
    pub(super) is_without_configuration: bool,
}

/// Reads the recording.
pub(super) fn read(data: &Path) -> Result<Vec<Command>> {
    let path = data.join("recordings/rest/kumactl.json");
    let what = || path.display().to_string();
    let document: Value = serde_json::from_str(&std::fs::read_to_string(&path).with_context(what)?)?;
    let commands = document["commands"].as_array().with_context(what)?;
    Ok(commands.iter().enumerate().map(|(index, value)| command(index + 1, value)).collect())
}

fn command(number: usize, value: &Value) -> Command {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Command {
        number,
        words: text("command").split_whitespace().skip(1).map(str::to_owned).collect(),
        stdin: text("stdin"),
        requests: value["requests"].as_array().cloned().unwrap_or_default(),
        stdout: text("stdout"),
        exit_code: value["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or_default(),
    }
}

impl Command {
    /// `012 get meshes -o yaml`.
    pub(super) fn title(&self) -> String {
        format!("{:03} {}", self.number, self.words.join(" "))
    }

    /// Whether the words begin like this.
    pub(super) fn begins(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(a, b)| a == b)
    }

    /// Whether one of the words is this.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }

    /// The same for `grat`; `None`: it has no such command.
    pub(super) fn for_grat(&self) -> Option<Line> {
        // Manifests of Kubernetes: nothing of the API.
        if self.begins(&["install"]) {
            return None;
        }
        let mut arguments = self.words.clone();
        let redirect = arguments.iter().position(|word| word == ">").and_then(|at| {
            let file = arguments.get(at + 1).cloned();
            arguments.truncate(at);
            file
        });
        if self.begins(&["inspect", "dataplanes"]) && !self.has("-o") {
            // The table has fewer columns.
            arguments.extend(["-o", "wide"].map(str::to_owned));
        }
        Some(Line { arguments, redirect, is_without_configuration: self.number == 1 })
    }

    /// The file that the command reads, with the resource that was sent of it.
    pub(super) fn file(&self) -> Option<(&str, &Value)> {
        let at = self.words.iter().position(|word| word == "-f")?;
        let name = self.words.get(at + 1)?;
        let body = self.requests.iter().find_map(|request| request.get("body"));
        name.ends_with(".json").then_some((name.as_str(), body?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn command_lines() {
        let of = |text: &str| command(7, &json!({"command": text}));
        let line = of("kumactl generate signing-key --format pem > sk.pem").for_grat().expect("a line");
        assert_eq!(line.arguments, ["generate", "signing-key", "--format", "pem"]);
        assert_eq!(line.redirect.as_deref(), Some("sk.pem"));
        assert_eq!(of("kumactl install demo").for_grat(), None);
        let line = of("kumactl inspect dataplanes").for_grat().expect("a line");
        assert_eq!(line.arguments.last().map(String::as_str), Some("wide"));
        assert_eq!(of("kumactl get meshes").title(), "007 get meshes");
    }
}
