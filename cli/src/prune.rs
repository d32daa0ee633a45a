//! `grat apply --prune`: what the files no longer name.

use anyhow::{Context as _, Result};
use graticule_model::Kind;
use reqwest::StatusCode;
use serde_json::Value;

use crate::apply::{self, Named};
use crate::client::{Client, is_status, list_path};
use crate::kinds;
use crate::selector::Selector;
use crate::session::{Session, counted};

/// Something that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    kind: Kind,
    mesh: String,
    name: String,
}

/// Lists what goes, then deletes it unless `is_dry`; gives how many those are.
pub(crate) async fn run(
    session: &Session,
    client: &Client,
    selector: &Selector,
    named: &Named,
    is_dry: bool,
) -> Result<usize> {
    let mode = client.mode().await;
    let mut stored = Vec::new();
    for kind in kinds::served().filter(|kind| !kind.descriptor().capabilities.read_only) {
        match client.list(&list_path(kind, None), &selector.query()).await {
            Ok(items) => stored.extend(items.into_iter().map(|item| (kind, item))),
            Err(error) if is_status(&error, StatusCode::FORBIDDEN) => {
                session.screen.warn(&format!("{kind}s are left out: you may not list them"));
            }
            Err(error) => return Err(error.context(format!("--prune: the list of {kind}s"))),
        }
    }
    let doomed = select(&stored, selector, named, mode.as_deref());
    if doomed.is_empty() {
        return Ok(0);
    }
    let style = session.screen.style;
    let will = if is_dry { "would be" } else { "will be" };
    let count = counted(doomed.len(), "resource");
    session.screen.line(&format!("{count} that the files do not name {will} deleted:"))?;
    for Found { kind, mesh, name } in &doomed {
        session.screen.line(&style.bad(&format!("- {kind} {name}{}", kinds::in_mesh(*kind, mesh))))?;
    }
    if is_dry {
        return Ok(doomed.len());
    }
    for Found { kind, mesh, name } in &doomed {
        match apply::delete(client, *kind, mesh, name).await {
            Ok(()) => session.screen.line(&format!("deleted {kind} \"{name}\""))?,
            // It went with its mesh.
            Err(error) if is_status(&error, StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(error).with_context(|| format!("{kind} {name} was not deleted")),
        }
    }
    Ok(doomed.len())
}

/// What is selected, named by no document, and not a copy of another control plane's; meshes last.
fn select(stored: &[(Kind, Value)], selector: &Selector, named: &Named, mode: Option<&str>) -> Vec<Found> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let foreign = match mode {
        Some("global") => Some("zone"),
        Some("zone") => Some("global"),
        _ => None,
    };
    let mut found: Vec<Found> = stored
        .iter()
        .filter(|(_, item)| selector.matches(item))
        .filter(|(_, item)| foreign.is_none() || item["labels"]["kuma.io/origin"].as_str() != foreign)
        .map(|(kind, item)| Found { kind: *kind, mesh: text(&item["mesh"]), name: text(&item["name"]) })
        .filter(|found| !named.contains(&(found.kind.name(), found.mesh.clone(), found.name.clone())))
        .collect();
    found.sort_by_key(|found| found.kind == Kind::Mesh);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_selected_own_and_unnamed() {
        let item = |name: &str, origin: &str, team: &str| json!({"mesh": "default", "name": name, "labels": {"team": team, "kuma.io/origin": origin}});
        let stored = vec![
            (Kind::Mesh, json!({"name": "m", "labels": {"team": "a"}})),
            (Kind::MeshTimeout, item("named", "global", "a")),
            (Kind::MeshTimeout, item("old", "global", "a")),
            (Kind::MeshTimeout, item("other-team", "global", "b")),
            (Kind::MeshTimeout, item("copy", "zone", "a")),
            (Kind::MeshRetry, item("named", "global", "a")),
        ];
        let named = Named::from([("MeshTimeout", "default".to_owned(), "named".to_owned())]);
        let selector = "team=a".parse().expect("selector");
        let names = |mode: Option<&str>| -> Vec<String> {
            let found = select(&stored, &selector, &named, mode);
            found.iter().map(|found| format!("{} {}", found.kind, found.name)).collect()
        };
        assert_eq!(names(Some("global")), ["MeshTimeout old", "MeshRetry named", "Mesh m"]);
        assert_eq!(names(Some("zone")), ["MeshTimeout copy", "Mesh m"]);
        assert_eq!(names(None).len(), 4);
    }
}
