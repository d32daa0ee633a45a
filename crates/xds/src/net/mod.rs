//! The server: gRPC and HTTP on one TLS port (dataplane-agent.md §1.1).

mod ads;
mod bootstrap;
mod deps;
mod drain;
mod health;
mod leases;
mod options;
mod server;

pub use deps::{AuthError, Authenticator, ConnectError, Deps, End, Proxies, Snapshots, StreamId};
pub use options::{Authn, CheckDefaultsOptions, DpProxyAuthn, DpToken, Hds, Options, PublicKey, Validator};
pub use server::DataplaneServer;

#[cfg(test)]
mod tests;
