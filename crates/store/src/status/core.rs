//! Who observes what, and which of several observations counts. A function of what is put in: no clock, no transport.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use graticule_model::kinds::dataplane_insight::DataplaneInsight;
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind, Resource, Timestamp, TypedSpec};

use crate::{Change, ChangeBatch, Revision, Snapshot};

/// A replica in one run of its process. A replica that starts again is another observer.
pub type Observer = Arc<str>;

/// What belongs together: whoever has the newest stream of its source observes all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// In a zone: each proxy is a source of its own.
    Proxy,
    /// On global: a zone's connection brings its ZoneInsight and the insights of its proxies.
    Zone,
}

/// One source and everything that is observed of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(String);

impl Group {
    /// What is observed of a zone, on global.
    pub fn zone(name: &str) -> Group {
        Group(name.to_owned())
    }

    /// What is observed of a proxy, in a zone; the key of its insight.
    pub fn proxy(insight: &Key) -> Group {
        Group(format!("{}/{}/{}", insight.kind.name(), insight.mesh, insight.name))
    }

    pub(super) fn from_wire(text: String) -> Group {
        Group(text)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Grouping {
    pub(super) fn of(self, resource: &Resource) -> Group {
        match self {
            Grouping::Zone if resource.kind() == Kind::ZoneInsight => Group::zone(&resource.meta.name),
            Grouping::Zone => match resource.meta.zone() {
                Some(zone) => Group::zone(zone),
                None => Group::proxy(&resource.key()),
            },
            Grouping::Proxy => Group::proxy(&resource.key()),
        }
    }

    /// Whether the source's stream is open, if this is the resource that says it.
    fn is_live(self, resource: &Resource) -> Option<bool> {
        match self {
            Grouping::Zone => Some(resource.spec_as::<ZoneInsight>()?.is_online()),
            Grouping::Proxy => Some(resource.spec_as::<DataplaneInsight>()?.is_online()),
        }
    }

    /// The same with all streams of the source ended.
    fn ended(self, resource: &Arc<Resource>, at: Timestamp) -> Arc<Resource> {
        if self.is_live(resource) != Some(true) {
            return resource.clone();
        }
        let mut ended = Resource::clone(resource);
        match self {
            Grouping::Zone => {
                if let Some(mut insight) = ended.spec_as::<ZoneInsight>().cloned() {
                    let open = insight.subscriptions.iter_mut().filter(|one| one.disconnect_time.is_none());
                    open.for_each(|one| one.disconnect_time = Some(at));
                    ended.spec = insight.wrap();
                }
            }
            Grouping::Proxy => {
                if let Some(mut insight) = ended.spec_as::<DataplaneInsight>().cloned() {
                    let open = insight.subscriptions.iter_mut().filter(|one| one.disconnect_time.is_none());
                    open.for_each(|one| one.disconnect_time = Some(at));
                    ended.spec = insight.wrap();
                }
            }
        }
        Arc::new(ended)
    }
}

/// Says that a stream of the source was opened here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// When, on a clock that all replicas share: it is never behind the time of day of the replica that reads it, and
    /// always ahead of everything that this replica has heard of. A stream that was opened later at a replica which
    /// knew of the earlier one has the higher stamp, however wrong the time of day is.
    pub stamp: u64,
    /// The source brought its Dataplane itself, so the Dataplane goes with it.
    pub brought: bool,
}

/// One observation of another replica, or that there is none any more.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) group: Group,
    /// From now on; none: as before. It comes with the last one of what was taken over, so that nobody believes a claim
    /// before everything that it stands for is there.
    pub(super) claim: Option<Claim>,
    pub(super) key: Key,
    pub(super) resource: Option<Arc<Resource>>,
}

/// A part of what another replica tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) observer: Observer,
    /// Its clock.
    pub(super) time: u64,
    /// Everything follows, up to and including the part that is `complete`; what is not mentioned is gone.
    pub(super) reset: bool,
    pub(super) complete: bool,
    pub(super) items: Vec<Item>,
}

