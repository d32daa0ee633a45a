//! What all members report to, and the rules that must hold.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use graticule_model::{Key, Kind, Resource};
use graticule_store::{ChangeBatch, Expect, Health, Revision, Snapshot};
use graticule_store_raft::MemberStatus;

use super::Report;
use super::member::Site;

/// Number of a write, given when it begins.
pub(super) type Op = u64;

/// Label that holds the number of the write.
pub(super) const OP: &str = "op";
/// Label that holds the term of a leader that wrote.
pub(super) const TERM: &str = "term";

/// Label that holds the precondition of the write.
pub(super) const EXPECT: &str = "expect";

/// The value of [`EXPECT`].
pub(super) fn expect_label(expect: Expect) -> String {
    match expect {
        Expect::Any => "any".into(),
        Expect::Absent => "absent".into(),
        Expect::Present => "present".into(),
        Expect::Version(version) => version.to_string(),
    }
}

/// Whether a write took place on what it expected.
fn held(expect: &str, old: Option<&Resource>) -> bool {
    match expect {
        "any" => true,
        "absent" => old.is_none(),
        "present" => old.is_some(),
        version => old.is_some_and(|old| old.meta.version.to_string() == version),
    }
}

/// The resource that leaders write.
pub(super) fn term_key() -> Key {
    Key::new(Kind::Mesh, "", "term")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Acknowledged(Revision),
    Refused,
    Uncertain,
}

/// What one running member shows.
#[derive(Debug, Default, Clone)]
struct Shown {
    revision: u64,
    health: Option<Health>,
    /// Members, as it sees them while it leads.
    led: Vec<MemberStatus>,
}

#[derive(Default)]
pub(super) struct Oracle {
    outcomes: BTreeMap<Op, Outcome>,
    /// Where each write turned up.
    applied: BTreeMap<Op, Revision>,
    /// Hash of what a revision changed.
    batches: BTreeMap<Revision, u64>,
    /// Hash of everything at a revision.
    states: BTreeMap<Revision, u64>,
    /// The highest revision that anybody was told.
    known: Revision,
    leaders: BTreeMap<u64, usize>,
    shown: BTreeMap<usize, Shown>,
    counts: Report,
    is_stopped: bool,
    violation: Option<String>,
}

impl Oracle {
    fn violated(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    pub(super) fn violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.counts.acknowledged
    }

    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The highest revision that anybody was told: what begins now must come after it.
    pub(super) fn known(&self) -> Revision {
        self.known
    }

    /// A write begins.
    pub(super) fn begin(&mut self) -> (Op, Revision) {
        let op = self.outcomes.len() as Op + 1;
        self.outcomes.insert(op, Outcome::Open);
        (op, self.known)
    }

    /// It was acknowledged at `revision`; `after` was known when it began, `shown` is what the replica shows now.
    pub(super) fn acknowledge(&mut self, op: Op, revision: Revision, after: Revision, shown: Revision) {
        self.counts.acknowledged += 1;
        self.outcomes.insert(op, Outcome::Acknowledged(revision));
        self.known = self.known.max(revision);
        if revision <= after {
            self.violated(format!("write {op} is at revision {revision}, but began when {after} was known"));
        }
        if shown < revision {
            self.violated(format!("write {op} is acknowledged at {revision}, its replica shows {shown}"));
        }
        if let Some(found) = self.applied.get(&op).filter(|found| **found != revision) {
            self.violated(format!("write {op} is acknowledged at {revision} and was found at {found}"));
        }
    }

    /// The store said that it did not happen and never will.
    pub(super) fn refuse(&mut self, op: Op, why: &str) {
        self.counts.refused += 1;
        self.outcomes.insert(op, Outcome::Refused);
        if let Some(found) = self.applied.get(&op) {
            self.violated(format!("write {op} is at revision {found}, but was refused: {why}"));
        }
    }

    /// Nobody knows.
    pub(super) fn lose(&mut self, op: Op) {
        self.counts.uncertain += 1;
        self.outcomes.insert(op, Outcome::Uncertain);
    }

    /// A linearizable read that began when `after` was known shows this.
    pub(super) fn read(&mut self, member: usize, after: Revision, shown: Revision) {
        self.counts.reads += 1;
        if shown < after {
            let text =
                format!("member {member} reads revision {shown} behind a barrier, but {after} was known");
            self.violated(text);
        }
        self.known = self.known.max(shown);
    }

    /// A member says that it leads.
    pub(super) fn leads(&mut self, member: usize, term: u64) {
        let first = *self.leaders.entry(term).or_insert(member);
        if first != member {
            self.violated(format!("members {first} and {member} both lead term {term}"));
        }
    }

    /// A replica shows a batch, which leads to `state`.
    pub(super) fn saw_batch(
        &mut self,
        member: usize,
        before: Revision,
        batch: &ChangeBatch,
        state: &Snapshot,
    ) {
        let revision = batch.revision;
        if revision.0 != before.0 + 1 {
            self.violated(format!("member {member}: revision {revision} follows {before}"));
        }
        let mut hash = Hash::new();
        hash.add(&batch.committed_at.to_string());
        for change in &batch.changes {
            hash.add(&change.key.name);
            let Some(new) = &change.new else { continue };
            hash.add_resource(new);
            if let Some(op) = label(new, OP) {
                self.saw_op(op, revision);
            }
            if let Some(expect) = new.meta.label(EXPECT)
                && !held(expect, change.old.as_deref())
            {
                let name = &change.key.name;
                self.violated(format!("revision {revision}: {name} was written on expecting {expect:?}"));
            }
            let old = change.old.as_deref().and_then(|old| label(old, TERM)).unwrap_or_default();
            if change.key == term_key() && label(new, TERM).is_some_and(|term| term < old) {
                self.violated(format!("revision {revision}: a leader of a term before {old} wrote"));
            }
        }
        let known = *self.batches.entry(revision).or_insert(hash.0);
        if known != hash.0 {
            self.violated(format!("revision {revision} is another one on member {member}"));
        }
        self.saw_state(member, state);
    }

