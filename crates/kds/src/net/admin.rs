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

/// Questions of one stream without an answer. A stuck zone cannot have more of them.
const PENDING_PER_STREAM_MAX: usize = 32;

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
    /// Too many questions to it are waiting.
    #[error("too many requests wait for answers of zone \"{0}\"")]
    Busy(String),
    /// It went away before it answered.
    #[error("zone \"{0}\" disconnected before it answered")]
    Ended(String),
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
///
/// Every stream has a queue and a limit of its own, so that a zone that does not answer costs others nothing.
#[derive(Clone)]
pub struct AdminBroker(Arc<Inner>);

struct Inner {
    clock: Clock,
    random: Random,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest stream of each zone and kind.
    streams: HashMap<(String, StreamKind), Open>,
    /// By the question's id.
    pending: HashMap<String, Pending>,
    streams_opened: u64,
}

struct Open {
    stream: u64,
    queue: mpsc::Sender<Question>,
}

struct Pending {
    /// Only this stream may answer.
    stream: u64,
    answer: oneshot::Sender<Answer>,
}

impl AdminBroker {
    pub(super) fn new(clock: Clock, random: Random) -> AdminBroker {
        AdminBroker(Arc::new(Inner { clock, random, state: Mutex::default() }))
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
        let id = self.0.random.uuid();
        let question = Question { id: id.clone(), target, query };
        let answered = self.0.state.lock().enqueue(zone, question)?;
        // However this ends, the question waits no longer.
        let _forget = Forget { inner: &self.0, id: &id };
        tokio::select! {
            answer = answered => match answer {
                Ok(answer) => answer.map_err(AdminError::Failed),
                Err(_) => Err(AdminError::Ended(zone.to_owned())),
            },
            () = self.0.clock.sleep(ADMIN_TIMEOUT) => Err(AdminError::Timeout(zone.to_owned())),
        }
    }

    /// A stream of a zone was opened; it takes the place of an older one of its kind.
    pub(super) fn connect(&self, zone: &str, kind: StreamKind) -> Questions {
        let (queue, waiting) = mpsc::channel(PENDING_PER_STREAM_MAX);
        let mut state = self.0.state.lock();
        state.streams_opened += 1;
        let stream = state.streams_opened;
        state.streams.insert((zone.to_owned(), kind), Open { stream, queue });
        Questions { broker: self.clone(), place: (zone.to_owned(), kind), stream, waiting }
    }
}

impl State {
    fn enqueue(&mut self, zone: &str, question: Question) -> Result<oneshot::Receiver<Answer>, AdminError> {
        let offline = || AdminError::Offline(zone.to_owned());
        let place = (zone.to_owned(), question.query.stream());
        let Open { stream, queue } = self.streams.get(&place).ok_or_else(offline)?;
        let waiting = self.pending.values().filter(|pending| pending.stream == *stream).count();
        if waiting >= PENDING_PER_STREAM_MAX {
            return Err(AdminError::Busy(zone.to_owned()));
        }
        let id = question.id.clone();
        queue.try_send(question).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AdminError::Busy(zone.to_owned()),
            mpsc::error::TrySendError::Closed(_) => offline(),
        })?;
        let (answer, answered) = oneshot::channel();
        self.pending.insert(id, Pending { stream: *stream, answer });
        Ok(answered)
    }
}

/// Global's end of one admin stream. When it goes, its questions are over.
pub(super) struct Questions {
    broker: AdminBroker,
    place: (String, StreamKind),
    stream: u64,
    waiting: mpsc::Receiver<Question>,
}

impl Questions {
    /// The next question that somebody still waits for. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Question> {
        loop {
            let question = self.waiting.recv().await?;
            if self.broker.0.state.lock().pending.contains_key(&question.id) {
                return Some(question);
            }
        }
    }

    /// An answer of the zone; one that nobody waits for any more is dropped, and so is one to a question that this
    /// stream was not asked.
    pub(super) fn answered(&self, id: &str, answer: Answer) {
        let mut state = self.broker.0.state.lock();
        if state.pending.get(id).is_none_or(|pending| pending.stream != self.stream) {
            return;
        }
        if let Some(pending) = state.pending.remove(id) {
            // The asker may have gone in this moment.
            let _ = pending.answer.send(answer);
        }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        let mut state = self.broker.0.state.lock();
        if state.streams.get(&self.place).is_some_and(|open| open.stream == self.stream) {
            state.streams.remove(&self.place);
        }
        state.pending.retain(|_, pending| pending.stream != self.stream);
    }
}

struct Forget<'a> {
    inner: &'a Inner,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.inner.state.lock().pending.remove(self.id);
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

#[cfg(test)]
mod tests;
