//! What global and zones hold when everything has arrived, written down from the contract (federation.md §3.2–§3.4,
//! and DESIGN decision 14 for MeshTrusts) and not from the code: a table, the filters, the rewrites. Only the hash of
//! names is the code's own.

use std::collections::{BTreeMap, BTreeSet};

use graticule_model::name;
use graticule_model::{Kind, Resource};
use graticule_store::Snapshot;
use serde_json::{Value, json};

/// Who else gets what a zone sent up.
#[derive(PartialEq)]
enum Others {
    Nobody,
    Everybody,
    /// Only producer policies.
    Producers,
}
use Others::{Everybody, Nobody, Producers};

/// `(kind, global → zones, zone → global, other zones, name is hashed on the way down)`
const TABLE: &[(&str, bool, bool, Others, bool)] = &[
    ("Mesh", true, false, Nobody, false),
    ("Config", true, false, Nobody, false),
    ("GlobalSecret", true, false, Nobody, false),
    ("Secret", true, false, Nobody, false),
    ("ServiceInsight", true, false, Nobody, true),
    ("HostnameGenerator", true, true, Nobody, true),
    ("MeshMultiZoneService", true, false, Nobody, true),
    ("MeshExternalService", true, true, Nobody, true),
    ("MeshIdentity", true, true, Nobody, true),
    ("MeshTrust", true, true, Everybody, true),
    ("MeshOpenTelemetryBackend", true, true, Nobody, true),
    ("MeshService", false, true, Everybody, true),
    ("MeshZoneAddress", false, true, Everybody, true),
    ("Workload", false, true, Nobody, true),
    ("Dataplane", false, true, Nobody, true),
    ("DataplaneInsight", false, true, Nobody, true),
    ("MeshAccessLog", true, true, Producers, true),
    ("MeshCircuitBreaker", true, true, Producers, true),
    ("MeshFaultInjection", true, true, Producers, true),
    ("MeshHealthCheck", true, true, Producers, true),
    ("MeshHTTPRoute", true, true, Producers, true),
    ("MeshLoadBalancingStrategy", true, true, Producers, true),
    ("MeshMetric", true, true, Producers, true),
    ("MeshPassthrough", true, true, Producers, true),
    ("MeshProxyPatch", true, true, Producers, true),
    ("MeshRateLimit", true, true, Producers, true),
    ("MeshRetry", true, true, Producers, true),
    ("MeshTCPRoute", true, true, Producers, true),
    ("MeshTimeout", true, true, Producers, true),
    ("MeshTLS", true, true, Producers, true),
    ("MeshTrace", true, true, Producers, true),
    ("MeshTrafficPermission", true, true, Producers, true),
];

const ORIGIN: &str = "kuma.io/origin";
const ZONE: &str = "kuma.io/zone";
const DISPLAY_NAME: &str = "kuma.io/display-name";
const NAMESPACE: &str = "k8s.kuma.io/namespace";

/// One resource, as a control plane should hold it: kind, mesh and name → labels, spec, status.
pub(super) type Held = BTreeMap<(String, String, String), Value>;

fn row(kind: Kind) -> Option<&'static (&'static str, bool, bool, Others, bool)> {
    TABLE.iter().find(|row| row.0 == kind.name())
}

fn label<'a>(resource: &'a Resource, key: &str) -> Option<&'a str> {
    resource.meta.labels.get(key).map(String::as_str)
}

pub(super) fn form(resource: &Resource) -> ((String, String, String), Value) {
    let key = (resource.kind().name().to_owned(), resource.meta.mesh.clone(), resource.meta.name.clone());
    let value = json!({
        "labels": resource.meta.labels,
        "spec": resource.spec.to_json(),
        "status": resource.status.to_json(),
    });
    (key, value)
}

/// Renames as every sender does that renames.
fn renamed(mut resource: Resource) -> Resource {
    let display = match label(&resource, DISPLAY_NAME) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => resource.meta.name.clone(),
    };
    let more: Vec<String> =
        [ZONE, NAMESPACE].iter().filter_map(|key| label(&resource, key)).map(str::to_owned).collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    resource.meta.name = name::hashed(&resource.meta.mesh, &display, &more);
    resource.meta.labels.insert(DISPLAY_NAME.into(), display);
    resource
}

/// Made on global, as global sees it.
fn is_globals(resource: &Resource) -> bool {
    matches!(label(resource, ORIGIN), None | Some("global"))
}

