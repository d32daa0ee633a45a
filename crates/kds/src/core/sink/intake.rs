//! What a response comes to, and what is remembered of it (federation.md §5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource};
use graticule_proto::discovery::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_store::{Expect, Write};

use super::judge::Taken;
use super::reply::{acknowledgement, error_detail};
use super::{GlobalSeen, Held, KindState, Obstacle, Side, Sink};
use crate::core::limit::{Change, Used};
use crate::core::quarantine::short_name;
use crate::core::stamp::Stamp;
use crate::core::{leave, trust};
use crate::wire::{self, Version};

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
    pub(super) stamp: Option<Stamp>,
    /// An operator agreed to another global.
    agreement_void: bool,
    /// A part of a first state, and not the last one.
    more_follows: bool,
    /// How what the zone takes changes with each write, by wire name.
    changes: BTreeMap<String, Change>,
    /// What such a part of a complete state mentioned.
    mentioned: BTreeSet<Key>,
}

impl Sink {
    /// What a response comes to, given what is stored. Changes nothing; call it again when the store moved.
    pub fn on_response(&self, response: &DeltaDiscoveryResponse, held: &dyn Held) -> Intake {
        let mut intake = Intake {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            stamp: Stamp::read(&response.system_version_info).filter(|_| self.present_versions),
            more_follows: self.is_part(response),
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
        let mut reading = Reading {
            sink: self,
            held,
            kind,
            intake,
            used: self.used(),
            mentioned: BTreeSet::new(),
            writes: BTreeMap::new(),
        };
        for item in &response.resources {
            if let Err(rejection) = reading.item(item) {
                reading.intake.rejections.push(rejection);
            }
        }
        reading.removals(state, response);
        reading.end(state)
    }

    /// Whether other parts of a first state follow. Only who asks for parts gets them.
    pub(super) fn is_part(&self, response: &DeltaDiscoveryResponse) -> bool {
        self.present_versions
            && Stamp::read(&response.system_version_info).is_some_and(|stamp| stamp.more_follows)
    }

    /// Ends the work on a response: the acknowledgement. `failed` are writes that the store refused.
    pub fn settle(
        &mut self,
        mut intake: Intake,
        failed: Vec<Rejection>,
        node: &Node,
    ) -> DeltaDiscoveryRequest {
        let mut waiting = 0;
        if let Some(state) = intake.kind.and_then(|kind| self.kinds.get_mut(&kind)) {
            state.count(&intake, &failed);
            intake.rejections.extend(failed);
            state.settle(&mut intake);
            waiting = state.held_back.len();
        }
        if let Some(stamp) = intake.stamp {
            self.is_ours = true;
            if self.kinds.values().all(|state| !state.is_asked) {
                self.taken = Some(stamp.revision);
            }
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
            self.kinds.values_mut().for_each(|state| state.given_up.clear());
        }
        let mut reply = acknowledgement(node, &intake.type_url, &intake.nonce, waiting);
        if !intake.rejections.is_empty() {
            reply.resource_names_subscribe = vec!["*".into()];
            reply.error_detail = Some(error_detail(&intake.rejections));
        }
        reply
    }

    /// The acknowledgement of a response of which nothing is taken, because this is not the zone's global. A peer of ours
    /// hears that it is held back.
    pub fn decline(&self, response: &DeltaDiscoveryResponse, node: &Node) -> DeltaDiscoveryRequest {
        let waiting = response.resources.len() + response.removed_resources.len();
        acknowledgement(node, &response.type_url, &response.nonce, waiting)
    }
}

/// A response that is gone through.
struct Reading<'a> {
    sink: &'a Sink,
    held: &'a dyn Held,
    kind: Kind,
    intake: Intake,
    /// What the zone takes, with what was gone through so far; only at global.
    used: Used,
    /// What the response says something about.
    mentioned: BTreeSet<Key>,
    /// Of two for one key the last one counts.
    writes: BTreeMap<Key, Write>,
}

