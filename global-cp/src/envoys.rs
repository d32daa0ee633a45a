//! Questions about proxies, asked of the zones that serve them (rest-api.md §8.5, federation.md §1.5).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use graticule_api::EnvoyAdmin;
use graticule_api::envoy_admin::{AdminFormat, AdminQuery as Asked, Unheard};
use graticule_kds::core::name_in_zone;
use graticule_kds::net::{AdminBroker, AdminError, AdminQuery, AdminTarget, OutputFormat};
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind, Resource};
use graticule_store::Store;

/// Asks zones about the Envoys of their proxies.
pub(crate) struct EnvoysOfZones {
    pub(crate) broker: AdminBroker,
    /// Where zones are described.
    pub(crate) soft: Arc<dyn Store>,
}

#[async_trait]
impl EnvoyAdmin for EnvoysOfZones {
    async fn ask(&self, proxy: &Resource, query: Asked) -> Result<Bytes, Unheard> {
        // A Dataplane without a zone is served by none.
        let zone = proxy.meta.zone().unwrap_or_default();
        let insight = self.soft.snapshot().get(&Key::new(Kind::ZoneInsight, "", zone));
        let insight = insight.as_ref().and_then(|insight| insight.spec_as::<ZoneInsight>());
        let target = AdminTarget {
            kind: Kind::Dataplane.name().to_owned(),
            name: name_in_zone(&proxy.meta, insight),
            mesh: proxy.meta.mesh.to_string(),
        };
        let answer = self.broker.ask(zone, target, asked(query)).await;
        answer.map(Bytes::from).map_err(|error| unheard(query, error))
    }
}

fn asked(query: Asked) -> AdminQuery {
    let form = |format| match format {
        AdminFormat::Text => OutputFormat::Text,
        AdminFormat::Json => OutputFormat::Json,
    };
    match query {
        Asked::ConfigDump { include_eds } => AdminQuery::ConfigDump { include_eds },
        Asked::Stats { format, used_only } => AdminQuery::Stats { format: form(format), used_only },
        Asked::Clusters { format } => AdminQuery::Clusters { format: form(format) },
    }
}

/// The texts that clients of the reference know.
fn unheard(query: Asked, error: AdminError) -> Unheard {
    let (operation, message) = match query {
        Asked::ConfigDump { .. } => ("XDS Config Dump", "XDSConfigRequest"),
        Asked::Stats { .. } => ("Stats", "StatsRequest"),
        Asked::Clusters { .. } => ("Clusters", "ClustersRequest"),
    };
    match error {
        AdminError::Offline(_) => {
            Unheard::Refused(format!("couldn't execute {operation} operation, zone is offline"))
        }
        AdminError::Busy(_) => Unheard::Busy(error.to_string()),
        AdminError::Ended(_) | AdminError::Timeout(_) | AdminError::Failed(_) => {
            Unheard::Refused(format!("could not send {message}: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let dump = Asked::ConfigDump { include_eds: false };
        let stats = Asked::Stats { format: AdminFormat::Text, used_only: true };
        let clusters = Asked::Clusters { format: AdminFormat::Text };
        let refused = |text: &str| Unheard::Refused(text.to_owned());
        let failed = || AdminError::Failed("unable".into());
        let offline = || AdminError::Offline("east".into());
        for (query, error, want) in [
            (dump, offline(), refused("couldn't execute XDS Config Dump operation, zone is offline")),
            (stats, offline(), refused("couldn't execute Stats operation, zone is offline")),
            (clusters, offline(), refused("couldn't execute Clusters operation, zone is offline")),
            (dump, failed(), refused("could not send XDSConfigRequest: unable")),
            (stats, failed(), refused("could not send StatsRequest: unable")),
            (clusters, failed(), refused("could not send ClustersRequest: unable")),
            (
                dump,
                AdminError::Busy("east".into()),
                Unheard::Busy("too many requests wait for answers of zone \"east\"".into()),
            ),
        ] {
            assert_eq!(unheard(query, error), want);
        }
    }
}
