use graticule_model::kinds::mesh_zone_address::MeshZoneAddress;
use graticule_model::kinds::secret::{Secret, SecretBytes};
use graticule_model::yaml;

use super::*;

fn mk_address(name: &str) -> Resource {
    let mut meta = Meta::new("default", name);
    meta.labels.insert("a".into(), "1".into());
    meta.creation_time = "2025-01-02T03:04:05.678901234Z".parse().expect("a time");
    meta.modification_time = "1969-12-31T23:59:59.5Z".parse().expect("a time");
    meta.version = 7;
    meta.owner = Some(Key::new(Kind::Mesh, "", "default"));
    Resource::new(meta, MeshZoneAddress { address: "10.0.0.9".into(), port: 10001 })
}

fn through(resource: &Resource) -> Result<Resource, DecodeError> {
    let bytes = bytes(&encode_resource(resource));
    decode_resource(message("a resource", bytes)?)
}

#[test]
fn resources_survive() {
    let secret = Resource::new(Meta::new("default", "s"), Secret { data: SecretBytes(vec![0, 1, 254, 255]) });
    let policy = "{type: MeshTimeout, mesh: default, name: t, spec: {targetRef: {kind: Mesh}, to: [{targetRef: {kind: Mesh}, default: {connectionTimeout: 3s, http: {requestTimeout: 0s}}}]}}";
    let service = "{type: MeshService, mesh: default, name: s, spec: {selector: {dataplaneTags: {a: b}}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}, status: {vips: [{ip: 241.0.0.1}]}}";
    let dataplane = "{type: Dataplane, mesh: default, name: d, networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: a}, state: NotReady}]}}";
    let mut resources = vec![mk_address("a"), secret];
    for (kind, text) in
        [(Kind::MeshTimeout, policy), (Kind::MeshService, service), (Kind::Dataplane, dataplane)]
    {
        let value = yaml::parse_one(text).expect("YAML");
        resources.push(Resource::from_stored(kind, &value).expect("a resource"));
    }
    for resource in resources {
        assert_eq!(through(&resource).expect("decodes"), resource, "{}", resource.key());
    }
}

#[test]
fn transactions_survive() {
    let txn = Txn {
        at: Some("2025-01-02T03:04:05.678901234Z".parse().expect("a time")),
        writes: vec![
            Write::Put { resource: Box::new(mk_address("a")), expect: Expect::Absent, touch: true },
            Write::Put { resource: Box::new(mk_address("b")), expect: Expect::Version(9), touch: false },
            Write::Delete { key: mk_address("c").key(), expect: Expect::Present },
            Write::Delete { key: mk_address("d").key(), expect: Expect::Any },
        ],
    };
    let encoded = encode_txn(&txn);
    let decoded = decode_txn(encoded.clone()).expect("decodes");
    assert!(encode_txn(&decoded) == encoded);
    assert_eq!(format!("{decoded:?}"), format!("{txn:?}"));
}

#[test]
fn what_is_not_understood_is_refused() {
    let mut newer = encode_resource(&mk_address("a"));
    if let Some(key) = &mut newer.key {
        key.kind = "MeshWormhole".into();
    }
    let error = decode_resource(newer).expect_err("unknown");
    assert!(
        error.to_string().contains("MeshWormhole") && error.to_string().contains("newer version"),
        "{error}"
    );

    let mut unreadable = encode_resource(&mk_address("a"));
    unreadable.spec = Bytes::from_static(b"{\"port\": []}");
    let error = decode_resource(unreadable).expect_err("unreadable");
    assert!(error.to_string().contains("MeshZoneAddress") && error.to_string().contains("port"), "{error}");

    let write =
        wire::Write { expect: 77, delete: Some(encode_key(&mk_address("a").key())), ..Default::default() };
    assert!(decode_write(write).is_err(), "an unknown precondition must not count as none");
    assert!(decode_write(wire::Write::default()).is_err());
    let garbage = Bytes::from_static(&[0xff; 40]);
    assert!(message::<wire::Txn>("a transaction", garbage).is_err());
}
