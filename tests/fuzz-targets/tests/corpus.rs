//! Every target over its corpus, over generated input, and over random damage to both.

use std::path::{Path, PathBuf};

use graticule_fuzz_targets::{TARGETS, Target, backup_samples, target};
use graticule_generate::Generator;
use graticule_kds::wire::Encoded;
use graticule_model::{Family, Kind, Resource, yaml};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_proto::google::protobuf::{Struct, Value as ProtoValue};
use graticule_proto::google::rpc::Status as RpcStatus;
use graticule_store::{Revision, Snapshot};
use proptest::prelude::*;
use prost::Message as _;

fn folder(target: Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Files that people wrote, findings of the past among them.
fn stored(target: Target) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder(target)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("readable")).collect()
}

/// Input that reaches the depths of a target.
fn generated(target: Target) -> Vec<Vec<u8>> {
    let of = |family: Family| Kind::all().filter(move |kind| kind.descriptor().family == family);
    let documents = |family: Family| of(family).map(|kind| Generator::new(kind as u64).document(kind));
    match target.name {
        "json_proto" => documents(Family::Proto).map(|value| value.to_string().into_bytes()).collect(),
        "json_plugin" => documents(Family::Plugin).map(|value| value.to_string().into_bytes()).collect(),
        "yaml_proto" => vec![stream(documents(Family::Proto))],
        "yaml_plugin" => documents(Family::Plugin).map(|value| stream([value].into_iter())).collect(),
        "rest_request" => documents(Family::Plugin).map(|value| put(&value)).collect(),
        "xds_request" => vec![request()],
        "kds_request" => vec![requests(false), requests(true)],
        "backup" => vec![backup_samples(&every_kind()).0],
        "backup_chunk" => backup_samples(&every_kind()).1,
        "kds_response" => {
            let each = Kind::all().filter_map(response).map(|one| one.encode_length_delimited_to_vec());
            let mut all: Vec<Vec<u8>> = each.collect();
            all.push(all.concat());
            all
        }
        _ => Vec::new(),
    }
}

fn stream(documents: impl Iterator<Item = serde_json::Value>) -> Vec<u8> {
    let texts: Vec<String> = documents.map(|value| yaml::to_string(&value).expect("writes")).collect();
    texts.join("---\n").into_bytes()
}

fn put(document: &serde_json::Value) -> Vec<u8> {
    let kind = Kind::from_name(document["type"].as_str().expect("a type")).expect("a kind");
    let (name, path) = (document["name"].as_str().expect("a name"), kind.descriptor().path);
    let path = if kind.descriptor().is_global_scoped() {
        format!("/{path}/{name}")
    } else {
        format!("/meshes/{}/{path}/{name}", document["mesh"].as_str().expect("a mesh"))
    };
    format!("PUT {path}\nhost: localhost:5681\ncontent-type: application/json\n\n{document}").into_bytes()
}

/// A resource of every kind that can be read from a document.
fn every_kind() -> Snapshot {
    let resources = Kind::all().filter_map(|kind| {
        let document = Generator::new(kind as u64).document(kind);
        Resource::from_stored(kind, &document).ok().map(std::sync::Arc::new)
    });
    let snapshot = Snapshot::restore(Revision(7), resources);
    assert!(snapshot.len() > 20, "{} kinds", snapshot.len());
    snapshot
}

fn request() -> Vec<u8> {
    let dataplane = "{type: Dataplane, mesh: default, name: web-1, networking: {address: 10.0.0.5}}";
    let value = ProtoValue { kind: Some(ValueKind::StringValue(dataplane.into())) };
    let metadata = Some(Struct { fields: [("dataplane.resource".to_owned(), value)].into() });
    DeltaDiscoveryRequest {
        node: Some(Node { id: "default.web-1".into(), metadata, ..Node::default() }),
        type_url: graticule_envoygen::type_url::CLUSTER.into(),
        resource_names_subscribe: vec!["*".into()],
        initial_resource_versions: [("a".to_owned(), "1".to_owned())].into(),
        ..DeltaDiscoveryRequest::default()
    }
    .encode_to_vec()
}

