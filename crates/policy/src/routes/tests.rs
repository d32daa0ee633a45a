use std::fmt::Write;

use expect_test::{Expect, expect};
use graticule_model::yaml;
use serde::Deserialize;

use super::*;
use crate::destinations::find_port;
use crate::testing::mk_world;

fn matches(text: &str) -> Vec<RouteMatch> {
    Vec::deserialize(yaml::parse_one(text).expect("YAML")).expect("matches")
}

#[test]
fn hashes() {
    let hash_of = |text: &str| hash(&matches(text));
    assert_eq!(hash_of("[{path: {value: /, type: Exact}}]"), "JNNc6//C3P17nUsOJm5f4kqG+U3v8pXhS0od9C3+oss=");
    assert_eq!(
        hash_of("[{path: {type: PathPrefix, value: /}}]"),
        "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo="
    );
    assert_eq!(default_route_name(), "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo=");
    // Escaped as Go does it: the SHA-256 of [{"path":{"value":"/a\u003cb","type":"Exact"}}]
    let escaped = STANDARD.encode(Sha256::digest(r#"[{"path":{"value":"/a\u003cb","type":"Exact"}}]"#));
    assert_eq!(hash_of("[{path: {type: Exact, value: /a<b}}]"), escaped);
}

const SERVICES: &str = "
{type: MeshService, name: backend, spec: {ports: [{port: 80, name: http, appProtocol: http}]}}
---
{type: MeshService, name: v1, spec: {ports: [{port: 80, name: http, appProtocol: http2}]}}
---
{type: MeshService, name: db, spec: {ports: [{port: 5432, appProtocol: tcp}]}}
";

/// One line per route or share, then the clusters.
fn show(routes: &Routes) -> String {
    let mut out = String::new();
    let shares = |split: &[Share]| {
        let split: Vec<String> =
            split.iter().map(|share| format!("{}*{}", share.weight, share.cluster)).collect();
        split.join(" ")
    };
    match &routes.routing {
        Routing::Tcp(split) => {
            let _ = writeln!(out, "tcp: {}", shares(split));
        }
        Routing::Http(list) => {
            for route in list {
                let condition = serde_json::to_string(&route.condition).expect("JSON");
                let _ = write!(out, "{} {condition}: {}", route.name, shares(&route.split));
                if route.unresolved_weight > 0 || route.all_unresolved {
                    let all = if route.all_unresolved { " (all)" } else { "" };
                    let _ = write!(out, " 500*{}{all}", route.unresolved_weight);
                }
                for mirror in &route.mirrors {
                    let _ = write!(out, " mirror={mirror:?}");
                }
                if let Some(timeout) = &route.timeout {
                    let _ = write!(out, " timeout={}", serde_json::to_string(timeout).expect("JSON"));
                }
                out.push('\n');
            }
        }
    }
    let clusters: Vec<String> = routes.clusters.iter().map(|c| c.kri.to_string()).collect();
    let _ = write!(out, "clusters: {}", clusters.join(" "));
    out
}

fn check(service: &str, policies: &str, expected: Expect) {
    let world = mk_world(&format!("{SERVICES}\n---\n{policies}"));
    let effective = world.effective();
    assert_eq!(effective.warnings(), [] as [String; 0]);
    let destination = world.destinations.iter().find(|r| r.meta.name == service).expect("known").clone();
    let port = find_port(&destination, "").expect("one port");
    let outbound = destination.kri().expect("has one").with_section(port.section.clone());
    expected.assert_eq(&show(&effective.routing(&outbound, &destination, &port, &world.destinations)));
}

#[test]
fn without_policies() {
    check(
        "backend",
        "",
        expect![[r#"
        9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo= {"path":{"value":"/","type":"PathPrefix"}}: 100*kri_msvc_default___backend_http
        clusters: kri_msvc_default___backend_http"#]],
    );
    check(
        "db",
        "",
        expect![[r#"
        tcp: 100*kri_msvc_default___db_5432
        clusters: kri_msvc_default___db_5432"#]],
    );
}

#[test]
fn splits() {
    check("backend", "
type: MeshHTTPRoute
name: r
spec:
  to:
  - targetRef: {kind: MeshService, labels: {kuma.io/display-name: other}}
    rules: []
  - targetRef: {kind: MeshService, labels: {kuma.io/display-name: backend}, sectionName: http}
    rules:
    - matches: [{path: {type: PathPrefix, value: /split}}]
      default:
        backendRefs:
        - {kind: MeshService, labels: {kuma.io/display-name: backend}, port: 80, weight: 90}
        - {kind: MeshService, labels: {kuma.io/display-name: v1}, sectionName: http}
        - {kind: MeshService, labels: {kuma.io/display-name: gone}, weight: 5}
        - {kind: MeshService, labels: {kuma.io/display-name: db}, weight: 3}
        - {kind: MeshService, labels: {kuma.io/display-name: v1}, weight: 0}
    - matches: [{path: {type: PathPrefix, value: /gone}}]
      default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: gone}}]}
    - matches: [{path: {type: Exact, value: /redirect}}]
      default:
        filters: [{type: RequestRedirect, requestRedirect: {hostname: example.com}}]
        backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: gone}}]
    - matches: [{method: GET}]
      default:
        filters:
        - {type: RequestMirror, requestMirror: {backendRef: {kind: MeshService, labels: {kuma.io/display-name: v1}}}}
        - {type: RequestMirror, requestMirror: {backendRef: {kind: MeshService, labels: {kuma.io/display-name: db}}}}
", expect![[r#"
        kri_mhttpr_default___r_rule_1 {"path":{"value":"/redirect","type":"Exact"}}: 
        kri_mhttpr_default___r_rule_1 {"path":{"value":"/split","type":"PathPrefix"}}: 90*kri_msvc_default___backend_80 1*kri_msvc_default___v1_http 500*8
        kri_mhttpr_default___r_rule_1 {"path":{"value":"/gone","type":"PathPrefix"}}:  500*1 (all)
        kri_mhttpr_default___r_rule_1 {"path":{"value":"/","type":"PathPrefix"},"method":"GET"}: 100*kri_msvc_default___backend_http mirror=Some("kri_msvc_default___v1_http") mirror=None
        9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo= {"path":{"value":"/","type":"PathPrefix"}}: 100*kri_msvc_default___backend_http
        clusters: kri_msvc_default___backend_80 kri_msvc_default___backend_http kri_msvc_default___v1_http"#]]);
}

