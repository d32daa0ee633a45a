//! The sending side of one stream: what the peer knows, what it lacks (federation.md §2.5).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graticule_model::Kind;
use graticule_proto::discovery::{ControlPlane, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_store::Revision;

use super::member::{self, AGAIN_MEMBER, FEATURES_MEMBER, HELD_BACK_MEMBER, TAKES_PARTS_MEMBER};
use super::quarantine::{NAMED_MAX, short_name};
use super::stamp::Stamp;
use super::{Catalog, Meshes, Offer, status};
use crate::wire::Version;

mod answers;
mod draft;

pub use draft::LargeState;
use draft::{Draft, draft};

/// Types that one stream may ask for; a Kuma 3 zone asks for 29.
const TYPES_MAX: usize = 256;
/// Bytes of the name of a type; no kind has a longer one.
const TYPE_LEN_MAX: usize = 256;
/// Bytes of names and versions that a peer may say it holds, on one stream: those of about a million resources.
pub(super) const PRESENTED_LEN_MAX: usize = 128 << 20;
/// Bytes of a presented version besides the name and the version; both sides count so.
pub(super) const PRESENTED_OVERHEAD: usize = 64;
/// Room that a response keeps for what is not a resource.
const RESPONSE_HEADROOM: usize = 64 * 1024;
/// Bytes that are encoded for one response to compare them with what a peer has. After a start nothing is encoded yet, and
/// everybody else waits meanwhile.
const COMPARED_LEN_MAX: usize = 8 * 1024 * 1024;
/// Bytes that are encoded while the catalog is held once: whoever writes to it waits for that long, and everybody else with
/// him.
const SLICE_LEN_MAX: usize = 256 * 1024;
/// What looking at one offer counts as, at least, in bytes.
const SLICE_LEN_EACH: usize = 64;
/// Bytes of responses that are put together while the catalog is held once, the last of them whole.
const POLL_LEN_MAX: usize = 1024 * 1024;
/// Who is at the other end, as far as filters care.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// The zone, when the peer is one.
    pub zone: String,
    /// Understands producer policies.
    pub producer_policies: bool,
    /// Understands generators for MeshMultiZoneServices.
    pub multi_zone_generators: bool,
    /// Wants to have resources of these.
    pub meshes: Meshes,
}

impl Peer {
    /// Whether it gets this; `disabled` are the disabled zones.
    fn gets(&self, offer: &Offer, disabled: &BTreeSet<String>) -> bool {
        self.meshes.include(&offer.key) && offer.audience.admits(self, disabled)
    }
}

/// Why a request ends its stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The protocol demands a node on every request.
    #[error("request for \"{0}\" has no node")]
    NoNode(String),
    /// More types than any peer knows.
    #[error("more than {TYPES_MAX} types on one stream")]
    TooManyTypes,
    /// Longer than any kind's name.
    #[error("type with a name of more than {TYPE_LEN_MAX} bytes")]
    TypeTooLong,
    /// More than any peer holds.
    #[error("initial_resource_versions: more than {PRESENTED_LEN_MAX} bytes on one stream")]
    TooMuchPresented,
}

/// What a request said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Asks for a type for the first time.
    Subscribed(Option<Kind>),
    /// Took the last response of a kind.
    Acked(Option<Kind>),
    /// Refused some of the last response of a kind.
    Nacked {
        /// The kind.
        kind: Option<Kind>,
        /// The peer's message.
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first response is due, whatever there is to say.
    First,
    /// May send.
    Armed,
    /// Waits for an answer.
    Waiting,
    /// The first response is too large to be sent.
    Held,
}

