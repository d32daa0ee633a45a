//! Between the types of openraft and their [`wire`] form. Transactions and resources are encoded as by every other
//! backend.

use std::collections::{BTreeMap, BTreeSet};

pub use graticule_store::codec::DecodeError;
pub(crate) use graticule_store::codec::{
    bytes, decode_resource, decode_txn, encode_resource, encode_txn, is_outdated, message, missing,
};
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;

use crate::types::{Entry, LogId, Member, Membership, Proposed, Vote, log_id};
use crate::wire;

pub(crate) fn encode_log_id(id: &LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn decode_log_id(id: wire::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn encode_vote(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, member: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn decode_vote(vote: wire::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.member)
    } else {
        Vote::new(vote.term, vote.member)
    }
}

pub(crate) fn encode_entry(entry: &Entry) -> wire::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(Proposed(bytes)) => Some(wire::Payload::Proposal(bytes.clone())),
        EntryPayload::Membership(membership) => {
            Some(wire::Payload::Membership(encode_membership(membership)))
        }
    };
    wire::Entry { id: Some(encode_log_id(&entry.log_id())), payload }
}

pub(crate) fn decode_entry(entry: wire::Entry) -> Result<Entry, DecodeError> {
    let id = decode_log_id(entry.id.ok_or_else(|| missing("an entry"))?);
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(wire::Payload::Proposal(bytes)) => EntryPayload::Normal(Proposed(bytes)),
        Some(wire::Payload::Membership(membership)) => {
            EntryPayload::Membership(decode_membership(membership)?)
        }
    };
    Ok(Entry::new(id, payload))
}

pub(crate) fn encode_membership(membership: &Membership) -> wire::Membership {
    let configs = membership.get_joint_config().iter();
    let configs = configs.map(|voters| wire::Voters { ids: voters.iter().copied().collect() }).collect();
    let members = membership.nodes().map(|(id, member)| encode_member(*id, member)).collect();
    wire::Membership { configs, members }
}

pub(crate) fn decode_membership(membership: wire::Membership) -> Result<Membership, DecodeError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, Member> = membership.members.into_iter().map(decode_member).collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|error| DecodeError::Malformed("members", error.to_string()))
}

pub(crate) fn encode_member(id: u64, member: &Member) -> wire::Member {
    wire::Member { id, name: member.name.clone(), address: member.address.clone() }
}

pub(crate) fn decode_member(member: wire::Member) -> (u64, Member) {
    (member.id, Member { name: member.name, address: member.address })
}

#[cfg(test)]
mod tests;
