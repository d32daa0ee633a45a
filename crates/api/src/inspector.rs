//! The seam of the policy engine: what the API asks when an answer needs the policies of a proxy, and not only
//! its resources (rest-api.md §8, policy-engine.md §7).
//!
//! The API decides everything that comes before the answer: who may ask, whether mesh, proxy and policy exist,
//! whether identifiers and parameters can be read; and everything after it: paging and representation.

use std::sync::Arc;

use async_trait::async_trait;
use graticule_model::{Key, Kri, Resource};
use graticule_store::Snapshot;
use serde_json::Value;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// This control plane cannot answer this question: 501.
    Unsupported,
    /// What is asked about does not exist, such as the configuration of a proxy that is not connected: 404.
    NotFound,
    /// The answer cannot be computed: 500, the reason only in the log.
    Failed(String),
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, Unanswered>;

/// Generated configuration (rest-api.md §8.4).
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyConfig {
    /// Type URL → name → resource.
    pub xds: Value,
    /// JSON Patch from the configuration without shadow policies to [`xds`](Self::xds); empty if they take no part.
    pub diff: Vec<Value>,
}

/// Answers that need policies. Every method has a default that says [`Unanswered::Unsupported`], so that a
/// control plane implements what it can.
///
/// `state` is the state that the question was checked against; bodies have the form of policy-engine.md §7.
#[async_trait]
pub trait Inspector: Send + Sync {
    /// Body of `_rules`.
    fn rules(&self, _state: &Snapshot, _proxy: &Resource) -> Answer<Value> {
        Err(Unanswered::Unsupported)
    }

    /// Body of `_policies`.
    fn policies(&self, _state: &Snapshot, _proxy: &Resource) -> Answer<Value> {
        Err(Unanswered::Unsupported)
    }

    /// Body of `_inbounds/…/_policies`; the inbound or listener of this section exists.
    fn inbound_policies(&self, _state: &Snapshot, _proxy: &Resource, _section: &str) -> Answer<Value> {
        Err(Unanswered::Unsupported)
    }

    /// Body of `_outbounds/…/_policies`; the outbound need not exist.
    fn outbound_policies(&self, _state: &Snapshot, _proxy: &Resource, _outbound: &Kri) -> Answer<Value> {
        Err(Unanswered::Unsupported)
    }

    /// Body of `_outbounds/…/_routes`.
    fn outbound_routes(&self, _state: &Snapshot, _proxy: &Resource, _outbound: &Kri) -> Answer<Value> {
        Err(Unanswered::Unsupported)
    }

    /// Body of `_outbounds/…/_routes/…/_policies`.
    fn route_policies(
        &self,
        _state: &Snapshot,
        _proxy: &Resource,
        _outbound: &Kri,
        _route: &Kri,
    ) -> Answer<Value> {
        Err(Unanswered::Unsupported)
    }

    /// Policies that select a proxy, in the order of plugins.
    fn matched_policies(&self, _state: &Snapshot, _proxy: &Resource) -> Answer<Vec<Arc<Resource>>> {
        Err(Unanswered::Unsupported)
    }

    /// Dataplanes that a policy selects, sorted by name. Shadow policies select too.
    fn selected_proxies(&self, _state: &Snapshot, _policy: &Resource) -> Answer<Vec<Arc<Resource>>> {
        Err(Unanswered::Unsupported)
    }

    /// Configuration of a proxy. `with_shadow`: policies labelled `kuma.io/effect: shadow` take part.
    async fn config(&self, _proxy: &Key, _with_shadow: bool) -> Answer<ProxyConfig> {
        Err(Unanswered::Unsupported)
    }
}

/// Answers nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInspector;

impl Inspector for NoInspector {}
