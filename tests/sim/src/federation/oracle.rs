//! What everybody reports to, and the rules that must hold at every moment.
//!
//! Every resource of the workload carries the number of its write. The oracle keeps what every store held under every
//! key, write by write, in the order of the stores; so for each write of the sync it knows whether the source ever said
//! what the sync makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_kds::core::PeerReport;
use graticule_model::kinds::zone::Zone;
use graticule_model::{Key, Kind, Resource, labels};
use graticule_store::{ChangeBatch, Revision, Snapshot};

use super::Report;
use super::site::zone_name;

mod judge;

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
    /// Something that breaks copies.
    Damage,
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
    /// At global: the rival was refused here.
    pub(super) refused_rival: bool,
}

/// What somebody wrote.
struct Written {
    site: Site,
    resource: Arc<Resource>,
}

/// What people last made of a key of their own site: when, and the write (`None`: it was deleted).
type Last = BTreeMap<(Site, Key), (Revision, Option<Op>)>;

#[derive(Default)]
pub(super) struct Oracle {
    history: BTreeMap<(Site, Key), Vec<Entry>>,
    /// Where each write was stored, by site.
    places: BTreeMap<(Site, Op), Key>,
    written: BTreeMap<Op, Written>,
    /// The newest of the acknowledged writes, by key.
    acknowledged: Last,
    /// The newest of the stored ones.
    stored: Last,
    /// Revision of the newest restore while replicas ran: what was acknowledged before may be gone.
    restored_at: BTreeMap<Site, Revision>,
    clock: u64,
    next_op: Op,
    /// When an operator last gave up what a site held back of a peer.
    accepted: BTreeMap<(Site, Site), u64>,
    /// When a zone was last kept from others.
    disabled: BTreeMap<String, u64>,
    /// When a disk last lost something.
    lost: BTreeMap<Site, u64>,
    pub(super) shown: BTreeMap<(Site, usize), Shown>,
    /// The newest revision that each replica showed, also in an earlier run.
    reached: BTreeMap<(Site, usize), Revision>,
    refused_rival: bool,
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
        self.written.insert(op, Written { site, resource: Arc::new(resource.clone()) });
    }

    /// A write, or a deletion, was acknowledged.
    pub(super) fn acknowledge(&mut self, site: Site, key: &Key, op: Option<Op>, revision: Revision) {
        self.counts.acknowledged += 1;
        if self.restored_at.get(&site).is_some_and(|restored| *restored >= revision) {
            return;
        }
        let newest = self.acknowledged.entry((site, key.clone())).or_insert((revision, op));
        if newest.0 < revision {
            *newest = (revision, op);
        }
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
            if actor == Actor::User && self.is_own(site, old, new) {
                self.stored.insert((site, change.key.clone()), (batch.revision, new.and_then(op_of)));
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

    /// Whether a change is about what people write at this site themselves.
    fn is_own(&self, site: Site, old: Option<&Resource>, new: Option<&Resource>) -> bool {
        let op = new.and_then(op_of).or_else(|| old.and_then(op_of));
        op.and_then(|op| self.written.get(&op)).is_some_and(|written| written.site == site)
    }

    /// What people wrote at a site before is not expected there any more.
    fn forget(&mut self, site: Site) {
        self.acknowledged.retain(|(of, _), _| *of != site);
        self.stored.retain(|(of, _), _| *of != site);
    }

    /// Everything was replaced by an operator: that is what the site has from then on.
    pub(super) fn replaced(&mut self, site: Site, before: &Snapshot, after: &Snapshot) {
        self.forget(site);
        self.restored_at.insert(site, after.revision());
        for resource in before.iter().filter(|resource| !after.contains(&resource.key())) {
            self.note(site, &resource.key(), Was::Absent);
        }
        self.restored(site, after, Was::Absent);
    }

    /// A disk lost what it had, or went back.
    pub(super) fn disk_replaced(&mut self, site: Site, before: &Snapshot, after: &Snapshot) {
        self.forget(site);
        self.restored_at.remove(&site);
        self.reached.retain(|(of, _), _| *of != site);
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
            Site::Global => self.written.get(&op).map(|written| written.site),
            Site::Zone(_) | Site::Rival => Some(Site::Global),
        }
    }

    fn entries(&self, site: Site, op: Op) -> Option<&[Entry]> {
        let key = self.places.get(&(site, op))?;
        self.history.get(&(site, key.clone())).map(Vec::as_slice)
    }

    /// What a replica shows. `stored` is what its control plane stores.
    pub(super) fn show(&mut self, site: Site, place: usize, shown: Shown, stored: &Snapshot) {
        let reached = self.reached.entry((site, place)).or_default();
        let before = std::mem::replace(reached, shown.revision);
        if before > shown.revision {
            self.violated(format!("{site:?} replica {place}: revision {} follows {before}", shown.revision));
        }
        for (zone, report) in &shown.reports {
            if let Err(broken) = self.judge_report(site, zone, report, stored) {
                self.violated(format!("{site:?} replica {place}: {zone}: {broken}"));
            }
        }
        self.refused_rival |= shown.refused_rival;
        self.shown.insert((site, place), shown);
    }

    /// Tells copies that federation brought to this site from everything else.
    pub(super) fn copies(&self, site: Site) -> impl Fn(&Resource) -> bool + use<> {
        let theirs = self.written.iter().filter(move |(_, written)| written.site != site);
        let theirs: BTreeSet<Op> = theirs.map(|(op, _)| *op).collect();
        move |resource| op_of(resource).is_some_and(|op| theirs.contains(&op))
    }

    /// Whether the second control plane with a zone's name heard that it is not wanted.
    pub(super) fn has_refused_rival(&self) -> bool {
        self.refused_rival
    }

    /// A replica is down.
    pub(super) fn gone(&mut self, site: Site, place: usize) {
        self.shown.remove(&(site, place));
    }

    /// The last word about what people wrote at a site that holds `stored` now: nothing of it is lost, and it is as the
    /// last one of them left it.
    pub(super) fn finish(&self, site: Site, stored: &Snapshot) -> Result<(), String> {
        let of_site = |((of, _), _): &(&(Site, Key), &(Revision, Option<Op>))| *of == site;
        for (place, (revision, op)) in self.acknowledged.iter().filter(of_site) {
            let newest = self.stored.get(place).map(|(stored, _)| *stored).unwrap_or_default();
            if newest < *revision {
                return Err(format!(
                    "{site:?}: {}: write {op:?} was acknowledged as {revision}, and never stored",
                    place.1
                ));
            }
        }
        for ((_, key), (revision, op)) in self.stored.iter().filter(of_site) {
            let held = stored.get(key);
            let is = held.as_deref().and_then(op_of);
            if is != *op {
                return Err(format!(
                    "{site:?}: {key}: somebody wrote {op:?} as {revision}, and now it is {is:?}"
                ));
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
