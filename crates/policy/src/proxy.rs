//! Which proxy.

use std::fmt;

use graticule_model::{Key, Kind};
use serde::Serialize;

/// A proxy: mesh and stored name of its Dataplane. As text it is the node id of its Envoy, `<mesh>.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ProxyId {
    /// Mesh.
    pub mesh: String,
    /// Stored name of the Dataplane; may contain dots.
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
