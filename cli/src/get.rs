//! `grat get`.

use anyhow::{Context as _, Result};
use clap::Args;
use graticule_model::Kind;
use reqwest::StatusCode;
use serde_json::Value;

use crate::client::{Client, is_status, list_path, resource_path};
use crate::kinds;
use crate::output::{self, Output};
use crate::selector::Selector;
use crate::session::{Session, usage};
use crate::watch;

/// Longer lists are not searched for a name that was probably meant.
const NEAR_LIST_MAX: usize = 1000;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Kind: plural, singular or short name (meshtimeouts, meshtimeout, mt).
    #[arg(value_parser = kinds::ANY, hide_possible_values = true)]
    kind: Kind,
    /// Name; absent: all.
    name: Option<String>,
    /// Mesh. [default: that of the context, or default]
    #[arg(short, long)]
    mesh: Option<String>,
    /// Resources of all meshes.
    #[arg(short = 'A', long, conflicts_with_all = ["mesh", "name"])]
    all_meshes: bool,
    /// How to show it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Only resources with these labels: `team=a,env!=prod,owner,!legacy`.
    #[arg(short = 'l', long, conflicts_with = "name", value_name = "LABELS")]
    selector: Option<Selector>,
    /// One page of this many; without it, everything is shown. [1..1000]
    #[arg(long, conflicts_with = "name")]
    size: Option<u16>,
    /// Where the page begins, as the page before said.
    #[arg(long, conflicts_with = "name", requires = "size")]
    offset: Option<String>,
    /// Stays and shows what changes, until it is interrupted.
    #[arg(short, long, conflicts_with_all = ["size", "offset"])]
    watch: bool,
}

/// What is looked at.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) kind: Kind,
    /// `None`: of all meshes.
    pub(crate) mesh: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) selector: Selector,
}

impl Question {
    /// The resources that are there now.
    pub(crate) async fn ask(&self, client: &Client) -> Result<Vec<Value>> {
        let mesh = self.mesh.as_deref();
        match &self.name {
            Some(name) => {
                let path = resource_path(self.kind, mesh.unwrap_or("default"), name);
                Ok(client.find(&path).await?.into_iter().collect())
            }
            None => {
                let mut items = client.list(&list_path(self.kind, mesh), &self.selector.query()).await?;
                items.retain(|item| self.selector.matches(item));
                Ok(items)
            }
        }
    }
}

/// Shows one resource, a page, or all of a kind.
pub(crate) async fn run(session: &Session, arguments: Arguments) -> Result<()> {
    let client = session.checked_client().await?;
    let mesh = session.mesh(arguments.mesh.as_deref())?;
    let (kind, output) = (arguments.kind, arguments.output);
    if let Some(size) = arguments.size.filter(|size| *size > 0) {
        return page(session, &client, &arguments, &mesh, size).await;
    }
    let question = Question {
        kind,
        mesh: (!arguments.all_meshes).then_some(mesh.clone()),
        name: arguments.name.clone(),
        selector: arguments.selector.unwrap_or_default(),
    };
    if arguments.watch {
        return watch::run(session, &client, &question, output).await;
    }
    let items = question.ask(&client).await?;
    let text = match (&arguments.name, items.first()) {
        (Some(_), Some(item)) => output::one(kind, item, output, session.now)?,
        (Some(name), None) => return Err(not_there(&client, kind, &mesh, name).await),
        (None, _) => output::many(kind, &items, items.len() as u64, output, session.now)?,
    };
    session.screen.print(&text)
}

async fn page(
    session: &Session,
    client: &Client,
    arguments: &Arguments,
    mesh: &str,
    size: u16,
) -> Result<()> {
    if arguments.selector.as_ref().is_some_and(|selector| selector.query().is_empty()) {
        return Err(usage("--size goes with selectors of the form key=value only: the control plane counts"));
    }
    let mut query = arguments.selector.as_ref().map(Selector::query).unwrap_or_default();
    query.push(("size".into(), size.to_string()));
    query.extend(arguments.offset.iter().map(|offset| ("offset".to_owned(), offset.clone())));
    let mesh = (!arguments.all_meshes).then_some(mesh);
    let page = client.page(&list_path(arguments.kind, mesh), &query).await?;
    let text = output::many(arguments.kind, &page.items, page.total, arguments.output, session.now)?;
    session.screen.print(&text)?;
    match page.next_offset {
        Some(offset) if matches!(arguments.output, Output::Table | Output::Wide) => session
            .screen
            .print(&format!("\nRerun command with --offset={offset} argument to retrieve more resources\n")),
        Some(offset) => {
            session.screen.note(&format!(
                "{} of {}; the next page: --offset={offset}",
                page.items.len(),
                page.total
            ));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Says that a resource does not exist, and which one was probably meant.
pub(crate) async fn not_there(client: &Client, kind: Kind, mesh: &str, name: &str) -> anyhow::Error {
    let what = format!("there is no {kind} with name \"{name}\"{}", kinds::in_mesh(kind, mesh));
    let listed =
        client.page(&list_path(kind, Some(mesh)), &[("size".into(), NEAR_LIST_MAX.to_string())]).await;
    match listed {
        Err(error) if is_status(&error, StatusCode::NOT_FOUND) => {
            anyhow::anyhow!("{what}: there is no such mesh; `grat get meshes` shows them")
        }
        Err(error) => error.context(what),
        Ok(page) => {
            let names: Vec<&str> = page.items.iter().filter_map(|item| item["name"].as_str()).collect();
            anyhow::anyhow!("{what}; {}", near(&names, name, kind))
        }
    }
}

fn near(names: &[&str], wanted: &str, kind: Kind) -> String {
    let path = kind.descriptor().path;
    // Copies of other control planes' resources carry a suffix.
    let copy = names.iter().find(|name| name.starts_with(&format!("{wanted}-")));
    let close = names
        .iter()
        .map(|name| (kinds::distance(name, wanted), name))
        .filter(|(distance, _)| *distance <= 1 + wanted.len() / 4)
        .min();
    match (names.len(), close, copy) {
        (0, _, _) => "there are none of this kind".into(),
        (_, Some((_, name)), _) | (_, None, Some(name)) => format!("did you mean {name}?"),
        _ => format!("`grat get {path}` shows what there is"),
    }
}

/// A resource that must be there.
pub(crate) async fn existing(client: &Client, kind: Kind, mesh: &str, name: &str) -> Result<Value> {
    match client.find(&resource_path(kind, mesh, name)).await {
        Ok(Some(item)) => Ok(item),
        Ok(None) => Err(not_there(client, kind, mesh, name).await),
        Err(error) => Err(error).with_context(|| format!("{kind} {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let names = ["mesh-timeout-all-default", "web-49dzv24", "t1"];
        for (wanted, said) in [
            ("t2", "did you mean t1?"),
            ("mesh-timeout-al-default", "did you mean mesh-timeout-all-default?"),
            ("web", "did you mean web-49dzv24?"),
            ("quite-another-name", "`grat get meshtimeouts` shows what there is"),
        ] {
            assert_eq!(near(&names, wanted, Kind::MeshTimeout), said, "{wanted}");
        }
        assert_eq!(near(&[], "x", Kind::MeshTimeout), "there are none of this kind");
    }
}
