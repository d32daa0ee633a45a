//! Names of the secrets that hold signing keys and revocation lists (tokens-and-access.md §2, §3).

use super::TokenError;

/// Which tokens a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind<'a> {
    /// For the REST API.
    User,
    /// For proxies of one mesh.
    Dataplane {
        /// The mesh.
        mesh: &'a str,
    },
    /// For zones.
    Zone,
}

const DATAPLANE_PREFIX: &str = "dataplane-token-signing-key-";

/// The mesh whose dataplane tokens are signed with the key in the secret `name`, as far as the name tells:
/// `(mesh, serial)` of `dataplane-token-signing-key-<mesh>-<serial>`.
pub fn signing_key_mesh(name: &str) -> Option<(&str, u64)> {
    let rest = name.strip_prefix(DATAPLANE_PREFIX)?;
    match rest.rsplit_once('-').map(|(mesh, serial)| (mesh, serial.parse())) {
        Some((mesh, Ok(serial))) => Some((mesh, serial)),
        _ => Some((rest, 0)),
    }
}

impl TokenKind<'_> {
    /// What the names of the secrets with private keys begin with.
    pub fn prefix(self) -> String {
        match self {
            TokenKind::User => "user-token-signing-key".into(),
            TokenKind::Dataplane { mesh } => format!("{DATAPLANE_PREFIX}{mesh}"),
            TokenKind::Zone => "zone-token-signing-key".into(),
        }
    }

    /// Name of the secret with the private key; serial 0 is the bare prefix.
    pub fn secret_name(self, serial: u64) -> String {
        with_serial(self.prefix(), serial)
    }

    /// Name of the GlobalSecret with the public key that zones receive; only zone tokens have one.
    pub fn public_secret_name(self, serial: u64) -> Option<String> {
        (self == TokenKind::Zone).then(|| with_serial("zone-token-signing-public-key".into(), serial))
    }

    /// Name of the secret with the revoked ids. (That of dataplane tokens exists in the mesh and as a
    /// GlobalSecret; both count.)
    pub fn revocations_name(self) -> String {
        match self {
            TokenKind::User => "user-token-revocations".into(),
            TokenKind::Dataplane { mesh } => format!("dataplane-token-revocations-{mesh}"),
            TokenKind::Zone => "zone-token-revocations".into(),
        }
    }

    /// The mesh whose Secrets hold the keys; `None`: GlobalSecrets do.
    pub fn mesh(&self) -> Option<&str> {
        match self {
            TokenKind::Dataplane { mesh } => Some(mesh),
            TokenKind::User | TokenKind::Zone => None,
        }
    }

    /// Serial number of the key in the secret `name`; `None`: not a key of this kind. A suffix that is no
    /// number counts as 0.
    pub fn serial(self, name: &str) -> Option<u64> {
        let suffix = name.strip_prefix(self.prefix().as_str())?;
        Some(suffix.strip_prefix('-').and_then(|serial| serial.parse().ok()).unwrap_or(0))
    }

    /// The newest key among secrets with these names, which is the one to issue with: `(serial, name)`.
    pub fn latest<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Option<(u64, &'n str)> {
        names.into_iter().filter_map(|name| Some((self.serial(name)?, name))).max()
    }

    /// There is no key with this id; names the secret that should hold it.
    pub fn no_signing_key(self, kid: &str) -> TokenError {
        let name = match kid.parse() {
            Ok(serial) => self.secret_name(serial),
            Err(_) => format!("{}-{kid}", self.prefix()),
        };
        let secret = match self.mesh() {
            Some(mesh) => format!("Secret of name \"{name}\" in mesh \"{mesh}\""),
            None => format!("GlobalSecret of name \"{name}\""),
        };
        TokenError::NoSigningKey { kid: kid.into(), secret }
    }
}

fn with_serial(prefix: String, serial: u64) -> String {
    if serial == 0 { prefix } else { format!("{prefix}-{serial}") }
}
