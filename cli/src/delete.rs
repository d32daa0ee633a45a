//! `grat delete`: by name, by file, by label.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use graticule_model::Kind;
use reqwest::StatusCode;

use crate::apply;
use crate::client::{Client, is_status, list_path};
use crate::documents;
use crate::get;
use crate::kinds;
use crate::selector::Selector;
use crate::session::{Session, pair, usage};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Kind: singular, plural or short name.
    #[arg(value_parser = kinds::ANY, hide_possible_values = true, required_unless_present = "file")]
    kind: Option<Kind>,
    /// Name.
    #[arg(required_unless_present_any = ["file", "selector"], conflicts_with = "selector")]
    name: Option<String>,
    /// Mesh. [default: that of the context, or default]
    #[arg(short, long)]
    mesh: Option<String>,
    /// Deletes the resources of a file, directory, URL or `-`; repeatable.
    #[arg(short, long, conflicts_with_all = ["kind", "name", "selector"], value_name = "PLACE")]
    file: Vec<PathBuf>,
    /// Variable of a template of --file.
    #[arg(short, long = "var", value_parser = pair, value_name = "NAME=VALUE", requires = "file")]
    variables: Vec<(String, String)>,
    /// Deletes the resources of the kind that have these labels.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<Selector>,
    /// With --file and --selector: what does not exist is no error.
    #[arg(long)]
    ignore_not_found: bool,
}

/// Deletes what the arguments name.
pub(crate) async fn run(session: &Session, arguments: Arguments) -> Result<()> {
    let mesh = session.mesh(arguments.mesh.as_deref())?;
    if !arguments.file.is_empty() {
        let variables: BTreeMap<_, _> = arguments.variables.iter().cloned().collect();
        let mut named = documents::read(&arguments.file, &variables, Some(&mesh)).await?;
        // What lives in a mesh goes before it.
        named.reverse();
        named.sort_by_key(|document| document.kind() == Kind::Mesh);
        let client = session.checked_client().await?;
        for document in &named {
            let (kind, mesh, name) = (document.kind(), document.mesh(), document.name());
            one(session, &client, kind, mesh, name, arguments.ignore_not_found).await?;
        }
        return Ok(());
    }
    let kind = arguments.kind.ok_or_else(|| usage("which kind? `grat delete meshtimeout NAME`"))?;
    let client = session.checked_client().await?;
    match (arguments.name, arguments.selector) {
        (Some(name), _) => one(session, &client, kind, &mesh, &name, arguments.ignore_not_found).await,
        (None, Some(selector)) => {
            let mut items = client.list(&list_path(kind, Some(&mesh)), &selector.query()).await?;
            items.retain(|item| selector.matches(item));
            if items.is_empty() {
                session.screen.note(&format!("no {kind} has these labels"));
            }
            for name in items.iter().filter_map(|item| item["name"].as_str()) {
                one(session, &client, kind, &mesh, name, true).await?;
            }
            Ok(())
        }
        (None, None) => Err(usage("which one? Give a name or --selector")),
    }
}

async fn one(
    session: &Session,
    client: &Client,
    kind: Kind,
    mesh: &str,
    name: &str,
    may_be_gone: bool,
) -> Result<()> {
    match apply::delete(client, kind, mesh, name).await {
        Ok(()) => session.screen.line(&format!("deleted {kind} \"{name}\"")),
        Err(error) if is_status(&error, StatusCode::NOT_FOUND) && may_be_gone => Ok(()),
        Err(error) if is_status(&error, StatusCode::NOT_FOUND) => {
            Err(get::not_there(client, kind, mesh, name).await)
        }
        Err(error) => Err(error).with_context(|| format!("{kind} {name} was not deleted")),
    }
}
