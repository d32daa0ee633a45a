//! What everybody reports to, and the rules that must hold at every moment.
//!
//! Every resource of the workload carries the number of its write. The oracle keeps what every store held under every
//! key, write by write, in the order of the stores; so for each write of the sync it knows whether the source ever said
//! what the sync makes of it.

use std::collections::{BTreeMap, BTreeSet};

use graticule_kds::core::PeerReport;
use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Resource, labels};
use graticule_store::{ChangeBatch, Revision, Snapshot};

use super::Report;

/// Label with the number of the write.
pub(super) const OP: &str = "op";

/// From this number on, and from half of a kind on, a loss is held back.
pub(super) const PROTECTED: usize = 4;

/// Number of a write of the workload.
pub(super) type Op = u64;

/// A control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    Global,
    Zone(usize),
    /// A second control plane that calls itself like the first zone.
    Rival,
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    User,
    /// Federation.
    Sync,
}

/// What a store held under a key from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    /// This write.
    Op(Op),
    /// Nothing (or nothing that leaves the site), because somebody wanted that.
    Absent,
    /// Nothing, because the disk was lost.
    Lost,
    /// Nothing, because the disk was replaced by an older one.
    Older,
}

/// One entry of the history of a key.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Grows over all sites.
    at: u64,
    was: Was,
}

/// What one running replica shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) revision: Revision,
    /// Of a zone, by itself; at global of each zone that is connected to this replica.
    pub(super) reports: BTreeMap<String, PeerReport>,
}

#[derive(Default)]
pub(super) struct Oracle {
    history: BTreeMap<(Site, Key), Vec<Entry>>,
    /// Where each write was stored, by site.
    places: BTreeMap<(Site, Op), Key>,
    /// The site of each write, and what it wrote.
    written: BTreeMap<Op, (Site, serde_json::Value)>,
    acknowledged: BTreeMap<Op, Revision>,
    /// Writes that were stored where they were made.
    stored: BTreeSet<Op>,
    clock: u64,
    next_op: Op,
    /// When an operator last gave up what a site held back of a peer.
    accepted: BTreeMap<(Site, Site), u64>,
    /// When a zone was last kept from others.
    disabled: BTreeMap<String, u64>,
    /// When a disk last lost something.
    lost: BTreeMap<Site, u64>,
    pub(super) shown: BTreeMap<(Site, usize), Shown>,
    counts: Report,
    violation: Option<String>,
    is_stopped: bool,
    digest: u64,
}

fn op_of(resource: &Resource) -> Option<Op> {
    resource.meta.label(OP)?.parse().ok()
}

fn leaves(resource: &Resource) -> bool {
    resource.meta.label(labels::KDS_SYNC) != Some("disabled")
}

/// What a zone comes and goes with; nobody holds it back.
fn is_unprotected(kind: Kind) -> bool {
    matches!(kind, Kind::Dataplane | Kind::DataplaneInsight | Kind::Workload)
}

