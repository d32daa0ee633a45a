use super::*;
use expect_test::expect;

fn mk_now() -> Timestamp {
    "2026-08-10T12:00:00Z".parse().expect("time")
}

#[test]
fn a_service_with_conditions() {
    let item = json!({
        "type": "MeshService", "mesh": "default", "name": "web", "kri": "kri_msvc_default_east__web_",
        "creationTime": "2026-08-10T11:00:00Z", "modificationTime": "2026-08-10T11:30:00Z",
        "labels": {"kuma.io/zone": "east", "kuma.io/managed-by": "meshservice-generator"},
        "spec": {"ports": [{"port": 80}]},
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NoProxy", "message": "none is there"}],
            "vips": [{"ip": "241.0.0.1"}]},
    });
    expect![[r#"
        Name:         web
        Kind:         MeshService
        Mesh:         default
        KRI:          kri_msvc_default_east__web_
        Origin:       zone east
        Owner:        meshservice-generator (generated; changes by hand are undone)
        Created:      2026-08-10T11:00:00Z (1h ago)
        Modified:     2026-08-10T11:30:00Z (30m ago)
        Labels:       kuma.io/managed-by=meshservice-generator
                      kuma.io/zone=east
        Conditions:
          CONDITION   STATUS   REASON    MESSAGE
          Ready       False    NoProxy   none is there
        Status:
          vips:
          - ip: "241.0.0.1"
        Spec:
          ports:
          - port: 80
    "#]]
    .assert_eq(&render(Kind::MeshService, &item, &Facts::default(), mk_now(), Style::PLAIN));
}

#[test]
fn a_proxy_that_refuses() {
    let item = json!({"type": "Dataplane", "mesh": "default", "name": "web-1", "networking": {"address": "10.0.0.1"}});
    let insight = json!({"subscriptions": [
        {"connectTime": "2026-08-10T11:00:00Z", "controlPlaneInstanceId": "zone-1",
         "version": {"envoy": {"version": "1.39.3"}, "kumaDp": {"version": "0.1.0"}},
         "status": {"total": {"responsesSent": "3", "responsesAcknowledged": "2", "responsesRejected": "1"}}},
    ]});
    let facts = Facts {
        insight: Some(insight),
        policies: Some(vec![json!({"kind": "MeshTimeout", "origins": [{"kri": "kri_mt_default___t_"}]})]),
        refused: vec![("inbound".into(), "address in use".into())],
        proxies: None,
    };
    expect![[r#"
        Name:         web-1
        Kind:         Dataplane
        Mesh:         default
        Origin:       -
        Owner:        mesh default
        Status:       Online, connected 1h ago
        Envoy:        1.39.3
        Agent:        0.1.0
        Answers:      3 sent, 2 acknowledged, 1 rejected
                      (the reason is in the log of its zone control plane: "rejected")
        Subscriptions:
          CONNECTED   ENDED   CONTROL PLANE   SENT   ACKNOWLEDGED   REJECTED
          1h ago      -       zone-1          3      2              1
        Refused:      inbound: address in use
        Policies:
          Kind          Origins
          MeshTimeout   kri_mt_default___t_
        Spec:
          networking:
            address: "10.0.0.1"
    "#]]
    .assert_eq(&render(Kind::Dataplane, &item, &facts, mk_now(), Style::PLAIN));
}

#[test]
fn secrets_are_not_shown() {
    let item = json!({"type": "Secret", "mesh": "default", "name": "s", "data": "dGVzdA=="});
    let text = render(Kind::Secret, &item, &Facts::default(), mk_now(), Style::PLAIN);
    assert!(!text.contains("dGVzdA"), "{text}");
}

#[test]
fn a_policy_that_applies_to_nothing() {
    let item = json!({"type": "MeshTimeout", "mesh": "default", "name": "t", "labels": {"kuma.io/effect": "shadow"}});
    let facts = Facts { proxies: Some(Vec::new()), ..Facts::default() };
    let text = render(Kind::MeshTimeout, &item, &facts, mk_now(), Style::PLAIN);
    assert!(text.contains("Applies to:   no proxy") && text.contains("Effect:       shadow"), "{text}");
}
