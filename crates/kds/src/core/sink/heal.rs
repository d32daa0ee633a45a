//! What is asked for again: copies that are not as they were taken, and what was refused because of something that is not
//! in its way any more (DESIGN decision 17).

use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::mesh_trust::MeshTrust;
use graticule_model::{Key, Kind, Resource};
use graticule_proto::discovery::{DeltaDiscoveryRequest, Node};
use graticule_store::{Change, Event};

use super::super::trust;
use super::{GlobalSeen, Held, Side, Sink, is_there};
use crate::wire;

/// What is in the way of a resource that would be taken otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Somebody else's resource under the same name.
    Resource(Key),
    /// The trust domain is another zone's.
    TrustDomain {
        /// In this mesh.
        mesh: String,
        /// It.
        domain: String,
    },
    /// The store refused the write.
    Store,
    /// The peer has as much here as it may.
    Limit,
}

impl Obstacle {
    /// Another zone's trust domain.
    pub(super) fn trust_domain(resource: &Resource) -> Option<Obstacle> {
        let domain = resource.spec_as::<MeshTrust>()?.trust_domain.clone();
        Some(Obstacle::TrustDomain { mesh: resource.meta.mesh.to_string(), domain })
    }

    /// Whether a change of this resource may have removed it.
    fn is_touched(&self, key: &Key) -> bool {
        match self {
            Obstacle::Resource(obstacle) => obstacle == key,
            Obstacle::TrustDomain { .. } => key.kind == Kind::MeshTrust || trust::is_claim(key),
            Obstacle::Store | Obstacle::Limit => false,
        }
    }

    /// There is no place for the resource: a peer that sends again with a new stream only is not thrown off for that.
    fn is_capacity(&self) -> bool {
        matches!(self, Obstacle::Store | Obstacle::Limit)
    }

    /// `has_room`: there is room for the resource.
    fn is_gone(&self, side: &Side, held: &dyn Held, has_room: impl Fn() -> bool) -> bool {
        match (self, side) {
            (Obstacle::Limit, _) => has_room(),
            (Obstacle::Resource(key), _) => held.get(key).is_none_or(|stored| side.owns(&stored)),
            (Obstacle::TrustDomain { mesh, domain }, Side::Global { zone }) => {
                trust::owner_of(mesh, domain, zone, held).is_none()
            }
            // Nobody knows; it is tried now and then.
            (Obstacle::TrustDomain { .. }, Side::Zone) | (Obstacle::Store, _) => true,
        }
    }
}

/// What to do about what is missing.
#[derive(Debug, Clone, PartialEq)]
pub enum Repair {
    /// Nothing now.
    None,
    /// The peer is one of ours: it is asked again, over the living stream.
    Ask(Vec<DeltaDiscoveryRequest>),
    /// It is a Kuma peer, which sends again with a new stream only.
    Reconnect,
}

impl Sink {
    /// Copies that are not as they were taken: something else than this sink wrote, or lost, them. Also those that the peer
    /// has not: what an older stream had in hand may be written, by another replica, when this one has begun.
    pub fn damaged(&self, held: &dyn Held) -> Vec<Key> {
        self.comparing(held).flatten().collect()
    }

    /// The same, a copy with each step, because each is encoded for it.
    pub fn comparing<'a>(&'a self, held: &'a dyn Held) -> impl Iterator<Item = Option<Key>> + Send + 'a {
        self.kinds.iter().flat_map(move |(kind, state)| {
            let is_known = |name: &str| {
                state.received.contains_key(name)
                    || state.held_back.contains(name)
                    || state.quarantine.contains(name)
            };
            // What has no form on the wire cannot be presented.
            let is_surplus = move |copy: &Arc<Resource>| {
                self.is_copy(copy)
                    && !is_known(&wire::wire_name(&copy.meta))
                    && self.side.own_version(copy).is_some()
            };
            let stored = if state.first { Vec::new() } else { held.list(*kind) };
            let surplus = stored.into_iter().map(move |copy| is_surplus(&copy).then(|| copy.key()));
            let changed = state.received.iter().map(move |(name, (own, _))| {
                let key = wire::key_of(*kind, name)?;
                let stored = held.get(&key).filter(|stored| self.side.owns(stored));
                let is = stored.and_then(|stored| self.side.own_version(&stored));
                (is.as_ref() != Some(own)).then_some(key)
            });
            surplus.chain(changed)
        })
    }

