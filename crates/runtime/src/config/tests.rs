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
    graticule_settings::setting(path, env, "")
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
    foreign: &[
        Foreign {
            path: "zone.refresh",
            env: "ZONE_REFRESH",
            fate: Fate::Replaced("changes are pushed at once"),
        },
        Foreign { path: "store.postgres", env: "", fate: Fate::Replaced("the store is built in") },
        Foreign { path: "tracing", env: "", fate: Fate::NotYet("there are no traces") },
    ],
    reserved: &["CONFORMANCE_DIR", "AGENT_*"],
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
        ("GRATICULE_AGENT_PORT", "x"),
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
    let yaml = "zone: {refresh: 1s}\nstore: {postgres: {host: x, tls: {mode: y}}}\ntracing: {on: true}\n";
    let mut warnings = try_load(yaml, &[("KUMA_ZONE_REFRESH", "1s")]).expect("loads").warnings;
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "setting store.postgres: no effect here: the store is built in",
            "setting tracing: not supported yet, ignored: there are no traces",
            "setting zone.refresh, environment variable KUMA_ZONE_REFRESH: no effect here: changes are pushed at once",
        ]
    );
}

#[test]
fn an_examination_finds_everything() {
    let yaml = "zone: {name: east, port: high, nmae: x}\nmode: zone\nstatuses: [1, x]\nlimt: 2\n";
    let env = [
        ("KUMA_ZONE_ENABLED", "false"),
        ("GRATICULE_LIMT", "1"),
        ("GRATICULE_LIMIT", "many"),
        ("KUMA_NOBODY_KNOWS", "x"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let examined =
        examine_text::<Options>(&SCHEMA, Some((Path::new("cp.yaml"), yaml)), env).expect("examined");
    let errors: Vec<String> = examined.errors.iter().map(ToString::to_string).collect();
    let starts = [
        "unknown setting limt; did you mean limit?",
        "unknown setting zone.nmae; did you mean zone.name?",
        "zone.port: invalid type: string \"high\"",
        "statuses[1]: invalid type",
        "unknown environment variable GRATICULE_LIMT; did you mean GRATICULE_LIMIT?",
        "GRATICULE_LIMIT: ",
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    for start in starts {
        assert!(errors.iter().any(|error| error.starts_with(start)), "{start:?} is not in {errors:#?}");
    }
    let changed: Vec<String> =
        examined.changed.iter().map(|c| format!("{}={} from {}", c.path, c.value, c.source)).collect();
    assert_eq!(
        changed,
        ["zone.enabled=false from KUMA_ZONE_ENABLED", "zone.name=\"east\" from configuration file"]
    );
    assert_eq!(examined.unknown_kuma, ["KUMA_NOBODY_KNOWS"]);
    assert_eq!((examined.value.zone.port, examined.value.statuses), (5685, vec![500]), "defaults stand in");
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
