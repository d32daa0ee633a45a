//! Objects that a control plane makes by itself when it starts (resources.md §6).

use std::sync::Arc;
use std::time::Duration;

use graticule_api::MeshSetup;
use graticule_api::setup::NewSigningKey;
use graticule_identity::AdminAuthority;
use graticule_identity::tokens::{KeyError, SigningKey, TokenKind, UserClaims};
use graticule_model::kinds::config::{CLUSTER_ID, Config};
use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::kinds::zone::Zone;
use graticule_model::labels::Site;
use graticule_model::{GoDuration, Key, Kind, Meta, Mode, Resource, defaults};
use graticule_runtime::supervisor::chain;
use graticule_runtime::{Clock, Drain, Random, Spawner};
use graticule_store::{CommitError, Expect, Store, Txn, Write};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::TokenKeys;
use crate::leading::{leader_known, while_leading};

const ADMIN: &str = "mesh-system:admin";
const ADMIN_TOKEN_SECRET: &str = "admin-user-token";
const ADMIN_TOKEN_LIFE: GoDuration = GoDuration::from_secs(10 * 365 * 24 * 3600);

/// Why an object could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// The store refused.
    #[error("cannot store {what}")]
    Store {
        /// The object.
        what: String,
        /// Reason.
        #[source]
        source: CommitError,
    },
    /// A key could not be made.
    #[error("cannot make a signing key")]
    Key(#[from] KeyError),
    /// The authority of Envoy admin could not be made.
    #[error("cannot make the authority of Envoy admin")]
    Authority(#[from] graticule_identity::CaError),
    /// The admin token could not be signed.
    #[error("cannot sign the admin token")]
    Token(#[from] graticule_identity::tokens::TokenError),
}

/// Between two attempts of a leader whose store did not take its objects.
const RETRY: Duration = Duration::from_secs(1);

/// Time that a start waits for a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes what is missing; changes nothing that is there.
#[derive(Debug, Clone)]
pub struct DefaultObjects {
    /// Role of this control plane.
    pub mode: Mode,
    /// Own zone name; empty on global.
    pub zone: String,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Make the mesh `default`.
    pub mesh: bool,
    /// Make the HostnameGenerators.
    pub hostname_generators: bool,
    /// Make the admin's user token.
    pub admin_token: bool,
    /// Make the keys that sign user and zone tokens.
    pub signing_keys: bool,
}

impl EnsureError {
    /// Whether it may work later: the store cannot write now, or another replica leads.
    fn is_transient(&self) -> bool {
        matches!(
            self,
            EnsureError::Store {
                source: CommitError::Unavailable(_) | CommitError::Uncertain(_) | CommitError::Fenced(_),
                ..
            }
        )
    }
}

impl DefaultObjects {
    /// Makes what is missing whenever this replica leads. `tried` hears when that was done or tried once.
    ///
    /// # Errors
    /// What will not work later either.
    pub async fn keep(
        self,
        store: Arc<dyn Store>,
        drain: Drain,
        tried: oneshot::Sender<()>,
    ) -> Result<(), EnsureError> {
        let tried = Mutex::new(Some(tried));
        let make = |fenced: Arc<dyn Store>| async {
            let maker = Maker { what: &self, store: fenced };
            loop {
                let outcome = maker.ensure().await;
                // Nobody may wait for it any more.
                let _waits = tried.lock().take().map(|tried| tried.send(()));
                match outcome {
                    Err(error) if error.is_transient() => {
                        tracing::warn!(error = chain(&error), "default objects cannot be stored now");
                        self.clock.sleep(RETRY).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        let mut make = std::pin::pin!(while_leading("default objects", &store, drain.clone(), make));
        tokio::select! {
            outcome = &mut make => outcome,
            () = drain.signaled() => Ok(()),
        }
    }

    /// Keeps them from now on. Returns when this replica has made them, when another one leads, or, so that a control
    /// plane without its majority can be looked at, when there is no leader for a while.
    pub async fn start(self, store: &Arc<dyn Store>, spawner: &Spawner) {
        let (tried, done) = oneshot::channel();
        let clock = self.clock.clone();
        spawner.essential("default objects", self.keep(store.clone(), spawner.drain(), tried));
        if leader_known(store, &clock, LEADER_TIMEOUT).await
            && store.leadership().borrow().own_term().is_some()
        {
            tokio::select! {
                // An error is the task's, which ends the process.
                _ = done => {}
                // Leadership went away meanwhile.
                () = clock.sleep(LEADER_TIMEOUT) => {}
            }
        }
    }

    fn site(&self) -> Site<'_> {
        Site { mode: self.mode, zone: &self.zone }
    }
}

/// The default objects of one store.
struct Maker<'a> {
    what: &'a DefaultObjects,
    store: Arc<dyn Store>,
}

impl Maker<'_> {
    /// Makes what is missing, the most needed first.
    async fn ensure(&self) -> Result<(), EnsureError> {
        let what = self.what;
        if what.mode != Mode::Global {
            self.envoy_admin_authority().await?;
            self.own_zone().await?;
        }
        if what.mode != Mode::FederatedZone {
            if what.mesh {
                self.default_mesh().await?;
            }
            if what.signing_keys {
                self.signing_key(TokenKind::Zone).await?;
            }
            self.cluster_id().await?;
        }
        if what.hostname_generators {
            for generator in defaults::hostname_generators(what.site()) {
                self.create(generator).await?;
            }
        }
        if what.signing_keys {
            self.signing_key(TokenKind::User).await?;
        }
        if what.admin_token {
            self.admin_user_token().await?;
        }
        Ok(())
    }

    /// Creates a resource unless its key is taken.
    async fn create(&self, resource: Resource) -> Result<(), EnsureError> {
        let what = resource.key().to_string();
        let put = Write::Put { resource: Box::new(resource), expect: Expect::Absent, touch: false };
        self.commit(what, Txn { at: Some(self.what.clock.now()), writes: vec![put] }).await
    }

    async fn commit(&self, what: String, txn: Txn) -> Result<(), EnsureError> {
        match self.store.commit(txn).await {
            Ok(_) | Err(CommitError::Exists(_)) => Ok(()),
            Err(source) => Err(EnsureError::Store { what, source }),
        }
    }

    fn has(&self, key: &Key) -> bool {
        self.store.snapshot().contains(key)
    }

    async fn default_mesh(&self) -> Result<(), EnsureError> {
        if self.has(&Key::new(Kind::Mesh, "", "default")) {
            return Ok(());
        }
        let mesh = Resource::new(Meta::new("", "default"), Mesh::default());
        let key = SigningKey::generate()?.to_pem();
        let mut txn = mesh_setup().txn(self.what.site(), &self.store.snapshot(), mesh, Some(key));
        txn.at = Some(self.what.clock.now());
        self.commit("the mesh \"default\"".into(), txn).await
    }

    async fn signing_key(&self, kind: TokenKind<'_>) -> Result<(), EnsureError> {
        let snapshot = self.store.snapshot();
        let names: Vec<String> =
            snapshot.list(Kind::GlobalSecret, None).map(|secret| secret.meta.name.clone()).collect();
        if kind.latest(names.iter().map(String::as_str)).is_some() {
            return Ok(());
        }
        self.create(global_secret(&kind.secret_name(1), SigningKey::generate()?.to_pem().into_bytes())).await
    }

    async fn cluster_id(&self) -> Result<(), EnsureError> {
        let id = Config { config: self.what.random.uuid() };
        self.create(Resource::new(Meta::new("", CLUSTER_ID), id)).await
    }

    async fn envoy_admin_authority(&self) -> Result<(), EnsureError> {
        let name = graticule_identity::admin::SECRET;
        if self.has(&Key::new(Kind::GlobalSecret, "", name)) {
            return Ok(());
        }
        let authority = AdminAuthority::generate(self.what.clock.now(), self.what.random.bytes16())?;
        self.create(global_secret(name, authority.to_secret())).await
    }

    /// A zone's store holds exactly one Zone: its own.
    async fn own_zone(&self) -> Result<(), EnsureError> {
        let snapshot = self.store.snapshot();
        let others: Vec<Key> = snapshot
            .list(Kind::Zone, None)
            .filter(|zone| zone.meta.name != self.what.zone)
            .map(|zone| zone.key())
            .collect();
        for key in others {
            let what = key.to_string();
            let writes = vec![Write::Delete { key, expect: Expect::Any }];
            self.store
                .commit(Txn { at: Some(self.what.clock.now()), writes })
                .await
                .map_err(|source| EnsureError::Store { what, source })?;
        }
        self.create(Resource::new(Meta::new("", &self.what.zone), Zone::default())).await
    }

    async fn admin_user_token(&self) -> Result<(), EnsureError> {
        if self.has(&Key::new(Kind::GlobalSecret, "", ADMIN_TOKEN_SECRET)) {
            return Ok(());
        }
        let claims = UserClaims { name: ADMIN.into(), groups: Some(vec![ADMIN.into()]) };
        let keys = TokenKeys::new(self.store.clone());
        let token = keys.sign(
            TokenKind::User,
            &claims,
            self.what.clock.now(),
            ADMIN_TOKEN_LIFE,
            &self.what.random.uuid(),
        )?;
        self.create(global_secret(ADMIN_TOKEN_SECRET, token.into_bytes())).await
    }
}

fn global_secret(name: &str, data: Vec<u8>) -> Resource {
    Resource::new(Meta::new("", name), GlobalSecret { data: SecretBytes(data) })
}

/// What the REST API makes beside a new mesh.
pub fn mesh_setup() -> MeshSetup {
    let new_key: NewSigningKey =
        Arc::new(|| SigningKey::generate().map(|key| key.to_pem()).map_err(|error| chain(&error)));
    MeshSetup { policies: true, signing_key: Some(new_key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graticule_store::{MemoryStore, Snapshot};

    fn count(snapshot: &Snapshot, kind: Kind) -> usize {
        snapshot.list(kind, None).count()
    }

    fn mk_store(clock: &Clock) -> Arc<dyn Store> {
        let clock = clock.clone();
        Arc::new(MemoryStore::new(move || clock.now()))
    }

    async fn ensure(store: &Arc<dyn Store>, mode: Mode, zone: &str, clock: &Clock) {
        let what = DefaultObjects {
            mode,
            zone: zone.into(),
            clock: clock.clone(),
            random: Random::seeded(1),
            mesh: true,
            hostname_generators: true,
            admin_token: true,
            signing_keys: true,
        };
        let (signal, drain) = Drain::new();
        let (tried, done) = oneshot::channel();
        let (kept, ()) = tokio::join!(what.keep(store.clone(), drain, tried), async {
            done.await.expect("a store that leads takes them at once");
            signal.drain();
        });
        kept.expect("an empty store takes the default objects");
    }

    #[tokio::test]
    async fn global_makes_its_objects_once() {
        let clock = Clock::system();
        let store = mk_store(&clock);
        ensure(&store, Mode::Global, "", &clock).await;
        let first = store.snapshot();
        assert_eq!(count(&first, Kind::Mesh), 1);
        assert_eq!(count(&first, Kind::MeshTimeout), 2);
        assert_eq!(count(&first, Kind::HostnameGenerator), 5);
        let secrets: Vec<_> = first.list(Kind::GlobalSecret, None).map(|s| s.meta.name.clone()).collect();
        assert_eq!(secrets, ["admin-user-token", "user-token-signing-key-1", "zone-token-signing-key-1"]);
        ensure(&store, Mode::Global, "", &clock).await;
        assert_eq!(store.snapshot().revision(), first.revision());
        let keys = TokenKeys::new(store.clone());
        let token = read_admin_token(&first);
        assert_eq!(keys.user(&token, clock.now()).expect("valid").claims.name, ADMIN);
    }

    fn read_admin_token(snapshot: &Snapshot) -> String {
        String::from_utf8(crate::read_secret(snapshot, None, ADMIN_TOKEN_SECRET).expect("made"))
            .expect("text")
    }

    #[tokio::test]
    async fn a_federated_zone_leaves_to_global_what_is_global() {
        let clock = Clock::system();
        let store = mk_store(&clock);
        let other = Resource::new(Meta::new("", "old-name"), Zone::default());
        let writes = vec![Write::Put { resource: Box::new(other), expect: Expect::Absent, touch: false }];
        store.commit(Txn { at: None, writes }).await.expect("stored");
        ensure(&store, Mode::FederatedZone, "east", &clock).await;
        let snapshot = store.snapshot();
        assert_eq!(count(&snapshot, Kind::Mesh), 0);
        let zones: Vec<_> = snapshot.list(Kind::Zone, None).map(|z| z.meta.name.clone()).collect();
        assert_eq!(zones, ["east"]);
        assert!(snapshot.contains(&Key::new(Kind::GlobalSecret, "", "envoy-admin-ca")));
        assert!(!snapshot.contains(&Key::new(Kind::GlobalSecret, "", "zone-token-signing-key-1")));
    }
}
