//! The generated files that are checked in: fresh, and what Kubernetes admits.

use std::path::Path;

use graticule_model::Kind;
use graticule_model::schema::{crd, published};
use serde_json::Value;

#[test]
fn files_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = published::files();
    for file in &files {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(root.join(&file.path), &file.text).expect("writable");
        }
        let stored = std::fs::read_to_string(root.join(&file.path)).unwrap_or_default();
        assert!(stored == file.text, "{} is not what `cargo xtask codegen` makes", file.path);
    }
    for folder in [published::SCHEMAS, published::DEFINITIONS] {
        for entry in std::fs::read_dir(root.join(folder)).expect("the folder is there") {
            let path = format!("{folder}/{}", entry.expect("readable").file_name().display());
            assert!(files.iter().any(|file| file.path == path), "nothing makes {path}");
        }
    }
}

/// The rules of structural schemas: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/>.
fn check_structural(path: &str, node: &Value) {
    let node = node.as_object().unwrap_or_else(|| panic!("{path} is no schema"));
    let flag = |key: &str| node.get(key) == Some(&Value::Bool(true));
    let is_free = flag("x-kubernetes-int-or-string") || flag("x-kubernetes-preserve-unknown-fields");
    assert!(node.contains_key("type") || is_free, "{path} has no type");
    assert!(!(node.contains_key("properties") && node.contains_key("additionalProperties")), "{path}");
    assert!(!node.contains_key("enum") || node["type"] == "string", "{path}");
    for key in node.keys() {
        let allowed = [
            "type",
            "description",
            "properties",
            "additionalProperties",
            "items",
            "required",
            "enum",
            "default",
            "format",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "pattern",
            "anyOf",
            "x-kubernetes-int-or-string",
            "x-kubernetes-preserve-unknown-fields",
        ];
        assert!(allowed.contains(&key.as_str()), "{path} has {key}");
    }
    if node.contains_key("anyOf") {
        assert!(flag("x-kubernetes-int-or-string"), "{path} has anyOf");
    }
    for (key, member) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check_structural(&format!("{path}.{key}"), member);
    }
    for key in ["additionalProperties", "items"] {
        if let Some(inner) = node.get(key) {
            check_structural(&format!("{path}.{key}"), inner);
        }
    }
    assert!(node.get("type") != Some(&"array".into()) || node.contains_key("items"), "{path} has no items");
    for name in node.get("required").and_then(Value::as_array).into_iter().flatten() {
        assert!(
            node["properties"].get(name.as_str().unwrap_or_default()).is_some(),
            "{path} requires {name}"
        );
    }
}

#[test]
fn definitions_are_structural() {
    let mut count = 0;
    for kind in Kind::all() {
        let Some(definition) = crd::definition(kind) else { continue };
        count += 1;
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["type"], "object", "{kind}");
        check_structural(kind.name(), schema);
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c == b'.'), "{name}");
    }
    assert_eq!(count, Kind::all().count() - 3, "Secret, GlobalSecret and Config are core kinds");
}

/// Names, scopes and short names are those that Kuma's own definitions have (data of the conformance set).
#[test]
fn definitions_have_the_names_of_kuma() {
    let Ok(dir) = std::env::var("GRATICULE_CONFORMANCE_DIR") else {
        eprintln!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
        return;
    };
    let dir = Path::new(&dir).join("../reference/crds");
    let mut compared = 0;
    for kind in Kind::all() {
        let Some(ours) = crd::definition(kind) else { continue };
        let plural = ours["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let Ok(text) = std::fs::read_to_string(dir.join(format!("{}_{plural}.yaml", crd::GROUP))) else {
            panic!("Kuma has no definition {plural}");
        };
        let theirs =
            graticule_model::yaml::parse_one(&text).unwrap_or_else(|error| panic!("{plural}: {error}"));
        assert_eq!(ours["metadata"]["name"], theirs["metadata"]["name"]);
        for member in ["group", "names", "scope"] {
            assert_eq!(ours["spec"][member], theirs["spec"][member], "{member} of {kind}");
        }
        let version = |definition: &Value, member: &str| {
            definition["spec"]["versions"][0].get(member).cloned().unwrap_or_default()
        };
        for member in ["name", "served", "storage"] {
            assert_eq!(version(&ours, member), version(&theirs, member), "{member} of {kind}");
        }
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}