#[test]
fn routes_of_several_policies_merge_and_names_tell_the_winner() {
    check("backend", "
type: MeshHTTPRoute
name: a
spec:
  to:
  - targetRef: {kind: MeshService, labels: {kuma.io/display-name: backend}}
    rules:
    - {matches: [{path: {type: Exact, value: /1}}], default: {}}
    - matches: [{path: {type: Exact, value: /2}}]
      default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: v1}}]}
---
type: MeshHTTPRoute
name: b
spec:
  to:
  - targetRef: {kind: MeshService, labels: {kuma.io/display-name: backend}}
    rules:
    - matches: [{path: {type: Exact, value: /2}}]
      default:
        filters: [{type: RequestMirror, requestMirror: {backendRef: {kind: MeshService, labels: {kuma.io/display-name: v1}}}}]
    - {matches: [{path: {type: PathPrefix, value: /}}, {path: {type: Exact, value: /3}}], default: {}}
---
type: MeshTimeout
name: t
spec:
  to:
  - targetRef: {kind: Mesh}
    default: {idleTimeout: 9s}
  - targetRef: {kind: MeshHTTPRoute, labels: {kuma.io/display-name: b}}
    default: {http: {requestTimeout: 1s}}
", expect![[r#"
        kri_mhttpr_default___a_rule_0 {"path":{"value":"/1","type":"Exact"}}: 100*kri_msvc_default___backend_http timeout={"idleTimeout":"9s"}
        kri_mhttpr_default___a_rule_0 {"path":{"value":"/2","type":"Exact"}}: 1*kri_msvc_default___v1_http mirror=Some("kri_msvc_default___v1_http") timeout={"idleTimeout":"9s"}
        kri_mhttpr_default___b_rule_0 {"path":{"value":"/3","type":"Exact"}}: 100*kri_msvc_default___backend_http timeout={"idleTimeout":"9s","http":{"requestTimeout":"1s"}}
        kri_mhttpr_default___b_rule_0 {"path":{"value":"/","type":"PathPrefix"}}: 100*kri_msvc_default___backend_http timeout={"idleTimeout":"9s","http":{"requestTimeout":"1s"}}
        clusters: kri_msvc_default___backend_http kri_msvc_default___v1_http"#]]);
}

