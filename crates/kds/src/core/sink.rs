//! The receiving side of one stream: what is taken from a peer, and what is refused (federation.md §5).
//!
//! Responses go in with what is stored, writes come out. A resource that cannot be taken is left out and
//! named; the rest is applied, and what was stored before stays (DESIGN decision 8).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_store::{Revision, Snapshot};

use super::limit::{self, Change, Usage, Used, ZoneLimit};
use super::member::{self, AGAIN_MEMBER, HELD_BACK_MEMBER, TAKES_PARTS_MEMBER};
use super::protection::DeletionProtection;
use super::quarantine::Quarantine;
use super::repair::Repairs;
use super::source::{PRESENTED_LEN_MAX, PRESENTED_OVERHEAD};
use super::stamp::Stamp;
use super::{Meshes, kinds_for_global, kinds_for_zones};
use crate::wire::{self, Version};

mod heal;
mod intake;
mod judge;
mod reply;
mod side;

pub use heal::{Obstacle, Repair};
pub use intake::{Intake, Rejection};
pub use side::Side;

/// What is stored here.
pub trait Held: Sync {
    /// One resource.
    fn get(&self, key: &Key) -> Option<Arc<Resource>>;
    /// All of a kind.
    fn list(&self, kind: Kind) -> Vec<Arc<Resource>>;
}

impl Held for Snapshot {
    fn get(&self, key: &Key) -> Option<Arc<Resource>> {
        Snapshot::get(self, key)
    }

    fn list(&self, kind: Kind) -> Vec<Arc<Resource>> {
        Snapshot::list(self, kind, None).cloned().collect()
    }
}

/// Whether the global that a zone is connected to is the one whose copies it holds, by the id of its federation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GlobalSeen {
    /// It has not said yet.
    #[default]
    Unknown,
    /// It is, or the zone holds no copies of any.
    Known,
    /// It is another one, or one that was made anew.
    Other {
        /// The id of the federation that the zone belongs to.
        own: String,
        /// What this global says; empty: it has none.
        offered: String,
    },
}

#[derive(Debug, Default)]
struct KindState {
    /// The first state is the peer's complete state: what it does not mention is gone.
    complete: bool,
    /// What the parts of a complete first state have mentioned so far.
    mentioned: BTreeSet<Key>,
    /// What was received: own version at that time → the peer's version. Own versions are computed from
    /// what is stored, so that damage to a copy shows and is repaired at the next connection.
    received: HashMap<Arc<str>, (Version, Version)>,
    /// What was presented when the stream began and the peer has not contradicted: own version, and the presented one.
    presented: HashMap<Arc<str>, (Version, Version)>,
    /// Bytes of what was presented, as the peer counts them.
    presented_len: usize,
    quarantine: Quarantine,
    /// What the copies take; only at global.
    used: Used,
    /// Number of the newest further request for the kind on this stream; 0 = none. What answers an earlier one is not taken.
    again: u64,
    /// The answer to it, or a part of it, is due: what comes of other kinds meanwhile completes nothing.
    is_asked: bool,
    /// The first state of the stream, or a part of it, is due.
    first: bool,
    /// Wire names of copies whose removal waits for a decision.
    held_back: BTreeSet<String>,
    /// Wire names of copies that an operator gave up.
    given_up: BTreeSet<String>,
}

/// Whether a copy of the peer's is stored under this wire name.
fn is_there(kind: Kind, name: &str, side: &Side, meshes: &Meshes, held: &dyn Held) -> bool {
    let key = wire::key_of(kind, name).filter(|key| meshes.include(key));
    key.and_then(|key| held.get(&key)).is_some_and(|stored| side.owns(&stored))
}

