//! One delta ADS stream: requests and snapshots in, responses and events out (xds.md §1.6, §1.7).
//!
//! The order of a change is make-before-break: secrets, clusters, endpoints, then (once new clusters are ready)
//! listeners, and only when the client has the new listeners, removals of clusters and secrets. Nothing waits for
//! longer than [`HOLD_MAX`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::Any;
use graticule_envoygen::{EnvoyResource, Snapshot};

use super::kind::ResourceType;
use super::subscription::{Diff, NAMES_MAX, Subscription, Unanswered};

/// Longest time that one part of a change waits for the client to have another part.
pub const HOLD_MAX: Duration = Duration::from_secs(1);
/// Bytes of resources in one response; more go into further responses. Clients take 4 MiB by default.
const RESPONSE_BYTES_MAX: usize = 3 << 20;
/// Bytes that are kept of a client's reason for a rejection.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// What happened on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A response was made.
    Sent {
        /// Its type.
        kind: ResourceType,
        /// Resources in it.
        resources: usize,
        /// Names removed by it.
        removed: usize,
    },
    /// A response was accepted.
    Acked {
        /// Its type.
        kind: ResourceType,
        /// Snapshot that it came from.
        revision: u64,
    },
    /// A response was rejected.
    Nacked {
        /// Its type.
        kind: ResourceType,
        /// Snapshot that it came from.
        revision: u64,
        /// Resources that are to blame, and are not sent again until they change. Empty while the culprit of a
        /// response with several resources is being searched.
        names: Vec<Arc<str>>,
        /// The client's reason.
        message: String,
    },
    /// The client runs everything of a snapshot, except resources that it rejected.
    Synced {
        /// The snapshot.
        revision: u64,
        /// Resources that the client rejected.
        rejected: usize,
    },
    /// For the first time on the stream the client has its listeners and all secrets they use: it may receive traffic.
    Serving,
}

/// What a client must not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// One stream is for one proxy.
    #[error("node id changed from {from:?} to {to:?} on the same stream")]
    NodeChanged {
        /// Of the first request.
        from: String,
        /// Of this one.
        to: String,
    },
    /// Too many names, or one that is too long.
    #[error("{kind} subscription is too large: more than {NAMES_MAX} names, or a name that is too long")]
    TooManyNames {
        /// Type of the subscription.
        kind: ResourceType,
    },
}

/// What to do now.
#[derive(Debug, Default)]
pub struct Step {
    /// To be sent in this order.
    pub responses: Vec<discovery::DeltaDiscoveryResponse>,
    /// To be reported in this order.
    pub events: Vec<Event>,
    /// Call [`Stream::poll`] again at this time at the latest, even if nothing happens.
    pub wake_at: Option<Duration>,
}

/// State of one stream.
#[derive(Debug)]
pub struct Stream {
    node_id: String,
    identifier: String,
    snapshot: Option<Arc<Snapshot>>,
    nonce: u64,
    clusters: Subscription,
    endpoints: Subscription,
    listeners: Subscription,
    secrets: Subscription,
    /// New clusters that the client has not finished to set up, each with the time when they are waited for no longer.
    warming: BTreeMap<Arc<str>, Duration>,
    /// When removals of a type were first held back.
    held: BTreeMap<ResourceType, Duration>,
    listeners_sent: Duration,
    synced: Option<u64>,
    is_serving: bool,
}

impl Stream {
    /// A stream whose first request came from `node_id`; `identifier` names this control plane instance.
    pub fn new(node_id: impl Into<String>, identifier: impl Into<String>) -> Stream {
        Stream {
            node_id: node_id.into(),
            identifier: identifier.into(),
            snapshot: None,
            nonce: 0,
            clusters: Subscription::default(),
            endpoints: Subscription::default(),
            listeners: Subscription::default(),
            secrets: Subscription::default(),
            warming: BTreeMap::new(),
            held: BTreeMap::new(),
            listeners_sent: Duration::ZERO,
            synced: None,
            is_serving: false,
        }
    }

