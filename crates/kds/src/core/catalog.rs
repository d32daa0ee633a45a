//! Everything that this side offers to its peers, in the form in which it travels.
//!
//! Feed events go in, each resource is filtered and named once per stored version, and all sources read from it.
//! What is sent is encoded when the first source asks for it, and the newest encodings are kept for the others: a
//! second copy of everything would be a third of the memory of a global with many resources, and zones ask for little
//! of it. A bounded log tells a source what changed since it last looked.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, OnceLock, Weak};

use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Resource};
use graticule_store::{Change, Event, Revision};
use parking_lot::Mutex;

use super::filter::{self, Audience};
use super::rewrite;
use crate::wire::{self, Encoded, Version};

/// Changes that are remembered; a source that is further behind compares everything.
const LOG_LEN_MAX: usize = 16_384;
/// Bytes of encodings that are kept.
const ENCODED_LEN_MAX: usize = 64 << 20;

/// Whether global passes the MeshTrusts of zones on (DESIGN decision 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustExchange {
    /// To every other zone.
    #[default]
    Automatic,
    /// Operators copy them.
    Manual,
}

/// Which way offers go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direction {
    /// This is global.
    ToZones {
        /// What happens to MeshTrusts.
        trust_exchange: TrustExchange,
    },
    /// This is a zone.
    ToGlobal {
        /// Its name.
        zone: String,
    },
}

/// Which store an event comes from (DESIGN decision 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Durable.
    Config,
    /// Soft.
    Status,
}

impl Plane {
    /// Where resources of this kind live.
    pub fn of(kind: Kind) -> Plane {
        if kind.descriptor().capabilities.soft { Plane::Status } else { Plane::Config }
    }
}

/// One offered resource. What it looks like on the wire is for [`Catalog::encoded`] to say.
pub struct Offer {
    /// Where it is stored here.
    pub key: Key,
    /// Who gets it.
    pub audience: Audience,
    /// Name on the wire.
    pub name: Arc<str>,
    resource: Arc<Resource>,
    /// Known once somebody has asked.
    version: OnceLock<Version>,
    /// Bytes in a message; known with the version.
    len: OnceLock<u32>,
    /// While it is kept.
    encoded: Mutex<Option<Arc<Encoded>>>,
}

impl Offer {
    /// This version; the offer's own when they are the same, so that it is there once.
    pub(super) fn shared_version(&self, version: &str) -> Version {
        self.version.get().filter(|own| ***own == *version).cloned().unwrap_or_else(|| version.into())
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The resource may be a secret.
        f.debug_struct("Offer").field("key", &self.key).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which offers have their encoding, oldest first.
#[derive(Debug, Default)]
struct Encodings {
    order: VecDeque<(Weak<Offer>, usize)>,
    len: usize,
}

impl Encodings {
    fn keep(&mut self, offer: &Arc<Offer>, len: usize) {
        self.order.push_back((Arc::downgrade(offer), len));
        self.len += len;
        while self.len > ENCODED_LEN_MAX
            && let Some((oldest, len)) = self.order.pop_front()
        {
            self.len -= len;
            if let Some(oldest) = oldest.upgrade() {
                oldest.encoded.lock().take();
            }
        }
    }
}

/// All offers.
#[derive(Debug)]
pub struct Catalog {
    direction: Direction,
    skip_prefixes: Vec<String>,
    /// By wire name. Two stored resources may claim one name: the first by key is offered.
    offers: BTreeMap<Kind, BTreeMap<Arc<str>, Vec<Arc<Offer>>>>,
    names: HashMap<Key, Arc<str>>,
    encodings: Mutex<Encodings>,
    faults: BTreeMap<Key, String>,
    /// Those that nobody was told of.
    fresh_faults: Vec<Key>,
    disabled: BTreeSet<String>,
    log: VecDeque<(Kind, Arc<str>)>,
    head: u64,
    synced: [bool; 2],
    revision: Revision,
}

impl Catalog {
    /// Empty, and not ready until both stores were read.
    pub fn new(direction: Direction, skip_prefixes: Vec<String>) -> Catalog {
        Catalog {
            direction,
            skip_prefixes,
            offers: BTreeMap::new(),
            names: HashMap::new(),
            encodings: Mutex::default(),
            faults: BTreeMap::new(),
            fresh_faults: Vec::new(),
            disabled: BTreeSet::new(),
            log: VecDeque::new(),
            head: 0,
            synced: [false; 2],
            revision: Revision::default(),
        }
    }

    /// Both stores were read: absence means absence. An unsynced source sends nothing.
    pub fn is_ready(&self) -> bool {
        self.synced == [true; 2]
    }

    /// Position behind the newest change.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Revision of the config store that the catalog shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What cannot be sent, with the reason.
    pub fn faults(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.faults.iter().map(|(key, reason)| (key, reason.as_str()))
    }

    /// What cannot be sent, with the reason, as far as it was not told of yet.
    pub fn take_fresh_faults(&mut self) -> Vec<(Key, String)> {
        let fresh = std::mem::take(&mut self.fresh_faults);
        fresh.into_iter().filter_map(|key| Some((key.clone(), self.faults.get(&key)?.clone()))).collect()
    }

    /// Whether resources of the kind are offered at all.
    pub fn provides(&self, kind: Kind) -> bool {
        let flags = kind.descriptor().kds;
        match self.direction {
            Direction::ToZones { .. } => flags.requested_by_zones(),
            Direction::ToGlobal { .. } => flags.zone_to_global(),
        }
    }

    /// Zones that are disabled.
    pub fn disabled_zones(&self) -> &BTreeSet<String> {
        &self.disabled
    }

    /// The offer of this name.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Offer>> {
        self.offers.get(&kind)?.get(name)?.first()
    }

    /// All offers of a kind by name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &Arc<Offer>)> {
        let shelf = self.offers.get(&kind).into_iter().flatten();
        shelf.filter_map(|(name, offers)| Some((name, offers.first()?)))
    }

