//! The encoding on disk and between members: protobuf messages of our own. Fields are only ever added; what an
//! older version must not overlook gets a new format number in the file header or the protocol.

use bytes::Bytes;

pub use graticule_store::wire::{Expect, Key, Resource, Time, Txn, Write};

/// Highest number of the forms of a [`Proposal`] that this version understands.
pub const PROPOSAL_FORM: u32 = 1;

/// What is proposed to the cluster: one transaction, or one step of replacing everything.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Proposal {
    /// 16 random bytes: applied at most once.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Index that the proposing member had applied before it first sent the proposal.
    #[prost(uint64, tag = "2")]
    pub floor: u64,
    /// Term of the leader that asked for it; 0 = any.
    #[prost(uint64, tag = "3")]
    pub fence: u64,
    /// The transaction.
    #[prost(message, optional, tag = "4")]
    pub txn: Option<Txn>,
    /// A step of replacing everything, in place of `txn`.
    #[prost(message, optional, tag = "5")]
    pub replace: Option<Replace>,
    /// What a version must understand to apply it: 0 = transactions, 1 = replacing everything. A member that does not
    /// stops instead of overlooking it.
    #[prost(uint32, tag = "6")]
    pub form: u32,
}

/// A step of replacing everything that is stored.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Replace {
    /// 16 random bytes: which replacement.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// What is done.
    #[prost(oneof = "ReplaceStep", tags = "2, 3, 4")]
    pub step: Option<ReplaceStep>,
}

/// A step of replacing everything.
#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
pub enum ReplaceStep {
    /// A part of the new contents, put beside the state.
    #[prost(message, tag = "2")]
    Part(Part),
    /// The parts take the place of the state.
    #[prost(message, tag = "3")]
    Finish(Finish),
    /// The parts are thrown away.
    #[prost(message, tag = "4")]
    Abandon(Abandon),
}

/// A part of new contents.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Part {
    /// From 0; the first one begins anew.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Resources as they are to be stored.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
}

/// See [`graticule_store::Replacement`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Finish {
    /// How many parts there are.
    #[prost(uint64, tag = "1")]
    pub parts: u64,
    /// Revision that the store must be at.
    #[prost(uint64, optional, tag = "2")]
    pub expect: Option<u64>,
    /// The new revision is above it.
    #[prost(uint64, tag = "3")]
    pub above: u64,
}

/// The parts are thrown away.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Abandon {}

/// The parts that have arrived, in a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Staging {
    /// 16 bytes: which replacement.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Entry of the last part.
    #[prost(message, optional, tag = "2")]
    pub last: Option<LogId>,
    /// How many parts have arrived.
    #[prost(uint64, tag = "3")]
    pub parts: u64,
    /// How many resources follow in chunks of their own, behind all others.
    #[prost(uint64, tag = "4")]
    pub resources: u64,
}

/// Term and index.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LogId {
    /// Term of the leader that made the entry.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Index.
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

/// A vote.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Vote {
    /// Term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Candidate.
    #[prost(uint64, tag = "2")]
    pub member: u64,
    /// Whether a quorum granted it.
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

/// An entry of the log.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Entry {
    /// Where.
    #[prost(message, optional, tag = "1")]
    pub id: Option<LogId>,
    /// What; none = blank.
    #[prost(oneof = "Payload", tags = "2, 3")]
    pub payload: Option<Payload>,
}

/// What an entry holds.
#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
pub enum Payload {
    /// An encoded [`Proposal`].
    #[prost(bytes = "bytes", tag = "2")]
    Proposal(Bytes),
    /// A change of the members.
    #[prost(message, tag = "3")]
    Membership(Membership),
}

/// Who votes and who learns.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Membership {
    /// One set of voters, or two during a change.
    #[prost(message, repeated, tag = "1")]
    pub configs: Vec<Voters>,
    /// All members.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// A set of voters.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Voters {
    /// Their numbers.
    #[prost(uint64, repeated, tag = "1")]
    pub ids: Vec<u64>,
}

/// A member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Member {
    /// Number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// `host:port`.
    #[prost(string, tag = "3")]
    pub address: String,
}

/// What one group commit appends to the log.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Frame {
    /// In order.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<Record>,
}

/// One step of the log.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Record {
    /// Which.
    #[prost(oneof = "Step", tags = "1, 2, 3, 4, 5")]
    pub step: Option<Step>,
}

/// One step of the log.
#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
pub enum Step {
    /// An entry is appended.
    #[prost(message, tag = "1")]
    Entry(Entry),
    /// A vote is saved.
    #[prost(message, tag = "2")]
    Vote(Vote),
    /// Entries behind this index go; an index of 0 and term 0 = the very first entry may stay only if it is there.
    #[prost(message, tag = "3")]
    Truncate(Truncate),
    /// Entries up to here are in a snapshot.
    #[prost(message, tag = "4")]
    Purge(LogId),
    /// Entries up to here are committed.
    #[prost(message, tag = "5")]
    Committed(LogId),
}

/// Entries that another leader overrules.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Truncate {
    /// The first index that goes.
    #[prost(uint64, tag = "1")]
    pub from: u64,
}

/// First message of a snapshot file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotHeader {
    /// The last entry that the snapshot covers.
    #[prost(message, optional, tag = "1")]
    pub last: Option<LogId>,
    /// Members at that entry.
    #[prost(message, optional, tag = "2")]
    pub membership: Option<Membership>,
    /// The entry that made them members.
    #[prost(message, optional, tag = "3")]
    pub membership_id: Option<LogId>,
    /// Revision of the store.
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    /// How many resources follow.
    #[prost(uint64, tag = "5")]
    pub resources: u64,
    /// Proposals that were applied last, oldest first.
    #[prost(message, repeated, tag = "6")]
    pub recent: Vec<Recent>,
    /// Index of the newest proposal that `recent` has forgotten.
    #[prost(uint64, tag = "7")]
    pub forgotten: u64,
    /// A replacement that was under way (format 2).
    #[prost(message, optional, tag = "8")]
    pub staging: Option<Staging>,
}

/// A proposal that was applied.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Recent {
    /// Its id.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Its entry.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// The revision that it led to; 0 = it was refused.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// Further messages of a snapshot file.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct SnapshotChunk {
    /// Ordered by kind, mesh and name over all chunks.
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<Resource>,
    /// Parts of a replacement that was under way.
    #[prost(message, repeated, tag = "2")]
    pub staged: Vec<Resource>,
}

/// The file `node`: who this data directory belongs to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Number of the member.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Identity of the cluster; members of other clusters are refused.
    #[prost(string, tag = "2")]
    pub cluster: String,
}
