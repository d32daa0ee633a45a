//! Runs the suites `policy-matching`, `outbound-rules`, `inbound-rules` and `proxy-conf` of the public
//! conformance data at `$GRATICULE_CONFORMANCE_DIR` (format: README there, §2, §4, §5).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graticule_model::{Kind, Resource, yaml};
use graticule_policy::effective::proxy_conf;
use graticule_policy::outbound::{World, entries};
use graticule_policy::{
    Destinations, InboundRules, MatchOptions, Origin, Policy, PolicySet, ResourceRule, ResourceRules,
    effective,
};
use serde_json::{Value, json};

#[derive(Debug, PartialEq)]
enum Outcome {
    Passed,
    Failed(String),
    NotModelled(String),
}

#[test]
fn public_data() {
    let Some(root) = std::env::var_os("GRATICULE_CONFORMANCE_DIR").map(PathBuf::from) else {
        skip();
        return;
    };
    let mut report = String::new();
    let mut failures = 0;
    for suite in ["policy-matching", "outbound-rules", "inbound-rules", "proxy-conf"] {
        let mut cases = Vec::new();
        find_cases(&root.join(suite), &mut cases);
        assert!(!cases.is_empty(), "no cases of {suite} at {}", root.display());
        let (mut passed, mut failed, mut kinds) = (0, 0, BTreeMap::<String, usize>::new());
        for case in cases {
            match run(&case) {
                Outcome::Passed => passed += 1,
                Outcome::Failed(reason) => {
                    failed += 1;
                    let _ = writeln!(report, "FAILED {}: {reason}", case.display());
                }
                Outcome::NotModelled(kind) => *kinds.entry(kind).or_default() += 1,
            }
        }
        failures += failed;
        let not_modelled: usize = kinds.values().sum();
        let kinds: Vec<&String> = kinds.keys().collect();
        let _ = writeln!(
            report,
            "{suite}: {passed} passed, {failed} failed, {not_modelled} of kinds not modelled yet {kinds:?}"
        );
    }
    show(&report);
    assert_eq!(failures, 0, "{report}");
}

#[expect(clippy::print_stderr, reason = "says why nothing was checked")]
fn skip() {
    eprintln!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
}

#[expect(clippy::print_stderr, reason = "the counts are the result")]
fn show(report: &str) {
    eprintln!("{report}");
}

fn find_cases(dir: &Path, cases: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            find_cases(&path, cases);
        } else if path.ends_with("case.yaml") {
            cases.push(dir.to_owned());
        }
    }
}

/// The documents of one case.
struct Case {
    dir: PathBuf,
    members: Value,
}

impl Case {
    fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member).and_then(Value::as_str)
    }

    fn documents(&self, member: &str) -> Vec<Value> {
        let Some(file) = self.text(member) else { return Vec::new() };
        let text = std::fs::read_to_string(self.dir.join(file)).expect("a file of the case");
        yaml::parse_all(&text).expect("YAML")
    }

    /// Resources as they are stored; `Err` is a kind that the model does not have.
    fn resources(&self, member: &str) -> Result<Vec<Arc<Resource>>, Outcome> {
        self.documents(member)
            .iter()
            .map(|document| {
                let kind = document["type"].as_str().unwrap_or_default();
                let kind = Kind::from_name(kind).map_err(|_| Outcome::NotModelled(kind.into()))?;
                Resource::from_stored(kind, document)
                    .map(Arc::new)
                    .map_err(|error| Outcome::Failed(format!("cannot be read: {error}")))
            })
            .collect()
    }
}

fn run(dir: &Path) -> Outcome {
    let text = std::fs::read_to_string(dir.join("case.yaml")).expect("a case file");
    let case = Case { dir: dir.to_owned(), members: yaml::parse_one(&text).expect("YAML") };
    let expected = case.documents("expected").remove(0);
    match actual(&case) {
        Ok(actual) if same(&actual, &expected) => Outcome::Passed,
        Ok(actual) => Outcome::Failed(format!("\nexpected {expected:#}\nactual {actual:#}")),
        Err(outcome) => outcome,
    }
}

