//! Global's questions about proxies, answered by their Envoys (federation.md §1.5).

use std::sync::Arc;

use async_trait::async_trait;
use graticule_api::envoy_admin::{AdminFormat, AdminQuery as Asked};
use graticule_kds::net::{AdminQuery, AdminTarget, OutputFormat, ProxyAdmin};
use graticule_model::Kind;
use graticule_zone::ZoneEnvoys;

/// Asks the Envoys of this zone for global.
pub(crate) struct AskedByGlobal(pub(crate) Arc<ZoneEnvoys>);

#[async_trait]
impl ProxyAdmin for AskedByGlobal {
    async fn ask(&self, target: AdminTarget, query: AdminQuery) -> Result<Vec<u8>, String> {
        if target.kind != Kind::Dataplane.name() {
            return Err(format!("only a Dataplane has an Envoy, not a {:?}", target.kind));
        }
        let answer = self.0.ask_by_name(&target.mesh, &target.name, asked(query)).await?;
        Ok(answer.into())
    }
}

fn asked(query: AdminQuery) -> Asked {
    let form = |format| match format {
        OutputFormat::Text => AdminFormat::Text,
        OutputFormat::Json => AdminFormat::Json,
    };
    match query {
        AdminQuery::ConfigDump { include_eds } => Asked::ConfigDump { include_eds },
        AdminQuery::Stats { format, used_only } => Asked::Stats { format: form(format), used_only },
        AdminQuery::Clusters { format } => Asked::Clusters { format: form(format) },
    }
}
