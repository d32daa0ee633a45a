//! Wire types: KDS, the data plane server and our own RPCs; re-exports the Envoy API types.
//!
//! The code under `gen` is made from `protos/` by `xtask`'s `protos()` and checked in; a test of this crate
//! fails when it is stale. Maps are ordered, so that equal messages encode to equal bytes.
//!
//! ```
//! use graticule_proto::prost::Message;
//! let config = graticule_proto::kuma::system::v1alpha1::Config { config: "x".into() };
//! assert_eq!(config.encode_to_vec(), b"\x0a\x01x");
//! ```

pub use envoy_types::pb::{envoy, google};
pub use prost;

/// Delta discovery messages, which federation and the proxies share.
pub mod discovery {
    pub use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
    pub use envoy_types::pb::envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
    };
}

/// Messages and services of federation.
pub mod kuma {
    /// Resources of meshes, and the sync.
    pub mod mesh {
        /// Version 1, alpha 1.
        #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
        pub mod v1alpha1 {
            include!("gen/kuma.mesh.v1alpha1.rs");
        }
    }
    /// Resources of control planes.
    pub mod system {
        /// Version 1, alpha 1.
        #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
        pub mod v1alpha1 {
            include!("gen/kuma.system.v1alpha1.rs");
        }
    }
}

/// Our own messages.
pub mod graticule {
    /// Additions to federation.
    pub mod kds {
        /// Version 1.
        #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
        pub mod v1 {
            include!("gen/graticule.kds.v1.rs");
        }
    }
}
