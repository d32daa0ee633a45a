//! What semantic validation says about specs that have the right form, kind by kind.

use graticule_model::{Kind, Resource, yaml};
use serde_json::json;

/// The violations of a spec, as `path: message`.
fn violations(kind: Kind, spec: &str) -> Vec<String> {
    let spec = yaml::parse_one(spec).expect(spec);
    let document = json!({"type": kind.name(), "mesh": "default", "name": "x", "spec": spec});
    let resource =
        Resource::from_rest(kind, &document).unwrap_or_else(|error| panic!("{kind} {spec}: {error}"));
    let violations = resource.validate().err().unwrap_or_default();
    violations.0.into_iter().map(|v| format!("{}: {}", v.path, v.message)).collect()
}

/// Each case: a spec, then the violations that it has.
fn check(kind: Kind, cases: &[(&str, &[&str])]) {
    for (spec, wanted) in cases {
        assert_eq!(violations(kind, spec), *wanted, "{kind} {spec}");
    }
}

const OTEL: &str = "kind: MeshOpenTelemetryBackend, labels: {a: b}";

#[test]
fn access_log() {
    let backend = |text: &str| {
        violations(Kind::MeshAccessLog, &format!("{{rules: [{{default: {{backends: [{{{text}}}]}}}}]}}"))
    };
    let path = "spec.rules[0].default.backends[0]";
    for (text, wanted) in [
        ("type: File, file: {path: /tmp/a.log}", vec![]),
        ("type: File", vec![format!("{path}.file: must be defined")]),
        (
            "type: File, file: {path: /tmp/}",
            vec![format!("{path}.file.path: file backend requires a valid path")],
        ),
        ("type: Tcp, tcp: {address: '127.0.0.1:5000'}", vec![]),
        ("type: Tcp, tcp: {address: '[::1]:5000'}", vec![]),
        ("type: Tcp", vec![format!("{path}.tcp: must be defined")]),
        (
            "type: Tcp, tcp: {address: nowhere}",
            vec![format!("{path}.tcp.address: tcp backend requires valid address")],
        ),
        (
            "type: Tcp, tcp: {address: 'a:0'}",
            vec![format!("{path}.tcp.address: tcp backend requires valid address")],
        ),
        (
            "type: File, file: {path: /a, format: {type: Plain}}",
            vec![format!("{path}.file.format.plain: must be defined")],
        ),
        (
            "type: File, file: {path: /a, format: {type: Plain, plain: ''}}",
            vec![format!("{path}.file.format.plain: must not be empty")],
        ),
        (
            "type: File, file: {path: /a, format: {type: Json, json: []}}",
            vec![format!("{path}.file.format.json: must not be empty")],
        ),
        (
            "type: File, file: {path: /a, format: {type: Json, json: [{key: '', value: ''}, {key: '\"', value: x}]}}",
            vec![
                format!("{path}.file.format.json[0].key: key cannot be empty"),
                format!("{path}.file.format.json[0].value: value cannot be empty"),
                format!("{path}.file.format.json[1]: is not a valid JSON object"),
            ],
        ),
        ("type: OpenTelemetry", vec![format!("{path}.openTelemetry: must be defined")]),
        (
            "type: OpenTelemetry, openTelemetry: {backendRef: {kind: MeshOpenTelemetryBackend}}",
            vec![format!(
                "{path}.openTelemetry.backendRef: backendRef must have exactly one defined: labels"
            )],
        ),
        (
            &format!(
                "type: OpenTelemetry, openTelemetry: {{backendRef: {{{OTEL}}}, attributes: [{{key: otel.x, value: z}}]}}"
            ),
            vec![format!(
                "{path}.openTelemetry.attributes[0].key: must not use the reserved OpenTelemetry prefix 'otel.'"
            )],
        ),
    ] {
        assert_eq!(backend(text), wanted, "{text}");
    }
    let both =
        "{to: [{targetRef: {kind: Mesh}, default: {backends: []}}], rules: [{default: {backends: []}}]}";
    check(Kind::MeshAccessLog, &[(both, &["spec: 'to' must be empty when 'rules' is defined"])]);
}

