//! `grat zone join`: what becomes of a zone that stood alone, before it is so.
//!
//! Only reads, unless it is told `--yes`: then global gets what the zone would lose otherwise, and a token for the zone.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use graticule_model::{Kind, labels};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, Target, is_status, list_path, resource_path, segment};
use crate::session::{Session, counted, usage};
use crate::table::Table;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the zone, as in its setting multizone.zone.name.
    zone: String,
    /// Global: a context, or the URL of its REST API. --address and --context are the zone's.
    #[arg(long, value_name = "CONTEXT|URL")]
    global: String,
    /// User token at global, when it is given by URL.
    #[arg(long)]
    global_token: Option<String>,
    /// Take global's form of what both have and what is different.
    #[arg(long)]
    take_global: bool,
    /// Where the zone's token is written.
    #[arg(long, default_value = "zone.token")]
    token_file: PathBuf,
    /// Give global what only the zone has, and make a token for the zone.
    #[arg(long)]
    yes: bool,
}

/// What becomes of one resource of the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// Belongs to global from now on, which does not have it: it has to go there first.
    Uploaded,
    /// Belongs to global from now on, which has another form of it.
    Replaced,
    /// The zone kept it when it left global, and nobody wrote it since; global has another form of it.
    GivesWay,
    /// Belongs to global from now on, which has the same.
    Same,
    /// Stays the zone's; global has one of the same name, which the zone refuses.
    KeptSecret,
    /// Stays the zone's, beside another one of global under the same display name.
    Beside,
    /// Stays the zone's, and is shown at global.
    Shown,
    /// Stays the zone's alone.
    Kept,
}

impl Fate {
    fn meaning(self) -> &'static str {
        match self {
            Fate::Uploaded => "goes to global, then comes back as its copy",
            Fate::Replaced => "DIFFERENT at global: the zone gets global's",
            Fate::GivesWay => "was global's: gives way to global's",
            Fate::Same => "the same at global: becomes a copy of it",
            Fate::KeptSecret => "stays; global's of the same name is refused",
            Fate::Beside => "stays, and counts more than global's of the same name",
            Fate::Shown => "stays, and is shown at global",
            Fate::Kept => "stays",
        }
    }
}

/// What a person decided about a resource: neither times nor identity.
fn substance(item: &Value) -> Value {
    let mut item = item.clone();
    if let Value::Object(members) = &mut item {
        for key in ["creationTime", "modificationTime", "kri", "status", "skipCreatingInitialPolicies"] {
            members.remove(key);
        }
        if let Some(Value::Object(own)) = members.get_mut("labels") {
            own.retain(|key, _| !key.contains("kuma.io/") && key != labels::FROM_GLOBAL);
            if own.is_empty() {
                members.remove("labels");
            }
        }
    }
    item
}

fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

/// The same under another name.
fn named(mut item: Value, name: Option<&str>) -> Value {
    if let Some(name) = name {
        item["name"] = json!(name);
    }
    item
}

/// Global has copies of zones' resources as well.
fn is_of_global(item: &Value) -> bool {
    item["labels"][labels::ORIGIN] != "zone"
}

fn is_local(item: &Value) -> bool {
    !matches!(item["labels"][labels::ORIGIN].as_str(), Some(origin) if origin != "zone")
}

