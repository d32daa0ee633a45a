//! The zone's side: dials global, keeps both directions in step, comes back after every break.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use graticule_model::kinds::config::Config;
use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Meta, Resource, Timestamp};
use graticule_proto::discovery::DeltaDiscoveryResponse;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_runtime::{Backoff, Clock, Drain, Random};
use graticule_store::{CommitError, Expect, Txn, Write};
use http::Uri;
use hyper_util::rt::TokioIo;
use pb::global_kds_service_client::GlobalKdsServiceClient;
use pb::kds_sync_service_client::KdsSyncServiceClient;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::admin::{AdminStream, Clusters, ConfigDumps, Question, Stats};
use super::connect::{Dial, ZoneToken};
use super::hub::{Hub, Nobody, Stores};
use super::{ADMIN_TIMEOUT, AUDIT_INTERVAL, MESSAGE_LEN_MAX, ProxyAdmin, describe, intake};
use crate::core::{
    Catalog, DeletionProtection, Direction, GlobalSeen, HEADER_FEATURES, Heartbeat, INSTANCE_HEADER,
    PeerReport, PeerState, Plane, REVISION_HEADERS, Side, Sink, Source, ZONE_IDENTITY_HEADER,
    kinds_for_zones,
};

/// Global refuses more frequent pings than every 15 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between health checks until global says otherwise.
const HEALTH_INTERVAL: Duration = Duration::from_secs(300);
/// A zone whose revision stays behind global's for this time connects again.
const LAG_MAX: Duration = Duration::from_secs(60);
/// Global answers a health check in this time, or is gone.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that lived this long was a good one: the next break starts with the shortest wait.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Responses that wait until the zone knows whether this is its global; a peer has one in flight for each kind.
const PARKED_MAX: usize = 64;
/// A global that names no federation in this time counts as the known one.
const FEDERATION_ID_TIMEOUT: Duration = Duration::from_secs(2);
/// Config of the store that holds the zone's identity.
const IDENTITY_CONFIG: &str = "graticule-zone-identity";
/// Pause after the store could not write.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// A connection that brought everything into step and broke soon counts as no more failures than this.
const FAILURES_AFTER_SYNC_MAX: u32 = 5;
/// Whoever asks to connect again before this time has passed is not believed.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest wait when global says that another control plane has the name of this zone.
const NAME_TAKEN_RETRY_MAX: Duration = Duration::from_secs(10);
/// Messages that wait for the transport.
const SEND_QUEUE_LEN: usize = 64;
/// Admin questions in work at once, per stream.
const ADMIN_PARALLEL_MAX: usize = 32;

/// Settings of the zone's side.
#[derive(Clone)]
pub struct ZoneOptions {
    /// `multizone.zone.name`.
    pub zone: String,
    /// `multizone.zone.globalAddress` and `multizone.zone.kds.{rootCaFile,tlsSkipVerify}`: see [`Dial::tcp`].
    pub dial: Dial,
    /// The zone token.
    pub token: ZoneToken,
    /// `multizone.zone.kds.maxMsgSize`, bytes.
    pub message_len_max: usize,
    /// `multizone.zone.kds.labels.skipPrefixes`.
    pub skip_label_prefixes: Vec<String>,
    /// Waits between connections; `general.resilientComponent{Base,Max}Backoff`. Default 100 ms … 60 s.
    pub backoff: Backoff,
    /// This control plane's configuration as JSON, secrets masked; at least mode, environment and store.
    pub config_json: String,
    /// Version that is told to global.
    pub version: String,
    /// When global's deletions are held back.
    pub protection: DeletionProtection,
    /// How often copies are compared with what global sent.
    pub audit_interval: Duration,
    /// The store survives, so that an identity in it tells this zone from another one of the same name.
    pub keeps_identity: bool,
}

impl ZoneOptions {
    /// The defaults for a zone.
    pub fn new(zone: impl Into<String>, dial: Dial) -> ZoneOptions {
        ZoneOptions {
            zone: zone.into(),
            dial,
            token: ZoneToken::None,
            message_len_max: MESSAGE_LEN_MAX,
            skip_label_prefixes: Vec::new(),
            backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(60) },
            config_json: r#"{"mode":"zone","environment":"universal","store":{"type":"memory"}}"#.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            protection: DeletionProtection::default(),
            audit_interval: AUDIT_INTERVAL,
            keeps_identity: true,
        }
    }
}

