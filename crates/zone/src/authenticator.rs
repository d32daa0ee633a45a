//! Dataplane tokens against Dataplanes (tokens-and-access.md §8.1).

use async_trait::async_trait;
use graticule_control_plane::TokenKeys;
use graticule_identity::tokens::check_dataplane;
use graticule_model::kinds::mesh_identity::MeshIdentity;
use graticule_model::{Kind, Resource};
use graticule_runtime::Clock;
use graticule_runtime::supervisor::chain;
use graticule_store::{Snapshot, Store};
use graticule_view::identity;
use graticule_xds::net::{AuthError, Authenticator};
use std::sync::Arc;

/// Checks dataplane tokens with the keys of the Dataplane's mesh.
pub struct TokenAuthenticator {
    /// Keys and revocation lists.
    pub keys: TokenKeys,
    /// For the MeshIdentities of the mesh.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Clock,
    /// `dpServer.authn.dpProxy.type: none`: everybody is admitted.
    pub admits_everybody: bool,
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, credential: Option<&str>, dataplane: &Resource) -> Result<(), AuthError> {
        if self.admits_everybody {
            return Ok(());
        }
        let token = credential.filter(|token| !token.is_empty()).ok_or_else(|| {
            AuthError("a dataplane token is required; make one with `grat generate dataplane-token`".into())
        })?;
        let meta = &dataplane.meta;
        let validated = self
            .keys
            .dataplane(&meta.mesh, token, self.clock.now())
            .map_err(|error| AuthError(chain(&error)))?;
        let needs_workload = identity_needs_workload(&self.store.snapshot(), dataplane);
        check_dataplane(&validated.claims, &meta.name, &meta.mesh, &meta.labels, needs_workload)
            .map_err(|error| AuthError(error.to_string()))
    }
}

/// Whether the MeshIdentity that selects the Dataplane makes its id from the workload label.
pub(crate) fn identity_needs_workload(snapshot: &Snapshot, dataplane: &Resource) -> bool {
    let identities: Vec<_> = snapshot.list(Kind::MeshIdentity, Some(&dataplane.meta.mesh)).cloned().collect();
    identity::best(&identities, &dataplane.meta.labels)
        .and_then(|best| best.spec_as::<MeshIdentity>())
        .is_some_and(MeshIdentity::path_uses_workload)
}
