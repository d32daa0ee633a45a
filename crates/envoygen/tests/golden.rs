//! Whole configurations: against our own golden files, against recordings of the reference, and against Envoy.
//!
//! `UPDATE_GOLDEN=1 cargo test -p graticule-envoygen --test golden` writes the golden files anew.
#![expect(clippy::print_stderr, reason = "a skipped comparison says so")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::{OWN, Site};
use graticule_envoygen::bootstrap::{BootstrapRequest, BootstrapSettings, DataplaneFacts, bootstrap};
use graticule_envoygen::json::{KeyMaterial, from_json};
use graticule_envoygen::{AdminTls, LeafSecret, Secrets, SharedCache, snapshot, type_url};
use graticule_policy::ProxyInputs;
use serde_json::{Value, json};

fn proxies(site: &Site) -> [(&'static str, ProxyInputs); 4] {
    [
        ("client", site.client()),
        ("server", site.server()),
        ("ingress", site.ingress()),
        ("everything", site.everything()),
    ]
}

fn config(inputs: &ProxyInputs) -> Value {
    let built = snapshot(inputs, &Secrets::default(), None, &SharedCache::default());
    built.to_json(KeyMaterial::Redacted).expect("our own types")
}

/// Where two values differ, as paths.
fn differences(path: &str, got: &Value, want: &Value, found: &mut Vec<String>) {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            for key in got.keys().chain(want.keys().filter(|key| !got.contains_key(*key))) {
                let absent = Value::String("<absent>".into());
                let path = format!("{path}/{key}");
                differences(&path, got.get(key).unwrap_or(&absent), want.get(key).unwrap_or(&absent), found);
            }
        }
        (Value::Array(got), Value::Array(want)) if got.len() == want.len() => {
            for (index, (got, want)) in got.iter().zip(want).enumerate() {
                differences(&format!("{path}/{index}"), got, want, found);
            }
        }
        _ if got == want => {}
        _ => found.push(format!("{path}: got {got}, want {want}")),
    }
}

fn assert_same(case: &str, got: &Value, want: &Value) {
    let mut found = Vec::new();
    differences("", got, want, &mut found);
    assert!(found.is_empty(), "{case}:\n{}", found.join("\n"));
}

#[test]
fn golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, inputs) in proxies(&OWN) {
        let file = folder.join(format!("{name}.json"));
        let got = config(&inputs);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let text = serde_json::to_string_pretty(&got).expect("JSON") + "\n";
            std::fs::write(&file, text).expect("written");
        }
        let want = serde_json::from_str(&std::fs::read_to_string(&file).expect("checked in")).expect("JSON");
        assert_same(name, &got, &want);
    }
}

fn recordings() -> Option<PathBuf> {
    let folder = std::env::var_os("GRATICULE_CONFORMANCE_DIR").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
    }
    folder.map(|folder| folder.join("recordings/dataplane"))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

