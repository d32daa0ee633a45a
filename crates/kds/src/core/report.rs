//! What one side knows about its connection to the other: the same form for a zone at global and for global in a zone.

use std::collections::BTreeMap;

use graticule_model::{Key, Kind, Timestamp};
use graticule_store::Revision;
use serde::Serialize;

use super::quarantine::{NAMED_MAX, short_name, short_reason};
use super::{Claimant, GlobalSeen, KindCounts, Meshes, Source, Usage};
use crate::wire;

/// Entries that one list names; the rest is counted.
const LISTED_MAX: usize = 500;

/// Which way a resource goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Flow {
    /// From here to the peer.
    Sent,
    /// From the peer to here.
    Received,
}

/// Things by kind and wire name, each with a reason and since when: some hundred of each kind, the rest is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dated(BTreeMap<Kind, List>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct List {
    named: BTreeMap<String, (String, Timestamp)>,
    unnamed: usize,
}

impl Dated {
    /// What holds now; what held before keeps its time. True when anything changed.
    pub fn update<'a>(
        &mut self,
        holds: impl Iterator<Item = (Kind, &'a str, &'a str)>,
        at: Timestamp,
    ) -> bool {
        self.update_with(holds, std::iter::empty(), at)
    }

    /// As [`update`](Self::update), where `unnamed` is how many more there are of each kind.
    pub fn update_with<'a>(
        &mut self,
        holds: impl Iterator<Item = (Kind, &'a str, &'a str)>,
        unnamed: impl Iterator<Item = (Kind, usize)>,
        at: Timestamp,
    ) -> bool {
        let mut former = std::mem::take(&mut self.0);
        let mut changed = false;
        for (kind, name, reason) in holds {
            let list = self.0.entry(kind).or_default();
            if list.named.len() >= NAMED_MAX {
                list.unnamed += 1;
                continue;
            }
            let known = former.get_mut(&kind).and_then(|list| list.named.remove_entry(name));
            let (name, (mut known_reason, since)) =
                known.unwrap_or_else(|| (short_name(name).into_owned(), (String::new(), at)));
            if known_reason != short_reason(reason) {
                changed = true;
                known_reason = short_reason(reason).into_owned();
            }
            list.named.insert(name, (known_reason, since));
        }
        for (kind, more) in unnamed.filter(|(_, more)| *more > 0) {
            self.0.entry(kind).or_default().unnamed += more;
        }
        let unnamed =
            |lists: &BTreeMap<Kind, List>| -> usize { lists.values().map(|list| list.unnamed).sum() };
        changed || former.values().any(|list| !list.named.is_empty()) || unnamed(&former) != unnamed(&self.0)
    }

    /// Whether there is anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.keys().map(|kind| self.of(*kind)).sum()
    }

    /// How many there are of a kind.
    pub fn of(&self, kind: Kind) -> usize {
        self.0.get(&kind).map_or(0, |list| list.named.len() + list.unnamed)
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, usize)> {
        self.0.keys().map(|kind| (*kind, self.of(*kind)))
    }

    /// Kind, wire name, reason, since, of those that have a name.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str, &str, Timestamp)> {
        self.0.iter().flat_map(|(kind, list)| {
            list.named.iter().map(|(name, (reason, since))| (*kind, name.as_str(), reason.as_str(), *since))
        })
    }
}

/// What streams told about the peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerState {
    /// What the peer refused of what was sent.
    pub refused_by_peer: Dated,
    /// What was refused of what the peer sent.
    pub refused_here: Dated,
    /// What cannot be sent to it; without a name: nothing of the kind.
    pub unsendable: Dated,
    /// What cannot be sent to anybody, where it is stored here, with the reason.
    pub unoffered: Vec<(Key, String)>,
    /// Copies of the peer's that it wants to have deleted, and that are kept.
    pub held_back: Dated,
    /// How far each kind is that goes to the peer.
    pub sent: Vec<KindCounts>,
    /// Revision that the peer acknowledged.
    pub acknowledged: Revision,
    /// The peer has everything up to this position of the catalog.
    pub settled_at: Option<u64>,
    /// Since when the peer has not acknowledged more, although it lacks something.
    pub behind_since: Option<Timestamp>,
    /// In a zone: whether it knows this global.
    pub global: GlobalSeen,
    /// The meshes that the zone takes part in.
    pub meshes: Meshes,
    /// At global: how much the zone stores there.
    pub usage: Option<Usage>,
}

