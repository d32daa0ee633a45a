//! `grat zone leave`: a zone stands alone again, and loses nothing that its proxies run on.
//!
//! Only reads, unless it is told `--yes`: then the zone leaves its global and global forgets the zone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::join;
use crate::client::{Client, is_status, segment};
use crate::session::{Session, counted, usage};
use crate::table::Table;

/// Until global sees that the zone is gone.
const OFFLINE_TIMEOUT: Duration = Duration::from_secs(60);
const OFFLINE_POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the zone, as in its setting multizone.zone.name.
    zone: String,
    /// Global: a context, or the URL of its REST API. --address and --context are the zone's.
    #[arg(long, value_name = "CONTEXT|URL", required_unless_present = "without_global")]
    global: Option<String>,
    /// User token at global, when it is given by URL.
    #[arg(long)]
    global_token: Option<String>,
    /// Global is down or lost: it keeps the Zone and what the zone sent, until somebody deletes the Zone there.
    #[arg(long, conflicts_with_all = ["global", "global_token"])]
    without_global: bool,
    /// Leave: make the zone's copies its own, and delete the Zone at global.
    #[arg(long)]
    yes: bool,
}

fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

/// What becomes of the zone's copies.
fn preview(copies: &[Value]) -> String {
    let mut table = Table::new(&["KIND", "MESH", "NAME", "WHAT BECOMES OF IT"]);
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    for copy in copies {
        let mesh = Some(text(copy, "mesh")).filter(|mesh| !mesh.is_empty()).unwrap_or("-");
        let mut row = |what: String| {
            table.row(vec![text(copy, "kind").into(), mesh.into(), text(copy, "name").into(), what]);
        };
        match (copy["becomes"].as_str(), copy["ofZone"].as_str()) {
            (Some(name), _) if name == text(copy, "name") => *own.entry(text(copy, "kind")).or_default() += 1,
            (Some(name), _) => row(format!("becomes the zone's own, as {name}")),
            (None, zone) => row(format!("of zone {}: goes", zone.unwrap_or("-"))),
        }
    }
    let mut out = table.render();
    for (kind, count) in own {
        out.push_str(&format!(
            "{}: the zone's own, under the same name\n",
            counted(count, &format!("more {kind}"))
        ));
    }
    out.push_str("everything else of the zone stays as it is\n");
    out
}

/// How many resources global has of the zone.
fn at_global(status: &Value) -> u64 {
    let kinds =
        status["kinds"].as_array().into_iter().flatten().filter(|kind| kind["direction"] == "received");
    kinds.map(|kind| kind["inSync"].as_u64().unwrap_or(0) + kind["heldBack"].as_u64().unwrap_or(0)).sum()
}

/// Both are of the same federation: another one may have a zone of the same name.
fn same_federation(zone: &Value, global: &Value, address: &str) -> Result<()> {
    let (own, other) = (text(zone, "clusterId"), text(global, "clusterId"));
    ensure!(
        !own.is_empty() && own == other,
        "--global {address} is not the global of this zone: it is of federation {other:?}, the zone of {own:?}; nothing was \
         changed"
    );
    Ok(())
}

