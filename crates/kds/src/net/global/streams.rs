//! The streams of one zone, each a state that is asked for its next message. No task is spawned: a stream
//! lives as long as its connection polls it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use graticule_model::kinds::zone::KdsStats;
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Shared;
use crate::core::{Claimant, Received, Repair, Sink, Source, short_name, short_reason};
use crate::net::admin::{AdminStream, Questions};
use crate::net::bucket::and_more;
use crate::net::healing::{self, Obstacles, Patience};
use crate::net::intake;
use crate::net::registry::OpenStream;

pub(super) fn unavailable() -> Status {
    Status::unavailable("stream unavailable")
}

fn in_doubt() -> Status {
    Status::aborted("the copies are in doubt again: connect again")
}

pub(super) type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One stream's state: what comes next, or why it ends.
pub(super) trait Steps<T>: Send + 'static {
    /// Waits for the next message. Cancel-safe as far as the stream itself is dropped with it.
    fn next(&mut self) -> impl Future<Output = Result<T, Status>> + Send;
}

/// Between two looks at how far a first state is.
const TELL_PAUSE: Duration = Duration::from_millis(500);

/// Yields what `state` makes, and ends after its first error.
pub(super) fn driven<T: Send + 'static>(state: impl Steps<T>) -> BoxStream<T> {
    let unfolded = stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(item) => Some((Ok(item), Some(state))),
            Err(status) => Some((Err(status), None)),
        }
    });
    unfolded.boxed()
}

/// GlobalToZoneSync of one zone.
pub(super) struct Downward {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: OpenStream,
    pub(super) subscription: String,
    pub(super) source: Source,
    pub(super) requests: Streaming<DeltaDiscoveryRequest>,
    pub(super) ready: VecDeque<DeltaDiscoveryResponse>,
    pub(super) changes: watch::Receiver<()>,
    pub(super) patience: Patience,
    /// When it was last put down how far the zone is; monotonic.
    pub(super) told: Duration,
    pub(super) drain: CancellationToken,
}

impl Steps<DeltaDiscoveryResponse> for Downward {
    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        loop {
            if self.ready.is_empty() {
                // Each slice holds the catalog for a short time only.
                while self.source.prepare(&self.shared.hub.catalog()) {
                    tokio::task::yield_now().await;
                }
                let ready = self.source.poll(&self.shared.hub.catalog());
                self.ready.extend(ready.into_iter().map(|(_, response)| response));
                for large in self.source.take_large() {
                    tracing::warn!(
                        zone = self.stream.zone,
                        kind = %large.kind,
                        bytes = large.len,
                        limit = large.len_max,
                        largest = large.largest,
                        largest_bytes = large.largest_len,
                        "soon a Kuma zone will not get this kind any more, which it takes in one message only: raise \
                         multizone.global.kds.maxMsgSize and the zone's multizone.zone.kds.maxMsgSize"
                    );
                }
                self.tell();
            }
            if let Some(response) = self.ready.pop_front() {
                self.count(&response.type_url, |stats| stats.responses_sent += 1);
                return Ok(response);
            }
            let clock = &self.shared.deps.clock;
            let now = clock.monotonic();
            let patience = self.patience.ends_at(&self.source, now);
            let stuck = clock.sleep(patience.unwrap_or_default().saturating_sub(now));
            tokio::select! {
                biased;
                status = self.stream.ending.told() => return Err(status),
                () = self.drain.cancelled() => return Err(unavailable()),
                request = self.requests.message() => match request? {
                    Some(request) => self.on_request(request)?,
                    None => return Err(Status::cancelled("ended by the zone")),
                },
                Ok(()) = self.changes.changed() => {}
                () = stuck, if patience.is_some() => return Err(self.stuck()),
            }
        }
    }
}

impl Downward {
    /// The zone's lag does not shrink: a new connection brings it into step.
    fn stuck(&self) -> Status {
        let after = self.patience.lasts();
        let kind = self.source.waits_for().map_or("", |(kind, _)| kind);
        tracing::warn!(
            zone = self.stream.zone,
            kind,
            ?after,
            "a zone acknowledges nothing; its stream is started anew"
        );
        Status::aborted(format!("{kind} was not acknowledged for {after:?}: connect again"))
    }