impl Reading<'_> {
    /// Takes a resource, or says why not.
    fn item(&mut self, item: &discovery::Resource) -> Result<(), Rejection> {
        if let Some(key) = wire::key_of(self.kind, &item.name) {
            if !self.sink.meshes.include(&key) {
                // Global is a Kuma global, or did not hear it.
                return Ok(());
            }
            self.mentioned.insert(key);
        }
        let resource = wire::decode(self.kind, item).map_err(|error| Rejection {
            reason: format!("{}: {}", error.name, error.reason),
            name: error.name,
            obstacle: None,
        })?;
        self.mentioned.insert(resource.key());
        let Some(Taken { resource, write }) = self.sink.take(resource, self.held)? else { return Ok(()) };
        let name = wire::wire_name(&resource.meta);
        if let Some((own, len)) = self.sink.side.own(&resource) {
            self.count(&name, &resource.key(), write.is_some().then_some(len))?;
            let is_same = *own == *item.version;
            let received = if is_same { own.clone() } else { item.version.as_str().into() };
            self.intake.taken.push((name.into(), own, received));
        }
        self.write_besides(&resource);
        let key = resource.key();
        match write {
            Some(expect) => {
                self.writes.insert(key, Write::Put { resource: Box::new(resource), expect, touch: false });
            }
            None => {
                self.writes.remove(&key);
            }
        }
        Ok(())
    }

    /// Counts a copy that is to be written in so many bytes (`None`: it stays as it is), if the zone may store as much here.
    fn count(&mut self, name: &str, key: &Key, written: Option<usize>) -> Result<(), Rejection> {
        if !self.sink.is_limited() {
            return Ok(());
        }
        // Of two with one name the last one counts.
        let earlier = self.intake.changes.get(name);
        let without = earlier.map_or(self.used, |earlier| self.used.changed(earlier.undone()));
        let mut change = Change::default();
        if let Some(len) = written {
            let side = &self.sink.side;
            let before = self.held.get(key).filter(|stored| side.owns(stored));
            let before = before.and_then(|stored| Some(side.own(&stored)?.1));
            let growth = len.saturating_sub(before.unwrap_or_default());
            if let Some(reason) = self.sink.limit.refuses(without, before.is_none(), growth) {
                return Err(Rejection { name: name.to_owned(), reason, obstacle: Some(Obstacle::Limit) });
            }
            change = Change::of(before, Some(len));
        }
        self.used = without.changed(change);
        self.intake.changes.insert(name.to_owned(), change);
        Ok(())
    }

    /// What is written with a copy: in a zone that takes the place of what was there before it joined, at global who a trust
    /// domain belongs to.
    fn write_besides(&mut self, resource: &Resource) {
        match &self.sink.side {
            Side::Zone => {
                if let Some(former) = leave::former(resource, self.held) {
                    self.delete(&former);
                }
            }
            Side::Global { zone } => {
                if let Some(claim) = trust::claim(resource, zone, self.held)
                    && let Write::Put { resource, .. } = &claim
                {
                    self.writes.insert(resource.key(), claim);
                }
            }
        }
    }

    fn delete(&mut self, copy: &Resource) {
        let (key, expect) = (copy.key(), Expect::Version(copy.meta.version));
        self.intake.removed.push(wire::wire_name(&copy.meta));
        self.writes.insert(key.clone(), Write::Delete { key, expect });
    }

    /// What the peer does not have any more is removed, or waits for a decision.
    fn removals(&mut self, state: &KindState, response: &DeltaDiscoveryResponse) {
        let (sink, held, kind) = (self.sink, self.held, self.kind);
        let name_of = |copy: &Arc<Resource>| wire::wire_name(&copy.meta);
        let (mut removals, others): (Vec<_>, Vec<_>) = sink
            .removals(kind, state, response, &self.mentioned, held)
            .into_iter()
            .filter(|copy| !self.writes.contains_key(&copy.key()))
            .partition(|copy| state.given_up.contains(&name_of(copy)));
        let fresh = others.into_iter().filter(|copy| !state.held_back.contains(&name_of(copy)));
        // Of a peer that lost what it had: what came late, of those before it, is found when everything is there.
        let is_late = |copy: &Arc<Resource>| {
            sink.estranged && state.is_asked && !state.received.contains_key(name_of(copy).as_str())
        };
        let (own, fresh): (Vec<_>, Vec<_>) = fresh.partition(|stored| {
            sink.is_no_copy_yet(stored)
                || (state.first && sink.is_in_use(stored, held))
                || (sink.protection.concerns(kind) && is_late(stored))
        });
        self.intake.held_back = own.iter().map(name_of).collect();
        if sink.holds_back(kind, state, fresh.len(), held) {
            self.intake.held_back.extend(fresh.iter().map(name_of));
        } else {
            removals.extend(fresh);
        }
        let is_absent = |name: &&String| wire::key_of(kind, name).is_none_or(|key| held.get(&key).is_none());
        self.intake.absent = response.removed_resources.iter().filter(is_absent).cloned().collect();
        for copy in removals {
            if sink.is_limited()
                && let Some((_, len)) = sink.side.own(&copy)
            {
                self.intake.changes.insert(name_of(&copy), Change::of(Some(len), None));
            }
            self.delete(&copy);
        }
    }

    fn end(mut self, state: &KindState) -> Intake {
        if state.complete && self.intake.more_follows {
            self.intake.mentioned = self.mentioned;
        }
        self.intake.writes = self.writes.into_values().collect();
        self.intake
    }
}

