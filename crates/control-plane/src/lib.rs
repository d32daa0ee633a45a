//! What both control planes share: the objects that they make by themselves, tokens and keys from the store,
//! listeners, settings, the command line.

pub mod command;
mod defaults;
pub mod serve;
pub mod settings;
mod tokens;

pub use defaults::{DefaultObjects, EnsureError, mesh_setup};
pub use tokens::{TokenKeys, read_secret};
