//! What the head says. The values of the other keys are [resources](graticule_store::wire::Resource).

use bytes::Bytes;
use graticule_store::wire::Time;

/// The newest form of keys and values. A head with a higher number was written by a newer version of the program,
/// and this version leaves the store alone. 1: the resources have one place. 2: the head names their generation.
pub const FORMAT: u32 = 2;

/// The oldest form that says everything; older versions can read the store for as long as possible.
pub(crate) fn format_of(generation: &str) -> u32 {
    if generation.is_empty() { 1 } else { 2 }
}

/// The value of the key `head`. Fields are only ever added.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Head {
    /// Form of all keys and values.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// Revision of the store.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// Time of the transaction that led to the revision.
    #[prost(message, optional, tag = "3")]
    pub committed_at: Option<Time>,
    /// How many resources it and the [`earlier`](Self::earlier) ones changed: so many keys were written together with
    /// the head.
    #[prost(uint32, tag = "4")]
    pub changes: u32,
    /// The transaction: 16 random bytes, so that the writer recognises it when the answer was lost.
    #[prost(bytes = "bytes", tag = "5")]
    pub proposal: Bytes,
    /// The store, drawn at random when its first transaction was written: another one never takes its place.
    #[prost(string, tag = "6")]
    pub store: String,
    /// Which generation of resources counts; empty = the first one. Another one takes its place when everything is
    /// replaced at once.
    #[prost(string, tag = "7")]
    pub generation: String,
    /// Transactions that were written together with the last one and before it: one revision of the store each. The
    /// keys of each were written after those of the one before.
    #[prost(message, repeated, tag = "8")]
    pub earlier: Vec<Earlier>,
}

/// A transaction before the last one of those that were written together.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Earlier {
    /// How many resources it changed.
    #[prost(uint32, tag = "1")]
    pub changes: u32,
    /// Its time.
    #[prost(message, optional, tag = "2")]
    pub committed_at: Option<Time>,
}
