//! The list of settings of one program, for people, programs and the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::{Fate, Foreign, Setting};

/// Arguments of the command `settings`.
#[derive(Debug, Args)]
pub struct List {
    /// Form of the list.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// Form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns.
    Table,
    /// A YAML list.
    Yaml,
    /// A JSON list.
    Json,
    /// A section of docs/settings.md.
    Markdown,
}

/// One setting as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Path in the configuration file.
    pub key: String,
    /// Variable with our prefix.
    pub variable: String,
    /// Flag.
    pub flag: String,
    /// Value when nothing is set; null: none.
    pub default: Value,
    /// What it does.
    pub meaning: String,
    /// Version that brought it.
    pub since: String,
}

/// The settings of one program.
#[derive(Debug, Clone)]
pub struct Page<'a> {
    /// Its name.
    pub program: &'a str,
    /// What is said before the table in the documentation.
    pub about: &'a str,
    /// Its settings.
    pub rows: Vec<Row>,
    /// Settings of Kuma and of the other control plane that it does not use.
    pub foreign: &'a [Foreign],
}

/// One row for each setting; `defaults` is the tree of default values.
pub fn rows(settings: &[Setting], defaults: &Value) -> Vec<Row> {
    let row = |setting: &Setting| Row {
        key: setting.path.into(),
        variable: setting.variable(),
        flag: setting.flag.into(),
        default: default_of(defaults, setting.path),
        meaning: setting.doc.into(),
        since: setting.since.into(),
    };
    let mut rows: Vec<Row> = settings.iter().map(row).collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

/// The value at a path such as `server.port`.
pub(crate) fn default_of(defaults: &Value, path: &str) -> Value {
    defaults.pointer(&format!("/{}", path.replace('.', "/"))).cloned().unwrap_or_default()
}

impl Page<'_> {
    /// The list in the given form.
    ///
    /// # Errors
    /// A default does not serialise.
    pub fn to_text(&self, output: Output) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match output {
            Output::Json => format!("{}\n", serde_json::to_string_pretty(&self.rows)?),
            Output::Yaml => graticule_model::yaml::to_string(&self.rows)?,
            Output::Table => self.table(),
            Output::Markdown => self.markdown(),
        })
    }

    fn table(&self) -> String {
        let head = ["KEY", "VARIABLE", "FLAG", "DEFAULT", "SINCE", "MEANING"].map(str::to_owned);
        let cells = self.rows.iter().cloned().map(|row| {
            let default = text_of(&row.default);
            [row.key, row.variable, row.flag, default, row.since, row.meaning]
        });
        let lines: Vec<[String; 6]> = std::iter::once(head).chain(cells).collect();
        // A column that no row uses is left out; the last one needs no width.
        let widths: Vec<usize> = (0..5)
            .map(|column| {
                let is_used = lines.iter().skip(1).any(|line| !line[column].is_empty());
                let widest = lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
                if is_used { widest } else { 0 }
            })
            .collect();
        let mut text = String::new();
        for line in &lines {
            for (cell, width) in line.iter().zip(&widths).filter(|(_, width)| **width > 0) {
                text.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(&line[5]);
            text.push('\n');
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.program, self.about);
        text.push_str("| Key | Variable | Flag | Default | Meaning | Since |\n|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let default = text_of(&row.default);
            let cells = [code(&row.key), code(&row.variable), code(&row.flag), code(&default)];
            let line = format!("| {} | {} | {} |\n", cells.join(" | "), escape(&row.meaning), row.since);
            text.push_str(&line);
        }
        let title = |replaced| match replaced {
            true => "Settings without meaning here",
            false => "Settings of Kuma that this version does not support yet",
        };
        for replaced in [true, false] {
            let groups = groups(self.foreign, replaced);
            if groups.is_empty() {
                continue;
            }
            let _infallible =
                writeln!(text, "\n### {}: {}\n\n| Keys | |\n|---|---|", self.program, title(replaced));
            for (instead, paths) in groups {
                let paths: Vec<String> = paths.iter().map(|path| code(path)).collect();
                let _infallible = writeln!(text, "| {} | {} |", paths.join(" "), escape(instead));
            }
        }
        text
    }
}

/// Texts with the paths that they are about, in the order of the paths.
fn groups(foreign: &[Foreign], replaced: bool) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for known in foreign {
        match known.fate {
            Fate::Replaced(instead) if replaced => groups.entry(instead).or_default().push(known.path),
            Fate::NotYet(instead) if !replaced => groups.entry(instead).or_default().push(known.path),
            _ => {}
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, paths)| paths.first().copied());
    groups
}

fn text_of(default: &Value) -> String {
    if default.is_null() { String::new() } else { default.to_string() }
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", escape(text)) }
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::setting;

    const SETTINGS: &[Setting] =
        &[setting("port", "PORT", "where it listens"), setting("host.name", "", "a|b").since("0.2")];

    fn listed(output: Output) -> String {
        let foreign = [
            Foreign { path: "x.a", env: "X_A", fate: Fate::NotYet("later") },
            Foreign { path: "x.b", env: "X_B", fate: Fate::NotYet("later") },
            Foreign { path: "y", env: "", fate: Fate::Replaced("something else") },
        ];
        let rows = rows(SETTINGS, &json!({"port": 80, "host": {"name": "h"}}));
        Page { program: "p", about: "It is.", rows, foreign: &foreign }.to_text(output).expect("serialises")
    }

    #[test]
    fn all_forms() {
        let table = "KEY        VARIABLE        DEFAULT  SINCE  MEANING\n\
                     host.name                  \"h\"      0.2    a|b\n\
                     port       GRATICULE_PORT  80       0.1    where it listens\n";
        assert_eq!(listed(Output::Table), table);
        let json: Value = serde_json::from_str(&listed(Output::Json)).expect("JSON");
        assert_eq!(json[1]["default"], 80);
        assert_eq!(graticule_model::yaml::parse_one(&listed(Output::Yaml)).expect("YAML"), json);
        let markdown = listed(Output::Markdown);
        for line in [
            "## p",
            "| `host.name` |  |  | `\"h\"` | a\\|b | 0.2 |",
            "### p: Settings without meaning here",
            "| `y` | something else |",
            "| `x.a` `x.b` | later |",
        ] {
            assert!(markdown.lines().any(|found| found == line), "{line:?} is not in\n{markdown}");
        }
    }
}
