//! `grat apply`: creates and updates resources, shows what it would do, deletes what the files no longer name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use graticule_model::Kind;
use reqwest::StatusCode;
use serde_json::Value;

use crate::client::{self, Client, is_status, resource_path};
use crate::diff::{self, Effect};
use crate::documents::{self, Document};
use crate::failure::Different;
use crate::prune;
use crate::selector::Selector;
use crate::session::{Session, counted, pair, usage};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File, directory of .yaml/.yml/.json files, URL, or `-` for standard input; repeatable.
    #[arg(short, long, required = true, value_name = "PLACE")]
    pub(crate) file: Vec<PathBuf>,
    /// Variable of a template: `-v name=value` replaces `{{ name }}`; repeatable.
    #[arg(short, long = "var", value_parser = pair, value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<(String, String)>,
    /// Mesh of documents that name none. [default: that of the context, or default]
    #[arg(short, long)]
    pub(crate) mesh: Option<String>,
    /// Shows what would change and changes nothing: `client` compares with what is stored, `server` has the
    /// control plane check every write as well.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "client", value_name = "WHERE")]
    pub(crate) dry_run: Option<DryRun>,
    /// With --dry-run: exit code 3 when something would change.
    #[arg(long, requires = "dry_run")]
    pub(crate) exit_code: bool,
    /// Also deletes what the selector matches and the files no longer name.
    #[arg(long, requires = "selector")]
    pub(crate) prune: bool,
    /// Labels of what --prune may delete: `team=a,env!=prod`.
    #[arg(short = 'l', long, requires = "prune", value_name = "LABELS")]
    pub(crate) selector: Option<Selector>,
}

/// Where a write is tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Against what is stored.
    Client,
    /// By the control plane.
    Server,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    created: usize,
    updated: usize,
    unchanged: usize,
    deleted: usize,
}

impl Tally {
    fn add(&mut self, effect: Effect) {
        match effect {
            Effect::Create => self.created += 1,
            Effect::Update => self.updated += 1,
            Effect::Nothing => self.unchanged += 1,
        }
    }

    fn is_quiet(&self) -> bool {
        self.created + self.updated + self.deleted == 0
    }

    /// `2 to create, 1 to delete` or `2 created, 1 deleted`.
    fn describe(&self, is_dry: bool) -> String {
        let words = [
            (self.created, "created", "to create"),
            (self.updated, "updated", "to update"),
            (self.unchanged, "unchanged", "unchanged"),
            (self.deleted, "deleted", "to delete"),
        ];
        let said: Vec<String> = words
            .iter()
            .filter(|(count, _, _)| *count > 0)
            .map(|(count, done, todo)| format!("{count} {}", if is_dry { todo } else { done }))
            .collect();
        if said.is_empty() { "nothing to do".into() } else { said.join(", ") }
    }
}

/// Reads and checks every document before the first call.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let variables: BTreeMap<_, _> = arguments.variables.iter().cloned().collect();
    let mesh = session.mesh(arguments.mesh.as_deref()).ok();
    let mut documents = documents::read(&arguments.file, &variables, mesh.as_deref()).await?;
    say_unknown(session, &documents);
    // A mesh comes before what lives in it, whatever the order of the files.
    documents.sort_by_key(|document| document.kind() != Kind::Mesh);
    let client = session.checked_client().await?;
    let mut tally = Tally::default();
    match arguments.dry_run {
        Some(place) => {
            for document in &documents {
                tally.add(try_out(session, &client, document, place).await?);
            }
        }
        None => write_all(session, &client, &documents, &mut tally).await?,
    }
    if let (true, Some(selector)) = (arguments.prune, &arguments.selector) {
        let named = documents.iter().map(key).collect();
        let is_dry = arguments.dry_run.is_some();
        tally.deleted = prune::run(session, &client, selector, &named, is_dry).await?;
    }
    let is_dry = arguments.dry_run.is_some();
    if is_dry || documents.len() > 1 || tally.deleted > 0 {
        session.screen.note(&tally.describe(is_dry));
    }
    if arguments.exit_code && !tally.is_quiet() {
        return Err(Different.into());
    }
    Ok(())
}

