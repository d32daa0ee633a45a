use expect_test::{Expect, expect};
use graticule_model::yaml;
use serde_json::Value;

use super::*;

fn check(kind: &str, confs: &str, expected: Expect) {
    let confs = yaml::parse_all(confs).expect("YAML");
    let merged: Vec<String> = merge(kind, &confs).iter().map(Value::to_string).collect();
    expected.assert_eq(&merged.join("\n"));
}

#[test]
fn presence_decides() {
    check("X", "", expect![""]);
    check(
        "X",
        "{a: 1, b: {c: x, d: [1, 2]}}\n---\n{b: {d: [3]}}",
        expect![[r#"{"a":1,"b":{"c":"x","d":[3]}}"#]],
    );
    check(
        "X",
        "{a: 1, b: {c: 1}}\n---\n{a: 0, b: {}}\n---\n{e: ''}",
        expect![[r#"{"a":0,"b":{"c":1},"e":""}"#]],
    );
    check("X", "{l: [1]}\n---\n{l: []}", expect![[r#"{"l":[]}"#]]);
    check("X", "{a: {b: 1}}\n---\n{a: 5}\n---\n{a: {c: 2}}", expect![[r#"{"a":{"c":2}}"#]]);
}

#[test]
fn append_lists_are_concatenated() {
    check(
        "X",
        "{s: {appendProfiles: [a, b], other: [1]}}\n---\n{s: {other: [2]}}\n---\n{s: {appendProfiles: [b]}}\n---\n{s: {appendProfiles: []}}",
        expect![[r#"{"s":{"appendProfiles":["a","b","b"],"other":[2]}}"#]],
    );
    check("X", "{a: 1}\n---\n{appendMatch: [v]}", expect![[r#"{"a":1,"appendMatch":["v"]}"#]]);
    check(
        "X",
        "{l: [{appendMatch: [v]}]}\n---\n{l: [{appendMatch: [w]}]}",
        expect![[r#"{"l":[{"appendMatch":["w"]}]}"#]],
    );
}

/// The example of policy-engine.md §5.2: each configuration arrives with its rules reversed.
#[test]
fn http_rules_merge_by_matches() {
    check(
        "MeshHTTPRoute",
        "
rules:
- {matches: [M3], default: {backendRefs: [b3]}}
- {matches: [M2], default: {filters: [f], backendRefs: [b0]}}
---
rules:
- {matches: [M2], default: {backendRefs: [b2]}}
- {matches: [M1], default: {backendRefs: [b1]}}
",
        expect![[
            r#"{"rules":[{"default":{"backendRefs":["b1"]},"matches":["M1"]},{"default":{"backendRefs":["b2"],"filters":["f"]},"matches":["M2"]},{"default":{"backendRefs":["b3"]},"matches":["M3"]}]}"#
        ]],
    );
    // The order inside of a list of matches counts.
    check(
        "MeshHTTPRoute",
        "rules: [{matches: [A, B], default: {x: 1}}, {matches: [B, A], default: {x: 2}}]",
        expect![[
            r#"{"rules":[{"default":{"x":2},"matches":["B","A"]},{"default":{"x":1},"matches":["A","B"]}]}"#
        ]],
    );
}

#[test]
fn http_rules_are_grouped_by_hostname() {
    check(
        "MeshHTTPRoute",
        "
{hostnames: [b, a], rules: [{matches: [M], default: {x: 1}}]}
---
{rules: [{matches: [K], default: {}}]}
---
{hostnames: [a], rules: [{matches: [M], default: {y: 2}}]}
",
        expect![[r#"
            {"hostnames":["b"],"rules":[{"default":{"x":1},"matches":["M"]}]}
            {"hostnames":["a"],"rules":[{"default":{"x":1,"y":2},"matches":["M"]}]}
            {"rules":[{"default":{},"matches":["K"]}]}"#]],
    );
}
