//! Forms of output: tables, YAML, JSON, names.

use anyhow::Result;
use clap::ValueEnum;
use graticule_model::Kind;
use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use crate::age::{age, time};
use crate::kinds;
use crate::table::Table;

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// `kind/name`, one per line.
    Name,
}

/// A resource whose metadata comes first, in the order in which people look for it.
struct Ordered<'a>(&'a Value);

const FIRST: [&str; 8] =
    ["type", "mesh", "name", "labels", "kri", "snis", "creationTime", "modificationTime"];

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(members) = self.0 else { return self.0.serialize(serializer) };
        let mut map = serializer.serialize_map(Some(members.len()))?;
        for key in FIRST {
            if let Some(value) = members.get(key) {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in members.iter().filter(|(key, _)| !FIRST.contains(&key.as_str())) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A list as the API shows it.
struct List<'a> {
    items: &'a [Value],
    total: u64,
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("total", &self.total)?;
        map.serialize_entry("items", &self.items.iter().map(Ordered).collect::<Vec<_>>())?;
        map.serialize_entry("next", &Value::Null)?;
        map.end()
    }
}

fn encode<T: Serialize>(value: &T, output: Output) -> Result<String> {
    Ok(match output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
        _ => graticule_model::yaml::to_string(value)?,
    })
}

/// One document as YAML or JSON.
pub(crate) fn document(value: &Value, output: Output) -> Result<String> {
    encode(&Ordered(value), output)
}

/// A list as YAML or JSON.
pub(crate) fn list(items: &[Value], total: u64, output: Output) -> Result<String> {
    encode(&List { items, total }, output)
}

/// One resource in any form.
pub(crate) fn one(kind: Kind, item: &Value, output: Output, now: Timestamp) -> Result<String> {
    match output {
        Output::Yaml | Output::Json => document(item, output),
        _ => many(kind, std::slice::from_ref(item), 1, output, now),
    }
}

/// A list in any form.
pub(crate) fn many(
    kind: Kind,
    items: &[Value],
    total: u64,
    output: Output,
    now: Timestamp,
) -> Result<String> {
    Ok(match output {
        Output::Yaml | Output::Json => list(items, total, output)?,
        Output::Name => items.iter().map(|item| format!("{}\n", name(kind, item))).collect(),
        Output::Table | Output::Wide => table(kind, items, output == Output::Wide, now).render(),
    })
}

/// `meshtimeout/t1`.
pub(crate) fn name(kind: Kind, item: &Value) -> String {
    format!("{}/{}", kinds::singular(kind), text(&item["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The table of a kind.
pub(crate) fn table(kind: Kind, items: &[Value], is_wide: bool, now: Timestamp) -> Table {
    let is_meshed = !kind.descriptor().is_global_scoped();
    let mut head = Vec::new();
    if is_meshed {
        head.push("MESH");
    }
    head.push("NAME");
    if kind == Kind::Dataplane {
        head.extend(["TAGS", "ADDRESS"]);
    }
    head.push("AGE");
    if is_wide {
        head.extend(["ORIGIN", "KRI"]);
    }
    let mut table = Table::new(&head);
    for item in items {
        let mut row = Vec::new();
        if is_meshed {
            row.push(text(&item["mesh"]));
        }
        row.push(text(&item["name"]));
        if kind == Kind::Dataplane {
            row.extend([labels(item), text(&item["networking"]["address"])]);
        }
        row.push(age(time(&item["creationTime"]), now));
        if is_wide {
            row.extend([origin(item), text(&item["kri"])]);
        }
        table.row(row);
    }
    table
}

/// Labels in one line, sorted.
pub(crate) fn labels(item: &Value) -> String {
    let mut labels: Vec<String> = item["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    labels.sort();
    labels.join(" ")
}

/// Where a resource was written.
pub(crate) fn origin(item: &Value) -> String {
    let labels = &item["labels"];
    match (labels["kuma.io/origin"].as_str(), labels["kuma.io/zone"].as_str()) {
        (Some("zone") | None, Some(zone)) => format!("zone {zone}"),
        (Some(origin), _) => origin.to_owned(),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn mk_now() -> Timestamp {
        "2026-08-10T12:00:00Z".parse().expect("time")
    }

    fn mk_timeout() -> Value {
        json!({"type": "MeshTimeout", "mesh": "default", "name": "t1", "creationTime": "2026-08-10T11:00:00Z",
            "modificationTime": "2026-08-10T11:00:00Z", "kri": "kri_mt_default_east__t1_",
            "labels": {"kuma.io/zone": "east", "kuma.io/origin": "zone"}, "spec": {"a": [1]}})
    }

    #[test]
    fn forms() {
        let check = |output: Output, wanted: Expect| {
            wanted
                .assert_eq(&many(Kind::MeshTimeout, &[mk_timeout()], 1, output, mk_now()).expect("renders"));
        };
        check(
            Output::Table,
            expect![[r#"
                MESH      NAME   AGE
                default   t1     1h
            "#]],
        );
        check(
            Output::Wide,
            expect![[r#"
                MESH      NAME   AGE   ORIGIN      KRI
                default   t1     1h    zone east   kri_mt_default_east__t1_
            "#]],
        );
        check(
            Output::Name,
            expect![[r#"
                meshtimeout/t1
            "#]],
        );
        check(
            Output::Yaml,
            expect![[r#"
                total: 1
                items:
                - type: MeshTimeout
                  mesh: default
                  name: t1
                  labels:
                    kuma.io/origin: zone
                    kuma.io/zone: east
                  kri: kri_mt_default_east__t1_
                  creationTime: "2026-08-10T11:00:00Z"
                  modificationTime: "2026-08-10T11:00:00Z"
                  spec:
                    a:
                    - 1
                next: null
            "#]],
        );
    }

    #[test]
    fn dataplanes_show_labels_and_address() {
        let item = json!({"mesh": "m", "name": "d", "labels": {"b": "2", "a": "1"}, "networking": {"address": "10.0.0.1"}});
        expect![[r#"
            MESH   NAME   TAGS      ADDRESS    AGE
            m      d      a=1 b=2   10.0.0.1   never
        "#]]
        .assert_eq(&one(Kind::Dataplane, &item, Output::Table, mk_now()).expect("renders"));
    }

    #[test]
    fn nothing_is_a_head() {
        expect![[r#"
            NAME   AGE
        "#]]
        .assert_eq(&many(Kind::Zone, &[], 0, Output::Table, mk_now()).expect("renders"));
    }
}
