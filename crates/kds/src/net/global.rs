//! Global's side: zones dial in, prove who they are, and both directions run until a newer stream replaces
//! them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_model::kinds::config::{CLUSTER_ID, Config};
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind, Meta, Resource, Timestamp};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use graticule_proto::google::protobuf::Duration as DurationPb;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_runtime::metrics::Measured;
use graticule_runtime::{Clock, Drain, HttpLimits, Incoming, Random, serve_http};
use graticule_store::status::{Group, SharedStatus};
use graticule_store::{CommitError, Event, Expect, Health, Store, Txn, Write};
use pb::global_kds_service_server::{GlobalKdsService, GlobalKdsServiceServer};
use pb::kds_sync_service_server::{KdsSyncService, KdsSyncServiceServer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use super::admin::{AdminBroker, AdminStream, Clusters, ConfigDumps, Stats};
use super::healing::{Obstacles, Patience};
use super::hub::{Hub, Nobody, Observer, Stores};
use super::measured::measured;
use super::registry::{Registry, ZoneReport};
use super::{AUDIT_INTERVAL, MESSAGE_LEN_MAX, STUCK_AFTER, describe};
use crate::core::{
    Catalog, DeletionProtection, Direction, Held, Instance, PeerReport, Plane, RESERVED_FOR,
    REVISION_HEADERS, Side, Sink, Source, StreamKind, TrustExchange, ZoneLimit, kinds_for_global,
};

mod admission;
mod bodies;
mod decisions;
mod refusals;
mod streams;
mod watchdog;

use refusals::Refusals;
use streams::{Asking, BoxStream, Downward, Upward, driven};
use watchdog::Watched;

/// Streams on one connection. A zone has five, and health checks; each may hold a message that is not read.
const STREAMS_MAX: u32 = 128;
/// Time until what is stored can be sent.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// Pause after the store could not write.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Decides who a zone is.
pub trait ZoneAuthenticator: Send + Sync {
    /// Whether this token was issued for this zone; what is needed to look at it again later.
    ///
    /// # Errors
    /// Why not, without repeating the token.
    fn authenticate(&self, zone: &str, token: &str) -> Result<ZoneGrant, String>;

    /// Those of these that are no longer good, with the reason: revoked, or signed with a key that is gone. Asked whenever
    /// secrets change.
    fn revoked(&self, grants: &BTreeSet<ZoneGrant>) -> BTreeMap<ZoneGrant, String>;
}

/// What is remembered of a zone token while streams are open that it opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ZoneGrant {
    /// Its id; empty if it has none.
    pub token: String,
    /// Id of the key that signed it.
    pub key: String,
    /// Changes when another key gets this id.
    pub key_mark: u64,
    /// End of its life; `None`: it has none.
    pub expires: Option<Timestamp>,
}

/// Zones that need no token (`compat.allowZonesWithoutToken`). A name that was ever used with a token needs one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenlessZones {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These.
    Named(BTreeSet<String>),
}

impl TokenlessZones {
    fn allows(&self, zone: &str) -> bool {
        match self {
            TokenlessZones::None => false,
            TokenlessZones::All => true,
            TokenlessZones::Named(names) => names.contains(zone),
        }
    }
}

/// Settings of global's side.
#[derive(Debug, Clone)]
pub struct GlobalOptions {
    /// `multizone.global.kds.maxMsgSize`, bytes.
    pub message_len_max: usize,
    /// How often counters of zones are written to the soft store. Connects and disconnects are written at once. Not a setting:
    /// `multizone.global.kds.zoneInsightFlushInterval` has no meaning here.
    pub insight_flush_interval: Duration,
    /// `multizone.global.kds.labels.skipPrefixes`.
    pub skip_label_prefixes: Vec<String>,
    /// How many subscriptions of a zone its insight keeps. Not a setting: `metrics.zone.subscriptionLimit` has no meaning here.
    pub subscriptions_max: usize,
    /// `federation.trustExchange`.
    pub trust_exchange: TrustExchange,
    /// `compat.allowZonesWithoutToken`: a stock Kuma zone sends no token.
    pub tokenless_zones: TokenlessZones,
    /// What zones are told to wait between health checks.
    pub health_interval: Duration,
    /// A zone that does not acknowledge something for this time has to connect again.
    pub stuck_after: Duration,
    /// How often the copies of a zone are compared with what it sent.
    pub audit_interval: Duration,
    /// When a zone's deletions are held back.
    pub protection: DeletionProtection,
    /// How much each zone may store here.
    pub zone_limit: ZoneLimit,
    /// HTTP/2 pings on a connection of a zone, and the time for their answer: a dead connection is noticed within twice
    /// this time.
    pub keep_alive: Duration,
    /// The name of a zone with an identity stays reserved for this time after its last stream.
    pub name_reserved_for: Duration,
    /// Version that is told to zones.
    pub version: String,
}