fn actual(case: &Case) -> Result<Value, Outcome> {
    let kind = case.text("policyType").unwrap_or_default();
    let kind = Kind::from_name(kind).map_err(|_| Outcome::NotModelled(kind.into()))?;
    let check = case.text("check").unwrap_or_default();
    if case.text("dataplane").is_some() {
        return on_dataplane(case, kind, check);
    }
    let resources = case.resources("resources")?;
    let matched: Vec<(&str, &str)> = case.members["matched"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| Some((key["mesh"].as_str()?, key["name"].as_str()?)))
        .collect();
    let takes_part = |resource: &Arc<Resource>| {
        let key = (resource.meta.mesh.as_str(), resource.meta.name.as_str());
        resource.kind() == kind && (matched.is_empty() || matched.contains(&key))
    };
    let all = PolicySet::new(resources.clone());
    let sorted = PolicySet::new(resources.iter().filter(|resource| takes_part(resource)).cloned());
    let failed = |error: String| Outcome::Failed(error);
    match check {
        "outbound-rules" => {
            let destinations = Destinations::new(resources.clone());
            let mesh = resources.iter().find(|resource| resource.kind() == Kind::Mesh);
            let world = World { policies: &all, destinations: &destinations, mesh };
            Ok(outbound(&ResourceRules::build(kind, sorted.of(kind), world).map_err(failed)?))
        }
        "sorted-to-entries" => {
            let entries = entries(sorted.of(kind), &all).map_err(failed)?;
            let entries: Vec<Value> = entries
                .iter()
                .map(|entry| {
                    json!({"policy": entry.origin, "topLevel": entry.origin.policy.body.target(),
                        "targetRef": entry.target_ref, "default": entry.conf})
                })
                .collect();
            Ok(json!({"entries": entries}))
        }
        "inbound-rules" => {
            let rules = InboundRules::build(kind, sorted.of(kind)).map_err(failed)?;
            Ok(json!({"rules": rules.rules}))
        }
        "proxy-conf" => {
            let in_file_order: Vec<Arc<Policy>> =
                resources.iter().cloned().filter_map(Policy::new).map(Arc::new).collect();
            let conf = proxy_conf(kind.name(), &in_file_order)
                .ok_or_else(|| Outcome::Failed("no configuration".into()))?;
            Ok(json!({"conf": conf.conf, "origins": conf.origins}))
        }
        other => Err(Outcome::Failed(format!("unknown check {other}"))),
    }
}

fn on_dataplane(case: &Case, kind: Kind, check: &str) -> Result<Value, Outcome> {
    let policies = PolicySet::new(case.resources("policies")?);
    let destinations = Destinations::new(case.resources("destinations")?);
    let dataplane = case.resources("dataplane")?.remove(0);
    let effective = effective(&policies, &destinations, None, &dataplane, MatchOptions::default());
    let Some(result) = effective.of(kind) else {
        return Err(Outcome::Failed("no policies of the kind".into()));
    };
    Ok(match check {
        "matched" => json!({"matched": result.matched}),
        "outbound-rules" => outbound(&result.outbound),
        "inbound-rules" => {
            let listeners: BTreeMap<String, Value> = result
                .inbound
                .iter()
                .filter(|(_, rules)| !rules.rules.is_empty())
                .map(|((address, port), rules)| (format!("{address}:{port}"), json!(rules.rules)))
                .collect();
            json!({"listeners": listeners})
        }
        other => return Err(Outcome::Failed(format!("unknown check {other}"))),
    })
}

/// The list is sorted by the text of the key.
fn outbound(rules: &ResourceRules) -> Value {
    let sorted: BTreeMap<String, &ResourceRule> =
        rules.rules.iter().map(|(key, rule)| (key.to_string(), rule)).collect();
    let rules: Vec<Value> = sorted
        .into_iter()
        .map(|(key, rule)| {
            let mut value = json!({"key": key, "resource": rule.resource, "sectionName": rule.section,
                "conf": rule.conf, "origins": rule.origins});
            let by_matches: BTreeMap<&String, &Origin> = rule.origin_by_matches.iter().collect();
            if !by_matches.is_empty() {
                value["originByMatches"] = json!(by_matches);
            }
            value
        })
        .collect();
    json!({"rules": rules})
}

/// Trees are equal; absent labels are empty labels.
fn same(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let is_absent = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
            a.iter().all(|(key, value)| match b.get(key) {
                Some(other) => same(value, other),
                None => key == "labels" && is_absent(value),
            }) && b.iter().all(|(key, value)| a.contains_key(key) || (key == "labels" && is_absent(value)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}
