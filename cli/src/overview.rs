//! What insights say about proxies and zones, as values: read once, shown in tables and descriptions.

use jiff::Timestamp;
use serde_json::Value;

use crate::age::{age, time};
use crate::output::{labels, origin};
use crate::screen::Style;
use crate::table::Table;

/// Subscriptions of an insight, added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) is_online: bool,
    pub(crate) connected: Option<Timestamp>,
    pub(crate) updated: Option<Timestamp>,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) rejected: u64,
    /// Versions that the newest subscription names.
    pub(crate) version: Value,
    /// The newest subscription.
    pub(crate) newest: Value,
}

/// Counters are numbers or, as protobuf has it, texts.
pub(crate) fn count(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

impl Connection {
    /// Of `dataplaneInsight` or `zoneInsight`.
    pub(crate) fn of(insight: &Value) -> Connection {
        let mut connection = Connection::default();
        for subscription in insight["subscriptions"].as_array().into_iter().flatten() {
            let status = &subscription["status"];
            let connected = time(&subscription["connectTime"]);
            connection.is_online |= connected.is_some() && time(&subscription["disconnectTime"]).is_none();
            connection.updated = connection.updated.max(time(&status["lastUpdateTime"]));
            connection.sent += count(&status["total"]["responsesSent"]);
            connection.acknowledged += count(&status["total"]["responsesAcknowledged"]);
            connection.rejected += count(&status["total"]["responsesRejected"]);
            if connected >= connection.connected {
                connection.connected = connected;
                connection.version = subscription["version"].clone();
                connection.newest = subscription.clone();
            }
        }
        connection
    }

    /// `Online` or `Offline`.
    pub(crate) fn status(&self, style: Style) -> String {
        if self.is_online { style.good("Online") } else { style.bad("Offline") }
    }

    fn rejected(&self, style: Style) -> String {
        let text = self.rejected.to_string();
        if self.rejected > 0 { style.bad(&text) } else { text }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn or_dash(value: &Value) -> String {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// How long until a time: `in 3h`.
fn until(value: &Value, now: Timestamp) -> String {
    match time(value) {
        None => "-".into(),
        Some(then) if then <= now => "expired".into(),
        Some(then) => format!("in {}", age(Some(now), then)),
    }
}

/// Proxies with their state.
pub(crate) fn dataplanes(items: &[Value], now: Timestamp, style: Style) -> Table {
    let mut table = Table::new(&[
        "MESH",
        "NAME",
        "ORIGIN",
        "STATUS",
        "CONNECTED",
        "UPDATED",
        "SENT",
        "REJECTED",
        "CERT EXPIRES",
        "ENVOY",
    ]);
    for item in items {
        let insight = &item["dataplaneInsight"];
        let connection = Connection::of(insight);
        table.row(vec![
            text(&item["mesh"]),
            text(&item["name"]),
            origin(item),
            connection.status(style),
            age(connection.connected, now),
            age(connection.updated, now),
            connection.sent.to_string(),
            connection.rejected(style),
            until(&insight["mTLS"]["certificateExpirationTime"], now),
            or_dash(&connection.version["envoy"]["version"]),
        ]);
    }
    table
}

/// The columns of kumactl.
pub(crate) fn dataplanes_wide(items: &[Value], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "MESH",
        "NAME",
        "TAGS",
        "STATUS",
        "LAST CONNECTED AGO",
        "LAST UPDATED AGO",
        "TOTAL UPDATES",
        "TOTAL ERRORS",
        "CERT REGENERATED AGO",
        "CERT EXPIRATION",
        "CERT REGENERATIONS",
        "CERT BACKEND",
        "SUPPORTED CERT BACKENDS",
        "KUMA-DP VERSION",
        "ENVOY VERSION",
        "DEPENDENCIES VERSIONS",
        "NOTES",
    ]);
    for item in items {
        let insight = &item["dataplaneInsight"];
        let (connection, tls) = (Connection::of(insight), &insight["mTLS"]);
        let supported: Vec<String> =
            tls["supportedBackends"].as_array().into_iter().flatten().map(text).collect();
        table.row(vec![
            text(&item["mesh"]),
            text(&item["name"]),
            labels(item),
            connection.status(Style::PLAIN),
            age(connection.connected, now),
            age(connection.updated, now),
            connection.sent.to_string(),
            connection.rejected.to_string(),
            age(time(&tls["lastCertificateRegeneration"]), now),
            or_dash(&tls["certificateExpirationTime"]),
            count(&tls["certificateRegenerations"]).to_string(),
            or_dash(&tls["issuedBackend"]),
            supported.join(","),
            or_dash(&connection.version["kumaDp"]["version"]),
            or_dash(&connection.version["envoy"]["version"]),
            dependencies(&connection.version["dependencies"]),
            String::new(),
        ]);
    }
    table
}

fn dependencies(versions: &Value) -> String {
    let named = versions.as_object().into_iter().flatten();
    let all: Vec<String> = named.map(|(name, version)| format!("{name}: {}", text(version))).collect();
    if all.is_empty() { "-".into() } else { all.join(", ") }
}

/// Zones with their state; the columns of kumactl.
pub(crate) fn zones(items: &[Value], now: Timestamp, style: Style) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "STATUS",
        "LAST CONNECTED AGO",
        "LAST UPDATED AGO",
        "TOTAL UPDATES",
        "TOTAL ERRORS",
        "ZONE-CP VERSION",
        "BACKEND",
    ]);
    for item in items {
        let connection = Connection::of(&item["zoneInsight"]);
        let is_disabled = item["zone"]["enabled"] == false;
        // The zone sends its configuration as JSON in a text.
        let config: Value = serde_json::from_str(&text(&connection.newest["config"])).unwrap_or_default();
        table.row(vec![
            text(&item["name"]),
            if is_disabled { style.careful("Disabled") } else { connection.status(style) },
            age(connection.connected, now),
            age(connection.updated, now),
            connection.sent.to_string(),
            connection.rejected(style),
            text(&connection.version["kumaCp"]["version"]),
            text(&config["store"]["type"]),
        ]);
    }
    table
}