/// Resources that do not cross.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// Its kind.
    pub kind: String,
    /// Its mesh; empty for kinds of the whole federation.
    pub mesh: String,
    /// Its name on the wire; of what cannot be offered at all, the one it is stored under; empty: all of the kind.
    pub name: String,
    /// Which way it would go.
    pub direction: Flow,
    /// Why it does not.
    pub reason: String,
    /// Since when; absent: for as long as it has been stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// One kind, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindStatus {
    /// The kind.
    pub kind: &'static str,
    /// Which way.
    pub direction: Flow,
    /// As it is at its source.
    pub in_sync: usize,
    /// On its way.
    pub pending: usize,
    /// Refused.
    pub quarantined: usize,
    /// Removals that wait for a decision.
    pub held_back: usize,
}

/// Revisions of the store of this side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revisions {
    /// That it has.
    pub current: u64,
    /// That the peer has all of.
    pub acknowledged: u64,
    /// Difference.
    pub lag: u64,
    /// Since when nothing more was acknowledged, although something is to be; absent: the peer is in step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_since: Option<Timestamp>,
}

/// What global says with each health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// When.
    pub at: Timestamp,
    /// Revision of its store.
    pub current: u64,
    /// Revision that this zone has all of.
    pub acknowledged: u64,
    /// Difference.
    pub lag: u64,
}

/// What is kept although the peer no longer has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Protection {
    /// `clear`, `holding` or `otherGlobal`.
    pub state: &'static str,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
    /// How many deletions are held back here.
    pub held_back: usize,
    /// How many deletions the peer holds back.
    pub held_back_by_peer: usize,
    /// The first of those here.
    pub resources: Vec<Quarantined>,
}

/// All that is known about the connection to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// The zone.
    pub zone: String,
    /// Who tells: `global` or `zone`.
    pub reporter: &'static str,
    /// Whether they are connected.
    pub online: bool,
    /// In a zone: everything was brought up to date over this connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synced: Option<bool>,
    /// Since when they are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Timestamp>,
    /// In a zone: why the last connection ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// At global: processes of the zone that are connected, and the replicas of global where they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// How far the peer is; absent: only another replica knows, the one that the peer is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revisions>,
    /// The meshes that the zone takes part in; absent: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meshes: Vec<String>,
    /// Each kind.
    pub kinds: Vec<KindStatus>,
    /// What does not cross, at most 500.
    pub quarantine: Vec<Quarantined>,
    /// How many there are.
    pub quarantine_total: usize,
    /// What is kept although the peer no longer has it.
    pub protection: Protection,
    /// In a zone: what global said last about its own store, and how much of it the zone has. A Kuma global does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_revision: Option<Heartbeat>,
    /// At global: how much the zone stores there, and may store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// In a zone: the newest revision of global that its store is known to have all of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_revision_taken: Option<u64>,
    /// At global: another control plane with the name of the zone that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
}

/// One connected process of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// It.
    pub zone_instance: String,
    /// The replica of global that serves it.
    pub global_instance: String,
}

/// A control plane that wanted the name of another one's zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// The refused one's address.
    pub address: String,
    /// The refused process, where it said so.
    pub instance: String,
    /// What it was told.
    pub reason: String,
    /// First refusal.
    pub since: Timestamp,
    /// Newest refusal.
    pub last: Timestamp,
}

impl Conflict {
    /// Whether it is about this caller.
    pub fn is_of(&self, claimant: &Claimant) -> bool {
        self.address == claimant.address && self.instance == claimant.instance
    }
}

