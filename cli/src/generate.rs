//! `grat generate`: tokens, keys, certificates (tokens-and-access.md §1, §2, §4).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use graticule_identity::ClusterToken;
use graticule_identity::tokens::{self, DataplaneClaims, SigningKey, UserClaims, ZoneClaims};
use graticule_model::GoDuration;
use serde::Serialize;
use serde_json::{Value, json};

use crate::certificate;
use crate::session::{Session, duration, pair, usage};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A token for proxies.
    DataplaneToken {
        /// Name of the Dataplane; without it, any.
        #[arg(long, default_value = "")]
        name: String,
        /// Mesh. [default: that of the context, or default]
        #[arg(short, long)]
        mesh: Option<String>,
        /// Type of the proxy; `dataplane` is the only one.
        #[arg(long, default_value = "")]
        proxy_type: String,
        /// Labels that the Dataplane must have, `key=value,value`; repeatable.
        #[arg(long = "tag", value_parser = pair, value_name = "KEY=VALUES")]
        tags: Vec<(String, String)>,
        /// Workload; needed where identities derive from it.
        #[arg(long, default_value = "")]
        workload: String,
        #[command(flatten)]
        life: Life,
    },
    /// A token for a zone control plane.
    ZoneToken {
        /// Name of the zone.
        #[arg(long)]
        zone: String,
        /// Scope; there are none.
        #[arg(long, hide = true)]
        scope: Vec<String>,
        #[command(flatten)]
        life: Life,
    },
    /// A token for a user of the REST API.
    UserToken {
        /// User name.
        #[arg(long)]
        name: String,
        /// Group; repeatable.
        #[arg(long = "group")]
        groups: Vec<String>,
        #[command(flatten)]
        life: Life,
    },
    /// The secret that the members of a cluster of replicas share.
    ClusterToken,
    /// A private key that signs tokens.
    SigningKey {
        /// Form; pem-base64 is what a Secret's `data` holds.
        #[arg(long, value_enum, default_value = "pem-base64")]
        format: KeyFormat,
    },
    /// The public key of a private key.
    PublicKey {
        /// The private key, PEM or base64 of it; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        signing_key_path: PathBuf,
    },
    /// A key that encrypts secrets at rest: a line of the file that store.encryption.keyFile names.
    EncryptionKey {
        /// Id of the key: letters, digits, '-', '_' and '.'. [default: eight random digits]
        #[arg(long, value_parser = key_id)]
        id: Option<String>,
    },
    /// A self-signed certificate with its key.
    TlsCertificate(certificate::Arguments),
}

/// How long a token lives, and who signs it.
#[derive(Debug, Args)]
pub(crate) struct Life {
    /// Life, such as 24h or 30d.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    valid_for: GoDuration,
    /// Signs here, with this private key, without a control plane; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    signing_key_path: Option<PathBuf>,
    /// Id of that key: its serial number, or the `kid` of the configured public key.
    #[arg(long)]
    kid: Option<String>,
}

/// Forms of private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyFormat {
    /// Base64 of the PEM.
    PemBase64,
    /// PEM.
    Pem,
}

