//! What the next response of a type says.

use std::sync::Arc;

use graticule_model::Kind;

use super::{COMPARED_LEN_MAX, Peer, Phase, TypeState};
use crate::core::{Catalog, Offer};
use crate::wire::Version;

/// From how many percent of a message on a complete first state is worth a warning.
const LARGE_PERCENT: usize = 70;
/// Bytes of resources in one response to a peer that takes parts; a larger resource travels alone. Many zones that connect at
/// once then cost little memory, and whatever else a stream has to say does not wait for long.
const PART_LEN_MAX: usize = 1024 * 1024;

/// A first state that a Kuma peer takes in one message only, and that is close to the largest message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeState {
    /// The kind.
    pub kind: Kind,
    /// Bytes.
    pub len: usize,
    /// Bytes that a message may have.
    pub len_max: usize,
    /// Wire name of its largest resource.
    pub largest: String,
    /// Bytes of that.
    pub largest_len: usize,
}

/// What goes into a response.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) resources: Vec<graticule_proto::discovery::Resource>,
    pub(super) removed: Vec<String>,
    /// Of the resources.
    pub(super) names: Vec<Arc<str>>,
    /// Bytes, about.
    pub(super) len: usize,
}

/// Bytes that a removal takes in a response.
fn removal_len(name: &str) -> usize {
    name.len() + 8
}

/// There is no room left in the response.
struct Full;

/// A response while it is written.
struct Writing<'a> {
    peer: &'a Peer,
    catalog: &'a Catalog,
    kind: Kind,
    len_max: usize,
    /// Bytes from which on a further resource waits for the next response.
    part_len_max: usize,
    draft: Draft,
    /// What the peer has once it takes it.
    updates: Vec<(Arc<str>, Version)>,
    largest: Option<(usize, Arc<str>)>,
    compared_len: usize,
}

/// The next response of a type; `None` = it must be complete and is too large.
pub(super) fn draft(state: &mut TypeState, peer: &Peer, catalog: &Catalog, len_max: usize) -> Option<Draft> {
    let Some(kind) = state.kind.filter(|kind| catalog.provides(*kind)) else {
        state.all_dirty = false;
        state.dirty.clear();
        return Some(Draft::default());
    };
    let whole = state.phase == Phase::First && !state.resumed;
    state.take_presented(kind, catalog);
    if std::mem::take(&mut state.all_dirty) {
        let offered = catalog.of_kind(kind).map(|(name, _)| name);
        state.dirty = state.known.keys().chain(state.faults.keys()).chain(offered).cloned().collect();
    }
    let mut writing = Writing {
        peer,
        catalog,
        kind,
        len_max,
        part_len_max: if state.takes_parts { PART_LEN_MAX.min(len_max) } else { len_max },
        draft: Draft::default(),
        updates: Vec::new(),
        largest: None,
        compared_len: 0,
    };
    if state.phase == Phase::First {
        writing.remove_surplus(state);
    }
    while let Some(name) = state.dirty.pop_first() {
        if writing.add(state, &name).is_ok() {
            continue;
        }
        state.dirty.insert(name);
        if whole {
            state.all_dirty = true;
            state.held = Some(writing.too_large());
            return None;
        }
        break;
    }
    if whole {
        state.large = writing.large();
    }
    state.sent(writing.updates);
    Some(writing.draft)
}

