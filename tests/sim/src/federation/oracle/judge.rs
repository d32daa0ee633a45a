//! What federation may do, change by change, and what it may say.

use std::collections::{BTreeMap, BTreeSet};

use graticule_kds::core::PeerReport;
use graticule_model::kinds::config::CLUSTER_ID;
use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Resource};
use graticule_store::{ChangeBatch, Snapshot};

use super::super::expected;
use super::{Entry, Op, Oracle, PROTECTED, Site, Was, Written, is_unprotected, leaves, op_of, zone_name};

/// What federation keeps for itself.
const OWN_CONFIGS: &str = "graticule-";

impl Oracle {
    /// Whether the sync may do this.
    pub(super) fn judge(
        &self,
        site: Site,
        key: &Key,
        old: Option<&Resource>,
        new: Option<&Resource>,
    ) -> Result<(), String> {
        let (old_op, new_op) = (old.and_then(op_of), new.and_then(op_of));
        if let Some(op) = old_op
            && self.written.get(&op).is_some_and(|written| written.site == site)
        {
            return Err(format!("the sync touched write {op}, which this site made itself"));
        }
        match (old, old_op, new, new_op) {
            (Some(_), None, _, Some(op)) => {
                Err(format!("write {op} took the place of what is no part of the workload"))
            }
            (_, _, Some(new), Some(op)) => self.judge_put(site, key, op, old, new),
            (_, Some(op), None, _) => self.judge_delete(site, key, op, old),
            (_, Some(op), Some(_), None) => {
                Err(format!("write {op} was replaced by something that nobody wrote"))
            }
            _ => is_own_business(key),
        }
    }

    /// The form in which a write should arrive at a site; `None`: not at all.
    fn arrival(&self, site: Site, written: &Written) -> Option<Resource> {
        match (site, written.site) {
            (_, Site::Rival) | (Site::Rival, _) => None,
            (Site::Global, Site::Zone(from)) => expected::to_global(&written.resource, &zone_name(from)),
            (Site::Global, Site::Global) => None,
            (Site::Zone(zone), from) => {
                let at_global = match from {
                    Site::Zone(from) => expected::to_global(&written.resource, &zone_name(from))?,
                    _ => Resource::clone(&written.resource),
                };
                // Whether its zone is enabled changes with time, and is judged in the end.
                expected::to_zone(&at_global, &zone_name(zone), &BTreeSet::new())
            }
        }
    }

    fn judge_put(
        &self,
        site: Site,
        key: &Key,
        op: Op,
        old: Option<&Resource>,
        new: &Resource,
    ) -> Result<(), String> {
        let written = self.written.get(&op).ok_or_else(|| format!("write {op} was never made"))?;
        let mut arrival = self
            .arrival(site, written)
            .ok_or_else(|| format!("write {op} of {:?} must not get here", written.site))?;
        if let (Site::Zone(_), Some(old)) = (site, old) {
            // What the zone observed stays.
            arrival.status = old.status.clone();
        }
        if arrival.key() != *key {
            return Err(format!("write {op} belongs under {}", arrival.key()));
        }
        let (is, should) = (expected::form(new).1, expected::form(&arrival).1);
        if is != should {
            return Err(format!("write {op} is {is} and not {should}"));
        }
        if let (Site::Global, Site::Zone(from)) = (site, written.site)
            && new.meta.owner != Some(Key::new(Kind::Zone, "", zone_name(from)))
        {
            return Err(format!("write {op} is owned by {:?}", new.meta.owner));
        }
        let peer = self.peer_of(site, op).ok_or_else(|| format!("write {op} was never made"))?;
        let entries = self.entries(peer, op).ok_or_else(|| format!("{peer:?} never had write {op}"))?;
        let last = entries.iter().rposition(|entry| entry.was == Was::Op(op));
        let last = last.ok_or_else(|| format!("{peer:?} never had write {op}"))?;
        let Some(before) = old.and_then(op_of) else { return Ok(()) };
        let first = entries.iter().position(|entry| entry.was == Was::Op(before));
        match first {
            Some(first) if last < first => Err(format!(
                "write {op} follows {before}, and {peer:?} had them the other way round: {entries:?}"
            )),
            _ => Ok(()),
        }
    }

    fn is_disabled_since(&self, site: Site, copy: Option<&Resource>, at: u64) -> bool {
        let zone = copy.and_then(|copy| copy.meta.zone());
        site != Site::Global && zone.and_then(|zone| self.disabled.get(zone)).is_some_and(|since| *since > at)
    }

    fn judge_delete(&self, site: Site, key: &Key, op: Op, old: Option<&Resource>) -> Result<(), String> {
        let peer = self.peer_of(site, op).ok_or_else(|| format!("write {op} was never made"))?;
        let entries = self.entries(peer, op).ok_or_else(|| format!("{peer:?} never had write {op}"))?;
        let had = entries.iter().position(|entry| entry.was == Was::Op(op));
        let had = had.ok_or_else(|| format!("{peer:?} never had write {op}"))?;
        let later = &entries[had + 1..];
        if later.iter().any(|entry| entry.was == Was::Absent) {
            return Ok(());
        }
        if self.is_disabled_since(site, old, entries[had].at) {
            return Ok(());
        }
        let accepted = self.accepted.get(&(site, peer)).copied().unwrap_or_default();
        // A little less is believed; how much that is, is judged for all of a kind together.
        if later.iter().any(|entry| entry.was == Was::Older) {
            return Ok(());
        }
        match later.iter().find(|entry| entry.was == Was::Lost) {
            Some(_) if is_unprotected(key.kind) => Ok(()),
            Some(lost) if accepted > lost.at => Ok(()),
            Some(_) => Err(format!(
                "write {op} was deleted because {peer:?} lost its disk, and nobody agreed to that: {entries:?}"
            )),
            None => Err(format!(
                "write {op} was deleted, and {peer:?} never said that it has it no more: {entries:?}"
            )),
        }
    }