    /// Puts down how far the zone is.
    fn tell(&mut self) {
        let monotonic = self.shared.deps.clock.monotonic();
        // Of a first state in many parts everything that is due is counted each time.
        if self.source.is_partial() && monotonic.saturating_sub(self.told) < TELL_PAUSE {
            return;
        }
        self.told = monotonic;
        let (source, now) = (&self.source, self.shared.deps.clock.now());
        self.shared.registry.set_report(&self.stream.zone, |report| {
            report.peer.tell(source, now);
            report.peer.meshes = source.meshes();
        });
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let type_url = request.type_url.clone();
        let is_first = self.source.node().is_none();
        let received = self
            .source
            .on_request(request)
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        let (zone, shared) = (&self.stream.zone, &self.shared);
        if let Some(node) = self.source.node().filter(|_| is_first) {
            self.shared.registry.described(zone, &self.subscription, node);
        }
        match received {
            Received::Subscribed(_) => {}
            Received::Acked(_) => self.count(&type_url, |stats| stats.responses_acknowledged += 1),
            Received::Nacked { message, .. } => {
                if let Some(unsaid) = shared.may_say(zone) {
                    let kind = short_name(&type_url);
                    tracing::warn!(zone, %kind, reason = message, "zone refused resources{}", and_more(unsaid));
                }
                self.count(&type_url, |stats| stats.responses_rejected += 1);
            }
        }
        self.tell();
        Ok(())
    }

    fn count(&self, type_url: &str, count: impl Fn(&mut KdsStats)) {
        let now = self.shared.deps.clock.now();
        self.shared.registry.counted(&self.stream.zone, &self.subscription, type_url, now, count);
    }
}

impl Drop for Downward {
    fn drop(&mut self) {
        let now = self.shared.deps.clock.now();
        self.shared.registry.unsubscribed(&self.stream.zone, &self.subscription, now);
    }
}

/// ZoneToGlobalSync of one zone: global asks, the zone answers.
pub(super) struct Upward {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: OpenStream,
    /// Whose stream it is.
    pub(super) claimant: Claimant,
    /// It knows that the copies may be those of an earlier identity, or that something is held back.
    pub(super) doubted: bool,
    /// It began with the decision of an operator: the version of that.
    pub(super) decided: Option<u64>,
    pub(super) node: Node,
    /// Present until dropped.
    pub(super) sink: Option<Sink>,
    pub(super) ready: VecDeque<DeltaDiscoveryRequest>,
    pub(super) responses: Streaming<DeltaDiscoveryResponse>,
    /// When copies are compared next; monotonic.
    pub(super) audit_at: Duration,
    pub(super) obstacles: Obstacles,
    pub(super) drain: CancellationToken,
}

impl Steps<DeltaDiscoveryRequest> for Upward {
    async fn next(&mut self) -> Result<DeltaDiscoveryRequest, Status> {
        let clock = self.shared.deps.clock.clone();
        let store = self.shared.deps.stores.config.clone();
        let response = loop {
            if let Some(request) = self.ready.pop_front() {
                return Ok(request);
            }
            let now = clock.monotonic();
            let audit = clock.sleep(self.audit_at.saturating_sub(now));
            let repair_at = self.sink.as_ref().and_then(Sink::repair_at);
            let repair = clock.sleep(repair_at.unwrap_or_default().saturating_sub(now));
            let is_obstructed = self.sink.as_ref().is_some_and(Sink::has_obstacles);
            tokio::select! {
                biased;
                status = self.stream.ending.told() => return Err(status),
                () = self.drain.cancelled() => return Err(unavailable()),
                response = self.responses.message() => {
                    let response = response?;
                    let is_outdated = |sink: &Sink| response.as_ref().is_some_and(|response| sink.is_outdated(response));
                    if !self.sink.as_ref().is_some_and(is_outdated) {
                        break response;
                    }
                }
                () = audit => self.audit().await,
                () = repair, if repair_at.is_some() => self.repair()?,
                event = self.obstacles.next(&*store, is_obstructed) => {
                    if let Some(sink) = &mut self.sink {
                        sink.on_event(&event, &self.shared.deps.stores.held(), clock.monotonic());
                    }
                }
            }
        };
        // Never end this stream with OK: a stock zone would not notice (federation.md §1.4).
        let response = response.ok_or_else(|| Status::cancelled("ended by the zone"))?;
        let shared = &self.shared;
        if !shared.may_be_of(&self.stream.zone, self.claimant.identity.as_deref()) {
            return Err(Status::cancelled(
                "another control plane took the name of this zone, at another replica",
            ));
        }
        shared.still_leads(&self.stream.zone, &self.claimant).await?;
        if !self.doubted && shared.is_estranged(&self.stream.zone) {
            // A backup was restored: this stream knows nothing of what came back, and must not confirm it.
            return Err(in_doubt());
        }
        let sink = self.sink.as_mut().ok_or_else(unavailable)?;
        let reply =
            intake::apply(&shared.deps.stores, &shared.deps.clock, sink, &response, &self.node).await?;
        let zone = &self.stream.zone;
        if let Some(error) = &reply.error_detail
            && let Some(unsaid) = shared.may_say(zone)
        {
            let (kind, reason) = (short_name(&response.type_url), short_reason(&error.message));
            tracing::warn!(zone, %kind, %reason, "refused resources of a zone{}", and_more(unsaid));
        }
        shared.report_intake(zone, sink);
        if let Some(version) = self.decided.take_if(|_| sink.is_synced()) {
            // The next decision may get the same version.
            self.stream.begin_with(None);
            shared.forget_decision(zone, version).await;
        }
        if sink.held_back().next().is_some() {
            shared.doubt(zone, self.claimant.identity.as_deref()).await?;
            self.doubted = true;
        } else if !self.doubted && shared.is_estranged(zone) {
            return Err(in_doubt());
        } else if self.doubted && sink.is_synced() {
            // A backup may be restored at any moment, also while a response is taken.
            if !sink.damaged(&shared.deps.stores.held()).is_empty() {
                return Err(in_doubt());
            }
            shared.confirm(zone, self.claimant.identity.as_deref()).await?;
            self.doubted = false;
            sink.set_estranged(false);
        }
        Ok(reply)
    }
}

