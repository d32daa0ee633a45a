//! Certificate authorities and certificates, token signing and checking.
//!
//! Pure but for key generation: time, serial numbers and token ids are arguments. Contract:
//! tokens-and-access.md §1–3, §8, §10 and xds.md §4.3, §4.6. Certificates have P-256 keys; tokens are
//! signed with RSA keys, because they are RS256.
//!
//! ```
//! use graticule_identity::{CertificateAuthority, SpiffeId};
//! use jiff::Timestamp;
//! use std::time::Duration;
//!
//! let now: Timestamp = "2026-08-01T00:00:00Z".parse()?;
//! let ca = CertificateAuthority::generate("default.east.mesh.local", now, [1; 16])?;
//! let id = SpiffeId::parse("spiffe://default.east.mesh.local/workload/web")?;
//! let leaf = ca.issue_leaf(&id, now, Duration::from_secs(3600), [2; 16])?;
//! assert!(leaf.chain_pem.starts_with("-----BEGIN CERTIFICATE-----"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod admin;
mod ca;
mod cert;
pub mod cluster;
mod pem;
pub mod rotation;
pub mod self_signed;
mod spiffe;
pub mod tokens;

pub use admin::AdminAuthority;
pub use ca::{CaError, CertificateAuthority, Leaf};
pub use cert::CertificateKey;
pub use cluster::{ClusterToken, MemberAuthority};
pub use spiffe::{SpiffeError, SpiffeId};
