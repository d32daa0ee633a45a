//! The data plane server: delta ADS, SDS, HDS and the bootstrap endpoint.
//!
//! ```text
//! first request ─► core::read_node ─► authenticate ─► Proxies::connect ─► watch of snapshots
//! snapshots, requests ─► core::Stream ─► responses to Envoy
//!                                    └─► events to Proxies (receipts, insights)
//! ```
//! [`core`] decides and is pure; [`net`] moves bytes. The control plane implements [`Proxies`] and [`Authenticator`].

pub mod core;
pub mod net;

pub use core::hds::HealthReport;
pub use core::insight::SubscriptionTracker;
pub use core::{Event, Hello, ResourceType};
pub use net::{
    AuthError, Authenticator, ConnectError, DataplaneServer, Deps, End, Options, Proxies, Snapshots, StreamId,
};
