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

const PLAIN: &Sealer = &Sealer::NONE;

fn key_line(id: &str) -> String {
    format!("{id} MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
}

fn sealer(id: &str) -> Sealer {
    Sealer::parse(&key_line(id)).expect("a key file")
}

fn through(resource: &Resource, sealer: &Sealer) -> Result<Resource, DecodeError> {
    let bytes = bytes(&encode_resource(resource, sealer));
    decode_resource(message("a resource", bytes)?, sealer)
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
        for sealer in [PLAIN, &sealer("k")] {
            assert_eq!(through(&resource, sealer).expect("decodes"), resource, "{}", resource.key());
        }
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
    let encoded = encode_txn(&txn, PLAIN);
    let decoded = decode_txn(encoded.clone(), PLAIN).expect("decodes");
    assert!(encode_txn(&decoded, PLAIN) == encoded);
    assert_eq!(format!("{decoded:?}"), format!("{txn:?}"));
}

#[test]
fn what_is_not_understood_is_refused() {
    let mut newer = encode_resource(&mk_address("a"), PLAIN);
    if let Some(key) = &mut newer.key {
        key.kind = "MeshWormhole".into();
    }
    let error = decode_resource(newer, PLAIN).expect_err("unknown");
    assert!(
        error.to_string().contains("MeshWormhole") && error.to_string().contains("newer version"),
        "{error}"
    );

    let mut unreadable = encode_resource(&mk_address("a"), PLAIN);
    unreadable.spec = Bytes::from_static(b"{\"port\": []}");
    let error = decode_resource(unreadable, PLAIN).expect_err("unreadable");
    assert!(error.to_string().contains("MeshZoneAddress") && error.to_string().contains("port"), "{error}");

    let write =
        wire::Write { expect: 77, delete: Some(encode_key(&mk_address("a").key())), ..Default::default() };
    assert!(decode_write(write, PLAIN).is_err(), "an unknown precondition must not count as none");
    assert!(decode_write(wire::Write::default(), PLAIN).is_err());
    let garbage = Bytes::from_static(&[0xff; 40]);
    assert!(message::<wire::Txn>("a transaction", garbage).is_err());
}

#[test]
fn secrets_are_sealed_and_plain_ones_are_still_read() {
    let secret = Resource::new(Meta::new("default", "s"), Secret { data: SecretBytes(b"hunter2".to_vec()) });
    let plain = encode_resource(&secret, PLAIN);
    let sealed = encode_resource(&secret, &sealer("new"));
    assert!(sealed.spec.is_empty() && !plain.spec.is_empty());
    for (stored, is_current) in
        [(plain, false), (encode_resource(&secret, &sealer("old")), false), (sealed, true)]
    {
        let both = format!("{}\n{}", key_line("new"), key_line("old"));
        let both = Sealer::parse(&both).expect("a key file");
        assert_eq!(is_outdated(&stored, &both), !is_current);
        assert!(!is_outdated(&stored, PLAIN), "without a key nothing is written again");
        assert_eq!(decode_resource(stored, &both), Ok(secret.clone()));
    }
    let mut moved = encode_resource(&secret, &sealer("k"));
    if let Some(key) = &mut moved.key {
        key.name = "other".into();
    }
    for (stored, keys, says) in [
        (moved, sealer("k"), "belongs to another resource"),
        (
            encode_resource(&secret, &sealer("old")),
            sealer("new"),
            "with the key \"old\", which is not in the file",
        ),
        (encode_resource(&secret, &sealer("old")), Sealer::NONE, "store.encryption.keyFile is not set"),
    ] {
        let error = decode_resource(stored, &keys).expect_err(says).to_string();
        assert!(error.contains(says) && error.contains("Secret"), "{error}");
    }
    assert!(encode_resource(&mk_address("a"), &sealer("k")).sealed.is_none());
}
