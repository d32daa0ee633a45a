//! Commits what a response comes to.

use std::collections::BTreeMap;

use graticule_model::kinds::config::Config;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_runtime::Clock;
use graticule_store::{CommitError, Expect, Revision, Txn, Write};
use tonic::Status;

use super::hub::Stores;
use crate::core::{Obstacle, Plane, Rejection, Sink, trust};
use crate::wire;

/// Lost races against local writers before resources are written one by one.
const RETRIES_MAX: u32 = 8;

/// Applies a response and returns the acknowledgement.
///
/// # Errors
/// The store cannot take anything now: the stream should end, and the peer come back.
pub(super) async fn apply(
    stores: &Stores,
    clock: &Clock,
    sink: &mut Sink,
    response: &DeltaDiscoveryResponse,
    node: &Node,
) -> Result<DeltaDiscoveryRequest, Status> {
    let mut attempt = 0;
    loop {
        let intake = sink.on_response(response, &stores.held());
        let Some(kind) = intake.kind.filter(|_| !intake.writes.is_empty()) else {
            return Ok(sink.settle(intake, Vec::new(), node));
        };
        let plane = Plane::of(kind);
        let store = stores.of(plane);
        let record = sink.completes(&intake).filter(|_| plane == Plane::Config).map(record);
        let writes = intake.writes.iter().cloned().chain(record).collect();
        let txn = Txn { at: Some(clock.now()), writes };
        let error = match store.commit(txn).await {
            Ok(_) => return Ok(sink.settle(intake, Vec::new(), node)),
            Err(error) => error,
        };
        fatal(&error)?;
        attempt += 1;
        if attempt < RETRIES_MAX && !matches!(error, CommitError::Invalid(_)) {
            // What was in the way may have been written by another replica, and not be seen here yet.
            store.read_barrier().await.map_err(|error| Status::unavailable(error.to_string()))?;
            continue;
        }
        // One bad write must not stop the others.
        let mut failed = Vec::new();
        for (name, writes) in units(&intake.writes) {
            let txn = Txn { at: Some(clock.now()), writes };
            if let Err(error) = store.commit(txn).await {
                fatal(&error)?;
                failed.push(Rejection { name, reason: reason(&error), obstacle: Some(obstacle(&error)) });
            }
        }
        return Ok(sink.settle(intake, failed, node));
    }
}

/// Config of a zone's store: the newest revision of global that the store has all of. It is written with what completes it, so
/// it is true of every state of the store, whoever reads it.
const TAKEN_CONFIG: &str = "graticule-global-revision";

fn record(revision: Revision) -> Write {
    let spec = Config { config: revision.0.to_string() };
    let resource = Box::new(Resource::new(Meta::new("", TAKEN_CONFIG), spec));
    Write::Put { resource, expect: Expect::Any, touch: false }
}

/// The newest revision of global that the store of a zone is known to have all of.
pub(super) fn recorded(stores: &Stores) -> Option<Revision> {
    let stored = stores.config.snapshot().get(&Key::new(Kind::Config, "", TAKEN_CONFIG))?;
    stored.spec_as::<Config>()?.config.parse().ok().map(Revision)
}

fn fatal(error: &CommitError) -> Result<(), Status> {
    match error {
        CommitError::Unavailable(_) | CommitError::Fenced(_) | CommitError::Uncertain(_) => {
            Err(Status::unavailable(error.to_string()))
        }
        CommitError::OwnerMissing { owner, .. } => Err(Status::internal(format!(
            "stream failed: the {owner} was deleted; connect again to have it anew"
        ))),
        _ => Ok(()),
    }
}

/// What can be written for itself: each write, but a claim only with the resource that it is for.
fn units(writes: &[Write]) -> Vec<(String, Vec<Write>)> {
    let mut claims: BTreeMap<&Key, Vec<&Write>> = BTreeMap::new();
    for claim in writes {
        if let Some(owner) = trust::claimant(claim) {
            claims.entry(owner).or_default().push(claim);
        }
    }
    let resources = writes.iter().filter(|write| trust::claimant(write).is_none());
    let unit = |write: &Write| {
        let key = match write {
            Write::Put { resource, .. } => resource.key(),
            Write::Delete { key, .. } => key.clone(),
        };
        let claims = claims.get(&key).into_iter().flatten().map(|claim| Write::clone(claim));
        (name_of(write), std::iter::once(write.clone()).chain(claims).collect())
    };
    resources.map(unit).collect()
}

fn reason(error: &CommitError) -> String {
    match error {
        CommitError::Exists(key) | CommitError::Conflict { key, .. } if trust::is_claim(key) => {
            "spec.trustDomain: belongs to another zone, which published it first".into()
        }
        error => error.to_string(),
    }
}

fn obstacle(error: &CommitError) -> Obstacle {
    match error {
        CommitError::Exists(key) if !trust::is_claim(key) => Obstacle::Resource(key.clone()),
        _ => Obstacle::Store,
    }
}

fn name_of(write: &Write) -> String {
    match write {
        Write::Put { resource, .. } => wire::wire_name(&resource.meta),
        Write::Delete { key, .. } => format!("{}.{}", key.name, key.mesh),
    }
}

#[cfg(test)]
mod tests;
