//! Which meshes the zone takes part in, and what becomes of its copies when that changes.

use std::collections::BTreeSet;

use graticule_model::{Key, Kind};
use graticule_store::{Expect, Txn, Write};
use tonic::Status;

use super::ZoneClient;
use crate::core::{Meshes, Sink};

/// Copies that one transaction deletes.
const DELETED_MAX: usize = 500;

impl ZoneClient {
    /// What the settings say, and whatever has proxies in the zone: nothing is taken away from under them.
    pub(super) fn meshes(&self) -> Meshes {
        let wanted = &self.options.meshes;
        if wanted.is_all() {
            return Meshes::default();
        }
        let snapshot = self.deps.stores.config.snapshot();
        let with_proxies = snapshot.list(Kind::Dataplane, None).map(|proxy| proxy.meta.mesh.as_str());
        let still_used: BTreeSet<&str> = with_proxies.filter(|mesh| !wanted.has(mesh)).collect();
        wanted.and(still_used.into_iter().map(str::to_owned))
    }

    /// Deletes the copies of meshes that the zone takes no part in any more.
    ///
    /// # Errors
    /// The store does not take it now.
    pub(super) async fn drop_unwanted(&self, sink: &Sink) -> Result<(), Status> {
        let stores = &self.deps.stores;
        for mesh in self.meshes().names().filter(|mesh| !self.options.meshes.has(mesh)) {
            tracing::warn!(
                mesh,
                "multizone.zone.meshes does not name it, but the zone has Dataplanes of it: it is kept until they are gone"
            );
        }
        let unwanted = sink.unwanted(&stores.held());
        if let Some(first) = unwanted.first() {
            tracing::info!(
                copies = unwanted.len(),
                %first,
                "copies of meshes that multizone.zone.meshes does not name are removed"
            );
        }
        for some in unwanted.chunks(DELETED_MAX) {
            let delete = |key: &Key| Write::Delete { key: key.clone(), expect: Expect::Any };
            let txn = Txn { at: Some(self.deps.clock.now()), writes: some.iter().map(delete).collect() };
            // What is left goes before the next connection.
            stores.config.commit(txn).await.map_err(|error| Status::unavailable(error.to_string()))?;
        }
        Ok(())
    }
}
