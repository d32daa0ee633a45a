//! A zone leaves its global: the connection ends for good, then the copies become the zone's own.
//!
//! A mark in the store comes first. From then on nobody connects, whoever leads, whatever its settings are and however often the
//! zone is started, until an operator prepares it to join again. So what is left undone by a crash is done by the next call,
//! or by the next start without a global.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::config::Config;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::Clock;
use graticule_store::seal::Sealer;
use graticule_store::{CommitError, Expect, Store, Txn, Write, codec};
use prost::Message as _;

use super::super::hub::Stores;
use super::link::FederationLink;
use super::streams::held_back_key;
use super::{Link, STORE_RETRY, ZoneClient};
use crate::core::{Fate, Step, steps_of_leaving};

/// Config of the store that says that the zone has left its global.
const LEFT_CONFIG: &str = "graticule-left-global";
/// Writes that are committed together.
const WRITES_MAX: usize = 500;
/// Bytes that are committed together; etcd takes 1.5 MiB in one request, with what belongs to it.
const WRITES_LEN_MAX: usize = 1 << 20;
/// Bytes of a write beside the resource: keys, conditions.
const WRITE_OVERHEAD: usize = 512;
/// Copies that are named when they cannot be written; more are counted.
const NAMED_MAX: usize = 10;
/// Rounds against others who write at the same time.
const ROUNDS_MAX: usize = 100;
/// Until the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const LEFT: &str = "the zone has left its global and does not connect: take multizone.zone.globalAddress out of its settings and \
    start it again; before it joins a global again: grat zone join --yes, asked of this zone";

/// Why a zone has not left.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// This replica is not the one that is connected to global.
    #[error("another replica of this zone leads")]
    Elsewhere,
    /// The connection did not close; nothing was changed but that the zone does not connect again.
    #[error("the connection to global does not close")]
    Open,
    /// The store takes nothing now; to be called again.
    #[error("the zone has left its global, but its copies cannot be written: {0}")]
    Store(#[from] CommitError),
}

fn left_key() -> Key {
    Key::new(Kind::Config, "", LEFT_CONFIG)
}

fn has_left(store: &Arc<dyn Store>) -> bool {
    store.snapshot().contains(&left_key())
}

impl FederationLink {
    /// What would become of the zone's copies.
    pub fn fates_of_leaving(&self, zone: &str, stores: &Stores) -> Vec<Fate> {
        steps_of_leaving(zone, &stores.held()).into_iter().map(|step| step.fate).collect()
    }

    /// Ends the connection to global for good and makes the zone's copies its own. Tells what became of them; called again,
    /// of those that were left.
    ///
    /// # Errors
    /// [`LeaveError`]; nothing is lost, and the call can be made again.
    pub async fn leave(&self, zone: &str, stores: &Stores, clock: &Clock) -> Result<Vec<Fate>, LeaveError> {
        if self.0.hub.lock().is_none() {
            return Err(LeaveError::Elsewhere);
        }
        if !has_left(&stores.config) {
            let mark = Resource::new(Meta::new("", LEFT_CONFIG), Config { config: "yes".into() });
            let txn = Txn::default().and_put(mark, Expect::Any);
            stores.config.commit(Txn { at: Some(clock.now()), ..txn }).await?;
        }
        // What is under way of the connection would make copies anew.
        let mut link = self.0.link.subscribe();
        tokio::select! {
            closed = link.wait_for(|link| link.left) => drop(closed.map_err(|_| LeaveError::Open)?),
            () = clock.sleep(CLOSE_TIMEOUT) => return Err(LeaveError::Open),
        }
        let fates = adopt(zone, stores, clock).await?;
        tracing::info!(copies = fates.len(), zone, "the zone has left its global");
        Ok(fates)
    }
}

/// Which copy, for people.
fn named(fate: &Fate) -> String {
    format!("{} {}", fate.kind, [fate.mesh.as_str(), &fate.name].join("/").trim_start_matches('/'))
}