#[derive(Debug)]
struct TypeState {
    kind: Option<Kind>,
    phase: Phase,
    /// The peer told what it holds, so that a first response may be incomplete.
    resumed: bool,
    /// It always does, and knows the mark of a part.
    takes_parts: bool,
    /// Parts of the first state are still due.
    is_partial: bool,
    /// What the peer said that it holds, until the first response is made.
    presented: HashMap<String, String>,
    /// What the peer holds. Names and versions are those of the catalog where it has them, so that each further peer costs
    /// two references for each resource.
    known: BTreeMap<Arc<str>, Version>,
    dirty: BTreeSet<Arc<str>>,
    all_dirty: bool,
    in_flight: Vec<Arc<str>>,
    /// Nonce of what is in flight.
    nonce: u64,
    /// With reasons; beyond those that a report names they share one.
    rejected: BTreeMap<Arc<str>, Arc<str>>,
    /// What cannot be sent to this peer, with the reason.
    faults: BTreeMap<Arc<str>, String>,
    /// Why nothing of the kind is sent.
    held: Option<String>,
    /// Number of the further request that is being answered; 0 = of the first one.
    again: u64,
    /// Bytes that the peer said last it holds.
    presented_len: usize,
    /// How far the first state is prepared.
    prepared: Prepared,
    /// A complete first state that leaves little room in a message, until somebody has taken note.
    large: Option<LargeState>,
    /// Revision that the peer has once it takes what is in flight.
    sent: Revision,
    /// Revision that the peer has.
    acknowledged: Revision,
    /// Removals that the peer holds back.
    held_back: usize,
}

/// What is known about a first state before it is put together.
#[derive(Debug, Default)]
struct Prepared {
    /// All names up to this one.
    to: Option<Arc<str>>,
    /// Bytes since something was put together.
    len: usize,
    /// There are no more names.
    is_done: bool,
}

/// How far one kind is on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindCounts {
    /// The kind.
    pub kind: Kind,
    /// What the peer has as it is here.
    pub in_sync: usize,
    /// What is on its way, or waits until the peer has answered.
    pub pending: usize,
    /// What the peer refused, and what cannot be sent.
    pub quarantined: usize,
    /// Removals that the peer holds back.
    pub held_back: usize,
}

/// One stream's sending side.
#[derive(Debug)]
pub struct Source {
    identifier: String,
    response_len_max: usize,
    peer: Option<Peer>,
    node: Option<Node>,
    zone: Option<String>,
    nonce: u64,
    position: u64,
    /// Revision of the store at `position`.
    revision: Revision,
    types: BTreeMap<String, TypeState>,
    /// Kinds that are offered at all.
    provided: BTreeSet<Kind>,
}

impl Source {
    /// `identifier` names this control plane to the peer; `zone` is the authenticated peer if it is a zone;
    /// `message_len_max` is the largest message in bytes.
    pub fn new(identifier: &str, zone: Option<&str>, message_len_max: usize, catalog: &Catalog) -> Source {
        Source {
            identifier: identifier.into(),
            response_len_max: message_len_max.saturating_sub(RESPONSE_HEADROOM).max(RESPONSE_HEADROOM),
            peer: None,
            node: None,
            zone: zone.map(str::to_owned),
            nonce: 0,
            position: catalog.head(),
            revision: catalog.revision(),
            types: BTreeMap::new(),
            provided: Kind::all().filter(|kind| catalog.provides(*kind)).collect(),
        }
    }

    /// The node of the stream's first request, as far as it is kept.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The meshes that the peer wants to have resources of.
    pub fn meshes(&self) -> Meshes {
        self.peer.as_ref().map(|peer| peer.meshes.clone()).unwrap_or_default()
    }

    /// What the peer refused, by kind and wire name, with its reason: some hundred of each kind.
    pub fn rejected(&self) -> impl Iterator<Item = (Kind, &str, &str)> {
        self.types.values().flat_map(|state| {
            let rejected = state.rejected.iter().take(NAMED_MAX);
            rejected.filter_map(|(name, reason)| Some((state.kind?, &**name, &**reason)))
        })
    }

    /// How many more the peer refused.
    pub fn unnamed(&self) -> impl Iterator<Item = (Kind, usize)> {
        let unnamed = |state: &TypeState| state.rejected.len().saturating_sub(NAMED_MAX);
        self.types.values().filter_map(move |state| Some((state.kind?, unnamed(state))))
    }

    /// How far each kind is.
    pub fn counts(&self) -> impl Iterator<Item = KindCounts> {
        self.types.values().filter_map(|state| {
            let kind = state.kind?;
            let is_dirty = |name: &Arc<str>| state.dirty.contains(name);
            let on_its_way: BTreeSet<&Arc<str>> =
                state.in_flight.iter().filter(|name| !is_dirty(name)).collect();
            let is_moving = |name: &Arc<str>| is_dirty(name) || on_its_way.contains(name);
            let refused: BTreeSet<&Arc<str>> = state.rejected.keys().chain(state.faults.keys()).collect();
            let is_known = |name: &&Arc<str>| state.known.contains_key(*name);
            let unsettled = state.dirty.iter().filter(is_known).count()
                + on_its_way.iter().copied().filter(is_known).count()
                + refused.iter().copied().filter(is_known).filter(|name| !is_moving(name)).count();
            Some(KindCounts {
                kind,
                in_sync: state.known.len().saturating_sub(unsettled),
                pending: state.dirty.len() + on_its_way.len(),
                quarantined: refused.len(),
                held_back: state.held_back,
            })
        })
    }