impl PeerState {
    /// Takes over what the sending side of a stream tells; true when anything changed.
    pub fn tell(&mut self, source: &Source, now: Timestamp) -> bool {
        let mut changed = self.refused_by_peer.update_with(source.rejected(), source.unnamed(), now);
        changed |= self.unsendable.update(source.faults(), now);
        let sent: Vec<KindCounts> = source.counts().collect();
        changed |= self.sent != sent;
        self.sent = sent;
        let (acknowledged, settled_at) = (source.acknowledged(), source.settled_at());
        let has_moved = acknowledged != self.acknowledged;
        changed |= has_moved || settled_at != self.settled_at;
        self.acknowledged = acknowledged;
        self.settled_at = settled_at;
        self.behind_since = match (self.settled_at, self.behind_since) {
            (Some(_), _) => None,
            (None, Some(since)) if !has_moved => Some(since),
            (None, _) => Some(now),
        };
        changed
    }

    /// Revisions, where the store has `current` and its catalog ends at `head`.
    pub fn revisions(&self, current: Revision, head: u64) -> Revisions {
        // Changes that do not concern the peer move the revision, but not its catalog.
        let acknowledged =
            if self.settled_at == Some(head) { current } else { self.acknowledged.min(current) };
        let lag = current.0 - acknowledged.0;
        let behind_since = self.behind_since.filter(|_| lag > 0);
        Revisions { current: current.0, acknowledged: acknowledged.0, lag, behind_since }
    }

    /// Both ways; `received` are the copies that are held of each of the peer's kinds.
    pub fn kinds(&self, received: impl Iterator<Item = (Kind, usize)>) -> Vec<KindStatus> {
        let sent = self.sent.iter().map(|counts| KindStatus {
            kind: counts.kind.name(),
            direction: Flow::Sent,
            in_sync: counts.in_sync,
            pending: counts.pending,
            quarantined: counts.quarantined
                + self.unoffered.iter().filter(|(key, _)| key.kind == counts.kind).count(),
            held_back: counts.held_back,
        });
        let received = received.map(|(kind, held)| {
            let held_back = self.held_back.of(kind);
            KindStatus {
                kind: kind.name(),
                direction: Flow::Received,
                in_sync: held.saturating_sub(held_back),
                pending: 0,
                quarantined: self.refused_here.of(kind),
                held_back,
            }
        });
        let mut all: Vec<KindStatus> = sent.chain(received).collect();
        all.sort_by_key(|status| (status.kind, status.direction));
        all
    }

    /// What does not cross, at most 500 entries, and how many there are.
    pub fn quarantine(&self) -> (Vec<Quarantined>, usize) {
        let lists = [
            (&self.refused_by_peer, Flow::Sent),
            (&self.unsendable, Flow::Sent),
            (&self.refused_here, Flow::Received),
        ];
        let unoffered = self.unoffered.iter().map(|(key, reason)| Quarantined {
            kind: key.kind.name().into(),
            mesh: key.mesh.to_string(),
            name: key.name.to_string(),
            direction: Flow::Sent,
            reason: reason.clone(),
            since: None,
        });
        let refused =
            lists.into_iter().flat_map(|(list, direction)| list.iter().map(move |one| named(one, direction)));
        let total = lists.into_iter().map(|(list, _)| list.len()).sum::<usize>() + self.unoffered.len();
        (unoffered.chain(refused).take(LISTED_MAX).collect(), total)
    }

    /// What is kept although the peer no longer has it.
    pub fn protection(&self, zone: &str) -> Protection {
        let by_peer: usize = self.sent.iter().map(|counts| counts.held_back).sum();
        let (state, advice) = match (&self.global, self.held_back.is_empty()) {
            (GlobalSeen::Other { own, offered }, _) => (
                "otherGlobal",
                format!(
                    "this global belongs to federation {offered:?}, the zone to {own:?}: nothing is taken from it. Restore \
                     global from a backup, or, if the zone shall follow this global and lose what it does not have: \
                     grat zone accept-deletions {zone}"
                ),
            ),
            (_, false) => (
                "holding",
                format!(
                    "the other side no longer has much of what it gave; the copies are kept. They are released when it has them \
                     again, and deleted with: grat zone accept-deletions {zone}"
                ),
            ),
            _ if by_peer > 0 => {
                ("holding", "the other side holds back what comes from here; decide there".into())
            }
            _ => ("clear", String::new()),
        };
        Protection {
            state,
            advice,
            held_back: self.held_back.len(),
            held_back_by_peer: by_peer,
            resources: self.held_back.iter().take(LISTED_MAX).map(|one| named(one, Flow::Received)).collect(),
        }
    }
}

