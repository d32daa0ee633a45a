//! Everything that this side offers to its peers, in the form in which it travels.
//!
//! Feed events go in, each resource is filtered, rewritten and encoded once per stored version, and all
//! sources read from it. A bounded log tells a source what changed since it last looked.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Resource};
use graticule_store::{Change, Event, Revision};

use super::filter::{self, Audience};
use super::rewrite;
use crate::wire::Encoded;

/// Changes that are remembered; a source that is further behind compares everything.
const LOG_LEN_MAX: usize = 16_384;

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

/// One offered resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Where it is stored here.
    pub key: Key,
    /// Who gets it.
    pub audience: Audience,
    /// Its form on the wire.
    pub encoded: Encoded,
}

/// All offers.
#[derive(Debug)]
pub struct Catalog {
    direction: Direction,
    skip_prefixes: Vec<String>,
    /// By wire name. Two stored resources may claim one name: the first by key is offered.
    offers: BTreeMap<Kind, BTreeMap<String, Vec<Arc<Offer>>>>,
    names: HashMap<Key, String>,
    faults: BTreeMap<Key, String>,
    disabled: BTreeSet<String>,
    log: VecDeque<(Kind, String)>,
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
            faults: BTreeMap::new(),
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
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&String, &Arc<Offer>)> {
        let shelf = self.offers.get(&kind).into_iter().flatten();
        shelf.filter_map(|(name, offers)| Some((name, offers.first()?)))
    }

    /// Names that changed since that position; `None` = too long ago, anything may have changed.
    pub fn changes_since(&self, position: u64) -> Option<impl Iterator<Item = (Kind, &str)>> {
        let behind = usize::try_from(self.head.checked_sub(position)?).ok()?;
        let skip = self.log.len().checked_sub(behind)?;
        Some(self.log.iter().skip(skip).map(|(kind, name)| (*kind, name.as_str())))
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
        self.faults.remove(key);
        let offer = resource.and_then(|resource| match self.offer(resource) {
            Ok(offer) => offer.map(Arc::new),
            Err(reason) => {
                self.faults.insert(key.clone(), reason);
                None
            }
        });
        self.replace(key, offer);
    }

    fn offer(&self, resource: &Resource) -> Result<Option<Offer>, String> {
        let (audience, rewritten) = match &self.direction {
            Direction::ToZones { trust_exchange } => {
                let Some(audience) = filter::to_zones(resource, *trust_exchange) else { return Ok(None) };
                (audience, rewrite::to_zones(resource, &self.skip_prefixes)?)
            }
            Direction::ToGlobal { zone } => {
                let Some(audience) = filter::to_global(resource) else { return Ok(None) };
                (audience, rewrite::to_global(resource, zone, &self.skip_prefixes))
            }
        };
        let encoded = Encoded::of(&rewritten).map_err(|error| error.reason)?;
        Ok(Some(Offer { key: resource.key(), audience, encoded }))
    }

    fn replace(&mut self, key: &Key, offer: Option<Arc<Offer>>) {
        let shelf = self.offers.entry(key.kind).or_default();
        let old_name = self.names.get(key).cloned();
        if let (Some(old), Some(new)) = (&old_name, &offer)
            && *old == new.encoded.name
            && shelf.get(old).is_some_and(|offers| offers.iter().any(|known| known == new))
        {
            return;
        }
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
            let name = offer.encoded.name.clone();
            self.names.insert(key.clone(), name.clone());
            let offers = shelf.entry(name.clone()).or_default();
            offers.push(offer);
            offers.sort_by(|a, b| a.key.cmp(&b.key));
            if offers.len() > 1 {
                let reason = format!("its name on the wire, {name}, is claimed by {} as well", offers[0].key);
                self.faults.insert(offers[offers.len() - 1].key.clone(), reason);
            }
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

fn note(log: &mut VecDeque<(Kind, String)>, head: &mut u64, kind: Kind, name: String) {
    if log.len() == LOG_LEN_MAX {
        log.pop_front();
    }
    log.push_back((kind, name));
    *head += 1;
}
