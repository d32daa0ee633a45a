//! What the API asks about proxies, answered by the engine of the zone.

use async_trait::async_trait;
use graticule_api::Inspector;
use graticule_api::inspector::{Answer, ProxyConfig, Unanswered};
use graticule_model::Key;
use graticule_policy::ProxyId;
use graticule_zone::EngineHandle;

/// Answers for the proxies that this process serves.
pub(crate) struct EngineInspector(pub(crate) EngineHandle);

#[async_trait]
impl Inspector for EngineInspector {
    async fn config(&self, proxy: &Key, with_shadow: bool) -> Answer<ProxyConfig> {
        if with_shadow {
            return Err(Unanswered::Unsupported);
        }
        let shown = self.0.inspect(ProxyId::new(proxy.mesh.clone(), proxy.name.clone())).await;
        shown.map(|xds| ProxyConfig { xds, diff: Vec::new() }).ok_or(Unanswered::NotFound)
    }
}