/// Turns certificates in place back into the placeholders that the recordings have.
fn with_placeholders(mut json: Value) -> Value {
    fn walk(json: &mut Value) {
        match json {
            Value::Object(members) => {
                for (key, member) in members {
                    let text = member.as_str().and_then(|text| BASE64.decode(text).ok());
                    match text.and_then(|bytes| String::from_utf8(bytes).ok()) {
                        Some(text) if key == "inlineBytes" => {
                            *member = Value::String(text.replace('\n', "+"))
                        }
                        _ => walk(member),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut json);
    json
}

const RECORDED: Site = Site {
    mesh: "default",
    zones: ["east", "west"],
    nets: ["127.0.1", "127.0.2"],
    workloads: ["client", "echo"],
    client_section: "web",
    identity: "identity",
    permission: "allow-all",
    sockets: "/run/kuma-dp",
    ingress: "ingress",
    readiness: [19801, 19901, 19909],
};

#[test]
fn recorded_configurations() {
    let Some(folder) = recordings() else { return };
    let cases = [
        ("client-1", RECORDED.client()),
        ("echo-1", RECORDED.server()),
        ("ingress-west", RECORDED.ingress()),
    ];
    for (name, inputs) in cases {
        let recorded = read_json(&folder.join(format!("two-zones/proxies/{name}/zone/_config.json")));
        assert_same(name, &with_placeholders(config(&inputs)), &recorded["body"]["xds"]);
    }
}

/// The case's settings, as its README gives them.
fn settings_of(case: &str, host: &str, port: u16, ca: &str) -> BootstrapSettings {
    let settings = BootstrapSettings {
        xds_host: host.into(),
        xds_port: port,
        ca_pem: ca.into(),
        ..BootstrapSettings::default()
    };
    match case {
        "reloadable-token" => BootstrapSettings { reloadable_tokens: true, ..settings },
        "admin-tcp-hds-off" => {
            BootstrapSettings { admin_unix_socket: false, admin_port: 9990, hds_enabled: false, ..settings }
        }
        "xds-host" => {
            let connect_timeout = std::time::Duration::from_secs(3);
            BootstrapSettings { xds_port: 15678, connect_timeout, ..settings }
        }
        _ => settings,
    }
}

fn compare_bootstrap(case: &str, request: &Value, yaml: &Path, settings: &BootstrapSettings) {
    const PEM_HEAD: &str = "-----BEGIN CERTIFICATE-----";
    let mut request = BootstrapRequest::parse(request.to_string().as_bytes()).expect(case);
    if !request.ca_cert.is_empty() {
        request.ca_cert.insert_str(0, PEM_HEAD);
    }
    let dataplane: Value = serde_json::from_str(&request.dataplane_resource).unwrap_or_default();
    let facts = DataplaneFacts {
        workload: dataplane["labels"]["kuma.io/workload"].as_str().map(str::to_owned),
        admin_port: dataplane["networking"]["admin"]["port"]
            .as_u64()
            .and_then(|port| u32::try_from(port).ok()),
    };
    let got = bootstrap(&request, settings, &facts).expect(case);
    let text = with_placeholders(got).to_string().replace(PEM_HEAD, "");
    let mut got: Value = serde_json::from_str(&text).expect("JSON");
    let mut want: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(yaml).expect("readable")).expect("YAML");
    for side in [&mut got, &mut want] {
        for tag in side["statsConfig"]["statsTags"].as_array_mut().expect("a list") {
            let regex = tag["regex"].as_str().expect("text").to_owned();
            if tag["tagName"] == "listener" {
                tag["regex"] = regex.trim_start_matches('^').into();
            }
        }
        let features = side["node"]["metadata"]["features"].as_array_mut().expect("a list");
        features.sort_by_key(Value::to_string);
    }
    assert_same(case, &got, &want);
}

/// Port and certificate of the control plane that each proxy of the two zones used.
const TWO_ZONES: [(&str, u16, &str); 4] = [
    ("client-1", 8778, "<pem-3>"),
    ("echo-1", 8878, "<pem-7>"),
    ("echo-2", 8878, "<pem-7>"),
    ("ingress-west", 8878, "<pem-7>"),
];

#[test]
fn recorded_bootstraps() {
    let Some(folder) = recordings() else { return };
    let mut compared = 0;
    for entry in std::fs::read_dir(folder.join("bootstrap")).expect("readable") {
        let yaml = entry.expect("readable").path();
        if yaml.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let case = yaml.file_stem().expect("named").to_string_lossy().into_owned();
        let recorded = read_json(&yaml.with_extension("json"));
        let settings = settings_of(&case, "localhost", 8978, "<pem-1>");
        compare_bootstrap(&case, &recorded["request"]["body"], &yaml, &settings);
        compared += 1;
    }
    assert!(compared >= 10, "{compared} recordings");
    for (case, port, ca) in TWO_ZONES {
        let proxy = folder.join("two-zones/proxies").join(case);
        let recorded = read_json(&proxy.join("bootstrap-request.json"));
        let settings = settings_of(case, "127.0.0.1", port, ca);
        compare_bootstrap(case, &recorded["body"], &proxy.join("bootstrap.yaml"), &settings);
    }
}

fn envoy() -> Option<PathBuf> {
    let given = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|file| file.is_file())
    };
    let found = given.or_else(on_path);
    if found.is_none() {
        eprintln!("skipped: no Envoy in ENVOY_BIN or PATH");
    }
    found
}

/// Real key material, so that Envoy can load it.
fn mk_secrets() -> (Secrets, String) {
    let issued = rcgen::generate_simple_self_signed(vec!["proxy.example".into()]).expect("a certificate");
    let (pem, key_pem) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let leaf = LeafSecret { chain_pem: pem.clone(), key_pem: key_pem.clone() };
    let admin = AdminTls { certificate_pem: pem.clone(), key_pem, ca_pem: pem.clone() };
    (Secrets { identity: Some(leaf), admin: Some(admin) }, pem)
}

#[test]
fn envoy_accepts_the_configuration() {
    let Some(envoy) = envoy() else { return };
    let (secrets, pem) = mk_secrets();
    for (name, mut inputs) in proxies(&OWN) {
        let domains = inputs.trust.domains.keys().map(|domain| (domain.clone(), vec![pem.clone()])).collect();
        inputs.trust = graticule_policy::inputs::Trust { domains }.into();
        let built = snapshot(&inputs, &secrets, None, &SharedCache::default());
        let request = BootstrapRequest {
            mesh: inputs.mesh.clone(),
            name: inputs.name.clone(),
            workdir: inputs.node.workdir.clone(),
            ..BootstrapRequest::default()
        };
        let settings = BootstrapSettings { ca_pem: pem.clone(), ..BootstrapSettings::default() };
        let mut config = bootstrap(&request, &settings, &DataplaneFacts::default()).expect("valid");
        let resources = built.to_json(KeyMaterial::Shown).expect("our own types");
        for (member, type_url) in [
            ("listeners", type_url::LISTENER),
            ("clusters", type_url::CLUSTER),
            ("secrets", type_url::SECRET),
        ] {
            let known = config["staticResources"][member].as_array().cloned().unwrap_or_default();
            let added = resources[type_url].as_object().into_iter().flat_map(|map| map.values().cloned());
            config["staticResources"][member] = known.into_iter().chain(added).collect();
        }
        validate(&envoy, name, &config);
    }
}

fn validate(envoy: &Path, name: &str, config: &Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bootstrap.yaml");
    std::fs::write(&file, config.to_string()).expect("written");
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "error", "-c"])
        .arg(&file)
        .output()
        .expect("Envoy runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn bodies_are_the_json_form() {
    // The other direction: what the JSON says is what the bytes say.
    let built = snapshot(&OWN.everything(), &Secrets::default(), None, &SharedCache::default());
    let json = built.to_json(KeyMaterial::Shown).expect("our own types");
    for (type_url, resources) in json.as_object().expect("a map") {
        for (name, resource) in resources.as_object().expect("a map") {
            let again = from_json(type_url, resource).expect("readable");
            let form = graticule_envoygen::json::to_json(type_url, &again).expect("our own types");
            assert_same(name, &form, resource);
        }
    }
    assert!(json[type_url::CLUSTER]["system_envoy_admin"] != json!(null));
}