    /// A replica starts, or has lost touch.
    pub(super) fn saw_resync(&mut self, member: usize, before: Revision, state: &Snapshot) {
        if state.revision() < before {
            self.violated(format!("member {member}: revision {} follows {before}", state.revision()));
        }
        self.saw_state(member, state);
    }

    /// A replica shows this.
    fn saw_state(&mut self, member: usize, state: &Snapshot) {
        let revision = state.revision();
        let mut hash = Hash::new();
        for resource in state.iter() {
            hash.add_resource(resource);
        }
        let known = *self.states.entry(revision).or_insert(hash.0);
        if known != hash.0 {
            self.violated(format!("member {member} has other contents at revision {revision}"));
        }
        self.shown.entry(member).or_default().revision = revision.0;
    }

    fn saw_op(&mut self, op: Op, revision: Revision) {
        let first = *self.applied.entry(op).or_insert(revision);
        if first != revision {
            self.violated(format!("write {op} happened twice: at {first} and {revision}"));
        }
        match self.outcomes.get(&op) {
            Some(Outcome::Refused) => self.violated(format!("write {op} was refused and is at {revision}")),
            Some(Outcome::Acknowledged(told)) if *told != revision => {
                self.violated(format!("write {op} was acknowledged at {told} and is at {revision}"));
            }
            _ => {}
        }
    }

    /// What a member says of itself; `led` is empty unless it leads.
    pub(super) fn show(&mut self, member: usize, health: Health, led: Vec<MemberStatus>) {
        let shown = self.shown.entry(member).or_default();
        (shown.health, shown.led) = (Some(health), led);
    }

    /// A member is down.
    pub(super) fn gone(&mut self, member: usize) {
        self.shown.remove(&member);
    }

    /// Members of `sites` that vote, as somebody sees it who leads.
    pub(super) fn voters(&self, sites: &[Site]) -> usize {
        let ids: BTreeSet<u64> = sites.iter().filter_map(Site::id).collect();
        let votes = |led: &Vec<MemberStatus>| led.iter().filter(|m| m.votes && ids.contains(&m.id)).count();
        self.shown.values().map(|shown| votes(&shown.led)).max().unwrap_or_default()
    }

    /// Whether anybody who leads counts this member in.
    pub(super) fn is_member(&self, id: u64) -> bool {
        self.shown.values().flat_map(|shown| &shown.led).any(|member| member.id == id)
    }

    /// Whether all members show the last revision, and all are well.
    pub(super) fn is_settled(&self, members: usize) -> bool {
        let head = self.batches.keys().next_back().map_or(0, |head| head.0);
        self.shown.len() == members
            && self.shown.values().all(|shown| shown.revision == head && shown.health == Some(Health::Ready))
    }

    /// The rules at the end: everything that was acknowledged is there.
    pub(super) fn finish(&self) -> Result<()> {
        let head = self.states.keys().next_back().copied().unwrap_or_default();
        ensure!(
            self.known <= head,
            "revision {} was acknowledged, {head} is the last one there is",
            self.known
        );
        for (op, outcome) in &self.outcomes {
            let Outcome::Acknowledged(revision) = outcome else { continue };
            // Every replica may have skipped it by a snapshot; whoever saw the revision saw the write.
            let was_seen = self.batches.contains_key(revision);
            let found = self.applied.contains_key(op);
            ensure!(found || !was_seen, "write {op} was acknowledged at {revision} and is not there");
        }
        Ok(())
    }

    pub(super) fn report(&self) -> Report {
        let mut hash = Hash::new();
        for (revision, batch) in &self.batches {
            hash.add(&format!("{revision}:{batch}"));
        }
        let revision = self.states.keys().next_back().map_or(0, |head| head.0);
        Report { revision, leaders: self.leaders.len() as u64, digest: hash.0, ..self.counts }
    }

    /// For people who look at a seed that failed.
    pub(super) fn state(&self) -> String {
        let member = |(member, shown): (&usize, &Shown)| {
            let leads = if shown.led.is_empty() { "" } else { " leads" };
            format!("member {member}: revision {}{leads}, {:?}", shown.revision, shown.health)
        };
        self.shown.iter().map(member).collect::<Vec<_>>().join("; ")
    }
}

fn label(resource: &Resource, name: &str) -> Option<u64> {
    resource.meta.label(name)?.parse().ok()
}

/// FNV-1a.
struct Hash(u64);

impl Hash {
    fn new() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_resource(&mut self, resource: &Resource) {
        let meta = &resource.meta;
        self.add(&meta.name);
        self.add(&meta.version.to_string());
        self.add(&meta.modification_time.to_string());
        for (name, value) in &meta.labels {
            self.add(name);
            self.add(value);
        }
    }
}