    /// Takes a request in; [`poll`](Self::poll) then says what to send. Types that are not served are ignored.
    ///
    /// # Errors
    /// The client broke a rule that ends the stream.
    pub fn on_request(
        &mut self,
        request: &discovery::DeltaDiscoveryRequest,
    ) -> Result<Vec<Event>, StreamError> {
        if let Some(node) = &request.node
            && !node.id.is_empty()
            && node.id != self.node_id
        {
            return Err(StreamError::NodeChanged { from: self.node_id.clone(), to: node.id.clone() });
        }
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else { return Ok(Vec::new()) };
        let subscription = self.of(kind);
        subscription
            .subscribe(
                kind.has_wildcard(),
                &request.resource_names_subscribe,
                &request.resource_names_unsubscribe,
                &request.initial_resource_versions,
            )
            .map_err(|_| StreamError::TooManyNames { kind })?;
        let Some(response) = subscription.answered(&request.response_nonce) else { return Ok(Vec::new()) };
        let revision = response.revision;
        let Some(error) = &request.error_detail else { return Ok(vec![Event::Acked { kind, revision }]) };
        let message = shortened(&error.message);
        let names = subscription.reject(&response, &message, kind.has_wildcard());
        Ok(vec![Event::Nacked { kind, revision, names, message }])
    }

