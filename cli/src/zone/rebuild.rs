//! `grat zone rebuild-global`: a global that lost everything, made anew from the copies that its zones have.
//!
//! Reads the zones' REST APIs, so that the zones need not be connected, and stock Kuma zones serve as well. Only reads,
//! unless it is told `--yes`. The federation's id comes last: the zones take nothing from the new global before it has
//! everything that they have. A global that has the id already is no new one, and is left alone.

mod arrival;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use graticule_model::{GoDuration, Kind, Timestamp, labels, name};
use serde_json::{Value, json};

use super::join;
use crate::age;
use crate::client::{Client, list_path, resource_path};
use crate::session::{Session, counted, duration};
use crate::table::Table;

/// Labels that a control plane computes.
const COMPUTED: [&str; 6] =
    [labels::DISPLAY_NAME, labels::MESH, labels::ORIGIN, labels::ENV, labels::ZONE, labels::FROM_GLOBAL];
/// Public parts of the keys that sign zone tokens: all that zones get of them.
const ZONE_PUBLIC_KEY: &str = "zone-token-signing-public-key";
const NOT_REBUILT: &str = "zones never had, so it is not rebuilt: user tokens and their keys, the private keys of zone tokens \
    (every zone needs a new token), resources with the label kuma.io/kds-sync: disabled, and whether a zone was disabled";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A zone: a context, or the URL of its REST API; repeatable. Name all zones. --address and --context are the new
    /// global's.
    #[arg(long = "from", value_name = "CONTEXT|URL", required = true)]
    zones: Vec<String>,
    /// User token at the zones that are given by URL.
    #[arg(long)]
    zone_token: Option<String>,
    /// Delete at global what no zone has: what the new global made by itself.
    #[arg(long)]
    prune: bool,
    /// Directory for the new tokens of the zones, one file ZONE.token each.
    #[arg(long, default_value = ".")]
    token_dir: PathBuf,
    /// How long to wait until all zones are connected to the new global.
    #[arg(long, value_parser = duration, default_value = "10m")]
    wait: GoDuration,
    /// Go on after --wait although zones are not connected, or global has not got everything of theirs.
    #[arg(long)]
    skip_missing: bool,
    /// Of what the zones have in different forms, take this zone's; repeatable: of the first one that has it.
    #[arg(long = "prefer", value_name = "ZONE")]
    prefer: Vec<String>,
    /// Write although global is the zones' global already, or has zones that are not named: what was changed there since is
    /// replaced by what the zones have.
    #[arg(long)]
    overwrite: bool,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

/// A resource of global: mesh and name.
type Name = (Kind, String, String);

/// One form of a resource, and who has it.
#[derive(Debug, Clone, PartialEq)]
struct Form {
    body: Value,
    /// Zones that have it, and since when.
    zones: BTreeMap<String, Option<Timestamp>>,
}

impl Form {
    fn newest(&self) -> (Option<Timestamp>, usize) {
        (self.zones.values().max().copied().flatten(), self.zones.len())
    }
}

/// What becomes of a resource at global.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Created,
    Replaced,
    Same,
    /// No zone has it.
    Extra,
}

#[derive(Debug, Clone, PartialEq)]
struct Planned {
    name: Name,
    fate: Fate,
    /// What it shall be; of an extra one, what it is.
    body: Value,
    note: String,
    /// Zones have different forms of it, and nobody said which one counts.
    is_open: bool,
}

fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

/// Kinds that global writes and zones have copies of.
fn is_concerned(kind: Kind) -> bool {
    let descriptor = kind.descriptor();
    descriptor.kds.requested_by_zones()
        && descriptor.kds.global_to_zones()
        && !descriptor.path.is_empty()
        && kind != Kind::ServiceInsight
}

