//! Questions about proxies, from global to the zone that serves them (federation.md §1.5).

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_runtime::{Clock, Random};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::ADMIN_TIMEOUT;
use crate::core::StreamKind;

/// Questions that wait on one stream to be sent.
const QUEUE_LEN_MAX: usize = 64;
/// Questions without an answer, of all zones.
const PENDING_MAX: usize = 1024;

/// Which proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTarget {
    /// Its kind; `Dataplane`.
    pub kind: String,
    /// Its name in the zone.
    pub name: String,
    /// Its mesh.
    pub mesh: String,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminQuery {
    /// The configuration dump.
    ConfigDump {
        /// With endpoints.
        include_eds: bool,
    },
    /// The statistics.
    Stats {
        /// Form.
        format: OutputFormat,
        /// Only what was ever counted.
        used_only: bool,
    },
    /// The clusters.
    Clusters {
        /// Form.
        format: OutputFormat,
    },
}

impl AdminQuery {
    fn stream(self) -> StreamKind {
        match self {
            AdminQuery::ConfigDump { .. } => StreamKind::ConfigDump,
            AdminQuery::Stats { .. } => StreamKind::Stats,
            AdminQuery::Clusters { .. } => StreamKind::Clusters,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The zone has no such stream open here.
    #[error("zone \"{0}\" is offline")]
    Offline(String),
    /// Too many questions are waiting.
    #[error("too many requests are waiting for answers of zones")]
    Busy,
    /// No answer in time.
    #[error("zone \"{0}\" did not answer in time")]
    Timeout(String),
    /// The zone says why.
    #[error("{0}")]
    Failed(String),
}

/// Answers questions in a zone.
#[async_trait]
pub trait ProxyAdmin: Send + Sync {
    /// The proxy's answer, or why there is none.
    async fn ask(&self, target: AdminTarget, query: AdminQuery) -> Result<Vec<u8>, String>;
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: String,
    pub(super) target: AdminTarget,
    pub(super) query: AdminQuery,
}

type Answer = Result<Vec<u8>, String>;

/// Asks zones. Cheap to clone.
#[derive(Clone)]
pub struct AdminBroker(Arc<Inner>);

struct Inner {
    clock: Clock,
    random: Random,
    streams: Mutex<HashMap<(String, StreamKind), mpsc::Sender<Question>>>,
    pending: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
}

impl AdminBroker {
    pub(super) fn new(clock: Clock, random: Random) -> AdminBroker {
        AdminBroker(Arc::new(Inner { clock, random, streams: Mutex::default(), pending: Mutex::default() }))
    }

    /// Asks the zone and waits at most 10 s.
    ///
    /// # Errors
    /// The zone is not there, has no answer, or takes too long.
    pub async fn ask(
        &self,
        zone: &str,
        target: AdminTarget,
        query: AdminQuery,
    ) -> Result<Vec<u8>, AdminError> {
        let offline = || AdminError::Offline(zone.to_owned());
        let stream = self.0.streams.lock().get(&(zone.to_owned(), query.stream())).cloned();
        let stream = stream.ok_or_else(offline)?;
        let id = self.0.random.uuid();
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = self.0.pending.lock();
            if pending.len() >= PENDING_MAX {
                return Err(AdminError::Busy);
            }
            pending.insert(id.clone(), answer);
        }
        // However this ends, the question waits no longer.
        let _forget = Forget { inner: &self.0, id: &id };
        let question = Question { id: id.clone(), target, query };
        stream.try_send(question).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AdminError::Busy,
            mpsc::error::TrySendError::Closed(_) => offline(),
        })?;
        tokio::select! {
            answer = answered => answer.map_err(|_| offline())?.map_err(AdminError::Failed),
            () = self.0.clock.sleep(ADMIN_TIMEOUT) => Err(AdminError::Timeout(zone.to_owned())),
        }
    }

    pub(super) fn connect(&self, zone: &str, kind: StreamKind) -> mpsc::Receiver<Question> {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN_MAX);
        self.0.streams.lock().insert((zone.to_owned(), kind), sender);
        receiver
    }

    /// An answer of a zone; one that nobody waits for any more is dropped.
    pub(super) fn answered(&self, id: &str, answer: Answer) {
        if let Some(waiting) = self.0.pending.lock().remove(id) {
            // The asker may have gone in this moment.
            let _ = waiting.send(answer);
        }
    }
}

