//! Which policies select a proxy and how they merge; owns [`ProxyInputs`], the complete input of Envoy generation.
//!
//! Pure: no clock, no randomness, no I/O.

pub mod inputs;
pub mod node;

pub use inputs::ProxyInputs;
pub use node::NodeFacts;