fn named((kind, name, reason, since): (Kind, &str, &str, Timestamp), direction: Flow) -> Quarantined {
    let (mesh, own_name) = match wire::key_of(kind, name) {
        Some(key) => (key.mesh.to_string(), key.name.to_string()),
        None => (String::new(), name.to_owned()),
    };
    Quarantined {
        kind: kind.name().into(),
        mesh,
        name: own_name,
        direction,
        reason: reason.into(),
        since: Some(since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_keeps_its_time() {
        let at = |seconds| Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let mut list = Dated::default();
        let (a, b) = ((Kind::MeshTimeout, "a.default", "bad"), (Kind::MeshTimeout, "b.default", "bad"));
        assert!(list.update([a].into_iter(), at(1)));
        assert!(!list.update([a].into_iter(), at(2)));
        assert!(list.update([a, b].into_iter(), at(3)));
        assert!(list.update([(a.0, a.1, "worse"), b].into_iter(), at(4)));
        let times: Vec<_> = list.iter().map(|(_, name, reason, since)| (name, reason, since)).collect();
        assert_eq!(times, [("a.default", "worse", at(1)), ("b.default", "bad", at(3))]);
        assert!(list.update(std::iter::empty(), at(5)));
        assert!(list.is_empty());
    }

    #[test]
    fn nothing_acknowledged_has_an_age() {
        use crate::core::{Catalog, Direction};
        let at = |seconds| Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let catalog = Catalog::new(Direction::ToGlobal { zone: "east".into() }, Vec::new());
        let source = Source::new("east", None, 1 << 20, &catalog);
        let mut state = PeerState::default();
        for (now, want) in [(1, 1), (5, 1)] {
            state.tell(&source, at(now));
            assert_eq!(state.revisions(Revision(3), 0).behind_since, Some(at(want)));
        }
        assert_eq!(state.revisions(Revision(0), 0).behind_since, None, "nothing is missing");
    }

    #[test]
    fn lag() {
        let state = PeerState { acknowledged: Revision(7), settled_at: Some(3), ..PeerState::default() };
        for (current, head, want) in [(9, 3, (9, 0)), (9, 4, (7, 2)), (5, 4, (5, 0))] {
            let got = state.revisions(Revision(current), head);
            assert_eq!((got.acknowledged, got.lag), want, "{current} {head}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        let mut state = PeerState::default();
        let names: Vec<String> = (0..LISTED_MAX + 10).map(|n| format!("n{n}.default")).collect();
        let all = |kind| names.iter().map(move |name| (kind, name.as_str(), "gone"));
        let kinds = [Kind::MeshService, Kind::MeshTimeout, Kind::MeshRetry];
        let everything = || kinds.into_iter().flat_map(all);
        let more = || [(Kind::MeshRetry, 7)].into_iter();
        assert!(state.refused_here.update_with(everything(), more(), Timestamp::UNIX_EPOCH));
        assert!(!state.refused_here.update_with(everything(), more(), Timestamp::UNIX_EPOCH));
        state.held_back.update(everything(), Timestamp::UNIX_EPOCH);
        let (listed, total) = state.quarantine();
        assert_eq!((listed.len(), total), (LISTED_MAX, kinds.len() * names.len() + 7));
        assert_eq!(state.refused_here.iter().count(), kinds.len() * NAMED_MAX, "what is kept is bounded");
        assert_eq!(state.refused_here.of(Kind::MeshRetry), names.len() + 7);
        assert_eq!(
            (listed[0].kind.as_str(), listed[0].mesh.as_str(), listed[0].name.as_str()),
            ("MeshService", "default", "n0")
        );
        let protection = state.protection("east");
        assert_eq!(
            (protection.resources.len(), protection.held_back),
            (LISTED_MAX, kinds.len() * names.len())
        );
        assert!(protection.advice.contains("grat zone accept-deletions east"));
    }
}