/// Meshes with the number of their proxies.
pub(crate) fn meshes(items: &[Value]) -> Table {
    let mut table = Table::new(&["MESH", "DATAPLANES"]);
    for item in items {
        let dataplanes = &item["dataplanes"];
        let online = format!("{}/{}", count(&dataplanes["online"]), count(&dataplanes["total"]));
        table.row(vec![text(&item["name"]), online]);
    }
    table
}

/// What Envoy refused, with its reason, from its configuration dump: (resource, reason).
pub(crate) fn refused(dump: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect_refused(dump, &mut found);
    found.sort();
    found.dedup();
    found
}

fn collect_refused(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            if let Some(details) = members.get("error_state").and_then(|state| state["details"].as_str()) {
                let failed = &members["error_state"]["failed_configuration"];
                let names = [&value["name"], &failed["name"], &failed["cluster"]["name"]];
                let name = names.iter().find_map(|name| name.as_str()).unwrap_or("?");
                found.push((name.to_owned(), details.to_owned()));
            }
            members.values().for_each(|member| collect_refused(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_refused(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn mk_now() -> Timestamp {
        "2026-08-10T12:00:00Z".parse().expect("time")
    }

    fn mk_insight() -> Value {
        json!({"subscriptions": [
            {"connectTime": "2026-08-10T10:00:00Z", "disconnectTime": "2026-08-10T11:00:00Z",
             "status": {"total": {"responsesSent": "3", "responsesAcknowledged": "3"}}},
            {"connectTime": "2026-08-10T11:30:00Z", "version": {"envoy": {"version": "1.39.3"}},
             "config": "{\"store\":{\"type\":\"memory\"}}",
             "status": {"lastUpdateTime": "2026-08-10T11:59:00Z", "total": {"responsesSent": 2, "responsesRejected": "1"}}},
        ], "mTLS": {"certificateExpirationTime": "2026-08-11T12:00:00Z"}})
    }

    #[test]
    fn proxies() {
        let item = json!({"mesh": "default", "name": "web-1", "labels": {"kuma.io/zone": "east"}, "dataplaneInsight": mk_insight()});
        let items = [item, json!({"mesh": "default", "name": "new"})];
        expect![[r#"
            MESH      NAME    ORIGIN      STATUS    CONNECTED   UPDATED   SENT   REJECTED   CERT EXPIRES   ENVOY
            default   web-1   zone east   Online    30m         1m        5      1          in 1d          1.39.3
            default   new     -           Offline   never       never     0      0          -              -
        "#]]
        .assert_eq(&dataplanes(&items, mk_now(), Style::PLAIN).render());
        assert!(dataplanes_wide(&items, mk_now()).render().starts_with("MESH      NAME    TAGS"));
    }

    #[test]
    fn zones_and_meshes() {
        let items = [
            json!({"name": "east", "zone": {"enabled": true}, "zoneInsight": mk_insight()}),
            json!({"name": "west", "zone": {"enabled": false}}),
        ];
        expect![[r#"
            NAME   STATUS     LAST CONNECTED AGO   LAST UPDATED AGO   TOTAL UPDATES   TOTAL ERRORS   ZONE-CP VERSION   BACKEND
            east   Online     30m                  1m                 5               1                                memory
            west   Disabled   never                never              0               0
        "#]]
        .assert_eq(&zones(&items, mk_now(), Style::PLAIN).render());
        expect![[r#"
            MESH   DATAPLANES
            m      1/2
        "#]]
        .assert_eq(&meshes(&[json!({"name": "m", "dataplanes": {"total": 2, "online": 1}})]).render());
    }

    #[test]
    fn reasons_of_envoy() {
        let dump = json!({"configs": [{"dynamic_listeners": [
            {"name": "ok"},
            {"name": "bad", "error_state": {"details": "address in use"}},
        ]}]});
        assert_eq!(refused(&dump), [("bad".to_owned(), "address in use".to_owned())]);
    }
}
