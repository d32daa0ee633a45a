//! The resource types that are served (xds.md §1.2).

use std::fmt;

use graticule_envoygen::{Resources, Snapshot, type_url};

/// A type that is served. Routes are inline in listeners, so there is no RDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// SDS.
    Secret,
}

impl ResourceType {
    /// All of them, in the order of their declaration.
    pub const ALL: [ResourceType; 4] =
        [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Secret];

    /// `None` for a type that is never served.
    pub fn from_type_url(url: &str) -> Option<ResourceType> {
        ResourceType::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// On the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            ResourceType::Cluster => type_url::CLUSTER,
            ResourceType::Endpoint => type_url::ENDPOINT,
            ResourceType::Listener => type_url::LISTENER,
            ResourceType::Secret => type_url::SECRET,
        }
    }

    /// Whether a client gets all resources of the type without naming them.
    pub fn has_wildcard(self) -> bool {
        matches!(self, ResourceType::Cluster | ResourceType::Listener)
    }

    /// The resources of the type.
    pub fn of(self, snapshot: &Snapshot) -> &Resources {
        match self {
            ResourceType::Cluster => &snapshot.clusters,
            ResourceType::Endpoint => &snapshot.endpoints,
            ResourceType::Listener => &snapshot.listeners,
            ResourceType::Secret => &snapshot.secrets,
        }
    }
}

impl fmt::Display for ResourceType {
    /// `CDS`, `EDS`, `LDS`, `SDS`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResourceType::Cluster => "CDS",
            ResourceType::Endpoint => "EDS",
            ResourceType::Listener => "LDS",
            ResourceType::Secret => "SDS",
        })
    }
}
