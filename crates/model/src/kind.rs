//! What is known about each kind: the capability types. The registry itself is in `kinds`.

use std::fmt;

use crate::Mode;
pub use crate::kinds::registry::Kind;

/// Whether a kind lives in a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One per control plane.
    Global,
    /// Belongs to a mesh.
    Mesh,
}

/// How a spec is written (resources.md §1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Flattened proto JSON, protobuf on the federation wire.
    Proto,
    /// `spec:` and `status:` members, raw JSON on the federation wire.
    Plugin,
}

/// Direction flags of federation (federation.md §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdsFlags(u8);

impl KdsFlags {
    const CONSUMED_BY_ZONE: u8 = 1;
    const CONSUMED_BY_GLOBAL: u8 = 4;
    const PROVIDED_BY_ZONE: u8 = 8;
    const PROVIDED_BY_GLOBAL: u8 = 16;
    const SYNCED_ACROSS_ZONES: u8 = 32;

    /// Never travels, nobody may write it.
    pub const NONE: KdsFlags = KdsFlags(0);
    /// Global sends it to zones.
    pub const GLOBAL_TO_ZONES: KdsFlags = KdsFlags(Self::PROVIDED_BY_GLOBAL | Self::CONSUMED_BY_ZONE);
    /// Zones send it to global.
    pub const ZONE_TO_GLOBAL: KdsFlags = KdsFlags(Self::PROVIDED_BY_ZONE | Self::CONSUMED_BY_GLOBAL);
    /// Global passes a zone's resources on to the other zones.
    pub const ACROSS_ZONES: KdsFlags = KdsFlags(Self::SYNCED_ACROSS_ZONES);
    /// A zone may write its own.
    pub const BY_ZONE: KdsFlags = KdsFlags(Self::PROVIDED_BY_ZONE);
    /// Global may write its own.
    pub const BY_GLOBAL: KdsFlags = KdsFlags(Self::PROVIDED_BY_GLOBAL);

    /// Union.
    pub const fn and(self, other: KdsFlags) -> KdsFlags {
        KdsFlags(self.0 | other.0)
    }
    const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
    /// Zones may create it.
    pub const fn provided_by_zone(self) -> bool {
        self.has(Self::PROVIDED_BY_ZONE)
    }
    /// Global may create it.
    pub const fn provided_by_global(self) -> bool {
        self.has(Self::PROVIDED_BY_GLOBAL)
    }
    /// Sent from global to zones (global's own resources).
    pub const fn global_to_zones(self) -> bool {
        self.has(Self::PROVIDED_BY_GLOBAL | Self::CONSUMED_BY_ZONE)
    }
    /// Sent from zones to global.
    pub const fn zone_to_global(self) -> bool {
        self.has(Self::PROVIDED_BY_ZONE | Self::CONSUMED_BY_GLOBAL)
    }
    /// Passed on to the other zones.
    pub const fn across_zones(self) -> bool {
        self.has(Self::SYNCED_ACROSS_ZONES)
    }
    /// Zones ask global for it.
    pub const fn requested_by_zones(self) -> bool {
        self.global_to_zones() || self.across_zones()
    }
}

/// Small facts about a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Only administrators may read or write it.
    pub admin_only: bool,
    /// Written by control planes only.
    pub read_only: bool,
    /// Has a status.
    pub has_status: bool,
    /// Can be a target of `to` and of `backendRefs`, has SNIs.
    pub destination: bool,
    /// Keeps its name from global to zones.
    pub keeps_name: bool,
    /// Has an `_overview`.
    pub has_insight: bool,
    /// Observation: soft state, never in the durable store (DESIGN decision 4).
    pub soft: bool,
    /// Facts of a policy kind.
    pub policy: Option<PolicyCapabilities>,
}

/// Facts of a policy kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyCapabilities {
    /// Application order, ascending.
    pub order: u16,
    /// Has `spec.to`.
    pub has_to: bool,
    /// Has `spec.rules`.
    pub has_rules: bool,
}

/// One registry entry.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// The kind's name on the wire, such as `MeshTimeout`.
    pub name: &'static str,
    /// Plural path segment of the REST API; empty when the kind has no endpoint.
    pub path: &'static str,
    /// Alternative path segment, or empty.
    pub alt_path: &'static str,
    /// KRI short name; empty when not addressable by KRI.
    pub short_name: &'static str,
    /// Singular and plural for people.
    pub display_names: (&'static str, &'static str),
    /// Scope.
    pub scope: Scope,
    /// Family.
    pub family: Family,
    /// Federation directions.
    pub kds: KdsFlags,
    /// The rest.
    pub capabilities: Capabilities,
}

impl Descriptor {
    /// No mesh.
    pub fn is_global_scoped(&self) -> bool {
        self.scope == Scope::Global
    }
    /// Has `spec`/`status` members.
    pub fn is_plugin(&self) -> bool {
        self.family == Family::Plugin
    }
    /// A targetRef policy.
    pub fn is_policy(&self) -> bool {
        self.capabilities.policy.is_some()
    }
    /// Whether REST refuses writes on a control plane of this mode (resources.md §1.3).
    pub fn is_read_only_on(&self, mode: Mode) -> bool {
        self.capabilities.read_only
            || match mode {
                Mode::Global => !self.kds.provided_by_global(),
                Mode::FederatedZone => !self.kds.provided_by_zone(),
                Mode::StandaloneZone => false,
            }
    }
    /// Part of an export for federation.
    pub fn include_in_federation(&self) -> bool {
        self.kds.global_to_zones() && !self.capabilities.read_only && !self.path.is_empty()
    }
}

/// A name that no registered kind has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind \"{0}\"")]
pub struct UnknownKind(pub String);

impl Kind {
    /// All registered kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied()
    }

    /// The kind of this wire name.
    pub fn from_name(name: &str) -> Result<Kind, UnknownKind> {
        Kind::all().find(|kind| kind.descriptor().name == name).ok_or_else(|| UnknownKind(name.into()))
    }

    /// The kind served under this path segment.
    pub fn from_path(path: &str) -> Option<Kind> {
        Kind::all().find(|kind| {
            let descriptor = kind.descriptor();
            !path.is_empty() && (descriptor.path == path || descriptor.alt_path == path)
        })
    }

    /// The kind with this KRI short name.
    pub fn from_short_name(short: &str) -> Option<Kind> {
        Kind::all().find(|kind| !short.is_empty() && kind.descriptor().short_name == short)
    }

    /// The wire name.
    pub fn name(self) -> &'static str {
        self.descriptor().name
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
