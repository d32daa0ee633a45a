//! Metadata and keys.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Kind, labels};

/// A point in time; the model never reads a clock, callers pass it in.
pub type Timestamp = jiff::Timestamp;

/// Where a resource lives in a store: kind, mesh (empty for global-scoped kinds), stored name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The mesh, empty for global-scoped kinds.
    pub mesh: String,
    /// The stored name (hashed for copies that federation brought).
    pub name: String,
}

impl Key {
    /// A key; `mesh` is dropped for global-scoped kinds.
    pub fn new(kind: Kind, mesh: impl Into<String>, name: impl Into<String>) -> Key {
        let mesh = if kind.descriptor().is_global_scoped() { String::new() } else { mesh.into() };
        Key { kind, mesh, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type=\"{}\" name=\"{}\" mesh=\"{}\"", self.kind, self.name, self.mesh)
    }
}

/// Everything about a resource but its spec and status.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// The mesh, empty for global-scoped kinds.
    pub mesh: String,
    /// The stored name.
    pub name: String,
    /// All labels, user's and computed ones.
    pub labels: BTreeMap<String, String>,
    /// When this control plane first stored the resource.
    pub creation_time: Timestamp,
    /// When this control plane last stored a change of it.
    pub modification_time: Timestamp,
    /// Grows by one with each change of the resource in this store; 0 = not stored yet.
    pub version: u64,
    /// Deleting the owner deletes the resource.
    pub owner: Option<Key>,
}

impl Meta {
    /// Metadata of a resource that no store has seen yet.
    pub fn new(mesh: impl Into<String>, name: impl Into<String>) -> Meta {
        Meta {
            mesh: mesh.into(),
            name: name.into(),
            labels: BTreeMap::new(),
            creation_time: Timestamp::UNIX_EPOCH,
            modification_time: Timestamp::UNIX_EPOCH,
            version: 0,
            owner: None,
        }
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// The label `kuma.io/display-name` if it is not empty, else the stored name.
    pub fn display_name(&self) -> &str {
        self.label(labels::DISPLAY_NAME).filter(|name| !name.is_empty()).unwrap_or(&self.name)
    }

    /// The zone that the resource comes from, if a label says so.
    pub fn zone(&self) -> Option<&str> {
        self.label(labels::ZONE).filter(|zone| !zone.is_empty())
    }

    /// The Kubernetes namespace that the resource comes from, if a label says so.
    pub fn namespace(&self) -> Option<&str> {
        self.label(labels::NAMESPACE).filter(|ns| !ns.is_empty())
    }

    /// The origin label.
    pub fn origin(&self) -> Option<labels::Origin> {
        self.label(labels::ORIGIN).and_then(labels::Origin::parse)
    }

    /// "Locally originated" on a zone: no origin label, or origin `zone` (resources.md §3.2, federation.md §3.3).
    pub fn is_local_to_zone(&self) -> bool {
        !matches!(self.label(labels::ORIGIN), Some(origin) if origin != labels::Origin::Zone.as_str())
    }

    /// "Locally originated" on global: no origin label, or origin `global`.
    pub fn is_local_to_global(&self) -> bool {
        !matches!(self.label(labels::ORIGIN), Some(origin) if origin != labels::Origin::Global.as_str())
    }
}
