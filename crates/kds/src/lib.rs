//! Federation between global and zones, in both directions (federation.md).
//!
//! [`wire`] turns resources into messages and back, [`core`] is the protocol without I/O, [`net`] carries
//! it over gRPC: [`net::GlobalServer`] on the one side, [`net::ZoneClient`] on the other.

pub mod core;
pub mod net;
pub mod wire;