impl Shared {
    /// Puts down what was taken from a zone, and what was not.
    fn report_intake(&self, zone: &str, sink: &Sink) {
        let now = self.deps.clock.now();
        self.registry.set_report(zone, |report| {
            report.peer.refused_here.update_with(sink.quarantine(), sink.unnamed(), now);
            report.peer.usage = Some(sink.usage());
            let reason = "the zone no longer has it; it is kept until somebody decides";
            let held_back = sink.held_back().map(|(kind, name)| (kind, name, reason));
            if report.peer.held_back.update(held_back, now) && !report.peer.held_back.is_empty() {
                tracing::warn!(
                    zone,
                    kept = report.peer.held_back.len(),
                    "a zone no longer has much of what it gave; the copies are kept: grat zone status {zone}"
                );
            }
        });
    }
}

impl Upward {
    /// Looks for copies that something else changed; the zone sends them again.
    async fn audit(&mut self) {
        let shared = &self.shared;
        self.audit_at = shared.next_audit();
        let Some(sink) = &mut self.sink else { return };
        let held = shared.deps.stores.held();
        let damaged = healing::damaged(sink, &held).await;
        let damaged = sink.compared(damaged, &held, shared.deps.clock.monotonic());
        shared.report_intake(&self.stream.zone, sink);
        if let Some(first) = damaged.first() {
            let zone = &self.stream.zone;
            tracing::warn!(zone, damaged = damaged.len(), %first, "copies of a zone were damaged; they are fetched again");
        }
    }

    /// Asks for what is missing; a Kuma zone has to connect again.
    fn repair(&mut self) -> Result<(), Status> {
        let deps = &self.shared.deps;
        let Some(sink) = &mut self.sink else { return Ok(()) };
        match sink.repair(&self.node, &deps.stores.held(), deps.clock.monotonic()) {
            Repair::None => {}
            Repair::Ask(requests) => self.ready.extend(requests),
            Repair::Reconnect => return Err(Status::aborted("copies need repair: connect again")),
        }
        Ok(())
    }
}

impl Drop for Upward {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            self.shared.registry.keep_sink(&self.stream.zone, sink);
        }
    }
}

/// One admin stream of a zone: questions out, answers in.
pub(super) struct Asking<S: AdminStream> {
    pub(super) stream: OpenStream,
    pub(super) questions: Questions,
    pub(super) answers: Streaming<S::Response>,
    pub(super) drain: CancellationToken,
}

impl<S: AdminStream> Steps<S::Request> for Asking<S> {
    async fn next(&mut self) -> Result<S::Request, Status> {
        loop {
            tokio::select! {
                biased;
                status = self.stream.ending.told() => return Err(status),
                () = self.drain.cancelled() => return Err(unavailable()),
                answer = self.answers.message() => match answer? {
                    Some(response) => {
                        let (id, answer) = S::answer(response);
                        self.questions.answered(&id, answer);
                    }
                    None => return Err(Status::cancelled("ended by the zone")),
                },
                Some(question) = self.questions.next() => return Ok(S::request(question)),
            }
        }
    }
}