    /// The offers of a kind behind this name, by name.
    pub fn after(
        &self,
        kind: Kind,
        name: Option<Arc<str>>,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Offer>)> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let shelf = self.offers.get(&kind).into_iter();
        let behind =
            shelf.flat_map(move |shelf| shelf.range::<Arc<str>, _>((from.clone(), Bound::Unbounded)));
        behind.filter_map(|(name, offers)| Some((name, offers.first()?)))
    }

    /// Makes the encoding of an offer, if it is not kept; how many bytes that were.
    pub fn encode(&self, offer: &Arc<Offer>) -> usize {
        if offer.encoded.lock().is_some() {
            return 0;
        }
        self.encoded(offer).map_or(0, |encoded| encoded.len_max())
    }

    /// Bytes that it takes to tell the [`version`](Self::version) of an offer; 0 when it is known.
    pub fn version_cost(&self, offer: &Arc<Offer>) -> usize {
        if offer.version.get().is_some() {
            0
        } else {
            self.encoded(offer).map_or(0, |encoded| encoded.len_max())
        }
    }

    /// Bytes of all offers of each kind, as far as somebody has asked for them.
    pub fn sizes(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.offers.iter().map(|(kind, shelf)| {
            let first = shelf.values().filter_map(|offers| offers.first()?.len.get());
            (*kind, first.map(|len| u64::from(*len)).sum())
        })
    }

    /// Version of an offer.
    ///
    /// # Errors
    /// As [`encoded`](Self::encoded).
    pub fn version(&self, offer: &Arc<Offer>) -> Result<Version, String> {
        match offer.version.get() {
            Some(version) => Ok(version.clone()),
            None => Ok(self.encoded(offer)?.version.clone()),
        }
    }

    /// An offer as it travels.
    ///
    /// # Errors
    /// It has no such form.
    pub fn encoded(&self, offer: &Arc<Offer>) -> Result<Arc<Encoded>, String> {
        if let Some(encoded) = &*offer.encoded.lock() {
            return Ok(encoded.clone());
        }
        let resource = &offer.resource;
        let rewritten = match &self.direction {
            Direction::ToZones { .. } => rewrite::to_zones(resource, &self.skip_prefixes)?,
            Direction::ToGlobal { zone } => rewrite::to_global(resource, zone, &self.skip_prefixes),
        };
        let encoded = Arc::new(Encoded::of(&rewritten).map_err(|error| error.reason)?);
        offer.version.get_or_init(|| encoded.version.clone());
        offer.len.get_or_init(|| u32::try_from(encoded.len_max()).unwrap_or(u32::MAX));
        *offer.encoded.lock() = Some(encoded.clone());
        self.encodings.lock().keep(offer, encoded.len_max());
        Ok(encoded)
    }

    /// Names that changed since that position; `None` = too long ago, anything may have changed.
    pub fn changes_since(&self, position: u64) -> Option<impl Iterator<Item = (Kind, &Arc<str>)>> {
        let behind = usize::try_from(self.head.checked_sub(position)?).ok()?;
        let skip = self.log.len().checked_sub(behind)?;
        Some(self.log.iter().skip(skip).map(|(kind, name)| (*kind, name)))
    }

    /// Takes a feed event; true when any offer changed.
    pub fn apply(&mut self, plane: Plane, event: &Event) -> bool {
        let (before, was_ready) = (self.head, self.is_ready());
        match event {
            Event::Batch(batch) => {
                for Change { key, new, .. } in &batch.changes {
                    self.set(key, new.as_ref());
                }
                self.note_revision(plane, batch.revision);
            }
            Event::Resync(snapshot) => {
                let gone: Vec<Key> = self
                    .names
                    .keys()
                    .chain(self.faults.keys())
                    .filter(|key| Plane::of(key.kind) == plane && !snapshot.contains(key))
                    .cloned()
                    .collect();
                for key in gone {
                    self.set(&key, None);
                }
                if plane == Plane::Config {
                    self.forget_zones(|zone| snapshot.contains(&Key::new(Kind::Zone, "", zone)));
                }
                for resource in snapshot.iter().filter(|resource| Plane::of(resource.kind()) == plane) {
                    self.set(&resource.key(), Some(resource));
                }
                self.synced[plane as usize] = true;
                self.note_revision(plane, snapshot.revision());
            }
        }
        self.head != before || self.is_ready() != was_ready
    }

    fn note_revision(&mut self, plane: Plane, revision: Revision) {
        if plane == Plane::Config {
            self.revision = revision;
        }
    }

    fn forget_zones(&mut self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.disabled.iter().filter(|zone| !exists(zone)).cloned().collect();
        for zone in gone {
            self.set_zone(&zone, true);
        }
    }

    fn set(&mut self, key: &Key, resource: Option<&Arc<Resource>>) {
        if key.kind == Kind::Zone && matches!(self.direction, Direction::ToZones { .. }) {
            let zone = resource.and_then(|resource| resource.spec_as::<Zone>());
            // A missing Zone counts as enabled.
            self.set_zone(&key.name, zone.is_none_or(Zone::is_enabled));
            return;
        }
        if !self.provides(key.kind) {
            return;
        }
        let former = self.faults.remove(key);
        let offer = resource.and_then(|resource| match self.offer(resource) {
            Ok(offer) => offer.map(Arc::new),
            Err(reason) => {
                self.note_fault(key, reason, former.as_ref());
                None
            }
        });
        let old_name = self.names.get(key).cloned();
        let new_name = offer.as_ref().map(|offer| offer.name.clone());
        self.replace(key, offer);
        let names: BTreeSet<Arc<str>> = old_name.into_iter().chain(new_name).collect();
        for name in names {
            self.note_claims(key.kind, &name, former.as_ref());
        }
    }

    fn note_fault(&mut self, key: &Key, reason: String, former: Option<&String>) {
        if former != Some(&reason) {
            self.fresh_faults.push(key.clone());
        }
        self.faults.insert(key.clone(), reason);
    }

    /// Of several stored resources that claim one name on the wire, the first one has it.
    fn note_claims(&mut self, kind: Kind, name: &Arc<str>, former: Option<&String>) {
        let claims: Vec<Key> = self
            .offers
            .get(&kind)
            .and_then(|shelf| shelf.get(name))
            .into_iter()
            .flatten()
            .map(|offer| offer.key.clone())
            .collect();
        let Some((first, others)) = claims.split_first() else { return };
        self.faults.remove(first);
        for other in others {
            let reason = format!("its name on the wire, {name}, is claimed by {first} as well");
            let former = self.faults.get(other).cloned().or_else(|| former.cloned());
            self.note_fault(other, reason, former.as_ref());
        }
    }

    fn offer(&self, resource: &Arc<Resource>) -> Result<Option<Offer>, String> {
        let (audience, meta) = match &self.direction {
            Direction::ToZones { trust_exchange } => {
                let Some(audience) = filter::to_zones(resource, *trust_exchange) else { return Ok(None) };
                (audience, rewrite::meta_to_zones(resource, &self.skip_prefixes)?)
            }
            Direction::ToGlobal { zone } => {
                let Some(audience) = filter::to_global(resource) else { return Ok(None) };
                (audience, rewrite::meta_to_global(resource, zone, &self.skip_prefixes))
            }
        };
        if !wire::travels(resource.kind()) {
            return Err(wire::does_not_travel(resource.kind()));
        }
        Ok(Some(Offer {
            key: resource.key(),
            audience,
            name: wire::wire_name(&meta).into(),
            resource: resource.clone(),
            version: OnceLock::new(),
            len: OnceLock::new(),
            encoded: Mutex::default(),
        }))
    }

    /// Whether peers see no difference between two offers of one key, as far as it can matter to any.
    fn is_same(&self, known: &Offer, new: &Arc<Offer>) -> bool {
        if known.audience != new.audience || known.name != new.name {
            return false;
        }
        // Times and versions of the store do not travel.
        let is_same = Arc::ptr_eq(&known.resource, &new.resource)
            || known.resource.same_content(&new.resource)
            // Without a version nobody has been told of it.
            || known.version.get().is_some_and(|version| self.version(new).as_ref() == Ok(version));
        if is_same && let Some(version) = known.version.get() {
            new.version.get_or_init(|| version.clone());
            if let Some(len) = known.len.get() {
                new.len.get_or_init(|| *len);
            }
        }
        is_same
    }

    fn replace(&mut self, key: &Key, offer: Option<Arc<Offer>>) {
        let old_name = self.names.get(key).cloned();
        let known = old_name.as_ref().and_then(|old| {
            let offers = self.offers.get(&key.kind)?.get(old)?;
            Some((offers.iter().position(|known| known.key == *key)?, offers))
        });
        if let (Some((at, offers)), Some(new)) = (known, &offer)
            && self.is_same(&offers[at], new)
        {
            let shelf = self.offers.entry(key.kind).or_default();
            if let Some(place) = shelf.get_mut(&new.name).and_then(|offers| offers.get_mut(at)) {
                // The former resource is not held any longer.
                *place = new.clone();
            }
            return;
        }
        let shelf = self.offers.entry(key.kind).or_default();
        if let Some(old) = old_name {
            self.names.remove(key);
            if let Some(offers) = shelf.get_mut(&old) {
                offers.retain(|offer| offer.key != *key);
                if offers.is_empty() {
                    shelf.remove(&old);
                }
            }
            note(&mut self.log, &mut self.head, key.kind, old);
        }
        if let Some(offer) = offer {
            let name = offer.name.clone();
            self.names.insert(key.clone(), name.clone());
            let offers = shelf.entry(name.clone()).or_insert_with(|| Vec::with_capacity(1));
            offers.push(offer);
            offers.sort_by(|a, b| a.key.cmp(&b.key));
            note(&mut self.log, &mut self.head, key.kind, name);
        }
    }

    fn set_zone(&mut self, zone: &str, enabled: bool) {
        let changed =
            if enabled { self.disabled.remove(zone) } else { self.disabled.insert(zone.to_owned()) };
        if !changed {
            return;
        }
        for (kind, shelf) in &self.offers {
            for (name, offers) in shelf {
                let is_theirs = |offer: &Arc<Offer>| matches!(&offer.audience, Audience::OtherZones { origin, .. } if origin == zone);
                if offers.iter().any(is_theirs) {
                    note(&mut self.log, &mut self.head, *kind, name.clone());
                }
            }
        }
    }
}

fn note(log: &mut VecDeque<(Kind, Arc<str>)>, head: &mut u64, kind: Kind, name: Arc<str>) {
    if log.len() == LOG_LEN_MAX {
        log.pop_front();
    }
    log.push_back((kind, name));
    *head += 1;
}

#[cfg(test)]
mod tests;
