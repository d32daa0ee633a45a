//! Recorded writes: what the reference refuses we refuse with the same words, what it takes we take.
//!
//! Needs the recordings at `$GRATICULE_CONFORMANCE_DIR/recordings/rest`.

use std::path::PathBuf;

use graticule_model::{DecodeError, Kind, Resource, Violations};
use serde_json::Value;

/// Where we differ on purpose: file, path there, path or message here, and why.
const DIFFERENCES: &[(&str, &str, &str, &str)] = &[
    ("meshcircuitbreaker", "spec.from[0].default", "spec.rules[0].default", "there is no `from`"),
    (
        "meshfaultinjection",
        "spec.rules[0].default.http.abort[0].httpStatus",
        "spec.rules[0].default.http[0].abort.httpStatus",
        "the index belongs to `http`",
    ),
    (
        "meshfaultinjection",
        "spec.rules[0].default.http.abort[0].percentage",
        "spec.rules[0].default.http[0].abort.percentage",
        "the index belongs to `http`",
    ),
    (
        "meshfaultinjection",
        "spec.rules[0].default.http.responseBandwidth[1].limit",
        "spec.rules[0].default.http[1].responseBandwidth.limit",
        "the index belongs to `http`",
    ),
    (
        "meshmetric",
        "spec.default.backends.backend[0].prometheus",
        "spec.default.backends[0].prometheus",
        "there is no `backend`",
    ),
    ("meshretry", "spec.to[0].default.conf", "spec.to[0].default", "there is no `conf`"),
    (
        "meshretry",
        "spec.to[0].default.conf.tcp.maxConnectAttempt",
        "spec.to[0].default.tcp.maxConnectAttempt",
        "there is no `conf`",
    ),
    (
        "meshretry",
        "spec.to[0].default.conf.http.retryOn[0]",
        "spec.to[0].default.http.retryOn[0]",
        "there is no `conf`",
    ),
    ("meshretry", "spec.to[0].default.conf.http", "spec.to[0].default.http", "there is no `conf`"),
    ("meshretry", "spec.to[0].default.conf.grpc", "spec.to[0].default.grpc", "there is no `conf`"),
    (
        "meshtrafficpermission",
        "spec.rules[0].allow[0].spiffeID",
        "spec.rules[0].default.allow[0].spiffeID",
        "`allow` is below `default`",
    ),
];

/// Messages of template libraries: only the part before this is compared.
const LIBRARY_TEXTS: [&str; 2] = ["couldn't render template with stub values", "couldn't parse template"];

fn refusal(kind: Kind, body: &Value) -> Option<Violations> {
    match Resource::from_rest(kind, body) {
        Ok(resource) => resource.validate().err(),
        Err(DecodeError::Invalid(violations)) => Some(violations),
        Err(DecodeError::Malformed { .. }) => Some(Violations::default()),
    }
}

fn without_library_text(message: &str) -> &str {
    LIBRARY_TEXTS.into_iter().find(|text| message.starts_with(text)).unwrap_or(message)
}

fn recorded(file: &str, response: &Value) -> Vec<(String, String)> {
    let parameters = response["body"]["invalid_parameters"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = |field: String| {
        DIFFERENCES
            .iter()
            .find(|(kind, theirs, _, _)| file.contains(kind) && *theirs == field)
            .map_or(field, |(_, _, ours, _)| (*ours).to_owned())
    };
    parameters
        .iter()
        .map(|p| (ours(text(&p["field"])), without_library_text(&text(&p["reason"])).to_owned()))
        .collect()
}

#[test]
fn writes() {
    let Some(dir) = std::env::var_os("GRATICULE_CONFORMANCE_DIR") else {
        eprintln!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
        return;
    };
    let dir = PathBuf::from(dir).join("recordings/rest");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&dir).expect("recordings").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let (mut accepted, mut refused, mut malformed) = (0, 0, 0);
    let mut failures = Vec::new();
    for path in files {
        let file = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if !file.starts_with("05-") && !file.starts_with("06-") {
            continue;
        }
        let transcript: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("readable")).expect("JSON");
        for (index, step) in transcript["steps"].as_array().expect("steps").iter().enumerate() {
            let (request, response) = (&step["request"], &step["response"]);
            if request["method"] != "PUT" {
                continue;
            }
            let segments: Vec<&str> = request["path"].as_str().unwrap_or_default().split('/').collect();
            let kind =
                segments.iter().rev().nth(1).and_then(|segment| Kind::from_path(segment)).expect("a kind");
            // Placeholders of certificates stand for PEM texts.
            let pem = "-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n";
            let text = request["body"].to_string().replace("<pem-1>", pem).replace("<pem-2>", pem);
            let body: Value = serde_json::from_str(&text).expect("JSON");
            let actual = refusal(kind, &body).map(|violations| {
                let pairs = violations.0.into_iter();
                pairs.map(|v| (v.path, without_library_text(&v.message).to_owned())).collect::<Vec<_>>()
            });
            let wanted = match response["status"].as_u64() {
                Some(200 | 201) => {
                    accepted += 1;
                    None
                }
                _ if response["body"]["invalid_parameters"].is_array() => {
                    refused += 1;
                    Some(recorded(&file, response))
                }
                _ => {
                    malformed += 1;
                    Some(Vec::new())
                }
            };
            if actual != wanted {
                failures
                    .push(format!("{file} step {index} {body}\n  wanted {wanted:?}\n  actual {actual:?}"));
            }
        }
    }
    eprintln!("{accepted} accepted, {refused} refused with violations, {malformed} malformed");
    assert!(accepted > 100 && refused > 100, "the recordings are not complete");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}
