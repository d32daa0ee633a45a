//! What comes with a new Mesh: its default policies and its key for dataplane tokens (resources.md §6).

use std::fmt;
use std::sync::Arc;

use graticule_identity::tokens::TokenKind;
use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::secret::{Secret, SecretBytes};
use graticule_model::labels::Site;
use graticule_model::{Key, Kind, Meta, Resource, defaults};
use graticule_store::{Expect, Snapshot, Txn, Write};

/// Makes the PEM of a new signing key; takes some tens of milliseconds.
pub type NewSigningKey = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What to make beside a new Mesh.
#[derive(Clone, Default)]
pub struct MeshSetup {
    /// The default policies (`defaults.skipMeshCreation` and the Mesh's own list aside).
    pub policies: bool,
    /// The key for dataplane tokens; absent: none is made.
    pub signing_key: Option<NewSigningKey>,
}

impl fmt::Debug for MeshSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_key = self.signing_key.is_some();
        f.debug_struct("MeshSetup").field("policies", &self.policies).field("signing_key", &has_key).finish()
    }
}

impl MeshSetup {
    /// The transaction that creates `mesh` with everything that comes with it. What is stored already under
    /// the same keys stays. `key_pem` is a new signing key, if one is wanted.
    pub fn txn(&self, site: Site<'_>, snapshot: &Snapshot, mesh: Resource, key_pem: Option<String>) -> Txn {
        let name = mesh.meta.name.clone();
        let owner = Key::new(Kind::Mesh, "", name.clone());
        let mut made = Vec::new();
        if let (true, Some(spec)) = (self.policies, mesh.spec_as::<Mesh>()) {
            made.extend(defaults::policies(site, &name, spec));
        }
        if let Some(pem) = key_pem {
            let secret_name = TokenKind::Dataplane { mesh: &name }.secret_name(1);
            let mut meta = Meta::new(name.clone(), secret_name);
            meta.owner = Some(owner);
            made.push(Resource::new(meta, Secret { data: SecretBytes(pem.into_bytes()) }));
        }
        let mut txn = Txn::default().and_put(mesh, Expect::Absent);
        for resource in made.into_iter().filter(|resource| !snapshot.contains(&resource.key())) {
            txn.writes.push(Write::Put {
                resource: Box::new(resource),
                expect: Expect::Absent,
                touch: false,
            });
        }
        txn
    }

    /// A new signing key, off the async threads.
    ///
    /// # Errors
    /// The key cannot be made.
    pub async fn new_signing_key(&self) -> Result<Option<String>, String> {
        let Some(make) = self.signing_key.clone() else { return Ok(None) };
        let made = tokio::task::spawn_blocking(move || make()).await;
        made.map_err(|error| error.to_string())?.map(Some)
    }
}