/// Prints the token or key; tokens without a line break, for `$(…)` and files.
pub(crate) async fn run(session: &Session, command: Command) -> Result<()> {
    match command {
        Command::DataplaneToken { name, mesh, proxy_type, tags, workload, life } => {
            if !matches!(proxy_type.as_str(), "" | "dataplane") {
                bail!("{proxy_type} is not a valid proxy type; \"dataplane\" is the only one");
            }
            let mesh = session.mesh(mesh.as_deref())?;
            let claims =
                DataplaneClaims { name, mesh, tags: tag_values(&tags), r#type: proxy_type, workload };
            let body = json!({
                "name": claims.name, "mesh": claims.mesh, "tags": claims.tags, "type": claims.r#type,
                "workload": claims.workload, "validFor": life.valid_for.to_string(),
            });
            token(session, &claims, "/tokens/dataplane", &body, &life).await
        }
        Command::ZoneToken { zone, scope, life } => {
            ensure!(scope.is_empty(), "invalid --scope values: {scope:?} (there are no scopes)");
            ensure!(
                graticule_model::name::is_dns1035_label(&zone),
                "--zone {zone:?} is no name of a zone: lower-case letters, digits and '-', starting with a letter"
            );
            let body = json!({"zone": zone, "scope": null, "validFor": life.valid_for.to_string()});
            token(session, &ZoneClaims { zone, scope: None }, "/tokens/zone", &body, &life).await
        }
        Command::UserToken { name, groups, life } => {
            let groups = (!groups.is_empty()).then_some(groups);
            let body = json!({"name": name, "groups": groups, "validFor": life.valid_for.to_string()});
            token(session, &UserClaims { name, groups }, "/tokens/user", &body, &life).await
        }
        Command::ClusterToken => session.screen.line(&ClusterToken::new(rand::random()).to_text()),
        Command::SigningKey { format } => {
            let pem = SigningKey::generate()?.to_pem();
            session.screen.print(&match format {
                KeyFormat::Pem => pem,
                KeyFormat::PemBase64 => STANDARD.encode(pem),
            })
        }
        Command::PublicKey { signing_key_path } => {
            session.screen.print(&signing_key(&signing_key_path)?.public().to_pem())
        }
        Command::EncryptionKey { id } => {
            let id = id.unwrap_or_else(|| new_id()[..8].to_owned());
            let key: [u8; 32] = rand::random();
            session.screen.line(&format!("{id} {}", STANDARD.encode(key)))
        }
        Command::TlsCertificate(arguments) => certificate::run(session, &arguments),
    }
}

async fn token<C: Serialize>(
    session: &Session,
    claims: &C,
    path: &str,
    body: &Value,
    life: &Life,
) -> Result<()> {
    let token = match (&life.signing_key_path, &life.kid) {
        (Some(key), Some(kid)) => {
            let key = signing_key(key)?;
            tokens::issue(claims, &key, kid, session.now, life.valid_for, &new_id())?
        }
        (Some(_), None) => {
            return Err(usage("--kid is required when --signing-key-path is used: the id of the key"));
        }
        (None, Some(_)) => {
            return Err(usage("--kid belongs to --signing-key-path; a control plane knows its own"));
        }
        (None, None) => session.checked_client().await?.post(path, body).await?,
    };
    session.screen.print(&token)
}

/// `k=a,b` as labels with their allowed values.
fn tag_values(tags: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, values) in tags {
        all.entry(key.clone()).or_default().extend(values.split(',').map(|value| value.trim().to_owned()));
    }
    all
}

/// A private key from a file: PEM, or base64 of it as secrets hold it.
fn signing_key(path: &Path) -> Result<SigningKey> {
    let what = || format!("--signing-key-path {}", path.display());
    let mut data = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).with_context(what)?.into_bytes()
    } else {
        std::fs::read(path).with_context(what)?
    };
    let text: Vec<u8> = data.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if let Ok(decoded) = STANDARD.decode(text) {
        data = decoded;
    }
    SigningKey::from_secret(&data).with_context(what)
}

/// What a key file takes as an id.
fn key_id(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("an id has up to 64 letters, digits, '-', '_' and '.'".into())
}

/// A random UUID.
fn new_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let tags = [("a".to_owned(), "1, 2".to_owned()), ("a".to_owned(), "3".to_owned())];
        assert_eq!(tag_values(&tags)["a"], ["1", "2", "3"]);
    }

    #[test]
    fn keys_in_either_form() {
        let dir = std::env::temp_dir().join(format!("graticule-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        let key = SigningKey::generate().expect("key");
        for (name, text) in [("pem", key.to_pem()), ("base64", STANDARD.encode(key.to_pem()))] {
            let file = dir.join(name);
            std::fs::write(&file, text).expect("written");
            assert_eq!(signing_key(&file).expect(name).public(), key.public(), "{name}");
        }
        assert!(signing_key(&dir.join("none")).is_err());
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn ids_are_uuids() {
        let (a, b) = (new_id(), new_id());
        assert_ne!(a, b);
        assert!(a.len() == 36 && a.as_bytes()[14] == b'4', "{a}");
    }
}
