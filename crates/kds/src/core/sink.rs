//! The receiving side of one stream: what is taken from a peer, and what is refused (federation.md §5).
//!
//! Responses go in with what is stored, writes come out. A resource that cannot be taken is left out and
//! named; the rest is applied, and what was stored before stays (DESIGN decision 8).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graticule_model::kinds::mesh_trust::MeshTrust;
use graticule_model::{Key, Kind, Resource, Status};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::google::protobuf::Any;
use graticule_proto::google::rpc;
use graticule_proto::graticule::kds::v1 as pb;
use graticule_store::{Expect, Write};
use prost::Message;

use super::filter::is_hashed;
use super::{kinds_for_global, kinds_for_zones, rewrite};
use crate::wire::{self, Encoded, Version};

/// Rejections that one acknowledgement lists; the rest is counted.
const REJECTIONS_LISTED_MAX: usize = 64;

/// Who receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A zone, from global.
    Zone,
    /// Global, from this zone.
    Global {
        /// The authenticated sender.
        zone: String,
    },
}

/// What is stored here.
pub trait Held {
    /// One resource.
    fn get(&self, key: &Key) -> Option<Arc<Resource>>;
    /// All of a kind.
    fn list(&self, kind: Kind) -> Vec<Arc<Resource>>;
}

/// A resource that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `<name>.<mesh>`.
    pub name: String,
    /// Why, without secrets.
    pub reason: String,
}

/// What a response comes to.
#[derive(Debug, Clone, Default)]
pub struct Intake {
    /// The kind, if it is one that this peer may provide.
    pub kind: Option<Kind>,
    /// What to write; all of one plane.
    pub writes: Vec<Write>,
    /// What was left out.
    pub rejections: Vec<Rejection>,
    type_url: String,
    nonce: String,
    /// Wire name → own and received version of what was taken.
    taken: Vec<(String, Version, Version)>,
    removed: Vec<String>,
}

#[derive(Debug, Default)]
struct KindState {
    /// The next response is the peer's complete state.
    complete: bool,
    /// What was received: own version at that time → the peer's version. Own versions are computed from
    /// what is stored, so that damage to a copy shows and is repaired at the next connection.
    received: HashMap<String, (Version, Version)>,
    quarantine: BTreeMap<String, String>,
}

/// One peer's receiving side. Lives longer than a stream: it remembers received versions.
#[derive(Debug)]
pub struct Sink {
    side: Side,
    present_versions: bool,
    kinds: BTreeMap<Kind, KindState>,
}

impl Sink {
    /// `present_versions`: ask peers for differences only (federation.md §2.5, "useful freedom").
    pub fn new(side: Side, present_versions: bool) -> Sink {
        let kinds: Vec<Kind> = match side {
            Side::Zone => kinds_for_zones().collect(),
            Side::Global { .. } => kinds_for_global().collect(),
        };
        let kinds = kinds.into_iter().map(|kind| (kind, KindState::default())).collect();
        Sink { side, present_versions, kinds }
    }

    /// What is refused now, by kind and wire name, with its reason.
    pub fn quarantine(&self) -> impl Iterator<Item = (Kind, &str, &str)> {
        self.kinds.iter().flat_map(|(kind, state)| {
            state.quarantine.iter().map(|(name, reason)| (*kind, name.as_str(), reason.as_str()))
        })
    }

