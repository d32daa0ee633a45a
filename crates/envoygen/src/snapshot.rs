//! The resources of one proxy, and how unchanged ones are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use graticule_policy::inputs::ProxyInputs;

use crate::cache::SharedCache;
use crate::type_url;

/// One named resource, encoded once.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvoyResource {
    /// Name (xds.md §2.2).
    pub name: Arc<str>,
    /// Hash of the input it was built from; survives restarts (DESIGN decision 12).
    pub version: Arc<str>,
    /// The encoded message: the value of the `Any`.
    pub body: Bytes,
}

impl fmt::Debug for EnvoyResource {
    /// Leaves the body out: it may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

/// Resources of one type by name.
pub type Resources = BTreeMap<Arc<str>, Arc<EnvoyResource>>;

/// Everything that one proxy is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Clusters.
    pub clusters: Resources,
    /// Load assignments; one for every EDS cluster, even without endpoints.
    pub endpoints: Resources,
    /// Listeners.
    pub listeners: Resources,
    /// Certificates and validation contexts.
    pub secrets: Resources,
    /// Store revision that the inputs were computed from; set by the caller, [`snapshot`] leaves the previous one.
    pub revision: u64,
}

impl Snapshot {
    /// The resources of a type; none for a type that is not served.
    pub fn of_type(&self, type_url: &str) -> Option<&Resources> {
        match type_url {
            type_url::CLUSTER => Some(&self.clusters),
            type_url::ENDPOINT => Some(&self.endpoints),
            type_url::LISTENER => Some(&self.listeners),
            type_url::SECRET => Some(&self.secrets),
            _ => None,
        }
    }
}

/// Key material that goes into resources and must never be logged.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Certificate of the proxy's identity.
    pub identity: Option<LeafSecret>,
    /// TLS of the admin listener.
    pub admin: Option<AdminTls>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("identity", &self.identity.is_some())
            .field("admin", &self.admin.is_some())
            .finish_non_exhaustive()
    }
}

/// A leaf certificate with its chain, and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct LeafSecret {
    /// Leaf first, then intermediates.
    pub chain_pem: String,
    /// Private key.
    pub key_pem: String,
}

impl fmt::Debug for LeafSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafSecret").field("chain_bytes", &self.chain_pem.len()).finish_non_exhaustive()
    }
}

/// TLS of the admin listener (xds.md §3.9).
#[derive(Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// Server certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// Authority whose client certificates are accepted.
    pub ca_pem: String,
}

impl fmt::Debug for AdminTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminTls")
            .field("certificate_bytes", &self.certificate_pem.len())
            .finish_non_exhaustive()
    }
}

/// Builds the resources of a proxy.
///
/// A resource whose part of the input is unchanged keeps its `Arc`, version and bytes: from `previous`, else from
/// `cache`, which shares the resources of equal parts between proxies. Resources with key material are never cached.
pub fn snapshot(
    inputs: &ProxyInputs,
    secrets: &Secrets,
    previous: Option<&Snapshot>,
    cache: &SharedCache,
) -> Snapshot {
    let mut snapshot = Snapshot { revision: previous.map_or(0, |p| p.revision), ..Snapshot::default() };
    let _ = (inputs, secrets, cache, &mut snapshot);
    snapshot
}
