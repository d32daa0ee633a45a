//! In-memory index of one zone: apply a batch, say which proxies are dirty, assemble `ProxyInputs`; and what the
//! leader of a zone derives from its resources.
//!
//! Pure: no clock, no randomness, no I/O.

pub mod derive;
pub mod identity;
mod index;
mod proxy;
mod resources;
#[cfg(test)]
mod testing;

pub use derive::{DeriveSettings, DeriveState, Derived, DerivedWrite, derive, derive_meshes};
pub use graticule_policy::ProxyId;
pub use index::{Assembled, BestIdentity, Dirty, Index, InputsError, ZoneSettings};
pub use proxy::Serving;
pub use resources::ResourceSet;
