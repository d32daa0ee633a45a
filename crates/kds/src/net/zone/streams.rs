//! The streams of one connection: resources in both directions, and the health checks.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use graticule_model::kinds::config::Config;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_proto::discovery::DeltaDiscoveryResponse;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_store::{Expect, Txn, Write};
use pb::global_kds_service_client::GlobalKdsServiceClient;
use pb::kds_sync_service_client::KdsSyncServiceClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use super::super::bucket::and_more;
use super::super::healing::{self, Lag, Obstacles, Patience, Progress, next_audit};
use super::super::{describe, intake};
use super::{Authed, Taken, ZoneClient};
use crate::core::{GlobalSeen, Heartbeat, REVISION_HEADERS, Repair, Sink, Source, short_name, short_reason};

/// Between health checks until global says otherwise.
const HEALTH_INTERVAL: Duration = Duration::from_secs(300);
/// Global answers a health check in this time, or is gone.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Responses that wait until the zone knows whether this is its global; a peer has one in flight for each kind.
const PARKED_MAX: usize = 64;
/// Config of the store that says that something of global's is held back.
const HELD_BACK_CONFIG: &str = "graticule-held-back";
/// Time for the reason why global ended a stream to arrive.
const END_MAX: Duration = Duration::from_secs(1);
/// Messages that wait for the transport.
const SEND_QUEUE_LEN: usize = 64;

pub(super) fn held_back_key() -> Key {
    Key::new(Kind::Config, "", HELD_BACK_CONFIG)
}

impl ZoneClient {
    pub(super) async fn downward(
        &self,
        mut client: KdsSyncServiceClient<Authed>,
        sink: &mut Sink,
        taken: &watch::Sender<Taken>,
    ) -> Status {
        let options = &self.options;
        let node = describe(&options.zone, &self.deps.instance_id, &options.version, &options.config_json);
        let stores = &self.deps.stores;
        let meshes = self.meshes();
        sink.set_meshes(meshes.clone());
        if let Err(status) = self.drop_unwanted(sink).await {
            return status;
        }
        self.state().send_modify(|link| link.peer.meshes = meshes.clone());
        sink.set_estranged(self.remembers_held_back());
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
        self.state().send_modify(|link| link.connected_since = Some(self.deps.clock.now()));
        let clock = &self.deps.clock;
        let mut parked = VecDeque::new();
        let mut silence_ends: Option<Duration> = None;
        let mut audit_at = self.next_audit();
        let mut obstacles = Obstacles::default();
        loop {
            let now = clock.monotonic();
            let repair_at = sink.repair_at();
            let waiting = *sink.global() == GlobalSeen::Unknown;
            let next = if waiting { None } else { parked.pop_front() };
            let response = match next {
                Some(response) => response,
                None => tokio::select! {
                    biased;
                    () = self.deps.link.0.decision.notified() => {
                        if !self.deps.link.is_decided() {
                            // This stream began with it.
                            continue;
                        }
                        return Status::aborted("an operator decided about what is held back: connecting again");
                    }
                    response = responses.message() => match response {
                        Ok(Some(response)) => response,
                        Ok(None) => return Status::unavailable("ended by global"),
                        Err(status) => return status,
                    },
                    () = clock.sleep(silence_ends.unwrap_or_default().saturating_sub(now)),
                        if silence_ends.is_some() && waiting =>
                    {
                        return Status::failed_precondition(format!(
                            "global did not say in {:?} which federation it is (Config \"kuma-cluster-id\"): \
                             nothing is taken from it",
                            options.federation_id_timeout
                        ));
                    }
                    () = clock.sleep(audit_at.saturating_sub(now)) => {
                        audit_at = self.next_audit();
                        if self.meshes() != meshes {
                            return Status::aborted("proxies of a mesh came or went: connecting again");
                        }
                        let held = stores.held();
                        let damaged = healing::damaged(sink, &held).await;
                        let damaged = sink.compared(damaged, &held, clock.monotonic());
                        self.tell_downward(sink, sink.is_synced());
                        if let Some(first) = damaged.first() {
                            let damaged = damaged.len();
                            tracing::warn!(damaged, %first, "copies of global's were damaged; they are fetched again");
                        }
                        continue;
                    }
                    () = clock.sleep(repair_at.unwrap_or_default().saturating_sub(now)), if repair_at.is_some() => {
                        match sink.repair(&node, &stores.held(), clock.monotonic()) {
                            Repair::None => {}
                            Repair::Reconnect => return Status::aborted("copies need repair: connecting again"),
                            Repair::Ask(requests) => for request in requests {
                                if replies.send(request).await.is_err() {
                                    return self.end_of(&mut responses).await;
                                }
                            },
                        }
                        continue;
                    }
                    event = obstacles.next(&*stores.config, sink.has_obstacles()) => {
                        sink.on_event(&event, &stores.held(), clock.monotonic());
                        continue;
                    }
                },
            };
            if sink.is_outdated(&response) {
                continue;
            }
            let is_foreign = matches!(sink.global(), GlobalSeen::Other { .. });
            if is_foreign && sink.must_wait(&response) {
                let reply = sink.decline(&response, &node);
                self.tell_downward(sink, false);
                if replies.send(reply).await.is_err() {
                    return self.end_of(&mut responses).await;
                }
                continue;
            }
            if sink.must_wait(&response) {
                if parked.len() == PARKED_MAX {
                    return Status::resource_exhausted(
                        "global sends more and more that the zone does not take",
                    );
                }
                silence_ends = silence_ends.or(Some(clock.monotonic() + options.federation_id_timeout));
                parked.push_back(response);
                continue;
            }
            let reply = match intake::apply(stores, clock, sink, &response, &node).await {
                Ok(reply) => reply,
                Err(status) => return status,
            };
            if let Some(error) = &reply.error_detail {
                self.log_refusal("refused resources of global", &response.type_url, &error.message);
            }
            if is_foreign && *sink.global() == GlobalSeen::Known {
                // What was declined meanwhile is asked for again.
                return Status::aborted("this is the zone's global after all: connecting again");
            }
            taken.send_replace(Taken { is_synced: sink.is_synced(), is_ours: sink.is_ours() });
            self.tell_downward(sink, sink.is_synced());
            self.remember_held_back(sink).await;
            if replies.send(reply).await.is_err() {
                return self.end_of(&mut responses).await;
            }
        }
    }

