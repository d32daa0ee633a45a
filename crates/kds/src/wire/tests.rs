use graticule_model::{Kind, Resource, yaml};
use proptest::prelude::*;

use super::*;

fn mk(kind: Kind, text: &str) -> Resource {
    Resource::from_rest(kind, &yaml::parse_one(text).unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// federation.md §2.4, example A.
#[test]
fn protobuf_class() {
    let mesh = mk(
        Kind::Mesh,
        "{type: Mesh, name: default, skipCreatingInitialPolicies: ['*'],
          labels: {kuma.io/origin: global, kuma.io/display-name: default}}",
    );
    let encoded = Encoded::of(&mesh).unwrap();
    let want = unhex(
        "0a44 0a07 64656661756c74
         321f 0a14 6b756d612e696f2f646973706c61792d6e616d65 1207 64656661756c74
         3218 0a0e 6b756d612e696f2f6f726967696e 1206 676c6f62616c
         1232 0a2b 747970652e676f6f676c65617069732e636f6d2f6b756d612e6d6573682e7631616c706861312e4d657368
         1203 42012a",
    );
    assert_eq!(encoded.bytes, want);
    assert_eq!(&*encoded.version, "37bbfb994c396a155158bd3f62fefd522ab9cea213f98df18bfe3cd193a3aab0");
    assert_eq!(encoded.name, "default.");
    assert_eq!(decode(Kind::Mesh, &encoded.to_discovery()).unwrap(), mesh);
}

/// federation.md §2.4, example B.
#[test]
fn json_class() {
    let timeout = mk(
        Kind::MeshTimeout,
        "{type: MeshTimeout, mesh: default, name: timeout-all-2wbxwvfffv2z82fc,
          labels: {kuma.io/display-name: timeout-all, kuma.io/mesh: default, kuma.io/origin: global},
          spec: {targetRef: {kind: Mesh}, to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 20s}}]}}",
    );
    let encoded = Encoded::of(&timeout).unwrap();
    assert_eq!(encoded.name, "timeout-all-2wbxwvfffv2z82fc.default");
    let message = mesh_pb::KumaResource::decode(encoded.bytes.as_slice()).unwrap();
    assert_eq!(message.meta.as_ref().unwrap().encoded_len(), 127);
    let spec = message.spec.unwrap();
    assert_eq!(spec.type_url, "");
    let want = r#"{"targetRef":{"kind":"Mesh"},"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"20s"}}]}"#;
    // The order of members is free, nothing else.
    assert_eq!(spec.value.len(), want.len());
    let parsed: serde_json::Value = serde_json::from_slice(&spec.value).unwrap();
    assert_eq!(parsed, serde_json::from_str::<serde_json::Value>(want).unwrap());
    assert_eq!(message.status, None);
    assert_eq!(decode(Kind::MeshTimeout, &encoded.to_discovery()).unwrap(), timeout);
}

