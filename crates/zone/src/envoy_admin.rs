//! Asks the Envoys of this zone: `config_dump`, `stats` and `clusters` of their admin listeners
//! (rest-api.md §8.5, tokens-and-access.md §10.1, xds.md §3.9).
//!
//! The listener shows a certificate of the zone's authority for Envoy admin and wants one in return, so no other
//! process at a proxy's address can answer for it or learn anything.

mod http;
mod request;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use graticule_api::EnvoyAdmin;
use graticule_api::envoy_admin::{AdminQuery, Unheard};
use graticule_control_plane::read_secret;
use graticule_identity::{AdminAuthority, admin};
use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::{Key, Kind, Resource};
use graticule_runtime::supervisor::chain;
use graticule_runtime::{Clock, Random};
use graticule_store::Store;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::Semaphore;

use request::{Endpoint, path, without_credentials};

/// One question, waiting for its turn included.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to Envoys at once.
const ASK_PARALLEL_MAX: usize = 16;
/// Bytes of an answer.
const ANSWER_LEN_MAX: usize = 32 << 20;

/// Asks the Envoys of this zone.
pub struct ZoneEnvoys {
    store: Arc<dyn Store>,
    clock: Clock,
    random: Random,
    /// `bootstrapServer.params.adminPort`: of Dataplanes that name no other.
    default_port: u16,
    turns: Semaphore,
    /// Made from these bytes of the secret.
    client: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

impl ZoneEnvoys {
    /// `default_port` is the admin port of Dataplanes that name no other.
    pub fn new(store: Arc<dyn Store>, clock: Clock, random: Random, default_port: u16) -> ZoneEnvoys {
        let turns = Semaphore::new(ASK_PARALLEL_MAX);
        ZoneEnvoys { store, clock, random, default_port, turns, client: Mutex::default() }
    }

    /// The answer of the Envoy of a Dataplane of this zone, without credentials.
    ///
    /// # Errors
    /// No such Dataplane, or its Envoy gives no answer in time; the text says why.
    pub async fn ask_by_name(&self, mesh: &str, name: &str, query: AdminQuery) -> Result<Bytes, String> {
        let proxy = self.store.snapshot().get(&Key::new(Kind::Dataplane, mesh, name));
        let proxy = proxy.ok_or_else(|| format!("there is no Dataplane {name:?} in mesh {mesh:?}"))?;
        self.ask_proxy(&proxy, query).await
    }

    async fn ask_proxy(&self, proxy: &Resource, query: AdminQuery) -> Result<Bytes, String> {
        let dataplane = proxy.spec_as::<Dataplane>().ok_or("only Dataplanes have an Envoy")?;
        let endpoint = Endpoint::of(dataplane, self.default_port)?;
        let path = path(query);
        let answered = tokio::select! {
            answered = self.get(&endpoint, path) => answered,
            () = self.clock.sleep(ASK_TIMEOUT) => Err(format!("no answer within {ASK_TIMEOUT:?}")),
        };
        // Clients of the reference know the text with this word, whatever is asked.
        let answer = answered.map_err(|why| {
            format!("unable to send GET to config_dump: Get \"{}\": {why}", endpoint.url(path))
        })?;
        match query {
            // Dumps of large meshes take a while: other tasks go on.
            AdminQuery::ConfigDump { .. } => {
                tokio::task::spawn_blocking(move || without_credentials(&answer))
                    .await
                    .map_err(|error| error.to_string())?
                    .map(Bytes::from)
            }
            AdminQuery::Stats { .. } | AdminQuery::Clusters { .. } => Ok(answer),
        }
    }

    async fn get(&self, endpoint: &Endpoint, path: &str) -> Result<Bytes, String> {
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let tls = if endpoint.tls { Some(self.client()?) } else { None };
        // On the heap: a TLS handshake is large, and this is awaited deep inside of other futures.
        Box::pin(http::get(endpoint, path, tls, &self.clock, ANSWER_LEN_MAX)).await
    }

    /// What proves to Envoys who asks; made once per authority.
    fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let secret = read_secret(&self.store.snapshot(), None, admin::SECRET)
            .ok_or_else(|| format!("there is no GlobalSecret {:?}", admin::SECRET))?;
        let mut known = self.client.lock();
        if let Some((from, config)) = known.as_ref()
            && *from == secret
        {
            return Ok(config.clone());
        }
        let config = self.make_client(&secret)?;
        *known = Some((secret, config.clone()));
        Ok(config)
    }

    fn make_client(&self, secret: &[u8]) -> Result<Arc<ClientConfig>, String> {
        let unusable = |error: &dyn std::error::Error| {
            format!("GlobalSecret {:?} cannot be used: {error}", admin::SECRET)
        };
        let authority = AdminAuthority::from_secret(secret).map_err(|error| unusable(&error))?;
        let pair = authority
            .client_cert(self.clock.now(), self.random.bytes16())
            .map_err(|error| unusable(&error))?;
        http::client_config(authority.cert_pem(), &pair).map_err(|error| chain(error.as_ref()))
    }
}

#[async_trait]
impl EnvoyAdmin for ZoneEnvoys {
    async fn ask(&self, proxy: &Resource, query: AdminQuery) -> Result<Bytes, Unheard> {
        self.ask_proxy(proxy, query).await.map_err(Unheard::Failed)
    }
}

#[cfg(test)]
mod tests;