    /// Whether so much goes at once, for no other reason than that the peer has an older disk, that it should be held back.
    pub(super) fn judge_number(
        &self,
        site: Site,
        batch: &ChangeBatch,
        before: &Snapshot,
    ) -> Result<(), String> {
        let mut numbers: BTreeMap<Kind, usize> = BTreeMap::new();
        for change in batch.changes.iter().filter(|change| change.new.is_none()) {
            let old = change.old.as_deref();
            let Some(op) = old.and_then(op_of) else { continue };
            let Some(peer) = self.peer_of(site, op) else { continue };
            let Some(entries) = self.entries(peer, op) else { continue };
            // What is taken now may have been sent before the disk came that brought the write back.
            let Some(had) = entries.iter().position(|entry| entry.was == Was::Op(op)) else { continue };
            if self.is_disabled_since(site, old, entries[had].at) {
                continue;
            }
            let later = entries[had + 1..].iter();
            let accepted = self.accepted.get(&(site, peer)).copied().unwrap_or_default();
            let is_wanted = |entry: &Entry| entry.was == Was::Absent || entry.at < accepted;
            let later: Vec<&Entry> = later.filter(|entry| !matches!(entry.was, Was::Op(_))).collect();
            if !later.is_empty() && !later.iter().any(|entry| is_wanted(entry)) {
                *numbers.entry(change.key.kind).or_default() += 1;
            }
        }
        for (kind, number) in numbers {
            let is_copy = |resource: &&std::sync::Arc<Resource>| {
                op_of(resource)
                    .and_then(|op| self.written.get(&op))
                    .is_some_and(|written| written.site != site)
            };
            let copies = before.list(kind, None).filter(is_copy).count();
            if !is_unprotected(kind) && number >= PROTECTED && 2 * number >= copies {
                return Err(format!("{number} of {copies} {kind} were deleted because a disk is older now"));
            }
        }
        Ok(())
    }

    /// What a replica says about its connection: nobody has what does not exist, nobody doubts a peer that lost nothing, and
    /// nobody serves the rival.
    pub(super) fn judge_report(
        &self,
        site: Site,
        zone: &str,
        report: &PeerReport,
        stored: &Snapshot,
    ) -> Result<(), String> {
        if report.revision.is_some_and(|revision| revision.acknowledged > revision.current) {
            return Err("it acknowledged what does not exist".into());
        }
        if site == Site::Rival && report.synced == Some(true) {
            return Err("global brought the rival up to date".into());
        }
        if report.protection.state == "otherGlobal" && !self.lost.contains_key(&Site::Global) {
            return Err(format!("the zone does not know its global: {}", report.protection.advice));
        }
        for key in held_back(report) {
            let Some(copy) = stored.get(&key) else { continue };
            let Some(op) = op_of(&copy) else { continue };
            let Some(peer) = self.peer_of(site, op) else { continue };
            let Some(entries) = self.entries(peer, op) else { continue };
            let was_always_there = entries.iter().all(|entry| matches!(entry.was, Was::Op(_)));
            if was_always_there && !self.is_disabled_since(site, Some(&copy), 0) {
                return Err(format!(
                    "the removal of write {op} is held back at {zone}, and {peer:?} always had it: {entries:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether the peer has lost all that is held back: only then an operator gives it up.
    pub(in super::super) fn is_lost(
        &self,
        site: Site,
        report: &PeerReport,
        stored: &Snapshot,
        at_peer: &Snapshot,
    ) -> bool {
        // Nobody decides about what is not there: that must go from the report by itself.
        let mut held = held_back(report).filter_map(|key| stored.get(&key)).peekable();
        held.peek().is_some()
            && held.all(|copy| {
                let Some(op) = op_of(&copy) else { return true };
                let Some(peer) = self.peer_of(site, op) else { return true };
                let source = self.places.get(&(peer, op)).and_then(|place| at_peer.get(place));
                source.is_none_or(|source| {
                    !leaves(&source) || (site != Site::Global && is_kept_back(&source, at_peer))
                })
            })
    }
}

/// Whether global keeps this from all other zones, because the zone that it is from is disabled.
fn is_kept_back(source: &Resource, at_global: &Snapshot) -> bool {
    let zone = source.meta.zone().and_then(|zone| at_global.get(&Key::new(Kind::Zone, "", zone)));
    zone.as_deref().and_then(Resource::spec_as::<Zone>).is_some_and(|zone| !zone.is_enabled())
}

/// Keys of the copies whose removal is held back.
fn held_back(report: &PeerReport) -> impl Iterator<Item = Key> {
    report.protection.resources.iter().filter_map(|held| {
        Some(Key::new(Kind::from_name(&held.kind).ok()?, held.mesh.clone(), held.name.clone()))
    })
}

/// Zones, and what federation keeps for itself.
fn is_own_business(key: &Key) -> Result<(), String> {
    let is_own = match key.kind {
        Kind::Zone => true,
        Kind::Config => key.name == CLUSTER_ID || key.name.starts_with(OWN_CONFIGS),
        _ => false,
    };
    if is_own { Ok(()) } else { Err("nobody wrote that".into()) }
}
