//! `grat cluster`: the replicas of a control plane on the embedded store.

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::segment;
use crate::output::{self, Output};
use crate::session::Session;
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the members: who leads, who votes, how far each is, how each does.
    Status(Form),
    /// Adds the member that waits at an address: started with --join, or with store.raft.members.
    Add {
        /// Its `host:port`.
        address: String,
    },
    /// Removes a member; its data directory is of no use any more.
    Remove {
        /// Id, address or name.
        member: String,
    },
    /// Hands leadership over.
    Transfer {
        /// Id, address or name; without it, any member that votes and has caught up.
        #[arg(long)]
        to: Option<String>,
    },
    /// Makes the member at --address a cluster of its own, when the majority of the others is lost for good.
    Recover {
        /// Yes, the others are lost and never come back with their data.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// How to show it: table, yaml or json.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

const WARNING: &str = "\
The member at --address becomes a cluster of its own, with the data that it has.
 - What a majority acknowledged and this member does not have is lost.
 - The other members must never come back with their old data: stop them, remove their data directories, and let them
   join again (--join). Otherwise there are two clusters that both believe to be right.
 - Choose the member with the highest revision: ask each survivor with `grat cluster status --address …`.";

/// Asks and shows, or changes the members.
pub(crate) async fn run(session: &Session, command: Command) -> Result<()> {
    if let Command::Recover { yes: false } = command {
        session.screen.warn(WARNING);
        ensure!(false, "nothing was done; say --yes to do it");
    }
    let client = session.checked_client().await?;
    match command {
        Command::Status(form) => {
            let status = client.get("/_cluster").await?;
            session.screen.print(&match form.output {
                Output::Yaml | Output::Json => output::document(&status, form.output)?,
                Output::Name => names(&status),
                Output::Table | Output::Wide => table(&status).render(),
            })
        }
        Command::Add { address } => {
            client.post("/_cluster/members", &json!({"address": address})).await?;
            session.screen.line(&format!("added {address}"))
        }
        Command::Remove { member } => {
            client.delete(&format!("/_cluster/members/{}", segment(&member))).await?;
            session.screen.line(&format!("removed {member}"))
        }
        Command::Transfer { to } => {
            client.post("/_cluster/transfer", &json!({"member": to})).await?;
            session.screen.line("leadership was handed over")
        }
        Command::Recover { .. } => {
            session.screen.warn(WARNING);
            let before = client.get("/_cluster").await?;
            client.post("/_cluster/recover", &json!({"confirm": "the other members are lost"})).await?;
            for wiped in others(&before) {
                session.screen.warn(&wiped);
            }
            session.screen.line("this member is a cluster of its own now")
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn members(status: &Value) -> impl Iterator<Item = &Value> {
    status["members"].as_array().into_iter().flatten()
}

fn names(status: &Value) -> String {
    members(status).map(|member| format!("{}\n", text(&member["id"]))).collect()
}

/// What must happen to each of the other members.
fn others(status: &Value) -> Vec<String> {
    let others = members(status).filter(|member| member["id"] != status["member"]);
    let warn = |member: &Value| {
        format!(
            "wipe the data directory of {} at {} before it starts again: it still has data of the old cluster",
            text(&member["name"]),
            text(&member["address"])
        )
    };
    others.map(warn).collect()
}

fn table(status: &Value) -> Table {
    let mut table = Table::new(&["NAME", "ID", "ADDRESS", "ROLE", "VOTES", "LAG", "HEALTH"]);
    for member in members(status) {
        let own = if member["id"] == status["member"] { " *" } else { "" };
        table.row(vec![
            format!("{}{own}", text(&member["name"])),
            text(&member["id"]),
            Some(text(&member["address"])).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into()),
            text(&member["role"]),
            if member["votes"] == true { "yes" } else { "no" }.into(),
            member["lag"].as_u64().map_or_else(|| "-".into(), |lag| lag.to_string()),
            text(&member["health"]),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn members_are_shown() {
        let status = json!({"cluster": "c", "member": "01", "term": 3, "revision": 9, "health": "ready", "members": [
            {"id": "01", "name": "a", "address": "a:5686", "role": "leader", "votes": true, "lag": 0, "health": "ready"},
            {"id": "02", "name": "b", "address": "b:5686", "role": "follower", "votes": true, "lag": 12,
                "health": "unreachable: timed out"},
            {"id": "03", "name": "c", "address": "", "role": "learner", "votes": false, "health": "ready"},
        ]});
        expect![[r#"
            NAME   ID   ADDRESS   ROLE       VOTES   LAG   HEALTH
            a *    01   a:5686    leader     yes     0     ready
            b      02   b:5686    follower   yes     12    unreachable: timed out
            c      03   -         learner    no      -     ready
        "#]]
        .assert_eq(&table(&status).render());
        assert_eq!(names(&status), "01\n02\n03\n");
        assert_eq!(table(&Value::Null).render().lines().count(), 1);
    }
}