#[test]
fn trace() {
    let url = "spec.default.backends[0].datadog.url";
    let datadog = |text: &str| {
        violations(
            Kind::MeshTrace,
            &format!("{{default: {{backends: [{{type: Datadog, datadog: {{url: '{text}'}}}}]}}}}"),
        )
    };
    for (text, wanted) in [
        ("http://agent:8126", &[][..]),
        ("https://agent:8126", &["scheme must be http"]),
        ("http://agent", &["port must be defined"]),
        ("http://agent:70000", &["port must be a valid (1-65535)"]),
        (
            "http://u@agent:1/p?q#f",
            &[
                "user must not be defined",
                "path must not be defined",
                "query must not be defined",
                "fragment must not be defined",
            ],
        ),
        ("http:agent", &["port must be defined", "opaque must not be defined"]),
        ("no url", &["must be a valid url"]),
    ] {
        let wanted: Vec<String> = wanted.iter().map(|message| format!("{url}: {message}")).collect();
        assert_eq!(datadog(text), wanted, "{text}");
    }
    check(
        Kind::MeshTrace,
        &[
            ("{default: {backends: []}}", &[]),
            (
                "{default: {backends: [{type: Zipkin}]}}",
                &["spec.default.backends[0].zipkin: must be defined"],
            ),
            (
                "{default: {backends: [{type: Zipkin, zipkin: {url: ''}}]}}",
                &["spec.default.backends[0].zipkin.url: must not be empty"],
            ),
            (
                "{default: {backends: [{type: Zipkin, zipkin: {url: nothing}}]}}",
                &["spec.default.backends[0].zipkin.url: must be a valid url"],
            ),
            (
                "{default: {backends: [], sampling: {client: 101, random: x, overall: '2.5'}}}",
                &[
                    "spec.default.sampling.client: must be between 0 and 100",
                    "spec.default.sampling.random: string is not a number",
                ],
            ),
            (
                "{default: {backends: [], tags: [{name: '', literal: a}, {name: t, literal: a, header: {name: h}}]}}",
                &[
                    "spec.default.tags[0].name: must not be empty",
                    "spec.default.tags[1]: tag must have only one type defined: header, literal",
                ],
            ),
        ],
    );
}

#[test]
fn load_balancing() {
    let to = |default: &str| format!("{{to: [{{targetRef: {{kind: Mesh}}, default: {default}}}]}}");
    let path = "spec.to[0].default";
    for (default, wanted) in [
        ("{loadBalancer: {type: Maglev, maglev: {tableSize: 65537}}}", vec![]),
        (
            "{loadBalancer: {type: LeastRequest, leastRequest: {activeRequestBias: '-1'}}}",
            vec![format!(
                "{path}.loadBalancer.leastRequest.activeRequestBias: must be greater or equal then: 0"
            )],
        ),
        (
            "{hashPolicies: [{type: Header}, {type: Cookie, cookie: {name: c, path: x}}]}",
            vec![
                format!("{path}.hashPolicies[0].header: must be defined"),
                format!("{path}.hashPolicies[1].cookie.path: must be an absolute path"),
            ],
        ),
        (
            "{localityAwareness: {crossZone: {failover: [{from: {zones: ['']}, to: {type: None}}], failoverThreshold: {percentage: 100}}}}",
            vec![format!("{path}.localityAwareness.crossZone.failover[0].from.zones[0]: must not be empty")],
        ),
        (
            "{localityAwareness: {crossZone: {failoverThreshold: {percentage: 101}}}}",
            vec![format!(
                "{path}.localityAwareness.crossZone.failoverThreshold.percentage: must be in inclusive range [0.0, 100.0]"
            )],
        ),
    ] {
        assert_eq!(violations(Kind::MeshLoadBalancingStrategy, &to(default)), wanted, "{default}");
    }
}

#[test]
fn passthrough() {
    let one =
        |text: &str| violations(Kind::MeshPassthrough, &format!("{{default: {{appendMatch: [{text}]}}}}"));
    let path = "spec.default.appendMatch[0]";
    for (text, wanted) in [
        ("{type: Domain, value: a.b, protocol: tls}", vec![]),
        ("{type: Domain, value: '*', protocol: http, port: 80}", vec![]),
        ("{type: CIDR, value: '10.0.0.0/8'}", vec![]),
        ("{type: CIDR, value: 'fd00::/129'}", vec![format!("{path}.value: provided CIDR has incorrect value")]),
        ("{type: IP, value: '10.0.0.0/8'}", vec![format!("{path}.value: provided IP has incorrect value")]),
        (
            "{type: Domain, value: '*.a.b', protocol: http}",
            vec![format!("{path}.port: wildcard domains doesn't work for all ports and layer 7 protocol")],
        ),
        (
            "{type: Domain, value: '*a.b', protocol: tls}",
            vec![format!("{path}.value: provided DNS has incorrect value, partial wildcard is currently not supported")],
        ),
        ("{type: Domain, value: 'a_b', protocol: tls}", vec![format!("{path}.value: provided DNS has incorrect value")]),
        (
            "{type: Domain, value: a.b, protocol: mysql, port: 1}",
            vec![format!("{path}.protocol: protocol mysql is not supported for a domain")],
        ),
        (
            "{type: IP, value: 1.2.3.4, port: 1}, {type: IP, value: 1.2.3.4, port: 1}",
            vec!["spec.default.appendMatch[1].value: value 1.2.3.4 is already defined for this port and protocol".into()],
        ),
    ] {
        assert_eq!(one(text), wanted, "{text}");
    }
}

