//! gRPC of a played zone and of a played global.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::{self, Stream, StreamExt as _};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use graticule_proto::google::protobuf::Duration as PbDuration;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use parking_lot::Mutex;
use pb::global_kds_service_client::GlobalKdsServiceClient;
use pb::global_kds_service_server::{GlobalKdsService, GlobalKdsServiceServer};
use pb::kds_sync_service_client::KdsSyncServiceClient;
use pb::kds_sync_service_server::{KdsSyncService, KdsSyncServiceServer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use super::peer::{Peer, QUEUE_LEN};
use super::recording::{Headers, Rpc};

/// Asks for resources.
pub(super) type Sink = Peer<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
/// Has resources.
pub(super) type Source = Peer<DeltaDiscoveryResponse, DeltaDiscoveryRequest>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection of a played zone.
#[derive(Debug, Clone)]
pub(super) struct ZoneConnection(Channel);

impl ZoneConnection {
    /// Connects to the port of global for zones.
    pub(super) async fn open(port: u16) -> Result<ZoneConnection> {
        let endpoint =
            Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect_timeout(CONNECT_TIMEOUT);
        Ok(ZoneConnection(endpoint.connect().await.context("global does not take the connection")?))
    }

    /// Opens `GlobalToZoneSync`.
    pub(super) fn sink(&self, headers: &Headers) -> Result<Sink> {
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        let mut client = self.client();
        let request = with_headers(ReceiverStream::new(queue), headers)?;
        Ok(Peer::new(out, async move { client.global_to_zone_sync(request).await.map(Response::into_inner) }))
    }

    /// Opens `ZoneToGlobalSync`.
    pub(super) fn source(&self, headers: &Headers) -> Result<Source> {
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        let mut client = self.client();
        let request = with_headers(ReceiverStream::new(queue), headers)?;
        Ok(Peer::new(out, async move { client.zone_to_global_sync(request).await.map(Response::into_inner) }))
    }

    /// Opens `StreamXDSConfigs`.
    pub(super) fn configs(
        &self,
        headers: &Headers,
    ) -> Result<Peer<pb::XdsConfigResponse, pb::XdsConfigRequest>> {
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        let mut client = GlobalKdsServiceClient::new(self.0.clone());
        let request = with_headers(ReceiverStream::new(queue), headers)?;
        Ok(Peer::new(out, async move { client.stream_xds_configs(request).await.map(Response::into_inner) }))
    }

    /// Opens `StreamStats`.
    pub(super) fn stats(&self, headers: &Headers) -> Result<Peer<pb::StatsResponse, pb::StatsRequest>> {
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        let mut client = GlobalKdsServiceClient::new(self.0.clone());
        let request = with_headers(ReceiverStream::new(queue), headers)?;
        Ok(Peer::new(out, async move { client.stream_stats(request).await.map(Response::into_inner) }))
    }

    /// Opens `StreamClusters`.
    pub(super) fn clusters(
        &self,
        headers: &Headers,
    ) -> Result<Peer<pb::ClustersResponse, pb::ClustersRequest>> {
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        let mut client = GlobalKdsServiceClient::new(self.0.clone());
        let request = with_headers(ReceiverStream::new(queue), headers)?;
        Ok(Peer::new(out, async move { client.stream_clusters(request).await.map(Response::into_inner) }))
    }

    fn client(&self) -> KdsSyncServiceClient<Channel> {
        KdsSyncServiceClient::new(self.0.clone()).send_compressed(Gzip).accept_compressed(Gzip)
    }
}

fn with_headers<T>(message: T, headers: &Headers) -> Result<Request<T>> {
    let mut request = Request::new(message);
    for (key, value) in headers {
        let (key, value) = (key.parse::<AsciiMetadataKey>()?, value.parse::<AsciiMetadataValue>()?);
        request.metadata_mut().append(key, value);
    }
    Ok(request)
}

/// A played global: takes every stream and leaves the talking to the replay.
#[derive(Debug)]
pub(super) struct PlayedGlobal {
    /// Where zones connect to.
    pub(super) address: SocketAddr,
    streams: Arc<Streams>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Streams {
    sinks: Mutex<Vec<(Headers, Sink)>>,
    sources: Mutex<Vec<(Headers, Source)>>,
    health_interval: Duration,
    health_checks: AtomicUsize,
    /// Whether the streams of questions are kept, to be asked on.
    asks: AtomicBool,
    configs: Mutex<Option<Arc<Peer<pb::XdsConfigRequest, pb::XdsConfigResponse>>>>,
    stats: Mutex<Option<Arc<Peer<pb::StatsRequest, pb::StatsResponse>>>>,
    clusters: Mutex<Option<Arc<Peer<pb::ClustersRequest, pb::ClustersResponse>>>>,
    /// How streams end, by the name of their method. Those of questions end when it is said, the others when their
    /// peer is dropped; with OK if nothing is said.
    endings: watch::Sender<BTreeMap<String, Status>>,
}

impl PlayedGlobal {
    /// Listens on a free port.
    pub(super) async fn start(health_interval: Duration) -> Result<PlayedGlobal> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let streams = Arc::new(Streams {
            sinks: Mutex::default(),
            sources: Mutex::default(),
            health_interval,
            health_checks: AtomicUsize::new(0),
            asks: AtomicBool::new(false),
            configs: Mutex::default(),
            stats: Mutex::default(),
            clusters: Mutex::default(),
            endings: watch::Sender::default(),
        });
        let sync =
            KdsSyncServiceServer::from_arc(streams.clone()).send_compressed(Gzip).accept_compressed(Gzip);
        let calls =
            GlobalKdsServiceServer::from_arc(streams.clone()).send_compressed(Gzip).accept_compressed(Gzip);
        let serving = Server::builder()
            .add_service(sync)
            .add_service(calls)
            .serve_with_incoming(TcpListenerStream::new(listener));
        #[expect(clippy::disallowed_methods, reason = "ends with the server that holds it")]
        let server = tokio::spawn(async move {
            // It only ends when it is dropped.
            let _ended = serving.await;
        });
        Ok(PlayedGlobal { address, streams, server })
    }

    /// A stream that the zone opened and nobody has taken yet, with its headers.
    pub(super) fn take_sink(&self) -> Option<(Headers, Sink)> {
        self.streams.sinks.lock().pop()
    }

    /// As [`take_sink`](Self::take_sink).
    pub(super) fn take_source(&self) -> Option<(Headers, Source)> {
        self.streams.sources.lock().pop()
    }

    /// Whether the zone opened both streams and nobody has taken them yet.
    pub(super) fn has_untaken_streams(&self) -> bool {
        !self.streams.sinks.lock().is_empty() && !self.streams.sources.lock().is_empty()
    }

    /// Health checks that came.
    pub(super) fn health_checks(&self) -> usize {
        self.streams.health_checks.load(Ordering::Relaxed)
    }

    /// From now on questions can be asked on the streams that a zone opens for them.
    pub(super) fn ask(&self) {
        self.streams.asks.store(true, Ordering::Relaxed);
    }

    /// The streams of questions, once a zone has opened all three.
    pub(super) fn questions(&self) -> Option<Questions> {
        Some(Questions {
            configs: self.streams.configs.lock().clone()?,
            stats: self.streams.stats.lock().clone()?,
            clusters: self.streams.clusters.lock().clone()?,
        })
    }

    /// Streams of a method end with this status: one of the sync streams when its peer is dropped.
    pub(super) fn end(&self, rpc: &str, status: Status) {
        self.streams.endings.send_modify(|endings| {
            endings.insert(rpc.to_owned(), status);
        });
    }

    /// Forgets streams of connections that are over.
    pub(super) fn forget(&self, rpc: Rpc) {
        match rpc {
            Rpc::Down => self.streams.sources.lock().clear(),
            Rpc::Up => self.streams.sinks.lock().clear(),
        }
    }
}

/// Streams on which a zone is asked about its proxies.
#[derive(Debug, Clone)]
pub(super) struct Questions {
    /// `StreamXDSConfigs`.
    pub(super) configs: Arc<Peer<pb::XdsConfigRequest, pb::XdsConfigResponse>>,
    /// `StreamStats`.
    pub(super) stats: Arc<Peer<pb::StatsRequest, pb::StatsResponse>>,
    /// `StreamClusters`.
    pub(super) clusters: Arc<Peer<pb::ClustersRequest, pb::ClustersResponse>>,
}

impl Drop for PlayedGlobal {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Streams {
    /// What is queued, then the status with which the stream ends.
    fn queued<T: Send + 'static>(&self, rpc: &'static str, queue: mpsc::Receiver<T>) -> Answers<T> {
        let endings = self.endings.subscribe();
        let ending = stream::once(async move { endings.borrow().get(rpc).cloned() });
        let ending = ending.filter_map(|status| {
            std::future::ready(status.filter(|status| status.code() != Code::Ok).map(Err))
        });
        Box::pin(ReceiverStream::new(queue).map(Ok).chain(ending))
    }

    /// Keeps a stream to ask on, or asks nothing.
    fn questioned<In, Out>(
        &self,
        rpc: &'static str,
        heard: Streaming<In>,
        kept: &Mutex<Option<Arc<Peer<Out, In>>>>,
    ) -> Answers<Out>
    where
        In: Clone + Send + 'static,
        Out: Send + 'static,
    {
        if !self.asks.load(Ordering::Relaxed) {
            return self.silent(rpc, heard);
        }
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        *kept.lock() = Some(Arc::new(Peer::new(out, std::future::ready(Ok(heard)))));
        Box::pin(ReceiverStream::new(queue).map(Ok))
    }

    /// Asks nothing until the zone ends the stream, or it is said how it ends.
    fn silent<In, Out>(&self, rpc: &'static str, heard: Streaming<In>) -> Answers<Out>
    where
        In: Send + 'static,
        Out: Send + 'static,
    {
        let mut endings = self.endings.subscribe();
        let ending = stream::once(async move {
            let Ok(endings) = endings.wait_for(|endings| endings.contains_key(rpc)).await else {
                return None;
            };
            endings.get(rpc).cloned()
        });
        let until_said = heard.map(|_| None).chain(stream::once(std::future::ready(Some(Status::ok("")))));
        let ended = stream::select(ending, until_said).filter_map(std::future::ready).take(1);
        Box::pin(ended.filter_map(|status| {
            std::future::ready(Some(status).filter(|status| status.code() != Code::Ok).map(Err))
        }))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn headers<T>(request: &Request<T>) -> Headers {
    let pairs = request.metadata().clone().into_headers();
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

#[tonic::async_trait]
impl KdsSyncService for Streams {
    type GlobalToZoneSyncStream = Answers<DeltaDiscoveryResponse>;
    type ZoneToGlobalSyncStream = Answers<DeltaDiscoveryRequest>;

    async fn global_to_zone_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::GlobalToZoneSyncStream>, Status> {
        let headers = headers(&request);
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        let peer = Peer::new(out, std::future::ready(Ok(request.into_inner())));
        self.sources.lock().push((headers, peer));
        Ok(Response::new(self.queued("GlobalToZoneSync", queue)))
    }

    async fn zone_to_global_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryResponse>>,
    ) -> Result<Response<Self::ZoneToGlobalSyncStream>, Status> {
        let headers = headers(&request);
        let (out, queue) = mpsc::channel(QUEUE_LEN);
        let peer = Peer::new(out, std::future::ready(Ok(request.into_inner())));
        self.sinks.lock().push((headers, peer));
        Ok(Response::new(self.queued("ZoneToGlobalSync", queue)))
    }
}

/// The streams of questions about proxies: taken, and asked on if that was said.
#[tonic::async_trait]
impl GlobalKdsService for Streams {
    type StreamXDSConfigsStream = Answers<pb::XdsConfigRequest>;
    type StreamStatsStream = Answers<pb::StatsRequest>;
    type StreamClustersStream = Answers<pb::ClustersRequest>;

    async fn stream_xds_configs(
        &self,
        request: Request<Streaming<pb::XdsConfigResponse>>,
    ) -> Result<Response<Self::StreamXDSConfigsStream>, Status> {
        Ok(Response::new(self.questioned("StreamXDSConfigs", request.into_inner(), &self.configs)))
    }

    async fn stream_stats(
        &self,
        request: Request<Streaming<pb::StatsResponse>>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        Ok(Response::new(self.questioned("StreamStats", request.into_inner(), &self.stats)))
    }

    async fn stream_clusters(
        &self,
        request: Request<Streaming<pb::ClustersResponse>>,
    ) -> Result<Response<Self::StreamClustersStream>, Status> {
        Ok(Response::new(self.questioned("StreamClusters", request.into_inner(), &self.clusters)))
    }

    async fn health_check(
        &self,
        _request: Request<pb::ZoneHealthCheckRequest>,
    ) -> Result<Response<pb::ZoneHealthCheckResponse>, Status> {
        self.health_checks.fetch_add(1, Ordering::Relaxed);
        let interval = self.health_interval;
        let interval =
            PbDuration { seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX), nanos: 0 };
        Ok(Response::new(pb::ZoneHealthCheckResponse { interval: Some(interval) }))
    }
}