impl Default for GlobalOptions {
    fn default() -> Self {
        GlobalOptions {
            message_len_max: MESSAGE_LEN_MAX,
            insight_flush_interval: Duration::from_secs(10),
            skip_label_prefixes: Vec::new(),
            subscriptions_max: 10,
            trust_exchange: TrustExchange::Automatic,
            tokenless_zones: TokenlessZones::None,
            health_interval: Duration::from_secs(10),
            stuck_after: STUCK_AFTER,
            audit_interval: AUDIT_INTERVAL,
            protection: DeletionProtection::default(),
            zone_limit: ZoneLimit::default(),
            keep_alive: Duration::from_secs(5),
            name_reserved_for: RESERVED_FOR,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

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
    /// Two zones cannot claim one trust domain at the same time.
    trust_gate: tokio::sync::Mutex<()>,
    refusals: parking_lot::Mutex<Refusals>,
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
            trust_gate: tokio::sync::Mutex::new(()),
            refusals: parking_lot::Mutex::default(),
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

    /// What is wrong between global and this zone; `None` = it never connected here.
    pub fn report(&self, zone: &str) -> Option<ZoneReport> {
        self.0.registry.report(zone)
    }

    /// Whether resources travel between this zone and this replica.
    pub fn serves(&self, zone: &str) -> bool {
        [StreamKind::GlobalToZone, StreamKind::ZoneToGlobal]
            .into_iter()
            .any(|kind| self.0.registry.has_stream(zone, kind))
    }

    /// All that is known about the connection of a zone; `None` = there is no such zone.
    pub fn peer_report(&self, zone: &str) -> Option<PeerReport> {
        let stores = self.0.deps.stores.held();
        let sink = Sink::new(Side::Global { zone: zone.into() }, true);
        self.report_with(zone, &stores, sink.holds(&stores))
    }

    fn report_with(
        &self,
        zone: &str,
        stores: &dyn Held,
        received: impl Iterator<Item = (Kind, usize)>,
    ) -> Option<PeerReport> {
        let shared = &self.0;
        let key = |kind| Key::new(kind, "", zone);
        stores.get(&key(Kind::Zone))?;
        let shown = shared.shown_status().snapshot().get(&key(Kind::ZoneInsight));
        let shown = shown.and_then(|shown| shown.spec_as::<ZoneInsight>().cloned());
        // What this replica remembers is old when the zone is connected to another one.
        let elsewhere = shown.clone().filter(ZoneInsight::is_online);
        let insight = elsewhere.or_else(|| shared.registry.insight(zone)).or(shown).unwrap_or_default();
        let open = || insight.subscriptions.iter().filter(|one| one.disconnect_time.is_none());
        let ZoneReport { mut peer, conflict } = shared.registry.report(zone).unwrap_or_default();
        peer.unoffered = shared.hub.faults();
        let head = shared.hub.catalog().head();
        let is_here = shared.registry.has_stream(zone, StreamKind::GlobalToZone);
        let (quarantine, quarantine_total) = peer.quarantine();
        Some(PeerReport {
            zone: zone.into(),
            reporter: "global",
            online: insight.is_online(),
            synced: None,
            connected_since: open().filter_map(|one| one.connect_time).min(),
            last_error: None,
            instances: open()
                .map(|one| Instance {
                    zone_instance: one.zone_instance_id.clone(),
                    global_instance: one.global_instance_id.clone(),
                })
                .collect(),
            revision: (is_here || !insight.is_online())
                .then(|| peer.revisions(shared.deps.stores.config.snapshot().revision(), head)),
            meshes: peer.meshes.names().map(str::to_owned).collect(),
            kinds: peer.kinds(received),
            quarantine,
            quarantine_total,
            protection: peer.protection(zone),
            global_revision: None,
            usage: peer.usage,
            global_revision_taken: None,
            conflict,
        })
    }

    /// The connections of all zones as numbers. How far a zone is, only the replica tells that sends to it.
    pub fn measured(&self) -> Vec<Measured> {
        let shared = &self.0;
        let stores = shared.deps.stores.held();
        let snapshot = shared.deps.stores.config.snapshot();
        let received = received_by_zone(&stores);
        let none = BTreeMap::new();
        let peers = snapshot.list(Kind::Zone, None).filter_map(|zone| {
            let zone = &zone.meta.name;
            let received = received.get(zone).unwrap_or(&none);
            let report =
                self.report_with(zone, &stores, received.iter().map(|(kind, count)| (*kind, *count)))?;
            Some((report, shared.registry.has_stream(zone, StreamKind::GlobalToZone)))
        });
        let mut numbers = measured(peers);
        let mut bytes = Measured::gauge(
            "graticule_kds_kind_bytes",
            "Bytes of all that is offered of a kind, as far as it was encoded; a stock Kuma zone takes it in one message",
        );
        for (kind, len) in shared.hub.catalog().sizes() {
            bytes.add([("kind", kind.name())], len as f64);
        }
        let mut limit =
            Measured::gauge("graticule_kds_message_limit_bytes", "Largest message that zones are sent");
        limit.add([] as [(&str, &str); 0], shared.options.message_len_max as f64);
        numbers.extend([bytes, limit]);
        numbers
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

/// Copies of each zone, by kind, in one pass.
fn received_by_zone(held: &dyn Held) -> BTreeMap<String, BTreeMap<Kind, usize>> {
    let mut received: BTreeMap<String, BTreeMap<Kind, usize>> = BTreeMap::new();
    for kind in kinds_for_global() {
        for copy in held.list(kind).iter().filter(|copy| !copy.meta.is_local_to_global()) {
            let Some(zone) = copy.meta.zone() else { continue };
            let of_zone = match received.get_mut(zone) {
                Some(of_zone) => of_zone,
                None => received.entry(zone.to_owned()).or_default(),
            };
            *of_zone.entry(kind).or_default() += 1;
        }
    }
    received
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

    /// When the copies of a zone are compared next; not those of all zones at once. Monotonic.
    fn next_audit(&self) -> Duration {
        let spread = 0.5 + self.deps.random.fraction() / 2.0;
        self.deps.clock.monotonic() + self.options.audit_interval.mul_f64(spread)
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

    /// What all replicas observe.
    fn shown_status(&self) -> Arc<dyn Store> {
        let shown = self.deps.shared.as_ref().map(SharedStatus::shown);
        shown.unwrap_or_else(|| self.deps.stores.status.clone())
    }

    /// A zone connected here: what another replica observed of it and of its proxies is observed here from now on.
    fn take_over(&self, zone: &str) {
        let Some(shared) = &self.deps.shared else { return };
        let known = shared.shown().snapshot().get(&Key::new(Kind::ZoneInsight, "", zone));
        if let Some(known) = known.as_ref().and_then(|known| known.spec_as()) {
            self.registry.remember(zone, known, self.deps.clock.now());
        }
        shared.claim(&Group::zone(zone), false);
    }

    async fn write_insights(&self, drain: &Drain) {
        loop {
            let last = tokio::select! {
                biased;
                () = drain.signaled() => true,
                () = self.registry.urgent() => false,
                () = self.deps.clock.sleep(self.options.insight_flush_interval) => false,
            };
            let writes: Vec<Write> = self
                .registry
                .take_dirty()
                .into_iter()
                .map(|(zone, insight)| {
                    let resource = Box::new(Resource::new(Meta::new("", zone), insight));
                    Write::Put { resource, expect: Expect::Any, touch: false }
                })
                .collect();
            if !writes.is_empty() {
                let txn = Txn { at: Some(self.deps.clock.now()), writes };
                if let Err(error) = self.deps.stores.status.commit(txn).await {
                    tracing::warn!(%error, "cannot store zone insights");
                }
            }
            if last {
                return;
            }
        }
    }
}

#[async_trait]
impl Observer for Shared {
    /// A deleted Zone takes its observations with it, and its streams: the zone comes back as a new one. Tokens are looked at
    /// again when secrets change.
    async fn observe(&self, event: &Event) {
        self.observe_decisions(event);
        let batch = match event {
            Event::Batch(batch) => batch,
            Event::Resync(_) => {
                self.forget_missing_zones().await;
                self.registry.recheck(&*self.deps.authenticator);
                return;
            }
        };
        let is_secret = |kind| matches!(kind, Kind::GlobalSecret | Kind::Secret);
        if batch.changes.iter().any(|change| is_secret(change.key.kind)) {
            self.registry.recheck(&*self.deps.authenticator);
        }
        let deleted =
            batch.changes.iter().filter(|change| change.key.kind == Kind::Zone && change.new.is_none());
        for zone in deleted.map(|change| change.key.name.as_str()) {
            self.registry.evict(zone);
            self.forget_observations(zone, |of| of == zone).await;
        }
    }
}

impl Shared {
    /// Changes were missed, and Zones may have been deleted among them. What is stored now decides: a zone that was registered
    /// since is there.
    async fn forget_missing_zones(&self) {
        let config = &self.deps.stores.config;
        let exists = |zone: &str| config.snapshot().get(&Key::new(Kind::Zone, "", zone)).is_some();
        for zone in self.registry.registered().into_iter().filter(|zone| !exists(zone)) {
            tracing::info!(zone, "a Zone was deleted while changes were missed");
            self.registry.evict(&zone);
        }
        let known: BTreeSet<String> =
            config.snapshot().list(Kind::Zone, None).map(|zone| zone.meta.name.clone()).collect();
        // One that is not there yet is looked for once more.
        self.forget_observations("", |of| !known.contains(of) && !exists(of)).await;
    }

    /// Removes what was observed of zones.
    async fn forget_observations(&self, zone: &str, is_gone: impl Fn(&str) -> bool) {
        let status = &self.deps.stores.status;
        let writes: Vec<Write> = status
            .snapshot()
            .iter()
            .filter(|resource| match resource.kind() {
                Kind::ZoneInsight => is_gone(&resource.meta.name),
                _ => resource.meta.zone().is_some_and(&is_gone),
            })
            .map(|resource| Write::Delete { key: resource.key(), expect: Expect::Any })
            .collect();
        if writes.is_empty() {
            return;
        }
        let txn = Txn { at: Some(self.deps.clock.now()), writes };
        if let Err(error) = status.commit(txn).await {
            tracing::warn!(%error, zone, "cannot remove the observations of a deleted zone");
        }
    }

    /// Whether the log may say something about a zone now, and how much was left out before.
    fn may_say(&self, zone: &str) -> Option<u64> {
        self.registry.may_say(zone, self.deps.clock.monotonic())
    }
}

#[tonic::async_trait]
impl KdsSyncService for GlobalServer {
    type GlobalToZoneSyncStream = BoxStream<DeltaDiscoveryResponse>;
    type ZoneToGlobalSyncStream = BoxStream<DeltaDiscoveryRequest>;

    async fn global_to_zone_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::GlobalToZoneSyncStream>, Status> {
        let shared = self.0.clone();
        let visitor = shared.admit(&request, Status::unknown)?;
        shared.is_current()?;
        shared.catch_up().await?;
        let revision = shared.deps.stores.config.snapshot().revision();
        if !shared.hub.shows(revision, CATCH_UP_MAX).await {
            return Err(Status::unavailable(
                "this replica of global does not keep up with its store; try again",
            ));
        }
        shared.ensure_zone(&visitor.zone).await?;
        let (stream, pulse) = shared.open_stream(&visitor, StreamKind::GlobalToZone).await?;
        let now = shared.deps.clock.now();
        shared.take_over(&visitor.zone);
        let subscription = shared.deps.random.uuid();
        shared.registry.subscribed(&visitor.zone, subscription.clone(), now, visitor.token_provided);
        // Watch before the source takes its position, so that no change falls between.
        let changes = shared.hub.changes();
        let limit = shared.options.message_len_max;
        let source = Source::new("global", Some(&visitor.zone), limit, &shared.hub.catalog());
        let drain = shared.drain.clone();
        let requests = request.into_inner();
        let ready = VecDeque::new();
        let patience = Patience::new(shared.options.stuck_after);
        let told = Duration::ZERO;
        let state = Downward {
            shared,
            stream,
            subscription,
            source,
            requests,
            ready,
            changes,
            patience,
            told,
            drain,
        };
        Ok(bodies::pulsed(bodies::detached(driven(state), limit), pulse))
    }

    async fn zone_to_global_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryResponse>>,
    ) -> Result<Response<Self::ZoneToGlobalSyncStream>, Status> {
        let shared = self.0.clone();
        let visitor = shared.admit(&request, Status::unknown)?;
        shared.catch_up().await?;
        shared.ensure_zone(&visitor.zone).await?;
        let (stream, pulse) = shared.open_stream(&visitor, StreamKind::ZoneToGlobal).await?;
        shared.take_over(&visitor.zone);
        let mut sink = shared.registry.take_sink(&visitor.zone);
        let doubted = shared.is_estranged(&visitor.zone);
        sink.set_estranged(doubted);
        let decision = shared.decision(&visitor.zone, &visitor.claimant).await;
        let decided = decision.as_ref().map(|decision| decision.version);
        if let Some(decisions::Decided { given_up, .. }) = decision {
            tracing::info!(
                zone = visitor.zone,
                given_up = given_up.values().sum::<usize>(),
                "an operator gave up what a zone no longer has"
            );
            sink.accept_these(given_up);
        }
        let node = describe(&visitor.zone, &shared.deps.instance_id, &shared.options.version, "");
        let ready = sink.start(&node, &shared.deps.stores.held()).into();
        shared.registry.set_report(&visitor.zone, |report| report.peer.usage = Some(sink.usage()));
        let drain = shared.drain.clone();
        let responses = request.into_inner();
        let audit_at = shared.next_audit();
        let claimant = visitor.claimant;
        let state = Upward {
            shared,
            stream,
            claimant,
            doubted,
            decided,
            node,
            sink: Some(sink),
            ready,
            responses,
            audit_at,
            obstacles: Obstacles::default(),
            drain,
        };
        Ok(bodies::pulsed(Response::new(driven(state)), pulse))
    }
}

impl GlobalServer {
    async fn ask<S: AdminStream>(
        &self,
        request: Request<Streaming<S::Response>>,
    ) -> Result<Response<BoxStream<S::Request>>, Status> {
        let shared = self.0.clone();
        let visitor = shared.admit(&request, Status::invalid_argument)?;
        let (stream, pulse) = shared.open_stream(&visitor, S::KIND).await?;
        let questions = shared.broker.connect(&visitor.zone, S::KIND);
        let drain = shared.drain.clone();
        let state = Asking::<S> { stream, questions, answers: request.into_inner(), drain };
        Ok(bodies::pulsed(Response::new(driven(state)), pulse))
    }
}

#[tonic::async_trait]
impl GlobalKdsService for GlobalServer {
    type StreamXDSConfigsStream = BoxStream<pb::XdsConfigRequest>;
    type StreamStatsStream = BoxStream<pb::StatsRequest>;
    type StreamClustersStream = BoxStream<pb::ClustersRequest>;

    async fn stream_xds_configs(
        &self,
        request: Request<Streaming<pb::XdsConfigResponse>>,
    ) -> Result<Response<Self::StreamXDSConfigsStream>, Status> {
        self.ask::<ConfigDumps>(request).await
    }

    async fn stream_stats(
        &self,
        request: Request<Streaming<pb::StatsResponse>>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        self.ask::<Stats>(request).await
    }

    async fn stream_clusters(
        &self,
        request: Request<Streaming<pb::ClustersResponse>>,
    ) -> Result<Response<Self::StreamClustersStream>, Status> {
        self.ask::<Clusters>(request).await
    }

    async fn health_check(
        &self,
        request: Request<pb::ZoneHealthCheckRequest>,
    ) -> Result<Response<pb::ZoneHealthCheckResponse>, Status> {
        let shared = &self.0;
        let visitor = shared.admit(&request, Status::invalid_argument)?;
        if shared.registry.is_held_by(&visitor.zone, &visitor.claimant) {
            shared.registry.health_checked(&visitor.zone, shared.deps.clock.now());
        }
        let interval = shared.options.health_interval;
        let interval = DurationPb {
            seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(interval.subsec_nanos()).unwrap_or_default(),
        };
        let mut response = Response::new(pb::ZoneHealthCheckResponse { interval: Some(interval) });
        // Behind a balancer the call may come to another replica than the streams do, which does not know how far the zone is.
        let is_here = shared.registry.has_stream(&visitor.zone, StreamKind::GlobalToZone);
        if let Some(ZoneReport { peer, .. }) = shared.registry.report(&visitor.zone).filter(|_| is_here) {
            let current = shared.deps.stores.config.snapshot().revision();
            let revisions = peer.revisions(current, shared.hub.catalog().head());
            for (header, revision) in
                REVISION_HEADERS.into_iter().zip([revisions.current, revisions.acknowledged])
            {
                response.metadata_mut().insert(header, revision.into());
            }
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests;
