//! The receiving side of one stream: what is taken from a peer, and what is refused (federation.md §5).
//!
//! Responses go in with what is stored, writes come out. A resource that cannot be taken is left out and
//! named; the rest is applied, and what was stored before stays (DESIGN decision 8).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource, Status};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::google::protobuf::Any;
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_proto::google::rpc;
use graticule_proto::graticule::kds::v1 as pb;
use graticule_store::{Expect, Revision, Write};
use prost::Message;

use super::limit::{self, Change, Usage, Used, ZoneLimit};
use super::protection::DeletionProtection;
use super::quarantine::{Quarantine, short_name, short_reason};
use super::repair::Repairs;
use super::source::{PRESENTED_LEN_MAX, PRESENTED_OVERHEAD};
use super::stamp::Stamp;
use super::{
    AGAIN_MEMBER, HELD_BACK_MEMBER, Meshes, TAKES_PARTS_MEMBER, kinds_for_global, kinds_for_zones, leave,
    tell, trust,
};
use crate::wire::{self, Encoded, Version};

mod heal;
mod judge;

pub use heal::{Obstacle, Repair};
use judge::Taken;

/// Rejections that one acknowledgement explains; of the others it says the names.
const REJECTIONS_EXPLAINED_MAX: usize = 64;
/// Bytes of names that it says; then only that there are more.
const REJECTIONS_LEN_MAX: usize = 1024 * 1024;

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
    /// What is in its way here; `None`: the resource itself is at fault.
    pub obstacle: Option<Obstacle>,
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
    /// Removals of what is not stored.
    absent: Vec<String>,
    /// Wire name → own and received version of what was taken.
    taken: Vec<(Arc<str>, Version, Version)>,
    removed: Vec<String>,
    /// Removals that wait for a decision.
    held_back: Vec<String>,
    global: Option<GlobalSeen>,
    /// What a peer of ours says besides.
    stamp: Option<Stamp>,
    /// An operator agreed to another global.
    agreement_void: bool,
    /// A part of a first state, and not the last one.
    more_follows: bool,
    /// How what the zone takes changes with each write, by wire name.
    changes: BTreeMap<String, Change>,
    /// What such a part of a complete state mentioned.
    mentioned: BTreeSet<Key>,
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
    /// The first state of the stream, or a part of it, is due.
    first: bool,
    /// Wire names of copies whose removal waits for a decision.
    held_back: BTreeSet<String>,
    /// Wire names of copies that an operator gave up.
    given_up: BTreeSet<String>,
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
    /// How many removals of each kind an operator agreed to beyond those that this sink holds back.
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

    /// The acknowledgement of a response of which nothing is taken, because this is not the zone's global. A peer of ours
    /// hears that it is held back.
    pub fn decline(&self, response: &DeltaDiscoveryResponse, node: &Node) -> DeltaDiscoveryRequest {
        let mut own = Node { id: node.id.clone(), ..Default::default() };
        tell_held_back(&mut own, response.resources.len() + response.removed_resources.len());
        DeltaDiscoveryRequest {
            node: Some(own),
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        }
    }

    /// In a zone: the revision of global that is taken as a whole once this response is; `None`: none is.
    pub fn completes(&self, intake: &Intake) -> Option<Revision> {
        let stamp = intake.stamp.filter(|stamp| !stamp.more_follows && self.side == Side::Zone)?;
        let others_are_taken =
            self.kinds.iter().all(|(kind, state)| !state.first || Some(*kind) == intake.kind);
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

    /// The same, of a decision that may have been made at another replica, about so many copies of each kind. Until the next
    /// stream is brought into step no more than that is removed without another decision.
    pub fn accept_these(&mut self, mut given_up: BTreeMap<Kind, usize>) {
        for (kind, given_up) in &mut given_up {
            *given_up -= self.kinds.get(kind).map_or(0, |state| state.held_back.len()).min(*given_up);
        }
        self.accept_deletions();
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
            state.again = 0;
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
        for kept in [&mut state.held_back, &mut state.given_up] {
            kept.retain(|name| wire::key_of(kind, name).is_some_and(|key| meshes.include(&key)));
        }
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
        tell_held_back(&mut node, state.held_back.len());
        if present {
            tell(&mut node, TAKES_PARTS_MEMBER, ValueKind::BoolValue(true));
        }
        meshes.tell(&mut node);
        if state.again > 0 {
            #[expect(clippy::cast_precision_loss, reason = "it counts requests of one stream")]
            tell(&mut node, AGAIN_MEMBER, ValueKind::NumberValue(state.again as f64));
        }
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

    fn is_limited(&self) -> bool {
        matches!(self.side, Side::Global { .. })
    }

    /// What a response comes to, given what is stored. Changes nothing; call it again when the store moved.
    pub fn on_response(&self, response: &DeltaDiscoveryResponse, held: &dyn Held) -> Intake {
        let mut intake = Intake {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            stamp: Stamp::read(&response.system_version_info).filter(|_| self.present_versions),
            more_follows: is_part(response, self.present_versions),
            ..Intake::default()
        };
        let known = Kind::from_name(&response.type_url).ok();
        let Some((kind, state)) = known.and_then(|kind| Some((kind, self.kinds.get(&kind)?))) else {
            let type_url = short_name(&response.type_url);
            let reason = format!("resources of type \"{type_url}\" are not taken from this peer");
            intake.rejections.push(Rejection { name: type_url.into_owned(), reason, obstacle: None });
            return intake;
        };
        intake.kind = Some(kind);
        if kind == Kind::Config && self.side == Side::Zone && self.protection.number > 0 {
            let global = self.judge_global(response, held);
            let is_other = matches!(global, GlobalSeen::Other { .. });
            intake.global = Some(global);
            intake.agreement_void = self.is_void(response, held);
            if is_other {
                return intake;
            }
        }
        let mut mentioned = BTreeSet::new();
        let mut used = self.used();
        let mut writes: BTreeMap<Key, Write> = BTreeMap::new();
        for item in &response.resources {
            if let Some(key) = wire::key_of(kind, &item.name) {
                if !self.meshes.include(&key) {
                    // Global is a Kuma global, or did not hear it.
                    continue;
                }
                mentioned.insert(key);
            }
            let decoded = wire::decode(kind, item).map_err(|error| Rejection {
                reason: format!("{}: {}", error.name, error.reason),
                name: error.name,
                obstacle: None,
            });
            let taken = decoded.and_then(|resource| {
                mentioned.insert(resource.key());
                self.take(resource, held)
            });
            match taken {
                Ok(None) => {}
                Ok(Some(Taken { resource, write })) => {
                    let name = wire::wire_name(&resource.meta);
                    let own = self.side.own(&resource);
                    if self.is_limited()
                        && let Some((_, len)) = own
                    {
                        // Of two with one name the last one counts.
                        let earlier = intake.changes.get(&name);
                        let without = earlier.map_or(used, |earlier| used.changed(earlier.undone()));
                        let change = if write.is_some() {
                            let before = held.get(&resource.key()).filter(|stored| self.side.owns(stored));
                            let before = before.and_then(|stored| Some(self.side.own(&stored)?.1));
                            let growth = len.saturating_sub(before.unwrap_or_default());
                            if let Some(reason) = self.limit.refuses(without, before.is_none(), growth) {
                                let obstacle = Some(Obstacle::Limit);
                                intake.rejections.push(Rejection { name, reason, obstacle });
                                continue;
                            }
                            Change::of(before, Some(len))
                        } else {
                            Change::default()
                        };
                        used = without.changed(change);
                        intake.changes.insert(name.clone(), change);
                    }
                    if let Some((own, _)) = own {
                        let is_same = *own == *item.version;
                        let received = if is_same { own.clone() } else { item.version.as_str().into() };
                        intake.taken.push((name.into(), own, received));
                    }
                    if self.side == Side::Zone
                        && let Some(former) = leave::former(&resource, held)
                    {
                        let (key, expect) = (former.key(), Expect::Version(former.meta.version));
                        intake.removed.push(wire::wire_name(&former.meta));
                        writes.insert(key.clone(), Write::Delete { key, expect });
                    }
                    if let Side::Global { zone } = &self.side
                        && let Some(claim) = trust::claim(&resource, zone, held)
                        && let Write::Put { resource, .. } = &claim
                    {
                        writes.insert(resource.key(), claim);
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
        let name_of = |copy: &Arc<Resource>| wire::wire_name(&copy.meta);
        let (mut removals, others): (Vec<_>, Vec<_>) = self
            .removals(kind, state, response, &mentioned, held)
            .into_iter()
            .filter(|copy| !writes.contains_key(&copy.key()))
            .partition(|copy| state.given_up.contains(&name_of(copy)));
        let fresh = others.into_iter().filter(|copy| !state.held_back.contains(&name_of(copy)));
        let (own, fresh): (Vec<_>, Vec<_>) = fresh
            .partition(|stored| self.is_no_copy_yet(stored) || (state.first && self.is_in_use(stored, held)));
        intake.held_back = own.iter().map(name_of).collect();
        if self.holds_back(kind, state, fresh.len(), held) {
            intake.held_back.extend(fresh.iter().map(name_of));
        } else {
            removals.extend(fresh);
        }
        let is_absent = |name: &&String| wire::key_of(kind, name).is_none_or(|key| held.get(&key).is_none());
        intake.absent = response.removed_resources.iter().filter(is_absent).cloned().collect();
        if state.complete && intake.more_follows {
            intake.mentioned = mentioned;
        }
        for copy in removals {
            let key = copy.key();
            let name = wire::wire_name(&copy.meta);
            if self.is_limited()
                && let Some((_, len)) = self.side.own(&copy)
            {
                intake.changes.insert(name.clone(), Change::of(Some(len), None));
            }
            intake.removed.push(name);
            writes.insert(key.clone(), Write::Delete { key, expect: Expect::Version(copy.meta.version) });
        }
        intake.writes = writes.into_values().collect();
        intake
    }

    /// Ends the work on a response: the acknowledgement. `failed` are writes that the store refused.
    pub fn settle(
        &mut self,
        mut intake: Intake,
        failed: Vec<Rejection>,
        node: &Node,
    ) -> DeltaDiscoveryRequest {
        let changes = std::mem::take(&mut intake.changes);
        let failed_names: BTreeSet<&str> = failed.iter().map(|rejection| rejection.name.as_str()).collect();
        if let Some(state) = intake.kind.and_then(|kind| self.kinds.get_mut(&kind)) {
            let made = changes.iter().filter(|(name, _)| !failed_names.contains(name.as_str()));
            state.used = made.fold(state.used, |used, (_, change)| used.changed(*change));
        }
        intake.rejections.extend(failed);
        if let Some(state) = intake.kind.and_then(|kind| self.kinds.get_mut(&kind)) {
            if intake.more_follows {
                state.mentioned.append(&mut intake.mentioned);
            } else {
                state.complete = false;
                state.mentioned.clear();
            }
            let said = intake.removed.iter().chain(&intake.absent).chain(&intake.held_back);
            let said = said.chain(intake.rejections.iter().map(|rejection| &rejection.name));
            let said = said.map(String::as_str).chain(intake.taken.iter().map(|(name, ..)| &**name));
            for name in said {
                state.presented.remove(name);
            }
            if !matches!(intake.global, Some(GlobalSeen::Other { .. })) && !intake.more_follows {
                state.first = false;
                // Of what the peer says nothing about, it has what was presented.
                state.received.extend(std::mem::take(&mut state.presented));
            }
            for name in intake.removed.iter().chain(&intake.absent) {
                state.received.remove(name.as_str());
                state.quarantine.remove(name);
                state.given_up.remove(name);
                state.held_back.remove(name);
            }
            for name in intake.held_back {
                // The peer does not have it: what is there is no longer compared with the peer's.
                state.received.remove(name.as_str());
                state.held_back.insert(name);
            }
            for (name, own, received) in intake.taken {
                state.quarantine.remove(&name);
                state.held_back.remove(&*name);
                state.given_up.remove(&*name);
                state.received.insert(name, (own, received));
            }
            for Rejection { name, reason, obstacle } in &intake.rejections {
                state.received.remove(name.as_str());
                state.quarantine.insert(name, reason, obstacle.as_ref());
            }
        }
        if let Some(stamp) = intake.stamp {
            self.is_ours = true;
            self.taken = Some(stamp.revision);
        }
        if let Some(global) = intake.global {
            self.global = global;
        }
        if intake.agreement_void {
            self.agreed = None;
        }
        if self.is_synced() {
            self.agreed = None;
            self.agreed_removals.clear();
        }
        let waiting =
            intake.kind.and_then(|kind| self.kinds.get(&kind)).map_or(0, |state| state.held_back.len());
        let mut own = Node { id: node.id.clone(), ..Default::default() };
        tell_held_back(&mut own, waiting);
        let mut reply = DeltaDiscoveryRequest {
            node: Some(own),
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

/// Whether other parts of a first state follow. Only who asks for parts gets them.
fn is_part(response: &DeltaDiscoveryResponse, takes_parts: bool) -> bool {
    takes_parts && Stamp::read(&response.system_version_info).is_some_and(|stamp| stamp.more_follows)
}

/// Lets a peer of ours know that removals wait here.
fn tell_held_back(node: &mut Node, number: usize) {
    if number == 0 {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    tell(node, HELD_BACK_MEMBER, ValueKind::NumberValue(number as f64));
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
        self.own(copy).map(|(version, _)| version)
    }

    /// Version and bytes of a copy in that form.
    fn own(&self, copy: &Resource) -> Option<(Version, usize)> {
        let encoded = match self {
            Side::Global { .. } => Encoded::of(copy),
            Side::Zone => Encoded::of(&Resource { status: Status::empty(copy.kind()), ..copy.clone() }),
        };
        encoded.ok().map(|encoded| (encoded.version.clone(), encoded.len_max()))
    }
}

fn error_detail(rejections: &[Rejection]) -> rpc::Status {
    let explained = &rejections[..rejections.len().min(REJECTIONS_EXPLAINED_MAX)];
    let mut lines: Vec<String> =
        explained.iter().map(|rejection| short_reason(&rejection.reason).into_owned()).collect();
    if rejections.len() > explained.len() {
        lines.push(format!("and {} more", rejections.len() - explained.len()));
    }
    let mut len = 0;
    let named = rejections.iter().map(|rejection| (short_name(&rejection.name), rejection)).take_while(
        |(name, _)| {
            len += name.len();
            len <= REJECTIONS_LEN_MAX
        },
    );
    let listed: Vec<pb::Rejection> = named
        .enumerate()
        .map(|(at, (name, rejection))| {
            let reason = if at < explained.len() { short_reason(&rejection.reason) } else { "".into() };
            pb::Rejection { name: name.into_owned(), reason: reason.into_owned() }
        })
        .collect();
    let truncated = listed.len() < rejections.len();
    let detail = pb::Rejections { rejections: listed, truncated };
    rpc::Status {
        code: 0,
        message: lines.join("\n"),
        details: vec![Any {
            type_url: "type.googleapis.com/graticule.kds.v1.Rejections".into(),
            value: detail.encode_to_vec(),
        }],
    }
}
