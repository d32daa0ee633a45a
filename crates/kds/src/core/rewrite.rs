//! The form in which a resource travels (federation.md §3.4).

use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::{Kind, Meta, Resource, Spec, Status, labels, name};

use super::public_key;

const ZONE_KEY_PREFIX: &str = "zone-token-signing-key";
const ZONE_PUBLIC_KEY_PREFIX: &str = "zone-token-signing-public-key";

/// Global → zone.
///
/// # Errors
/// The resource cannot be brought into a form that may leave global.
pub(super) fn to_zones(resource: &Resource, skip_prefixes: &[String]) -> Result<Resource, String> {
    let meta = meta_to_zones(resource, skip_prefixes)?;
    let spec = match public_key(resource)? {
        Some((_, public)) => {
            Spec::GlobalSecret(Box::new(GlobalSecret { data: SecretBytes(public.into_bytes()) }))
        }
        None => resource.spec.clone(),
    };
    Ok(Resource { meta, spec, status: Status::empty(resource.kind()) })
}

/// What [`to_zones`] makes of the metadata.
///
/// # Errors
/// As there.
pub(super) fn meta_to_zones(resource: &Resource, skip_prefixes: &[String]) -> Result<Meta, String> {
    let mut meta = resource.meta.clone();
    meta.labels.insert(labels::ORIGIN.into(), labels::Origin::Global.as_str().into());
    drop_labels(&mut meta, skip_prefixes);
    if let Some((serial, _)) = public_key(resource)? {
        meta.labels.entry(labels::DISPLAY_NAME.into()).or_insert_with(|| resource.meta.name.clone());
        meta.name = format!("{ZONE_PUBLIC_KEY_PREFIX}{serial}");
    }
    if !resource.kind().descriptor().capabilities.keeps_name {
        rename(&mut meta);
    }
    Ok(meta)
}

/// Serial number and public key of a key that signs zone tokens: zones get nothing else of it.
fn public_key(resource: &Resource) -> Result<Option<(&str, String)>, String> {
    let Spec::GlobalSecret(secret) = &resource.spec else { return Ok(None) };
    let Some(serial) = resource.meta.name.strip_prefix(ZONE_KEY_PREFIX) else { return Ok(None) };
    let public = public_key::of_private_pem(&secret.data.0)
        .ok_or_else(|| "data: not a PEM RSA private key, so no public key is sent to zones".to_owned())?;
    Ok(Some((serial, public)))
}

/// Zone → global.
pub(super) fn to_global(resource: &Resource, zone: &str, skip_prefixes: &[String]) -> Resource {
    let mut out = resource.clone();
    out.meta = meta_to_global(resource, zone, skip_prefixes);
    if let Spec::DataplaneInsight(insight) = &mut out.spec {
        for subscription in &mut insight.subscriptions {
            subscription.generation = 0;
        }
    }
    out
}

/// What [`to_global`] makes of the metadata.
pub(super) fn meta_to_global(resource: &Resource, zone: &str, skip_prefixes: &[String]) -> Meta {
    let mut meta = resource.meta.clone();
    meta.labels.insert(labels::ORIGIN.into(), labels::Origin::Zone.as_str().into());
    meta.labels.insert(labels::ZONE.into(), zone.into());
    meta.labels.remove(labels::DELETION_GRACE_PERIOD_STARTED_AT);
    drop_labels(&mut meta, skip_prefixes);
    rename(&mut meta);
    meta
}

/// What global makes of a zone's resource: the zone's claims about itself are overwritten.
pub(super) fn as_owned_by_zone(resource: &mut Resource, zone: &str) {
    resource.meta.labels.insert(labels::ORIGIN.into(), labels::Origin::Zone.as_str().into());
    resource.meta.labels.insert(labels::ZONE.into(), zone.into());
    if let Spec::Dataplane(dataplane) = &mut resource.spec
        && let Some(gateway) =
            dataplane.networking.as_mut().and_then(|networking| networking.gateway.as_mut())
        && let Some(claimed) = gateway.tags.get_mut(labels::ZONE)
    {
        *claimed = zone.into();
    }
    if resource.kind().descriptor().capabilities.soft {
        return;
    }
    resource.meta.owner = Some(graticule_model::Key::new(Kind::Zone, "", zone));
}

/// `<display name>-<hash>`; the hash covers the zone and namespace labels that exist.
pub(super) fn hashed_name(meta: &Meta) -> String {
    let extra: Vec<&str> =
        [labels::ZONE, labels::NAMESPACE].into_iter().filter_map(|key| meta.label(key)).collect();
    name::hashed(&meta.mesh, meta.display_name(), &extra)
}

fn rename(meta: &mut Meta) {
    let hashed = hashed_name(meta);
    let old = std::mem::replace(&mut meta.name, hashed);
    let display = meta.labels.entry(labels::DISPLAY_NAME.into()).or_default();
    if display.is_empty() {
        *display = old;
    }
}

fn drop_labels(meta: &mut Meta, prefixes: &[String]) {
    if !prefixes.is_empty() {
        meta.labels.retain(|key, _| !prefixes.iter().any(|prefix| key.starts_with(prefix.as_str())));
    }
}