    /// The requests that start a stream, one per kind.
    pub fn start(&mut self, node: &Node, held: &dyn Held) -> Vec<DeltaDiscoveryRequest> {
        let (side, present) = (self.side.clone(), self.present_versions);
        let mut requests = Vec::with_capacity(self.kinds.len());
        for (&kind, state) in &mut self.kinds {
            state.quarantine.clear();
            let mut versions = HashMap::new();
            if present {
                let copies = held.list(kind);
                for copy in copies.iter().filter(|copy| side.owns(copy)) {
                    let Some(own) = side.own_version(copy) else { continue };
                    let name = wire::wire_name(&copy.meta);
                    let version = match state.received.get(&name) {
                        Some((at_receipt, received)) if *at_receipt == own => received.clone(),
                        _ => own,
                    };
                    versions.insert(name, version.to_string());
                }
            }
            // Whoever told what it holds gets differences, removals among them; else absence means removal.
            state.complete = !present;
            requests.push(DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: kind.name().into(),
                resource_names_subscribe: vec!["*".into()],
                initial_resource_versions: versions,
                ..Default::default()
            });
        }
        requests
    }

    /// What a response comes to, given what is stored. Changes nothing; call it again when the store moved.
    pub fn on_response(&self, response: &DeltaDiscoveryResponse, held: &dyn Held) -> Intake {
        let mut intake = Intake {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            ..Intake::default()
        };
        let known = Kind::from_name(&response.type_url).ok();
        let Some((kind, state)) = known.and_then(|kind| Some((kind, self.kinds.get(&kind)?))) else {
            let reason = format!("resources of type \"{}\" are not taken from this peer", response.type_url);
            intake.rejections.push(Rejection { name: response.type_url.clone(), reason });
            return intake;
        };
        intake.kind = Some(kind);
        let mut mentioned = BTreeSet::new();
        let mut writes: BTreeMap<Key, Write> = BTreeMap::new();
        for item in &response.resources {
            if let Some(key) = wire::key_of(kind, &item.name) {
                mentioned.insert(key);
            }
            let decoded = wire::decode(kind, item).map_err(|error| Rejection {
                reason: format!("{}: {}", error.name, error.reason),
                name: error.name,
            });
            let taken = decoded.and_then(|resource| {
                mentioned.insert(resource.key());
                self.take(resource, held)
            });
            match taken {
                Ok(None) => {}
                Ok(Some(Taken { resource, write })) => {
                    let name = wire::wire_name(&resource.meta);
                    if let Some(own) = self.side.own_version(&resource) {
                        intake.taken.push((name, own, item.version.as_str().into()));
                    }
                    match write {
                        Some(expect) => {
                            let key = resource.key();
                            let put = Write::Put { resource: Box::new(resource), expect, touch: false };
                            writes.insert(key, put);
                        }
                        None => {
                            writes.remove(&resource.key());
                        }
                    }
                }
                Err(rejection) => intake.rejections.push(rejection),
            }
        }
        for copy in self.removals(kind, state, response, &mentioned, held) {
            let key = copy.key();
            intake.removed.push(wire::wire_name(&copy.meta));
            writes.insert(key.clone(), Write::Delete { key, expect: Expect::Version(copy.meta.version) });
        }
        intake.writes = writes.into_values().collect();
        intake
    }

    /// The one place that decides what a response deletes. Follows the reference: a peer that says that it
    /// has nothing left is believed.
    fn removals(
        &self,
        kind: Kind,
        state: &KindState,
        response: &DeltaDiscoveryResponse,
        mentioned: &BTreeSet<Key>,
        held: &dyn Held,
    ) -> Vec<Arc<Resource>> {
        let mut gone: BTreeMap<Key, Arc<Resource>> = BTreeMap::new();
        if state.complete {
            gone.extend(held.list(kind).into_iter().map(|copy| (copy.key(), copy)));
        }
        let removed = response.removed_resources.iter().filter_map(|name| wire::key_of(kind, name));
        gone.extend(removed.filter_map(|key| Some((key.clone(), held.get(&key)?))));
        gone.retain(|key, copy| !mentioned.contains(key) && self.side.owns(copy));
        gone.into_values().collect()
    }

    /// `None`: out of scope, ignored.
    fn take(&self, mut resource: Resource, held: &dyn Held) -> Result<Option<Taken>, Rejection> {
        let name = wire::wire_name(&resource.meta);
        let kind = resource.kind();
        let refuse = |reason: String| Rejection { name: name.clone(), reason };
        match &self.side {
            Side::Global { zone } => rewrite::as_owned_by_zone(&mut resource, zone),
            Side::Zone if kind.descriptor().kds.provided_by_zone() && resource.meta.is_local_to_zone() => {
                return Ok(None);
            }
            Side::Zone => resource.status = Status::empty(kind),
        }
        resource.validate().map_err(|violations| refuse(violations.to_string()))?;
        if let Side::Global { zone } = &self.side
            && let Some(owner) = trust_domain_owner(&resource, zone, held)
        {
            return Err(refuse(format!(
                "spec.trustDomain: belongs to zone \"{owner}\", which published it first"
            )));
        }
        let Some(stored) = held.get(&resource.key()) else {
            return Ok(Some(Taken { resource, write: Some(Expect::Absent) }));
        };
        if !self.side.owns(&stored) && !self.may_replace(&resource, &stored) {
            return Err(refuse(format!("user error\nresource already exists: {}", resource.key())));
        }
        if self.side == Side::Zone {
            resource.status = stored.status.clone();
        }
        let changed = !resource.same_content(&stored) || !self.side.owns(&stored);
        let write = changed.then_some(Expect::Version(stored.meta.version));
        Ok(Some(Taken { resource, write }))
    }

    /// Whether a name that somebody else holds goes to the sender: it does when the sender's claim to the
    /// name is the hash, and the holder's is not (DESIGN decision 17).
    fn may_replace(&self, resource: &Resource, stored: &Resource) -> bool {
        let capabilities = resource.kind().descriptor().capabilities;
        match self.side {
            Side::Zone => !capabilities.keeps_name && is_hashed(resource),
            Side::Global { .. } => {
                !stored.meta.is_local_to_global() && is_hashed(resource) && !is_hashed(stored)
            }
        }
    }

    /// Ends the work on a response: the acknowledgement. `failed` are writes that the store refused.
    pub fn settle(
        &mut self,
        mut intake: Intake,
        failed: Vec<Rejection>,
        node: &Node,
    ) -> DeltaDiscoveryRequest {
        intake.rejections.extend(failed);
        if let Some(state) = intake.kind.and_then(|kind| self.kinds.get_mut(&kind)) {
            state.complete = false;
            for name in &intake.removed {
                state.received.remove(name);
                state.quarantine.remove(name);
            }
            for (name, own, received) in intake.taken {
                state.quarantine.remove(&name);
                state.received.insert(name, (own, received));
            }
            for rejection in &intake.rejections {
                state.received.remove(&rejection.name);
                state.quarantine.insert(rejection.name.clone(), rejection.reason.clone());
            }
        }
        let mut reply = DeltaDiscoveryRequest {
            node: Some(Node { id: node.id.clone(), ..Default::default() }),
            type_url: intake.type_url,
            response_nonce: intake.nonce,
            ..Default::default()
        };
        if !intake.rejections.is_empty() {
            reply.resource_names_subscribe = vec!["*".into()];
            reply.error_detail = Some(error_detail(&intake.rejections));
        }
        reply
    }
}