impl KindState {
    /// What went by another hand waits for nobody. Tells what of it was held back.
    fn forget_gone(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<String> {
        self.given_up.retain(|name| is_there(name));
        let gone: Vec<String> = self.held_back.iter().filter(|name| !is_there(name)).cloned().collect();
        for name in &gone {
            self.held_back.remove(name);
        }
        gone
    }

    /// Something of the kind is missing that was asked for.
    fn is_due(&self) -> bool {
        self.first || self.is_asked
    }
}

/// One peer's receiving side. Lives longer than a stream: it remembers received versions.
#[derive(Debug)]
pub struct Sink {
    side: Side,
    present_versions: bool,
    /// In a zone: of the others nothing is taken, and what is there of them is nobody's.
    meshes: Meshes,
    /// Bytes that the versions of one kind may take in a request.
    presented_len_max: usize,
    /// Bytes that those of all kinds may take on one stream.
    presented_total_max: usize,
    protection: DeletionProtection,
    limit: ZoneLimit,
    /// The peer is not the one that the copies came from: what it does not have is held back.
    estranged: bool,
    global: GlobalSeen,
    /// The id of another federation that an operator agreed to.
    agreed: Option<String>,
    /// How many removals of each kind an operator agreed to beyond those that are given up by name.
    agreed_removals: BTreeMap<Kind, usize>,
    kinds: BTreeMap<Kind, KindState>,
    repairs: Repairs,
    /// The peer of this stream marks its responses: it is one of ours.
    is_ours: bool,
    /// Revision of the peer's store that is taken.
    taken: Option<Revision>,
}

impl Sink {
    /// `present_versions`: ask peers for differences only (federation.md §2.5, "useful freedom").
    pub fn new(side: Side, present_versions: bool) -> Sink {
        let kinds: Vec<Kind> = match side {
            Side::Zone => kinds_for_zones().collect(),
            Side::Global { .. } => kinds_for_global().collect(),
        };
        let kinds = kinds.into_iter().map(|kind| (kind, KindState::default())).collect();
        Sink {
            side,
            present_versions,
            meshes: Meshes::default(),
            presented_len_max: usize::MAX,
            presented_total_max: PRESENTED_LEN_MAX,
            protection: DeletionProtection::default(),
            limit: ZoneLimit::NONE,
            estranged: false,
            global: GlobalSeen::Unknown,
            agreed: None,
            agreed_removals: BTreeMap::new(),
            kinds,
            repairs: Repairs::default(),
            is_ours: false,
            taken: None,
        }
    }

    /// Makes requests that fit into messages of this many bytes.
    pub fn fit_into(&mut self, message_len_max: usize) {
        // More is counted than travels, and the rest of the request is small.
        self.presented_len_max = message_len_max - message_len_max / 4;
    }

    /// Presents no more than this on one stream.
    #[cfg(test)]
    pub(super) fn present_at_most(&mut self, total: usize) {
        self.presented_total_max = total;
    }

    /// Protects copies against mass deletion in this way.
    pub fn protect(&mut self, protection: DeletionProtection) {
        self.protection = protection;
    }

    /// The meshes that a zone takes part in.
    pub fn set_meshes(&mut self, meshes: Meshes) {
        self.meshes = meshes;
    }

    /// Lets the peer store no more than this here; counted from the next stream on, and only at global.
    pub fn limit(&mut self, limit: ZoneLimit) {
        self.limit = limit;
    }

    /// How much the zone stores here.
    pub fn usage(&self) -> Usage {
        let used = self.used();
        Usage {
            resources: used.resources,
            resources_max: self.limit.resources,
            bytes: used.bytes,
            bytes_max: self.limit.bytes,
        }
    }

    /// Only what a zone stores at global is counted.
    fn is_limited(&self) -> bool {
        matches!(self.side, Side::Global { .. })
    }

    fn used(&self) -> Used {
        limit::total(self.kinds.iter().map(|(kind, state)| (kind, state.used)))
    }

    /// Whether the peer is not the one that the copies came from (a zone with another identity).
    pub fn set_estranged(&mut self, estranged: bool) {
        self.estranged = estranged;
    }

    /// Which global a zone is connected to.
    pub fn global(&self) -> &GlobalSeen {
        &self.global
    }

