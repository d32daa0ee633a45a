//! What global has to get from the zones before they may follow it: a zone that follows global earlier loses the services of
//! those that are not there yet.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use graticule_model::{Kind, labels, name};
use serde_json::Value;

use super::{Zone, text};
use crate::client::{Client, list_path};
use crate::session::{Session, counted};

/// Between two looks at who is connected.
const POLL: Duration = Duration::from_millis(300);
/// Kinds that a zone sends for the other zones.
const CROSS_ZONE: [Kind; 3] = [Kind::MeshService, Kind::MeshZoneAddress, Kind::MeshTrust];
/// Resources that are named; more are counted.
const NAMED_MAX: usize = 5;

fn display_name(item: &Value) -> &str {
    item["labels"][labels::DISPLAY_NAME].as_str().unwrap_or(text(item, "name"))
}

/// The name under which a zone sends a resource to global.
fn sent_name(item: &Value, zone: &str) -> String {
    let extra: Vec<&str> = std::iter::once(zone).chain(item["labels"][labels::NAMESPACE].as_str()).collect();
    name::hashed(text(item, "mesh"), display_name(item), &extra)
}

/// What a zone has of a kind for the others and global has not got from it yet: neither what the zone keeps to itself, nor
/// what global refuses (`status` is what it tells about the zone), because that never comes.
fn missing(zone: &str, kind: Kind, own: &[Value], at_global: &[Value], status: &Value) -> Vec<String> {
    let key = |item: &Value| (text(item, "mesh").to_owned(), display_name(item).to_owned());
    let of_zone = |item: &&Value| item["labels"][labels::ZONE] == zone;
    let there: BTreeSet<_> = at_global.iter().filter(of_zone).map(key).collect();
    let refused: BTreeSet<(&str, &str)> = status["quarantine"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["kind"] == kind.name() && one["direction"] == "received")
        .map(|one| (text(one, "mesh"), text(one, "name")))
        .collect();
    let is_sent = |item: &&Value| {
        let label = |key: &str| item["labels"][key].as_str();
        label(labels::ORIGIN).is_none_or(|origin| origin == "zone")
            && label(labels::KDS_SYNC) != Some("disabled")
    };
    own.iter()
        .filter(is_sent)
        .filter(|item| !there.contains(&key(item)))
        .filter(|item| !refused.contains(&(text(item, "mesh"), sent_name(item, zone).as_str())))
        .map(|item| format!("{kind} {}", display_name(item)))
        .collect()
}

/// What is waited for of a zone; `None`: nothing.
async fn waits_for(zone: &Zone, global: &Client) -> Result<Option<String>> {
    let status = global.find(&super::super::path_of(&zone.name)).await?.unwrap_or_default();
    if status["online"] != true {
        return Ok(Some(format!("zone {}: not connected", zone.name)));
    }
    let mut all = Vec::new();
    for kind in CROSS_ZONE {
        let path = list_path(kind, None);
        let (own, there) = (zone.client.list(&path, &[]).await?, global.list(&path, &[]).await?);
        all.extend(missing(&zone.name, kind, &own, &there, &status));
    }
    Ok((!all.is_empty()).then(|| format!("zone {}: {} not there yet", zone.name, listed(&all))))
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {}", counted(more, "more resource")),
    }
}

/// Waits until global has what every zone has for the others; after `limit` it is an error, or nothing but a warning when
/// missing ones are skipped.
pub(super) async fn wait(
    session: &Session,
    zones: &[Zone],
    global: &Client,
    limit: Duration,
    skip_missing: bool,
) -> Result<()> {
    let started = tokio::time::Instant::now();
    let mut told = String::new();
    loop {
        let mut waits = Vec::new();
        for zone in zones {
            waits.extend(waits_for(zone, global).await?);
        }
        if waits.is_empty() {
            return Ok(());
        }
        let waits = waits.join("; ");
        if started.elapsed() >= limit {
            if skip_missing {
                session.screen.warn(&format!("not waited for any more: {waits}"));
                return Ok(());
            }
            bail!(
                "{waits}; global has everything that the zones had of it, but they do not follow it yet: run it again when \
                 that is there, or say --skip-missing"
            );
        }
        if told != waits {
            session.screen.note(&format!("waiting: {waits}"));
            told = waits;
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_never_comes_is_not_waited_for() {
        let mk = |name: &str, more: Value| {
            let mut labels = json!({"kuma.io/origin": "zone"});
            if let (Value::Object(all), Value::Object(more)) = (&mut labels, more) {
                all.extend(more);
            }
            json!({"mesh": "default", "name": name, "labels": labels})
        };
        let own = [
            mk("there", json!({})),
            mk("missing", json!({})),
            mk("in-namespace", json!({"k8s.kuma.io/namespace": "ns"})),
            mk("secret", json!({"kuma.io/kds-sync": "disabled"})),
            mk("refused", json!({})),
            mk("refused-in-namespace", json!({"k8s.kuma.io/namespace": "ns"})),
            mk("of-another", json!({"kuma.io/origin": "global"})),
        ];
        let at_global = |name: &str, zone: &str| {
            json!({"mesh": "default", "name": "some-hash",
                "labels": {"kuma.io/zone": zone, "kuma.io/display-name": name}})
        };
        let there = [at_global("there", "east"), at_global("missing", "west")];
        let refused = |name: &str, extra: &[&str], direction: &str| {
            json!({"kind": "MeshService", "mesh": "default", "direction": direction,
                "name": name::hashed("default", name, extra)})
        };
        let status = json!({"quarantine": [
            refused("refused", &["east"], "received"),
            refused("refused-in-namespace", &["east", "ns"], "received"),
            refused("missing", &["east"], "sent"),
        ]});
        let missing = missing("east", Kind::MeshService, &own, &there, &status);
        assert_eq!(missing, ["MeshService missing", "MeshService in-namespace"]);
        let many: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!(listed(&many), "0, 1, 2, 3, 4 and 2 more resources");
    }
}