/// What becomes of the zone's resources of a kind, by mesh and name.
fn fates(kind: Kind, zone: &[Value], global: &[Value]) -> Vec<(Fate, Value)> {
    let kds = kind.descriptor().kds;
    let key = |item: &Value, name: &str| (text(item, "mesh").to_owned(), name.to_owned());
    let at_global: BTreeMap<_, _> = global
        .iter()
        .filter(|item| is_of_global(item))
        .map(|item| (key(item, text(item, "name")), item))
        .collect();
    let is_secret = matches!(kind, Kind::Secret | Kind::GlobalSecret);
    let is_globals = kds.requested_by_zones() && !kds.provided_by_zone();
    let mut out: Vec<(Fate, Value)> = Vec::new();
    for item in zone.iter().filter(|item| is_local(item)) {
        let was_globals = item["labels"][labels::FROM_GLOBAL].is_string();
        // What was global's may have kept the name that it had as a copy.
        let display = item["labels"][labels::DISPLAY_NAME].as_str().filter(|_| was_globals);
        let other = at_global.get(&key(item, display.unwrap_or(text(item, "name"))));
        let is_same = || other.is_some_and(|other| substance(other) == named(substance(item), display));
        let fate = match other {
            Some(_) if (is_globals || was_globals) && is_same() => Fate::Same,
            // Tokens may be signed with it. What came under another name, a public key, nobody can have written at global.
            Some(other) if was_globals && is_secret && text(other, "name") == text(item, "name") => {
                Fate::Replaced
            }
            Some(_) if was_globals => Fate::GivesWay,
            Some(_) if is_globals => Fate::Replaced,
            None if is_globals => Fate::Uploaded,
            Some(_) if kind.descriptor().capabilities.keeps_name => Fate::KeptSecret,
            Some(_) if kds.requested_by_zones() && kind.descriptor().is_policy() => Fate::Beside,
            _ if kds.zone_to_global() => Fate::Shown,
            _ => Fate::Kept,
        };
        out.push((fate, item.clone()));
    }
    out
}

/// Whether a kind takes part.
fn is_concerned(kind: Kind) -> bool {
    let descriptor = kind.descriptor();
    let kds = descriptor.kds;
    !descriptor.path.is_empty()
        && !descriptor.capabilities.soft
        && kind != Kind::ServiceInsight
        && (kds.requested_by_zones() || kds.zone_to_global())
}

fn preview(plan: &[(Kind, Fate, Value)]) -> String {
    let mut table = Table::new(&["KIND", "MESH", "NAME", "WHAT BECOMES OF IT"]);
    let is_listed = |fate: Fate| !matches!(fate, Fate::Shown | Fate::Kept | Fate::Same);
    for (kind, fate, item) in plan.iter().filter(|(_, fate, _)| is_listed(*fate)) {
        let mesh = Some(text(item, "mesh")).filter(|mesh| !mesh.is_empty()).unwrap_or("-");
        table.row(vec![kind.name().into(), mesh.into(), text(item, "name").into(), fate.meaning().into()]);
    }
    let mut out = table.render();
    for fate in [Fate::Same, Fate::Shown, Fate::Kept] {
        let count = plan.iter().filter(|(_, other, _)| *other == fate).count();
        if count > 0 {
            out.push_str(&format!("{}: {}\n", counted(count, "more resource"), fate.meaning()));
        }
    }
    out
}

/// What global is given.
fn for_global(item: &Value) -> Value {
    let mut item = substance(item);
    if item["type"] == "Mesh" {
        // The zone has its policies; global's own would be others.
        item["skipCreatingInitialPolicies"] = json!(["*"]);
    }
    item
}

/// Shows what becomes of everything; with `--yes` prepares global.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let zone = session.checked_client().await?;
    let global = global_client(session, &arguments.global, arguments.global_token.as_deref())?;
    roles(&zone, &global).await?;
    name_is_free(&global, &arguments.zone).await?;
    let mut plan: Vec<(Kind, Fate, Value)> = Vec::new();
    for kind in Kind::all().filter(|kind| is_concerned(*kind)) {
        let path = list_path(kind, None);
        let hint =
            |at: &str| format!("the list {path} of {at} cannot be read; secrets need an administrator");
        let here = zone.list(&path, &[]).await.with_context(|| hint("the zone"))?;
        let there = global.list(&path, &[]).await.with_context(|| hint("global"))?;
        plan.extend(fates(kind, &here, &there).into_iter().map(|(fate, item)| (kind, fate, item)));
    }
    session.screen.print(&preview(&plan))?;
    let with = |fate: Fate| plan.iter().filter(move |(_, other, _)| *other == fate);
    let replaced = with(Fate::Replaced).count();
    if !arguments.yes {
        session.screen.note("nothing was changed; say --yes to prepare global");
        return Ok(());
    }
    ensure!(
        replaced == 0 || arguments.take_global,
        "{} would be replaced by global's: make them equal first, or say --take-global",
        counted(replaced, "resource")
    );
    // Meshes first: everything else is in one.
    let mut uploads: Vec<_> = with(Fate::Uploaded).collect();
    uploads.sort_by_key(|(kind, ..)| *kind != Kind::Mesh);
    for (kind, _, item) in &uploads {
        let path = resource_path(*kind, text(item, "mesh"), text(item, "name"));
        global.put(&path, &for_global(item)).await.with_context(|| format!("global does not take {path}"))?;
        session.screen.line(&format!("global has {kind} {}", text(item, "name")))?;
    }
    let file = &arguments.token_file;
    write_zone_token(&global, &arguments.zone, file).await?;
    may_connect(&zone, &arguments.zone).await?;
    session.screen.line(&format!(
        "the zone's token is in {file}; set in the zone, and start it again:\n  multizone.zone.name: {name}\n  \
         multizone.zone.globalAddress: grpcs://<global>:5685\n  multizone.zone.kds.tokenFile: {file}\n  \
         multizone.zone.kds.rootCaFile: <authority of global's certificate>\nthen look: grat zone status {name}",
        file = file.display(),
        name = arguments.zone,
    ))
}

