//! What a running Envoy says on its admin socket, in a form that does not depend on order and versions.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// Longest wait for an answer of the admin endpoint.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// GET of an admin path.
pub(super) async fn admin(socket: &Path, path: &str) -> Result<String> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(ADMIN_TIMEOUT)
        .unix_socket(socket.to_owned())
        .build()?;
    let response = client.get(format!("http://envoy{path}")).send().await?;
    let status = response.status();
    let body = response.text().await?;
    ensure!(status.is_success(), "{path}: {status}: {body}");
    Ok(body)
}

/// The configuration dump of an Envoy, [`normalised`].
pub(super) async fn dump(socket: &Path) -> Result<Value> {
    let text = admin(socket, "/config_dump?include_eds").await?;
    Ok(normalised(&serde_json::from_str(&text)?))
}

/// How many updates an Envoy took over, by what it is subscribed to.
pub(super) async fn counters(socket: &Path) -> Result<Value> {
    let text = admin(socket, "/stats?format=json&filter=update_success").await?;
    let document: Value = serde_json::from_str(&text)?;
    let all = document.get("stats").and_then(Value::as_array).context("no statistics")?;
    let named =
        all.iter().filter_map(|one| Some((one.get("name")?.as_str()?.to_owned(), one.get("value")?.clone())));
    Ok(Value::Object(named.collect()))
}

/// `section → member → name → resource`, without versions and times. The bootstrap is left out: the recording has
/// it in a file of its own.
pub(super) fn normalised(dump: &Value) -> Value {
    let mut sections = Map::new();
    for config in dump.get("configs").and_then(Value::as_array).into_iter().flatten() {
        let kind = config.get("@type").and_then(Value::as_str).unwrap_or_default();
        let kind = kind.rsplit('.').next().unwrap_or_default();
        if kind == "BootstrapConfigDump" {
            continue;
        }
        let mut members = Map::new();
        for (key, list) in config.as_object().into_iter().flatten() {
            if let Value::Array(list) = list {
                members.insert(key.clone(), by_name(list));
            }
        }
        sections.insert(kind.into(), Value::Object(members));
    }
    Value::Object(sections)
}

fn by_name(list: &[Value]) -> Value {
    let mut named = Map::new();
    for entry in list {
        let mut entry = entry.clone();
        forget(&mut entry);
        let mut name = name_of(&entry);
        // Route configurations of the admin listener have no name; their number tells them apart.
        while named.contains_key(&name) {
            name.push('\'');
        }
        named.insert(name, entry);
    }
    Value::Object(named)
}

fn name_of(entry: &Value) -> String {
    let named = |value: &Value| {
        ["name", "cluster_name"].iter().find_map(|key| value.get(*key)?.as_str().map(ToOwned::to_owned))
    };
    let inner = entry.as_object().into_iter().flatten().find_map(|(_, value)| named(value));
    named(entry).or(inner).unwrap_or_else(|| {
        // Without a name: by what is inside, so that the order of the dump does not matter.
        let routes = entry.pointer("/route_config/virtual_hosts/0/routes").and_then(Value::as_array);
        format!("unnamed with {} routes", routes.map_or(0, Vec::len))
    })
}

/// Removes versions and times, at any depth.
fn forget(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|key, _| key != "version_info" && key != "last_updated");
            members.values_mut().for_each(forget);
        }
        Value::Array(items) => items.iter_mut().for_each(forget),
        _ => {}
    }
}
