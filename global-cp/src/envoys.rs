//! Questions about proxies, asked of the zones that serve them (rest-api.md §8.5, federation.md §1.5).

use async_trait::async_trait;
use bytes::Bytes;
use graticule_api::EnvoyAdmin;
use graticule_api::envoy_admin::{AdminFormat, AdminQuery as Asked, Unheard};
use graticule_control_plane::cluster::{Answers, NoAnswer, Question, Replicas};
use graticule_control_plane::federation::answer_json;
use graticule_kds::core::name_in_zone;
use graticule_kds::net::{AdminBroker, AdminError, AdminQuery, AdminTarget, GlobalServer, OutputFormat};
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind, Resource};
use graticule_store::status::Group;

/// Asks zones about the Envoys of their proxies; a zone that is connected to another replica through that one.
pub(crate) struct EnvoysOfZones {
    pub(crate) broker: AdminBroker,
    /// Where zones are described, and connected.
    pub(crate) replicas: Replicas,
}

#[async_trait]
impl EnvoyAdmin for EnvoysOfZones {
    async fn ask(&self, proxy: &Resource, query: Asked) -> Result<Bytes, Unheard> {
        // A Dataplane without a zone is served by none.
        let zone = proxy.meta.zone().unwrap_or_default();
        let status = self.replicas.status();
        let insight = status.shown().snapshot().get(&Key::new(Kind::ZoneInsight, "", zone));
        let insight = insight.as_ref().and_then(|insight| insight.spec_as::<ZoneInsight>());
        let name = name_in_zone(&proxy.meta, insight);
        let answer = ask(&self.broker, zone, &proxy.meta.mesh, &name, query).await;
        let Err(AdminError::Offline(_)) = answer else {
            return answer.map_err(|error| unheard(query, error));
        };
        let group = Group::zone(zone);
        let other = status.owner(&group).filter(|owner| *owner != status.observer());
        let Some(other) = other.filter(|_| status.is_live(&group)) else {
            return answer.map_err(|error| unheard(query, error));
        };
        let (zone, mesh) = (zone.to_owned(), proxy.meta.mesh.clone());
        let question = Question::Envoy { zone, mesh, name, query };
        self.replicas.ask(&other, &question).await.map_err(|error| unanswered(query, error))
    }
}

/// What other replicas ask about the zones that are connected here. Never asked on.
pub(crate) struct AskedByReplicas(pub(crate) GlobalServer);

#[async_trait]
impl Answers for AskedByReplicas {
    async fn answer(&self, question: Question) -> Result<Bytes, NoAnswer> {
        let zones = &self.0;
        let (zone, mesh, name, query) = match question {
            Question::Envoy { zone, mesh, name, query } => (zone, mesh, name, query),
            Question::ZoneStatus { zone } => {
                return answer_json(zones.serves(&zone).then(|| zones.peer_report(&zone)).flatten());
            }
            Question::AcceptDeletions { zone } => {
                let given_up = zones.accept_deletions(&zone).await;
                return answer_json(given_up.map_err(|error| NoAnswer::Failed(error.to_string()))?);
            }
            Question::ProxyConfig { .. } => return Err(NoAnswer::Unsupported),
        };
        ask(&zones.admin(), &zone, &mesh, &name, query).await.map_err(|error| match unheard(query, error) {
            Unheard::Unsupported => NoAnswer::Unsupported,
            Unheard::Refused(text) => NoAnswer::Refused(text),
            Unheard::Busy(text) => NoAnswer::Busy(text),
            Unheard::Failed(text) => NoAnswer::Failed(text),
        })
    }
}

async fn ask(
    broker: &AdminBroker,
    zone: &str,
    mesh: &str,
    name: &str,
    query: Asked,
) -> Result<Bytes, AdminError> {
    let target =
        AdminTarget { kind: Kind::Dataplane.name().to_owned(), name: name.to_owned(), mesh: mesh.to_owned() };
    broker.ask(zone, target, asked(query)).await.map(Bytes::from)
}

fn unanswered(query: Asked, error: NoAnswer) -> Unheard {
    match error {
        // The words of the replica that has the zone.
        NoAnswer::Refused(text) => Unheard::Refused(text),
        NoAnswer::Busy(text) => Unheard::Busy(text),
        NoAnswer::Failed(text) => Unheard::Failed(text),
        NoAnswer::NotFound | NoAnswer::Unsupported | NoAnswer::Unreachable(_) => {
            let (_, message) = words(query);
            Unheard::Refused(format!("could not send {message}: {error}"))
        }
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

/// Operation and message, as clients of the reference know them.
fn words(query: Asked) -> (&'static str, &'static str) {
    match query {
        Asked::ConfigDump { .. } => ("XDS Config Dump", "XDSConfigRequest"),
        Asked::Stats { .. } => ("Stats", "StatsRequest"),
        Asked::Clusters { .. } => ("Clusters", "ClustersRequest"),
    }
}

/// The texts that clients of the reference know.
fn unheard(query: Asked, error: AdminError) -> Unheard {
    let (operation, message) = words(query);
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
