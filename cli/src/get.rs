//! `grat get`.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use graticule_model::Kind;
use serde_json::Value;

use crate::client::{Client, list_path, resource_path};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Kind, singular or plural.
    kind: String,
    /// Name; absent: all.
    name: Option<String>,
    /// Mesh.
    #[arg(short, long, default_value = "default")]
    mesh: String,
    /// How to show it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Forms of output.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Output {
    Table,
    Yaml,
    Json,
    Name,
}

/// The kind that a person means.
pub(crate) fn kind_argument(text: &str) -> Result<Kind> {
    let lower = text.to_ascii_lowercase();
    let found = Kind::all().find(|kind| {
        let descriptor = kind.descriptor();
        let names = [descriptor.path, descriptor.alt_path, descriptor.short_name];
        !descriptor.path.is_empty()
            && (descriptor.name.to_ascii_lowercase() == lower || names.iter().any(|name| *name == lower))
    });
    match found {
        Some(kind) => Ok(kind),
        None => {
            let known: Vec<&str> =
                Kind::all().map(|kind| kind.descriptor().path).filter(|path| !path.is_empty()).collect();
            bail!("unknown kind `{text}`; known are: {}", known.join(", "))
        }
    }
}

/// Shows one resource or all of a kind.
pub(crate) async fn run(client: &Client, arguments: &Arguments) -> Result<()> {
    let kind = kind_argument(&arguments.kind)?;
    let items = match &arguments.name {
        Some(name) => vec![
            client
                .get(&resource_path(kind, &arguments.mesh, name))
                .await
                .with_context(|| format!("{kind} {name} in mesh {}", arguments.mesh))?,
        ],
        None => client.list(&list_path(kind, &arguments.mesh)).await?,
    };
    show(arguments.output, &items)
}

fn show(output: Output, items: &[Value]) -> Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(items)?),
        Output::Yaml => {
            for item in items {
                println!("---\n{}", graticule_model::yaml::to_string(item)?.trim_end());
            }
        }
        Output::Name => {
            for item in items {
                println!("{}", item["name"].as_str().unwrap_or_default());
            }
        }
        Output::Table => {
            let rows: Vec<[String; 4]> = items.iter().map(row).collect();
            print_table(["MESH", "NAME", "ORIGIN", "MODIFIED"], &rows);
        }
    }
    Ok(())
}

fn row(item: &Value) -> [String; 4] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = &item["labels"];
    let origin = match (labels["kuma.io/origin"].as_str(), labels["kuma.io/zone"].as_str()) {
        (Some("zone") | None, Some(zone)) => format!("zone {zone}"),
        (Some(origin), Some(zone)) => format!("{origin} (zone {zone})"),
        (Some(origin), None) => origin.to_owned(),
        (None, None) => String::new(),
    };
    [text(&item["mesh"]), text(&item["name"]), origin, text(&item["modificationTime"])]
}

fn print_table<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].len()).chain([head[column].len()]).max().unwrap_or(0))
        .collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", padded.join("   ").trim_end());
    };
    line(head.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_any_of_their_names() {
        for text in ["meshtimeout", "meshtimeouts", "mt", "MeshTimeout"] {
            assert_eq!(kind_argument(text).expect(text), Kind::MeshTimeout);
        }
        assert_eq!(kind_argument("global-secrets").expect("alias"), Kind::GlobalSecret);
        assert!(kind_argument("nothing").is_err());
    }
}
