//! `kill -9` of a process that writes: everything that it was told is written is there afterwards.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::{Clock, Random};
use graticule_store::{Store as _, Txn};
use graticule_store_raft::{Deps, FileSystem, LogOptions, Options, RaftStore};
use tokio::task::JoinSet;

const DIR: &str = "STORE_RAFT_CRASH_DIR";
const WRITERS: u64 = 4;
const ROUNDS: u64 = 12;

async fn open(dir: &Path) -> RaftStore {
    let disk = FileSystem::open(dir).expect("the directory is free");
    let deps =
        Deps { disk: Arc::new(disk), clock: Clock::system(), random: Random::system(), connector: None };
    // Small, so that segments and snapshots change all the time.
    let options = Options {
        log: LogOptions { segment_len: 32 << 10, inline: false },
        snapshot_after: 64 << 10,
        entries_kept: 20,
        ..Options::default()
    };
    RaftStore::open(options, deps).await.expect("opens")
}

fn key(writer: u64) -> Key {
    Key::new(Kind::Mesh, "", format!("writer-{writer}"))
}

fn read(store: &RaftStore, writer: u64) -> u64 {
    let stored = store.snapshot().get(&key(writer));
    stored.and_then(|stored| stored.meta.label("n")?.parse().ok()).unwrap_or(0)
}

/// Not a test by itself: the process that is killed. Each writer counts up and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = Arc::new(open(Path::new(&dir)).await);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for n in read(&store, writer) + 1.. {
                let mut meta = Meta::new("", key(writer).name);
                meta.labels.insert("n".into(), n.to_string());
                meta.labels.insert("filler".into(), "x".repeat(500));
                store.commit(Txn::put(Resource::new(meta, Mesh::default()))).await.expect("written");
                println!("acked {writer} {n}");
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let random = Random::seeded(20_260_101);
    let mut total = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let limit = 1 + random.u64() % 300;
        let mut acknowledged = [0; WRITERS as usize];
        let mut seen = 0;
        for line in lines {
            let line = line.expect("text");
            let Some((_, numbers)) = line.split_once("acked ") else { continue };
            let (writer, n) = numbers.split_once(' ').expect("two numbers");
            acknowledged[writer.parse::<usize>().expect("a number")] = n.parse::<u64>().expect("a number");
            seen += 1;
            if seen == limit {
                // What is in the pipe already is read to its end.
                child.kill().expect("killed");
            }
        }
        child.wait().expect("ended");
        assert!(seen >= limit, "round {round}: the child ended by itself after {seen} writes");
        let store = open(dir.path()).await;
        for writer in 0..WRITERS {
            let (found, told) = (read(&store, writer), acknowledged[usize::try_from(writer).expect("small")]);
            // One more write may have been under way.
            assert!(
                found == told || found == told + 1 || told == 0,
                "round {round}: writer {writer} was told {told}, found is {found}"
            );
            assert!(found >= told);
        }
        store.close().await;
        total += seen;
    }
    assert!(total > ROUNDS);
}
