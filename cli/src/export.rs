//! `grat export` and `grat import`: moving resources to another control plane (rest-api.md §9 and appendix A).

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use graticule_model::{Kind, Mode, labels};
use serde_json::{Value, json};

use crate::apply;
use crate::client::{Client, segment, with_query};
use crate::documents::{self, Document};
use crate::session::{Session, counted};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What is exported.
    #[arg(short, long, value_enum, default_value = "federation")]
    profile: Profile,
    /// Form of the resources.
    #[arg(short, long, value_enum, default_value = "universal")]
    format: Format,
    /// Namespace of secrets, with --format kubernetes.
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    system_namespace: Option<String>,
    /// Also secrets, which the profiles all and no-dataplanes leave out.
    #[arg(short = 'a', long)]
    include_admin: bool,
}

/// Sets of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Everything.
    All,
    /// What another global needs, without policies.
    Federation,
    /// What another global needs.
    FederationWithPolicies,
    /// Everything but Dataplanes and their insights.
    NoDataplanes,
}

/// Forms of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As on virtual machines.
    Universal,
    /// As custom resources.
    Kubernetes,
}

impl Profile {
    fn is_federation(self) -> bool {
        matches!(self, Profile::Federation | Profile::FederationWithPolicies)
    }

    /// Whether a kind belongs to it; `entry` is one of `/_resources`.
    fn takes(self, entry: &Value, include_admin: bool) -> bool {
        let name = entry["name"].as_str().unwrap_or_default();
        if matches!(name, "Secret" | "GlobalSecret") && !self.is_federation() && !include_admin {
            return false;
        }
        let is_federated = entry["includeInFederation"] == true;
        match self {
            Profile::All => true,
            Profile::NoDataplanes => !matches!(name, "Dataplane" | "DataplaneInsight"),
            Profile::FederationWithPolicies => is_federated,
            Profile::Federation => is_federated && entry["policy"]["isTargetRef"] != true,
        }
    }
}

/// Place in the order in which resources can be written.
fn rank(kind: &str, name: &str) -> u8 {
    match kind {
        "Mesh" => 0,
        "Secret" => 1,
        // The token that writes may be signed by the key that is replaced.
        "GlobalSecret" if name.starts_with("user-token-signing-key") => 4,
        "GlobalSecret" => 3,
        _ => 2,
    }
}

/// Kinds of a profile, in the order in which they are written.
fn plan(resources: &Value, profile: Profile, include_admin: bool) -> Vec<Value> {
    let entries = resources["resources"].as_array().into_iter().flatten();
    let mut kinds: Vec<Value> =
        entries.filter(|entry| profile.takes(entry, include_admin)).cloned().collect();
    kinds.sort_by_key(|entry| rank(entry["name"].as_str().unwrap_or_default(), ""));
    kinds
}

/// Secrets that belong to one control plane.
const NEVER: [&str; 2] = ["envoy-admin-ca", "inter-cp-ca"];

/// What is written of what was listed: in order, prepared for another control plane. Resources that zones brought to
/// global are left out of federation profiles: they come back with their zones.
fn prepare(mut items: Vec<Value>, profile: Profile, mode: Option<&str>) -> Vec<Value> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    items.retain(|item| {
        let is_own_secret = item["type"] == "GlobalSecret" && NEVER.contains(&text(item, "name").as_str());
        let is_copy = mode == Some("global") && item["labels"][labels::ORIGIN] == "zone";
        !(is_own_secret || is_copy && profile.is_federation())
    });
    for item in &mut items {
        if item["type"] == "Mesh" {
            item["skipCreatingInitialPolicies"] = json!(["*"]);
        }
        if profile.is_federation()
            && let Some(Value::Object(labels)) = item.get_mut("labels")
        {
            labels.remove(labels::ORIGIN);
        }
    }
    items.sort_by_key(|item| rank(&text(item, "type"), &text(item, "name")));
    items
}

