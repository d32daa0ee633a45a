//! What an entry of the log asks for, decoded. Decoding needs no state, so that a member with many entries to apply
//! (at its start, or because it lagged) decodes them on all processors.

use std::panic::resume_unwind;

use bytes::Bytes;
use graticule_store::Txn;
use graticule_store::seal::Sealer;

use crate::codec::{self, DecodeError};
use crate::machine::{ProposalId, proposal_id};
use crate::wire;

/// Proposals that are worth a thread of their own.
const SHARE_MIN: usize = 32;

/// A proposal, as far as it can be understood without the state.
pub(crate) struct Proposal {
    pub(crate) id: ProposalId,
    pub(crate) floor: u64,
    pub(crate) fence: u64,
    /// An error counts only for a proposal that is applied.
    pub(crate) work: Result<Work, DecodeError>,
    /// Whether it has a secret that the current key did not seal.
    pub(crate) is_outdated: bool,
}

pub(crate) enum Work {
    Txn(Txn),
    Replace(wire::Replace),
}

impl Proposal {
    /// # Errors
    /// It is none that this version knows.
    pub(crate) fn read(bytes: Bytes, sealer: &Sealer) -> Result<Proposal, DecodeError> {
        let proposal: wire::Proposal = codec::message("a proposal", bytes)?;
        let malformed = |reason: &str| DecodeError::Malformed("a proposal", reason.into());
        if proposal.form > wire::PROPOSAL_FORM {
            let newer =
                "it is of a form that this version does not know: a newer version of the program wrote it";
            return Err(malformed(newer));
        }
        let id = proposal_id(&proposal.id).ok_or_else(|| malformed("its id is not 16 bytes"))?;
        let is_outdated = |resource: &wire::Resource| codec::is_outdated(resource, sealer);
        let (work, is_outdated) = match proposal.replace {
            Some(replace) => {
                let is_outdated = match &replace.step {
                    Some(wire::ReplaceStep::Part(part)) => part.resources.iter().any(is_outdated),
                    _ => false,
                };
                (Ok(Work::Replace(replace)), is_outdated)
            }
            None => {
                let txn = proposal.txn.unwrap_or_default();
                let is_outdated = txn.writes.iter().filter_map(|write| write.put.as_ref()).any(is_outdated);
                (codec::decode_txn(txn, sealer).map(Work::Txn), is_outdated)
            }
        };
        Ok(Proposal { id, floor: proposal.floor, fence: proposal.fence, work, is_outdated })
    }

    /// Several, in their order; on all processors if `may_share` and there are many.
    pub(crate) fn read_all(
        encoded: &[Bytes],
        sealer: &Sealer,
        may_share: bool,
    ) -> Vec<Result<Proposal, DecodeError>> {
        let read =
            |bytes: &[Bytes]| bytes.iter().map(|one| Proposal::read(one.clone(), sealer)).collect::<Vec<_>>();
        if !may_share || encoded.len() < 2 * SHARE_MIN {
            return read(encoded);
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(encoded.len() / SHARE_MIN);
        if threads < 2 {
            return read(encoded);
        }
        let (own, others) = encoded.split_at(encoded.len().div_ceil(threads));
        std::thread::scope(|scope| {
            let share = others.len().div_ceil(threads - 1).max(1);
            let others: Vec<_> = others.chunks(share).map(|part| scope.spawn(move || read(part))).collect();
            let mut all = read(own);
            for part in others {
                all.extend(part.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            all
        })
    }
}