/// Identity of a document: kind, mesh, name.
pub(crate) type Id = (&'static str, String, String);

fn key(document: &Document) -> Id {
    (document.kind().name(), document.mesh().to_owned(), document.name().to_owned())
}

fn say_unknown(session: &Session, documents: &[Document]) {
    for document in documents {
        for path in &document.unknown {
            session.screen.warn(&format!(
                "{}: {} {}: nobody reads `{path}`; is it misspelt?",
                document.source,
                document.kind(),
                document.name()
            ));
        }
    }
}

/// Writes documents in order; stops at the first that is refused.
pub(crate) async fn write_all(
    session: &Session,
    client: &Client,
    documents: &[Document],
    tally: &mut impl Extend<Effect>,
) -> Result<()> {
    for (index, document) in documents.iter().enumerate() {
        let effect = write(session, client, document).await.with_context(|| {
            let what =
                format!("{}: {} {} was not applied", document.source, document.kind(), document.name());
            match index {
                0 => what,
                before => format!(
                    "{what} ({} before it; applying all of them again is safe)",
                    counted(before, "document")
                ),
            }
        })?;
        tally.extend([effect]);
        let style = session.screen.style;
        let word = match effect {
            Effect::Create => style.good("Created"),
            Effect::Update => style.careful("Updated"),
            Effect::Nothing => "Unchanged".to_owned(),
        };
        session.screen.line(&format!("{} {word}", title(document)))?;
    }
    Ok(())
}

impl Extend<Effect> for Tally {
    fn extend<T: IntoIterator<Item = Effect>>(&mut self, effects: T) {
        effects.into_iter().for_each(|effect| self.add(effect));
    }
}

/// kumactl's words, for scripts that read them.
fn title(document: &Document) -> String {
    format!("resource type=\"{}\" mesh=\"{}\" name=\"{}\"", document.kind(), document.mesh(), document.name())
}

async fn write(session: &Session, client: &Client, document: &Document) -> Result<Effect> {
    let (kind, mesh) = (document.kind(), document.mesh());
    let path = resource_path(kind, mesh, document.name());
    let stored = client.find(&path).await?;
    let effect = diff::effect(kind, stored.as_ref(), &document.body);
    if effect == Effect::Nothing {
        return Ok(effect);
    }
    let answer = with_mesh_hint(client.put(&path, &document.body).await, document)?;
    show_warnings(session, &answer);
    Ok(effect)
}

fn show_warnings(session: &Session, answer: &Value) {
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        session.screen.warn(warning);
    }
}

fn with_mesh_hint(answer: Result<Value>, document: &Document) -> Result<Value> {
    match answer {
        Err(error)
            if is_status(&error, StatusCode::NOT_FOUND)
                && !document.kind().descriptor().is_global_scoped() =>
        {
            let mesh = document.mesh();
            Err(error.context(format!(
                "is there a mesh \"{mesh}\"? `grat get meshes` shows them; apply it first, or name another one in `mesh`"
            )))
        }
        other => other,
    }
}

/// Shows what a write would change.
async fn try_out(session: &Session, client: &Client, document: &Document, place: DryRun) -> Result<Effect> {
    let (kind, mesh, name) = (document.kind(), document.mesh(), document.name());
    let what = || format!("{}: {kind} {name}", document.source);
    let path = resource_path(kind, mesh, name);
    let stored = client.find(&path).await.with_context(what)?;
    let mut wanted = document.body.clone();
    if place == DryRun::Server {
        let answer = client.put(&format!("/_dry-run{path}"), &document.body).await;
        let answer = with_mesh_hint(no_page_hint(answer), document).with_context(what)?;
        show_warnings(session, &answer);
        if let Some(resource) = answer.get("resource") {
            wanted = resource.clone();
        }
    }
    let effect = diff::effect(kind, stored.as_ref(), &wanted);
    let style = session.screen.style;
    let title = format!("{kind} {name}{}", crate::kinds::in_mesh(kind, mesh));
    session.screen.line(&match effect {
        Effect::Create => style.good(&format!("+ {title} would be created")),
        Effect::Update => style.careful(&format!("~ {title} would be updated")),
        Effect::Nothing => format!("= {title} is unchanged"),
    })?;
    if effect != Effect::Nothing {
        session.screen.print(&diff::render(kind, stored.as_ref(), &wanted, style))?;
    }
    Ok(effect)
}

/// A control plane that knows no dry run has no such page.
fn no_page_hint(answer: Result<Value>) -> Result<Value> {
    match answer {
        Err(error)
            if is_status(&error, StatusCode::NOT_FOUND) && error.to_string().contains("Page Not Found") =>
        {
            Err(usage("this control plane has no dry run of its own; use --dry-run=client"))
        }
        other => other,
    }
}

/// Deletes one resource.
pub(crate) async fn delete(client: &Client, kind: Kind, mesh: &str, name: &str) -> Result<()> {
    let path = client::resource_path(kind, mesh, name);
    client.delete(&path).await
}

/// Names of documents.
pub(crate) type Named = BTreeSet<Id>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies() {
        let mut tally = Tally::default();
        assert_eq!((tally.describe(true).as_str(), tally.is_quiet()), ("nothing to do", true));
        tally.extend([Effect::Create, Effect::Create, Effect::Nothing]);
        tally.deleted = 1;
        assert_eq!(tally.describe(true), "2 to create, 1 unchanged, 1 to delete");
        assert_eq!(tally.describe(false), "2 created, 1 unchanged, 1 deleted");
        assert!(!tally.is_quiet());
    }
}