impl Oracle {
    pub(super) fn violated(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    pub(super) fn violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// A write of the workload begins.
    pub(super) fn begin(&mut self) -> Op {
        self.next_op += 1;
        self.next_op
    }

    /// What it writes.
    pub(super) fn writes(&mut self, site: Site, op: Op, resource: &Resource) {
        self.written.insert(op, (site, resource.spec.to_json()));
    }

    /// It was acknowledged.
    pub(super) fn acknowledge(&mut self, op: Op, revision: Revision) {
        self.counts.acknowledged += 1;
        self.acknowledged.insert(op, revision);
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.counts.acknowledged
    }

    pub(super) fn refused(&mut self) {
        self.counts.refused += 1;
    }

    pub(super) fn uncertain(&mut self) {
        self.counts.uncertain += 1;
    }

    /// An operator at `site` gives up what was held back of `peer`.
    pub(super) fn accepts(&mut self, site: Site, peer: Site) {
        self.clock += 1;
        self.counts.decisions += 1;
        self.accepted.insert((site, peer), self.clock);
    }

    fn note(&mut self, site: Site, key: &Key, was: Was) {
        self.clock += 1;
        let at = self.clock;
        if let Was::Op(op) = was {
            self.places.insert((site, op), key.clone());
        }
        self.history.entry((site, key.clone())).or_default().push(Entry { at, was });
    }

    fn was(resource: Option<&Resource>) -> Option<Was> {
        match resource {
            None => Some(Was::Absent),
            Some(resource) if !leaves(resource) => Some(Was::Absent),
            Some(resource) => op_of(resource).map(Was::Op),
        }
    }

    /// A store took a transaction.
    pub(super) fn committed(&mut self, site: Site, actor: Actor, batch: &ChangeBatch, before: &Snapshot) {
        if actor == Actor::Sync
            && let Err(broken) = self.judge_number(site, batch, before)
        {
            self.violated(format!("{site:?} at revision {}: {broken}", batch.revision));
        }
        for change in &batch.changes {
            let (old, new) = (change.old.as_deref(), change.new.as_deref());
            self.mix(site, &change.key, new);
            if actor == Actor::User {
                tracing::debug!(?site, revision = %batch.revision, key = %change.key, is = ?new.and_then(op_of), "written");
            }
            if actor == Actor::User
                && let Some(op) = new.and_then(op_of)
            {
                self.stored.insert(op);
            }
            if actor == Actor::Sync {
                let (was, is) = (old.and_then(op_of), new.and_then(op_of));
                tracing::debug!(?site, revision = %batch.revision, key = %change.key, ?was, ?is, "federated");
                self.counts.synced += 1;
                if let Err(broken) = self.judge(site, &change.key, old, new) {
                    self.violated(format!(
                        "{site:?} at revision {}: {}: {broken}",
                        batch.revision, change.key
                    ));
                }
            }
            if let Some(was) = Self::was(new) {
                self.note(site, &change.key, was);
            }
            let zone = new.and_then(|new| new.spec_as::<Zone>());
            if site == Site::Global && zone.is_some_and(|zone| !zone.is_enabled()) {
                self.clock += 1;
                self.disabled.insert(change.key.name.clone(), self.clock);
            }
        }
    }

    /// Everything was replaced by an operator: that is what the site has from then on.
    pub(super) fn replaced(&mut self, site: Site, before: &Snapshot, after: &Snapshot) {
        for resource in before.iter().filter(|resource| !after.contains(&resource.key())) {
            self.note(site, &resource.key(), Was::Absent);
        }
        self.restored(site, after, Was::Absent);
    }

    /// A disk lost what it had, or went back.
    pub(super) fn disk_replaced(&mut self, site: Site, before: &Snapshot, after: &Snapshot) {
        let was = if after.is_empty() { Was::Lost } else { Was::Older };
        for resource in before.iter().filter(|resource| !after.contains(&resource.key())) {
            self.note(site, &resource.key(), was);
        }
        self.restored(site, after, was);
    }

    /// A store holds this from now on. `was` is what it holds under keys that it had before it lost its disk.
    fn restored(&mut self, site: Site, after: &Snapshot, was: Was) {
        let is_lost = |((of, key), entries): &(&(Site, Key), &Vec<Entry>)| {
            *of == site && !after.contains(key) && entries.last().is_some_and(|last| last.was == Was::Lost)
        };
        let lost: Vec<Key> = self.history.iter().filter(is_lost).map(|((_, key), _)| key.clone()).collect();
        for key in lost {
            self.note(site, &key, was);
        }
        for resource in after.iter() {
            if let Some(was) = Self::was(Some(resource)) {
                self.note(site, &resource.key(), was);
            }
            if resource.spec_as::<Zone>().is_some_and(|zone| !zone.is_enabled()) {
                self.clock += 1;
                self.disabled.insert(resource.meta.name.clone(), self.clock);
            }
        }
        self.clock += 1;
        self.lost.insert(site, self.clock);
    }

    /// The peer that a copy at `site` comes from.
    fn peer_of(&self, site: Site, op: Op) -> Option<Site> {
        match site {
            Site::Global => self.written.get(&op).map(|(from, _)| *from),
            Site::Zone(_) | Site::Rival => Some(Site::Global),
        }
    }

    fn entries(&self, site: Site, op: Op) -> Option<&[Entry]> {
        let key = self.places.get(&(site, op))?;
        self.history.get(&(site, key.clone())).map(Vec::as_slice)
    }

    /// Whether the sync may do this.
    fn judge(
        &self,
        site: Site,
        key: &Key,
        old: Option<&Resource>,
        new: Option<&Resource>,
    ) -> Result<(), String> {
        let (old_op, new_op) = (old.and_then(op_of), new.and_then(op_of));
        if let Some(op) = old_op
            && self.written.get(&op).is_some_and(|(from, _)| *from == site)
        {
            return Err(format!("the sync touched write {op}, which this site made itself"));
        }
        match (old_op, new_op) {
            (_, Some(op)) => {
                let new = new.ok_or("no resource")?;
                self.judge_put(site, op, old_op, new)
            }
            (Some(op), None) if new.is_none() => self.judge_delete(site, key, op, old),
            _ => Ok(()),
        }
    }

    fn judge_put(&self, site: Site, op: Op, old: Option<Op>, new: &Resource) -> Result<(), String> {
        let peer = self.peer_of(site, op).ok_or_else(|| format!("write {op} was never made"))?;
        let entries = self.entries(peer, op).ok_or_else(|| format!("{peer:?} never had write {op}"))?;
        let last = entries.iter().rposition(|entry| entry.was == Was::Op(op));
        let last = last.ok_or_else(|| format!("{peer:?} never had write {op}"))?;
        if let Some((_, spec)) = self.written.get(&op)
            && *spec != new.spec.to_json()
        {
            return Err(format!("write {op} is not what was written"));
        }
        let Some(before) = old else { return Ok(()) };
        let first = entries.iter().position(|entry| entry.was == Was::Op(before));
        match first {
            Some(first) if last < first => Err(format!(
                "write {op} follows {before}, and {peer:?} had them the other way round: {entries:?}"
            )),
            _ => Ok(()),
        }
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
        if let Some(zone) = old.and_then(|old| old.meta.zone())
            && site != Site::Global
            && self.disabled.get(zone).is_some_and(|at| *at > entries[had].at)
        {
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
            // Another control plane had the name, and an operator gave up what that one did not have.
            None if peer == Site::Zone(0)
                && self.lost.contains_key(&Site::Rival)
                && accepted > entries[had].at =>
            {
                Ok(())
            }
            None => Err(format!(
                "write {op} was deleted, and {peer:?} never said that it has it no more: {entries:?}"
            )),
        }
    }

    /// Whether so much goes at once, for no other reason than that the peer has an older disk, that it should be held back.
    fn judge_number(&self, site: Site, batch: &ChangeBatch, before: &Snapshot) -> Result<(), String> {
        let mut numbers: BTreeMap<Kind, usize> = BTreeMap::new();
        for change in batch.changes.iter().filter(|change| change.new.is_none()) {
            let Some(op) = change.old.as_deref().and_then(op_of) else { continue };
            let Some(peer) = self.peer_of(site, op) else { continue };
            let Some(entries) = self.entries(peer, op) else { continue };
            let Some(had) = entries.iter().rposition(|entry| entry.was == Was::Op(op)) else { continue };
            let zone = change.old.as_deref().and_then(|old| old.meta.zone());
            if zone.and_then(|zone| self.disabled.get(zone)).is_some_and(|at| *at > entries[had].at) {
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
                op_of(resource).and_then(|op| self.written.get(&op)).is_some_and(|(from, _)| *from != site)
            };
            let copies = before.list(kind, None).filter(is_copy).count();
            if !is_unprotected(kind) && number >= PROTECTED && 2 * number >= copies {
                return Err(format!("{number} of {copies} {kind} were deleted because a disk is older now"));
            }
        }
        Ok(())
    }

    /// What a replica shows.
    pub(super) fn show(&mut self, site: Site, place: usize, shown: Shown) {
        let before = self.shown.get(&(site, place)).map(|before| before.revision);
        let lost = self.lost.contains_key(&site);
        if before.is_some_and(|before| before > shown.revision) && !lost {
            self.violated(format!(
                "{site:?} replica {place}: revision {} follows {}",
                shown.revision,
                before.unwrap_or_default()
            ));
        }
        for (zone, report) in &shown.reports {
            if report.revision.is_some_and(|revision| revision.acknowledged > revision.current) {
                self.violated(format!("{site:?} replica {place}: {zone} acknowledged what does not exist"));
            }
        }
        self.shown.insert((site, place), shown);
    }

    /// A replica is down.
    pub(super) fn gone(&mut self, site: Site, place: usize) {
        self.shown.remove(&(site, place));
    }

    /// The last word about acknowledged writes: each is stored, or something came after it.
    pub(super) fn finish(&self) -> Result<(), String> {
        for op in self.acknowledged.keys() {
            let Some((site, _)) = self.written.get(op) else { continue };
            if !self.stored.contains(op) {
                return Err(format!("write {op} was acknowledged by {site:?} and never stored"));
            }
        }
        Ok(())
    }

    fn mix(&mut self, site: Site, key: &Key, new: Option<&Resource>) {
        let op = new.and_then(op_of).unwrap_or_default();
        let text = format!("{site:?} {key} {op}");
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn report(&self) -> Report {
        Report { digest: self.digest, ..self.counts }
    }
}
