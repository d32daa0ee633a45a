//! Merging of configurations, lowest priority first (policy-engine.md §3.2).

use serde_json::{Map, Value};

/// Merges configurations of a policy kind. One result, except for MeshHTTPRoutes with different hostnames;
/// none for no input.
pub fn merge<'a>(kind: &str, confs: impl IntoIterator<Item = &'a Value>) -> Vec<Value> {
    if kind == "MeshHTTPRoute" {
        return merge_http_routes(confs);
    }
    fold(confs).into_iter().collect()
}

/// Left fold of [`patch`].
fn fold<'a>(confs: impl IntoIterator<Item = &'a Value>) -> Option<Value> {
    let mut confs = confs.into_iter();
    let mut merged = confs.next()?.clone();
    for conf in confs {
        patch(&mut merged, conf);
    }
    Some(merged)
}

/// JSON merge patch (RFC 7396), but lists whose name starts with `append` are concatenated.
fn patch(target: &mut Value, conf: &Value) {
    let Value::Object(members) = conf else {
        *target = conf.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in members {
        match (target.get_mut(name), value) {
            (_, Value::Null) => {
                target.remove(name);
            }
            (Some(Value::Array(list)), Value::Array(more)) if name.starts_with("append") => {
                list.extend_from_slice(more);
            }
            (Some(known), _) => patch(known, value),
            (None, _) => {
                let mut fresh = Value::Null;
                patch(&mut fresh, value);
                target.insert(name.clone(), fresh);
            }
        }
    }
}

/// One result per hostname (none is a group of its own), each with the rules of its configurations.
fn merge_http_routes<'a>(confs: impl IntoIterator<Item = &'a Value>) -> Vec<Value> {
    let mut groups: Vec<(&str, Vec<&Value>)> = Vec::new();
    for conf in confs {
        let rules = conf.get("rules").and_then(Value::as_array);
        let hostnames: Vec<&str> = match conf.get("hostnames").and_then(Value::as_array) {
            Some(names) if !names.is_empty() => names.iter().filter_map(Value::as_str).collect(),
            _ => vec![""],
        };
        for hostname in hostnames {
            let position = groups.iter().position(|(known, _)| *known == hostname).unwrap_or_else(|| {
                groups.push((hostname, Vec::new()));
                groups.len() - 1
            });
            groups[position].1.extend(rules.into_iter().flatten());
        }
    }
    groups
        .into_iter()
        .map(|(hostname, rules)| {
            let mut conf = Map::new();
            if !hostname.is_empty() {
                conf.insert("hostnames".into(), vec![Value::from(hostname)].into());
            }
            conf.insert("rules".into(), merge_rules(&rules).into());
            Value::Object(conf)
        })
        .collect()
}

/// Rules with equal `matches` become one, at the place of the last of them; highest priority first.
fn merge_rules(rules: &[&Value]) -> Vec<Value> {
    let mut merged: Vec<(Option<&Value>, Vec<&Value>)> = Vec::new();
    for rule in rules {
        let matches = rule.get("matches");
        let mut entry = match merged.iter().position(|(known, _)| *known == matches) {
            Some(position) => merged.remove(position),
            None => (matches, Vec::new()),
        };
        entry.1.extend(rule.get("default"));
        merged.push(entry);
    }
    merged
        .into_iter()
        .rev()
        .map(|(matches, defaults)| {
            let mut rule = Map::new();
            rule.extend(matches.map(|matches| ("matches".to_owned(), matches.clone())));
            rule.extend(fold(defaults).map(|default| ("default".to_owned(), default)));
            Value::Object(rule)
        })
        .collect()
}

#[cfg(test)]
mod tests;
