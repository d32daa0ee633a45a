//! The resources in recorded conversations of stock control planes: every one is read, and written again
//! without loss. Needs the recordings: `GRATICULE_CONFORMANCE_DIR`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graticule_kds::wire::{self, Encoded};
use graticule_model::Kind;
use graticule_proto::discovery::DeltaDiscoveryResponse;
use prost::Message;
use serde_json::Value;

/// Recordings without deliberately broken messages.
const HONEST: [&str; 11] = [
    "01-fresh-join",
    "02-policies",
    "03-zone-resources",
    "04-global-restart",
    "04b-global-killed",
    "05-zone-restart",
    "05b-zone-disable-delete",
    "05c-zone-deleted-while-connected",
    "06f-resume-played-global",
    "07-mesh-deletion",
    "08-secrets-and-config",
];

fn raw(folder: &Path, raw: &Value) -> Option<Vec<u8>> {
    match raw {
        Value::String(text) => STANDARD.decode(text).ok(),
        Value::Array(parts) => {
            let mut out = Vec::new();
            for part in parts {
                match part {
                    Value::String(text) => out.extend(STANDARD.decode(text).ok()?),
                    part => {
                        out.extend(std::fs::read(folder.join("blobs").join(part["blob"].as_str()?)).ok()?)
                    }
                }
            }
            Some(out)
        }
        _ => None,
    }
}

#[test]
fn recorded_resources_survive() {
    let Some(root) = std::env::var_os("GRATICULE_CONFORMANCE_DIR") else {
        println!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
        return;
    };
    let folder = Path::new(&root).join("recordings/kds");
    let mut seen: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    for name in HONEST {
        let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let recording: Value = serde_json::from_str(&text).unwrap();
        for event in recording["events"].as_array().unwrap() {
            let is_response = matches!(
                (event["rpc"].as_str(), event["dir"].as_str()),
                (Some("GlobalToZoneSync"), Some("global->zone"))
                    | (Some("ZoneToGlobalSync"), Some("zone->global"))
            );
            let Some(bytes) = is_response.then(|| raw(&folder, &event["raw"])).flatten() else { continue };
            let response = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
            for item in &response.resources {
                let Ok(kind) = Kind::from_name(&response.type_url) else {
                    *unknown.entry(response.type_url.clone()).or_default() += 1;
                    continue;
                };
                let value = &item.resource.as_ref().unwrap().value;
                assert_eq!(&*wire::version_of(value), item.version, "{name}: {}", item.name);
                let resource =
                    wire::decode(kind, item).unwrap_or_else(|e| panic!("{name}: {kind} {}: {e}", item.name));
                let again = Encoded::of(&resource).unwrap();
                assert_eq!(again.name, item.name, "{name}");
                assert_eq!(
                    wire::decode(kind, &again.to_discovery()).unwrap(),
                    resource,
                    "{name}: {}",
                    item.name
                );
                resource.validate().unwrap_or_else(|v| panic!("{name}: {kind} {}: {v}", item.name));
                *seen.entry(kind).or_default() += 1;
            }
        }
    }
    println!("read: {seen:?}\nof kinds not registered yet: {unknown:?}");
    assert!(seen.len() > 8);
}