/// Shows what becomes of everything; with `--yes` leaves.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let zone = session.checked_client().await?;
    let global = match &arguments.global {
        Some(global) => Some(join::global_client(session, global, arguments.global_token.as_deref())?),
        None if arguments.without_global => None,
        None => return Err(usage("name global with --global, or say --without-global")),
    };
    if let Some(global) = &global {
        join::roles(&zone, global).await.context(
            "if global is down or lost, say --without-global, and delete the Zone there when it is back",
        )?;
        same_federation(&zone.get("/").await?, &global.get("/").await?, global.address())?;
    }
    let path = format!("/zones/{}/_leave-global", segment(&arguments.zone));
    let plan = match zone.get(&path).await {
        // An earlier call was interrupted after the zone had left, and the zone was started without global since.
        Err(error) if global.is_some() && is_status(&error, StatusCode::CONFLICT) => None,
        plan => Some(plan?),
    };
    let known = match &global {
        Some(global) => global.find(&super::path_of(&arguments.zone)).await?,
        None => None,
    };
    match &plan {
        Some(plan) => session.screen.print(&preview(plan["copies"].as_array().map_or(&[], Vec::as_slice)))?,
        None => session.screen.line(&format!("zone {} has left already: it stands alone", arguments.zone))?,
    }
    match (&global, &known) {
        (None, _) => session.screen.line(&format!(
            "global is not asked: it keeps Zone {zone} and what came from it, and shows it offline, until \
             `grat delete zone {zone}` there",
            zone = arguments.zone
        ))?,
        (Some(_), None) => session.screen.line(&format!("global knows no zone {}", arguments.zone))?,
        (Some(_), Some(status)) => session.screen.line(&format!(
            "global deletes Zone {} and {} of it, which go from the other zones as well",
            arguments.zone,
            counted(usize::try_from(at_global(status)).unwrap_or(usize::MAX), "resource")
        ))?,
    }
    if !arguments.yes {
        session.screen.note("nothing was changed; say --yes to leave");
        return Ok(());
    }
    if plan.is_some() {
        let answer = zone.post(&path, &json!({})).await.with_context(|| {
            format!(
                "it is not known to be done. When zone {zone} does not connect any more, it has left, which stays so (grat zone \
                 status {zone}); say it again: it goes on where it ended",
                zone = arguments.zone
            )
        })?;
        let left: Value = serde_json::from_str(&answer)?;
        let copies = counted(left["copies"].as_array().map_or(0, Vec::len), "copy");
        session.screen.line(&format!(
            "zone {} has left global: {copies} done, and it does not connect again",
            arguments.zone
        ))?;
    }
    if let (Some(global), Some(_)) = (&global, &known) {
        forget(global, &arguments.zone).await.with_context(|| {
            format!(
                "zone {zone} has left, which stays so, but global still has it: say it again, or, when the zone is offline \
                 there: grat delete zone {zone}",
                zone = arguments.zone
            )
        })?;
        session.screen.line(&format!("global has forgotten zone {}", arguments.zone))?;
    }
    session.screen.line(
        "take out of the zone's settings, and start it again when it suits you:\n  multizone.zone.globalAddress\n  \
         multizone.zone.kds.tokenFile\n  multizone.zone.kds.rootCaFile\nit serves its proxies until then, and \
         afterwards it may join a global again: grat zone join",
    )
}

/// Deletes the Zone once global has seen it go. That somebody else deletes it is as good.
async fn forget(global: &Client, zone: &str) -> Result<()> {
    let started = tokio::time::Instant::now();
    while let Some(status) = global.find(&super::path_of(zone)).await? {
        if status["online"] != true {
            return match global.delete(&format!("/zones/{}", segment(zone))).await {
                Err(error) if !is_status(&error, StatusCode::NOT_FOUND) => Err(error),
                _ => Ok(()),
            };
        }
        ensure!(started.elapsed() < OFFLINE_TIMEOUT, "global still shows zone {zone} connected");
        tokio::time::sleep(OFFLINE_POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_global_of_another_federation_is_refused() {
        let of = |id: &str| json!({"clusterId": id});
        for (zone, global, is_same) in [
            (of("a"), of("a"), true),
            (of("a"), of("b"), false),
            (of("a"), of(""), false),
            (of(""), of(""), false),
            (json!({}), json!({}), false),
        ] {
            assert_eq!(same_federation(&zone, &global, "http://x").is_ok(), is_same, "{zone} {global}");
        }
    }

    #[test]
    fn what_becomes_of_everything() {
        let copies = [
            json!({"kind": "Mesh", "name": "default", "becomes": "default"}),
            json!({"kind": "Secret", "mesh": "default", "name": "key", "becomes": "key"}),
            json!({"kind": "Secret", "mesh": "default", "name": "other", "becomes": "other"}),
            json!({"kind": "MeshTimeout", "mesh": "default", "name": "t-4x8c", "becomes": "t"}),
            json!({"kind": "MeshService", "mesh": "default", "name": "backend-4x8c", "ofZone": "west"}),
        ];
        expect![[r#"
            KIND          MESH      NAME           WHAT BECOMES OF IT
            MeshTimeout   default   t-4x8c         becomes the zone's own, as t
            MeshService   default   backend-4x8c   of zone west: goes
            1 more Mesh: the zone's own, under the same name
            2 more Secrets: the zone's own, under the same name
            everything else of the zone stays as it is
        "#]]
        .assert_eq(&preview(&copies));
        let status = json!({"kinds": [
            {"direction": "sent", "inSync": 5}, {"direction": "received", "inSync": 3, "heldBack": 1}]});
        assert_eq!((at_global(&status), at_global(&Value::Null)), (4, 0));
    }
}