/// Does what is left to be done, until nothing is, or nothing but what the store refuses.
async fn adopt(zone: &str, stores: &Stores, clock: &Clock) -> Result<Vec<Fate>, CommitError> {
    let mut fates = Vec::new();
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    let mut last = None;
    for _ in 0..ROUNDS_MAX {
        let mut steps = steps_of_leaving(zone, &stores.held());
        steps.retain(|step| !refused.contains_key(&named(&step.fate)));
        if steps.is_empty() {
            return settle(stores, clock, &refused).await.map(|()| fates);
        }
        let mut together: Vec<Vec<Step>> = chunks(steps);
        together.reverse();
        while let Some(steps) = together.pop() {
            let writes: Vec<Write> = steps.iter().flat_map(|step| step.writes.iter().cloned()).collect();
            match stores.config.commit(Txn { at: Some(clock.now()), writes }).await {
                Ok(_) => fates.extend(steps.into_iter().map(|step| step.fate)),
                // Somebody wrote one of them meanwhile: once more, with what is there now.
                Err(
                    error @ (CommitError::Conflict { .. }
                    | CommitError::Exists(_)
                    | CommitError::NotFound(_)
                    | CommitError::OwnerMissing { .. }),
                ) => last = Some(error),
                // One that the store does not take must not stop the others.
                Err(CommitError::Invalid(_)) if steps.len() > 1 => {
                    together.extend(steps.into_iter().rev().map(|step| vec![step]));
                }
                Err(CommitError::Invalid(reason)) => {
                    refused.extend(steps.iter().map(|step| (named(&step.fate), reason.clone())));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Err(last.unwrap_or_else(|| CommitError::Unavailable("copies appear again and again".into())))
}

/// Nothing can be done any more.
async fn settle(
    stores: &Stores,
    clock: &Clock,
    refused: &BTreeMap<String, String>,
) -> Result<(), CommitError> {
    if !refused.is_empty() {
        let all: Vec<String> =
            refused.iter().take(NAMED_MAX).map(|(name, reason)| format!("{name}: {reason}")).collect();
        let count = refused.len();
        return Err(CommitError::Invalid(format!("copies that stay copies: {count}: {}", all.join("; "))));
    }
    if stores.config.snapshot().contains(&held_back_key()) {
        let forget = Txn::default().and_delete(held_back_key(), Expect::Any);
        stores.config.commit(Txn { at: Some(clock.now()), ..forget }).await?;
    }
    Ok(())
}

/// About how many bytes of a request to the store a write is.
fn write_len(write: &Write) -> usize {
    WRITE_OVERHEAD
        + match write {
            Write::Put { resource, .. } => codec::encode_resource(resource, &Sealer::NONE).encoded_len(),
            Write::Delete { .. } => 0,
        }
}

fn chunks(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut out: Vec<Vec<Step>> = Vec::new();
    let (mut count, mut len) = (WRITES_MAX, 0);
    for step in steps {
        let step_len: usize = step.writes.iter().map(write_len).sum();
        if count + step.writes.len() > WRITES_MAX || len + step_len > WRITES_LEN_MAX {
            out.push(Vec::new());
            (count, len) = (0, 0);
        }
        count += step.writes.len();
        len += step_len;
        if let Some(last) = out.last_mut() {
            last.push(step);
        }
    }
    out
}

/// A zone starts without a global: what is left of its leaving is done. Goes on until that is so, or the store refuses what is
/// left. That the zone has left stays in the store: a replica with the old settings does not connect again.
pub async fn finish_leaving(zone: &str, stores: &Stores, clock: &Clock) {
    while has_left(&stores.config) {
        match adopt(zone, stores, clock).await {
            Ok(_) => return,
            Err(CommitError::Invalid(reason)) => {
                tracing::error!(reason, zone, "what is left of global's copies is not the zone's own");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, zone, "what is left of global's copies cannot be made the zone's own");
                clock.sleep(STORE_RETRY).await;
            }
        }
    }
}

/// An operator prepares the zone to join a global again: it may connect from its next start on. Tells whether it had left one.
///
/// # Errors
/// The store cannot write now.
pub async fn forget_leaving(stores: &Stores, clock: &Clock) -> Result<bool, CommitError> {
    if !has_left(&stores.config) {
        return Ok(false);
    }
    let forget = Txn::default().and_delete(left_key(), Expect::Any);
    stores.config.commit(Txn { at: Some(clock.now()), ..forget }).await?;
    tracing::info!("the zone may join a global again");
    Ok(true)
}

impl ZoneClient {
    /// Stays connected until the zone leaves its global; then stays away.
    pub(super) async fn stay_until_left(&self, identity: Option<String>) {
        tokio::select! {
            biased;
            () = self.until_left() => {}
            () = self.stay_connected(identity) => {}
        }
        tracing::warn!(zone = self.options.zone, "{LEFT}");
        let link = Link { left: true, last_error: Some(LEFT.into()), ..Link::default() };
        self.state().send_replace(link);
        std::future::pending().await
    }

    async fn until_left(&self) {
        let store = &self.deps.stores.config;
        let mut feed = store.watch(None);
        while !has_left(store) {
            if feed.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
