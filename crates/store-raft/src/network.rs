//! The network between members: calls and answers over any authenticated byte stream.

mod client;
pub(crate) mod rpc;
pub(crate) mod server;

pub use client::Connector;
pub(crate) use client::{Network, Peer};
pub(crate) use rpc::ForwardAnswer;

#[cfg(test)]
mod tests;
