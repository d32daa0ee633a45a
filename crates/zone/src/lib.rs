//! The engine of a zone: from the store's feed to what each proxy is sent, and back to status.
//!
//! ```text
//! store feed ─► Generators (leader): view::derive ─► store
//!      └──────► Engine: view::Index ─► ProxyInputs ─► envoygen::snapshot ─► watch per proxy ─► xds
//! streams of proxies ─► Proxies ─► Observations ─► Engine, Generators;  Insights ─► soft store
//! ```
//!
//! Each box with state is one task that owns it; arrows are bounded channels, `watch`es and the feed.

mod authenticator;
mod authorities;
mod certificates;
mod engine;
mod envoy_admin;
mod generators;
mod insights;
mod measured;
mod observations;
mod probe;
mod proxies;

pub use authenticator::TokenAuthenticator;
pub use authorities::Authorities;
pub use engine::{Engine, EngineHandle, EngineSettings};
pub use envoy_admin::ZoneEnvoys;
pub use generators::{GeneratorSettings, Generators};
pub use insights::{Insights, InsightsHandle};
pub use measured::measure_proxies;
pub use observations::Observations;
pub use proxies::{ProxySettings, ZoneProxies};