/// What the zone's side works with.
#[derive(Clone)]
pub struct ZoneDeps {
    /// Its stores.
    pub stores: Stores,
    /// Time.
    pub clock: Clock,
    /// Jitter.
    pub random: Random,
    /// Names this process.
    pub instance_id: String,
    /// Where the state of the connection is told.
    pub link: FederationLink,
    /// Answers global's questions about proxies; without it they are not offered.
    pub admin: Option<Arc<dyn ProxyAdmin>>,
}

/// State of the connection to global.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Since when; `None` = not connected.
    pub connected_since: Option<Timestamp>,
    /// Every kind was brought up to date over this connection.
    pub synced: bool,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// What its streams told.
    pub peer: PeerState,
    /// What global said last about revisions.
    pub global_revision: Option<Heartbeat>,
}

/// The zone's connection to global, for those who ask about it. Cheap to clone; outlives the terms of leaders.
#[derive(Clone, Default)]
pub struct FederationLink(Arc<LinkShared>);

#[derive(Default)]
struct LinkShared {
    link: watch::Sender<Link>,
    /// What the zone offers; present while this replica leads.
    hub: parking_lot::Mutex<Option<Arc<Hub>>>,
    /// An operator gave up what is held back.
    decided: AtomicBool,
    decision: Notify,
}

impl FederationLink {
    /// All that is known about the connection of this zone.
    pub fn report(&self, zone: &str, stores: &Stores) -> PeerReport {
        let link = self.0.link.borrow().clone();
        let hub = self.0.hub.lock().clone();
        let elsewhere =
            || "another replica of this zone leads: it is the one that is connected to global".to_owned();
        let (quarantine, quarantine_total) = link.peer.quarantine();
        let held = stores.held();
        let head = hub.as_ref().map_or(0, |hub| hub.catalog().head());
        PeerReport {
            zone: zone.into(),
            reporter: "zone",
            online: link.connected_since.is_some(),
            synced: Some(link.synced),
            connected_since: link.connected_since,
            last_error: if hub.is_some() { link.last_error } else { Some(elsewhere()) },
            instances: Vec::new(),
            revision: link.peer.revisions(stores.config.snapshot().revision(), head),
            kinds: link.peer.kinds(Sink::new(Side::Zone, true).holds(&held)),
            quarantine,
            quarantine_total,
            protection: link.peer.protection(zone),
            global_revision: link.global_revision,
            conflict: None,
        }
    }

    /// An operator gives up what is held back, and agrees to the global that the zone is connected to: the zone connects
    /// again, and then it goes. Tells how many copies were held back; `None`: another replica is connected.
    pub fn accept_deletions(&self) -> Option<usize> {
        self.0.hub.lock().as_ref()?;
        self.0.decided.store(true, Ordering::Release);
        self.0.decision.notify_one();
        Some(self.0.link.borrow().peer.held_back.len())
    }

    fn take_decision(&self) -> bool {
        self.0.decided.swap(false, Ordering::AcqRel)
    }
}

/// This replica leads, until dropped.
struct Leading<'a>(&'a FederationLink);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        *self.0.0.hub.lock() = None;
        self.0.0.link.send_replace(Link::default());
    }
}

/// The zone's side of federation.
pub struct ZoneClient {
    options: ZoneOptions,
    deps: ZoneDeps,
    hub: Arc<Hub>,
}

/// Why a connection ended.
struct Ended {
    error: String,
    /// The status of the stream that ended it.
    code: Code,
}

impl From<String> for Ended {
    fn from(error: String) -> Ended {
        Ended { error, code: Code::Unavailable }
    }
}

type Authed = InterceptedService<Channel, Headers>;

impl ZoneClient {
    /// Does nothing yet.
    pub fn new(options: ZoneOptions, deps: ZoneDeps) -> ZoneClient {
        let direction = Direction::ToGlobal { zone: options.zone.clone() };
        let hub = Hub::new(Catalog::new(direction, options.skip_label_prefixes.clone()));
        ZoneClient { options, deps, hub: Arc::new(hub) }
    }