/// Writes every resource of the profile to standard output.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let client = session.checked_client().await?;
    let index = client.get("/").await?;
    let resources = client.get("/_resources").await?;
    let mode = client.mode().await;
    let kinds = plan(&resources, arguments.profile, arguments.include_admin);
    let mut items = Vec::new();
    for entry in &kinds {
        let path = format!("/{}", entry["path"].as_str().unwrap_or_default());
        let hint = || format!("the list {path} cannot be read; secrets need an administrator");
        items.extend(client.list(&path, &[]).await.with_context(hint)?);
    }
    let items = prepare(items, arguments.profile, mode.as_deref());
    let text = |key: &str| index[key].as_str().unwrap_or_default();
    session.screen.line(&format!(
        "# Product: {}, Version: {}, Hostname: {}, ClusterId: {}, InstanceId: {}",
        text("product"),
        text("version"),
        text("hostname"),
        text("clusterId"),
        text("instanceId")
    ))?;
    for item in &items {
        let document = match arguments.format {
            Format::Universal => crate::output::document(item, crate::output::Output::Yaml)?,
            Format::Kubernetes => {
                let item = kubernetes(&client, &kinds, item, arguments.system_namespace.as_deref()).await?;
                graticule_model::yaml::to_string(&item)?
            }
        };
        session.screen.print(&format!("---\n{document}"))?;
    }
    session.screen.note(&format!("exported {}", counted(items.len(), "resource")));
    Ok(())
}

async fn kubernetes(
    client: &Client,
    kinds: &[Value],
    item: &Value,
    namespace: Option<&str>,
) -> Result<Value> {
    let path = kinds.iter().find(|entry| entry["name"] == item["type"]);
    let path = path.and_then(|entry| entry["path"].as_str()).unwrap_or_default();
    let name = item["name"].as_str().unwrap_or_default();
    let place = match item["mesh"].as_str() {
        Some(mesh) => format!("/meshes/{}/{path}/{}", segment(mesh), segment(name)),
        None => format!("/{path}/{}", segment(name)),
    };
    let mut query = vec![("format".to_owned(), "k8s".to_owned())];
    query.extend(namespace.map(|namespace| ("namespace".to_owned(), namespace.to_owned())));
    let mut document = client.get(&with_query(&place, &query)).await?;
    if item["type"] == "Mesh" && document["spec"].is_object() {
        document["spec"]["skipCreatingInitialPolicies"] = json!(["*"]);
    }
    Ok(document)
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// File, directory, URL, or `-` for standard input: what `grat export` wrote; repeatable.
    #[arg(short, long, required = true, value_name = "PLACE")]
    file: Vec<PathBuf>,
    /// Leaves secrets out: keys and tokens of this control plane stay.
    #[arg(long)]
    without_secrets: bool,
}

/// Why a resource is not imported.
fn skipped(kind: Kind, without_secrets: bool, mode: Option<Mode>) -> Option<&'static str> {
    let descriptor = kind.descriptor();
    if descriptor.capabilities.read_only {
        return Some("control planes observe them themselves");
    }
    if without_secrets && descriptor.capabilities.admin_only {
        return Some("--without-secrets");
    }
    if mode.is_some_and(|mode| descriptor.is_read_only_on(mode)) {
        return Some("they come from their zones");
    }
    None
}

/// A document for another control plane: without what that one computes by itself.
fn stripped(mut body: Value, is_zone: bool) -> Value {
    if let Value::Object(members) = &mut body {
        for key in ["creationTime", "modificationTime", "kri", "snis", "status"] {
            members.remove(key);
        }
        if let Some(Value::Object(labels)) = members.get_mut("labels") {
            for key in [labels::DISPLAY_NAME, labels::MESH, labels::ENV] {
                labels.remove(key);
            }
            // A zone asks for this label on what is written there.
            if !is_zone {
                labels.remove(labels::ORIGIN);
                labels.remove(labels::ZONE);
            }
        }
    }
    body
}