    /// The first state of every kind was taken since the stream began.
    pub fn is_synced(&self) -> bool {
        self.kinds.values().all(|state| !state.first)
    }

    /// The peer of this stream marked a response: it is one of ours.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// A zone takes nothing before it knows that this is its global; the response waits.
    pub fn must_wait(&self, response: &DeltaDiscoveryResponse) -> bool {
        self.side == Side::Zone
            && self.protection.number > 0
            && self.global != GlobalSeen::Known
            && response.type_url != Kind::Config.name()
    }

    /// Revision of the peer's store that is taken as a whole; `None`: it does not say, or not all of its first state is here.
    pub fn taken(&self) -> Option<Revision> {
        self.taken.filter(|_| self.is_synced())
    }

    /// In a zone: the revision of global that is taken as a whole once this response is; `None`: none is.
    pub fn completes(&self, intake: &Intake) -> Option<Revision> {
        let stamp = intake.stamp.filter(|stamp| !stamp.more_follows && self.side == Side::Zone)?;
        let others_are_taken =
            self.kinds.iter().all(|(kind, state)| !state.is_due() || Some(*kind) == intake.kind);
        (others_are_taken && stamp.revision > Revision::default()).then_some(stamp.revision)
    }

    /// Copies whose removal waits for a decision, by kind and wire name.
    pub fn held_back(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.kinds.iter().flat_map(|(kind, state)| state.held_back.iter().map(|name| (*kind, name.as_str())))
    }

    /// An operator gives up what is held back, and agrees to the global that the zone is connected to; takes effect with
    /// the next stream. Tells how many copies that concerns, as far as it is known.
    pub fn accept_deletions(&mut self) -> usize {
        if let GlobalSeen::Other { offered, .. } = &self.global {
            self.agreed = Some(offered.clone());
        }
        self.estranged = false;
        let mut given_up = 0;
        for state in self.kinds.values_mut() {
            given_up += state.held_back.len();
            state.given_up.append(&mut state.held_back);
        }
        given_up
    }

    /// At global: what operators decided about this zone, who gave up so many copies of each kind; none: nothing. That counts
    /// until the next stream is brought into step, and nothing that was decided before counts besides: another replica may
    /// have carried it out. What this one remembers beyond the number was not shown to the operator.
    pub fn set_decision(&mut self, mut given_up: BTreeMap<Kind, usize>) {
        for (kind, state) in &mut self.kinds {
            state.held_back.append(&mut state.given_up);
            let Some(agreed) = given_up.get_mut(kind) else { continue };
            let known = std::mem::take(&mut state.held_back);
            if known.len() <= *agreed {
                *agreed -= known.len();
                state.given_up = known;
            }
        }
        self.agreed_removals = given_up;
    }

    /// How many copies of each kind are held of this peer.
    pub fn holds(&self, held: &dyn Held) -> impl Iterator<Item = (Kind, usize)> {
        let of = |kind| held.list(kind).iter().filter(|copy| self.is_copy(copy)).count();
        self.kinds.keys().map(move |kind| (*kind, of(*kind)))
    }

    /// What is refused now, by kind and wire name, with its reason: some hundred of each kind, and what others are in the way
    /// of.
    pub fn quarantine(&self) -> impl Iterator<Item = (Kind, &str, &str)> {
        self.kinds
            .iter()
            .flat_map(|(kind, state)| state.quarantine.named().map(|(name, reason)| (*kind, name, reason)))
    }

    /// How many more are refused.
    pub fn unnamed(&self) -> impl Iterator<Item = (Kind, usize)> {
        self.kinds.iter().map(|(kind, state)| (*kind, state.quarantine.unnamed()))
    }

