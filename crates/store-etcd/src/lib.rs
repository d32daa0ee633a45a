//! The [`Store`](graticule_store::Store) over an existing etcd cluster (3.4 and newer): for sites that run one anyway.
//!
//! Every resource is one key of etcd; one more key, the *head*, says the revision of the store. Transactions are
//! computed on this replica's copy of everything and written as one transaction of etcd that is guarded by the head:
//! if another replica was faster, they are computed again on what that replica wrote. Those that wait meanwhile go
//! together into the next transaction of etcd, as far as they change different resources, each with a revision of its
//! own. A watch brings what others wrote.
//! Hence all replicas see the same batches in the same order, and reads never leave the process.
//!
//! Everything is replaced at once ([`Store::replace_all`](graticule_store::Store::replace_all)) by another generation of
//! keys, which is prepared beside the one that counts until the head names it.
//!
//! The leader holds a key that is bound to a lease; its term is the revision of etcd that created the key, and what
//! the leader writes is guarded by that key too.
//!
//! This is the only crate that names etcd-client.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use graticule_runtime::{Clock, Random};
//! use graticule_store::{Store as _, Txn};
//! use graticule_store_etcd::{Deps, EtcdStore, Options};
//!
//! let options = Options { endpoints: vec!["http://127.0.0.1:2379".into()], ..Options::default() };
//! let store = EtcdStore::open(options, Deps { clock: Clock::system(), random: Random::system() }).await?;
//! store.commit(Txn::default()).await?;
//! store.close().await;
//! # Ok(()) }
//! ```

mod access;
mod elect;
mod failure;
mod follow;
mod keys;
mod load;
mod options;
mod probe;
mod read;
mod replace;
mod replica;
mod request;
mod store;
mod wire;
mod write;

pub use failure::OpenError;
pub use options::{Credentials, Options, REQUEST_LEN_DEFAULT, TXN_OPS_MAX, Tls, WRITES_MAX};
pub use store::{Deps, EtcdStore};
pub use wire::{Earlier, FORMAT, Head};