#[test]
fn round_trips() {
    for (kind, text) in [
        (
            Kind::Dataplane,
            "{type: Dataplane, mesh: default, name: dp, networking: {address: 10.0.0.1, admin: {port: 9901},
              inbound: [{port: 80, servicePort: 8080, name: main, protocol: http, state: NotReady,
                         serviceProbe: {interval: 1.5s, timeout: 2s, healthyThreshold: 1, tcp: {}}}],
              outbound: [{port: 9000, backendRef: {kind: MeshService, name: x, port: 80, labels: {a: b}}}],
              transparentProxying: {redirectPortInbound: 1, redirectPortOutbound: 2, ipFamilyMode: IPv4,
                                    reachableBackends: {refs: [{kind: MeshService, name: x, port: 5}]}},
              listeners: [{type: ZoneIngress, address: 10.0.0.2, port: 10001, state: NotReady}]}}",
        ),
        (
            Kind::DataplaneInsight,
            "{type: DataplaneInsight, mesh: default, name: dp,
              metadata: {dynamicMetadata: {a: '1'}, n: 3, f: 1.5, l: [true, x]},
              mTLS: {certificateRegenerations: 2, issuedBackend: kri_mid_default___i_,
                     certificateExpirationTime: '2026-01-02T03:04:05.000000006Z'},
              subscriptions: [{id: a, controlPlaneInstanceId: cp, connectTime: '2026-01-02T03:04:05Z', generation: 3,
                               status: {total: {responsesSent: '4'}, cds: {}, eds: {}, lds: {}, rds: {}},
                               version: {kumaDp: {version: 1.0.0}, envoy: {version: 1.39.3}, dependencies: {c: d}}}]}",
        ),
        (Kind::Secret, "{type: Secret, mesh: default, name: s, data: aGVsbG8=}"),
        (Kind::GlobalSecret, "{type: GlobalSecret, name: s, data: aGVsbG8=}"),
        (
            Kind::MeshService,
            "{type: MeshService, mesh: default, name: s, spec: {state: Available, ports: [{port: 80}]},
              status: {vips: [{ip: 241.0.0.1}], tls: {status: Ready}, dataplaneProxies: {total: 2}}}",
        ),
    ] {
        let resource = mk(kind, text);
        let encoded = Encoded::of(&resource).unwrap();
        let decoded = decode(kind, &encoded.to_discovery()).unwrap();
        assert_eq!(decoded, resource, "{kind}");
        assert_eq!(Encoded::of(&decoded).unwrap(), encoded, "{kind}");
    }
}

#[test]
fn bad_resources_are_named() {
    let message = |spec: Option<Any>| discovery::Resource {
        name: "x.default".into(),
        resource: Some(Any {
            type_url: RESOURCE_TYPE_URL.into(),
            value: mesh_pb::KumaResource {
                meta: Some(kuma_resource::Meta {
                    name: "x".into(),
                    mesh: "default".into(),
                    ..Default::default()
                }),
                spec,
                status: None,
            }
            .encode_to_vec(),
        }),
        ..Default::default()
    };
    let json = |text: &str| Some(Any { type_url: String::new(), value: text.into() });
    let typed = Some(Any { type_url: "type.googleapis.com/kuma.mesh.v1alpha1.Mesh".into(), value: vec![] });
    for (kind, spec, want) in [
        (Kind::MeshTimeout, None, "spec: is missing"),
        (Kind::MeshTimeout, json(""), "spec: unreadable JSON"),
        (Kind::MeshTimeout, json("[]"), "spec: must be a JSON object"),
        (Kind::MeshTimeout, json(r#"{"to":1}"#), "spec: to"),
        (Kind::MeshTimeout, typed.clone(), "spec: has type"),
        (Kind::Dataplane, typed, "spec: has type"),
        (Kind::Zone, json("{}"), "do not travel"),
    ] {
        let error = decode(kind, &message(spec)).unwrap_err();
        assert_eq!(error.name, "x.default");
        assert!(error.reason.contains(want), "{kind}: {}", error.reason);
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), which in any::<prop::sample::Index>()) {
        let kinds: Vec<Kind> = Kind::all().collect();
        let kind = kinds[which.index(kinds.len())];
        let any = |type_url: &str| Any { type_url: type_url.into(), value: bytes.clone() };
        let resource = |any| discovery::Resource { resource: Some(any), ..Default::default() };
        let _ = decode(kind, &resource(any(RESOURCE_TYPE_URL)));
        for type_url in ["", "x/kuma.mesh.v1alpha1.Dataplane", "x/kuma.mesh.v1alpha1.DataplaneInsight", "x/kuma.system.v1alpha1.Secret"] {
            let message = mesh_pb::KumaResource {
                meta: Some(kuma_resource::Meta { name: "n".into(), mesh: "m".into(), ..Default::default() }),
                spec: Some(any(type_url)),
                status: Some(any("")),
            };
            let _ = from_message(kind, message);
        }
    }
}
