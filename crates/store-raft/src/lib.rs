//! The embedded backend of the [`Store`](graticule_store::Store): Raft over an own log and own snapshots. One node
//! needs no configuration; several replicate every write and elect a leader.
//!
//! This is the only crate that names openraft. What is on the disk and on the network is encoded by us
//! ([`wire`]), versioned and checksummed. A write is acknowledged when it is durable on a majority.
//!
//! ```
//! # async fn example(dir: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use graticule_runtime::{Clock, Random};
//! use graticule_store::{Store as _, Txn};
//! use graticule_store_raft::{Deps, FileSystem, Options, RaftStore};
//!
//! let deps = Deps {
//!     disk: Arc::new(FileSystem::open(dir)?),
//!     clock: Clock::system(),
//!     random: Random::system(),
//!     connector: None,
//! };
//! let store = RaftStore::open(Options::default(), deps).await?;
//! store.commit(Txn::default()).await?;
//! store.close().await;
//! # Ok(()) }
//! ```

mod cluster;
mod codec;
pub mod disk;
mod follow;
mod identity;
mod log;
mod machine;
mod network;
mod node;
mod options;
mod proposal;
mod read;
mod recovery;
mod replace;
mod runtime;
mod snapshot;
mod staging;
mod store;
mod types;
pub mod wire;

pub use cluster::{ClusterError, MemberStatus};
pub use codec::DecodeError;
pub use disk::{Disk, FileSystem, MemoryDisk};
pub use log::{FileError, LogOptions};
pub use network::Connector;
pub use options::{Form, Options, TXN_LEN_MAX, WRITES_MAX};
pub use runtime::{Runtime, seed_elections};
pub use snapshot::SnapshotFile;
pub use store::{Deps, OpenError, RaftStore};
pub use types::{Member, MemberId, Proposed, Types};
