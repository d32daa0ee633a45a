//! Replacing everything ([`Store::replace_all`](graticule_store::Store::replace_all)): a content of any size comes in
//! parts, one proposal each, which every replica collects beside its state; one small proposal at the end puts them in
//! the place of the state. So the change is one entry of the log: before it nothing has happened, after it everything.
//!
//! (The alternative, one huge proposal, would break the limit of the log and hold up heartbeats; transactions with a
//! marker would let readers see contents that never were.)
//!
//! Parts that nobody finishes disappear on every replica at the same entry: with the next term, with the first part of
//! another replacement, or [`IDLE_ENTRIES_MAX`] entries after the last part.

use std::sync::Arc;

use bytes::Bytes;
use graticule_model::Resource;
use graticule_store::seal::Sealer;
use graticule_store::{CommitError, Replacement, Revision, Snapshot, transaction};

use crate::codec::{self, DecodeError};
use crate::machine::{ProposalId, proposal_id};
use crate::types::LogId;
use crate::wire::{self, ReplaceStep};

/// Bytes of resources in one part, unless one resource is longer.
pub(crate) const PART_LEN: usize = 2 << 20;
/// Entries after the last part, after which a replacement is given up.
const IDLE_ENTRIES_MAX: u64 = 10_000;

/// Parts that have arrived.
#[derive(Clone)]
pub(crate) struct Staging {
    id: ProposalId,
    /// Entry of the last part.
    last: LogId,
    parts: u64,
    resources: Vec<Arc<Resource>>,
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Contents stay out of logs: there are secrets among them.
        let len = self.resources.len();
        f.debug_struct("Staging").field("last", &self.last).field("len", &len).finish_non_exhaustive()
    }
}

/// What a step leads to.
pub(crate) type Outcome = Result<Option<Snapshot>, CommitError>;

impl Staging {
    /// Whether nobody goes on with it at this entry.
    pub(crate) fn is_given_up(&self, at: LogId) -> bool {
        self.last.leader_id.term != at.leader_id.term
            || at.index.saturating_sub(self.last.index) > IDLE_ENTRIES_MAX
    }

    pub(crate) fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    pub(crate) fn to_wire(&self) -> wire::Staging {
        wire::Staging {
            id: Bytes::copy_from_slice(&self.id),
            last: Some(codec::encode_log_id(&self.last)),
            parts: self.parts,
            resources: self.resources.len() as u64,
        }
    }

    /// What a snapshot says.
    pub(crate) fn restore(header: &wire::Staging, resources: Vec<Resource>) -> Result<Staging, DecodeError> {
        let malformed = || DecodeError::Malformed("a replacement under way", "it is incomplete".into());
        if header.resources != resources.len() as u64 {
            return Err(malformed());
        }
        Ok(Staging {
            id: proposal_id(&header.id).ok_or_else(malformed)?,
            last: header.last.map(codec::decode_log_id).ok_or_else(malformed)?,
            parts: header.parts,
            resources: resources.into_iter().map(Arc::new).collect(),
        })
    }
}

fn interrupted() -> CommitError {
    CommitError::Unavailable("replacing everything was interrupted; nothing was changed".into())
}

/// Takes one step: a snapshot when the last one puts everything in place.
///
/// # Errors
/// The step cannot be decoded by this version.
pub(crate) fn step(
    staging: &mut Option<Staging>,
    state: &Snapshot,
    at: LogId,
    replace: wire::Replace,
    sealer: &Sealer,
) -> Result<Outcome, DecodeError> {
    let malformed = |what: &str| DecodeError::Malformed("a step of replacing everything", what.into());
    let id = proposal_id(&replace.id).ok_or_else(|| malformed("its id is not 16 bytes"))?;
    let ours = staging.as_ref().is_some_and(|staging| staging.id == id);
    match replace.step.ok_or_else(|| malformed("it is of a kind that this version does not know"))? {
        ReplaceStep::Abandon(_) => {
            if ours {
                *staging = None;
            }
            Ok(Ok(None))
        }
        ReplaceStep::Part(part) => {
            let resources =
                part.resources.into_iter().map(|resource| codec::decode_resource(resource, sealer));
            let resources: Vec<Arc<Resource>> =
                resources.map(|r| r.map(Arc::new)).collect::<Result<_, _>>()?;
            if part.number == 0 {
                *staging = Some(Staging { id, last: at, parts: 1, resources });
                return Ok(Ok(None));
            }
            match staging.as_mut().filter(|staging| staging.id == id && staging.parts == part.number) {
                Some(staging) => {
                    staging.resources.extend(resources);
                    staging.parts += 1;
                    staging.last = at;
                    Ok(Ok(None))
                }
                None => Ok(Err(interrupted())),
            }
        }
        ReplaceStep::Finish(finish) => {
            let complete = |staging: &Staging| staging.parts == finish.parts;
            let Some(staged) = staging.take_if(|staged| staged.id == id).filter(complete) else {
                return Ok(Err(interrupted()));
            };
            let replacement = Replacement {
                resources: staged.resources,
                expect: finish.expect.map(Revision),
                above: Revision(finish.above),
            };
            Ok(transaction::replace(state, replacement).map(Some))
        }
    }
}

/// Cuts resources into parts of about [`PART_LEN`] bytes, one at a time; at least one.
pub(crate) struct Parts<'a> {
    resources: std::vec::IntoIter<Arc<Resource>>,
    sealer: &'a Sealer,
    number: u64,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(resources: Vec<Arc<Resource>>, sealer: &'a Sealer) -> Parts<'a> {
        Parts { resources: resources.into_iter(), sealer, number: 0 }
    }

    /// How many there were.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next one.
    ///
    /// # Errors
    /// A resource that could not be read again: it must not get into the log.
    pub(crate) fn next(&mut self) -> Result<Option<wire::Part>, DecodeError> {
        let mut part = wire::Part { number: self.number, resources: Vec::new() };
        let mut len = 0;
        while len < PART_LEN
            && let Some(resource) = self.resources.next()
        {
            let encoded = codec::encode_resource(&resource, self.sealer);
            codec::decode_resource(encoded.clone(), self.sealer)?;
            len += prost::Message::encoded_len(&encoded);
            part.resources.push(encoded);
        }
        if part.resources.is_empty() && self.number > 0 {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(part))
    }
}
