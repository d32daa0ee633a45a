//! Which policies select a proxy and how they merge; owns [`ProxyInputs`], the complete input of Envoy generation.
//!
//! [`PolicySet`] and [`Destinations`] hold what a mesh has; [`effective`] says what that means for one proxy.
//! Matching and merging work on the JSON form of any policy kind (`body`), so that a new kind needs code
//! here only for the typed question that Envoy generation asks about it.
//!
//! Pure: no clock, no randomness, no I/O.

pub mod destinations;
pub mod effective;
pub mod inputs;
pub mod node;

pub use destinations::{Backend, Destinations, Port};
pub use effective::{Effective, MatchOptions, Memo, PolicySet, Routes, effective};
pub use inputs::ProxyInputs;
pub use node::NodeFacts;