/// The resource of global that a zone's resource is a copy of; `None`: it is none.
fn original(kind: Kind, item: &Value) -> Option<(Name, Value)> {
    let label = |key: &str| item["labels"][key].as_str().filter(|text| !text.is_empty());
    if label(labels::ORIGIN) != Some("global") || label(labels::ZONE).is_some() {
        return None;
    }
    let stored = text(item, "name");
    if kind == Kind::GlobalSecret && stored.starts_with(ZONE_PUBLIC_KEY) {
        return None;
    }
    let keeps_name = kind.descriptor().capabilities.keeps_name;
    let name = if keeps_name { stored } else { label(labels::DISPLAY_NAME).unwrap_or(stored) };
    let mut body = substance(item);
    body["name"] = json!(name);
    Some(((kind, text(item, "mesh").to_owned(), name.to_owned()), body))
}

/// What a person wrote of a resource.
fn substance(item: &Value) -> Value {
    let mut item = item.clone();
    if let Value::Object(members) = &mut item {
        for key in ["creationTime", "modificationTime", "kri", "snis", "status"] {
            members.remove(key);
        }
        if let Some(Value::Object(own)) = members.get_mut("labels") {
            own.retain(|key, _| !COMPUTED.contains(&key.as_str()));
            if own.is_empty() {
                members.remove("labels");
            }
        }
    }
    item
}

/// The forms of every resource, over all zones.
fn gather(zones: &[(&str, &[(Kind, Value)])]) -> BTreeMap<Name, Vec<Form>> {
    let mut all: BTreeMap<Name, Vec<Form>> = BTreeMap::new();
    for (zone, items) in zones {
        for (kind, item) in *items {
            let Some((name, body)) = original(*kind, item) else { continue };
            let since = age::time(&item["modificationTime"]);
            let forms = all.entry(name).or_default();
            match forms.iter_mut().find(|form| form.body == body) {
                Some(form) => drop(form.zones.insert((*zone).to_owned(), since)),
                None => forms.push(Form { body, zones: BTreeMap::from([((*zone).to_owned(), since)]) }),
            }
        }
    }
    all
}

/// The form that the first preferred zone has. Without one: the form that a zone stored last (each by its own clock), of two
/// from the same moment the one that more zones have; whether somebody decided it.
fn best<'a>(forms: &'a [Form], prefer: &[String]) -> Option<(&'a Form, bool)> {
    let preferred = prefer.iter().find_map(|zone| forms.iter().find(|form| form.zones.contains_key(zone)));
    match preferred {
        Some(form) => Some((form, true)),
        None => Some((forms.iter().max_by_key(|form| form.newest())?, forms.len() == 1)),
    }
}

fn note(forms: &[Form], chosen: &Form, is_decided: bool, zones: usize) -> String {
    let names = |form: &Form| form.zones.keys().cloned().collect::<Vec<_>>().join(", ");
    let dated = |form: &Form| match form.newest().0 {
        Some(time) => format!("{} ({time})", names(form)),
        None => names(form),
    };
    let have: usize = forms.iter().map(|form| form.zones.len()).sum();
    let mut parts = Vec::new();
    let others: Vec<String> = forms.iter().filter(|form| *form != chosen).map(dated).collect();
    if !others.is_empty() && is_decided {
        parts.push(format!("CONFLICT: as {} has it, different in {}", dated(chosen), others.join(", ")));
    } else if !others.is_empty() {
        let all: Vec<String> = forms.iter().map(dated).collect();
        parts.push(format!("CONFLICT: --prefer one of {}", all.join(" or ")));
    }
    if have < zones {
        let all: BTreeSet<&str> =
            forms.iter().flat_map(|form| form.zones.keys().map(String::as_str)).collect();
        parts.push(format!("only in {}", all.into_iter().collect::<Vec<_>>().join(", ")));
    }
    parts.join("; ")
}

/// Meshes come first, then the secrets, because a mesh makes secrets that theirs replace.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Mesh => 0,
        Kind::Secret | Kind::GlobalSecret => 1,
        _ => 2,
    }
}

