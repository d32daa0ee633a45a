//! Tokens checked and signed with the keys that the store holds (tokens-and-access.md §1–§3).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use graticule_identity::tokens::{
    DataplaneClaims, Keys, Revocations, SigningKey, StaticKey, TokenError, TokenKind, UserClaims, Validated,
    ZoneClaims, issue, validate,
};
use graticule_model::kinds::secret::{GlobalSecret, Secret};
use graticule_model::{GoDuration, Key, Kind, Resource, Timestamp, TypedSpec};
use graticule_store::{Snapshot, Store};

/// Keys and revocation lists of one store. Cheap to clone.
#[derive(Clone)]
pub struct TokenKeys {
    store: Arc<dyn Store>,
    configured: Arc<Vec<StaticKey>>,
    uses_secrets: bool,
}

impl TokenKeys {
    /// Keys from the store's secrets alone.
    pub fn new(store: Arc<dyn Store>) -> TokenKeys {
        TokenKeys { store, configured: Arc::new(Vec::new()), uses_secrets: true }
    }

    /// With configured public keys; `uses_secrets` = also look into the store.
    pub fn with_configured(
        store: Arc<dyn Store>,
        configured: Vec<StaticKey>,
        uses_secrets: bool,
    ) -> TokenKeys {
        TokenKeys { store, configured: Arc::new(configured), uses_secrets }
    }

    /// Checks a user token.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn user(&self, token: &str, now: Timestamp) -> Result<Validated<UserClaims>, TokenError> {
        self.check(TokenKind::User, token, now)
    }

    /// Checks a dataplane token with the keys of a mesh.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn dataplane(
        &self,
        mesh: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<Validated<DataplaneClaims>, TokenError> {
        self.check(TokenKind::Dataplane { mesh }, token, now)
    }

    /// Checks a zone token; gives the [mark](Self::zone_key_mark) of the key that it was checked with as well.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn zone(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<(Validated<ZoneClaims>, Option<u64>), TokenError> {
        // Both out of one state: a key that is replaced at this moment checked nothing.
        let snapshot = self.store.snapshot();
        let validated = self.check_in(&snapshot, TokenKind::Zone, token, now)?;
        let mark = self.zone_key_mark_in(&snapshot, &validated.kid);
        Ok((validated, mark))
    }

    /// Ids of revoked zone tokens.
    pub fn revoked_zone_tokens(&self) -> Revocations {
        revocations(&self.store.snapshot(), TokenKind::Zone)
    }

    /// A mark of the key that checks zone tokens with this key id: it differs when another key has the id. `None`: there is
    /// no such key.
    pub fn zone_key_mark(&self, kid: &str) -> Option<u64> {
        self.zone_key_mark_in(&self.store.snapshot(), kid)
    }

    fn zone_key_mark_in(&self, snapshot: &Snapshot, kid: &str) -> Option<u64> {
        let mut mark = DefaultHasher::new();
        if let Some(key) = self.configured.iter().find(|key| key.kid == kid) {
            key.key.to_pem().hash(&mut mark);
            return Some(mark.finish());
        }
        let serial = kid.parse::<u64>().ok().filter(|_| self.uses_secrets)?;
        let names = [Some(TokenKind::Zone.secret_name(serial)), TokenKind::Zone.public_secret_name(serial)];
        let data = names.into_iter().flatten().find_map(|name| read_secret(snapshot, None, &name))?;
        data.hash(&mut mark);
        Some(mark.finish())
    }

    fn check<C: serde::de::DeserializeOwned>(
        &self,
        kind: TokenKind<'_>,
        token: &str,
        now: Timestamp,
    ) -> Result<Validated<C>, TokenError> {
        self.check_in(&self.store.snapshot(), kind, token, now)
    }

    fn check_in<C: serde::de::DeserializeOwned>(
        &self,
        snapshot: &Snapshot,
        kind: TokenKind<'_>,
        token: &str,
        now: Timestamp,
    ) -> Result<Validated<C>, TokenError> {
        let secret = |name: &str| read_secret(snapshot, kind.mesh(), name);
        let keys = Keys {
            kind,
            configured: &self.configured,
            secret: if self.uses_secrets { Some(&secret) } else { None },
        };
        validate(token, &keys, &revocations(snapshot, kind), now)
    }

    /// Signs claims with the newest key of their kind.
    ///
    /// # Errors
    /// There is no key yet, or it cannot be used.
    pub fn sign<C: serde::Serialize>(
        &self,
        kind: TokenKind<'_>,
        claims: &C,
        now: Timestamp,
        valid_for: GoDuration,
        jti: &str,
    ) -> Result<String, TokenError> {
        let snapshot = self.store.snapshot();
        let secret_kind = if kind.mesh().is_some() { Kind::Secret } else { Kind::GlobalSecret };
        let names = snapshot.list(secret_kind, kind.mesh()).map(|secret| secret.meta.name.as_str());
        // The error names the first key that could have been there.
        let missing = || kind.no_signing_key("1");
        let (serial, name) = kind.latest(names).ok_or_else(missing)?;
        let data = read_secret(&snapshot, kind.mesh(), name).ok_or_else(missing)?;
        let kid = serial.to_string();
        let key = SigningKey::from_secret(&data)
            .map_err(|source| TokenError::UnusableKey { kid: kid.clone(), source })?;
        issue(claims, &key, &kid, now, valid_for, jti)
    }
}

/// Both places of a revocation list count: the mesh's Secret and the GlobalSecret of the same name.
fn revocations(snapshot: &Snapshot, kind: TokenKind<'_>) -> Revocations {
    let mut revoked = Revocations::default();
    let name = kind.revocations_name();
    for mesh in [None, kind.mesh()] {
        if let Some(data) = read_secret(snapshot, mesh, &name) {
            revoked.add(&data);
        }
    }
    revoked
}

/// The bytes of a Secret of a mesh, or of a GlobalSecret.
pub fn read_secret(snapshot: &Snapshot, mesh: Option<&str>, name: &str) -> Option<Vec<u8>> {
    match mesh {
        Some(mesh) => peek::<Secret>(snapshot, Kind::Secret, mesh, name).map(|secret| secret.data.0),
        None => peek::<GlobalSecret>(snapshot, Kind::GlobalSecret, "", name).map(|secret| secret.data.0),
    }
}

fn peek<S: TypedSpec + Clone>(snapshot: &Snapshot, kind: Kind, mesh: &str, name: &str) -> Option<S> {
    let resource: Arc<Resource> = snapshot.get(&Key::new(kind, mesh, name))?;
    resource.spec_as::<S>().cloned()
}