/// What one observer knows of one source.
#[derive(Debug, Default)]
struct Entry {
    claim: Claim,
    /// Said by whoever has the stream, and not only concluded from an observation.
    is_claimed: bool,
    /// Taken over from an observer that is gone, not from a stream.
    orphan: bool,
    /// Own observations from this revision on stand for the claim.
    told_from: Revision,
    live: bool,
    resources: BTreeMap<Key, Arc<Resource>>,
}

impl Entry {
    fn set(&mut self, grouping: Grouping, key: &Key, resource: Option<Arc<Resource>>) {
        let removed = match resource {
            Some(resource) => {
                if let Some(live) = grouping.is_live(&resource) {
                    self.live = live;
                }
                self.resources.insert(key.clone(), resource);
                return;
            }
            None => self.resources.remove(key),
        };
        if removed.is_some_and(|removed| grouping.is_live(&removed).is_some()) {
            self.live = false;
        }
    }
}

/// Everybody's view of one source.
#[derive(Debug, Default)]
struct Places {
    entries: BTreeMap<Observer, Entry>,
    winner: Option<Observer>,
}

impl Places {
    /// An open stream counts before an ended one, then the newest claim.
    fn best(&self) -> Option<&Observer> {
        let known = self.entries.iter().filter(|(_, entry)| !entry.resources.is_empty());
        let best = known.max_by_key(|(observer, entry)| (entry.live, entry.claim.stamp, *observer));
        best.map(|(observer, _)| observer)
    }
}

#[derive(Debug, Default)]
struct Peer {
    keys: BTreeMap<Key, Group>,
    is_gone: bool,
    /// While everything is told anew: what was not mentioned yet.
    unseen: Option<BTreeMap<Key, Group>>,
}

/// What a claim changes in what this replica observes.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) groups: Vec<Group>,
    pub(super) puts: Vec<Arc<Resource>>,
    pub(super) deletes: Vec<Key>,
}

/// Ticks that own observations outlive a newer stream elsewhere. Others may hear of their end before they hear of what took
/// their place.
pub(super) const YIELD_AFTER: u32 = 8;

/// Touched keys by group.
type Touched = BTreeMap<Group, BTreeSet<Key>>;

pub(super) struct Core {
    grouping: Grouping,
    own: Observer,
    clock: u64,
    groups: HashMap<Group, Places>,
    peers: BTreeMap<Observer, Peer>,
    orphans: BTreeSet<Group>,
    /// Groups of which own observations count no more, and for how many ticks.
    beaten: BTreeMap<Group, u32>,
    shown: Snapshot,
}

impl Core {
    pub(super) fn new(own: Observer, grouping: Grouping) -> Core {
        Core {
            grouping,
            own,
            clock: 0,
            groups: HashMap::new(),
            peers: BTreeMap::new(),
            orphans: BTreeSet::new(),
            beaten: BTreeMap::new(),
            shown: Snapshot::empty(),
        }
    }

    pub(super) fn own(&self) -> &Observer {
        &self.own
    }

    pub(super) fn time(&self) -> u64 {
        self.clock
    }

    pub(super) fn shown(&self) -> &Snapshot {
        &self.shown
    }

    pub(super) fn grouping(&self) -> Grouping {
        self.grouping
    }

    /// The claim under which own observations of this group are told, as of this revision of them.
    pub(super) fn own_claim(&self, group: &Group, at: Revision) -> Option<Claim> {
        let entry = self.groups.get(group)?.entries.get(&self.own)?;
        (entry.told_from <= at).then_some(entry.claim)
    }

