//! `grat apply`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use graticule_model::{Kind, Resource};
use serde_json::Value;

use crate::client::{Client, NotFound, documents, resource_path};

/// A kind that is at most this many edits away was probably meant.
const NEAR: usize = 3;
/// Longer names are cut before they are compared.
const LONGEST_KIND: usize = 64;

#[derive(Args)]
pub(crate) struct Arguments {
    /// File, directory of .yaml/.yml/.json files, or `-` for standard input; repeatable.
    #[arg(short, long, required = true)]
    file: Vec<PathBuf>,
    /// Variable of a template: `-v name=value` replaces `{{ name }}`.
    #[arg(short, long = "var", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Checks the documents here and shows them, without a call.
    #[arg(long)]
    dry_run: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not of the form name=value"))
}

/// Reads and checks every document before the first call.
pub(crate) async fn run(client: &Client, arguments: &Arguments) -> Result<()> {
    let variables: BTreeMap<_, _> = arguments.variables.iter().cloned().collect();
    let mut resources = Vec::new();
    for path in &arguments.file {
        for (source, text) in texts(path)? {
            let text = render(&text, &variables).with_context(|| source.clone())?;
            for document in documents(&text, &source)? {
                let (resource, document) = check(document).with_context(|| source.clone())?;
                resources.push((resource, document, source.clone()));
            }
        }
    }
    if arguments.dry_run {
        for (_, document, _) in &resources {
            println!("---\n{}", graticule_model::yaml::to_string(document)?.trim_end());
        }
        return Ok(());
    }
    for (resource, document, source) in &resources {
        let (kind, name) = (resource.kind(), &resource.meta.name);
        let path = resource_path(kind, &resource.meta.mesh, name);
        let not_applied = || format!("{source}: {} {name} was not applied", kind.name());
        let existed = client.exists(&path).await.with_context(not_applied)?;
        let answer = match client.put(&path, document).await {
            Err(error) if error.is::<NotFound>() && !kind.descriptor().is_global_scoped() => {
                let mesh = &resource.meta.mesh;
                let hint =
                    format!("is there a mesh \"{mesh}\"? Apply it first, or name another one in `mesh`");
                Err::<Value, _>(error.context(hint)).with_context(not_applied)?
            }
            other => other.with_context(not_applied)?,
        };
        println!("{} {name} {}", kind.name(), if existed { "updated" } else { "created" });
        for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            eprintln!("Warning: {warning}");
        }
    }
    Ok(())
}

/// The texts behind an argument: (name for messages, text).
fn texts(path: &Path) -> Result<Vec<(String, String)>> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(vec![("standard input".into(), text)]);
    }
    let read = |path: &Path| -> Result<(String, String)> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok((path.display().to_string(), text))
    };
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(|| path.display().to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        })
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "{} holds no .yaml, .yml or .json file", path.display());
    files.iter().map(|file| read(file)).collect()
}

/// Replaces `{{ name }}`.
fn render(text: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    if variables.is_empty() {
        return Ok(text.to_owned());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let Some(end) = rest[start..].find("}}") else { bail!("`{{{{` without `}}}}`") };
        let name = rest[start + 2..start + end].trim();
        out.push_str(&rest[..start]);
        match variables.get(name) {
            Some(value) => out.push_str(value),
            // Hostname templates of resources have the same form; only what was asked for is replaced.
            None => out.push_str(&rest[start..start + end + 2]),
        }
        rest = &rest[start + end + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A document that is a valid resource, with its mesh filled in.
fn check(mut document: Value) -> Result<(Resource, Value)> {
    let text = |field: &str| document[field].as_str().map(str::to_owned);
    let Some(type_name) = text("type") else {
        if document.get("apiVersion").is_some() {
            bail!(
                "`type` is missing: this is the form of Kubernetes; write `type`, `mesh`, `name` and `spec` at the top"
            );
        }
        bail!("`type` is missing: a resource begins with `type: <kind>` and `name: <name>`");
    };
    let kind =
        Kind::from_name(&type_name).map_err(|error| anyhow!("type: {error}{}", did_you_mean(&type_name)))?;
    let what = || format!("{kind} {} is not valid", text("name").unwrap_or_default());
    let resource = Resource::from_rest(kind, &document).with_context(what)?;
    resource.validate().with_context(what)?;
    ensure!(!resource.meta.name.is_empty(), "{kind}: `name` is missing");
    if !kind.descriptor().is_global_scoped() {
        document["mesh"] = resource.meta.mesh.clone().into();
    }
    Ok((resource, document))
}

/// The kind that was probably meant; the list of all of them when none is near.
fn did_you_mean(name: &str) -> String {
    let kinds = || Kind::all().map(|kind| kind.descriptor().name);
    let lower = name.to_ascii_lowercase();
    let near = kinds()
        .map(|known| (distance(&lower, &known.to_ascii_lowercase()), known))
        .filter(|(distance, _)| *distance <= NEAR)
        .min();
    match near {
        Some((_, known)) => format!("; did you mean {known}?"),
        None => format!("; known are: {}", kinds().collect::<Vec<_>>().join(", ")),
    }
}

/// Edit distance of two short texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(LONGEST_KIND).enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_templates() {
        let variables = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(render("x {{ a }} {{ .Zone }}", &variables).expect("renders"), "x 1 {{ .Zone }}");
        assert!(render("{{ a", &variables).is_err());
    }

    #[test]
    fn documents_are_checked_before_any_call() {
        let text = "type: MeshZoneAddress\nname: a\nspec: {address: '', port: 0}";
        let error = check(graticule_model::yaml::parse_one(text).expect("yaml")).expect_err("invalid");
        assert!(format!("{error:#}").contains("MeshZoneAddress a is not valid: spec.address: "), "{error:#}");
    }

    #[test]
    fn errors_name_what_was_meant() {
        for (text, expected) in [
            ("type: MeshTimout\nname: a", "did you mean MeshTimeout?"),
            ("type: meshtimeout\nname: a", "did you mean MeshTimeout?"),
            ("type: Nothing\nname: a", "known are: Mesh"),
            ("apiVersion: kuma.io/v1alpha1\nkind: Mesh", "form of Kubernetes"),
            ("hello", "a resource begins with"),
            ("[1]", "a resource begins with"),
            ("type: MeshTimeout\nname: a\nspec: {to: 5}", "MeshTimeout a is not valid: spec.to"),
        ] {
            let document = graticule_model::yaml::parse_one(text).expect("yaml");
            let error = format!("{:#}", check(document).expect_err(text));
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
