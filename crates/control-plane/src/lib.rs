//! What both control planes share: the objects that they make by themselves, and tokens and keys from the store.

mod defaults;
mod tokens;

pub use defaults::{DefaultObjects, EnsureError, mesh_companions};
pub use tokens::{TokenKeys, read_secret};
