//! `grat revoke`: adds the id of a token to the secret that lists revoked ones (tokens-and-access.md §3).

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use graticule_identity::tokens::TokenKind;
use graticule_model::Kind;
use serde_json::{Value, json};

use crate::client::{Client, resource_path};
use crate::session::Session;

/// Longest list of ids, in bytes.
const LIST_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Revokes a dataplane token: at the control plane where its mesh is written.
    #[command(name = "dataplane-token")]
    Dataplane {
        #[command(flatten)]
        which: Which,
        /// Mesh of a token that is given by its id. [default: that of the context, or default]
        #[arg(short, long)]
        mesh: Option<String>,
    },
    /// Revokes a user token: at the control plane that accepts it.
    #[command(name = "user-token")]
    User(Which),
    /// Revokes a zone token: at global.
    #[command(name = "zone-token")]
    Zone(Which),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The token, or `-` to read it from standard input.
    token: Option<String>,
    /// Its id (`jti`).
    #[arg(long)]
    id: Option<String>,
}

impl Which {
    /// The id, and the claims where the token itself is given.
    fn read(&self) -> Result<(String, Value)> {
        if let Some(id) = &self.id {
            return Ok((id.clone(), Value::Null));
        }
        let token = match self.token.as_deref() {
            Some("-") | None => std::io::read_to_string(std::io::stdin()).context("standard input")?,
            Some(token) => token.to_owned(),
        };
        let claims = claims(token.trim())?;
        let id = claims["jti"].as_str().unwrap_or_default().to_owned();
        ensure!(
            !id.is_empty(),
            "the token has no id (`jti`), so it cannot be revoked alone; rotate its signing key"
        );
        Ok((id, claims))
    }
}

/// What a token says; nobody's signature is checked, as nothing is granted.
fn claims(token: &str) -> Result<Value> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts[..] else {
        bail!("this is no token: it has no three parts separated by dots")
    };
    let bytes = URL_SAFE_NO_PAD.decode(payload).context("this is no token: no base64")?;
    serde_json::from_slice(&bytes).context("this is no token: no JSON")
}

/// Revokes one token.
pub(crate) async fn run(session: &Session, command: Command) -> Result<()> {
    let (which, kind, mesh) = match &command {
        Command::Dataplane { which, mesh } => (which, "Mesh", mesh.clone()),
        Command::User(which) => (which, "Name", None),
        Command::Zone(which) => (which, "Zone", None),
    };
    let (id, claims) = which.read()?;
    ensure!(
        claims.is_null() || claims.get(kind).is_some(),
        "this is a token of another type: it says nothing about `{kind}`"
    );
    ensure!(!id.contains([',', '\n']) && !id.trim().is_empty(), "{id:?} is no id of a token");
    let mesh = match claims["Mesh"].as_str() {
        Some(mesh) if matches!(command, Command::Dataplane { .. }) => mesh.to_owned(),
        _ => session.mesh(mesh.as_deref())?,
    };
    let token_kind = match &command {
        Command::Dataplane { .. } => TokenKind::Dataplane { mesh: &mesh },
        Command::User(_) => TokenKind::User,
        Command::Zone(_) => TokenKind::Zone,
    };
    let client = session.checked_client().await?;
    let was_revoked = add(&client, token_kind, &id).await?;
    session.screen.line(&match was_revoked {
        true => format!("token {id} was revoked before"),
        false => format!("revoked token {id}"),
    })
}

/// Adds an id to the list; `true`: it was there.
async fn add(client: &Client, token_kind: TokenKind<'_>, id: &str) -> Result<bool> {
    let name = token_kind.revocations_name();
    let kind = if token_kind.mesh().is_some() { Kind::Secret } else { Kind::GlobalSecret };
    let mesh = token_kind.mesh().unwrap_or_default();
    let path = resource_path(kind, mesh, &name);
    let stored =
        client.find(&path).await.with_context(|| format!("the list of revoked tokens, {kind} {name}"))?;
    let data = stored.as_ref().and_then(|secret| secret["data"].as_str()).unwrap_or_default();
    let list = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let list = list.with_context(|| format!("{kind} {name} holds no list of ids"))?;
    let Some(list) = with_id(&list, id) else { return Ok(true) };
    ensure!(
        list.len() <= LIST_BYTES_MAX,
        "{kind} {name} would be larger than 1 MiB; rotate the signing key instead"
    );
    let mut body = json!({"type": kind.name(), "name": name, "data": STANDARD.encode(list)});
    if kind == Kind::Secret {
        body["mesh"] = mesh.into();
    }
    client.put(&path, &body).await.with_context(|| format!("{kind} {name} was not written"))?;
    Ok(false)
}

/// The list with one more id; `None`: it has it.
fn with_id(list: &str, id: &str) -> Option<String> {
    let mut ids: Vec<&str> = list.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    if ids.contains(&id) {
        return None;
    }
    ids.push(id);
    Some(ids.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (list, id, wanted) in [
            ("", "a", Some("a")),
            ("a\n", "b", Some("a,b")),
            ("a, b", "b", None),
            ("a,,b", "c", Some("a,b,c")),
        ] {
            assert_eq!(with_id(list, id).as_deref(), wanted, "{list:?} and {id}");
        }
    }

    #[test]
    fn what_a_token_says() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"jti":"x","Mesh":"demo"}"#);
        assert_eq!(claims(&format!("e30.{payload}.sig")).expect("claims")["Mesh"], "demo");
        for text in ["", "a.b", "a.!.c", "a.e30x.c.d"] {
            assert!(claims(text).is_err(), "{text}");
        }
    }
}
