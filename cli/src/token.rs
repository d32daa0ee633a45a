//! `grat generate …-token`.

use anyhow::{Result, ensure};
use clap::Subcommand;
use serde_json::json;

use crate::client::Client;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// A token for proxies.
    #[command(name = "dataplane-token")]
    Dataplane {
        /// Name of the Dataplane; empty: any.
        #[arg(long, default_value = "")]
        name: String,
        /// Mesh.
        #[arg(short, long, default_value = "default")]
        mesh: String,
        /// Workload; needed where identities derive from it.
        #[arg(long, default_value = "")]
        workload: String,
        /// Life, such as 720h.
        #[arg(long)]
        valid_for: String,
    },
    /// A token for a zone control plane.
    #[command(name = "zone-token")]
    Zone {
        /// Name of the zone.
        #[arg(long)]
        zone: String,
        /// Life, such as 720h.
        #[arg(long)]
        valid_for: String,
    },
    /// A token for a user of the REST API.
    #[command(name = "user-token")]
    User {
        /// User name.
        #[arg(long)]
        name: String,
        /// Group; repeatable.
        #[arg(long = "group")]
        groups: Vec<String>,
        /// Life, such as 24h.
        #[arg(long)]
        valid_for: String,
    },
}

/// Prints the token, alone, without a line break.
pub(crate) async fn run(client: &Client, command: Command) -> Result<()> {
    let token = match command {
        Command::Dataplane { name, mesh, workload, valid_for } => {
            let body = json!({"name": name, "mesh": mesh, "workload": workload, "validFor": valid_for});
            client.post("/tokens/dataplane", &body).await?
        }
        Command::Zone { zone, valid_for } => {
            ensure!(
                graticule_model::name::is_dns1035_label(&zone),
                "--zone {zone:?} is no name of a zone: lower-case letters, digits and '-', starting with a letter"
            );
            client.post("/tokens/zone", &json!({"zone": zone, "scope": [], "validFor": valid_for})).await?
        }
        Command::User { name, groups, valid_for } => {
            client
                .post("/tokens/user", &json!({"name": name, "groups": groups, "validFor": valid_for}))
                .await?
        }
    };
    print!("{token}");
    Ok(())
}
