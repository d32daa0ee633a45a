//! `grat config`: the control planes that a person works with.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Subcommand, ValueEnum};
use serde_json::Value;

use crate::client::Client;
use crate::contexts::{self, ApiServer, Contexts, Header};
use crate::session::{Session, pair, usage};
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Control planes by name.
    #[command(subcommand)]
    ControlPlanes(ControlPlanes),
    /// Shows the configuration; tokens are hidden.
    View {
        /// Shows tokens, too.
        #[arg(long)]
        raw: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ControlPlanes {
    /// Adds a control plane and makes it the active one. Options of the connection (--address, --ca-cert-file,
    /// --client-cert-file, --client-key-file, --skip-verify, --headers) are kept with it.
    Add {
        /// Its name.
        #[arg(long)]
        name: String,
        /// Replaces one of this name.
        #[arg(long)]
        overwrite: bool,
        /// How users are known there.
        #[arg(long, value_enum)]
        auth_type: Option<AuthType>,
        /// For `tokens`: `token=JWT`, or `token-file=FILE` to read it now.
        #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
        auth_conf: Vec<(String, String)>,
        /// Does not ask whether it answers.
        #[arg(long)]
        skip_check: bool,
    },
    /// Lists them; the active one is marked.
    List,
    /// Forgets one.
    Remove {
        /// Its name.
        #[arg(long)]
        name: String,
    },
    /// Makes another one the active one.
    Switch {
        /// Its name.
        #[arg(long)]
        name: String,
    },
}

/// How users are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthType {
    /// By a token.
    Tokens,
}

/// Reads, changes and writes the configuration.
pub(crate) async fn run(session: &Session, command: Command) -> Result<()> {
    match command {
        Command::View { raw } => {
            let contexts = session.contexts()?;
            let contexts = if raw { contexts } else { hidden(contexts) };
            session.screen.print(&contexts::render(&contexts)?)
        }
        Command::ControlPlanes(ControlPlanes::List) => {
            session.screen.print(&list(&session.contexts()?).render())
        }
        Command::ControlPlanes(command) => {
            if session.options.no_config {
                return Err(usage("--no-config leaves nothing to change"));
            }
            let file = session.config_file()?;
            let mut contexts = contexts::load(&file)?;
            let said = change(session, &mut contexts, command).await?;
            contexts::save(&file, &contexts).context("the configuration was not written")?;
            session.screen.print(&said)
        }
    }
}

/// Changes the list; gives what is said about it.
async fn change(session: &Session, contexts: &mut Contexts, command: ControlPlanes) -> Result<String> {
    match command {
        ControlPlanes::Add { name, overwrite, auth_type, auth_conf, skip_check } => {
            let api_server = api_server(session, auth_type, &auth_conf)?;
            let client = Client::new(&api_server.target(), session.timeout()?)?;
            if !skip_check {
                let index = client.get("/").await.context("--skip-check adds it nevertheless")?;
                ensure!(
                    index["product"].is_string(),
                    "{} is no control plane; --skip-check adds it nevertheless",
                    client.address()
                );
            }
            contexts.add(&name, api_server, overwrite)?;
            Ok(format!("added Control Plane \"{name}\"\nswitched active Control Plane to \"{name}\"\n"))
        }
        ControlPlanes::Switch { name } => {
            contexts.switch(&name)?;
            Ok(format!("switched active Control Plane to \"{name}\"\n"))
        }
        ControlPlanes::Remove { name } => {
            contexts.remove(&name)?;
            let switched = match contexts.current_context.as_str() {
                "" => String::new(),
                active => format!("switched active Control Plane to \"{active}\"\n"),
            };
            Ok(format!("removed Control Plane \"{name}\"\n{switched}"))
        }
        ControlPlanes::List => Ok(String::new()),
    }
}

fn api_server(
    session: &Session,
    auth_type: Option<AuthType>,
    auth_conf: &[(String, String)],
) -> Result<ApiServer> {
    let options = &session.options;
    let address =
        options.address.clone().ok_or_else(|| usage("--address is missing: the URL of its REST API"))?;
    let mut server = ApiServer {
        url: address,
        ca_cert_file: absolute(options.ca_cert_file.as_deref())?,
        client_cert_file: absolute(options.client_cert_file.as_deref())?,
        client_key_file: absolute(options.client_key_file.as_deref())?,
        skip_verify: options.skip_verify,
        headers: options
            .headers
            .iter()
            .map(|(key, value)| Header { key: key.clone(), value: value.clone() })
            .collect(),
        ..ApiServer::default()
    };
    let mut token = options.token.clone();
    for (key, value) in auth_conf {
        token = match key.as_str() {
            "token" => Some(value.clone()),
            "token-file" => Some(std::fs::read_to_string(value).with_context(|| value.clone())?),
            _ => return Err(usage(format!("--auth-conf {key}: it is token=JWT or token-file=FILE"))),
        };
    }
    match (auth_type, token) {
        (_, Some(token)) => {
            server.auth_type = "tokens".into();
            server.auth_conf.insert("token".into(), Value::String(token.trim().into()));
        }
        (Some(AuthType::Tokens), None) => {
            return Err(usage("--auth-type tokens needs --auth-conf token=JWT"));
        }
        (None, None) => {}
    }
    Ok(server)
}

/// The configuration is read from everywhere.
fn absolute(file: Option<&Path>) -> Result<String> {
    let Some(file) = file else { return Ok(String::new()) };
    let path: PathBuf = std::path::absolute(file).with_context(|| file.display().to_string())?;
    Ok(path.display().to_string())
}

fn hidden(mut contexts: Contexts) -> Contexts {
    for plane in &mut contexts.control_planes {
        for value in plane.coordinates.api_server.auth_conf.values_mut() {
            *value = "(hidden; --raw shows it)".into();
        }
        for header in &mut plane.coordinates.api_server.headers {
            if header.key.eq_ignore_ascii_case("authorization") {
                header.value = "(hidden; --raw shows it)".into();
            }
        }
    }
    contexts
}

fn list(contexts: &Contexts) -> Table {
    let mut table = Table::new(&["ACTIVE", "NAME", "ADDRESS"]);
    let current = contexts.contexts.iter().find(|context| context.name == contexts.current_context);
    for plane in &contexts.control_planes {
        let is_active = current.is_some_and(|current| current.control_plane == plane.name);
        let mark = if is_active { "*" } else { "" };
        table.row(vec![mark.into(), plane.name.clone(), plane.coordinates.api_server.url.clone()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn lists_and_views() {
        let mut contexts = Contexts::default();
        let mut server =
            ApiServer { url: "http://g".into(), auth_type: "tokens".into(), ..ApiServer::default() };
        server.auth_conf.insert("token".into(), "abc".into());
        contexts.add("g", server, false).expect("new");
        expect![[r#"
            ACTIVE   NAME    ADDRESS
                     local   http://localhost:5681
            *        g       http://g
        "#]]
        .assert_eq(&list(&contexts).render());
        let shown = contexts::render(&hidden(contexts)).expect("renders");
        assert!(!shown.contains("abc") && shown.contains("hidden"), "{shown}");
    }
}