/// A zone that asks for some kinds, takes what comes, refuses what comes then and asks for a kind again.
fn requests(takes_parts: bool) -> Vec<u8> {
    let value = ProtoValue { kind: Some(ValueKind::BoolValue(true)) };
    let fields = takes_parts.then(|| ("graticule-takes-parts".to_owned(), value));
    let node = Node {
        id: "east".into(),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
        ..Node::default()
    };
    let of = |kind: Kind, nonce: &str, refusal: Option<&str>| {
        DeltaDiscoveryRequest {
            node: Some(node.clone()),
            type_url: kind.name().into(),
            response_nonce: nonce.into(),
            error_detail: refusal
                .map(|message| RpcStatus { message: message.into(), ..RpcStatus::default() }),
            initial_resource_versions: [("own-fx8x2bfzd4w56b8v.default".to_owned(), "1".to_owned())].into(),
            ..DeltaDiscoveryRequest::default()
        }
        .encode_length_delimited_to_vec()
    };
    [
        of(Kind::Mesh, "", None),
        of(Kind::MeshTimeout, "", None),
        of(Kind::Mesh, "1", None),
        of(Kind::MeshTimeout, "2", Some("own-fx8x2bfzd4w56b8v.default: no")),
        of(Kind::Secret, "", None),
        of(Kind::MeshTimeout, "", None),
    ]
    .concat()
}

fn response(kind: Kind) -> Option<DeltaDiscoveryResponse> {
    let resource = Resource::from_rest(kind, &Generator::new(3).document(kind)).expect("valid");
    let encoded = Encoded::of(&resource).ok()?;
    Some(DeltaDiscoveryResponse {
        type_url: kind.name().into(),
        nonce: "1".into(),
        resources: vec![encoded.to_discovery()],
        removed_resources: vec!["gone.default".into()],
        ..DeltaDiscoveryResponse::default()
    })
}

fn inputs(target: Target) -> Vec<Vec<u8>> {
    stored(target).into_iter().chain(generated(target)).collect()
}

#[test]
fn corpus() {
    for target in TARGETS {
        let inputs = inputs(*target);
        assert!(!inputs.is_empty(), "{} has nothing to start from", target.name);
        inputs.iter().for_each(|input| (target.run)(input));
    }
}

/// Writes the generated input where `cargo xtask fuzz` starts from.
#[test]
fn seeds_for_the_fuzzer() {
    let Some(dir) = std::env::var_os("GRATICULE_FUZZ_SEEDS_DIR") else {
        eprintln!("skipped: GRATICULE_FUZZ_SEEDS_DIR is not set");
        return;
    };
    for target in TARGETS {
        let dir = Path::new(&dir).join(target.name);
        std::fs::create_dir_all(&dir).expect("writable");
        for (index, input) in inputs(*target).iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{index:03}")), input).expect("writable");
        }
    }
}

/// Every target has a binary in `fuzz/`, and every corpus a target.
#[test]
fn all_targets_are_wired() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("../../fuzz/Cargo.toml")).expect("fuzz/ is there");
    for found in TARGETS {
        let source = std::fs::read_to_string(root.join(format!("../../fuzz/fuzz_targets/{}.rs", found.name)));
        assert!(source.is_ok_and(|source| source.contains(&format!("\"{}\"", found.name))), "{}", found.name);
        assert!(manifest.contains(&format!("name = \"{}\"", found.name)), "{}", found.name);
    }
    for entry in std::fs::read_dir(root.join("corpus")).expect("there is a corpus") {
        let name = entry.expect("readable").file_name();
        assert!(target(&name.to_string_lossy()).is_some(), "no target {}", name.display());
    }
}

fn damage(input: &mut Vec<u8>, places: &[(usize, u8, u8)]) {
    for (place, byte, how) in places {
        let place = place % (input.len() + 1);
        match how % 4 {
            0 => input.insert(place, *byte),
            1 if place < input.len() => drop(input.remove(place)),
            2 if place < input.len() => input[place] = *byte,
            // Now and then a large part goes.
            3 if how % 16 == 3 => input.truncate(place),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn damaged_input(
        at in any::<prop::sample::Index>(),
        input in any::<prop::sample::Index>(),
        places in proptest::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..8),
    ) {
        let target = at.get(TARGETS);
        let mut input = input.get(&inputs(*target)).clone();
        damage(&mut input, &places);
        (target.run)(&input);
    }

    #[test]
    fn any_input(at in any::<prop::sample::Index>(), input in proptest::collection::vec(any::<u8>(), 0..200)) {
        (at.get(TARGETS).run)(&input);
    }
}
