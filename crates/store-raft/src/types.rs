//! The types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use openraft::vote::leader_id_std;

use crate::runtime::Runtime;

/// Number of a member, drawn at random when its data directory is made.
pub type MemberId = u64;

/// What the cluster knows of a member, beside its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Name for people: the host's unless set otherwise.
    pub name: String,
    /// `host:port` where other members reach it; empty for a node that stands alone.
    pub address: String,
}

/// An encoded [`Proposal`](crate::wire::Proposal). Opaque to openraft, so that the log and the network carry
/// the same bytes that every replica applies.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposed(
    /// The encoded form.
    pub Bytes,
);

impl fmt::Debug for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Contents stay out of logs: there are secrets among them.
        write!(f, "Proposed({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

openraft::declare_raft_types!(
    /// The instantiation of openraft: one leader per term, so that the term is a fencing token.
    pub Types:
        D = Proposed,
        R = (),
        NodeId = MemberId,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, MemberId>,
        AsyncRuntime = Runtime,
);

/// Term and index of an entry.
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
/// A vote.
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
/// An entry of the log.
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
/// Who votes and who learns, and since which entry.
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
/// Who votes and who learns.
pub(crate) type Membership = openraft::Membership<MemberId, Member>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}