/// Applies an export, in the order in which it can be written.
pub(crate) async fn import(session: &Session, arguments: &ImportArguments) -> Result<()> {
    let documents = documents::read(&arguments.file, &Default::default(), None).await?;
    let client = session.checked_client().await?;
    let mode = client.mode().await;
    let is_zone = mode.as_deref() == Some("zone");
    let model_mode = (mode.as_deref() == Some("global")).then_some(Mode::Global);
    let mut wanted: Vec<Document> = Vec::new();
    let mut left_out: Vec<(Kind, &'static str, usize)> = Vec::new();
    for mut document in documents {
        let kind = document.kind();
        match skipped(kind, arguments.without_secrets, model_mode) {
            None => {
                document.body = stripped(document.body, is_zone);
                wanted.push(document);
            }
            Some(reason) => match left_out.iter_mut().find(|(known, _, _)| *known == kind) {
                Some((_, _, count)) => *count += 1,
                None => left_out.push((kind, reason, 1)),
            },
        }
    }
    for (kind, reason, count) in left_out {
        session.screen.note(&format!("left out {}: {reason}", counted(count, kind.name())));
    }
    wanted.sort_by_key(|document| rank(document.kind().name(), document.name()));
    let mut effects = Vec::new();
    apply::write_all(session, &client, &wanted, &mut effects).await?;
    session.screen.note(&format!("imported {}", counted(effects.len(), "resource")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_resources() -> Value {
        let policy = json!({"isTargetRef": true});
        json!({"resources": [
            {"name": "Dataplane", "path": "dataplanes", "includeInFederation": false},
            {"name": "GlobalSecret", "path": "globalsecrets", "includeInFederation": true},
            {"name": "HostnameGenerator", "path": "hostnamegenerators", "includeInFederation": true},
            {"name": "Mesh", "path": "meshes", "includeInFederation": true},
            {"name": "MeshTimeout", "path": "meshtimeouts", "includeInFederation": true, "policy": policy},
            {"name": "Secret", "path": "secrets", "includeInFederation": true},
        ]})
    }

    #[test]
    fn profiles() {
        let names = |profile, admin| -> Vec<String> {
            let kinds = plan(&mk_resources(), profile, admin);
            kinds.iter().map(|entry| entry["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(
            names(Profile::Federation, false),
            ["Mesh", "Secret", "HostnameGenerator", "GlobalSecret"]
        );
        assert_eq!(
            names(Profile::FederationWithPolicies, false),
            ["Mesh", "Secret", "HostnameGenerator", "MeshTimeout", "GlobalSecret"]
        );
        assert_eq!(names(Profile::NoDataplanes, false), ["Mesh", "HostnameGenerator", "MeshTimeout"]);
        assert_eq!(
            names(Profile::All, true),
            ["Mesh", "Secret", "Dataplane", "HostnameGenerator", "MeshTimeout", "GlobalSecret"]
        );
    }

    #[test]
    fn order_and_content() {
        let items = vec![
            json!({"type": "GlobalSecret", "name": "user-token-signing-key-1"}),
            json!({"type": "GlobalSecret", "name": "inter-cp-ca"}),
            json!({"type": "GlobalSecret", "name": "zone-token-signing-key-1"}),
            json!({"type": "MeshTimeout", "name": "t", "labels": {"kuma.io/origin": "global", "team": "a"}}),
            json!({"type": "MeshTimeout", "name": "copy", "labels": {"kuma.io/origin": "zone"}}),
            json!({"type": "Mesh", "name": "m"}),
        ];
        let names = |items: &[Value]| -> Vec<String> {
            items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let federation = prepare(items.clone(), Profile::FederationWithPolicies, Some("global"));
        assert_eq!(names(&federation), ["m", "t", "zone-token-signing-key-1", "user-token-signing-key-1"]);
        assert_eq!(federation[0]["skipCreatingInitialPolicies"], json!(["*"]));
        assert_eq!(federation[1]["labels"], json!({"team": "a"}));
        let all = prepare(items, Profile::All, Some("global"));
        assert_eq!(names(&all), ["m", "t", "copy", "zone-token-signing-key-1", "user-token-signing-key-1"]);
        assert_eq!(all[1]["labels"]["kuma.io/origin"], "global");
    }

    #[test]
    fn what_is_imported() {
        let global = Some(Mode::Global);
        assert!(skipped(Kind::MeshTimeout, true, global).is_none());
        assert!(skipped(Kind::Dataplane, false, global).is_some());
        assert!(skipped(Kind::ZoneInsight, false, None).is_some());
        assert!(
            skipped(Kind::Secret, true, global).is_some() && skipped(Kind::Secret, false, global).is_none()
        );
        let body = json!({"kri": "x", "status": {}, "labels": {"kuma.io/origin": "zone", "team": "a"}});
        assert_eq!(stripped(body.clone(), false), json!({"labels": {"team": "a"}}));
        assert_eq!(stripped(body, true)["labels"]["kuma.io/origin"], "zone");
    }
}
