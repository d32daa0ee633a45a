//! Which policies select a proxy and how they merge; owns [`ProxyInputs`], the complete input of Envoy generation.
//!
//! [`PolicySet`] and [`Destinations`] hold what a mesh has; [`effective`] says what that means for one proxy.
//! Matching and merging work on the JSON form of any policy kind (`body`), so that a new kind needs code
//! here only for the typed question that Envoy generation asks about it.
//!
//! Pure: no clock, no randomness, no I/O.

pub mod body;
pub mod destinations;
pub mod effective;
pub mod inbound;
pub mod inputs;
pub mod merge;
pub mod node;
pub mod outbound;
pub mod routes;
pub mod select;
pub mod set;
mod typed;

pub use body::{Origin, Policy, ResourceMeta};
pub use destinations::{Backend, Destinations, Port};
pub use effective::{Effective, KindResult, MatchOptions, Memo, effective};
pub use inbound::{InboundRule, InboundRules};
pub use inputs::ProxyInputs;
pub use node::NodeFacts;
pub use outbound::{ResourceRule, ResourceRules};
pub use routes::Routes;
pub use set::PolicySet;
