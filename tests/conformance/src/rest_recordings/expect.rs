//! Compares an answer with the recorded one, by the rules of the recordings.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::{Value, json};

use super::client::Answer;
use super::transcript::Step;
use super::values;
use crate::compare::{Bindings, Difference, Found, compare};

/// Kinds that background work touches at any time.
const TOUCHED: [&str; 12] = [
    "MeshService",
    "MeshExternalService",
    "MeshMultiZoneService",
    "MeshIdentity",
    "MeshTrust",
    "Workload",
    "MeshInsight",
    "DataplaneInsight",
    "ZoneInsight",
    "ServiceInsight",
    "Zone",
    "ZoneOverview",
];

/// Counters that depend on how often something was sent.
const COUNTERS: [&str; 3] = ["responsesSent", "responsesAcknowledged", "responsesRejected"];

/// Settings of the recorded runs that are no defaults, or name things of the machine.
const CONFIG_IGNORED: [&str; 2] = ["port", "workDir"];

static LIBRARY_ERROR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^(invalid \w+ object: )"(?s:.)*"$"#).expect("a constant expression"));

static GUI_CONFIG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?s)<script[^>]*id="kuma-config"[^>]*>(.*?)</script>"#).expect("a constant expression")
});

/// All differences. Those of the body do not matter when the status differs.
pub(super) fn differences(
    step: &Step,
    answer: &Answer,
    see: &dyn Fn(&str) -> Result<Value>,
    bindings: &mut Bindings,
) -> Result<Vec<Difference>> {
    let recorded = &step.response;
    let mut found = Vec::new();
    let status = step.status();
    if u64::from(answer.status) != status {
        found.push(other("/status", &status.into(), &answer.status.into()));
        return Ok(found);
    }
    if recorded.get("status") == Some(&json!(0)) {
        // The reference crashed; there is no answer to compare with.
        return Ok(found);
    }
    content_type(recorded, answer, &mut found);
    headers(recorded, answer, &mut found);
    body(step, answer, see, bindings, &mut found)?;
    Ok(found)
}

fn content_type(recorded: &Value, answer: &Answer, found: &mut Vec<Difference>) {
    let Some(recorded) = recorded.get("content_type") else { return };
    let ours = answer.header("content-type");
    let essence = |text: &str| -> String {
        let media_type = text.split(';').next().unwrap_or_default().trim();
        if media_type == "application/json" { media_type.to_owned() } else { text.to_owned() }
    };
    let (recorded, ours) = (recorded.as_str().map(essence), ours.as_deref().map(essence));
    if recorded != ours {
        found.push(other("/content_type", &json!(recorded), &json!(ours)));
    }
}

fn headers(recorded: &Value, answer: &Answer, found: &mut Vec<Difference>) {
    let recorded = recorded.get("headers").and_then(Value::as_object);
    for (name, value) in recorded.into_iter().flatten() {
        let mut wanted = value.as_str().unwrap_or_default().to_owned();
        let mut ours = answer.header(name);
        if name == "Allow" {
            wanted = sorted(&wanted);
            ours = ours.as_deref().map(sorted);
        }
        if ours.as_deref() != Some(&wanted) {
            found.push(other(&format!("/headers/{name}"), &json!(wanted), &json!(ours)));
        }
    }
}

fn sorted(list: &str) -> String {
    let mut words: Vec<&str> = list.split(',').map(str::trim).collect();
    words.sort_unstable();
    words.join(", ")
}

fn body(
    step: &Step,
    answer: &Answer,
    see: &dyn Fn(&str) -> Result<Value>,
    bindings: &mut Bindings,
    found: &mut Vec<Difference>,
) -> Result<()> {
    let recorded = &step.response;
    let is_refused_write = answer.status == 405 && recorded.get("body").is_some_and(Value::is_object);
    let wanted = match (recorded.get("body"), recorded.get("body_see").and_then(Value::as_str)) {
        (_, Some(reference)) => Some(see(reference)?),
        (Some(body), None) => Some(body.clone()),
        (None, None) => None,
    };
    if let Some(mut wanted) = wanted {
        match serde_json::from_str::<Value>(&answer.body) {
            Err(error) => found.push(other("/body", &wanted, &json!(format!("no JSON ({error})")))),
            Ok(mut ours) => {
                if step.path.split('?').next().is_some_and(|path| path.ends_with("/config")) {
                    settings(&mut wanted, &mut ours);
                }
                loosen(&mut wanted, &mut ours);
                crate::two_zones::loosen(&mut wanted);
                crate::two_zones::loosen(&mut ours);
                if is_refused_write {
                    free_wording(&mut wanted, &mut ours);
                }
                found.extend(below("/body", compare(&wanted, &ours, bindings)));
            }
        }
    }
    match recorded.get("body_text").and_then(Value::as_str) {
        // A page is free.
        Some("<html>") => {}
        // The exact bytes of what was compared by value.
        Some(_) if recorded.get("body").is_some() => {}
        Some(text) => found.extend(below("/text", compare(&json!(text), &json!(answer.body), bindings))),
        None => {}
    }
    if let Some(wanted) = recorded.get("jwt") {
        let ours = values::decoded(&answer.body).context("no token")?;
        let wanted = json!({"header": wanted.get("header"), "claims": wanted.get("claims")});
        found.extend(below("/jwt", compare(&wanted, &ours, bindings)));
    }
    if let Some(wanted) = recorded.get("kuma_config") {
        let config = GUI_CONFIG.captures(&answer.body).and_then(|captures| captures.get(1));
        let ours = config.and_then(|text| serde_json::from_str(text.as_str()).ok()).unwrap_or(Value::Null);
        found.extend(below("/kuma_config", compare(wanted, &ours, bindings)));
    }
    Ok(())
}