impl<'a> Writing<'a> {
    fn visible(&self, name: &str) -> Option<&'a Arc<Offer>> {
        let offer = self.catalog.get(self.kind, name)?;
        self.peer.gets(offer, self.catalog.disabled_zones()).then_some(offer)
    }

    /// All that the peer has too much is said at once, so that it can judge how much that is.
    fn remove_surplus(&mut self, state: &mut TypeState) {
        let surplus: Vec<Arc<str>> =
            state.known.keys().filter(|name| self.visible(name).is_none()).cloned().collect();
        for name in surplus {
            if self.remove(state, &name).is_err() {
                return;
            }
            state.dirty.remove(&name);
        }
    }

    /// Brings the peer up to date with one name.
    fn add(&mut self, state: &mut TypeState, name: &Arc<str>) -> Result<(), Full> {
        if state.is_partial && self.compared_len > COMPARED_LEN_MAX {
            return Err(Full);
        }
        let Some(offer) = self.visible(name) else {
            state.faults.remove(name);
            return if state.known.contains_key(name) { self.remove(state, name) } else { Ok(()) };
        };
        match self.put(state, name, offer) {
            Ok(done) => {
                if done.is_ok() {
                    state.faults.remove(name);
                }
                done
            }
            Err(reason) => {
                state.faults.insert(name.clone(), reason);
                Ok(())
            }
        }
    }

    /// Says what there is, unless the peer has it; an error is why that cannot be said at all.
    fn put(
        &mut self,
        state: &mut TypeState,
        name: &Arc<str>,
        offer: &Arc<Offer>,
    ) -> Result<Result<(), Full>, String> {
        self.compared_len += self.catalog.version_cost(offer);
        let version = self.catalog.version(offer)?;
        if let Some(known) = state.known.get_mut(name).filter(|known| **known == version) {
            // Shared with other peers from now on.
            *known = version;
            return Ok(Ok(()));
        }
        let encoded = self.catalog.encoded(offer)?;
        let len = encoded.len_max();
        if len > self.len_max {
            return Err(format!("resource of {len} bytes exceeds the message limit"));
        }
        if self.draft.len > 0 && self.draft.len + len > self.part_len_max {
            return Ok(Err(Full));
        }
        self.draft.len += len;
        if self.largest.as_ref().is_none_or(|(largest, _)| *largest < len) {
            self.largest = Some((len, offer.name.clone()));
        }
        self.draft.resources.push(encoded.to_discovery());
        self.draft.names.push(offer.name.clone());
        self.updates.push((offer.name.clone(), encoded.version.clone()));
        Ok(Ok(()))
    }

    fn remove(&mut self, state: &mut TypeState, name: &Arc<str>) -> Result<(), Full> {
        let len = removal_len(name);
        if self.draft.len + len > self.len_max {
            return Err(Full);
        }
        self.draft.len += len;
        state.known.remove(name);
        state.rejected.remove(name);
        self.draft.removed.push(name.to_string());
        Ok(())
    }

    /// Why nothing of the kind is sent.
    fn too_large(&self) -> String {
        let largest = self.largest.as_ref().map(|(len, name)| format!("{name} with {len} bytes"));
        format!(
            "a Kuma peer takes all of a kind in one message, and this is more than {} bytes (among the largest: {}): raise \
             kds.maxMsgSize of both sides",
            self.len_max,
            largest.as_deref().unwrap_or("one resource"),
        )
    }

    /// Whether a complete first state leaves little room.
    fn large(&self) -> Option<LargeState> {
        let (largest_len, largest) =
            self.largest.as_ref().filter(|_| self.draft.len >= self.len_max / 100 * LARGE_PERCENT)?;
        Some(LargeState {
            kind: self.kind,
            len: self.draft.len,
            len_max: self.len_max,
            largest: largest.to_string(),
            largest_len: *largest_len,
        })
    }
}

impl TypeState {
    /// Takes over what the peer said that it holds.
    fn take_presented(&mut self, kind: Kind, catalog: &Catalog) {
        let presented = std::mem::take(&mut self.presented);
        self.known.extend(presented.into_iter().map(|(name, version)| match catalog.get(kind, &name) {
            Some(offer) => (offer.name.clone(), offer.shared_version(&version)),
            None => (name.into(), version.into()),
        }));
    }

    /// Delivered on send: what the peer refuses is not sent again until it changes.
    fn sent(&mut self, updates: Vec<(Arc<str>, Version)>) {
        if updates.len() > self.known.len() / 4 {
            // Built anew, without gaps.
            self.known.append(&mut updates.into_iter().collect());
        } else {
            self.known.extend(updates);
        }
    }
}