    /// The newest revision that the peer has all of, what it refused left aside.
    pub fn acknowledged(&self) -> Revision {
        let of = |state: &TypeState| match state.phase {
            Phase::Armed if state.dirty.is_empty() && !state.all_dirty => self.revision,
            _ => state.acknowledged,
        };
        // What cannot be sent is reported, and holds up nothing else.
        let sent = self.types.values().filter(|state| state.phase != Phase::Held);
        sent.map(of).min().unwrap_or_default()
    }

    /// Position of the catalog up to which the peer has everything; `None` while something is on its way.
    pub fn settled_at(&self) -> Option<u64> {
        let is_settled = |state: &TypeState| match state.phase {
            Phase::Held => true,
            Phase::Armed => state.dirty.is_empty() && !state.all_dirty,
            Phase::First | Phase::Waiting => false,
        };
        (!self.types.is_empty() && self.types.values().all(is_settled)).then_some(self.position)
    }

    /// Parts of a first state are due.
    pub fn is_partial(&self) -> bool {
        self.types.values().any(|state| state.is_partial && state.phase != Phase::First)
    }

    /// Complete first states that leave little room in a message, told once.
    pub fn take_large(&mut self) -> impl Iterator<Item = LargeState> {
        self.types.values_mut().filter_map(|state| state.large.take())
    }

    /// What has waited longest for its answer: the kind, and a number that tells it from others.
    pub fn waits_for(&self) -> Option<(&str, u64)> {
        let waiting = self.types.iter().filter(|(_, state)| state.phase == Phase::Waiting);
        waiting.map(|(type_url, state)| (type_url.as_str(), state.nonce)).min_by_key(|(_, nonce)| *nonce)
    }

    /// How many resources and removals wait for their answer.
    pub fn in_flight(&self) -> usize {
        let waiting = self.types.values().filter(|state| state.phase == Phase::Waiting);
        waiting.map(|state| state.in_flight.len()).sum()
    }

    /// What cannot be sent on this stream, by kind and wire name (empty: nothing of the kind), with the reason.
    pub fn faults(&self) -> impl Iterator<Item = (Kind, &str, &str)> {
        self.types.values().flat_map(|state| {
            let held = state.held.as_deref().map(|reason| ("", reason));
            let faults = state.faults.iter().map(|(name, reason)| (&**name, reason.as_str()));
            held.into_iter().chain(faults).filter_map(|(name, reason)| Some((state.kind?, name, reason)))
        })
    }

    /// Bytes that the peer said it holds, as far as they count.
    pub(super) fn presented_len(&self) -> usize {
        self.types.values().map(|state| state.presented_len).sum()
    }

