use expect_test::{Expect, expect};

use super::*;
use crate::testing::{World, mk_resource, mk_world, show_rules};

const KV: &str =
    "{type: MeshService, name: kv, spec: {ports: [{port: 80, name: http, appProtocol: http}]}}\n---\n";

fn check_timeouts(policies: &str, expected: Expect) {
    let effective = mk_world(&format!("{KV}{policies}")).effective();
    assert_eq!(effective.warnings(), [] as [String; 0]);
    expected.assert_eq(&show_rules(&effective.of(Kind::MeshTimeout).expect("there are").outbound));
}

/// Names of the policies of the mesh that select the proxy, lowest priority first.
fn matched(world: &World) -> String {
    let effective = world.effective();
    let result = effective.of(Kind::MeshTimeout).cloned().unwrap_or_default();
    let names: Vec<&str> = result.matched.iter().map(|policy| policy.meta.name.as_str()).collect();
    names.join(" ")
}

/// Of each pair, `a` has the higher priority (policy-engine.md §3.1).
#[test]
fn comparators() {
    let dataplane = "{type: Dataplane, name: dp, labels: {kuma.io/origin: zone, k8s.kuma.io/namespace: ns}, networking: {address: 10.0.0.1, inbound: [{port: 80, name: main}]}}";
    for (what, a, b) in [
        (
            "top-level kind",
            "spec: {targetRef: {kind: Dataplane}}",
            "labels: {kuma.io/origin: zone}, spec: {}",
        ),
        (
            "section",
            "spec: {targetRef: {kind: Dataplane, sectionName: main}}",
            "spec: {targetRef: {kind: Dataplane, labels: {kuma.io/display-name: dp}}}",
        ),
        ("origin zone", "labels: {kuma.io/origin: zone}, spec: {}", "spec: {}"),
        ("origin unknown", "spec: {}", "labels: {kuma.io/origin: global}, spec: {}"),
        (
            "origin that means nothing",
            "labels: {kuma.io/origin: global}, spec: {}",
            "labels: {kuma.io/origin: moon}, spec: {}",
        ),
        (
            "producer",
            "labels: {kuma.io/policy-role: producer}, spec: {}",
            "labels: {kuma.io/policy-role: system}, spec: {}",
        ),
        (
            "consumer",
            "labels: {kuma.io/policy-role: consumer, k8s.kuma.io/namespace: ns}, spec: {}",
            "labels: {kuma.io/policy-role: producer}, spec: {}",
        ),
        (
            "workload owner",
            "labels: {kuma.io/policy-role: workload-owner, k8s.kuma.io/namespace: ns}, spec: {}",
            "labels: {kuma.io/policy-role: consumer, k8s.kuma.io/namespace: ns}, spec: {}",
        ),
        (
            "name",
            "labels: {kuma.io/display-name: a}, spec: {}",
            "labels: {kuma.io/display-name: b}, spec: {}",
        ),
        (
            "labels do not count",
            "labels: {kuma.io/display-name: a}, spec: {targetRef: {kind: Dataplane}}",
            "labels: {kuma.io/display-name: b}, spec: {targetRef: {kind: Dataplane, labels: {kuma.io/origin: zone}}}",
        ),
    ] {
        // Alone, the names would give `a` the lower priority.
        let (a, b) = (
            format!("{{type: MeshTimeout, name: two, {a}}}"),
            format!("{{type: MeshTimeout, name: one, {b}}}"),
        );
        for policies in [format!("{a}\n---\n{b}"), format!("{b}\n---\n{a}")] {
            assert_eq!(matched(&mk_world(&format!("{dataplane}\n---\n{policies}"))), "one two", "{what}");
        }
    }
    // Equal in everything: the larger stored name wins.
    let same = "labels: {kuma.io/display-name: same}, spec: {}";
    let same =
        format!("{{type: MeshTimeout, name: two, {same}}}\n---\n{{type: MeshTimeout, name: one, {same}}}");
    assert_eq!(matched(&mk_world(&same)), "one two");
}

