//! The list of settings: the tables that the loader knows, with the defaults of the types.

use std::io::Write;

use clap::{Args, ValueEnum};
use graticule_model::yaml;
use graticule_runtime::config::{PREFIX, Schema};
use serde::Serialize;
use serde_json::Value;

/// Arguments of `settings`.
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
}

#[derive(Serialize)]
struct Row {
    key: &'static str,
    variable: String,
    default: Value,
    meaning: &'static str,
}

fn rows(schema: &Schema, defaults: &Value) -> Vec<Row> {
    let row = |setting: &graticule_runtime::config::Setting| {
        let pointer = format!("/{}", setting.path.replace('.', "/"));
        let variable =
            if setting.env.is_empty() { String::new() } else { format!("{PREFIX}{}", setting.env) };
        let default = defaults.pointer(&pointer).cloned().unwrap_or_default();
        Row { key: setting.path, variable, default, meaning: setting.doc }
    };
    let mut rows: Vec<Row> = schema.settings.iter().map(row).collect();
    rows.sort_by_key(|row| row.key);
    rows
}

/// Writes all settings with their variables, defaults and meaning.
///
/// # Errors
/// `out` cannot be written to.
pub(crate) fn write<T: Serialize + Default>(
    schema: &Schema,
    arguments: &List,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let rows = rows(schema, &serde_json::to_value(T::default())?);
    match arguments.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?,
        Output::Yaml => write!(out, "{}", yaml::to_string(&rows)?)?,
        Output::Table => {
            let head = ["KEY", "VARIABLE", "DEFAULT", "MEANING"].map(str::to_owned);
            let cells = rows.into_iter().map(|row| {
                [row.key.to_owned(), row.variable, row.default.to_string(), row.meaning.to_owned()]
            });
            let lines: Vec<[String; 4]> = std::iter::once(head).chain(cells).collect();
            let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
            let (key, variable, default) = (width(0), width(1), width(2));
            for [a, b, c, d] in &lines {
                writeln!(out, "{a:key$}  {b:variable$}  {c:default$}  {d}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use graticule_runtime::config::Setting;

    use super::*;

    #[derive(Serialize)]
    struct Settings {
        port: u16,
    }

    impl Default for Settings {
        fn default() -> Self {
            Settings { port: 80 }
        }
    }

    const SCHEMA: Schema = Schema {
        settings: &[Setting { path: "port", env: "PORT", doc: "where it listens" }],
        meaningless: &[],
        reserved: &[],
    };

    fn listed(output: Output) -> String {
        let mut out = Vec::new();
        write::<Settings>(&SCHEMA, &List { output }, &mut out).expect("writes to memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn key_variable_default_and_meaning() {
        let table =
            "KEY   VARIABLE        DEFAULT  MEANING\nport  GRATICULE_PORT  80       where it listens\n";
        assert_eq!(listed(Output::Table), table);
        let json: Value = serde_json::from_str(&listed(Output::Json)).expect("JSON");
        assert_eq!(json[0]["default"], 80);
        assert_eq!(yaml::parse_one(&listed(Output::Yaml)).expect("YAML"), json);
    }
}
