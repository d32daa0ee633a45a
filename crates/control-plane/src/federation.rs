//! Federation as both programs run it, and simulations with them: global's side on every replica, a zone's side where the
//! zone's leader is.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use graticule_kds::net::{
    FederationLink, GlobalDeps, GlobalOptions, GlobalServer, ProxyAdmin, Stores, ZoneAuthenticator,
    ZoneClient, ZoneDeps, ZoneOptions,
};
use graticule_runtime::{Clock, Drain, Random};
use graticule_store::Store;
use graticule_store::status::SharedStatus;

use crate::cluster::{NoAnswer, Question, Replicas};
use crate::leading::while_leading;

/// What one replica brings to federation, on either side.
#[derive(Clone)]
pub struct Replica {
    /// Config, durable.
    pub store: Arc<dyn Store>,
    /// What this replica and the others observe.
    pub status: SharedStatus,
    /// Time.
    pub clock: Clock,
    /// Ids and jitter.
    pub random: Random,
    /// Names this process.
    pub instance: String,
}

/// Global's side on this replica: it observes zones for itself and shows what all replicas observe.
pub fn global_side(
    options: GlobalOptions,
    replica: Replica,
    authenticator: Arc<dyn ZoneAuthenticator>,
) -> GlobalServer {
    let Replica { store, status, clock, random, instance } = replica;
    let deps = GlobalDeps {
        stores: Stores { config: store, status: status.own() },
        shared: Some(status),
        authenticator,
        clock,
        random,
        instance_id: instance,
    };
    GlobalServer::new(options, deps)
}

/// Why nobody can decide about what is held back of a zone: the replicas that could were asked.
fn nobody_decides(zone: &str, error: NoAnswer) -> String {
    match error {
        NoAnswer::NotFound => format!("zone {zone:?} is not connected: decide when it is"),
        error => format!("the replica that is connected to zone {zone:?} did not answer: {error}"),
    }
}

/// The connection between a zone and global, from the replica that has it.
pub async fn status_elsewhere(replicas: &Replicas, zone: &str) -> Option<serde_json::Value> {
    let answer = replicas.ask_around(&Question::ZoneStatus { zone: zone.into() }).await;
    serde_json::from_slice(&answer.ok()?).ok()
}

/// Gives up what is held back at the replica that is connected. Tells how many copies that concerns.
///
/// # Errors
/// No replica that can be reached is connected.
pub async fn accept_deletions_elsewhere(replicas: &Replicas, zone: &str) -> Result<usize, String> {
    let answer = replicas.ask_around(&Question::AcceptDeletions { zone: zone.into() }).await;
    let answer = answer.map_err(|error| nobody_decides(zone, error))?;
    serde_json::from_slice(&answer).map_err(|error| format!("another replica answered: {error}"))
}

/// The answer to another replica; `None`: this one does not have it.
///
/// # Errors
/// There is nothing to tell.
pub fn answer_json(value: Option<impl serde::Serialize>) -> Result<Bytes, NoAnswer> {
    let value = value.ok_or(NoAnswer::NotFound)?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(|error| NoAnswer::Failed(error.to_string()))
}

/// The stores that a zone's side tells global of: the leader tells of the proxies of all replicas.
pub fn zone_stores(replica: &Replica) -> Stores {
    Stores { config: replica.store.clone(), status: replica.status.shown() }
}

/// A zone's side: connects to global whenever this replica leads, with writes that are fenced to its term, until drained.
/// `heard` waits for what other replicas observed before: what is not told counts as gone at global.
pub async fn zone_side<F>(
    options: ZoneOptions,
    replica: Replica,
    link: FederationLink,
    admin: Option<Arc<dyn ProxyAdmin>>,
    heard: impl Fn() -> F,
    drain: Drain,
) where
    F: Future<Output = ()>,
{
    let stores = zone_stores(&replica);
    let Replica { store, clock, random, instance, .. } = replica;
    let deps = ZoneDeps { stores, clock, random, instance_id: instance, link, admin };
    let connect = |fenced: Arc<dyn Store>| {
        let mut deps = deps.clone();
        deps.stores.config = fenced;
        let (client, drain) = (ZoneClient::new(options.clone(), deps), drain.clone());
        let heard = heard();
        async move {
            heard.await;
            client.run(drain).await;
            Ok::<(), Infallible>(())
        }
    };
    match while_leading("federation", &store, drain.clone(), connect).await {
        Ok(()) => {}
        Err(never) => match never {},
    }
}
