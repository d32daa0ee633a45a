//! What the API asks about proxies, answered by the engine of the zone: here, or at the replica that has the proxy.

use async_trait::async_trait;
use bytes::Bytes;
use graticule_api::Inspector;
use graticule_api::inspector::{Answer, ProxyConfig, Unanswered};
use graticule_control_plane::cluster::{Answers, NoAnswer, Question, Replicas};
use graticule_model::{Key, Kind};
use graticule_policy::ProxyId;
use graticule_store::status::{Group, Observer};
use graticule_zone::EngineHandle;
use serde_json::Value;

use crate::app::Global;

/// Answers for the proxies of all replicas.
pub(crate) struct EngineInspector {
    pub(crate) engine: EngineHandle,
    pub(crate) replicas: Replicas,
}

#[async_trait]
impl Inspector for EngineInspector {
    async fn config(&self, proxy: &Key, with_shadow: bool) -> Answer<ProxyConfig> {
        if with_shadow {
            return Err(Unanswered::Unsupported);
        }
        let status = self.replicas.status();
        let insight = Key::new(Kind::DataplaneInsight, proxy.mesh.clone(), proxy.name.clone());
        // Only who has its stream knows what the proxy said about itself.
        let xds = match status.owner(&Group::proxy(&insight)) {
            Some(owner) if owner != status.observer() => self.ask(&owner, proxy).await?,
            _ => {
                let shown = self.engine.inspect(ProxyId::new(proxy.mesh.clone(), proxy.name.clone())).await;
                shown.ok_or(Unanswered::NotFound)?
            }
        };
        Ok(ProxyConfig { xds, diff: Vec::new() })
    }
}

impl EngineInspector {
    async fn ask(&self, owner: &Observer, proxy: &Key) -> Answer<Value> {
        let question = Question::ProxyConfig { mesh: proxy.mesh.clone(), name: proxy.name.clone() };
        let answer = self.replicas.ask(owner, &question).await.map_err(|error| match error {
            NoAnswer::NotFound => Unanswered::NotFound,
            error => Unanswered::Failed(format!("{proxy}: {error}")),
        })?;
        serde_json::from_slice(&answer).map_err(|error| Unanswered::Failed(format!("{proxy}: {error}")))
    }
}

/// What other replicas ask about the proxies, and the global, that are connected here. Never asked on.
pub(crate) struct AskedByReplicas {
    pub(crate) engine: EngineHandle,
    pub(crate) connection: Global,
}

#[async_trait]
impl Answers for AskedByReplicas {
    async fn answer(&self, question: Question) -> Result<Bytes, NoAnswer> {
        let (mesh, name) = match question {
            Question::ProxyConfig { mesh, name } => (mesh, name),
            Question::ZoneStatus { .. } | Question::AcceptDeletions { .. } => {
                return self.connection.answer(&question);
            }
            Question::Envoy { .. } => return Err(NoAnswer::Unsupported),
        };
        let shown = self.engine.inspect(ProxyId::new(mesh, name)).await.ok_or(NoAnswer::NotFound)?;
        Ok(shown.to_string().into())
    }
}
