//! The zone's side: dials global, keeps both directions in step, comes back after every break.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use graticule_model::kinds::config::Config;
use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_runtime::{Backoff, Clock, Drain, Random};
use graticule_store::{CommitError, Expect, Txn, Write};
use http::Uri;
use hyper_util::rt::TokioIo;
use pb::global_kds_service_client::GlobalKdsServiceClient;
use pb::kds_sync_service_client::KdsSyncServiceClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use super::admin::{AdminStream, Clusters, ConfigDumps, Question, Stats};
use super::bucket::Bucket;
use super::connect::{Dial, ZoneToken};
use super::hub::{Hub, Nobody, Stores};
use super::{ADMIN_TIMEOUT, AUDIT_INTERVAL, MESSAGE_LEN_MAX, ProxyAdmin, STUCK_AFTER};
use crate::core::{Catalog, DeletionProtection, Direction, Meshes, Plane, Side, Sink};

mod headers;
mod leave;
mod link;
mod meshes;
mod streams;

use headers::Headers;
pub use leave::{LeaveError, finish_leaving, forget_leaving};
use link::Leading;
pub use link::{FederationLink, Link};

/// Global refuses more frequent pings than every 15 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that lived this long was a good one: the next break starts with the shortest wait.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Config of the store that holds the zone's identity.
const IDENTITY_CONFIG: &str = "graticule-zone-identity";
/// Pause after the store could not write.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// A connection that brought everything into step and broke soon counts as no more failures than this.
const FAILURES_AFTER_SYNC_MAX: u32 = 5;
/// Whoever asks to connect again before this time has passed is not believed.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest wait between two attempts to connect: whoever starts global again wants to see the zones soon, and hundreds of them
/// that ask so often cost nothing.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Default of [`ZoneOptions::resync_after_join`]: by then a Kuma global has noticed the death of an older connection of the zone,
/// which may have silenced the new one.
const RESYNC_AFTER_JOIN: Duration = Duration::from_secs(90);
/// Default of [`ZoneOptions::resync_interval`].
const RESYNC_INTERVAL: Duration = Duration::from_secs(600);
/// Default of [`ZoneOptions::federation_id_timeout`].
const FEDERATION_ID_TIMEOUT: Duration = Duration::from_secs(30);
/// Before the connection that replaces one that was ended as a precaution: global has noticed the end of the old one.
const RESYNC_PAUSE: Duration = Duration::from_secs(2);
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
    /// Waits between attempts to connect: from 100 ms to 10 s unless told otherwise. Not a setting:
    /// `general.resilientComponent{Base,Max}Backoff` have no meaning here.
    pub backoff: Backoff,
    /// This control plane's configuration as JSON, secrets masked; at least mode, environment and store.
    pub config_json: String,
    /// Version that is told to global.
    pub version: String,
    /// When global's deletions are held back.
    pub protection: DeletionProtection,
    /// How often copies are compared with what global sent.
    pub audit_interval: Duration,
    /// `multizone.zone.meshes`: the meshes that the zone takes part in.
    pub meshes: Meshes,
    /// A global that does not acknowledge something for this time, or never asks, is connected to anew.
    pub stuck_after: Duration,
    /// A global that says nothing about revisions (a Kuma global) may fall silent without a sign: the zone connects again, and
    /// says what it has, this time after it joined and everything was exchanged.
    pub resync_after_join: Duration,
    /// As [`resync_after_join`](Self::resync_after_join), from then on; a quarter more or less.
    pub resync_interval: Duration,
    /// A global that does not name its federation in this time is left: every global has `kuma-cluster-id`, and whose copies
    /// are whose cannot be told without it.
    pub federation_id_timeout: Duration,
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
            backoff: Backoff { base: Duration::from_millis(100), max: RETRY_MAX },
            config_json: r#"{"mode":"zone","environment":"universal","store":{"type":"memory"}}"#.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            protection: DeletionProtection::default(),
            audit_interval: AUDIT_INTERVAL,
            meshes: Meshes::default(),
            stuck_after: STUCK_AFTER,
            resync_after_join: RESYNC_AFTER_JOIN,
            resync_interval: RESYNC_INTERVAL,
            federation_id_timeout: FEDERATION_ID_TIMEOUT,
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

/// The zone's side of federation.
pub struct ZoneClient {
    options: ZoneOptions,
    deps: ZoneDeps,
    hub: Arc<Hub>,
    /// What the log says about refusals.
    said: parking_lot::Mutex<Bucket>,
}

/// Why a connection ended.
struct Ended {
    error: String,
    /// The status of the stream that ended it.
    code: Code,
    /// Nothing was wrong, as far as anybody can see.
    as_precaution: bool,
}

impl From<String> for Ended {
    fn from(error: String) -> Ended {
        Ended { error, code: Code::Unavailable, as_precaution: false }
    }
}

/// What was taken over the stream from global.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    /// The first state of every kind was taken.
    is_synced: bool,
    /// Global is one of ours, which says how far the zone is.
    is_ours: bool,
}

