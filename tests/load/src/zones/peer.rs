//! A played zone: what a stock zone control plane sends, with nothing of its own to offer.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use graticule_kds::core::{HEADER_FEATURES, NODE_FEATURES, kinds_for_zones};
use graticule_model::Kind;
use graticule_proto::discovery::{ControlPlane, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_proto::google::protobuf::{ListValue, Struct, Value};
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_proto::prost::Message;
use graticule_testkit::wait;
use pb::global_kds_service_client::GlobalKdsServiceClient;
use pb::kds_sync_service_client::KdsSyncServiceClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::board::Seen;
use super::policies::CHANGE_LABEL;
use super::wire::{Traffic, connect};

/// Largest message that is taken, bytes; the first state of a kind is one message.
const MESSAGE_LEN_MAX: usize = 256 * 1024 * 1024;
/// Messages that wait for the connection.
const QUEUE_LEN: usize = 64;
/// Between health checks if global names no interval.
const HEALTH_INTERVAL: Duration = Duration::from_secs(300);
/// What the zone says of its settings.
const CONFIG: &str = r#"{"mode":"zone","environment":"universal","store":{"type":"memory"}}"#;

/// What a played zone is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Acknowledges at once.
    Steady,
    /// Reads nothing any more after the first state; the connection stays.
    Slow,
    /// Connects again when it has the first state.
    Churning,
}

impl fmt::Display for Habit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Habit::Steady => "load",
            Habit::Slow => "slow",
            Habit::Churning => "churn",
        })
    }
}

/// How far a played zone is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// How often it was told everything.
    pub(super) first_states: u64,
}

/// A played zone.
pub(super) struct Played {
    /// Of the zone.
    pub(super) name: String,
    /// Among zones of its habit.
    pub(super) index: usize,
    /// What it is like.
    pub(super) habit: Habit,
    /// Where global takes zones.
    pub(super) global: SocketAddr,
    /// At least so many resources make a first state.
    pub(super) resources: usize,
    /// Counts bytes.
    pub(super) traffic: Arc<Traffic>,
    /// Told how far it is.
    pub(super) progress: watch::Sender<Progress>,
    /// Told what it acknowledged.
    pub(super) seen: mpsc::Sender<Seen>,
}

impl Played {
    /// Only a churning zone connects more than once.
    pub(super) async fn run(self) -> Result<()> {
        loop {
            self.session().await.with_context(|| format!("zone {}", self.name))?;
        }
    }

    /// One connection. Ends without error for a churning zone only.
    async fn session(&self) -> Result<()> {
        let channel = connect(self.global, self.traffic.clone()).await?;
        let calls = || GlobalKdsServiceClient::new(channel.clone()).accept_compressed(Gzip);
        let (mut configs, mut stats, mut clusters) = (calls(), calls(), calls());
        tokio::select! {
            ended = self.downward(&channel) => ended,
            error = self.upward(&channel) => bail!("ZoneToGlobalSync: {:?}", error.err()),
            error = self.check_health(calls()) => bail!("HealthCheck: {:?}", error.err()),
            error = silent(configs.stream_xds_configs(self.request(futures::stream::pending()))) =>
                bail!("StreamXDSConfigs: {error:?}"),
            error = silent(stats.stream_stats(self.request(futures::stream::pending()))) =>
                bail!("StreamStats: {error:?}"),
            error = silent(clusters.stream_clusters(self.request(futures::stream::pending()))) =>
                bail!("StreamClusters: {error:?}"),
        }
    }

