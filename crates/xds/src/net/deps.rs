//! What the server needs from the rest of the control plane.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use graticule_envoygen::Snapshot;
use graticule_model::Resource;
use graticule_policy::ProxyId;
use graticule_runtime::{Clock, Random, ServerCert};
use tokio::sync::watch;

use crate::core::hds::HealthReport;
use crate::core::{Event, Hello};

/// The newest snapshot of one proxy; `None` until there is one.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// Identifies one ADS stream: a UUID, also the id of its subscription in the `DataplaneInsight`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamId(pub Arc<str>);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a credential does not prove what it should. The text goes to the client and must hold no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);

/// Checks the credentials of proxies (tokens-and-access.md §8).
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Whether `credential` (the raw value of `authorization`; `None` without one) may act for `dataplane`.
    ///
    /// # Errors
    /// It may not.
    async fn authenticate(&self, credential: Option<&str>, dataplane: &Resource) -> Result<(), AuthError>;
}

/// Why an authenticated proxy is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Its Dataplane or metadata does not fit (unknown mesh, a required label is missing, …). The client gets the text.
    #[error("{0}")]
    Refused(String),
    /// Not its fault, worth a retry (the store does not answer, …). The client gets the text.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client closed it, or its connection broke.
    Client,
    /// The client broke a rule, or its registration failed or was cut short.
    Refused,
    /// A newer stream of the same proxy took over; the Dataplane must stay.
    Replaced,
    /// The control plane shuts down; the Dataplane must stay.
    Shutdown,
    /// The control plane gave up the proxy: it dropped the sender of its snapshots.
    Dropped,
}

/// The proxies of a zone: what is stored about them, their snapshots, and what becomes of their streams.
///
/// Calls for one stream come in this order: `connect`, any number of `event`s, `disconnected`. Calls for different
/// streams of one proxy may interleave: `connect` of a newer stream may come before `disconnected` of the older
/// one, so an implementation remembers the id of the newest stream and ignores what older ones still say.
#[async_trait]
pub trait Proxies: Send + Sync + 'static {
    /// The stored Dataplane.
    async fn stored_dataplane(&self, id: &ProxyId) -> Option<Arc<Resource>>;

    /// Whether the mesh exists.
    async fn has_mesh(&self, mesh: &str) -> bool;

    /// Why this proxy may not come here, whatever its Dataplane says; `None` = it may.
    async fn refusal(&self, id: &ProxyId) -> Option<String> {
        let _anybody = id;
        None
    }

    /// An authenticated proxy connected. Stores the Dataplane that it brought (`hello.dataplane`), cancels a pending
    /// deregistration, and makes snapshots from now on. If the future is dropped before it returns, `disconnected`
    /// follows all the same.
    ///
    /// # Errors
    /// The stream ends with the text.
    async fn connect(&self, hello: Hello, stream: &StreamId) -> Result<Snapshots, ConnectError>;

    /// Something happened on a stream. Must not block: it runs on the way of responses to the proxy.
    fn event(&self, id: &ProxyId, stream: &StreamId, event: Event);

    /// A stream ended, after `connect` was called for it. Must not block: it also runs when a connection is torn down.
    fn disconnected(&self, id: &ProxyId, stream: &StreamId, end: End);

    /// The stored Dataplane, and every later one. Called before the proxy is authenticated: nothing may be kept
    /// for an id after the receiver is dropped.
    async fn watch_dataplane(&self, id: &ProxyId) -> watch::Receiver<Option<Arc<Resource>>>;

    /// What the proxy's probes say. Called when it differs from what was said before, or the Dataplane changed.
    async fn health(&self, id: &ProxyId, report: HealthReport);

    /// The proxy is about to stop: nobody should send it new requests. Returns when that was decided.
    ///
    /// # Errors
    /// It could not be decided; the caller may try again.
    async fn drain(&self, id: &ProxyId) -> Result<(), ConnectError>;
}

/// Everything that the server needs from outside.
#[derive(Clone)]
pub struct Deps {
    /// The proxies.
    pub proxies: Arc<dyn Proxies>,
    /// Checks credentials.
    pub authenticator: Arc<dyn Authenticator>,
    /// The certificate of the port, for `POST /bootstrap`.
    pub cert: ServerCert,
    /// Settings of the bootstrap configuration.
    pub bootstrap: graticule_envoygen::bootstrap::BootstrapSettings,
    /// Time.
    pub clock: Clock,
    /// For stream ids.
    pub random: Random,
    /// Id of this instance: `control_plane.identifier` of every response.
    pub instance_id: Arc<str>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("instance_id", &self.instance_id).finish_non_exhaustive()
    }
}