/// What becomes of everything. `global` is what it has now.
fn plan(
    forms: BTreeMap<Name, Vec<Form>>,
    zones: usize,
    prefer: &[String],
    global: &[(Kind, Value)],
) -> Vec<Planned> {
    let mut there: BTreeMap<Name, Value> = BTreeMap::new();
    for (kind, item) in global.iter().filter(|(_, item)| item["labels"][labels::ORIGIN] != "zone") {
        let name = (*kind, text(item, "mesh").to_owned(), text(item, "name").to_owned());
        there.insert(name, substance(item));
    }
    let mut planned = Vec::new();
    for (name, forms) in forms {
        let Some((chosen, is_decided)) = best(&forms, prefer) else { continue };
        let fate = match there.remove(&name) {
            None => Fate::Created,
            Some(now) if now == chosen.body => Fate::Same,
            Some(_) => Fate::Replaced,
        };
        let note = note(&forms, chosen, is_decided, zones);
        planned.push(Planned { name, fate, body: chosen.body.clone(), note, is_open: !is_decided });
    }
    // Secrets that zones never get are no surplus.
    let extra = there.into_iter().filter(|((kind, ..), item)| {
        !kind.descriptor().capabilities.admin_only && item["labels"][labels::KDS_SYNC] != "disabled"
    });
    planned.extend(extra.map(|(name, body)| Planned {
        name,
        fate: Fate::Extra,
        body,
        note: String::new(),
        is_open: false,
    }));
    planned.sort_by(|a, b| (rank(a.name.0), &a.name).cmp(&(rank(b.name.0), &b.name)));
    planned
}

fn preview(planned: &[Planned], prune: bool) -> String {
    let extra =
        if prune { "no zone has it: deleted at global" } else { "no zone has it: stays, unless --prune" };
    let mut table = Table::new(&["KIND", "MESH", "NAME", "AT GLOBAL", "NOTE"]);
    let is_listed = |one: &&Planned| one.fate != Fate::Same || !one.note.is_empty();
    for one in planned.iter().filter(is_listed) {
        let (kind, mesh, name) = &one.name;
        let mesh = Some(mesh.as_str()).filter(|mesh| !mesh.is_empty()).unwrap_or("-");
        let what = match one.fate {
            _ if one.is_open => "not decided",
            Fate::Created => "created",
            Fate::Replaced => "replaced",
            Fate::Same => "the same",
            Fate::Extra => extra,
        };
        let note = if one.note.is_empty() { "-".into() } else { one.note.clone() };
        table.row(vec![kind.name().into(), mesh.into(), name.clone(), what.into(), note]);
    }
    let same = planned.iter().filter(|one| one.fate == Fate::Same).count();
    format!("{}{}: the same at global\n", table.render(), counted(same, "resource"))
}

/// Every resource of the concerned kinds.
async fn read(client: &Client, at: &str) -> Result<Vec<(Kind, Value)>> {
    let mut all = Vec::new();
    for kind in Kind::all().filter(|kind| is_concerned(*kind)) {
        let path = list_path(kind, None);
        let hint = || format!("the list {path} of {at} cannot be read; secrets need an administrator");
        all.extend(client.list(&path, &[]).await.with_context(hint)?.into_iter().map(|item| (kind, item)));
    }
    Ok(all)
}

/// A zone that is asked.
struct Zone {
    name: String,
    client: Client,
    items: Vec<(Kind, Value)>,
}

/// The name of a zone, by its list of zones. It becomes the name of a file, so that it has to be a name.
fn own_name(list: &[Value]) -> Result<&str> {
    let [zone] = list else {
        bail!("has {}, not one: it does not say which one it is", counted(list.len(), "zone"))
    };
    let name = text(zone, "name");
    match name::resource_name_error(name) {
        Some(reason) => bail!("the name of the zone, {name:?}: {reason}"),
        None => Ok(name),
    }
}

/// Whether global may be written: not when it has the federation's id, because then it has what people write as well, which
/// is newer than what zones have; and not when it is the global of others.
fn may_be_written(global_id: &str, id: &str, at_global: &[Value], zones: &[&str]) -> Result<()> {
    ensure!(global_id != id, "it is already the global of federation {id}, and nothing is written there");
    let others: Vec<&str> =
        at_global.iter().map(|zone| text(zone, "name")).filter(|name| !zones.contains(name)).collect();
    ensure!(
        others.is_empty(),
        "it has zones that are not named, and nothing is written there: {}; name them with --from, if they are of this \
         federation",
        others.join(", ")
    );
    Ok(())
}

