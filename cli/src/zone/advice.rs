//! One next step for each state of a connection.

use jiff::Timestamp;
use serde_json::Value;

use super::text;
use crate::age;

/// Seconds without progress from which on lag is something wrong: either side makes the connection anew by then.
const LAG_MAX: i64 = 60;
/// Seconds for which it is not worth a word.
const LAG_NOTED: i64 = 5;
/// Characters of a reason that fit into a table.
const REASON_LEN_MAX: usize = 80;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) text: String,
    /// Something is wrong; otherwise it is worth knowing only.
    pub(super) is_wrong: bool,
}

/// The most urgent step; `None`: all is well.
pub(super) fn of(status: &Value, now: Timestamp) -> Option<Advice> {
    let zone = text(&status["zone"]);
    let wrong = |text: String| Some(Advice { text, is_wrong: true });
    let known = |text: String| Some(Advice { text, is_wrong: false });
    let is_zone = status["reporter"] == "zone";
    let protection = &status["protection"];
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let error = text(&status["lastError"]);
    if status["online"] == false {
        return wrong(if error.contains("Unauthenticated") || error.contains("PermissionDenied") {
            format!(
                "global refuses the token: make one (grat generate zone-token --zone {zone}) for multizone.zone.kds.tokenFile"
            )
        } else if error.contains("AlreadyExists") {
            "another control plane has this name at global: rename this one (multizone.zone.name)".into()
        } else if is_zone {
            format!("not connected: {}", shortened(&error))
        } else {
            "not connected: ask the zone why (grat zone status there)".into()
        });
    }
    if protection["state"] == "otherGlobal" || number(&protection["heldBack"]) > 0 {
        return wrong(format!("decide: grat zone accept-deletions {zone}"));
    }
    if number(&protection["heldBackByPeer"]) > 0 {
        let there = if is_zone { "global" } else { "the zone" };
        return wrong(format!("{there} keeps copies that are not here any more: decide there"));
    }
    // The zone itself is well: whoever else has its name is refused.
    if status["conflict"].is_object() {
        let address = text(&status["conflict"]["address"]);
        return wrong(format!(
            "a control plane at {address} has the same name: rename it (multizone.zone.name), or stop the one of the two that \
             should not run. Deleting Zone {zone} would not settle it, and would delete all its copies, also in other zones"
        ));
    }
    if number(&status["quarantineTotal"]) > 0 {
        let first = &status["quarantine"][0];
        let name = [text(&first["kind"]), text(&first["name"])].join(" ");
        return wrong(format!("correct {}: {}", name.trim(), shortened(&text(&first["reason"]))));
    }
    let revision = &status["revision"];
    if !revision.is_object() {
        let instance = &status["instances"][0]["globalInstance"];
        return known(match instance.as_str() {
            Some(instance) => format!("connected to {instance}: ask there how far it is"),
            None => "connected to another replica: ask there how far it is".into(),
        });
    }
    let since = age::time(&revision["behindSince"])?;
    let waits = age::age(Some(since), now);
    match now.as_second().saturating_sub(since.as_second()) {
        // Something is always on its way.
        ..LAG_NOTED => return None,
        LAG_NOTED..LAG_MAX => return known(format!("waits for acknowledgements for {waits}")),
        _ => {}
    }
    wrong(format!("nothing was acknowledged for {waits}: see what is pending (grat zone status {zone})"))
}

fn shortened(reason: &str) -> String {
    let line = reason.replace('\n', " ");
    if line.chars().count() <= REASON_LEN_MAX {
        return line;
    }
    line.chars().take(REASON_LEN_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_step_for_each_state() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
        let clear = || {
            json!({"zone": "east", "reporter": "global", "online": true, "quarantineTotal": 0, "quarantine": [],
                "revision": {"current": 9, "acknowledged": 9, "lag": 0},
                "protection": {"state": "clear", "heldBack": 0, "heldBackByPeer": 0}})
        };
        let with = |change: Value| {
            let mut status = clear();
            for (key, value) in change.as_object().expect("an object") {
                status[key] = value.clone();
            }
            status
        };
        assert_eq!(of(&clear(), now), None);
        let quarantined = json!([{"kind": "MeshTimeout", "name": "t", "reason": format!("spec.to: bad\n{}", "x".repeat(200))}]);
        let long = format!("correct MeshTimeout t: spec.to: bad {}…", "x".repeat(67));
        for (change, want, is_wrong) in [
            (
                json!({"conflict": {"address": "192.0.2.1"}}),
                "a control plane at 192.0.2.1 has the same name: rename it (multizone.zone.name), or stop",
                true,
            ),
            (
                json!({"conflict": {"address": "192.0.2.1"}, "online": false}),
                "not connected: ask the zone why",
                true,
            ),
            (
                json!({"conflict": {"address": "192.0.2.1"},
                    "protection": {"state": "holding", "heldBack": 2, "heldBackByPeer": 0}}),
                "decide: grat zone accept-deletions east",
                true,
            ),
            (
                json!({"conflict": {"address": "192.0.2.1"}, "quarantineTotal": 1, "quarantine": quarantined}),
                "a control plane at 192.0.2.1 has the same name",
                true,
            ),
            (json!({"online": false}), "not connected: ask the zone why", true),
            (
                json!({"online": false, "reporter": "zone", "lastError": "dial: refused"}),
                "not connected: dial: refused",
                true,
            ),
            (
                json!({"online": false, "reporter": "zone", "lastError": "GlobalToZoneSync: Unauthenticated: no token"}),
                "global refuses the token: make one (grat generate zone-token --zone east)",
                true,
            ),
            (
                json!({"online": false, "reporter": "zone", "lastError": "GlobalToZoneSync: AlreadyExists: east-1 has it"}),
                "another control plane has this name",
                true,
            ),
            (
                json!({"protection": {"state": "otherGlobal", "heldBack": 0, "heldBackByPeer": 0}}),
                "decide: grat zone accept-deletions east",
                true,
            ),
            (
                json!({"protection": {"state": "holding", "heldBack": 2, "heldBackByPeer": 0}}),
                "decide: grat zone accept-deletions east",
                true,
            ),
            (
                json!({"protection": {"state": "holding", "heldBack": 0, "heldBackByPeer": 1}}),
                "the zone keeps copies",
                true,
            ),
            (json!({"quarantineTotal": 1, "quarantine": quarantined}), long.as_str(), true),
            (
                json!({"revision": null, "instances": [{"globalInstance": "global-2"}]}),
                "connected to global-2: ask there",
                false,
            ),
            (
                json!({"revision": {"current": 9, "acknowledged": 7, "lag": 2, "behindSince": "2026-01-01T00:09:50Z"}}),
                "waits for acknowledgements for 10s",
                false,
            ),
            (
                json!({"revision": {"current": 9, "acknowledged": 7, "lag": 2, "behindSince": "2026-01-01T00:05:00Z"}}),
                "nothing was acknowledged for 5m",
                true,
            ),
        ] {
            let got = of(&with(change.clone()), now).expect("something to do");
            assert!(got.text.starts_with(want), "{change}: {}", got.text);
            assert_eq!(got.is_wrong, is_wrong, "{change}");
        }
    }
}
