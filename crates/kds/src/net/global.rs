//! Global's side: zones dial in, prove who they are, and both directions run until a newer stream replaces
//! them.

use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::config::{CLUSTER_ID, Config};
use graticule_model::{Meta, Resource};
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_runtime::{Clock, Drain, HttpLimits, Incoming, Random, serve_http};
use graticule_store::status::SharedStatus;
use graticule_store::{CommitError, Expect, Health, Txn};
use pb::global_kds_service_server::GlobalKdsServiceServer;
use pb::kds_sync_service_server::KdsSyncServiceServer;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codec::CompressionEncoding;

use super::admin::AdminBroker;
use super::healing::next_audit;
use super::hub::{Hub, Nobody, Stores};
use super::registry::Registry;
use crate::core::{Catalog, Direction, Plane};

mod admission;
mod bodies;
mod decisions;
mod observations;
mod options;
mod refusals;
mod reports;
mod services;
mod streams;
mod watchdog;

pub use options::{GlobalOptions, TokenlessZones, ZoneAuthenticator, ZoneGrant};
use refusals::Refusals;
use watchdog::Watched;

/// Streams on one connection. A zone has five, and health checks; each may hold a message that is not read.
const STREAMS_MAX: u32 = 128;
/// Time until what is stored can be sent.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// Pause after the store could not write.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What global's side works with.
#[derive(Clone)]
pub struct GlobalDeps {
    /// Its stores.
    pub stores: Stores,
    /// Checks zone tokens.
    pub authenticator: Arc<dyn ZoneAuthenticator>,
    /// Time.
    pub clock: Clock,
    /// Ids.
    pub random: Random,
    /// Names this process.
    pub instance_id: String,
    /// What all replicas observe, if there are others; `stores.status` is then what this one observes.
    pub shared: Option<SharedStatus>,
}

/// Why global's side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GlobalError {
    /// The federation's id cannot be stored.
    #[error("cannot store Config \"kuma-cluster-id\"")]
    ClusterId(#[source] CommitError),
}

/// Global's side of federation. Cheap to clone.
#[derive(Clone)]
pub struct GlobalServer(Arc<Shared>);

struct Shared {
    options: GlobalOptions,
    deps: GlobalDeps,
    hub: Hub,
    registry: Arc<Registry>,
    broker: AdminBroker,
    refusals: parking_lot::Mutex<Refusals>,
    /// Zones came or went.
    zones_changed: Notify,
    /// Streams that were opened, to be watched.
    opened: mpsc::Sender<Watched>,
    /// Until it runs.
    to_watch: parking_lot::Mutex<Option<mpsc::Receiver<Watched>>>,
    drain: CancellationToken,
}

impl GlobalServer {
    /// Does nothing yet.
    pub fn new(options: GlobalOptions, deps: GlobalDeps) -> GlobalServer {
        let direction = Direction::ToZones { trust_exchange: options.trust_exchange };
        let (opened, to_watch) = mpsc::channel(watchdog::OPENED_MAX);
        GlobalServer(Arc::new(Shared {
            hub: Hub::new(Catalog::new(direction, options.skip_label_prefixes.clone())),
            registry: Arc::new(Registry::new(
                &deps.instance_id,
                options.subscriptions_max,
                deps.clock.monotonic(),
                options.name_reserved_for,
                options.protection,
                options.message_len_max,
                options.zone_limit,
            )),
            broker: AdminBroker::new(deps.clock.clone(), deps.random.clone()),
            refusals: parking_lot::Mutex::default(),
            zones_changed: Notify::new(),
            opened,
            to_watch: parking_lot::Mutex::new(Some(to_watch)),
            drain: CancellationToken::new(),
            options,
            deps,
        }))
    }

    /// Asks zones about their proxies.
    pub fn admin(&self) -> AdminBroker {
        self.0.broker.clone()
    }

    /// An operator gives up what is held back of a zone: it goes when the zone has connected again, to whatever replica,
    /// which it is told to do. Tells how many copies that concerns; `None`: the zone is not connected to this replica.
    ///
    /// # Errors
    /// The decision cannot be stored.
    pub async fn accept_deletions(&self, zone: &str) -> Result<Option<usize>, CommitError> {
        self.0.accept_deletions(zone).await
    }