struct Taken {
    resource: Resource,
    /// `None`: nothing to write.
    write: Option<Expect>,
}

impl Side {
    /// Whether a stored resource is a copy that this peer controls (federation.md §5.1, step 3).
    fn owns(&self, stored: &Resource) -> bool {
        match self {
            Side::Global { zone } => !stored.meta.is_local_to_global() && stored.meta.zone() == Some(zone),
            Side::Zone => {
                !stored.kind().descriptor().kds.provided_by_zone() || !stored.meta.is_local_to_zone()
            }
        }
    }

    /// Version of a copy in the form in which the peer sends it.
    fn own_version(&self, copy: &Resource) -> Option<Version> {
        let encoded = match self {
            Side::Global { .. } => Encoded::of(copy),
            Side::Zone => Encoded::of(&Resource { status: Status::empty(copy.kind()), ..copy.clone() }),
        };
        encoded.ok().map(|encoded| encoded.version)
    }
}

/// The other zone that published this trust domain in the mesh (DESIGN decision 14).
fn trust_domain_owner(resource: &Resource, zone: &str, held: &dyn Held) -> Option<String> {
    let trust = resource.spec_as::<MeshTrust>()?;
    let others = held.list(Kind::MeshTrust);
    let claim = others.iter().find(|other| {
        other.meta.mesh == resource.meta.mesh
            && !other.meta.is_local_to_global()
            && other.meta.zone().is_some_and(|owner| owner != zone)
            && other.spec_as::<MeshTrust>().is_some_and(|other| other.trust_domain == trust.trust_domain)
    })?;
    claim.meta.zone().map(str::to_owned)
}

fn error_detail(rejections: &[Rejection]) -> rpc::Status {
    let listed = &rejections[..rejections.len().min(REJECTIONS_LISTED_MAX)];
    let mut lines: Vec<String> = listed.iter().map(|rejection| rejection.reason.clone()).collect();
    if rejections.len() > listed.len() {
        lines.push(format!("and {} more", rejections.len() - listed.len()));
    }
    let detail = pb::Rejections {
        rejections: listed
            .iter()
            .map(|rejection| pb::Rejection { name: rejection.name.clone(), reason: rejection.reason.clone() })
            .collect(),
    };
    rpc::Status {
        code: 0,
        message: lines.join("\n"),
        details: vec![Any {
            type_url: "type.googleapis.com/graticule.kds.v1.Rejections".into(),
            value: detail.encode_to_vec(),
        }],
    }
}