struct Forget<'a> {
    inner: &'a Inner,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.inner.pending.lock().remove(self.id);
    }
}

/// A pair of messages of one admin stream.
pub(super) trait AdminStream: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const KIND: StreamKind;
    fn request(question: Question) -> Self::Request;
    fn question(request: Self::Request) -> Question;
    fn response(id: String, answer: Answer) -> Self::Response;
    fn answer(response: Self::Response) -> (String, Answer);
}

fn to_format(format: OutputFormat) -> i32 {
    match format {
        OutputFormat::Text => pb::AdminOutputFormat::Text as i32,
        OutputFormat::Json => pb::AdminOutputFormat::Json as i32,
    }
}

fn from_format(format: i32) -> OutputFormat {
    if format == pb::AdminOutputFormat::Json as i32 { OutputFormat::Json } else { OutputFormat::Text }
}

macro_rules! admin_stream {
    ($name:ident, $request:ident, $response:ident, $module:ident, $bytes:ident, $kind:ident,
     |$query:ident| { $($field:ident: $to:expr),* }, |$pb:ident| $from:expr) => {
        pub(super) struct $name;

        impl AdminStream for $name {
            type Request = pb::$request;
            type Response = pb::$response;
            const KIND: StreamKind = StreamKind::$kind;

            fn request(question: Question) -> pb::$request {
                let $query = question.query;
                pb::$request {
                    request_id: question.id,
                    resource_type: question.target.kind,
                    resource_name: question.target.name,
                    resource_mesh: question.target.mesh,
                    $($field: $to),*
                }
            }

            fn question($pb: pb::$request) -> Question {
                let query = $from;
                Question {
                    id: $pb.request_id,
                    target: AdminTarget { kind: $pb.resource_type, name: $pb.resource_name, mesh: $pb.resource_mesh },
                    query,
                }
            }

            fn response(id: String, answer: Answer) -> pb::$response {
                let result = match answer {
                    // Success without bytes leaves the result unset, as the peer expects.
                    Ok(bytes) if bytes.is_empty() => None,
                    Ok(bytes) => Some(pb::$module::Result::$bytes(bytes)),
                    Err(error) => Some(pb::$module::Result::Error(error)),
                };
                pb::$response { request_id: id, result }
            }

            fn answer(response: pb::$response) -> (String, Answer) {
                let answer = match response.result {
                    None => Ok(Vec::new()),
                    Some(pb::$module::Result::$bytes(bytes)) => Ok(bytes),
                    Some(pb::$module::Result::Error(error)) => Err(error),
                };
                (response.request_id, answer)
            }
        }
    };
}

admin_stream!(
    ConfigDumps, XdsConfigRequest, XdsConfigResponse, xds_config_response, Config, ConfigDump,
    |query| { include_eds: matches!(query, AdminQuery::ConfigDump { include_eds: true }) },
    |request| AdminQuery::ConfigDump { include_eds: request.include_eds }
);
admin_stream!(
    Stats, StatsRequest, StatsResponse, stats_response, Stats, Stats,
    |query| {
        format: match query { AdminQuery::Stats { format, .. } => to_format(format), _ => 0 },
        used_only: matches!(query, AdminQuery::Stats { used_only: true, .. })
    },
    |request| AdminQuery::Stats { format: from_format(request.format), used_only: request.used_only }
);
admin_stream!(
    Clusters, ClustersRequest, ClustersResponse, clusters_response, Clusters, Clusters,
    |query| { format: match query { AdminQuery::Clusters { format } => to_format(format), _ => 0 } },
    |request| AdminQuery::Clusters { format: from_format(request.format) }
);
