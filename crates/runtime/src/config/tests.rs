use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    mode: String,
    zone: Zone,
    domains: Vec<String>,
    statuses: Vec<u16>,
    token: Option<String>,
    limit: Option<u32>,
    headers: BTreeMap<String, String>,
    keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Zone {
    name: String,
    port: u16,
    enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Key {
    kid: String,
}

impl Default for Zone {
    fn default() -> Self {
        Zone { name: "default".into(), port: 5685, enabled: true }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mode: "zone".into(),
            zone: Zone::default(),
            domains: vec!["a".into()],
            statuses: vec![500],
            token: None,
            limit: None,
            headers: BTreeMap::new(),
            keys: Vec::new(),
        }
    }
}

const fn setting(path: &'static str, env: &'static str) -> Setting {
    Setting { path, env, doc: "" }
}

const SCHEMA: Schema = Schema {
    settings: &[
        setting("mode", "MODE"),
        setting("zone.name", "MULTIZONE_ZONE_NAME"),
        setting("zone.port", "ZONE_PORT"),
        setting("zone.enabled", "ZONE_ENABLED"),
        setting("domains", "DOMAINS"),
        setting("statuses", "STATUSES"),
        setting("token", "TOKEN"),
        setting("limit", "LIMIT"),
        setting("headers", "HEADERS"),
        setting("keys", ""),
    ],
    meaningless: &[
        Meaningless { path: "zone.refresh", env: "ZONE_REFRESH", instead: "changes are pushed at once" },
        Meaningless { path: "store.postgres", env: "", instead: "the store is built in" },
    ],
    reserved: &["CONFORMANCE_DIR"],
};

fn try_load(yaml: &str, env: &[(&str, &str)]) -> Result<Loaded<Options>, Error> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(&SCHEMA, Some((Path::new("cp.yaml"), yaml)), env)
}

fn error(yaml: &str, env: &[(&str, &str)]) -> String {
    try_load(yaml, env).expect_err("refused").to_string()
}

#[test]
fn later_sources_win() {
    let loaded = try_load("", &[]).expect("defaults");
    assert_eq!((loaded.value, loaded.warnings), (Options::default(), vec![]));
    let yaml = "zone: {name: east, port: 1}\nmode:\nkeys: [{kid: '1'}]\n";
    let env = [
        ("KUMA_ZONE_PORT", "2"),
        ("KUMA_MULTIZONE_ZONE_NAME", "west"),
        ("GRATICULE_MULTIZONE_ZONE_NAME", "north"),
        ("GRATICULE_CONFORMANCE_DIR", "x"),
        ("GRATICULE_CP_SERVICE_HOST", "10.0.0.1"),
        ("GRATICULE_CP_PORT", "tcp://10.0.0.1:5681"),
        ("KUMA_NOBODY_KNOWS", "x"),
        ("PATH", "x"),
    ];
    let value = try_load(yaml, &env).expect("loads").value;
    assert_eq!(value.zone, Zone { name: "north".into(), port: 2, enabled: true });
    assert_eq!(value.mode, "zone", "an empty key keeps the default");
    assert_eq!(value.keys, [Key { kid: "1".into() }]);
}

#[test]
fn variables_have_the_type_of_their_setting() {
    let env = [
        ("GRATICULE_MODE", "123"),
        ("GRATICULE_ZONE_ENABLED", "false"),
        ("GRATICULE_DOMAINS", "x, y"),
        ("GRATICULE_STATUSES", "501,502"),
        ("GRATICULE_TOKEN", "42"),
        ("GRATICULE_LIMIT", "42"),
        ("GRATICULE_HEADERS", "a:b,c:d:e"),
    ];
    let value = try_load("", &env).expect("loads").value;
    assert_eq!((value.mode.as_str(), value.zone.enabled), ("123", false));
    assert_eq!((value.domains, value.statuses), (vec!["x".to_owned(), "y".into()], vec![501, 502]));
    assert_eq!((value.token.as_deref(), value.limit), (Some("42"), Some(42)));
    assert_eq!(value.headers.get("c").map(String::as_str), Some("d:e"));
    assert_eq!(try_load("", &[("GRATICULE_DOMAINS", "")]).expect("loads").value.domains, [""; 0]);
}

#[test]
fn what_kuma_knows_gives_one_warning() {
    let yaml = "zone: {refresh: 1s}\nstore: {postgres: {host: x, tls: {mode: y}}}\n";
    let loaded = try_load(yaml, &[("KUMA_ZONE_REFRESH", "1s")]).expect("loads");
    let mut warnings = loaded.warnings;
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "environment variable KUMA_ZONE_REFRESH has no effect: changes are pushed at once",
            "setting store.postgres has no effect: the store is built in",
            "setting zone.refresh has no effect: changes are pushed at once",
        ]
    );
}

#[test]
fn errors_name_the_setting() {
    assert_eq!(error("zone: {nmae: x}", &[]), "unknown setting zone.nmae; did you mean zone.name?");
    assert_eq!(error("zoen: {name: x}", &[]), "unknown setting zoen; did you mean zone?");
    assert_eq!(error("entirelyDifferent: 1", &[]), "unknown setting entirelyDifferent");
    assert_eq!(
        error("", &[("GRATICULE_MULTIZONE_ZONE_NMAE", "x")]),
        "unknown environment variable GRATICULE_MULTIZONE_ZONE_NMAE; did you mean GRATICULE_MULTIZONE_ZONE_NAME?"
    );
    assert_eq!(error("zone: 7", &[]), "zone: must be a mapping of settings");
    assert!(error("zone: {port: high}", &[]).starts_with("zone.port: invalid type: string \"high\""));
    assert!(error("zone: {port: 70000}", &[]).starts_with("zone.port: invalid value"));
    assert_eq!(error("", &[("KUMA_ZONE_PORT", "high")]), "KUMA_ZONE_PORT: \"high\" is not a number");
    assert!(error("", &[("GRATICULE_ZONE_PORT", "70000")]).starts_with("GRATICULE_ZONE_PORT: invalid value"));
    assert_eq!(
        error("", &[("GRATICULE_ZONE_ENABLED", "yep")]),
        "GRATICULE_ZONE_ENABLED: \"yep\" is not true or false"
    );
    assert_eq!(error("- a", &[]), "configuration file cp.yaml: is not a mapping of settings");
    assert!(error("a: [", &[]).starts_with("configuration file cp.yaml: "));
    let missing = load::<Options>(&SCHEMA, Some(Path::new("/nonexistent/cp.yaml")), []).expect_err("missing");
    assert_eq!(missing.to_string(), "configuration file /nonexistent/cp.yaml");
}
