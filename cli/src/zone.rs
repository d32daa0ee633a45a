//! `grat zone`: the connections between global and zones.

mod advice;
mod join;
mod leave;
mod rebuild;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use graticule_model::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::age;
use crate::client::{Client, list_path, segment};
use crate::failure::Different;
use crate::output::{self, Output};
use crate::session::{Session, counted};
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows how zones do: connection, lag, what does not cross and why, what is held back.
    Status(Status),
    /// Shows what becomes of a zone that stood alone when it joins a global, and prepares global for it.
    Join(join::Arguments),
    /// Shows what becomes of a zone that leaves its global and stands alone again, and does it.
    Leave(leave::Arguments),
    /// Shows what a global that lost everything gets back from its zones' copies, and does it.
    RebuildGlobal(rebuild::Arguments),
    /// Gives up copies that are kept although the other side no longer has them; ask the side that keeps them.
    AcceptDeletions {
        /// The zone.
        zone: String,
        /// Yes, delete them.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The zone; without it, all that the control plane knows: at global every zone, in a zone itself.
    zone: Option<String>,
    /// How to show it: table, yaml or json.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Ends with code 3 when something is wrong with one of them.
    #[arg(long)]
    exit_code: bool,
}

/// Asks and shows, or decides.
pub(crate) async fn run(session: &Session, command: Command) -> Result<()> {
    let command = match command {
        Command::Join(arguments) => return join::run(session, &arguments).await,
        Command::Leave(arguments) => return leave::run(session, &arguments).await,
        Command::RebuildGlobal(arguments) => return rebuild::run(session, &arguments).await,
        other => other,
    };
    let client = session.checked_client().await?;
    match command {
        // Answered above.
        Command::Join(_) | Command::Leave(_) | Command::RebuildGlobal(_) => Ok(()),
        Command::Status(Status { zone: Some(zone), output, exit_code }) => {
            let status = one(&client, &zone).await?;
            session.screen.print(&match output {
                Output::Yaml | Output::Json => output::document(&status, output)?,
                Output::Name => format!("{zone}\n"),
                Output::Table | Output::Wide => details(&status, session.now),
            })?;
            verdict(exit_code, std::slice::from_ref(&status), session.now)
        }
        Command::Status(Status { zone: None, output, exit_code }) => {
            let mut all = Vec::new();
            for zone in client.list(&list_path(Kind::Zone, None), &[]).await? {
                let name = zone["name"].as_str().unwrap_or_default();
                // One may be deleted since it was listed.
                all.extend(client.find(&path_of(name)).await?);
            }
            session.screen.print(&match output {
                Output::Yaml | Output::Json => output::document(&Value::Array(all.clone()), output)?,
                Output::Name => all.iter().map(|status| format!("{}\n", text(&status["zone"]))).collect(),
                Output::Table | Output::Wide => overview(&all, session.now).render(),
            })?;
            verdict(exit_code, &all, session.now)
        }
        Command::AcceptDeletions { zone, yes } => {
            let status = one(&client, &zone).await?;
            let protection = &status["protection"];
            ensure!(
                protection["state"] == "otherGlobal" || protection["heldBack"].as_u64().unwrap_or(0) > 0,
                "nothing is held back here for zone {zone}; {}",
                if protection["heldBackByPeer"].as_u64().unwrap_or(0) > 0 {
                    "the other side holds back: ask it (--address)"
                } else {
                    "the other side may (--address): grat zone status there"
                }
            );
            if !yes {
                session.screen.print(&held_back(&status).render())?;
                session.screen.warn(&text(&protection["advice"]));
                ensure!(false, "nothing was done; say --yes to do it");
            }
            let path = format!("/zones/{}/_accept-deletions", segment(&zone));
            let answer: Value = serde_json::from_str(&client.post(&path, &json!({})).await?)?;
            let given_up = usize::try_from(answer["givenUp"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
            session.screen.line(&format!("given up: {}", counted(given_up, "copy")))
        }
    }
}

async fn one(client: &Client, zone: &str) -> Result<Value> {
    client.get(&path_of(zone)).await
}

fn path_of(zone: &str) -> String {
    format!("/zones/{}/_status", segment(zone))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> String {
    value.as_u64().unwrap_or(0).to_string()
}

fn connection(status: &Value) -> String {
    match (status["online"] == true, status["synced"] == false) {
        (true, true) => "syncing",
        (true, false) => "online",
        (false, _) => "offline",
    }
    .into()
}

fn overview(all: &[Value], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ZONE",
        "CONNECTION",
        "SINCE",
        "REVISION",
        "LAG",
        "QUARANTINED",
        "HELD BACK",
        "CONFLICT",
        "ADVICE",
    ]);
    for status in all {
        let revision = &status["revision"];
        let kept = |key: &str| status["protection"][key].as_u64().unwrap_or(0);
        let protection = match text(&status["protection"]["state"]).as_str() {
            "otherGlobal" => "other global".into(),
            _ => (kept("heldBack") + kept("heldBackByPeer")).to_string(),
        };
        table.row(vec![
            text(&status["zone"]),
            connection(status),
            match age::time(&status["connectedSince"]) {
                Some(since) => age::age(Some(since), now),
                None => "-".into(),
            },
            if revision.is_object() { number(&revision["current"]) } else { "-".into() },
            if revision.is_object() { number(&revision["lag"]) } else { "-".into() },
            number(&status["quarantineTotal"]),
            protection,
            if status["conflict"].is_object() { "yes" } else { "-" }.into(),
            advice::of(status, now).map_or_else(|| "-".into(), |advice| advice.text),
        ]);
    }
    table
}

/// With `--exit-code`, says whether something is wrong.
fn verdict(exit_code: bool, all: &[Value], now: Timestamp) -> Result<()> {
    let is_wrong = |status: &Value| advice::of(status, now).is_some_and(|advice| advice.is_wrong);
    if exit_code && all.iter().any(is_wrong) {
        return Err(Different.into());
    }
    Ok(())
}

fn held_back(status: &Value) -> Table {
    resources(&status["protection"]["resources"])
}

fn resources(list: &Value) -> Table {
    let mut table = Table::new(&["DIRECTION", "KIND", "MESH", "NAME", "SINCE", "REASON"]);
    for one in list.as_array().into_iter().flatten() {
        let or_dash =
            |value: &Value| Some(text(value)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
        table.row(vec![
            text(&one["direction"]),
            or_dash(&one["kind"]),
            or_dash(&one["mesh"]),
            text(&one["name"]),
            or_dash(&one["since"]),
            text(&one["reason"]).replace('\n', " "),
        ]);
    }
    table
}

fn details(status: &Value, now: Timestamp) -> String {
    let mut out = overview(std::slice::from_ref(status), now).render();
    let mut part = |title: &str, body: String| {
        out.push('\n');
        out.push_str(title);
        out.push('\n');
        out.push_str(&body);
    };
    if let Some(error) = status["lastError"].as_str() {
        part("Last error:", format!("  {error}\n"));
    }
    let meshes: Vec<String> = status["meshes"].as_array().into_iter().flatten().map(text).collect();
    if !meshes.is_empty() {
        part("Meshes:", format!("  {}\n", meshes.join(", ")));
    }
    let beat = &status["globalRevision"];
    if beat.is_object() {
        let [current, acknowledged, lag] = ["current", "acknowledged", "lag"].map(|key| number(&beat[key]));
        let line =
            format!("  {current}, this zone has {acknowledged} (lag {lag}), at {}\n", text(&beat["at"]));
        part("Global's revision:", line);
    }
    let instances = status["instances"].as_array().into_iter().flatten();
    let instances: String = instances
        .map(|one| format!("  {} at {}\n", text(&one["zoneInstance"]), text(&one["globalInstance"])))
        .collect();
    if !instances.is_empty() {
        part("Instances:", instances);
    }
    if let Some(conflict) = status["conflict"].as_object() {
        let at = |key: &str| conflict.get(key).map(text).unwrap_or_default();
        let line = format!("  {} {} until {}: {}\n", at("address"), at("instance"), at("last"), at("reason"));
        part("Refused, because it has the same name:", line);
    }
    let usage = &status["usage"];
    if usage.is_object() {
        let of = |used: &str, max: &str| match usage[max].as_u64().unwrap_or(0) {
            0 => number(&usage[used]),
            max => format!("{} of {max}", number(&usage[used])),
        };
        let (resources, bytes) = (of("resources", "resourcesMax"), of("bytes", "bytesMax"));
        part("Stored at global:", format!("  {resources} resources, {bytes} bytes\n"));
    }
    let mut kinds = Table::new(&["DIRECTION", "KIND", "IN SYNC", "PENDING", "QUARANTINED", "HELD BACK"]);
    for kind in status["kinds"].as_array().into_iter().flatten() {
        let counts =
            ["inSync", "pending", "quarantined", "heldBack"].map(|key| kind[key].as_u64().unwrap_or(0));
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        let mut row = vec![text(&kind["direction"]), text(&kind["kind"])];
        row.extend(counts.map(|count| count.to_string()));
        kinds.row(row);
    }
    part("Kinds:", kinds.render());
    if status["quarantineTotal"].as_u64().unwrap_or(0) > 0 {
        part("Quarantined:", resources(&status["quarantine"]).render());
    }
    let advice = text(&status["protection"]["advice"]);
    if !advice.is_empty() {
        part("Held back:", format!("  {advice}\n{}", held_back(status).render()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_zone_is_shown() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a time");
        let healthy = json!({"zone": "west", "reporter": "global", "online": true, "connectedSince": "2026-01-01T00:00:00Z",
            "revision": {"current": 9, "acknowledged": 9, "lag": 0}, "kinds": [], "quarantine": [], "quarantineTotal": 0,
            "protection": {"state": "clear", "advice": "", "heldBack": 0, "heldBackByPeer": 0, "resources": []}});
        let ill = json!({"zone": "east", "reporter": "global", "online": false,
            "instances": [{"zoneInstance": "east-1", "globalInstance": "global-1"}], "meshes": ["default", "orders"],
            "revision": {"current": 9, "acknowledged": 7, "lag": 2},
            "kinds": [
                {"kind": "Mesh", "direction": "sent", "inSync": 0, "pending": 0, "quarantined": 0, "heldBack": 0},
                {"kind": "MeshTimeout", "direction": "sent", "inSync": 3, "pending": 1, "quarantined": 1, "heldBack": 0},
            ],
            "quarantine": [{"kind": "MeshTimeout", "mesh": "default", "name": "t", "direction": "sent",
                "reason": "spec.to: bad\nspec.from: worse", "since": "2026-01-01T00:00:00Z"}],
            "quarantineTotal": 1,
            "protection": {"state": "holding", "advice": "decide", "heldBack": 1, "heldBackByPeer": 0, "resources": [
                {"kind": "MeshService", "mesh": "default", "name": "s", "direction": "received", "reason": "gone",
                    "since": "2026-01-01T00:00:00Z"}]},
            "usage": {"resources": 7, "resourcesMax": 10, "bytes": 900, "bytesMax": 0},
            "globalRevision": {"at": "2026-01-01T00:09:00Z", "current": 30, "acknowledged": 28, "lag": 2},
            "conflict": {"address": "192.0.2.1", "instance": "east-b", "reason": "east-1 has the name",
                "since": "2026-01-01T00:00:00Z", "last": "2026-01-01T00:01:00Z"}});
        expect![[r#"
            ZONE   CONNECTION   SINCE   REVISION   LAG   QUARANTINED   HELD BACK   CONFLICT   ADVICE
            east   offline      -       9          2     1             1           yes        not connected: ask the zone why (grat zone status there)
            west   online       10m     9          0     0             0           -          -
        "#]]
        .assert_eq(&overview(&[ill.clone(), healthy], now).render());
        expect![[r#"
            ZONE   CONNECTION   SINCE   REVISION   LAG   QUARANTINED   HELD BACK   CONFLICT   ADVICE
            east   offline      -       9          2     1             1           yes        not connected: ask the zone why (grat zone status there)

            Meshes:
              default, orders

            Global's revision:
              30, this zone has 28 (lag 2), at 2026-01-01T00:09:00Z

            Instances:
              east-1 at global-1

            Refused, because it has the same name:
              192.0.2.1 east-b until 2026-01-01T00:01:00Z: east-1 has the name

            Stored at global:
              7 of 10 resources, 900 bytes

            Kinds:
            DIRECTION   KIND          IN SYNC   PENDING   QUARANTINED   HELD BACK
            sent        MeshTimeout   3         1         1             0

            Quarantined:
            DIRECTION   KIND          MESH      NAME   SINCE                  REASON
            sent        MeshTimeout   default   t      2026-01-01T00:00:00Z   spec.to: bad spec.from: worse

            Held back:
              decide
            DIRECTION   KIND          MESH      NAME   SINCE                  REASON
            received    MeshService   default   s      2026-01-01T00:00:00Z   gone
        "#]]
        .assert_eq(&details(&ill, now));
        assert_eq!(
            overview(&[Value::Null], now).render().lines().count(),
            2,
            "an odd answer is no reason to fail"
        );
    }
}
