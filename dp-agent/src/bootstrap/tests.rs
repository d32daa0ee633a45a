use std::collections::BTreeSet;
use std::ffi::OsString;

use serde_json::{Value, json};

use super::*;
use crate::cli::{LogLevel, RunArgs};
use crate::config::Env;

/// Members that the agent leaves out on purpose: it serves no OpenTelemetry pipe.
const LEFT_OUT: [&str; 1] = ["otelEnv"];

fn mk_config(vars: &[(&str, &str)]) -> Config {
    let args = RunArgs { dataplane: Some("x".into()), ..RunArgs::default() };
    let env = Env::new(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    Config::resolve(&args, LogLevel::Info, &env).expect("resolves")
}

fn mk_request(config: &Config, resource: Option<&str>, token: Option<&Token>) -> Value {
    let proxy = Proxy { mesh: "default".into(), name: "web-1".into(), resource: resource.map(str::to_owned) };
    let inputs = Inputs { config, proxy: &proxy, token, ca_pem: "", workdir: Path::new("/run/web-1") };
    let envoy = envoy::Version { version: "1.39.3".into(), build: "a/1.39.3/Clean/RELEASE/BoringSSL".into() };
    serde_json::to_value(request_body(&inputs, &envoy)).expect("serializes")
}

#[test]
fn request() {
    let config = mk_config(&[
        ("KUMA_READINESS_PORT", "19901"),
        ("HOST_IP", "10.0.0.9"),
        ("KUMA_DATAPLANE_RESOURCES_MAX_MEMORY_BYTES", "1024"),
        ("KUMA_DATAPLANE_RUNTIME_DYNAMIC_SYSTEM_CA_PATH", "/etc/ca.pem"),
        ("KUMA_DATAPLANE_RUNTIME_IPV6_ENABLED", "false"),
    ]);
    let token = Token { text: "a.b.c".into(), path: "/etc/token".into() };
    let expected = json!({
        "mesh": "default",
        "name": "web-1",
        "proxyType": "dataplane",
        "dataplaneToken": "a.b.c",
        "dataplaneTokenPath": "/etc/token",
        "dataplaneResource": "{}",
        "version": {
            "kumaDp": {
                "version": version::WIRE,
                "gitTag": format!("v{}", version::AGENT),
                "gitCommit": "unknown",
                "buildDate": "unknown",
            },
            "envoy": {
                "version": "1.39.3",
                "build": "a/1.39.3/Clean/RELEASE/BoringSSL",
                "kumaDpCompatible": true,
            },
        },
        "caCert": "",
        "dynamicMetadata": {"HOST_IP": "10.0.0.9"},
        "dnsPort": 15053,
        "readinessPort": 19901,
        "operatingSystem": std::env::consts::OS,
        "features": [
            "feature-tcp-accesslog-via-named-pipe",
            "feature-strict-inbound-ports",
            "feature-reuse-port",
        ],
        "resources": {"maxHeapSizeBytes": 1024},
        "workdir": "/run/web-1",
        "metricsResources": {"certPath": "", "keyPath": ""},
        "systemCaPath": "/etc/ca.pem",
        "ipv6Enabled": false,
        "spireResources": {"socketPath": ""},
    });
    assert_eq!(mk_request(&config, Some("{}"), Some(&token)), expected);
}

#[test]
fn absent_parts_are_left_out() {
    let request = mk_request(&mk_config(&[]), None, None);
    for key in ["dataplaneToken", "dataplaneTokenPath", "dataplaneResource"] {
        assert!(request.get(key).is_none(), "{key}");
    }
}

/// Same members with the same types as every recorded request of the reference.
#[test]
fn shape_of_recorded_requests() {
    let Some(dir) = std::env::var_os("GRATICULE_CONFORMANCE_DIR") else {
        eprintln!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
        return;
    };
    let token = Token { text: "a.b.c".into(), path: "/etc/token".into() };
    let ours = mk_request(&mk_config(&[]), Some("{}"), Some(&token));
    let proxies = Path::new(&dir).join("recordings/dataplane/two-zones/proxies");
    let mut compared = 0;
    for entry in std::fs::read_dir(proxies).expect("recordings exist") {
        let path = entry.expect("entry").path().join("bootstrap-request.json");
        let recorded: Value = serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("is JSON");
        let mut recorded = recorded["body"].clone();
        for key in LEFT_OUT {
            recorded.as_object_mut().expect("object").remove(key);
        }
        assert_eq!(shape("", &ours), shape("", &recorded), "{}", path.display());
        compared += 1;
    }
    assert!(compared > 0);
}

fn shape(path: &str, value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, value)| shape(&format!("{path}.{key}"), value))
            .chain([format!("{path}: object")])
            .collect(),
        Value::Array(items) => items
            .iter()
            .flat_map(|value| shape(&format!("{path}[]"), value))
            .chain([format!("{path}: array")])
            .collect(),
        Value::String(_) => BTreeSet::from([format!("{path}: string")]),
        Value::Number(_) => BTreeSet::from([format!("{path}: number")]),
        Value::Bool(_) => BTreeSet::from([format!("{path}: bool")]),
        Value::Null => BTreeSet::from([format!("{path}: null")]),
    }
}

