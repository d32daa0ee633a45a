//! Public keys from the configuration that check tokens which were signed elsewhere (tokens-and-access.md §2).

use std::path::PathBuf;

use graticule_api::PublicKey as Configured;
use graticule_identity::tokens::{KeyError, PublicKey, StaticKey};

/// Largest key file that is read.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// Why a configured key cannot be used. Each message begins with its setting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `kid` is missing.
    #[error("{setting}.kid: is required")]
    NoKeyId {
        /// Setting with index.
        setting: String,
    },
    /// Not exactly one of the two.
    #[error("{setting}: exactly one of key and keyFile is required")]
    NotOne {
        /// Setting with index.
        setting: String,
    },
    /// Two keys with the same id (and mesh).
    #[error("{setting}.kid: {kid:?} is there twice")]
    Twice {
        /// Setting with index.
        setting: String,
        /// The id.
        kid: String,
    },
    /// The file cannot be read.
    #[error("{setting}.keyFile: {}", path.display())]
    File {
        /// Setting with index.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// It is no key.
    #[error("{setting}")]
    Key {
        /// Setting with index.
        setting: String,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
}

/// Reads configured keys; each comes with the mesh that it is for (empty: all, and other kinds of tokens).
///
/// # Errors
/// The first key that cannot be used.
pub fn load<'a>(
    setting: &str,
    keys: impl IntoIterator<Item = (&'a str, Configured)>,
) -> Result<Vec<StaticKey>, Error> {
    let mut found: Vec<StaticKey> = Vec::new();
    for (index, (mesh, configured)) in keys.into_iter().enumerate() {
        let setting = format!("{setting}[{index}]");
        let Configured { kid, key, key_file } = configured;
        if kid.is_empty() {
            return Err(Error::NoKeyId { setting });
        }
        if found.iter().any(|other| other.kid == kid && other.mesh == mesh) {
            return Err(Error::Twice { setting, kid });
        }
        let pem = match (key.is_empty(), key_file.is_empty()) {
            (false, true) => key.into_bytes(),
            (true, false) => read(&key_file).map_err(|source| Error::File {
                setting: setting.clone(),
                path: key_file.clone().into(),
                source,
            })?,
            _ => return Err(Error::NotOne { setting }),
        };
        let key = PublicKey::from_pem(&pem).map_err(|source| Error::Key { setting, source })?;
        found.push(StaticKey { kid, mesh: mesh.to_owned(), key });
    }
    Ok(found)
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use graticule_identity::tokens::{DataplaneClaims, SigningKey, TokenKind, UserClaims, ZoneClaims};
    use graticule_model::{GoDuration, Timestamp};
    use graticule_runtime::supervisor::chain;
    use graticule_store::{MemoryStore, Store};

    use super::*;
    use crate::TokenKeys;

    fn configured(kid: &str, key: &str, file: &str) -> Configured {
        Configured { kid: kid.into(), key: key.into(), key_file: file.into() }
    }

    #[test]
    fn errors_name_the_setting() {
        let pem = SigningKey::generate().expect("a key").public().to_pem();
        let good = || ("", configured("1", &pem, ""));
        for (keys, want) in [
            (vec![("", configured("", &pem, ""))], "k[0].kid: is required"),
            (vec![("", configured("1", "", ""))], "k[0]: exactly one of key and keyFile is required"),
            (vec![("", configured("1", &pem, "f"))], "k[0]: exactly one of key and keyFile is required"),
            (vec![good(), good()], "k[1].kid: \"1\" is there twice"),
            (
                vec![good(), ("", configured("2", "", "/nonexistent"))],
                "k[1].keyFile: /nonexistent: No such file",
            ),
            (vec![("", configured("1", "rubbish", ""))], "k[0]: it is no RSA public key"),
        ] {
            let said = chain(&load("k", keys).expect_err("refused"));
            assert!(said.starts_with(want), "{said:?} does not start with {want:?}");
        }
        assert_eq!(load("k", [good(), ("m", configured("1", &pem, ""))]).expect("usable").len(), 2);
    }

    /// Tokens that were signed elsewhere, checked with configured keys alone.
    #[test]
    fn offline_keys_check_all_kinds_of_tokens() {
        let store: std::sync::Arc<dyn Store> =
            std::sync::Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (ours, other) = (SigningKey::generate().expect("a key"), SigningKey::generate().expect("a key"));
        let dir = std::env::temp_dir().join(format!("graticule-keys-{}.pem", std::process::id()));
        std::fs::write(&dir, ours.public().to_pem()).expect("written");
        let file = dir.display().to_string();
        let hour = GoDuration::from_secs(3600);
        let issue = |claims: &dyn Fn(&SigningKey) -> String, key: &SigningKey| claims(key);
        let user = |key: &SigningKey| {
            let claims = UserClaims { name: "jane".into(), groups: None };
            graticule_identity::tokens::issue(&claims, key, "offline", now, hour, "j").expect("signed")
        };
        let zone = |key: &SigningKey| {
            let claims = ZoneClaims { zone: "east".into(), scope: None };
            graticule_identity::tokens::issue(&claims, key, "offline", now, hour, "j").expect("signed")
        };
        let dataplane = |key: &SigningKey| {
            let claims = DataplaneClaims { mesh: "demo".into(), ..DataplaneClaims::default() };
            graticule_identity::tokens::issue(&claims, key, "offline", now, hour, "j").expect("signed")
        };
        for uses_secrets in [true, false] {
            let keys = load("k", [("", configured("offline", "", &file))]).expect("usable");
            let keys = TokenKeys::with_configured(store.clone(), keys, uses_secrets);
            assert_eq!(keys.user(&issue(&user, &ours), now).expect("valid").claims.name, "jane");
            assert_eq!(keys.zone(&issue(&zone, &ours), now).expect("valid").0.claims.zone, "east");
            assert_eq!(
                keys.dataplane("demo", &issue(&dataplane, &ours), now).expect("valid").claims.mesh,
                "demo"
            );
            let forged = keys.user(&issue(&user, &other), now).expect_err("another key");
            assert!(forged.to_string().contains("signature"), "{forged}");
        }
        // A key of one mesh does not check the tokens of another.
        let keys = load("k", [("demo", configured("offline", "", &file))]).expect("usable");
        let keys = TokenKeys::with_configured(store, keys, false);
        keys.dataplane("demo", &dataplane(&ours), now).expect("valid");
        let refused = keys.dataplane("shop", &dataplane(&ours), now).expect_err("a key of another mesh");
        assert!(refused.to_string().contains("no signing key with KID offline"), "{refused}");
        assert!(TokenKind::User.mesh().is_none());
        std::fs::remove_file(&dir).expect("removed");
    }
}