    /// What these groups stand for is observed from this revision on.
    pub(super) fn adopted_at<'a>(&mut self, groups: impl IntoIterator<Item = &'a Group>, at: Revision) {
        for group in groups {
            let places = self.groups.get_mut(group);
            if let Some(entry) = places.and_then(|places| places.entries.get_mut(&self.own)) {
                entry.told_from = at;
            }
        }
    }

    /// Whose observations of this source are shown.
    pub(super) fn owner(&self, group: &Group) -> Option<&Observer> {
        self.groups.get(group)?.winner.as_ref()
    }

    /// Whether somebody has an open stream of this source.
    pub(super) fn is_live(&self, group: &Group) -> bool {
        self.groups.get(group).is_some_and(|places| places.entries.values().any(|entry| entry.live))
    }

    fn stamp(&mut self, now: Timestamp) -> u64 {
        // Room for a thousand claims in each millisecond before the clock runs ahead of the time of day.
        let now = u64::try_from(now.as_millisecond()).unwrap_or_default().saturating_mul(1000);
        self.clock = now.max(self.clock.saturating_add(1));
        self.clock
    }

    /// The newest stream of a source is here. Gives what others observed of it, to be observed here from now on: with
    /// its streams ended, because they were not ours.
    pub(super) fn claim(&mut self, group: &Group, brought: bool, now: Timestamp) -> Adopted {
        self.orphans.remove(group);
        self.claim_as(group, Claim { stamp: 0, brought }, false, now)
    }

    fn claim_as(&mut self, group: &Group, claim: Claim, orphan: bool, now: Timestamp) -> Adopted {
        let claim = Claim { stamp: self.stamp(now), ..claim };
        let (grouping, own) = (self.grouping, self.own.clone());
        let places = self.groups.entry(group.clone()).or_default();
        let before = places.entries.get(&own).filter(|own| !own.resources.is_empty());
        let mut adopted = Adopted { groups: vec![group.clone()], ..Adopted::default() };
        if let Some(winner) = places.winner.as_ref().filter(|winner| **winner != own)
            && let Some(known) = places.entries.get(winner)
            // An own claim that is newer already has what the other one knew.
            && before.is_none_or(|own| !own.is_claimed || own.claim.stamp < known.claim.stamp)
        {
            // What was observed here since the stream was opened stays, what is older goes.
            let is_new =
                |key: &Key| before.is_some_and(|own| !own.is_claimed && own.resources.contains_key(key));
            let puts = known.resources.iter().filter(|(key, _)| !is_new(key));
            adopted.puts = puts.map(|(_, one)| grouping.ended(one, now)).collect();
            let kept = before.filter(|own| own.is_claimed).into_iter().flat_map(|own| own.resources.keys());
            adopted.deletes = kept.filter(|key| !known.resources.contains_key(key)).cloned().collect();
        }
        let entry = places.entries.entry(own).or_default();
        (entry.claim, entry.is_claimed, entry.orphan) = (claim, true, orphan);
        adopted
    }

    /// Own observations changed.
    pub(super) fn own_changed(&mut self, changes: &[Change], now: Timestamp) -> Option<Arc<ChangeBatch>> {
        let mut touched = Touched::new();
        for change in changes {
            let new = change.new.as_ref().map(|new| self.grouping.of(new));
            let old = change.old.as_ref().map(|old| self.grouping.of(old));
            if let Some(old) = old.filter(|old| Some(old) != new.as_ref())
                && let Some(places) = self.groups.get_mut(&old)
                && let Some(entry) = places.entries.get_mut(&self.own)
            {
                entry.set(self.grouping, &change.key, None);
                touched.entry(old).or_default().insert(change.key.clone());
            }
            if let (Some(group), Some(resource)) = (new, &change.new) {
                // Without a claim it counts only while nobody else knows the source.
                let places = self.groups.entry(group.clone()).or_default();
                let entry = places.entries.entry(self.own.clone()).or_default();
                entry.set(self.grouping, &change.key, Some(resource.clone()));
                touched.entry(group).or_default().insert(change.key.clone());
            }
        }
        self.settle(touched, now)
    }

    /// Another replica tells what it observes.
    pub(super) fn take(&mut self, part: Part, now: Timestamp) -> Option<Arc<ChangeBatch>> {
        let mut touched = Touched::new();
        if part.observer == self.own {
            return None;
        }
        self.clock = self.clock.max(part.time);
        let peer = self.peers.entry(part.observer.clone()).or_default();
        peer.is_gone = false;
        if part.reset {
            peer.unseen = Some(peer.keys.clone());
        }
        for item in part.items {
            if let Some(unseen) = &mut peer.unseen {
                unseen.remove(&item.key);
            }
            let before = match item.resource {
                Some(_) => peer.keys.insert(item.key.clone(), item.group.clone()),
                None => peer.keys.remove(&item.key),
            };
            if let Some(before) = before.filter(|before| *before != item.group || item.resource.is_none()) {
                remove(&mut self.groups, self.grouping, &before, &part.observer, &item.key);
                touched.entry(before).or_default().insert(item.key.clone());
            }
            if let Some(resource) = item.resource {
                let places = self.groups.entry(item.group.clone()).or_default();
                let entry = places.entries.entry(part.observer.clone()).or_default();
                entry.claim = item.claim.unwrap_or(entry.claim);
                entry.set(self.grouping, &item.key, Some(resource));
                touched.entry(item.group).or_default().insert(item.key);
            }
        }
        if part.complete {
            for (key, group) in peer.unseen.take().unwrap_or_default() {
                peer.keys.remove(&key);
                remove(&mut self.groups, self.grouping, &group, &part.observer, &key);
                touched.entry(group).or_default().insert(key);
            }
        }
        self.settle(touched, now)
    }

    /// An observer is known to be gone since `at`: the streams that it had are over. What it observed stays until
    /// somebody else observes the source.
    pub(super) fn gone(&mut self, observer: &Observer, at: Timestamp) -> Option<Arc<ChangeBatch>> {
        let mut touched = Touched::new();
        let peer = self.peers.get_mut(observer).filter(|peer| !peer.is_gone)?;
        (peer.is_gone, peer.unseen) = (true, None);
        for (key, group) in &peer.keys {
            let places = self.groups.get_mut(group);
            let Some(entry) = places.and_then(|places| places.entries.get_mut(observer)) else { continue };
            if let Some(resource) = entry.resources.get(key) {
                let ended = self.grouping.ended(resource, at);
                entry.set(self.grouping, key, Some(ended));
            }
            touched.entry(group.clone()).or_default().insert(key.clone());
        }
        self.settle(touched, at)
    }

    /// Whether others that are gone are all that knows some sources.
    pub(super) fn has_orphans(&self) -> bool {
        self.peers.values().any(|peer| peer.is_gone && !peer.keys.is_empty())
    }

    /// Takes over the sources of all observers that are gone. Gives what to observe.
    pub(super) fn adopt(&mut self, now: Timestamp) -> Adopted {
        let gone = self.peers.iter().filter(|(_, peer)| peer.is_gone);
        let wanted: BTreeSet<Group> = gone
            .flat_map(|(observer, peer)| peer.keys.values().map(move |group| (observer, group)))
            .filter(|(observer, group)| self.owner(group) == Some(observer))
            .map(|(_, group)| group.clone())
            .collect();
        let mut adopted = Adopted::default();
        for group in wanted {
            let places = self.groups.get(&group);
            let entry = places.and_then(|places| places.entries.get(places.winner.as_ref()?));
            let brought = entry.is_some_and(|entry| entry.claim.brought);
            let one = self.claim_as(&group, Claim { stamp: 0, brought }, true, now);
            adopted.puts.extend(one.puts);
            adopted.deletes.extend(one.deletes);
            adopted.groups.push(group.clone());
            self.orphans.insert(group);
        }
        adopted
    }

    /// Sources that this replica took over from observers that are gone, and that nobody else has: the resources, and
    /// whether the source had brought its Dataplane.
    pub(super) fn orphans(&self) -> Vec<(Key, Claim)> {
        let mut orphans = Vec::new();
        for group in &self.orphans {
            let Some(places) = self.groups.get(group) else { continue };
            let Some(entry) = places.entries.get(&self.own) else { continue };
            if places.winner.as_ref() == Some(&self.own) && entry.orphan && !entry.live {
                orphans.extend(entry.resources.keys().map(|key| (key.clone(), entry.claim)));
            }
        }
        orphans
    }

    /// Decides anew about the groups that were touched.
    fn settle(&mut self, touched: Touched, now: Timestamp) -> Option<Arc<ChangeBatch>> {
        let mut changes = Vec::new();
        for (group, mut keys) in touched {
            let Some(places) = self.groups.get_mut(&group) else { continue };
            let best = places.best().cloned();
            if best != places.winner {
                for observer in [&best, &places.winner].into_iter().flatten() {
                    let entry = places.entries.get(observer);
                    keys.extend(entry.into_iter().flat_map(|entry| entry.resources.keys().cloned()));
                }
                places.winner.clone_from(&best);
            }
            let winner = best.as_ref().and_then(|best| places.entries.get(best));
            for key in keys {
                let new = winner.and_then(|winner| winner.resources.get(&key));
                let old = self.shown.get(&key);
                let is_same = match (&old, new) {
                    (None, None) => true,
                    (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old.same_content(new),
                    _ => false,
                };
                if !is_same {
                    changes.push(Change { key, old, new: new.cloned() });
                }
            }
            self.tidy(&group, best.as_ref());
        }
        self.peers.retain(|_, peer| !peer.is_gone || !peer.keys.is_empty());
        if changes.is_empty() {
            return None;
        }
        let revision = Revision(self.shown.revision().0 + 1);
        let batch = Arc::new(ChangeBatch { revision, committed_at: now, changes });
        self.shown = self.shown.with(&batch);
        Some(batch)
    }

    /// To be called now and then. Gives own observations that have counted no more for a while, and are to be forgotten.
    pub(super) fn tick(&mut self) -> Vec<Key> {
        let mut yielded = Vec::new();
        let (groups, own) = (&mut self.groups, &self.own);
        self.beaten.retain(|group, ticks| {
            *ticks += 1;
            if *ticks < YIELD_AFTER {
                return true;
            }
            let entry = groups.get_mut(group).and_then(|places| places.entries.get_mut(own));
            yielded
                .extend(entry.into_iter().flat_map(|entry| std::mem::take(&mut entry.resources).into_keys()));
            false
        });
        yielded
    }

    /// Drops what can count no more: own observations that a newer stream elsewhere replaced (later), and those of
    /// observers that are gone, once somebody else has the source.
    fn tidy(&mut self, group: &Group, winner: Option<&Observer>) {
        let Some(places) = self.groups.get_mut(group) else { return };
        let (own, peers) = (&self.own, &mut self.peers);
        let mut is_beaten = false;
        places.entries.retain(|observer, entry| {
            if Some(observer) == winner {
                return true;
            }
            if observer == own {
                is_beaten = winner.is_some() && !entry.live && !entry.resources.is_empty();
                // Its claim stays, so that late news of an old stream do not count as a new one.
                return true;
            }
            let Some(peer) = peers.get_mut(observer) else { return false };
            if peer.is_gone && winner.is_some() {
                for key in entry.resources.keys() {
                    peer.keys.remove(key);
                }
                return false;
            }
            !entry.resources.is_empty()
        });
        if places.entries.values().all(|entry| entry.resources.is_empty()) {
            self.groups.remove(group);
            self.orphans.remove(group);
        }
        if is_beaten {
            self.beaten.entry(group.clone()).or_default();
        } else {
            self.beaten.remove(group);
        }
    }
}

/// Forgets one observation of a peer.
fn remove(
    groups: &mut HashMap<Group, Places>,
    grouping: Grouping,
    group: &Group,
    observer: &Observer,
    key: &Key,
) {
    if let Some(entry) = groups.get_mut(group).and_then(|places| places.entries.get_mut(observer)) {
        entry.set(grouping, key, None);
    }
}