    /// Takes what a comparison found, and compares what was refused with what is in its way. Tells which copies will be asked
    /// for; one that is damaged again and again is asked for less and less often. `now` is monotonic.
    pub fn compared(&mut self, mut damaged: Vec<Key>, held: &dyn Held, now: Duration) -> Vec<Key> {
        if self.global != GlobalSeen::Known && self.side == Side::Zone {
            return Vec::new();
        }
        damaged.retain(|key| self.repairs.want(key.kind, &format!("{}.{}", key.name, key.mesh), now));
        self.judge_again(held, now, |_| true);
        let (side, meshes) = (&self.side, &self.meshes);
        for (kind, state) in &mut self.kinds {
            for gone in state.forget_gone(|name| is_there(*kind, name, side, meshes, held)) {
                if self.is_ours {
                    // The peer counts it until it is asked again.
                    self.repairs.want(*kind, &gone, now);
                }
            }
        }
        damaged
    }

    #[cfg(test)]
    pub(in crate::core) fn audit(&mut self, held: &dyn Held, now: Duration) -> Vec<Key> {
        let damaged = self.damaged(held);
        self.compared(damaged, held, now)
    }

    /// Whether anything was refused because of something else that is stored here.
    pub fn has_obstacles(&self) -> bool {
        self.obstacles().next().is_some()
    }

    /// Takes a change of what is stored: what was in the way of a resource may be gone. `now` is monotonic.
    pub fn on_event(&mut self, event: &Event, held: &dyn Held, now: Duration) {
        match event {
            Event::Batch(batch) => {
                let touches = |obstacle: &Obstacle| {
                    batch.changes.iter().any(|Change { key, .. }| obstacle.is_touched(key))
                };
                self.judge_again(held, now, touches);
            }
            Event::Resync(_) => {
                self.judge_again(held, now, |obstacle| !obstacle.is_capacity());
            }
        }
    }

    fn obstacles(&self) -> impl Iterator<Item = (Kind, &str, &Obstacle)> {
        self.kinds.iter().flat_map(|(kind, state)| {
            state.quarantine.obstructed().map(|(name, obstacle)| (*kind, name, obstacle))
        })
    }

    fn judge_again(&mut self, held: &dyn Held, now: Duration, concerns: impl Fn(&Obstacle) -> bool) {
        let used = self.used();
        let has_room = |kind: Kind, name: &str| {
            let stored = wire::key_of(kind, name).and_then(|key| held.get(&key));
            let is_new = stored.is_none_or(|stored| !self.side.owns(&stored));
            self.limit.refuses(used, is_new, 1).is_none()
        };
        let freed: Vec<(Kind, String)> = self
            .obstacles()
            .filter(|(.., obstacle)| self.is_ours || !obstacle.is_capacity())
            .filter(|(kind, name, obstacle)| {
                concerns(obstacle) && obstacle.is_gone(&self.side, held, || has_room(*kind, name))
            })
            .map(|(kind, name, _)| (kind, name.to_owned()))
            .collect();
        for (kind, name) in freed {
            self.repairs.want(kind, &name, now);
        }
    }

    /// When [`repair`](Self::repair) has something to do; monotonic.
    pub fn repair_at(&self) -> Option<Duration> {
        if self.is_ours { self.repairs.next() } else { self.repairs.next_reconnect() }
    }

    /// What to do about what is missing now. `now` is monotonic.
    pub fn repair(&mut self, node: &Node, held: &dyn Held, now: Duration) -> Repair {
        if self.repair_at().is_none_or(|at| at > now) {
            return Repair::None;
        }
        if !self.is_ours {
            self.repairs.reconnect(now);
            return Repair::Reconnect;
        }
        let due = self.repairs.take_due(now);
        for kind in &due {
            if let Some(state) = self.kinds.get_mut(kind) {
                state.again += 1;
                state.is_asked = true;
            }
        }
        Repair::Ask(due.into_iter().filter_map(|kind| self.begin(kind, node, held)).collect())
    }
}
