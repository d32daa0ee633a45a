//! Proxies and what is observed of them.

use std::fmt;

use graticule_model::{Key, Kind};
use serde::Serialize;

/// A proxy: mesh and stored name of its Dataplane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ProxyId {
    /// Mesh.
    pub mesh: String,
    /// Stored name of the Dataplane.
    pub name: String,
}

impl ProxyId {
    /// From its parts.
    pub fn new(mesh: impl Into<String>, name: impl Into<String>) -> ProxyId {
        ProxyId { mesh: mesh.into(), name: name.into() }
    }

    /// Key of its Dataplane.
    pub fn key(&self) -> Key {
        Key::new(Kind::Dataplane, self.mesh.clone(), self.name.clone())
    }
}

impl From<&Key> for ProxyId {
    fn from(key: &Key) -> Self {
        ProxyId::new(key.mesh.clone(), key.name.clone())
    }
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.mesh, self.name)
    }
}

/// What is observed of a proxy's ability to serve: soft state (DESIGN decision 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serving {
    /// Nothing observed: judged by its Dataplane alone.
    #[default]
    Unknown,
    /// Connected, has not acknowledged its listeners yet.
    Starting,
    /// Runs its configuration.
    Serving,
    /// Shuts down.
    Draining,
    /// Its stream ended and the delay for coming back is over.
    Gone,
}

impl Serving {
    /// Whether others may send traffic, as far as observation goes.
    pub fn accepts_traffic(self) -> bool {
        matches!(self, Serving::Unknown | Serving::Serving)
    }
}