impl KindState {
    /// Counts what the copies take after the writes, of which some failed.
    fn count(&mut self, intake: &Intake, failed: &[Rejection]) {
        let failed: BTreeSet<&str> = failed.iter().map(|rejection| rejection.name.as_str()).collect();
        let made = intake.changes.iter().filter(|(name, _)| !failed.contains(name.as_str()));
        self.used = made.fold(self.used, |used, (_, change)| used.changed(*change));
    }

    /// Remembers what became of a response.
    fn settle(&mut self, intake: &mut Intake) {
        if intake.more_follows {
            self.mentioned.append(&mut intake.mentioned);
        } else {
            self.complete = false;
            self.is_asked = false;
            self.mentioned.clear();
        }
        let said = intake.removed.iter().chain(&intake.absent).chain(&intake.held_back);
        let said = said.chain(intake.rejections.iter().map(|rejection| &rejection.name));
        let said = said.map(String::as_str).chain(intake.taken.iter().map(|(name, ..)| &**name));
        for name in said {
            self.presented.remove(name);
        }
        if !matches!(intake.global, Some(GlobalSeen::Other { .. })) && !intake.more_follows {
            self.first = false;
            // Of what the peer says nothing about, it has what was presented.
            self.received.extend(std::mem::take(&mut self.presented));
        }
        for name in intake.removed.iter().chain(&intake.absent) {
            self.received.remove(name.as_str());
            self.quarantine.remove(name);
            self.given_up.remove(name);
            self.held_back.remove(name);
        }
        for name in std::mem::take(&mut intake.held_back) {
            // The peer does not have it: what is there is no longer compared with the peer's.
            self.received.remove(name.as_str());
            self.held_back.insert(name);
        }
        for (name, own, received) in std::mem::take(&mut intake.taken) {
            self.quarantine.remove(&name);
            self.held_back.remove(&*name);
            self.given_up.remove(&*name);
            self.received.insert(name, (own, received));
        }
        for Rejection { name, reason, obstacle } in &intake.rejections {
            self.received.remove(name.as_str());
            self.quarantine.insert(name, reason, obstacle.as_ref());
        }
    }
}