#[test]
fn fault_injection_and_rate_limit() {
    check(
        Kind::MeshFaultInjection,
        &[
            ("{rules: [{default: {http: [{responseBandwidth: {limit: 50Mbps, percentage: 50}}]}}]}", &[]),
            (
                "{rules: [{default: {http: [{}, {delay: {value: -1s, percentage: x}}]}}]}",
                &[
                    "spec.rules[0].default.http[1].delay.value: must not be negative when defined",
                    "spec.rules[0].default.http[1].delay.percentage: string must be a valid number",
                ],
            ),
            (
                "{rules: [{default: {http: [{responseBandwidth: {limit: '', percentage: 1}}]}}]}",
                &["spec.rules[0].default.http[0].responseBandwidth.limit: must be defined"],
            ),
            (
                "{to: [{targetRef: {kind: MeshService, labels: {a: b}}, default: {}}]}",
                &["spec.to[0].targetRef.kind: value 'MeshService' is not supported"],
            ),
        ],
    );
    check(
        Kind::MeshRateLimit,
        &[
            ("{to: [{targetRef: {kind: Mesh}, default: {local: {http: {disabled: true}}}}]}", &[]),
            ("{to: [{targetRef: {kind: Mesh}}]}", &["spec.to[0].default.local: must be defined"]),
            (
                "{targetRef: {kind: Dataplane}, to: [{targetRef: {kind: Mesh}, default: {}}]}",
                &["spec.to: must not be defined"],
            ),
            (
                "{targetRef: {kind: Dataplane}, rules: [{matches: [{}, {spiffeID: {type: Exact, value: 'spiffe://a/b'}}], default: {local: {tcp: {}, http: {onRateLimit: {status: 0}}}}}]}",
                &[
                    "spec.rules[0].matches[0]: must specify at least one of 'spiffeID' or 'sni'",
                    "spec.rules[0].default.local.tcp: can't be specified when matches contain spiffeID because this field cannot be conditioned on source identity",
                    "spec.rules[0].default.local.http.onRateLimit.status: must be greater than 0",
                    "spec.rules[0].default.local.tcp: must have at least one defined: disabled, connectionRate",
                ],
            ),
        ],
    );
}

#[test]
fn health_check_and_metric() {
    check(
        Kind::MeshHealthCheck,
        &[
            ("{to: [{targetRef: {kind: Mesh}, default: {tcp: {}}}]}", &[]),
            (
                "{to: [{targetRef: {kind: Mesh}, default: {unhealthyThreshold: 0, eventLogPath: '', http: {path: ''}}}]}",
                &[
                    "spec.to[0].default.unhealthyThreshold: must be greater than zero when defined",
                    "spec.to[0].default.eventLogPath: must be a valid path when defined",
                    "spec.to[0].default.http.path: must be defined",
                ],
            ),
        ],
    );
    check(
        Kind::MeshMetric,
        &[
            ("{default: {backends: [{type: Prometheus, prometheus: {}}]}}", &[]),
            (
                "{default: {applications: [{port: 0}], backends: [{type: Prometheus, prometheus: {port: 0}}, {type: OpenTelemetry}]}}",
                &[
                    "spec.default.applications[0].port: port must be a valid (1-65535)",
                    "spec.default.backends[0].prometheus.port: port must be a valid (1-65535)",
                    "spec.default.backends[1].openTelemetry: must be defined",
                ],
            ),
            (
                "{default: {sidecar: {profiles: {exclude: [{type: Regex, match: '('}], include: [{type: Exact, match: '('}]}}}}",
                &["spec.default.sidecar.profiles.exclude[0].match: invalid regex"],
            ),
        ],
    );
}