    fn state(&self) -> &watch::Sender<Link> {
        &self.deps.link.0.link
    }

    /// Tells the state of the connection.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.deps.link.0.link.subscribe()
    }

    /// Runs until drained. Global's absence is no error: the zone works on.
    pub async fn run(&self, drain: Drain) {
        *self.deps.link.0.hub.lock() = Some(self.hub.clone());
        let _leading = Leading(&self.deps.link);
        self.ensure_own_zone().await;
        let identity = self.ensure_identity().await;
        let stores = &self.deps.stores;
        let follow_config = self.hub.follow(Plane::Config, &stores.config, &drain, &Nobody);
        let follow_status = self.hub.follow(Plane::Status, &stores.status, &drain, &Nobody);
        let connect = async {
            tokio::select! {
                biased;
                () = drain.signaled() => {}
                () = self.stay_connected(identity) => {}
            }
        };
        futures::join!(follow_config, follow_status, connect);
    }

    /// Exactly one Zone, named like this one, is in the own store (federation.md §4.1).
    async fn ensure_own_zone(&self) {
        let store = &self.deps.stores.config;
        let others: Vec<Key> = store
            .snapshot()
            .list(Kind::Zone, None)
            .map(|zone| zone.key())
            .filter(|key| key.name != self.options.zone)
            .collect();
        let own = Resource::new(Meta::new("", &self.options.zone), Zone { enabled: Some(true) });
        let mut writes: Vec<Write> =
            others.into_iter().map(|key| Write::Delete { key, expect: Expect::Any }).collect();
        if store.snapshot().get(&own.key()).is_none() {
            writes.push(Write::Put { resource: Box::new(own), expect: Expect::Absent, touch: false });
        }
        if writes.is_empty() {
            return;
        }
        let txn = Txn { at: Some(self.deps.clock.now()), writes };
        match store.commit(txn).await {
            Ok(_) | Err(CommitError::Exists(_) | CommitError::NotFound(_)) => {}
            Err(error) => tracing::warn!(%error, "cannot store the own Zone"),
        }
    }

    /// The identity that all replicas of this zone share, made once.
    async fn ensure_identity(&self) -> Option<String> {
        let key = Key::new(Kind::Config, "", IDENTITY_CONFIG);
        let store = &self.deps.stores.config;
        if !self.options.keeps_identity {
            return None;
        }
        loop {
            if let Some(stored) = store.snapshot().get(&key) {
                return stored.spec_as::<Config>().map(|config| config.config.clone());
            }
            let spec = Config { config: self.deps.random.uuid() };
            let txn =
                Txn::default().and_put(Resource::new(Meta::new("", IDENTITY_CONFIG), spec), Expect::Absent);
            match store.commit(Txn { at: Some(self.deps.clock.now()), ..txn }).await {
                Ok(_) | Err(CommitError::Exists(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "the zone has no identity yet");
                    self.deps.clock.sleep(STORE_RETRY).await;
                }
            }
        }
    }

    async fn stay_connected(&self, identity: Option<String>) {
        let mut sink = Sink::new(Side::Zone, true);
        sink.protect(self.options.protection);
        let mut failures = 0;
        loop {
            let started = self.deps.clock.monotonic();
            let error = match self.session(&mut sink, identity.as_deref()).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let Ended { error, code } = error;
            let lived = self.deps.clock.monotonic().saturating_sub(started);
            // One that only waited for an answer was none.
            let (was_connected, was_synced) = {
                let link = self.state().borrow();
                (link.connected_since.is_some(), link.synced)
            };
            let is_asked_to = code == Code::Aborted && was_connected && lived >= ASKED_AGAIN_AFTER;
            failures = if is_asked_to || (was_connected && lived >= STABLE_AFTER) {
                1
            } else if was_synced {
                // It did its work, if only for a moment.
                (failures + 1).min(FAILURES_AFTER_SYNC_MAX)
            } else {
                failures + 1
            };
            let mut wait = self.options.backoff.delay(failures, self.deps.random.fraction());
            if code == Code::AlreadyExists {
                wait = wait.min(NAME_TAKEN_RETRY_MAX);
            }
            tracing::warn!(error, zone = self.options.zone, retry_in = ?wait, "not connected to global");
            self.state().send_modify(|link| {
                link.connected_since = None;
                link.synced = false;
                link.last_error = Some(error);
            });
            self.deps.clock.sleep(wait).await;
        }
    }

    /// One connection, until any of its streams ends.
    async fn session(
        &self,
        sink: &mut Sink,
        identity: Option<&str>,
    ) -> Result<std::convert::Infallible, Ended> {
        let headers = Headers::new(&self.options, identity, &self.deps.instance_id)
            .map_err(|error| error.to_string())?;
        let channel = self.dial().await?;
        let down = self.downward(self.sync_client(&channel, &headers), sink);
        let up = self.upward(self.sync_client(&channel, &headers));
        let calls = || {
            limited_admin(
                GlobalKdsServiceClient::with_interceptor(channel.clone(), headers.clone()),
                self.options.message_len_max,
            )
        };
        let (mut c1, mut c2, mut c3) = (calls(), calls(), calls());
        let configs =
            self.answer::<ConfigDumps, _, _>(move |s| async move { c1.stream_xds_configs(s).await });
        let stats = self.answer::<Stats, _, _>(move |s| async move { c2.stream_stats(s).await });
        let clusters = self.answer::<Clusters, _, _>(move |s| async move { c3.stream_clusters(s).await });
        let (name, status) = tokio::select! {
            status = down => ("GlobalToZoneSync", status),
            status = up => ("ZoneToGlobalSync", status),
            status = self.check_health(calls()) => ("HealthCheck", status),
            status = configs => ("StreamXDSConfigs", status),
            status = stats => ("StreamStats", status),
            status = clusters => ("StreamClusters", status),
        };
        let error = format!("{name}: {:?}: {}{}", status.code(), status.message(), self.hint(status.code()));
        Err(Ended { error, code: status.code() })
    }

    /// What to do about an ended call.
    fn hint(&self, code: Code) -> &'static str {
        match code {
            Code::Unauthenticated if matches!(self.options.token, ZoneToken::None) => {
                "; name a zone token with multizone.zone.kds.tokenFile"
            }
            Code::Unauthenticated => "; put a good zone token into the file of multizone.zone.kds.tokenFile",
            Code::Unknown | Code::Internal | Code::Cancelled if !self.options.dial.tls => {
                "; multizone.zone.globalAddress says grpc:// (no TLS): does global expect grpcs://?"
            }
            _ => "",
        }
    }

    async fn dial(&self) -> Result<Channel, String> {
        let dial = &self.options.dial;
        let scheme = if dial.tls { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{}", dial.authority)
            .parse()
            .map_err(|error: http::uri::InvalidUri| error.to_string())?;
        // The connector does TLS itself; the endpoint must not know, only requests say so.
        let endpoint = Endpoint::from_shared(format!("http://{}", dial.authority))
            .map_err(|error| error.to_string())?
            .origin(origin)
            .user_agent(format!("kds/{}", self.options.version))
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let connector = dial.connector.clone();
        let connect = endpoint.connect_with_connector(tower::service_fn(move |_: Uri| {
            let connecting = connector();
            async move { connecting.await.map(TokioIo::new) }
        }));
        connect.await.map_err(|error| graticule_runtime::supervisor::chain(&error))
    }

    fn sync_client(&self, channel: &Channel, headers: &Headers) -> KdsSyncServiceClient<Authed> {
        KdsSyncServiceClient::with_interceptor(channel.clone(), headers.clone())
            .max_decoding_message_size(self.options.message_len_max)
            .max_encoding_message_size(self.options.message_len_max)
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip)
    }

    async fn downward(&self, mut client: KdsSyncServiceClient<Authed>, sink: &mut Sink) -> Status {
        let options = &self.options;
        let node = describe(&options.zone, &self.deps.instance_id, &options.version, &options.config_json);
        let stores = &self.deps.stores;
        if self.deps.link.take_decision() {
            let given_up = sink.accept_deletions();
            tracing::info!(given_up, "an operator gave up what global no longer has");
        }
        let first = sink.start(&node, &stores.held());
        let (replies, queue) = mpsc::channel(SEND_QUEUE_LEN);
        let requests = stream::iter(first).chain(ReceiverStream::new(queue));
        let mut responses = match client.global_to_zone_sync(requests).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return status,
        };
        let mut missing: BTreeSet<&str> = kinds_for_zones().map(Kind::name).collect();
        self.state().send_modify(|link| link.connected_since = Some(self.deps.clock.now()));
        let clock = &self.deps.clock;
        let mut parked = VecDeque::new();
        let mut silence_ends: Option<Duration> = None;
        let mut audit_at = self.next_audit();
        loop {
            let waiting = *sink.global() == GlobalSeen::Unknown;
            let next = if waiting { None } else { parked.pop_front() };
            let response = match next {
                Some(response) => response,
                None => tokio::select! {
                    biased;
                    () = self.deps.link.0.decision.notified() => {
                        return Status::aborted("an operator decided about what is held back: connecting again");
                    }
                    response = responses.message() => match response {
                        Ok(Some(response)) => response,
                        Ok(None) => return Status::unavailable("ended by global"),
                        Err(status) => return status,
                    },
                    () = clock.sleep(silence_ends.unwrap_or_default().saturating_sub(clock.monotonic())),
                        if silence_ends.is_some() =>
                    {
                        silence_ends = None;
                        sink.assume_known();
                        continue;
                    }
                    () = clock.sleep(audit_at.saturating_sub(clock.monotonic())) => {
                        audit_at = self.next_audit();
                        let damaged = sink.damaged(&stores.held());
                        if let Some(first) = damaged.first() {
                            let damaged = damaged.len();
                            tracing::warn!(damaged, %first, "copies of global's were damaged; they are fetched again");
                            return Status::aborted("copies need repair: connecting again");
                        }
                        continue;
                    }
                },
            };
            let is_foreign = matches!(sink.global(), GlobalSeen::Other { .. });
            if is_foreign && sink.must_wait(&response) {
                let reply = sink.decline(&response, &node);
                self.tell_downward(sink, false);
                if replies.send(reply).await.is_err() {
                    return Status::unavailable("the connection is closed");
                }
                continue;
            }
            if sink.must_wait(&response) {
                if parked.len() == PARKED_MAX {
                    return Status::resource_exhausted(
                        "global sends more and more that the zone does not take",
                    );
                }
                silence_ends = silence_ends.or(Some(clock.monotonic() + FEDERATION_ID_TIMEOUT));
                parked.push_back(response);
                continue;
            }
            let reply = match intake::apply(stores, clock, sink, &response, &node).await {
                Ok(reply) => reply,
                Err(status) => return status,
            };
            if let Some(error) = &reply.error_detail {
                tracing::warn!(
                    kind = response.type_url,
                    reason = error.message,
                    "refused resources of global"
                );
            }
            if is_foreign && *sink.global() == GlobalSeen::Known {
                // What was declined meanwhile is asked for again.
                return Status::aborted("this is the zone's global after all: connecting again");
            }
            missing.remove(response.type_url.as_str());
            self.tell_downward(sink, missing.is_empty());
            if replies.send(reply).await.is_err() {
                return Status::unavailable("the connection is closed");
            }
        }
    }

    /// Puts down what the stream from global comes to.
    fn tell_downward(&self, sink: &Sink, synced: bool) {
        let now = self.deps.clock.now();
        let reason = "global no longer has it; it is kept until somebody decides";
        self.state().send_if_modified(|link| {
            let mut changed = link.synced != synced;
            link.synced = synced;
            changed |= link.peer.refused_here.update(sink.quarantine(), now);
            let held_back = sink.held_back().map(|(kind, name)| (kind, name, reason));
            let news = link.peer.held_back.update(held_back, now) | (link.peer.global != *sink.global());
            link.peer.global = sink.global().clone();
            let protection = link.peer.protection(&self.options.zone);
            if news && !protection.advice.is_empty() && protection.held_back_by_peer == 0 {
                tracing::warn!(kept = protection.held_back, "{}", protection.advice);
            }
            changed | news
        });
    }

    /// When copies are compared next. Monotonic.
    fn next_audit(&self) -> Duration {
        let spread = 0.5 + self.deps.random.fraction() / 2.0;
        self.deps.clock.monotonic() + self.options.audit_interval.mul_f64(spread)
    }

    async fn upward(&self, mut client: KdsSyncServiceClient<Authed>) -> Status {
        let (responses, queue) = mpsc::channel::<DeltaDiscoveryResponse>(SEND_QUEUE_LEN);
        let mut requests = match client.zone_to_global_sync(ReceiverStream::new(queue)).await {
            Ok(requests) => requests.into_inner(),
            Err(status) => return status,
        };
        let mut changes = self.hub.changes();
        let limit = self.options.message_len_max;
        let mut source = Source::new(&self.options.zone, None, limit, &self.hub.catalog());
        loop {
            let ready = source.poll(&self.hub.catalog());
            self.tell_upward(&source);
            for (_, response) in ready {
                if responses.send(response).await.is_err() {
                    return Status::unavailable("the connection is closed");
                }
            }
            tokio::select! {
                biased;
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        let nacked = request.error_detail.as_ref().map(|error| error.message.clone());
                        let kind = request.type_url.clone();
                        if let Err(refused) = source.on_request(request) {
                            return Status::invalid_argument(refused.to_string());
                        }
                        if let Some(reason) = nacked {
                            tracing::warn!(kind, reason, "global refused resources");
                        }
                        self.tell_upward(&source);
                    }
                    Ok(None) => return Status::unavailable("ended by global"),
                    Err(status) => return status,
                },
                Ok(()) = changes.changed() => {}
            }
        }
    }

    /// Puts down how far global is.
    fn tell_upward(&self, source: &Source) {
        let now = self.deps.clock.now();
        self.state().send_if_modified(|link| {
            let peer = &mut link.peer;
            let before = (peer.acknowledged, peer.settled_at);
            let changed = peer.refused_by_peer.update(source.rejected(), now);
            peer.unsendable = source.faults().map(|(name, why)| (name.to_owned(), why.to_owned())).collect();
            let sent: Vec<_> = source.counts().collect();
            let moved = peer.sent != sent;
            peer.sent = sent;
            peer.acknowledged = source.acknowledged();
            peer.settled_at = source.settled_at();
            changed || moved || before != (peer.acknowledged, peer.settled_at)
        });
    }

    /// What global says about revisions; the end of a connection over which the zone falls behind for good.
    fn heartbeat(&self, headers: &MetadataMap, lagging: &mut Option<(u64, Duration)>) -> Option<Status> {
        let number = |header| headers.get(header)?.to_str().ok()?.parse::<u64>().ok();
        let [Some(current), Some(acknowledged)] = REVISION_HEADERS.map(number) else { return None };
        let lag = current.saturating_sub(acknowledged);
        let beat = Heartbeat { at: self.deps.clock.now(), current, acknowledged, lag };
        let waits = self.state().borrow().peer.protection(&self.options.zone).state != "clear";
        self.state().send_modify(|link| link.global_revision = Some(beat));
        let now = self.deps.clock.monotonic();
        match lagging {
            _ if lag == 0 || waits => *lagging = None,
            Some((at, since)) if *at == acknowledged => {
                if now.saturating_sub(*since) >= LAG_MAX {
                    return Some(Status::aborted(format!(
                        "global is at revision {current}, the zone has stayed at {acknowledged}: connecting again"
                    )));
                }
            }
            _ => *lagging = Some((acknowledged, now)),
        }
        None
    }

    async fn check_health(&self, mut client: GlobalKdsServiceClient<Authed>) -> Status {
        let mut lagging = None;
        loop {
            let answered = tokio::select! {
                answered = client.health_check(pb::ZoneHealthCheckRequest {}) => answered,
                () = self.deps.clock.sleep(HEALTH_TIMEOUT) => Err(Status::unavailable("no answer in time")),
            };
            let wait = match answered {
                Ok(response) => {
                    if let Some(status) = self.heartbeat(response.metadata(), &mut lagging) {
                        return status;
                    }
                    let interval = response.into_inner().interval.unwrap_or_default();
                    let seconds = u64::try_from(interval.seconds).unwrap_or_default();
                    let nanos = u32::try_from(interval.nanos).unwrap_or_default();
                    let interval = Duration::from_secs(seconds) + Duration::from_nanos(nanos.into());
                    if interval.is_zero() {
                        HEALTH_INTERVAL
                    } else {
                        interval.max(Duration::from_millis(100))
                    }
                }
                Err(status) if status.code() == Code::Unimplemented => std::future::pending().await,
                Err(status) => return status,
            };
            self.deps.clock.sleep(wait).await;
        }
    }

    /// One admin stream. Global answers with headers only when it asks something, so `open` may wait long.
    async fn answer<S, O, F>(&self, open: O) -> Status
    where
        S: AdminStream,
        O: FnOnce(ReceiverStream<S::Response>) -> F,
        F: Future<Output = Result<Response<Streaming<S::Request>>, Status>>,
    {
        let Some(admin) = &self.deps.admin else { return std::future::pending().await };
        let (answers, queue) = mpsc::channel(ADMIN_PARALLEL_MAX);
        let mut requests = match open(ReceiverStream::new(queue)).await {
            Ok(requests) => requests.into_inner(),
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::Cancelled) => {
                return std::future::pending().await;
            }
            Err(status) => return status,
        };
        let mut working = FuturesUnordered::new();
        loop {
            tokio::select! {
                request = requests.message(), if working.len() < ADMIN_PARALLEL_MAX => match request {
                    Ok(Some(request)) => working.push(self.ask_proxy(admin, S::question(request))),
                    Ok(None) => return Status::unavailable("ended by global"),
                    Err(status) if status.code() == Code::Unimplemented => std::future::pending().await,
                    Err(status) => return status,
                },
                Some((id, answer)) = working.next(), if !working.is_empty() => {
                    if answers.send(S::response(id, answer)).await.is_err() {
                        return Status::unavailable("the connection is closed");
                    }
                }
            }
        }
    }

    async fn ask_proxy(
        &self,
        admin: &Arc<dyn ProxyAdmin>,
        question: Question,
    ) -> (String, Result<Vec<u8>, String>) {
        let answer = tokio::select! {
            answer = admin.ask(question.target, question.query) => answer,
            () = self.deps.clock.sleep(ADMIN_TIMEOUT) => Err("the proxy did not answer in time".into()),
        };
        // An answer above the limit would end the connection at a stock global.
        let limit = self.options.message_len_max.saturating_sub(1024);
        let answer = match answer {
            Ok(bytes) if bytes.len() > limit => {
                Err(format!("the answer has {} bytes, above the limit of {limit}", bytes.len()))
            }
            answer => answer,
        };
        (question.id, answer)
    }
}