    /// Takes a newer snapshot in; one that was not sent yet is forgotten.
    pub fn on_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        let is_same = |kind: ResourceType| {
            self.snapshot
                .as_ref()
                .is_some_and(|old| Arc::ptr_eq(old, &snapshot) || kind.of(old) == kind.of(&snapshot))
        };
        let changed: Vec<ResourceType> =
            ResourceType::ALL.into_iter().filter(|kind| !is_same(*kind)).collect();
        for kind in changed {
            self.of(kind).invalidate();
        }
        self.snapshot = Some(snapshot);
    }

    /// Names that the client rejected and that are not sent again until they change.
    pub fn rejected_len(&self) -> usize {
        [&self.clusters, &self.endpoints, &self.listeners, &self.secrets]
            .map(Subscription::rejected_len)
            .iter()
            .sum()
    }

    /// What to send and to report now. Nothing is sent before the first snapshot.
    pub fn poll(&mut self, now: Duration) -> Step {
        let mut step = Step::default();
        let Some(snapshot) = self.snapshot.clone() else { return step };
        let listeners_settled = self.listeners.is_open() && self.listeners.is_settled(&snapshot.listeners);

        self.send(ResourceType::Secret, false, &snapshot, now, &mut step);
        self.send(ResourceType::Cluster, listeners_settled, &snapshot, now, &mut step);
        self.send(ResourceType::Endpoint, false, &snapshot, now, &mut step);
        if self.listeners_may_go(&snapshot, now, &mut step)
            && self.send(ResourceType::Listener, true, &snapshot, now, &mut step)
        {
            self.listeners_sent = now;
        }

        if self.may_remove(ResourceType::Cluster, listeners_settled, &snapshot, now, &mut step) {
            self.send(ResourceType::Cluster, true, &snapshot, now, &mut step);
        }
        let clusters_settled = self.clusters.is_settled(&snapshot.clusters);
        // A client that has acknowledged the removal of a cluster has unsubscribed from its endpoints already.
        self.send(ResourceType::Endpoint, clusters_settled, &snapshot, now, &mut step);
        let is_unused = listeners_settled && clusters_settled;
        if self.may_remove(ResourceType::Secret, is_unused, &snapshot, now, &mut step) {
            self.send(ResourceType::Secret, true, &snapshot, now, &mut step);
        }
        self.report(&snapshot, now, &mut step);
        step
    }

    fn of(&mut self, kind: ResourceType) -> &mut Subscription {
        match kind {
            ResourceType::Cluster => &mut self.clusters,
            ResourceType::Endpoint => &mut self.endpoints,
            ResourceType::Listener => &mut self.listeners,
            ResourceType::Secret => &mut self.secrets,
        }
    }

    /// Removals go out when nothing uses the removed any more, or [`HOLD_MAX`] after the listeners that stopped using
    /// it were sent (which may themselves have waited as long).
    fn may_remove(
        &mut self,
        kind: ResourceType,
        is_unused: bool,
        snapshot: &Snapshot,
        now: Duration,
        step: &mut Step,
    ) -> bool {
        if !self.of(kind).has_removals(kind.of(snapshot)) {
            self.held.remove(&kind);
            return true;
        }
        if is_unused {
            self.held.remove(&kind);
            return true;
        }
        let noticed = *self.held.entry(kind).or_insert(now);
        let until =
            noticed.max(self.listeners_sent.min(noticed.saturating_add(HOLD_MAX))).saturating_add(HOLD_MAX);
        if now < until {
            wake(step, until);
            return false;
        }
        true
    }

    /// Listeners that a client has are changed only when it has set up the new clusters that they may use.
    fn listeners_may_go(&mut self, snapshot: &Snapshot, now: Duration, step: &mut Step) -> bool {
        let (clusters, endpoints) = (&self.clusters, &self.endpoints);
        self.warming.retain(|name, until| {
            let is_ready = clusters.has(name)
                && !clusters.is_on_its_way(name)
                && (!snapshot.endpoints.contains_key(name)
                    || (endpoints.has(name) && !endpoints.is_on_its_way(name)));
            now < *until && !is_ready && clusters.knows(name) && !clusters.is_rejected(name)
        });
        let Some(until) = self.warming.values().max().copied() else { return true };
        wake(step, until);
        !self.listeners.has_any() || !self.listeners.has_changes(&snapshot.listeners)
    }

    /// Sends what is due of a type, in as many responses as its size needs.
    fn send(
        &mut self,
        kind: ResourceType,
        removals: bool,
        snapshot: &Snapshot,
        now: Duration,
        step: &mut Step,
    ) -> bool {
        let Some(due) = self.of(kind).due(kind.of(snapshot), removals) else { return false };
        if kind == ResourceType::Cluster {
            for cluster in &due.changed {
                if !self.clusters.has(&cluster.name) {
                    self.warming.insert(cluster.name.clone(), now.saturating_add(HOLD_MAX));
                }
                // A cluster that is set up anew waits for its endpoints, which the client counts as delivered.
                self.endpoints.resend(&cluster.name);
            }
        }
        for part in split(due) {
            self.nonce += 1;
            let nonce = self.nonce.to_string();
            step.responses.push(self.response(kind, &nonce, snapshot.revision, &part));
            let (resources, removed) = (part.changed.len(), part.removed.len());
            step.events.push(Event::Sent { kind, resources, removed });
            let response =
                Unanswered { nonce, revision: snapshot.revision, sent: part.changed, removed: part.removed };
            self.of(kind).sent(response);
        }
        true
    }

    fn response(
        &self,
        kind: ResourceType,
        nonce: &str,
        revision: u64,
        part: &Diff,
    ) -> discovery::DeltaDiscoveryResponse {
        discovery::DeltaDiscoveryResponse {
            system_version_info: revision.to_string(),
            resources: part.changed.iter().map(|resource| wire(kind, resource)).collect(),
            type_url: kind.type_url().into(),
            removed_resources: part.removed.iter().map(|name| name.to_string()).collect(),
            nonce: nonce.into(),
            control_plane: Some(ControlPlane { identifier: self.identifier.clone() }),
            ..Default::default()
        }
    }

    fn report(&mut self, snapshot: &Snapshot, now: Duration, step: &mut Step) {
        let is_open = self.clusters.is_open() && self.listeners.is_open();
        let listeners_settled = is_open && self.listeners.is_settled(&snapshot.listeners);
        if !listeners_settled {
            return;
        }
        let is_warming = self.warming.values().any(|until| now < *until);
        if !self.is_serving
            && !self.secrets.has_unanswered()
            && self.secrets.has_all_named()
            && (self.listeners.has_any() || snapshot.listeners.is_empty())
        {
            self.is_serving = true;
            step.events.push(Event::Serving);
        }
        let is_settled = !is_warming
            && self.clusters.is_settled(&snapshot.clusters)
            && self.endpoints.is_settled(&snapshot.endpoints)
            && self.secrets.is_settled(&snapshot.secrets);
        if is_settled && self.synced != Some(snapshot.revision) {
            self.synced = Some(snapshot.revision);
            step.events.push(Event::Synced { revision: snapshot.revision, rejected: self.rejected_len() });
        }
    }
}

fn wake(step: &mut Step, at: Duration) {
    step.wake_at = Some(step.wake_at.map_or(at, |other| other.min(at)));
}

fn wire(kind: ResourceType, resource: &EnvoyResource) -> discovery::Resource {
    discovery::Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(Any { type_url: kind.type_url().into(), value: resource.body.to_vec() }),
        ..Default::default()
    }
}

/// Parts of at most [`RESPONSE_BYTES_MAX`] (or one resource); removals go with the last. At least one part.
fn split(due: Diff) -> Vec<Diff> {
    let mut parts = Vec::new();
    let mut part = Diff::default();
    let mut bytes = 0;
    for resource in due.changed {
        let size = resource.body.len() + resource.name.len();
        if bytes + size > RESPONSE_BYTES_MAX && !part.changed.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.changed.push(resource);
    }
    part.removed = due.removed;
    parts.push(part);
    parts
}

fn shortened(message: &str) -> String {
    let end = (0..=MESSAGE_BYTES_MAX.min(message.len()))
        .rev()
        .find(|end| message.is_char_boundary(*end))
        .unwrap_or(0);
    message[..end].to_owned()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
