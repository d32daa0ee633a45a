use serde_json::json;

use super::*;

const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const OTHER_CA: &str = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n";

fn differences(recorded: &Value, ours: &Value) -> Vec<String> {
    compare(recorded, ours, &mut Bindings::default()).iter().map(ToString::to_string).collect()
}

#[test]
fn equal_documents_have_no_differences() {
    for (recorded, ours) in [
        (json!({"a": 1, "b": [1, 2]}), json!({"b": [1.0, 2], "a": 1})),
        (json!("<time>"), json!("2026-08-01T10:00:00.123Z")),
        (
            json!({"a": "<uuid-1>", "b": "<uuid-1>"}),
            json!({
                "a": "0f6c1b57-5f5f-4d1e-9c29-7d9c4f4d8e11", "b": "0f6c1b57-5f5f-4d1e-9c29-7d9c4f4d8e11"
            }),
        ),
        (json!("<pem-1>"), json!(CA)),
        (json!("<pem-1>"), json!(STANDARD.encode(CA))),
        (json!("<pem-1>+<pem-2>"), json!(format!("{CA}{OTHER_CA}"))),
    ] {
        assert_eq!(differences(&recorded, &ours), Vec::<String>::new(), "{recorded}");
    }
}

#[test]
fn every_difference_is_found() {
    for (recorded, ours, wanted) in [
        (json!({"a": null}), json!({}), "/a: missing, recorded: null"),
        (json!({}), json!({"a": 1}), "/a: not recorded, ours: 1"),
        (json!([1, 2]), json!([1]), "/1: missing, recorded: 2"),
        (json!([1]), json!([1, 2]), "/1: not recorded, ours: 2"),
        (json!([1, 2]), json!([2, 2]), "/0: recorded 1, ours 2"),
        (json!("a"), json!("b"), r#"/: recorded "a", ours "b""#),
        (json!("<time>"), json!("yesterday"), r#"/: recorded "<time>", ours "yesterday""#),
        (json!("<pem-1>"), json!("text"), r#"/: recorded "<pem-1>", ours "text""#),
        (json!("x <hash>."), json!("x 12."), r#"/: recorded "x <hash>.", ours "x 12.""#),
        (json!(["<pem-1>", "<pem-1>"]), json!([CA, OTHER_CA]), "/1: <pem-1> is another value elsewhere"),
        (
            json!(["<pem-1>", "<pem-2>"]),
            json!([CA, CA]),
            "/1: recorded <pem-2>, but ours is what is recorded as <pem-1> elsewhere",
        ),
        (json!("<pem-1>+<pem-1>"), json!(CA), "/: the recording repeats a certificate, ours has it once"),
        (
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"name": "b"}, {"name": "a"}]),
            r#"/: recorded order ["a", "b"], ours ["b", "a"]"#,
        ),
        (
            json!([{"name": "a"}, {"name": "b", "x": 1}]),
            json!([{"name": "b", "x": 2}, {"name": "a"}, {"name": "c"}])
                .as_array()
                .map(|items| json!([items[1], items[0]]))
                .unwrap_or_default(),
            "/b/x: recorded 1, ours 2",
        ),
    ] {
        assert_eq!(differences(&recorded, &ours), [wanted], "{recorded}");
    }
}