/// A zone that has left a global does not connect until it is told that it may. Stock Kuma needs no such thing.
async fn may_connect(zone: &Client, name: &str) -> Result<()> {
    match zone.delete(&format!("/zones/{}/_leave-global", segment(name))).await {
        Err(error)
            if is_status(&error, StatusCode::NOT_FOUND)
                || is_status(&error, StatusCode::METHOD_NOT_ALLOWED) =>
        {
            Ok(())
        }
        done => done.context("the zone is not told that it may connect again: say it again"),
    }
}

/// Has global make a token for a zone, readable by who runs this alone.
pub(super) async fn write_zone_token(global: &Client, zone: &str, file: &Path) -> Result<()> {
    let body = json!({"zone": zone, "scope": [], "validFor": "87600h"});
    let token = global.post("/tokens/zone", &body).await.context("global makes no token for the zone")?;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| {
            // One that exists keeps its mode otherwise.
            open.set_permissions(Permissions::from_mode(0o600))?;
            open.write_all(token.trim().as_bytes())
        })
        .with_context(|| file.display().to_string())
}

/// A client of global, which is named beside the control plane of --address.
pub(super) fn global_client(session: &Session, global: &str, token: Option<&str>) -> Result<Client> {
    let target = if global.contains("://") {
        Target { address: global.to_owned(), token: token.map(str::to_owned), ..Target::default() }
    } else {
        if token.is_some() {
            return Err(usage("--global-token goes with a URL; a context has its own"));
        }
        session.contexts()?.target(Some(global))?.0
    };
    Client::new(&target, session.timeout()?)
}

/// Both are what they are taken for.
pub(super) async fn roles(zone: &Client, global: &Client) -> Result<()> {
    for (client, wanted, option) in [(zone, "zone", "--address"), (global, "global", "--global")] {
        match client.mode().await.as_deref() {
            Some(mode) if mode == wanted => {}
            Some(mode) => {
                bail!("{option} {} is a control plane of mode {mode}, not {wanted}", client.address())
            }
            None => {
                // Whoever may not read the configuration cannot tell; a control plane that is not there can be told.
                client.get("/").await?;
            }
        }
    }
    Ok(())
}