#[test]
fn features_follow_settings() {
    for (vars, present, absent) in [
        (vec![("KUMA_DATAPLANE_RUNTIME_REUSE_PORT_ENABLED", "false")], vec![], vec!["feature-reuse-port"]),
        (
            vec![("KUMA_DATAPLANE_RUNTIME_STRICT_INBOUND_PORTS_ENABLED", "0")],
            vec!["feature-reuse-port"],
            vec!["feature-strict-inbound-ports"],
        ),
        (
            vec![
                ("KUMA_DATAPLANE_RUNTIME_SPIRE_SUPPORTED", "true"),
                ("KUMA_DATAPLANE_RUNTIME_BIND_OUTBOUNDS", "true"),
            ],
            vec!["feature-spire", "feature-bind-outbounds"],
            vec!["feature-otel-via-kuma-dp", "feature-transparent-proxy-in-dataplane-metadata"],
        ),
    ] {
        let features = features(&mk_config(&vars).forwarded);
        assert!(present.iter().all(|feature| features.contains(feature)), "{features:?}");
        assert!(!absent.iter().any(|feature| features.contains(feature)), "{features:?}");
    }
}

#[test]
fn which_answers_are_retried() {
    for (status, body, expected) in [
        (200, "{}", "accepted"),
        (404, "", "retry: does not have this Dataplane"),
        (404, "404: Page Not Found", "retry: 5678"),
        (404, "404: Page Not Found\n", "retry: 5678"),
        (404, "404 page not found\n", "refused: 404 page not found"),
        (422, "mesh: mesh \"x\" does not exist", "refused: mesh: mesh \"x\" does not exist"),
        (400, "", "refused: 400"),
        (500, "", "retry: 500"),
        (503, "busy", "retry: 503"),
        (302, "", "retry: 302"),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        let (got, part) = match (classify(status, body.as_bytes()), expected.split_once(": ")) {
            (Verdict::Accepted, None) => continue,
            (Verdict::Retry(error), Some(("retry", part))) => (error.to_string(), part),
            (Verdict::Refused(reason), Some(("refused", part))) => (reason, part),
            (got, _) => panic!("{status} {body}: {got:?}"),
        };
        assert!(got.contains(part), "{status} {body}: {got}");
    }
}

#[test]
fn answers() {
    let mk_answer = |bootstrap: &str| {
        json!({
            "bootstrap": STANDARD.encode(bootstrap),
            "kumaSidecarConfiguration": {"networking": {"address": "10.0.0.1"}, "metrics": {"aggregate": null}},
        })
        .to_string()
    };
    let yaml = "admin:\n  address: {pipe: {path: /run/a.sock}}\n";
    let bootstrap = read_answer(mk_answer(yaml).as_bytes()).expect("reads");
    assert_eq!(bootstrap.text, yaml.as_bytes());
    assert_eq!(bootstrap.admin, admin::Address::Socket("/run/a.sock".into()));
    assert_eq!(bootstrap.networking_address, Some(IpAddr::from([10, 0, 0, 1])));
    for (body, part) in [
        ("{}".to_owned(), "bootstrap"),
        ("nope".to_owned(), "expected"),
        (r#"{"bootstrap": "*"}"#.to_owned(), "base64"),
        (mk_answer("a: ["), "document 1"),
        (mk_answer("node: {}"), "admin.address"),
    ] {
        let error = read_answer(body.as_bytes()).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }
}
