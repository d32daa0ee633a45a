//! What a write costs in memory with few and with many resources: it must not grow with their number. Also what a
//! start costs: decoding, and building the indexes.
//!
//! `cargo bench --package graticule-store --bench writes`; prints microseconds for each number of resources.

#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use graticule_model::{Key, Kind, Resource, Timestamp};
use graticule_store::seal::Sealer;
use graticule_store::{MemoryStore, Snapshot, Store, Txn, codec};
use serde_json::{Value, json};

const SIZES: [usize; 3] = [1_000, 10_000, 200_000];
/// Writes that are measured.
const WRITES: usize = 5_000;

fn main() {
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>12} {:>12}",
        "resources", "put µs", "p99 µs", "create µs", "decode ms", "restore ms"
    );
    for size in SIZES {
        let store = MemoryStore::new(|| Timestamp::UNIX_EPOCH);
        store.commit_now(Txn::put(mesh())).expect("written");
        for number in 0..size {
            store.commit_now(Txn::put(permission(number, 0))).expect("written");
        }
        let puts = (0..WRITES).map(|step| permission(step * 7919 % size, step + 1));
        let mut puts = timed(&store, puts.collect());
        let creates = timed(&store, (0..WRITES).map(|step| permission(size + step, 0)).collect());
        let snapshot = store.snapshot();
        assert!(snapshot.count(Kind::MeshTrafficPermission, Some("default")) == size + WRITES);
        let (decode, restore) = start(&snapshot);
        puts.sort_unstable();
        println!(
            "{size:>10} {:>10.1} {:>10.1} {:>10.1} {:>12.1} {:>12.1}",
            micros(mean(&puts)),
            micros(puts[WRITES * 99 / 100]),
            micros(mean(&creates)),
            micros(decode) / 1e3,
            micros(restore) / 1e3,
        );
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn mean(all: &[Duration]) -> Duration {
    all.iter().sum::<Duration>() / u32::try_from(all.len()).expect("few")
}

#[expect(clippy::disallowed_methods, reason = "a measurement outside of the program")]
fn now() -> Instant {
    Instant::now()
}

fn timed(store: &MemoryStore, resources: Vec<Resource>) -> Vec<Duration> {
    let write = |resource| {
        let before = now();
        store.commit_now(Txn::put(resource)).expect("written");
        before.elapsed()
    };
    resources.into_iter().map(write).collect()
}

/// Decodes everything as a start does, on one processor, and puts it together.
fn start(snapshot: &Snapshot) -> (Duration, Duration) {
    let encoded: Vec<_> =
        snapshot.iter().map(|resource| codec::encode_resource(resource, &Sealer::NONE)).collect();
    let before = now();
    let decode = |resource| Arc::new(codec::decode_resource(resource, &Sealer::NONE).expect("decodes"));
    let resources: Vec<_> = encoded.into_iter().map(decode).collect();
    let decoded = before.elapsed();
    let before = now();
    let restored = Snapshot::restore(snapshot.revision(), resources);
    assert!(restored.len() == snapshot.len());
    (decoded, before.elapsed())
}

fn mesh() -> Resource {
    resource(Kind::Mesh, &json!({"type": "Mesh", "name": "default"}))
}

fn resource(kind: Kind, value: &Value) -> Resource {
    Resource::from_stored(kind, value).expect("a resource")
}

/// For many clients: 2.7 KB.
fn permission(number: usize, change: usize) -> Resource {
    let team = format!("team-{}", number / 50);
    let client = |client: usize| {
        let value = format!("spiffe://default.east.mesh.local/ns/{team}/sa/client-{client:02}-{change}");
        json!({"spiffeID": {"type": "Exact", "value": value}})
    };
    let name = format!("permission-{number:06}");
    let mut permission = resource(
        Kind::MeshTrafficPermission,
        &json!({
            "type": "MeshTrafficPermission",
            "mesh": "default",
            "name": name,
            "labels": {"team": team, "kuma.io/display-name": name, "kuma.io/mesh": "default"},
            "spec": {
                "targetRef": {"kind": "Dataplane", "labels": {"app": format!("app-{number}")}},
                "rules": [{"default": {"allow": (0..26).map(client).collect::<Vec<_>>()}}],
            },
        }),
    );
    permission.meta.owner = Some(Key::new(Kind::Mesh, "", "default"));
    permission
}