async fn name_is_free(global: &Client, name: &str) -> Result<()> {
    match global.find(&super::path_of(name)).await? {
        Some(status) if status["online"] == true => {
            bail!("a zone named {name} is connected to global already: choose another multizone.zone.name")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_becomes_of_everything() {
        let mesh = |name: &str, more: Value| {
            let mut mesh = json!({"type": "Mesh", "name": name, "creationTime": "now"});
            if let (Value::Object(members), Value::Object(more)) = (&mut mesh, more) {
                members.extend(more);
            }
            mesh
        };
        let named = |kind: &str, name: &str| json!({"type": kind, "mesh": "default", "name": name});
        let with = |mut item: Value, more: Value| {
            if let (Value::Object(members), Value::Object(more)) = (&mut item, more) {
                members.extend(more);
            }
            item
        };
        let was = |kind: &str, name: &str, display: &str| {
            let labels = json!({"graticule/from-global": "yes", "kuma.io/display-name": display});
            with(named(kind, name), json!({"labels": labels}))
        };
        let copy = json!({"type": "Mesh", "name": "copy", "labels": {"kuma.io/origin": "global"}});
        let mut plan = Vec::new();
        for (kind, zone, global) in [
            (
                Kind::Mesh,
                vec![
                    mesh("same", json!({})),
                    mesh("other", json!({"mtls": {}})),
                    mesh("only", json!({"labels": {"graticule/from-global": "yes"}})),
                    mesh("was", json!({"labels": {"graticule/from-global": "yes"}})),
                    mesh("was-changed", json!({"labels": {"graticule/from-global": "yes"}})),
                    copy,
                ],
                vec![
                    mesh("same", json!({"creationTime": "then", "labels": {"kuma.io/origin": "global"}})),
                    mesh("other", json!({})),
                    mesh("was", json!({"labels": {"kuma.io/origin": "global"}})),
                    mesh("was-changed", json!({"mtls": {}})),
                    mesh("global's", json!({})),
                ],
            ),
            (
                Kind::MeshTimeout,
                vec![named("MeshTimeout", "both"), named("MeshTimeout", "own")],
                vec![named("MeshTimeout", "both")],
            ),
            (
                Kind::MeshRetry,
                vec![
                    was("MeshRetry", "unchanged", "unchanged"),
                    was("MeshRetry", "changed", "changed"),
                    was("MeshRetry", "taken-4x8c", "taken"),
                    was("MeshRetry", "gone", "gone"),
                    named("MeshRetry", "shown"),
                ],
                vec![
                    named("MeshRetry", "unchanged"),
                    with(named("MeshRetry", "changed"), json!({"spec": 2})),
                    named("MeshRetry", "taken"),
                    with(named("MeshRetry", "shown"), json!({"labels": {"kuma.io/origin": "zone"}})),
                ],
            ),
            (
                Kind::Secret,
                vec![
                    named("Secret", "key"),
                    named("Secret", "own"),
                    was("Secret", "signs", "signs"),
                    was("Secret", "signs-other", "signs-other"),
                ],
                vec![
                    named("Secret", "key"),
                    named("Secret", "signs"),
                    with(named("Secret", "signs-other"), json!({"data": "x"})),
                ],
            ),
            (
                Kind::GlobalSecret,
                vec![with(was("GlobalSecret", "public-1", "private-1"), json!({"data": "x"}))],
                vec![named("GlobalSecret", "private-1")],
            ),
            (Kind::Dataplane, vec![named("Dataplane", "web")], vec![]),
        ] {
            assert!(is_concerned(kind));
            plan.extend(fates(kind, &zone, &global).into_iter().map(|(fate, item)| (kind, fate, item)));
        }
        expect![[r#"
            KIND           MESH      NAME          WHAT BECOMES OF IT
            Mesh           -         other         DIFFERENT at global: the zone gets global's
            Mesh           -         only          goes to global, then comes back as its copy
            Mesh           -         was-changed   was global's: gives way to global's
            MeshTimeout    default   both          stays, and counts more than global's of the same name
            MeshRetry      default   changed       was global's: gives way to global's
            Secret         default   key           stays; global's of the same name is refused
            Secret         default   signs-other   DIFFERENT at global: the zone gets global's
            GlobalSecret   default   public-1      was global's: gives way to global's
            5 more resources: the same at global: becomes a copy of it
            4 more resources: stays, and is shown at global
            1 more resource: stays
        "#]]
        .assert_eq(&preview(&plan));
        let uploaded =
            plan.iter().find(|(_, fate, _)| *fate == Fate::Uploaded).map(|(_, _, item)| for_global(item));
        assert_eq!(
            uploaded,
            Some(json!({"type": "Mesh", "name": "only", "skipCreatingInitialPolicies": ["*"]}))
        );
        for kind in [Kind::Zone, Kind::DataplaneInsight, Kind::Config] {
            assert!(!is_concerned(kind), "{kind}");
        }
    }
}