/// Made in the zone, as the zone sees it. Kinds that a zone may not provide are never its own.
fn is_zones(resource: &Resource) -> bool {
    let may_provide = row(resource.kind())
        .is_none_or(|(kind, _, up, ..)| *up || matches!(*kind, "Config" | "Secret" | "GlobalSecret"));
    may_provide && matches!(label(resource, ORIGIN), None | Some("zone"))
}

/// What goes from global to the zone, as the zone holds it.
pub(super) fn to_zone(resource: &Resource, zone: &str, disabled: &BTreeSet<String>) -> Option<Resource> {
    let (kind, down, _, others, is_hashed) = row(resource.kind())?;
    if label(resource, "kuma.io/kds-sync") == Some("disabled") {
        return None;
    }
    let name = resource.meta.name.as_str();
    match *kind {
        "Config" if name != "kuma-cluster-id" => return None,
        "GlobalSecret"
            if ["envoy-admin-ca", "admin-user-token", "inter-cp-ca", "user-token-revocations"]
                .contains(&name)
                || name.starts_with("user-token-signing-key") =>
        {
            return None;
        }
        _ => {}
    }
    if !is_globals(resource) {
        let origin = label(resource, ZONE)?;
        let passes = match others {
            Nobody => false,
            Everybody => true,
            Producers => label(resource, "kuma.io/policy-role") == Some("producer"),
        };
        if !passes || origin == zone || disabled.contains(origin) {
            return None;
        }
    } else if !*down {
        return None;
    }
    let mut copy = resource.clone();
    copy.meta.labels.insert(ORIGIN.into(), "global".into());
    copy.status = graticule_model::Status::empty(resource.kind());
    Some(if *is_hashed { renamed(copy) } else { copy })
}

/// What goes from the zone to global, as global holds it.
pub(super) fn to_global(resource: &Resource, zone: &str) -> Option<Resource> {
    let (_, _, up, ..) = row(resource.kind())?;
    if !*up || !is_zones(resource) || label(resource, "kuma.io/kds-sync") == Some("disabled") {
        return None;
    }
    let mut copy = resource.clone();
    copy.meta.labels.insert(ORIGIN.into(), "zone".into());
    copy.meta.labels.insert(ZONE.into(), zone.into());
    copy.meta.labels.remove("kuma.io/deletion-grace-period-started-at");
    Some(renamed(copy))
}

/// The copies that global should hold.
pub(super) fn at_global<'a>(zones: impl Iterator<Item = (&'a str, &'a Snapshot)>) -> Held {
    let mut held = Held::new();
    for (zone, stored) in zones {
        held.extend(stored.iter().filter_map(|resource| to_global(resource, zone)).map(|copy| form(&copy)));
    }
    held
}

/// The copies that global holds.
pub(super) fn copies_at_global(stored: &Snapshot) -> Held {
    stored.iter().filter(|resource| !is_globals(resource)).map(|copy| form(copy)).collect()
}

/// The copies that a zone should hold.
pub(super) fn at_zone(global: &Snapshot, zone: &str) -> Held {
    let disabled: BTreeSet<String> = global
        .list(Kind::Zone, None)
        .filter(|zone| zone.spec.to_json().get("enabled") == Some(&Value::Bool(false)))
        .map(|zone| zone.meta.name.clone())
        .collect();
    let copies = global.iter().filter_map(|resource| to_zone(resource, zone, &disabled));
    copies.map(|copy| form(&copy)).collect()
}

/// The copies that a zone holds.
pub(super) fn copies_at_zone(stored: &Snapshot) -> Held {
    let is_copy = |resource: &Resource| row(resource.kind()).is_some() && !is_zones(resource);
    stored.iter().filter(|resource| is_copy(resource)).map(|copy| form(copy)).collect()
}

/// The first differences, for people.
pub(super) fn differences(what: &str, expected: &Held, found: &Held) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in expected {
        match found.get(key) {
            None => all.push(format!("{what} lacks {key:?}")),
            Some(other) if other != value => {
                all.push(format!("{what} has {key:?} as {other} and not as {value}"));
            }
            Some(_) => {}
        }
    }
    let surplus = found.keys().filter(|key| !expected.contains_key(*key));
    all.extend(surplus.map(|key| format!("{what} has {key:?} too much")));
    all.truncate(5);
    all
}
