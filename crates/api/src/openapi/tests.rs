use std::collections::BTreeSet;

use super::*;

/// Names of the variants of an enum in the source of the router.
fn variants(name: &str) -> BTreeSet<String> {
    let source = include_str!("../route.rs");
    let (_, body) = source.split_once(&format!("enum {name} {{\n")).expect("the enum is there");
    let (body, _) = body.split_once("\n}").expect("it ends");
    let names = body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    let names = names.filter_map(|line| {
        let name = line.trim().split(|c: char| !c.is_alphanumeric()).next()?;
        name.starts_with(|c: char| c.is_uppercase()).then(|| name.to_owned())
    });
    names.collect()
}

/// Every route is documented, every documented path is a route, with the methods that the router allows.
#[test]
fn paths_are_routes() {
    let mut seen = BTreeSet::new();
    for path in paths() {
        let target = target(&path).unwrap_or_else(|| panic!("{path} is no route"));
        let mut methods: Vec<String> = target.allow().split(", ").map(str::to_owned).collect();
        let operations = operations::describe(&target, &path);
        let mut described: Vec<String> = operations.iter().map(|o| o.method.to_string()).collect();
        methods.sort();
        described.sort();
        assert_eq!(described, methods, "{path}");
        let text = format!("{target:?}");
        seen.extend(text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned));
    }
    for name in ["Target", "ProxyView", "PolicyDataplanes", "Tokens", "ClusterPart", "Form"] {
        let wanted = variants(name);
        assert!(!wanted.is_empty(), "{name}");
        let missing: Vec<&String> = wanted.difference(&seen).collect();
        assert!(missing.is_empty(), "no documented path leads to {name}::{missing:?}");
    }
}

#[test]
fn document_is_consistent() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in
            item.as_object().expect("an item").iter().filter(|(key, _)| *key != "parameters")
        {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(!id.is_empty() && ids.insert(id.to_owned()), "{method} {path}: {id}");
            let summary = operation["summary"].as_str().expect("a summary");
            assert!(summary.ends_with('.'), "{method} {path}: {summary}");
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 500);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(reference) if key == "$ref" => out.push(reference),
                    member => collect_references(member, out),
                }
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| collect_references(entry, out)),
        _ => {}
    }
}

#[test]
fn file_is_fresh() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(FILE);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, file().text).expect("writable");
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == file().text, "{FILE} is not what `cargo xtask codegen` makes");
}