    /// Puts down what the stream from global comes to.
    fn tell_downward(&self, sink: &Sink, synced: bool) {
        let now = self.deps.clock.now();
        let reason = "global no longer has it; it is kept until somebody decides";
        self.state().send_if_modified(|link| {
            let mut changed = link.synced != synced || link.taken != sink.taken();
            link.synced = synced;
            link.taken = sink.taken();
            changed |= link.peer.refused_here.update_with(sink.quarantine(), sink.unnamed(), now);
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

    /// Something was held back when the store was written last: a restart or another leader decides nothing.
    fn remembers_held_back(&self) -> bool {
        self.deps.stores.config.snapshot().contains(&held_back_key())
    }

    async fn remember_held_back(&self, sink: &Sink) {
        let holds = sink.held_back().next().is_some();
        let write = match (holds, self.remembers_held_back()) {
            (true, false) if self.options.keeps_identity => {
                let resource =
                    Resource::new(Meta::new("", HELD_BACK_CONFIG), Config { config: "yes".into() });
                Write::Put { resource: Box::new(resource), expect: Expect::Absent, touch: false }
            }
            (false, true) if sink.is_synced() => Write::Delete { key: held_back_key(), expect: Expect::Any },
            _ => return,
        };
        let txn = Txn { at: Some(self.deps.clock.now()), writes: vec![write] };
        if let Err(error) = self.deps.stores.config.commit(txn).await {
            tracing::warn!(%error, "whether something is held back cannot be stored");
        }
    }

    /// When copies are compared next. Monotonic.
    fn next_audit(&self) -> Duration {
        next_audit(&self.deps.clock, &self.deps.random, self.options.audit_interval)
    }

    /// A peer may refuse, or send what has to be refused, as often and at such length as it likes.
    fn log_refusal(&self, what: &str, kind: &str, reason: &str) {
        if let Some(unsaid) = self.said.lock().take(self.deps.clock.monotonic()) {
            let (kind, reason) = (short_name(kind), short_reason(reason));
            tracing::warn!(%kind, %reason, "{what}{}", and_more(unsaid));
        }
    }

    pub(super) async fn upward(&self, mut client: KdsSyncServiceClient<Authed>) -> Status {
        let (responses, queue) = mpsc::channel::<DeltaDiscoveryResponse>(SEND_QUEUE_LEN);
        let mut requests = match client.zone_to_global_sync(ReceiverStream::new(queue)).await {
            Ok(requests) => requests.into_inner(),
            Err(status) => return status,
        };
        let mut changes = self.hub.changes();
        let limit = self.options.message_len_max;
        let mut source = Source::new(&self.options.zone, None, limit, &self.hub.catalog());
        let clock = &self.deps.clock;
        let limit = self.options.stuck_after;
        let asked_until = clock.monotonic() + limit;
        let mut patience = Patience::new(limit);
        loop {
            while source.prepare(&self.hub.catalog()) {
                tokio::task::yield_now().await;
            }
            let ready = source.poll(&self.hub.catalog());
            let is_all = ready.is_empty();
            self.tell_upward(&source);
            for (_, response) in ready {
                if responses.send(response).await.is_err() {
                    return self.end_of(&mut requests).await;
                }
            }
            if !is_all {
                continue;
            }
            let now = clock.monotonic();
            let never_asked = || source.node().is_none().then_some(asked_until);
            let gives_up_at = patience.ends_at(&source, now).or_else(never_asked);
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
                            self.log_refusal("global refused resources", &kind, &reason);
                        }
                        self.tell_upward(&source);
                    }
                    Ok(None) => return Status::unavailable("ended by global"),
                    Err(status) => return status,
                },
                Ok(()) = changes.changed() => {}
                () = clock.sleep(gives_up_at.unwrap_or_default().saturating_sub(now)), if gives_up_at.is_some() => {
                    return Status::aborted(match source.waits_for() {
                        Some((kind, _)) => format!("global did not acknowledge {kind} for {:?}: connecting again", patience.lasts()),
                        None => format!("global asked for nothing for {limit:?}: connecting again"),
                    });
                }
            }
        }
    }

    /// A stream that takes nothing more was ended by global, which said why.
    async fn end_of<T>(&self, stream: &mut Streaming<T>) -> Status {
        let read = async {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::unavailable("ended by global"),
                    Err(status) => return status,
                }
            }
        };
        tokio::select! {
            biased;
            status = read => status,
            () = self.deps.clock.sleep(END_MAX) => Status::unavailable("the connection is closed"),
        }
    }

    /// Puts down how far global is.
    fn tell_upward(&self, source: &Source) {
        let now = self.deps.clock.now();
        self.state().send_if_modified(|link| link.peer.tell(source, now));
    }

    /// What global says about revisions; the end of a connection over which the zone falls behind for good.
    fn heartbeat(&self, headers: &MetadataMap, lag: &mut Lag, has_taken: bool) -> Option<Status> {
        let number = |header| headers.get(header)?.to_str().ok()?.parse::<u64>().ok();
        let [Some(current), Some(acknowledged)] = REVISION_HEADERS.map(number) else { return None };
        let behind = current.saturating_sub(acknowledged);
        let beat = Heartbeat { at: self.deps.clock.now(), current, acknowledged, lag: behind };
        let (is_held, is_synced) = {
            let link = self.state().borrow();
            (link.peer.protection(&self.options.zone).state != "clear", link.synced)
        };
        self.state().send_modify(|link| link.global_revision = Some(beat));
        let progress = Progress { current, acknowledged, is_synced, has_taken, is_held };
        lag.is_stuck(progress, self.deps.clock.monotonic()).then(|| {
            Status::aborted(format!(
                "global is at revision {current}, the zone has stayed at {acknowledged}: connecting again"
            ))
        })
    }

    /// `taken` changes with each response that is taken.
    pub(super) async fn check_health(
        &self,
        mut client: GlobalKdsServiceClient<Authed>,
        mut taken: watch::Receiver<Taken>,
    ) -> Status {
        let mut lag = Lag::default();
        loop {
            let answered = tokio::select! {
                answered = client.health_check(pb::ZoneHealthCheckRequest {}) => answered,
                () = self.deps.clock.sleep(HEALTH_TIMEOUT) => Err(Status::unavailable("no answer in time")),
            };
            let wait = match answered {
                Ok(response) => {
                    let has_taken = taken.has_changed().unwrap_or_default();
                    taken.mark_unchanged();
                    if let Some(status) = self.heartbeat(response.metadata(), &mut lag, has_taken) {
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
}
