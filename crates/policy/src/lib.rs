//! Which policies select a proxy and how they merge; owns [`ProxyInputs`], the complete input of Envoy generation.
//!
//! [`PolicySet`] and [`Destinations`] hold what a mesh has; [`effective()`] says what that means for one proxy.
//! Matching and merging work on the JSON form of any policy kind (`body`), so that a new kind needs code
//! here only for the typed question that Envoy generation asks about it.
//!
//! ```
//! use std::sync::Arc;
//! use graticule_model::{Kind, Resource, yaml};
//! use graticule_policy::{Destinations, MatchOptions, PolicySet, effective};
//!
//! let read = |kind, text| -> Result<Arc<Resource>, Box<dyn std::error::Error>> {
//!     Ok(Arc::new(Resource::from_rest(kind, &yaml::parse_one(text)?)?))
//! };
//! let timeout = read(Kind::MeshTimeout, "{type: MeshTimeout, name: t, spec: {
//!     to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: kv}}, default: {idleTimeout: 30s}}]}}")?;
//! let kv = read(Kind::MeshService, "{type: MeshService, name: kv, labels: {kuma.io/display-name: kv},
//!     spec: {ports: [{port: 80}]}}")?;
//! let proxy = read(Kind::Dataplane, "{type: Dataplane, mesh: default, name: dp,
//!     networking: {address: 10.0.0.1, inbound: [{port: 8080}]}}")?;
//!
//! let outbound = kv.kri().ok_or("has a KRI")?.with_section("80");
//! let (policies, destinations) = (PolicySet::new([timeout]), Destinations::new([kv]));
//! let effective = effective(&policies, &destinations, None, &proxy, MatchOptions::default());
//! let conf = effective.outbound_timeout(&outbound).ok_or("is configured")?;
//! assert_eq!(conf.idle_timeout.map(|timeout| timeout.to_string()).as_deref(), Some("30s"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
mod proxy;
pub mod routes;
pub mod select;
pub mod set;
#[cfg(test)]
mod testing;
mod typed;

pub use body::{Origin, Policy, ResourceMeta};
pub use destinations::{Backend, Destinations, Port};
pub use effective::{Effective, KindResult, MatchOptions, Memo, effective};
pub use inbound::{InboundRule, InboundRules};
pub use inputs::ProxyInputs;
pub use node::NodeFacts;
pub use outbound::{ResourceRule, ResourceRules};
pub use proxy::ProxyId;
pub use routes::Routes;
pub use set::PolicySet;