    /// The requests that start a stream, one per kind.
    pub fn start(&mut self, node: &Node, held: &dyn Held) -> Vec<DeltaDiscoveryRequest> {
        self.is_ours = false;
        self.taken = None;
        self.repairs.all_asked();
        self.global = match self.own_federation(held) {
            Some(_) => GlobalSeen::Unknown,
            // Nothing to lose, whoever it is.
            None => GlobalSeen::Known,
        };
        let kinds: Vec<Kind> = self.kinds.keys().copied().collect();
        for state in self.kinds.values_mut() {
            (state.again, state.is_asked) = (0, false);
            state.presented_len = 0;
            state.first = true;
        }
        let mut requests: Vec<DeltaDiscoveryRequest> =
            kinds.into_iter().filter_map(|kind| self.begin(kind, node, held)).collect();
        // The federation's id comes first, because everything else waits for it.
        requests.sort_by_key(|request| request.type_url != Kind::Config.name());
        requests
    }

    /// Asks for everything of a kind that is not held.
    fn begin(&mut self, kind: Kind, node: &Node, held: &dyn Held) -> Option<DeltaDiscoveryRequest> {
        let others = self.kinds.iter().filter(|(other, _)| **other != kind);
        let others: usize = others.map(|(_, state)| state.presented_len).sum();
        let (side, present, meshes) = (&self.side, self.present_versions, &self.meshes);
        let state = self.kinds.get_mut(&kind)?;
        state.quarantine.clear();
        state.used = Used::default();
        let _told_with_this = state.forget_gone(|name| is_there(kind, name, side, meshes, held));
        let mut versions = HashMap::new();
        let (mut presented, mut presented_len) = (HashMap::new(), 0_usize);
        if present {
            let copies = held.list(kind);
            for copy in copies.iter().filter(|copy| side.owns(copy) && meshes.include(&copy.key())) {
                let Some((own, len)) = side.own(copy) else { continue };
                state.used = state.used.changed(Change::of(None, Some(len)));
                let name = wire::wire_name(&copy.meta);
                if state.held_back.contains(&name) {
                    // Not presented: a peer that has it again sends it.
                    continue;
                }
                // What is remembered is shared, not copied.
                let (name, own, version) = match state.received.get_key_value(&*name) {
                    Some((name, (at_receipt, received))) if *at_receipt == own => {
                        (name.clone(), at_receipt.clone(), received.clone())
                    }
                    _ => (name.into(), own.clone(), own),
                };
                presented_len += name.len() + version.len() + PRESENTED_OVERHEAD;
                versions.insert(name.to_string(), version.to_string());
                presented.insert(name, (own, version));
            }
        }
        // More than a message holds, or than the peer takes: then nothing, and the peer says everything.
        let fits =
            presented_len <= self.presented_len_max && others + presented_len <= self.presented_total_max;
        state.presented_len = if fits { presented_len } else { 0 };
        if !fits {
            versions.clear();
            presented.clear();
        }
        // What is not stored any more is not presented, and comes again if the peer has it.
        state.received.retain(|name, _| presented.contains_key(name));
        state.presented = presented;
        // Whoever told what it holds gets differences, removals among them; else absence means removal.
        state.complete = !present || !fits;
        state.mentioned.clear();
        let mut node = node.clone();
        member::tell_number(&mut node, HELD_BACK_MEMBER, state.held_back.len() as u64);
        if present {
            member::tell(&mut node, TAKES_PARTS_MEMBER, ValueKind::BoolValue(true));
        }
        meshes.tell(&mut node);
        member::tell_number(&mut node, AGAIN_MEMBER, state.again);
        Some(DeltaDiscoveryRequest {
            node: Some(node),
            type_url: kind.name().into(),
            resource_names_subscribe: vec!["*".into()],
            initial_resource_versions: versions,
            ..Default::default()
        })
    }

    /// Whether a response was on its way when everything of its kind was asked for again: what it has comes again, and
    /// nobody waits for an answer.
    pub fn is_outdated(&self, response: &DeltaDiscoveryResponse) -> bool {
        let again = Stamp::read(&response.system_version_info).map_or(0, |stamp| stamp.again);
        let known = Kind::from_name(&response.type_url).ok();
        known.and_then(|kind| self.kinds.get(&kind)).is_some_and(|state| state.again > again)
    }
}
