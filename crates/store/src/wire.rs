//! The encoding of transactions and resources, for every backend that writes them down: protobuf messages of our
//! own. Fields are only ever added; what an older version must not overlook gets a new format number in what the
//! backend wraps around them.

use bytes::Bytes;

/// See [`crate::Txn`].
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Txn {
    /// Time of the transaction.
    #[prost(message, optional, tag = "1")]
    pub at: Option<Time>,
    /// Writes.
    #[prost(message, repeated, tag = "2")]
    pub writes: Vec<Write>,
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Time {
    /// Since 1970.
    #[prost(sint64, tag = "1")]
    pub seconds: i64,
    /// Of the second; has the sign of `seconds`.
    #[prost(sint32, tag = "2")]
    pub nanos: i32,
}

/// See [`crate::Write`].
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Write {
    /// What is put; none for a delete.
    #[prost(message, optional, tag = "1")]
    pub put: Option<Resource>,
    /// What is deleted; none for a put.
    #[prost(message, optional, tag = "2")]
    pub delete: Option<Key>,
    /// Precondition.
    #[prost(enumeration = "Expect", tag = "3")]
    pub expect: i32,
    /// For `Expect::Version`.
    #[prost(uint64, tag = "4")]
    pub version: u64,
    /// Moves the modification time in any case.
    #[prost(bool, tag = "5")]
    pub touch: bool,
}

/// See [`crate::Expect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Expect {
    /// None.
    Any = 0,
    /// The key must be free.
    Absent = 1,
    /// The key must be taken.
    Present = 2,
    /// The key must be taken at a version.
    Version = 3,
}

/// See [`graticule_model::Key`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Key {
    /// Kind by name.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Mesh.
    #[prost(string, tag = "2")]
    pub mesh: String,
    /// Name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// See [`graticule_model::Resource`]. Spec and status are the JSON of their REST form.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Resource {
    /// Key.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Creation time.
    #[prost(message, optional, tag = "3")]
    pub creation_time: Option<Time>,
    /// Modification time.
    #[prost(message, optional, tag = "4")]
    pub modification_time: Option<Time>,
    /// Version.
    #[prost(uint64, tag = "5")]
    pub version: u64,
    /// Owner.
    #[prost(message, optional, tag = "6")]
    pub owner: Option<Key>,
    /// JSON of the spec.
    #[prost(bytes = "bytes", tag = "7")]
    pub spec: Bytes,
    /// JSON of the status; empty = the empty status.
    #[prost(bytes = "bytes", tag = "8")]
    pub status: Bytes,
    /// The spec of a secret, sealed, in place of `spec`.
    #[prost(message, optional, tag = "9")]
    pub sealed: Option<Sealed>,
}

/// See [`crate::seal`].
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Sealed {
    /// Id of the key.
    #[prost(string, tag = "1")]
    pub key_id: String,
    /// Nonce, encrypted JSON of the spec, tag.
    #[prost(bytes = "bytes", tag = "2")]
    pub bytes: Bytes,
}
