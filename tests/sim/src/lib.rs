//! Simulations: everything in one thread, time and faults out of a seed.

pub mod federation;
mod net;
pub mod store;