#[test]
fn selection() {
    for (dataplane, policy, selects) in [
        ("", "spec: {}", true),
        ("", "spec: {targetRef: {kind: Dataplane, labels: {}}}", true),
        ("labels: {app: demo}", "spec: {targetRef: {kind: Dataplane, labels: {app: demo}}}", true),
        ("labels: {app: demo}", "spec: {targetRef: {kind: Dataplane, labels: {app: demo, v: '1'}}}", false),
        ("", "spec: {targetRef: {kind: Dataplane, labels: {kuma.io/display-name: dp}}}", true),
        (
            "labels: {kuma.io/display-name: shown}",
            "spec: {targetRef: {kind: Dataplane, labels: {kuma.io/display-name: dp}}}",
            false,
        ),
        ("", "spec: {targetRef: {kind: Dataplane, sectionName: main}}", true),
        ("", "spec: {targetRef: {kind: Dataplane, sectionName: '80'}}", false),
        ("", "spec: {targetRef: {kind: Dataplane, sectionName: '90'}}", true),
        ("", "labels: {kuma.io/effect: shadow}, spec: {}", false),
        // Zone gate.
        (
            "labels: {kuma.io/origin: zone, kuma.io/zone: west}",
            "labels: {kuma.io/origin: zone, kuma.io/zone: east}, spec: {}",
            false,
        ),
        (
            "labels: {kuma.io/origin: zone, kuma.io/zone: west}",
            "labels: {kuma.io/origin: zone, kuma.io/zone: west}, spec: {}",
            true,
        ),
        (
            "labels: {kuma.io/origin: zone, kuma.io/zone: west}",
            "labels: {kuma.io/origin: zone}, spec: {}",
            true,
        ),
        (
            "labels: {kuma.io/origin: zone}",
            "labels: {kuma.io/origin: zone, kuma.io/zone: east}, spec: {}",
            true,
        ),
        (
            "labels: {kuma.io/origin: zone, kuma.io/zone: west}",
            "labels: {kuma.io/origin: zone, kuma.io/zone: east, kuma.io/policy-role: producer}, spec: {}",
            true,
        ),
        (
            "labels: {kuma.io/origin: global}",
            "labels: {kuma.io/origin: zone, kuma.io/zone: east}, spec: {}",
            true,
        ),
        // Namespace gate.
        (
            "labels: {k8s.kuma.io/namespace: a}",
            "labels: {kuma.io/policy-role: consumer, k8s.kuma.io/namespace: b}, spec: {}",
            false,
        ),
        (
            "labels: {k8s.kuma.io/namespace: a}",
            "labels: {kuma.io/policy-role: consumer, k8s.kuma.io/namespace: a}, spec: {}",
            true,
        ),
        ("", "labels: {kuma.io/policy-role: workload-owner}, spec: {}", false),
        ("labels: {k8s.kuma.io/namespace: a}", "labels: {k8s.kuma.io/namespace: b}, spec: {}", true),
    ] {
        let dataplane = if dataplane.is_empty() { "labels: {}" } else { dataplane };
        let world = mk_world(&format!(
            "{{type: Dataplane, name: dp, {dataplane}, networking: {{address: 10.0.0.1, inbound: [{{port: 80, name: main}}, {{port: 90, state: Ignored}}]}}}}\n---\n{{type: MeshTimeout, name: t, {policy}}}"
        ));
        assert_eq!(matched(&world), if selects { "t" } else { "" }, "{dataplane} / {policy}");
    }
}