    /// Takes a request.
    ///
    /// # Errors
    /// The stream (and nothing else) must end.
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<Received, Refused> {
        let Some(node) = request.node else {
            return Err(Refused::NoNode(short_name(&request.type_url).into_owned()));
        };
        let waiting = usize::try_from(member::number(&node, HELD_BACK_MEMBER)).unwrap_or(usize::MAX);
        if self.peer.is_none() {
            let features: BTreeSet<String> = member::texts(&node, FEATURES_MEMBER).collect();
            self.peer = Some(Peer {
                zone: self.zone.clone().unwrap_or_default(),
                producer_policies: features.contains("producer-policy-flow"),
                multi_zone_generators: features.contains("hg-mz-selector"),
                // Global wants to have everything.
                meshes: self.zone.as_ref().map(|_| Meshes::told_by(&node)).unwrap_or_default(),
            });
            self.node = Some(status::bounded(&node));
        }
        let too_many = self.types.len() >= TYPES_MAX;
        let number = member::number(&node, AGAIN_MEMBER);
        let kind = Kind::from_name(&request.type_url).ok();
        // Of what is never sent, nothing is compared.
        let is_provided = kind.is_some_and(|kind| self.provided.contains(&kind));
        let versions = if is_provided { request.initial_resource_versions } else { HashMap::new() };
        let presented_len = presented_len(&versions);
        if presented_len > 0 {
            let own = self.types.get(&request.type_url).map_or(0, |state| state.presented_len);
            if self.presented_len() - own + presented_len > PRESENTED_LEN_MAX {
                return Err(Refused::TooMuchPresented);
            }
        }
        if let Some(state) = self.types.get_mut(&request.type_url)
            && state.takes_parts
            && number > state.again
        {
            state.presented_len = presented_len;
            state.begin_again(number, versions, waiting);
            return Ok(Received::Subscribed(state.kind));
        }
        let Some(state) = self.types.get_mut(&request.type_url) else {
            if too_many {
                return Err(Refused::TooManyTypes);
            }
            if request.type_url.len() > TYPE_LEN_MAX {
                return Err(Refused::TypeTooLong);
            }
            let takes_parts = member::is_true(&node, TAKES_PARTS_MEMBER);
            let state = TypeState {
                kind,
                phase: Phase::First,
                resumed: takes_parts || !versions.is_empty(),
                takes_parts,
                is_partial: takes_parts,
                presented: versions,
                known: BTreeMap::new(),
                dirty: BTreeSet::new(),
                all_dirty: true,
                in_flight: Vec::new(),
                nonce: 0,
                rejected: BTreeMap::new(),
                faults: BTreeMap::new(),
                held: None,
                again: 0,
                presented_len,
                prepared: Prepared::default(),
                large: None,
                sent: Revision::default(),
                acknowledged: Revision::default(),
                held_back: waiting,
            };
            self.types.insert(request.type_url, state);
            return Ok(Received::Subscribed(kind));
        };
        state.held_back = waiting;
        Ok(state.answered(request.error_detail))
    }

    /// Encodes a little of what the next responses need. True: there is more, and others may have the catalog meanwhile.
    /// Nothing depends on it but the time that [`poll`](Self::poll) takes.
    pub fn prepare(&mut self, catalog: &Catalog) -> bool {
        let Some(peer) = self.peer.as_ref().filter(|_| catalog.is_ready()) else { return false };
        let mut slice_len = 0;
        for state in self.types.values_mut() {
            let is_due = state.phase == Phase::First || (state.phase == Phase::Armed && state.is_partial);
            let Some(kind) = state.kind.filter(|_| is_due && !state.prepared.is_done) else { continue };
            // One that has to be sent whole needs the encodings, others only the versions.
            let len_max = if state.takes_parts { COMPARED_LEN_MAX } else { self.response_len_max };
            let prepared = &mut state.prepared;
            for (name, offer) in catalog.after(kind, prepared.to.clone()) {
                if prepared.len > len_max {
                    break;
                }
                if slice_len > SLICE_LEN_MAX {
                    return true;
                }
                slice_len += SLICE_LEN_EACH;
                if peer.gets(offer, catalog.disabled_zones()) {
                    let is_new =
                        if state.takes_parts { catalog.version_cost(offer) } else { catalog.encode(offer) };
                    slice_len += is_new;
                    prepared.len += is_new;
                }
                prepared.to = Some(name.clone());
            }
            prepared.is_done = prepared.len <= len_max;
        }
        false
    }

    /// What may be sent now: at most one response per type. Not everything at once: call it until nothing comes.
    pub fn poll(&mut self, catalog: &Catalog) -> Vec<(Option<Kind>, DeltaDiscoveryResponse)> {
        let Some(peer) = self.peer.clone().filter(|_| catalog.is_ready()) else { return Vec::new() };
        self.catch_up(catalog);
        let (mut out, mut out_len) = (Vec::new(), 0);
        let mut order: Vec<(u8, String)> =
            self.types.iter().map(|(url, state)| (rank(state.kind), url.clone())).collect();
        order.sort_unstable();
        for (_, type_url) in order {
            if out_len > POLL_LEN_MAX {
                break;
            }
            let Some(state) = self.types.get_mut(&type_url) else { continue };
            let draft = match state.phase {
                Phase::Waiting | Phase::Held => continue,
                Phase::Armed if state.dirty.is_empty() && !state.all_dirty => continue,
                Phase::First | Phase::Armed => draft(state, &peer, catalog, self.response_len_max),
            };
            state.prepared.len = 0;
            let Draft { resources, removed, names, len } = match draft {
                Some(draft) => draft,
                None => {
                    state.phase = Phase::Held;
                    continue;
                }
            };
            state.held = None;
            // Whoever waits for the last part hears that there is none.
            if state.phase == Phase::Armed && resources.is_empty() && removed.is_empty() && !state.is_partial
            {
                continue;
            }
            self.nonce += 1;
            state.nonce = self.nonce;
            state.phase = Phase::Waiting;
            if state.dirty.is_empty() {
                state.sent = self.revision;
            }
            state.is_partial &= !state.dirty.is_empty();
            state.in_flight = names;
            out_len += len;
            let (kind, stamp) = (state.kind, state.stamp());
            let stamp = stamp.map(|stamp| Stamp { revision: self.delivered(), ..stamp }.to_text());
            out.push((
                kind,
                DeltaDiscoveryResponse {
                    resources,
                    removed_resources: removed,
                    type_url,
                    system_version_info: stamp.unwrap_or_default(),
                    nonce: self.nonce.to_string(),
                    control_plane: Some(ControlPlane { identifier: self.identifier.clone() }),
                    ..Default::default()
                },
            ));
        }
        out
    }

