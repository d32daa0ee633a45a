use super::*;

fn mk_env(vars: &[(&str, &str)]) -> Env {
    Env::new(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn mk_args() -> RunArgs {
    RunArgs { dataplane_file: Some("dp.yaml".into()), ..RunArgs::default() }
}

fn resolve(args: &RunArgs, vars: &[(&str, &str)]) -> Result<Config, Error> {
    Config::resolve(args, LogLevel::Info, &mk_env(vars))
}

#[test]
fn defaults() {
    let config = resolve(&mk_args(), &[]).expect("resolves");
    assert_eq!(config.control_plane.origin.authority(), "localhost:5678");
    assert_eq!(config.control_plane.retry_backoff, Duration::from_secs(3));
    assert_eq!(config.control_plane.retry_max_duration, Duration::from_secs(300));
    assert_eq!(config.dataplane, dataplane::Source::File("dp.yaml".into()));
    assert_eq!(config.token, token::Source::None);
    assert_eq!((config.envoy.binary.as_str(), config.envoy.log_level.as_str()), ("envoy", "info"));
    assert_eq!(config.envoy.drain_time, Duration::from_secs(30));
    assert_eq!((config.readiness_port, config.forwarded.dns_port), (9902, 15053));
    assert!(config.forwarded.strict_inbound_ports && config.forwarded.reuse_port);
    assert!(config.warnings.is_empty());
}

/// What the table says is the default gives the same configuration as giving nothing.
#[test]
fn defaults_of_the_table_are_those_that_count() {
    let nothing = format!("{:?}", resolve(&mk_args(), &[]).expect("resolves"));
    let mut seen = 0;
    for row in crate::settings::list() {
        let text = match &row.default {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if text.is_empty() || row.variable.is_empty() {
            continue;
        }
        let given = resolve(&mk_args(), &[(&row.variable, &text)]);
        assert_eq!(format!("{:?}", given.expect("a usable default")), nothing, "{}={text}", row.variable);
        seen += 1;
    }
    assert!(seen > 10, "only {seen} settings have defaults");
}

#[test]
fn flag_wins_over_own_name_wins_over_kuma_name() {
    let kuma = ("KUMA_DATAPLANE_DRAIN_TIME", "1s");
    let own = ("GRATICULE_DATAPLANE_DRAIN_TIME", "2s");
    let flag = RunArgs { drain_time: Some(Duration::from_secs(3)), ..mk_args() };
    for (args, vars, seconds) in [
        (&mk_args(), vec![kuma], 1),
        (&mk_args(), vec![kuma, own], 2),
        (&mk_args(), vec![kuma, ("GRATICULE_DATAPLANE_DRAIN_TIME", "")], 1),
        (&flag, vec![kuma, own], 3),
    ] {
        let config = resolve(args, &vars).expect("resolves");
        assert_eq!(config.envoy.drain_time, Duration::from_secs(seconds), "{vars:?}");
    }
}

#[test]
fn dataplane_sources() {
    let named = RunArgs { name: Some("web".into()), mesh: Some("default".into()), ..RunArgs::default() };
    let stored = |name: &str| dataplane::Source::Stored { mesh: "default".into(), name: name.into() };
    let pod = [("POD_NAME", "web-7c5"), ("POD_NAMESPACE", "shop"), ("KUMA_DATAPLANE_MESH", "default")];
    for (args, vars, expected) in [
        (&named, vec![], Ok(stored("web"))),
        (&RunArgs::default(), pod.to_vec(), Ok(stored("web-7c5.shop"))),
        (
            &RunArgs { name: Some("$(POD_NAME)".into()), ..RunArgs::default() },
            pod.to_vec(),
            Ok(stored("web-7c5.shop")),
        ),
        (&RunArgs::default(), vec![], Err("which Dataplane")),
        (
            &RunArgs { dataplane: Some("x".into()), ..named.clone() },
            vec![],
            Err("--name cannot be given together with a Dataplane"),
        ),
        (
            &RunArgs { dataplane: Some("x".into()), ..RunArgs::default() },
            vec![("KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH", "f")],
            Ok(dataplane::Source::Inline("x".into())),
        ),
    ] {
        match (resolve(args, &vars), expected) {
            (Ok(config), Ok(source)) => assert_eq!(config.dataplane, source),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn token_sources() {
    let file = RunArgs { dataplane_token_file: Some("t".into()), ..mk_args() };
    let inline = RunArgs { dataplane_token: Some("x".into()), ..mk_args() };
    for (args, vars, expected) in [
        (&file, vec![("GRATICULE_DATAPLANE_RUNTIME_TOKEN", "y")], token::Source::File("t".into())),
        (&inline, vec![], token::Source::Inline("x".into())),
        (&mk_args(), vec![("KUMA_DATAPLANE_RUNTIME_TOKEN_PATH", "p")], token::Source::File("p".into())),
        (&mk_args(), vec![("KUMA_DATAPLANE_RUNTIME_TOKEN", "y")], token::Source::Inline("y".into())),
    ] {
        assert_eq!(resolve(args, &vars).expect("resolves").token, expected);
    }
}

#[test]
fn mistakes_are_named() {
    let args = mk_args();
    for (args, vars, parts) in [
        (
            &args,
            vec![("KUMA_READINESS_PORT", "70000")],
            vec!["KUMA_READINESS_PORT", "number too large to fit"],
        ),
        (&args, vec![("GRATICULE_READINESS_PORT", "0")], vec!["GRATICULE_READINESS_PORT", "must not be 0"]),
        (&args, vec![("KUMA_DATAPLANE_DRAIN_TIME", "30")], vec!["KUMA_DATAPLANE_DRAIN_TIME", "missing unit"]),
        (&args, vec![("KUMA_DATAPLANE_DRAIN_TIME", "0s")], vec!["longer than zero"]),
        (&args, vec![("KUMA_CONTROL_PLANE_URL", "ftp://x")], vec!["KUMA_CONTROL_PLANE_URL", "http"]),
        (
            &args,
            vec![("GRATICULE_DATAPLANE_RUNTIME_TOKN", "x")],
            vec!["GRATICULE_DATAPLANE_RUNTIME_TOKN", "did you mean GRATICULE_DATAPLANE_RUNTIME_TOKEN?"],
        ),
        (
            &args,
            vec![("KUMA_APPLICATION_PROBE_PROXY_PORT", "9001")],
            vec!["APPLICATION_PROBE_PROXY_PORT", "not available"],
        ),
        (&args, vec![("KUMA_DNS_ENABLED", "true")], vec!["KUMA_DNS_ENABLED", "not available"]),
        (&args, vec![("KUMA_DNS_ENABLED", "maybe")], vec!["KUMA_DNS_ENABLED", "true or false"]),
        (&RunArgs { transparent_proxy: Some(true), ..mk_args() }, vec![], vec!["--transparent-proxy"]),
        (
            &RunArgs { proxy_type: Some("ingress".into()), ..mk_args() },
            vec![],
            vec!["--proxy-type", "ingress", "dataplane"],
        ),
    ] {
        let error = resolve(args, &vars).expect_err("refused").to_string();
        for part in parts {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
}

#[test]
fn other_programs_variables_are_left_alone() {
    let vars = [
        ("GRATICULE_DNS_SERVER_DOMAIN", "mesh"),
        ("GRATICULE_MULTIZONE_ZONE_NAME", "east"),
        ("KUMA_DNS_ENABLED", "false"),
        ("KUMA_DATAPLANE_RUNTIME_UNHEARD_OF", "x"),
    ];
    assert!(resolve(&mk_args(), &vars).expect("resolves").warnings.is_empty());
}

#[test]
fn settings_without_effect_warn() {
    let vars = [("KUMA_DATAPLANE_RESILIENT_COMPONENT_BASE_BACKOFF", "5s")];
    let config = resolve(&mk_args(), &vars).expect("resolves");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].starts_with("KUMA_DATAPLANE_RESILIENT_COMPONENT_BASE_BACKOFF"));
}
