//! What both control planes share: the objects that they make by themselves, listeners, settings, the command line.

pub mod check;
pub mod cluster;
pub mod command;
mod defaults;
pub mod diagnostics;
mod etcd;
pub mod federation;
pub mod keys;
pub mod leading;
pub mod metrics;
mod report;
pub mod serve;
pub mod settings;
pub mod store;

pub use defaults::{DefaultObjects, EnsureError, mesh_setup};
pub use graticule_api::{TokenKeys, read_secret};
