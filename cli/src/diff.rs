//! What a write would change, readable.

use std::fmt::Write as _;

use graticule_model::{Kind, Resource, labels};
use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};

use crate::output::{self, Output};
use crate::screen::Style;

/// Lines around a change.
const CONTEXT: usize = 3;

/// What a write would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Create,
    Update,
    Nothing,
}

/// Labels that control planes compute.
const COMPUTED: [&str; 5] = [labels::DISPLAY_NAME, labels::MESH, labels::ORIGIN, labels::ZONE, labels::ENV];

/// What people decide about a resource: without times, identifiers, status, and without computed labels unless
/// `claimed` names them; values that are defaults are written out, so that writing them or not is the same.
fn decided(kind: Kind, document: &Value, claimed: &Value) -> Value {
    let mut members = match Resource::from_stored(kind, document) {
        Ok(resource) => match resource.to_rest() {
            Value::Object(members) => members,
            _ => Map::new(),
        },
        // Written by another version: compared as it is.
        Err(_) => document.as_object().cloned().unwrap_or_default(),
    };
    for key in ["creationTime", "modificationTime", "kri", "snis", "status"] {
        members.remove(key);
    }
    if let Some(Value::Object(labels)) = members.get_mut("labels") {
        labels.retain(|key, _| !COMPUTED.contains(&key.as_str()) || claimed["labels"].get(key).is_some());
        if labels.is_empty() {
            members.remove("labels");
        }
    }
    Value::Object(members)
}

/// What writing `wanted` over `stored` would do.
pub(crate) fn effect(kind: Kind, stored: Option<&Value>, wanted: &Value) -> Effect {
    match stored {
        None => Effect::Create,
        Some(stored) if decided(kind, stored, wanted) == decided(kind, wanted, wanted) => Effect::Nothing,
        Some(_) => Effect::Update,
    }
}

/// The change from `stored` to `wanted` as lines that begin with `+`, `-` or a blank.
pub(crate) fn render(kind: Kind, stored: Option<&Value>, wanted: &Value, style: Style) -> String {
    let text = |document: &Value| {
        output::document(&decided(kind, document, wanted), Output::Yaml)
            .unwrap_or_else(|error| error.to_string())
    };
    let before = stored.map(text).unwrap_or_default();
    lines(&before, &text(wanted), style)
}

/// Changes between two texts with some lines around them.
pub(crate) fn lines(before: &str, after: &str, style: Style) -> String {
    let diff = TextDiff::from_lines(before, after);
    let mut out = String::new();
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            let _written = writeln!(out, "  {}", style.place("…"));
        }
        for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
            let line = change.value().trim_end_matches('\n');
            let _written = match change.tag() {
                ChangeTag::Equal => writeln!(out, "    {line}"),
                ChangeTag::Delete => writeln!(out, "{}", style.bad(&format!("  - {line}"))),
                ChangeTag::Insert => writeln!(out, "{}", style.good(&format!("  + {line}"))),
            };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn mk_timeout(idle: &str) -> Value {
        json!({"type": "MeshTimeout", "mesh": "default", "name": "t",
            "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": idle, "connectionTimeout": "2s"}}]}})
    }

    fn mk_stored() -> Value {
        let mut stored = mk_timeout("20s");
        stored["creationTime"] = "2026-08-01T00:00:00Z".into();
        stored["kri"] = "kri_mt_default___t_".into();
        stored["labels"] = json!({"kuma.io/mesh": "default", "kuma.io/display-name": "t", "team": "a"});
        stored
    }

    #[test]
    fn effects() {
        let mut same = mk_timeout("20s");
        same["labels"] = json!({"team": "a"});
        assert_eq!(effect(Kind::MeshTimeout, Some(&mk_stored()), &same), Effect::Nothing);
        assert_eq!(
            effect(Kind::MeshTimeout, Some(&mk_stored()), &mk_timeout("20s")),
            Effect::Update,
            "label gone"
        );
        assert_eq!(effect(Kind::MeshTimeout, None, &same), Effect::Create);
        let mk_service = |port: Value| {
            json!({"type": "MeshService", "mesh": "default", "name": "s",
                "spec": {"selector": {"dataplaneLabels": {"matchLabels": {"a": "b"}}}, "ports": [port]}})
        };
        let (short, long) = (json!({"port": 80}), json!({"port": 80, "appProtocol": "tcp"}));
        let effect_of_default = effect(Kind::MeshService, Some(&mk_service(long)), &mk_service(short));
        assert_eq!(effect_of_default, Effect::Nothing, "tcp is the default");
    }

    /// Every line is indented, which the comparison would take for its own.
    fn shown(diff: &str) -> String {
        format!("diff:\n{diff}")
    }

    #[test]
    fn changes_are_shown_in_their_place() {
        expect![[r#"
            diff:
                type: MeshTimeout
                mesh: default
                name: t
              - labels:
              -   team: a
                spec:
                  to:
                  - default:
                      connectionTimeout: 2s
              -       idleTimeout: 20s
              +       idleTimeout: 30s
                    targetRef:
                      kind: Mesh
        "#]]
        .assert_eq(&shown(&render(Kind::MeshTimeout, Some(&mk_stored()), &mk_timeout("30s"), Style::PLAIN)));
    }

    #[test]
    fn far_changes_are_separated() {
        let before: String = (0..20).map(|n| format!("{n}\n")).collect();
        let after = before.replace("2\n3\n", "2\nx\n").replace("17\n", "y\n");
        expect![[r#"
            diff:
                0
                1
                2
              - 3
              + x
                4
                5
                6
              …
                14
                15
                16
              - 17
              + y
                18
                19
        "#]]
        .assert_eq(&shown(&lines(&before, &after, Style::PLAIN)));
    }
}
