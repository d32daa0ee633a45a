//! The protocol without I/O: what is sent to whom, in which form, and what is taken from whom.
//!
//! A [`Catalog`] holds what this side offers, encoded once; a [`Source`] per stream says what the peer
//! lacks; a [`Sink`] per stream turns what the peer sends into writes.

mod catalog;
mod claim;
mod filter;
mod leave;
mod limit;
mod member;
mod meshes;
mod protection;
mod proxy_name;
mod public_key;
mod quarantine;
mod repair;
mod report;
mod rewrite;
mod sink;
mod source;
mod stamp;
mod status;
pub(crate) mod trust;

pub use catalog::{Catalog, Direction, Offer, Plane, TrustExchange};
pub use claim::{Claimant, Elsewhere, Holding, RESERVED_FOR, Tenure, Verdict, ZoneLeader};
pub use filter::Audience;
pub use leave::{Fate, Step, steps as steps_of_leaving};
pub use limit::{Usage, ZoneLimit};
pub use meshes::Meshes;
pub use protection::DeletionProtection;
pub use proxy_name::name_in_zone;
pub(crate) use quarantine::{short_name, short_reason};
pub use report::{
    Conflict, Dated, Flow, Heartbeat, Instance, KindStatus, PeerReport, PeerState, Protection, Revisions,
};
pub use sink::{GlobalSeen, Held, Intake, Obstacle, Rejection, Repair, Side, Sink};
pub use source::{KindCounts, LargeState, Peer, Received, Refused, Source};
pub use status::{StreamKind, ZoneStatus};

use graticule_model::Kind;

#[cfg(test)]
mod tests;

/// Features in node metadata (federation.md §1.6).
pub const NODE_FEATURES: [&str; 4] = ["zone-token", "hash-suffix", "hg-mz-selector", "producer-policy-flow"];

/// Features in the headers of every call of a zone (federation.md §1.3).
pub const HEADER_FEATURES: [&str; 2] = ["zone-ping-health", "hash-suffix"];

/// Header of a zone of ours: the identity that it keeps in its store. Kuma peers ignore it.
pub const ZONE_IDENTITY_HEADER: &str = "graticule-zone-identity";

/// Headers of global's answers to health checks: the revision of its store, and the one that the zone has all of. Kuma
/// zones ignore them.
pub(crate) const REVISION_HEADERS: [&str; 2] = ["graticule-revision", "graticule-acknowledged"];

/// Header of a zone of ours with several replicas: the term in which the process that calls leads them. Kuma peers ignore it.
pub const TERM_HEADER: &str = "graticule-term";

/// Header of a zone of ours: the process that calls. Kuma peers ignore it.
pub const INSTANCE_HEADER: &str = "graticule-instance";

/// The kinds that a zone asks global for.
pub fn kinds_for_zones() -> impl Iterator<Item = Kind> {
    Kind::all().filter(|kind| kind.descriptor().kds.requested_by_zones())
}

/// The kinds that global asks zones for.
pub fn kinds_for_global() -> impl Iterator<Item = Kind> {
    Kind::all().filter(|kind| kind.descriptor().kds.zone_to_global())
}
