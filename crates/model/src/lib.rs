//! Resource kinds: metadata, names, labels, specs, validation, the REST form and the kind registry.
//!
//! The crate is pure: no clock, no randomness, no I/O. Everything else in the workspace speaks about
//! resources in these types.
//!
//! ```
//! use graticule_model::{Kind, Resource, yaml};
//! let value = yaml::parse_one("{type: MeshZoneAddress, mesh: default, name: ingress, spec: {address: 10.0.0.9, port: 10001}}")?;
//! let resource = Resource::from_rest(Kind::MeshZoneAddress, &value)?;
//! assert_eq!(resource.meta.name, "ingress");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod defaults;
pub mod duration;
mod kind;
pub mod kinds;
mod kri;
pub mod kubernetes;
pub mod labels;
mod meta;
pub mod name;
mod resource;
pub mod schema;
mod sni;
pub mod targetref;
pub mod template;
mod typed;
mod validation;
mod warnings;
pub mod yaml;

pub use duration::GoDuration;
pub use kind::{Capabilities, Descriptor, Family, KdsFlags, Kind, Scope, UnknownKind};
pub use kri::{Kri, KriError};
pub use meta::{Key, Meta, Timestamp};
pub use resource::{DecodeError, DestinationPort, NoStatus, Resource, Spec, Status, TypedSpec};
pub use sni::{SniError, sni};
pub use targetref::TargetRef;
pub use typed::Typed;
pub use validation::{Violation, Violations};

/// Which control plane a decision is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The global control plane.
    Global,
    /// A zone control plane that is connected (or configured to connect) to a global one.
    FederatedZone,
    /// A zone control plane without a global one.
    StandaloneZone,
}

impl Mode {
    /// True on the global control plane.
    pub fn is_global(self) -> bool {
        self == Mode::Global
    }
}