/// The tokens can be written there.
fn check_directory(dir: &Path) -> Result<()> {
    let probe = dir.join(format!(".grat-{}", std::process::id()));
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| std::fs::remove_file(&probe))
        .with_context(|| format!("--token-dir {}: no tokens can be written there", dir.display()))
}

/// Reads all zones, and the id of their federation.
async fn read_zones(session: &Session, arguments: &Arguments) -> Result<(String, Vec<Zone>)> {
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut zones: Vec<Zone> = Vec::new();
    for place in &arguments.zones {
        let token = arguments.zone_token.as_deref().filter(|_| place.contains("://"));
        let client = join::global_client(session, place, token)?;
        let mode = client.mode().await;
        ensure!(mode.as_deref().is_none_or(|mode| mode == "zone"), "--from {place} is no zone");
        let index = client.get("/").await?;
        let own = client.list(&list_path(Kind::Zone, None), &[]).await?;
        let name = own_name(&own).with_context(|| format!("--from {place}"))?.to_owned();
        ensure!(zones.iter().all(|known| known.name != name), "--from {place}: zone {name} is named twice");
        ids.entry(text(&index, "clusterId").to_owned()).or_default().push(name.clone());
        let items = read(&client, place).await?;
        zones.push(Zone { name, client, items });
    }
    let mut distinct = ids.iter();
    match (distinct.next(), distinct.next()) {
        (Some((id, _)), None) if !id.is_empty() => Ok((id.clone(), zones)),
        (Some((_, names)), None) => bail!("{} do not know the id of their federation", names.join(", ")),
        _ => {
            let all = ids.iter().map(|(id, names)| format!("{id:?} ({})", names.join(", ")));
            bail!("the zones belong to different federations: {}", all.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Shows what the zones have; with `--yes` gives it to global.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let global = session.checked_client().await?;
    if let Some(mode) = global.mode().await {
        ensure!(
            mode == "global",
            "--address {} is a control plane of mode {mode}, not global",
            global.address()
        );
    }
    let (id, zones) = read_zones(session, arguments).await?;
    let items: Vec<(&str, &[(Kind, Value)])> =
        zones.iter().map(|zone| (zone.name.as_str(), zone.items.as_slice())).collect();
    for name in &arguments.prefer {
        ensure!(
            zones.iter().any(|zone| zone.name == *name),
            "--prefer {name}: no zone of this name is given with --from"
        );
    }
    let planned = plan(gather(&items), zones.len(), &arguments.prefer, &read(&global, "global").await?);
    let global_id = text(&global.get("/").await?, "clusterId").to_owned();
    let names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
    let at_global = global.list(&list_path(Kind::Zone, None), &[]).await?;
    let allowed = may_be_written(&global_id, &id, &at_global, &names)
        .with_context(|| format!("--address {}", global.address()));
    session.screen.print(&preview(&planned, arguments.prune))?;
    session.screen.line(NOT_REBUILT)?;
    if !arguments.yes {
        if let Err(error) = &allowed {
            session.screen.warn(&format!("{error:#}, unless you say --overwrite"));
        }
        session.screen.note("nothing was changed; say --yes to rebuild global");
        return Ok(());
    }
    if !arguments.overwrite {
        allowed.context("unless you say --overwrite")?;
    }
    let open = planned.iter().filter(|one| one.is_open).count();
    ensure!(
        open == 0,
        "the zones have {} in different forms: say with --prefer ZONE whose counts; nothing was changed",
        counted(open, "resource")
    );
    check_directory(&arguments.token_dir)?;
    let mut failed = 0_usize;
    for one in &planned {
        if let Err(error) = write(&global, one, arguments.prune).await {
            failed += 1;
            session.screen.warn(&format!("{} {}: {error:#}", one.name.0, one.name.2));
        }
    }
    ensure!(
        failed == 0,
        "{} not written, so that the zones do not follow this global yet; run it again",
        counted(failed, "resource")
    );
    if global_id == id {
        return session
            .screen
            .line(&format!("global has everything; it is the global of federation {id} already"));
    }
    for zone in &zones {
        let status = global.find(&super::path_of(&zone.name)).await?;
        if status.is_some_and(|status| status["online"] == true) {
            continue;
        }
        let file = arguments.token_dir.join(format!("{}.token", zone.name));
        join::write_zone_token(&global, &zone.name, &file).await?;
        session.screen.line(&format!("a new token of zone {} is in {}", zone.name, file.display()))?;
    }
    session.screen.line(
        "put each token into the file of multizone.zone.kds.tokenFile of its zone, which connects by itself then, \
         within 10 s",
    )?;
    arrival::wait(session, &zones, &global, arguments.wait.to_std(), arguments.skip_missing).await?;
    global
        .put("/_cluster-id", &json!({"clusterId": id, "expected": global_id}))
        .await
        .context("global does not take the federation's id")?;
    session.screen.line(&format!(
        "global is the global of federation {id} now, and the zones follow it; then look: grat zone status"
    ))
}

/// Makes one resource what it shall be.
async fn write(global: &Client, one: &Planned, prune: bool) -> Result<()> {
    let (kind, mesh, name) = &one.name;
    let path = resource_path(*kind, mesh, name);
    match one.fate {
        Fate::Same => return Ok(()),
        Fate::Extra if prune => return global.delete(&path).await,
        Fate::Extra => return Ok(()),
        // Its policies come from the zones.
        Fate::Created if *kind == Kind::Mesh => {
            let mut empty = one.body.clone();
            empty["skipCreatingInitialPolicies"] = json!(["*"]);
            global.put(&path, &empty).await?;
        }
        Fate::Created | Fate::Replaced => {}
    }
    global.put(&path, &one.body).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn copy(kind: &str, name: &str, display: &str, at: &str, spec: Value) -> Value {
        json!({"type": kind, "mesh": "default", "name": name, "modificationTime": at, "creationTime": at, "spec": spec,
            "labels": {"kuma.io/origin": "global", "kuma.io/display-name": display, "team": "a"}})
    }

    #[test]
    fn what_is_rebuilt() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let timeout = |name: &str, at: &str, spec: i32| {
            (Kind::MeshTimeout, copy("MeshTimeout", &format!("{name}-4x8c"), name, at, json!(spec)))
        };
        let mut own = timeout("own", late, 1);
        own.1["labels"]["kuma.io/origin"] = json!("zone");
        let mut foreign = timeout("foreign", late, 1);
        foreign.1["labels"]["kuma.io/zone"] = json!("west");
        let public = (
            Kind::GlobalSecret,
            copy("GlobalSecret", "zone-token-signing-public-key-1", "x", late, json!(1)),
        );
        let mesh = json!({"type": "Mesh", "name": "default", "labels": {"kuma.io/origin": "global"}});
        let east = [
            timeout("same", late, 1),
            timeout("changed", late, 2),
            timeout("often", early, 1),
            timeout("here-only", late, 1),
            own,
            foreign,
            public,
            (Kind::Mesh, mesh.clone()),
        ];
        let west = [
            timeout("same", early, 1),
            timeout("changed", early, 1),
            timeout("often", early, 2),
            (Kind::Mesh, mesh),
        ];
        let north = [timeout("same", early, 1), timeout("changed", early, 1), timeout("often", early, 2)];
        let zones = [("east", &east[..]), ("west", &west[..]), ("north", &north[..])];
        let at_global = |name: &str, spec: i32| {
            (
                Kind::MeshTimeout,
                json!({"type": "MeshTimeout", "mesh": "default", "name": name, "spec": spec, "creationTime": late,
                "labels": {"kuma.io/origin": "global", "team": "a"}}),
            )
        };
        let mut of_zone = at_global("of-a-zone", 1);
        of_zone.1["labels"]["kuma.io/origin"] = json!("zone");
        let global = [
            at_global("same", 1),
            at_global("often", 1),
            at_global("made-by-itself", 1),
            of_zone,
            (Kind::GlobalSecret, json!({"type": "GlobalSecret", "name": "user-token-signing-key-1"})),
        ];
        let planned = plan(gather(&zones), zones.len(), &["west".to_owned()], &global);
        expect![[r#"
            KIND          MESH      NAME             AT GLOBAL                               NOTE
            Mesh          -         default          created                                 only in east, west
            MeshTimeout   default   changed          created                                 CONFLICT: as north, west (2026-01-01T00:00:00Z) has it, different in east (2026-01-02T00:00:00Z)
            MeshTimeout   default   here-only        created                                 only in east
            MeshTimeout   default   made-by-itself   no zone has it: stays, unless --prune   -
            MeshTimeout   default   often            replaced                                CONFLICT: as north, west (2026-01-01T00:00:00Z) has it, different in east (2026-01-01T00:00:00Z)
            1 resource: the same at global
        "#]]
        .assert_eq(&preview(&planned, false));
        let often = planned.iter().find(|one| one.name.2 == "often").expect("it is there");
        let wanted = json!({"type": "MeshTimeout", "mesh": "default", "name": "often", "spec": 2, "labels": {"team": "a"}});
        assert_eq!(often.body, wanted);
        let nobody = plan(gather(&zones), zones.len(), &[], &global);
        let open: Vec<&str> =
            nobody.iter().filter(|one| one.is_open).map(|one| one.name.2.as_str()).collect();
        assert_eq!(open, ["changed", "often"]);
        expect![[r#"
            KIND          MESH      NAME             AT GLOBAL                           NOTE
            Mesh          -         default          created                             only in east, west
            MeshTimeout   default   changed          not decided                         CONFLICT: --prefer one of east (2026-01-02T00:00:00Z) or north, west (2026-01-01T00:00:00Z)
            MeshTimeout   default   here-only        created                             only in east
            MeshTimeout   default   made-by-itself   no zone has it: deleted at global   -
            MeshTimeout   default   often            not decided                         CONFLICT: --prefer one of east (2026-01-01T00:00:00Z) or north, west (2026-01-01T00:00:00Z)
            1 resource: the same at global
        "#]]
        .assert_eq(&preview(&nobody, true));
        for kind in [Kind::Zone, Kind::Dataplane, Kind::Config, Kind::MeshService, Kind::ServiceInsight] {
            assert!(!is_concerned(kind), "{kind}");
        }
        for kind in
            [Kind::Mesh, Kind::Secret, Kind::GlobalSecret, Kind::MeshTimeout, Kind::MeshMultiZoneService]
        {
            assert!(is_concerned(kind), "{kind}");
        }
    }
    #[test]
    fn only_a_new_global_is_written() {
        let zones = ["east", "west"];
        let at_global = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        for (global_id, there, refused) in [
            ("new", at_global(&[]), ""),
            ("new", at_global(&["west"]), ""),
            ("", at_global(&["east", "west"]), ""),
            ("old", at_global(&[]), "already the global of federation old"),
            ("new", at_global(&["east", "north"]), "north; name them"),
        ] {
            let said = may_be_written(global_id, "old", &there, &zones).err().map(|error| error.to_string());
            assert!(
                said.as_ref().is_none_or(|said| !refused.is_empty() && said.contains(refused)),
                "{said:?}"
            );
            assert_eq!(said.is_some(), !refused.is_empty(), "{global_id} {there:?}");
        }
    }

    #[test]
    fn whose_name_becomes_the_name_of_a_file() {
        assert_eq!(own_name(&[json!({"name": "east-1"})]).ok(), Some("east-1"));
        for list in [
            json!([]),
            json!([{"name": "east"}, {"name": "west"}]),
            json!([{"name": "../../etc/cron.d/x"}]),
            json!([{"name": "/etc/x"}]),
            json!([{"name": ""}]),
            json!([{}]),
        ] {
            assert!(own_name(list.as_array().expect("an array")).is_err(), "{list}");
        }
    }

    #[test]
    fn tokens_need_a_directory() {
        let dir = std::env::temp_dir();
        check_directory(&dir).expect("it can be written");
        assert!(check_directory(&dir.join("there-is-none-of-this-name")).is_err());
    }
}