    /// Zones with an open connection to this instance.
    pub fn online_zones(&self) -> Vec<String> {
        self.0.registry.online()
    }

    /// Serves zones on these connections until drained.
    ///
    /// # Errors
    /// The store refuses what federation cannot do without.
    pub async fn run(&self, incoming: Incoming, drain: Drain) -> Result<(), GlobalError> {
        let shared = &self.0;
        tokio::select! {
            biased;
            () = drain.signaled() => return Ok(()),
            made = shared.ensure_cluster_id() => made.map_err(GlobalError::ClusterId)?,
        }
        let stores = &shared.deps.stores;
        let follow_config = shared.hub.follow(Plane::Config, &stores.config, &drain, &**shared);
        let follow_status = shared.hub.follow(Plane::Status, &stores.status, &drain, &Nobody);
        let end_streams = async {
            drain.signaled().await;
            shared.drain.cancel();
        };
        let limits = HttpLimits {
            keep_alive: shared.options.keep_alive,
            max_streams: STREAMS_MAX,
            ..HttpLimits::default()
        };
        let serve = serve_http(self.service(), incoming, limits, drain.clone());
        let insights = shared.write_insights(&drain);
        let to_watch = shared.to_watch.lock().take();
        let watch = async {
            if let Some(opened) = to_watch {
                watchdog::run(opened, &shared.deps.clock, shared.options.stuck_after, &drain).await;
            }
        };
        futures::join!(follow_config, follow_status, end_streams, serve, insights, watch);
        Ok(())
    }

    /// The gRPC services.
    fn service(&self) -> bodies::Fresh {
        let limit = self.0.options.message_len_max;
        let gzip = CompressionEncoding::Gzip;
        let sync = KdsSyncServiceServer::new(self.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
            .accept_compressed(gzip)
            .send_compressed(gzip);
        let calls = GlobalKdsServiceServer::new(self.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
            .accept_compressed(gzip)
            .send_compressed(gzip);
        bodies::fresh(sync, calls)
    }
}

impl Shared {
    async fn ensure_cluster_id(&self) -> Result<(), CommitError> {
        let store = &self.deps.stores.config;
        let spec = Config { config: self.deps.random.uuid() };
        let resource = Resource::new(Meta::new("", CLUSTER_ID), spec);
        while store.snapshot().get(&resource.key()).is_none() {
            let txn = Txn::default().and_put(resource.clone(), Expect::Absent);
            match store.commit(Txn { at: Some(self.deps.clock.now()), ..txn }).await {
                Ok(_) | Err(CommitError::Exists(_)) => return Ok(()),
                // A replica that has no leader now will have one, and then perhaps the id, too.
                Err(error @ (CommitError::Unavailable(_) | CommitError::Uncertain(_))) => {
                    tracing::warn!(%error, "the federation has no id yet");
                    self.deps.clock.sleep(STORE_RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// When the copies of a zone are compared next. Monotonic.
    fn next_audit(&self) -> Duration {
        next_audit(&self.deps.clock, &self.deps.random, self.options.audit_interval)
    }

    /// A replica that has not caught up would take a zone back in time.
    fn is_current(&self) -> Result<(), Status> {
        match self.deps.stores.config.health() {
            Health::Ready | Health::ReadOnly(_) => Ok(()),
            Health::Stale(reason) => {
                Err(Status::unavailable(format!("this replica of global serves no zones now: {reason}")))
            }
        }
    }

    /// Returns once this replica has everything that was acknowledged before, by any replica: a zone that comes from another
    /// one is not taken back in time.
    async fn catch_up(&self) -> Result<(), Status> {
        let caught_up = self.deps.stores.config.read_barrier().await;
        caught_up.map_err(|error| {
            Status::unavailable(format!(
                "this replica of global cannot tell whether it is up to date: {error}"
            ))
        })
    }
}

#[cfg(test)]
mod tests;
