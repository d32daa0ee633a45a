//! Who gets a resource (federation.md §3.3).

use std::collections::BTreeSet;

use graticule_model::kinds::config::CLUSTER_ID;
use graticule_model::kinds::hostname_generator::HostnameGenerator;
use graticule_model::{Kind, Resource, labels};

use super::source::Peer;
use super::{TrustExchange, rewrite};

/// Who gets an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every peer.
    Everybody,
    /// Peers that understand generators for MeshMultiZoneServices.
    MultiZoneGenerators,
    /// Every zone but the origin, while the origin is enabled.
    OtherZones {
        /// Where the resource comes from.
        origin: String,
        /// Only for zones that understand producer policies.
        producer: bool,
    },
}

impl Audience {
    /// Whether this peer gets it; `disabled` are the disabled zones.
    pub fn admits(&self, peer: &Peer, disabled: &BTreeSet<String>) -> bool {
        match self {
            Audience::Everybody => true,
            Audience::MultiZoneGenerators => peer.multi_zone_generators,
            Audience::OtherZones { origin, producer } => {
                *origin != peer.zone && !disabled.contains(origin) && (!producer || peer.producer_policies)
            }
        }
    }
}

const ADMIN_SECRETS: [&str; 4] =
    ["envoy-admin-ca", "admin-user-token", "inter-cp-ca", "user-token-revocations"];
const USER_KEY_PREFIX: &str = "user-token-signing-key";

/// Global → zones; `None` = nobody.
pub(super) fn to_zones(resource: &Resource, trust: TrustExchange) -> Option<Audience> {
    let (kind, meta) = (resource.kind(), &resource.meta);
    let flags = kind.descriptor().kds;
    if meta.label(labels::KDS_SYNC) == Some("disabled") {
        return None;
    }
    match kind {
        Kind::Config => return (meta.name == CLUSTER_ID).then_some(Audience::Everybody),
        Kind::GlobalSecret
            if ADMIN_SECRETS.contains(&meta.name.as_str()) || meta.name.starts_with(USER_KEY_PREFIX) =>
        {
            return None;
        }
        _ => {}
    }
    if meta.is_local_to_global() {
        if !flags.global_to_zones() {
            return None;
        }
        let generator = resource.spec_as::<HostnameGenerator>();
        return Some(match generator {
            Some(generator) if generator.selector.mesh_multi_zone_service.is_some() => {
                Audience::MultiZoneGenerators
            }
            _ => Audience::Everybody,
        });
    }
    let exchanged = kind == Kind::MeshTrust && trust == TrustExchange::Automatic;
    if !flags.across_zones() && !exchanged {
        return None;
    }
    let producer = kind.descriptor().is_policy();
    if producer && !is_producer(resource) {
        return None;
    }
    let origin = match meta.zone() {
        Some(zone) => zone,
        None => meta.name.split_once('.')?.0,
    };
    Some(Audience::OtherZones { origin: origin.to_owned(), producer })
}

/// Zone → global.
pub(super) fn to_global(resource: &Resource) -> Option<Audience> {
    let meta = &resource.meta;
    let wanted = meta.label(labels::KDS_SYNC) != Some("disabled") && meta.is_local_to_zone();
    wanted.then_some(Audience::Everybody)
}

/// The label says it, and the spec agrees: a zone with lax admission cannot widen a policy's reach.
fn is_producer(resource: &Resource) -> bool {
    let meta = &resource.meta;
    if meta.label(labels::POLICY_ROLE) != Some("producer") {
        return false;
    }
    let Some(namespace) = meta.namespace() else { return false };
    let spec = resource.spec.to_json();
    let items = spec.get("to").and_then(serde_json::Value::as_array);
    items.is_some_and(|items| !items.is_empty() && items.iter().all(|item| is_producer_item(item, namespace)))
}

fn is_producer_item(item: &serde_json::Value, namespace: &str) -> bool {
    let Some(target) = item.get("targetRef") else { return false };
    let kind = target.get("kind").and_then(serde_json::Value::as_str);
    if !matches!(kind, Some("MeshService" | "MeshHTTPRoute")) {
        return false;
    }
    let Some(wanted) = target.get("labels").and_then(serde_json::Value::as_object) else { return false };
    wanted.contains_key(labels::DISPLAY_NAME)
        && wanted.iter().all(|(key, value)| match key.as_str() {
            labels::DISPLAY_NAME => true,
            labels::NAMESPACE => value.as_str() == Some(namespace),
            _ => false,
        })
}

/// Whether the name is the hash of the resource's own labels (federation.md §3.5).
pub(super) fn is_hashed(resource: &Resource) -> bool {
    resource.meta.name == rewrite::hashed_name(&resource.meta)
}