#[test]
fn proxies_without_listeners() {
    let policy =
        "{type: MeshTimeout, name: t, spec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 1s}}]}}";
    for (networking, selects) in [
        ("{address: 10.0.0.1}", false),
        ("{address: 10.0.0.1, gateway: {tags: {a: b}}}", true),
        ("{address: 10.0.0.1, gateway: {type: DELEGATED}}", true),
        ("{address: 10.0.0.1, listeners: [{type: ZoneIngress, port: 10001}]}", true),
    ] {
        let world =
            mk_world(&format!("{{type: Dataplane, name: dp, networking: {networking}}}\n---\n{policy}"));
        assert_eq!(matched(&world), if selects { "t" } else { "" }, "{networking}");
        let outbound =
            world.effective().of(Kind::MeshTimeout).map_or(0, |result| result.outbound.rules.len());
        assert_eq!(outbound, usize::from(selects), "{networking}");
    }
}

#[test]
fn example_a_top_level_before_to_kind() {
    check_timeouts("
{type: MeshTimeout, name: t-mesh, spec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: kv}}, default: {idleTimeout: 30s, http: {requestTimeout: 1s}}}]}}
---
{type: MeshTimeout, name: t-dp, spec: {targetRef: {kind: Dataplane}, to: [{targetRef: {kind: Mesh}, default: {http: {requestTimeout: 5s}}}]}}
", expect![[r#"
    kri_m____default_ = {"http":{"requestTimeout":"5s"}} [t-dp#0]
    kri_msvc_default___kv_ = {"http":{"requestTimeout":"5s"},"idleTimeout":"30s"} [t-mesh#0, t-dp#0]
"#]]);
}

#[test]
fn example_b_one_policy() {
    check_timeouts(
        "
type: MeshTimeout
name: t
spec:
  to:
  - {targetRef: {kind: Mesh}, default: {idleTimeout: 9s}}
  - {targetRef: {kind: MeshService, labels: {kuma.io/display-name: kv}}, default: {connectionTimeout: 11s}}
  - {targetRef: {kind: Mesh}, default: {connectionTimeout: 21s}}
",
        expect![[r#"
    kri_m____default_ = {"connectionTimeout":"21s","idleTimeout":"9s"} [t#0, t#2]
    kri_msvc_default___kv_ = {"connectionTimeout":"11s","idleTimeout":"9s"} [t#0, t#2, t#1]
"#]],
    );
}

#[test]
fn example_c_routes_do_not_inherit_from_services() {
    check_timeouts("
{type: MeshHTTPRoute, name: r1, spec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: kv}}}]}}
---
type: MeshTimeout
name: t
spec:
  to:
  - {targetRef: {kind: MeshService, labels: {kuma.io/display-name: kv}}, default: {idleTimeout: 30s, http: {requestTimeout: 25s}}}
  - {targetRef: {kind: MeshHTTPRoute, labels: {kuma.io/display-name: r1}}, default: {http: {requestTimeout: 15s}}}
  - {targetRef: {kind: Mesh}, default: {connectionTimeout: 10s, http: {requestTimeout: 5s}}}
", expect![[r#"
    kri_m____default_ = {"connectionTimeout":"10s","http":{"requestTimeout":"5s"}} [t#2]
    kri_msvc_default___kv_ = {"connectionTimeout":"10s","http":{"requestTimeout":"25s"},"idleTimeout":"30s"} [t#2, t#0]
    kri_mhttpr_default___r1_ = {"connectionTimeout":"10s","http":{"requestTimeout":"15s"}} [t#2, t#1]
"#]]);
}

#[test]
fn example_d_inbound() {
    let world = mk_world("
{type: MeshTimeout, name: g, spec: {rules: [{default: {idleTimeout: 7s, connectionTimeout: 7s}}]}}
---
type: MeshTimeout
name: s
spec:
  targetRef: {kind: Dataplane, sectionName: admin}
  rules:
  - matches: [{spiffeID: {type: Prefix, value: spiffe://td/ns/a}}, {spiffeID: {type: Exact, value: spiffe://td/ns/a/sa/x}}]
    default: {http: {requestTimeout: 2s}}
  - default: {connectionTimeout: 3s}
");
    let effective = world.effective();
    let show = |port| {
        let rules = effective.inbound(Kind::MeshTimeout, "10.0.0.1", port).expect("selected");
        let lines = rules.rules.iter().map(|rule| {
            let condition = serde_json::to_string(&rule.r#match).expect("JSON");
            format!("{condition} {}#{}\n", rule.origin.policy.meta.name, rule.origin.rule_index)
        });
        lines.collect::<String>() + &serde_json::to_string(&rules.catch_all).expect("JSON")
    };
    expect![[r#"
        {"spiffeID":{"type":"Exact","value":"spiffe://td/ns/a/sa/x"}} s#0
        {"spiffeID":{"type":"Prefix","value":"spiffe://td/ns/a"}} s#0
        null g#0
        null s#1
        {"connectionTimeout":"3s","idleTimeout":"7s"}"#]]
    .assert_eq(&show(9090));
    expect![[r#"
        null g#0
        {"connectionTimeout":"7s","idleTimeout":"7s"}"#]]
    .assert_eq(&show(8080));
}

/// The labels are those that federation leaves in each zone.
#[test]
fn example_e_across_zones() {
    let service = "{type: MeshService, name: kv-hash, labels: {kuma.io/display-name: kv, kuma.io/zone: east, k8s.kuma.io/namespace: shop}, spec: {ports: [{port: 80}]}}";
    let policy = |name: &str, origin: &str, zone: &str, more: &str, to: &str, conf: &str| {
        format!(
            "{{type: MeshTimeout, name: {name}, labels: {{kuma.io/origin: {origin}, {zone} {more}}}, spec: {{to: [{{targetRef: {{kind: {to}}}, default: {conf}}}]}}}}"
        )
    };
    let kv = "MeshService, labels: {kuma.io/display-name: kv}";
    let producer = "kuma.io/policy-role: producer, k8s.kuma.io/namespace: shop";
    let g = policy("g", "global", "", "", kv, "{idleTimeout: 9s, http: {requestTimeout: 9s}}");
    let dataplane = |zone: &str| {
        format!(
            "{{type: Dataplane, name: dp, labels: {{kuma.io/origin: zone, kuma.io/zone: {zone}}}, networking: {{address: 10.0.0.1, inbound: [{{port: 80}}]}}}}"
        )
    };
    let p_in_west =
        policy("p", "global", "kuma.io/zone: east,", producer, kv, "{http: {requestTimeout: 1s}}");
    let z = policy("z", "zone", "kuma.io/zone: west,", "", "Mesh", "{http: {requestTimeout: 4s}}");
    let west =
        mk_world(&[&dataplane("west"), service, &g, &p_in_west, &z].map(|s| s.to_owned()).join("\n---\n"));
    expect![[r#"
        kri_m____default_ = {"http":{"requestTimeout":"4s"}} [z#0]
        kri_msvc_default_east_shop_kv_ = {"http":{"requestTimeout":"4s"},"idleTimeout":"9s"} [g#0, p#0, z#0]
    "#]]
    .assert_eq(&show_rules(&west.effective().of(Kind::MeshTimeout).expect("there are").outbound));
    let p_in_east = policy("p", "zone", "kuma.io/zone: east,", producer, kv, "{http: {requestTimeout: 1s}}");
    let east =
        mk_world(&[&dataplane("east"), service, &g, &p_in_east, &z].map(|s| s.to_owned()).join("\n---\n"));
    expect![[r#"
        kri_msvc_default_east_shop_kv_ = {"http":{"requestTimeout":"1s"},"idleTimeout":"9s"} [g#0, p#0]
    "#]]
    .assert_eq(&show_rules(&east.effective().of(Kind::MeshTimeout).expect("there are").outbound));
}

#[test]
fn sections_inherit_from_services_and_look_ups_fall_back() {
    let world = mk_world(&format!("{KV}
type: MeshTimeout
name: t
spec:
  to:
  - {{targetRef: {{kind: MeshService, labels: {{kuma.io/display-name: kv}}, sectionName: http}}, default: {{idleTimeout: 1s}}}}
  - {{targetRef: {{kind: MeshService, labels: {{kuma.io/display-name: kv}}}}, default: {{idleTimeout: 2s, connectionTimeout: 2s}}}}
  - {{targetRef: {{kind: MeshService, labels: {{kuma.io/display-name: kv}}, sectionName: '80'}}, default: {{idleTimeout: 3s}}}}
  - {{targetRef: {{kind: Mesh}}, default: {{}}}}
"));
    let effective = world.effective();
    expect![[r#"
        kri_m____default_ = {} [t#3]
        kri_msvc_default___kv_ = {"connectionTimeout":"2s","idleTimeout":"2s"} [t#3, t#1]
        kri_msvc_default___kv_http = {"connectionTimeout":"2s","idleTimeout":"1s"} [t#3, t#1, t#0]
    "#]]
    .assert_eq(&show_rules(&effective.of(Kind::MeshTimeout).expect("there are").outbound));
    let timeout = |key: &str| {
        let timeout = effective.outbound_timeout(&Kri::parse(key).expect("a KRI"));
        timeout.map(|conf| conf.idle_timeout.expect("set").to_string())
    };
    assert_eq!(timeout("kri_msvc_default___kv_http").as_deref(), Some("1s"));
    assert_eq!(timeout("kri_msvc_default___kv_80").as_deref(), Some("2s"));
    // The rule of the mesh configures nothing: contexts pass over it, plain look-ups do not.
    let other = Kri::parse("kri_msvc_default___other_80").expect("a KRI");
    assert_eq!(effective.outbound_timeout(&other), None);
    assert!(effective.rule(Kind::MeshTimeout, &other).is_some());
}

#[test]
fn typed_answers_about_listeners() {
    let world = mk_world("
{type: MeshTLS, name: b, spec: {rules: [{default: {mode: Permissive, tlsCiphers: [ECDHE-RSA-AES128-GCM-SHA256]}}]}}
---
{type: MeshTLS, name: admin, spec: {targetRef: {kind: Dataplane, sectionName: admin}, rules: [{default: {mode: Strict}}]}}
---
{type: MeshTimeout, name: t, spec: {targetRef: {kind: Dataplane, sectionName: admin}, rules: [{matches: [{sni: {type: Exact, value: a.b}}], default: {idleTimeout: 1s}}]}}
---
{type: MeshTrafficPermission, name: p, spec: {rules: [{default: {allow: [{spiffeID: {type: Prefix, value: spiffe://td/a}}]}}]}}
");
    let effective = world.effective();
    let admin = effective.inbound_tls("10.0.0.1", 9090);
    let main = effective.inbound_tls("10.0.0.1", 8080);
    assert_eq!((admin.mode, main.mode), (Some(mesh_tls::Mode::Strict), Some(mesh_tls::Mode::Permissive)));
    assert_eq!(effective.inbound_tls("10.0.0.1", 1).mode, Some(mesh_tls::Mode::Strict));
    assert_eq!(effective.mesh_tls_params().tls_ciphers.map(|ciphers| ciphers.len()), Some(1));
    assert_eq!(effective.inbound_timeout("10.0.0.1", 9090), InboundTimeout::Untouched);
    assert_eq!(effective.inbound_timeout("10.0.0.1", 8080), InboundTimeout::Defaults);
    let permissions = effective.permissions("10.0.0.1", 8080);
    let [permission] = permissions.as_slice() else { panic!("one rule, not {permissions:?}") };
    assert_eq!(permission.policy, "kri_mtp_default___p_");
    assert_eq!(effective.permissions("10.0.0.2", 8080), []);
    // A proxy without inbounds still has the mesh's TLS parameters.
    let without = World {
        dataplane: mk_resource("{type: Dataplane, name: x, networking: {address: 10.0.0.9}}"),
        ..world
    };
    assert_eq!(without.effective().mesh_tls_params().tls_ciphers.map(|ciphers| ciphers.len()), Some(1));
}

/// Stored policies of older versions never stop the others.
#[test]
fn legacy_references() {
    let policies = "
{type: MeshTimeout, name: on-service, spec: {targetRef: {kind: MeshService, labels: {a: b}}, to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 1s}}]}}
---
{type: MeshTimeout, name: fine, spec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 2s}}]}}
---
{type: MeshTimeout, name: on-route, spec: {targetRef: {kind: MeshHTTPRoute, labels: {kuma.io/display-name: ROUTE}}, to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 3s}}]}}
---
{type: MeshHTTPRoute, name: r, spec: {targetRef: {kind: Dataplane, labels: {app: demo}}, to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: kv}}, rules: [{matches: [{method: GET}], default: {}}]}]}}
";
    let effective = mk_world(&format!("{KV}{}", policies.replace("ROUTE", "r"))).effective();
    expect![[r#"
        kri_m____default_ = {"idleTimeout":"2s"} [fine#0]
        kri_msvc_default___kv_ = {"idleTimeout":"3s"} [fine#0, on-route#0]
    "#]]
    .assert_eq(&show_rules(&effective.of(Kind::MeshTimeout).expect("there are").outbound));
    expect!["unable to resolve TargetRef on policy: mesh:default name:on-service error:\"unsupported targetRef kind 'MeshService'\""]
        .assert_eq(&effective.warnings().join("\n"));
    let effective = mk_world(&format!("{KV}{}", policies.replace("ROUTE", "gone"))).effective();
    expect![[r#"
        unable to resolve TargetRef on policy: mesh:default name:on-service error:"unsupported targetRef kind 'MeshService'"
        unable to resolve TargetRef on policy: mesh:default name:on-route error:"couldn't resolve MeshHTTPRoute targetRef with labels map[kuma.io/display-name:gone]""#]]
    .assert_eq(&effective.warnings().join("\n"));
}

#[test]
fn memo_shares_until_something_changes() {
    let mut world = mk_world(&format!("{KV}
{{type: MeshTimeout, name: t, spec: {{to: [{{targetRef: {{kind: MeshService, labels: {{kuma.io/display-name: kv}}}}, default: {{idleTimeout: 1s}}}}]}}}}
---
{{type: MeshTrafficPermission, name: p, spec: {{rules: [{{default: {{}}}}]}}}}
"));
    let mut memo = Memo::default();
    let mut ask = |world: &World, dataplane: &Arc<Resource>| {
        let options = MatchOptions::default();
        let effective =
            memo.effective(&world.policies, &world.destinations, Some(&world.mesh), dataplane, options);
        assert_eq!(
            effective,
            crate::effective(&world.policies, &world.destinations, Some(&world.mesh), dataplane, options)
        );
        effective.of(Kind::MeshTimeout).expect("there is one").outbound.clone()
    };
    let other =
        mk_resource("{type: Dataplane, name: x, networking: {address: 10.0.0.9, inbound: [{port: 1}]}}");
    let dataplane = world.dataplane.clone();
    let first = ask(&world, &dataplane);
    assert!(Arc::ptr_eq(&first, &ask(&world, &other)), "the same policies select both");
    world
        .policies
        .insert(mk_resource("{type: MeshTrafficPermission, name: q, spec: {rules: [{default: {}}]}}"));
    assert!(Arc::ptr_eq(&first, &ask(&world, &dataplane)), "another kind changed");
    world.destinations.insert(mk_resource("{type: MeshService, name: kv-2, labels: {kuma.io/display-name: kv, kuma.io/zone: west}, spec: {ports: [{port: 1}]}}"));
    let second = ask(&world, &dataplane);
    assert_eq!((first.rules.len(), second.rules.len()), (1, 2));
    world.policies.insert(mk_resource("{type: MeshTimeout, name: t, spec: {to: []}}"));
    assert_eq!(ask(&world, &dataplane).rules.len(), 0);
    let key = world.policies.of(Kind::MeshTimeout)[0].resource.key();
    assert!(world.policies.remove(&key) && !world.policies.remove(&key));
    assert!(world.policies.of(Kind::MeshTimeout).is_empty());
}