type Authed = InterceptedService<Channel, Headers>;

impl ZoneClient {
    /// Does nothing yet.
    pub fn new(options: ZoneOptions, deps: ZoneDeps) -> ZoneClient {
        let direction = Direction::ToGlobal { zone: options.zone.clone() };
        let hub = Hub::new(Catalog::new(direction, options.skip_label_prefixes.clone()));
        ZoneClient { options, deps, hub: Arc::new(hub), said: parking_lot::Mutex::new(Bucket::of_zone()) }
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
                () = self.stay_until_left(identity) => {}
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
        sink.fit_into(self.options.message_len_max);
        sink.protect(self.options.protection);
        let mut failures = 0;
        let mut resync_after = self.options.resync_after_join;
        loop {
            let started = self.deps.clock.monotonic();
            let ended = match self.session(&mut sink, identity.as_deref(), resync_after).await {
                Ok(never) => match never {},
                Err(ended) => ended,
            };
            let Ended { error, code, as_precaution } = ended;
            if as_precaution {
                tracing::info!(zone = self.options.zone, "{error}");
                failures = 0;
                let spread = 0.75 + self.deps.random.fraction() / 2.0;
                resync_after = self.options.resync_interval.mul_f64(spread);
                self.state().send_modify(|link| link.connected_since = None);
                self.deps.clock.sleep(RESYNC_PAUSE.min(self.options.resync_interval)).await;
                continue;
            }
            resync_after = self.options.resync_after_join;
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
            let wait = self.options.backoff.delay(failures, self.deps.random.fraction());
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
        resync_after: Duration,
    ) -> Result<std::convert::Infallible, Ended> {
        let term = self.deps.stores.config.leadership().borrow().own_term();
        let headers = Headers::new(&self.options, identity, &self.deps.instance_id, term)
            .map_err(|error| error.to_string())?;
        let channel = self.dial().await?;
        let taken = watch::Sender::new(Taken::default());
        let down = Box::pin(self.downward(self.sync_client(&channel, &headers), sink, &taken));
        let up = Box::pin(self.upward(self.sync_client(&channel, &headers)));
        let calls = || {
            limited_admin(
                GlobalKdsServiceClient::with_interceptor(channel.clone(), headers.clone()),
                self.options.message_len_max,
            )
        };
        let (mut c1, mut c2, mut c3) = (calls(), calls(), calls());
        self.state().send_modify(|link| {
            link.global_revision = None;
            link.peer.settled_at = None;
        });
        let configs =
            self.answer::<ConfigDumps, _, _>(move |s| async move { c1.stream_xds_configs(s).await });
        let stats = self.answer::<Stats, _, _>(move |s| async move { c2.stream_stats(s).await });
        let clusters = self.answer::<Clusters, _, _>(move |s| async move { c3.stream_clusters(s).await });
        let (name, status) = tokio::select! {
            status = down => ("GlobalToZoneSync", status),
            status = up => ("ZoneToGlobalSync", status),
            status = self.check_health(calls(), taken.subscribe()) => ("HealthCheck", status),
            status = configs => ("StreamXDSConfigs", status),
            status = stats => ("StreamStats", status),
            status = clusters => ("StreamClusters", status),
            () = self.resync_is_due(resync_after, taken.subscribe()) => {
                let error = "global does not say how far the zone is: connecting again, as a precaution".to_owned();
                return Err(Ended { as_precaution: true, ..error.into() });
            }
        };
        let error = format!("{name}: {:?}: {}{}", status.code(), status.message(), self.hint(status.code()));
        Err(Ended { error, code: status.code(), as_precaution: false })
    }

    /// Waits until a connection has lived so long over which global says nothing about revisions. `taken` changes with each
    /// response: a slow global is not a silent one.
    async fn resync_is_due(&self, after: Duration, mut taken: watch::Receiver<Taken>) {
        // What global does not answer for has its own time.
        let mut link = self.link();
        if link.wait_for(|link| link.peer.settled_at.is_some()).await.is_err() {
            return std::future::pending().await;
        }
        loop {
            let is_synced = taken.borrow_and_update().is_synced;
            tokio::select! {
                Ok(()) = taken.changed(), if !is_synced => {}
                () = self.deps.clock.sleep(after) => break,
            }
        }
        // Whoever says how far the zone is is not silent. Health checks say so only where the streams are: behind a balancer
        // they may come to another replica of global.
        if taken.borrow().is_ours || self.state().borrow().global_revision.is_some() {
            std::future::pending().await
        }
    }

    /// What to do about an ended call.
    fn hint(&self, code: Code) -> &'static str {
        match code {
            Code::Unauthenticated if matches!(self.options.token, ZoneToken::None) => {
                "; name a zone token with multizone.zone.kds.tokenFile"
            }
            Code::Unauthenticated => "; put a good zone token into the file of multizone.zone.kds.tokenFile",
            // A connection that worked was of the right kind.
            Code::Unknown | Code::Internal | Code::Cancelled
                if !self.options.dial.tls && self.state().borrow().connected_since.is_none() =>
            {
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