#[test]
fn proxy_patch() {
    let one = |text: &str| {
        violations(Kind::MeshProxyPatch, &format!("{{default: {{appendModifications: [{text}]}}}}"))
    };
    let path = "spec.default.appendModifications[0]";
    for (text, wanted) in [
        ("{cluster: {operation: Add, value: 'name: x'}}", vec![]),
        ("{cluster: {operation: Remove}}", vec![]),
        (
            "{cluster: {operation: Add, match: {name: a}}}",
            vec![
                format!("{path}.cluster.match: must not be defined"),
                format!("{path}.cluster.value: must be defined"),
            ],
        ),
        (
            "{cluster: {operation: Add, value: 'text'}}",
            vec![format!("{path}.cluster.value: native Envoy resource is not valid: expected an object")],
        ),
        (
            "{listener: {operation: Remove, value: 'name: x'}}",
            vec![format!("{path}.listener.value: must not be defined")],
        ),
        (
            "{listener: {operation: Patch}}",
            vec![format!(
                "{path}.listener: {path}.listener must have exactly one defined: value, jsonPatches"
            )],
        ),
        (
            "{virtualHost: {operation: Add, match: {name: a}, value: 'name: x'}}",
            vec![format!("{path}.virtualHost.match.name: must not be defined")],
        ),
        (
            "{httpFilter: {operation: AddBefore, value: 'name: x'}}",
            vec![format!(
                "{path}.httpFilter.match.name: must be defined. You need to pick a filter before which this one will be added"
            )],
        ),
        (
            "{networkFilter: {operation: Patch, match: {name: f}, value: 'name: x', jsonPatches: [{op: remove, path: /}, {op: move, path: /a}, {op: replace, path: /a, from: /b}]}}",
            vec![
                format!(
                    "{path}.networkFilter: {path}.networkFilter must have only one type defined: value, jsonPatches"
                ),
                format!("{path}.networkFilter.jsonPatches[0].path: must not be the root when op is remove"),
                format!("{path}.networkFilter.jsonPatches[1].from: must be defined"),
                format!("{path}.networkFilter.jsonPatches[2].from: must not be defined"),
                format!("{path}.networkFilter.jsonPatches[2].value: must be defined"),
            ],
        ),
        (
            "{cluster: {operation: Remove}, listener: {operation: Remove}}",
            vec![format!(
                "{path}: exactly one modification can be defined at a time. Currently, 2 modifications are defined"
            )],
        ),
    ] {
        assert_eq!(one(text), wanted, "{text}");
    }
}

#[test]
fn destinations() {
    check(
        Kind::MeshExternalService,
        &[
            ("{match: {port: 443}}", &[]),
            (
                "{match: {port: 443}, endpoints: [{address: '?', port: 1}], tls: {version: {min: TLS13, max: TLS12}, verification: {serverName: '*', clientCert: {type: File, file: {path: /a}}}}}",
                &[
                    "spec.endpoints[0].address: address has to be a valid IP or hostname",
                    "spec.tls.version.min: min version must be lower than max",
                    "spec.tls.verification.serverName: must be a valid DNS name",
                    "spec.tls.verification.clientKey: must be defined when clientCert is defined",
                    "spec.tls.verification.clientCert.type: File must be one of: Secret, InsecureInline",
                ],
            ),
            (
                "{match: {port: 443}, extension: {type: ''}, endpoints: [{address: '?', port: 1}], tls: {verification: {caCert: {type: Secret}}}}",
                &[
                    "spec.extension.type: must not be empty",
                    "spec.tls.verification.caCert.secretRef: must be defined",
                ],
            ),
        ],
    );
    check(
        Kind::MeshMultiZoneService,
        &[
            ("{selector: {meshService: {matchLabels: {a: b}}}, ports: [{port: 80}]}", &[]),
            (
                "{selector: {meshService: {}}, ports: [{port: 80, name: '', appProtocol: udp}]}",
                &[
                    "spec.selector.meshService.matchLabels: cannot be empty",
                    "spec.ports[0].name: must not be empty",
                    "spec.ports[0].appProtocol: appProtocol must be one of: grpc, http, http2, tcp",
                ],
            ),
        ],
    );
    check(
        Kind::MeshOpenTelemetryBackend,
        &[
            ("{endpoint: {address: c.local, port: 4318, path: /base}, protocol: http}", &[]),
            ("{endpoint: {path: base}, protocol: http}", &["spec.endpoint.path: must start with /"]),
            (
                "{endpoint: {path: '/a?b'}, protocol: http}",
                &["spec.endpoint.path: must not contain query or fragment"],
            ),
            (
                "{endpoint: {address: '?'}}",
                &["spec.endpoint.address: address has to be a valid IP or hostname"],
            ),
        ],
    );
}