    /// The newest revision that the peer has all of once it has taken everything that was sent. It takes messages in their
    /// order, so each may say this of itself and those before it.
    fn delivered(&self) -> Revision {
        let of = |state: &TypeState| match state.phase {
            Phase::Armed | Phase::Waiting if state.dirty.is_empty() && !state.all_dirty => self.revision,
            _ => state.sent,
        };
        let sent = self.types.values().filter(|state| state.phase != Phase::Held);
        sent.map(of).min().unwrap_or_default()
    }

    fn catch_up(&mut self, catalog: &Catalog) {
        let mut by_kind: BTreeMap<Kind, &mut TypeState> = BTreeMap::new();
        for state in self.types.values_mut() {
            if let Some(kind) = state.kind {
                // Nothing was missing until now: what changes next takes nothing of that back.
                if state.phase == Phase::Armed && state.dirty.is_empty() && !state.all_dirty {
                    (state.sent, state.acknowledged) = (self.revision, self.revision);
                }
                by_kind.insert(kind, state);
            }
        }
        match catalog.changes_since(self.position) {
            Some(changes) => {
                for (kind, name) in changes {
                    if let Some(state) = by_kind.get_mut(&kind) {
                        state.dirty.insert(name.clone());
                        if state.phase == Phase::Held {
                            state.phase = Phase::First;
                        }
                    }
                }
            }
            None => {
                for state in by_kind.into_values() {
                    state.all_dirty = true;
                    if state.phase == Phase::Held {
                        state.phase = Phase::First;
                    }
                }
            }
        }
        self.position = catalog.head();
        self.revision = catalog.revision();
    }
}

impl TypeState {
    /// The peer wants everything that it does not present, as with its first request.
    fn begin_again(&mut self, number: u64, presented: HashMap<String, String>, held_back: usize) {
        self.again = number;
        self.phase = Phase::First;
        self.prepared = Prepared::default();
        self.resumed = true;
        self.is_partial = true;
        self.presented = presented;
        self.known.clear();
        self.all_dirty = true;
        // What is on its way is not taken any more, and comes again.
        self.sent = self.acknowledged;
        self.in_flight.clear();
        self.rejected.clear();
        self.held_back = held_back;
    }

    /// What responses say besides, to who understands it; without the revision.
    fn stamp(&self) -> Option<Stamp> {
        self.takes_parts.then(|| Stamp {
            again: self.again,
            more_follows: self.is_partial,
            ..Stamp::default()
        })
    }
}

/// A helpful order; peers cope with any.
fn rank(kind: Option<Kind>) -> u8 {
    match kind {
        Some(Kind::Config) => 0,
        Some(Kind::Mesh) => 1,
        Some(Kind::Secret | Kind::GlobalSecret) => 2,
        Some(Kind::MeshIdentity | Kind::MeshTrust) => 3,
        Some(Kind::Dataplane) => 4,
        Some(Kind::MeshService | Kind::Workload) => 5,
        Some(Kind::MeshZoneAddress | Kind::HostnameGenerator) => 6,
        Some(Kind::DataplaneInsight) => 8,
        _ => 7,
    }
}

/// Bytes of what a peer says it holds.
fn presented_len(versions: &HashMap<String, String>) -> usize {
    versions.iter().map(|(name, version)| name.len() + version.len() + PRESENTED_OVERHEAD).sum()
}