const TCP_ROUTE: &str = "
type: MeshTCPRoute
name: t
spec:
  to:
  - targetRef: {kind: MeshService, labels: {kuma.io/display-name: TO}}
    rules:
    - default:
        backendRefs:
        - {kind: MeshService, labels: {kuma.io/display-name: BACKEND}, weight: 3}
        - {kind: MeshService, labels: {kuma.io/display-name: v1}, weight: 0}
";
const HTTP_ROUTE: &str = "
---
type: MeshHTTPRoute
name: h
spec:
  to:
  - targetRef: {kind: MeshService, labels: {kuma.io/display-name: TO}}
    rules: [{matches: [{path: {type: PathPrefix, value: /}}], default: {}}]
";

#[test]
fn http_or_tcp() {
    let tcp = |to: &str, backend: &str| TCP_ROUTE.replace("TO", to).replace("BACKEND", backend);
    let http = |to: &str| HTTP_ROUTE.replace("TO", to);
    check(
        "backend",
        &tcp("backend", "db"),
        expect![[r#"
        tcp: 3*kri_msvc_default___db_5432
        clusters: kri_msvc_default___db_5432"#]],
    );
    check(
        "backend",
        &(tcp("backend", "db") + &http("backend")),
        expect![[r#"
        kri_mhttpr_default___h_rule_0 {"path":{"value":"/","type":"PathPrefix"}}: 100*kri_msvc_default___backend_http
        clusters: kri_msvc_default___backend_http"#]],
    );
    // Nothing resolves: an HTTP destination keeps its default route, a TCP destination has no listener.
    check(
        "backend",
        &tcp("backend", "gone"),
        expect![[r#"
        9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo= {"path":{"value":"/","type":"PathPrefix"}}: 100*kri_msvc_default___backend_http
        clusters: kri_msvc_default___backend_http"#]],
    );
    check(
        "db",
        &tcp("db", "gone"),
        expect![[r#"
        tcp: 
        clusters: "#]],
    );
    // HTTP routes mean nothing to a TCP destination.
    check(
        "db",
        &http("db"),
        expect![[r#"
        tcp: 100*kri_msvc_default___db_5432
        clusters: kri_msvc_default___db_5432"#]],
    );
    // Without rules: the destination of the reference.
    check(
        "db",
        "{type: MeshTCPRoute, name: t, spec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: db}}}]}}",
        expect![[r#"
        tcp: 1*kri_msvc_default___db_5432
        clusters: kri_msvc_default___db_5432"#]],
    );
}

#[test]
fn order_of_routes() {
    let sorted = [
        "{path: {type: Exact, value: /a}, method: GET}",
        "{path: {type: Exact, value: /a/long}}",
        "{path: {type: PathPrefix, value: /long}}",
        "{path: {type: PathPrefix, value: /b}, method: GET}",
        "{path: {type: PathPrefix, value: /b}, headers: [{name: x, value: v}, {name: z, value: v}]}",
        "{path: {type: PathPrefix, value: /b}, headers: [{name: x, value: v}], queryParams: [{type: Exact, name: q, value: v}]}",
        "{path: {type: PathPrefix, value: /b}, headers: [{name: x, value: v}]}",
        "{path: {type: PathPrefix, value: /b}}",
        "{path: {type: RegularExpression, value: '/x.*'}}",
        "{path: {type: RegularExpression, value: '.*'}}",
        "{method: GET}",
        "{headers: [{name: x, value: v}]}",
        "{}",
    ];
    let sorted = matches(&format!("[{}]", sorted.join(", ")));
    for (index, lower) in sorted.iter().enumerate() {
        for higher in &sorted[..index] {
            assert!(precedence(higher) < precedence(lower), "{higher:?} comes before {lower:?}");
        }
    }
    // The value of an exact path does not count.
    let exact = matches("[{path: {type: Exact, value: /a}}, {path: {type: Exact, value: /bbb}}]");
    assert!(precedence(&exact[0]) == precedence(&exact[1]));
}