fn limited_admin(client: GlobalKdsServiceClient<Authed>, limit: usize) -> GlobalKdsServiceClient<Authed> {
    client
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip)
}

/// The headers of every call (federation.md §1.3).
#[derive(Clone)]
struct Headers {
    zone: MetadataValue<Ascii>,
    version: MetadataValue<Ascii>,
    instance: Option<MetadataValue<Ascii>>,
    identity: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Headers {
    fn new(options: &ZoneOptions, identity: Option<&str>, instance: &str) -> std::io::Result<Headers> {
        let invalid = |what: &str| std::io::Error::other(format!("{what} cannot be sent as a header"));
        let own = |text: Option<&str>, what: &str| {
            text.map(|text| text.parse::<MetadataValue<Ascii>>().map_err(|_| invalid(what))).transpose()
        };
        let authorization = match options.token.read()? {
            None => None,
            Some(token) => {
                let mut value = MetadataValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| invalid("the zone token"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Headers {
            zone: options.zone.parse().map_err(|_| invalid("the zone name"))?,
            version: options.version.parse().map_err(|_| invalid("the version"))?,
            instance: own(Some(instance).filter(|instance| !instance.is_empty()), "the instance id")?,
            identity: own(identity, "the zone's identity")?,
            authorization,
        })
    }
}

impl tonic::service::Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("version", self.version.clone());
        metadata.insert("client-id", self.zone.clone());
        metadata.insert("kds-version", MetadataValue::from_static("v3"));
        metadata.insert("zone-version", MetadataValue::from_static("v3"));
        for feature in HEADER_FEATURES {
            metadata.append("features", MetadataValue::from_static(feature));
        }
        for (key, value) in [(INSTANCE_HEADER, &self.instance), (ZONE_IDENTITY_HEADER, &self.identity)] {
            if let Some(value) = value {
                metadata.insert(key, value.clone());
            }
        }
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}