    /// With the headers of federation.md §1.3.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        headers.insert("version", MetadataValue::from_static("unknown"));
        if let Ok(name) = self.name.parse() {
            headers.insert("client-id", name);
        }
        headers.insert("kds-version", MetadataValue::from_static("v3"));
        headers.insert("zone-version", MetadataValue::from_static("v3"));
        for feature in HEADER_FEATURES {
            headers.append("features", MetadataValue::from_static(feature));
        }
        request
    }

    fn node(&self) -> Node {
        let text = |text: &str| Value { kind: Some(ValueKind::StringValue(text.into())) };
        let features = ListValue { values: NODE_FEATURES.into_iter().map(text).collect() };
        let metadata = [
            ("config", text(CONFIG)),
            ("control-plane-id", text(&format!("{}-cp", self.name))),
            ("features", Value { kind: Some(ValueKind::ListValue(features)) }),
        ];
        let fields = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Node { id: self.name.clone(), metadata: Some(Struct { fields }), ..Node::default() }
    }

    async fn downward(&self, channel: &Channel) -> Result<()> {
        let mut client = KdsSyncServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .send_compressed(Gzip)
            .accept_compressed(Gzip);
        let node = self.node();
        let first: Vec<DeltaDiscoveryRequest> = kinds_for_zones()
            .map(|kind| DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: kind.name().into(),
                resource_names_subscribe: vec!["*".into()],
                ..Default::default()
            })
            .collect();
        let (acks, queue) = mpsc::channel(QUEUE_LEN);
        let requests = self.request(futures::stream::iter(first).chain(ReceiverStream::new(queue)));
        let mut responses = client.global_to_zone_sync(requests).await?.into_inner();
        let mut missing: BTreeSet<&str> = kinds_for_zones().map(Kind::name).collect();
        let mut resources = 0;
        loop {
            let response = responses.message().await?.context("GlobalToZoneSync: ended by global")?;
            let changes = if missing.is_empty() { changes(&response)? } else { Vec::new() };
            let ack = DeltaDiscoveryRequest {
                node: Some(Node { id: self.name.clone(), ..Node::default() }),
                type_url: response.type_url.clone(),
                response_nonce: response.nonce,
                ..Default::default()
            };
            acks.send(ack).await.context("GlobalToZoneSync: closed")?;
            let at = wait::now();
            if self.habit == Habit::Steady {
                for change in changes {
                    // Nobody counts any more: the measurement is over.
                    let _over = self.seen.send(Seen { change, zone: self.index, at }).await;
                }
            }
            if missing.is_empty() {
                continue;
            }
            resources += response.resources.len();
            missing.remove(response.type_url.as_str());
            if missing.is_empty() {
                ensure!(resources >= self.resources, "the first state has {resources} resources only");
                self.progress.send_modify(|progress| progress.first_states += 1);
                match self.habit {
                    Habit::Steady => {}
                    Habit::Slow => std::future::pending().await,
                    Habit::Churning => return Ok(()),
                }
            }
        }
    }

    async fn upward(&self, channel: &Channel) -> Result<(), Status> {
        let mut client =
            KdsSyncServiceClient::new(channel.clone()).send_compressed(Gzip).accept_compressed(Gzip);
        let (responses, queue) = mpsc::channel(QUEUE_LEN);
        let mut requests =
            client.zone_to_global_sync(self.request(ReceiverStream::new(queue))).await?.into_inner();
        let mut nonce = 0_u64;
        while let Some(request) = requests.message().await? {
            // What is acknowledged needs no answer; there is nothing to send.
            if !request.response_nonce.is_empty() {
                continue;
            }
            nonce += 1;
            let response = DeltaDiscoveryResponse {
                type_url: request.type_url,
                nonce: nonce.to_string(),
                control_plane: Some(ControlPlane { identifier: self.name.clone() }),
                ..Default::default()
            };
            if responses.send(response).await.is_err() {
                break;
            }
        }
        Err(Status::unavailable("ended by global"))
    }

    async fn check_health(&self, mut client: GlobalKdsServiceClient<Channel>) -> Result<(), Status> {
        loop {
            let answer = client.health_check(self.request(pb::ZoneHealthCheckRequest {})).await?.into_inner();
            let seconds = answer.interval.and_then(|interval| u64::try_from(interval.seconds).ok());
            let interval =
                seconds.filter(|seconds| *seconds > 0).map_or(HEALTH_INTERVAL, Duration::from_secs);
            tokio::time::sleep(interval).await;
        }
    }
}

/// A stream of questions about proxies, which nobody asks; gives why it ended.
async fn silent<T>(
    opening: impl Future<Output = Result<tonic::Response<tonic::Streaming<T>>, Status>>,
) -> Option<Status> {
    let mut questions = match opening.await {
        Ok(response) => response.into_inner(),
        Err(status) => return Some(status),
    };
    loop {
        match questions.message().await {
            Ok(Some(_question)) => {}
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

/// Numbers of the changes in a response.
fn changes(response: &DeltaDiscoveryResponse) -> Result<Vec<usize>> {
    let mut changes = Vec::new();
    for resource in &response.resources {
        let Some(any) = &resource.resource else { bail!("{} has no resource", resource.name) };
        let decoded = pb::KumaResource::decode(any.value.as_slice())
            .with_context(|| format!("{} {}", response.type_url, resource.name))?;
        let labels = decoded.meta.map(|meta| meta.labels).unwrap_or_default();
        changes.extend(labels.get(CHANGE_LABEL).and_then(|change| change.parse::<usize>().ok()));
    }
    changes.retain(|change| *change > 0);
    Ok(changes)
}