/// What may differ everywhere.
fn loosen(recorded: &mut Value, ours: &mut Value) {
    if *recorded == "<not recorded>" || *recorded == "<as above>" || *recorded == "<as the first _config>" {
        *ours = recorded.clone();
    }
    match (&mut *recorded, &mut *ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            for counter in COUNTERS {
                recorded.remove(counter);
                ours.remove(counter);
            }
            let kind = recorded.get("type").and_then(Value::as_str);
            if kind.is_some_and(|kind| TOUCHED.contains(&kind))
                && let Some(time) = recorded.get_mut("modificationTime")
            {
                *time = "<time>".into();
            }
            // There is one as soon as the zone has said that it is alive.
            if let Some(time) = ours.get("healthCheck").or(recorded.get("healthCheck")).cloned()
                && recorded.contains_key("subscriptions")
            {
                recorded.insert("healthCheck".into(), time.clone());
                ours.insert("healthCheck".into(), time);
            }
            // Moves with the counters.
            if let Some(time) = recorded.get_mut("lastUpdateTime") {
                *time = "<time>".into();
            }
            // How many there are counts, texts are free (resources.md §8.1).
            for warning in recorded.get_mut("warnings").and_then(Value::as_array_mut).into_iter().flatten() {
                *warning = "<text>".into();
            }
            for (key, value) in recorded {
                if let Some(other) = ours.get_mut(key) {
                    loosen(value, other);
                }
            }
        }
        (Value::Array(recorded), Value::Array(ours)) => {
            recorded.iter_mut().zip(ours).for_each(|(recorded, ours)| loosen(recorded, ours));
        }
        (Value::String(recorded), Value::String(ours)) => {
            let said = |text: &str| LIBRARY_ERROR.captures(text).map(|captures| captures[1].to_owned());
            let is_template = |text: &str| text.contains("template: ");
            if let (Some(a), Some(b)) = (said(recorded), said(ours)) {
                (*recorded, *ours) = (a, b);
            } else if is_template(recorded) {
                *recorded = "<text>".into();
            }
        }
        _ => {}
    }
}

/// Clients look at the status of a refused write, not at its wording (rest-api.md §5.4).
fn free_wording(recorded: &mut Value, ours: &mut Value) {
    for key in ["detail", "details"] {
        if let (Some(recorded), Some(_)) = (recorded.get_mut(key), ours.get(key)) {
            *recorded = "<text>".into();
        }
    }
}

/// Settings that we have must be the recorded ones, but for the ports; those that we do not have do not matter.
fn settings(recorded: &mut Value, ours: &mut Value) {
    let (Value::Object(recorded), Value::Object(ours)) = (recorded, ours) else { return };
    recorded.retain(|key, _| ours.contains_key(key));
    for (key, value) in recorded {
        let is_port = key.to_lowercase().ends_with("port");
        if is_port || CONFIG_IGNORED.contains(&key.as_str()) {
            if let Some(other) = ours.get(key) {
                *value = other.clone();
            }
        } else if let Some(other) = ours.get_mut(key) {
            settings(value, other);
        }
    }
}

fn other(path: &str, recorded: &Value, ours: &Value) -> Difference {
    let found = Found::Other { recorded: recorded.clone(), ours: ours.clone() };
    Difference { path: path.into(), found }
}

fn below(prefix: &str, differences: Vec<Difference>) -> impl Iterator<Item = Difference> {
    differences.into_iter().map(move |difference| Difference {
        path: format!("{prefix}{}", difference.path),
        found: difference.found,
    })
}
