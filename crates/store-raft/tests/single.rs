//! A member that stands alone: the conformance suite, restarts, snapshots, a full and a failing disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::mesh::Mesh;
use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::{Clock, Random};
use graticule_store::seal::Sealer;
use graticule_store::{CommitError, Expect, Health, Replacement, Revision, Store, Txn};
use graticule_store_raft::{Deps, Disk, FileSystem, LogOptions, MemoryDisk, OpenError, Options, RaftStore};

const DEADLINE: Duration = Duration::from_secs(60);

fn deps(disk: impl Disk) -> Deps {
    Deps { disk: Arc::new(disk), clock: Clock::system(), random: Random::system(), connector: None }
}

async fn open(dir: &Path) -> RaftStore {
    let disk = FileSystem::open(dir).expect("the directory is free");
    RaftStore::open(Options::default(), deps(disk)).await.expect("opens")
}

fn mk_mesh(name: &str, n: u64) -> Resource {
    let mut meta = Meta::new("", name);
    meta.labels.insert("n".into(), n.to_string());
    Resource::new(meta, Mesh::default())
}

fn read(store: &RaftStore, name: &str) -> Option<u64> {
    let stored = store.snapshot().get(&Key::new(Kind::Mesh, "", name))?;
    stored.meta.label("n")?.parse().ok()
}

async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !check().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what} in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance() {
    let dirs = tempfile::tempdir().expect("a directory");
    let number = std::sync::atomic::AtomicU32::new(0);
    graticule_store::conformance::run(async |history_len| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let disk = FileSystem::open(&dirs.path().join(number.to_string())).expect("a directory");
        let options = Options { history_len, ..Options::default() };
        Arc::new(RaftStore::open(options, deps(disk)).await.expect("opens")) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaces() {
    let dirs = tempfile::tempdir().expect("a directory");
    let number = std::sync::atomic::AtomicU32::new(0);
    // More than fits into one part.
    graticule_store::conformance::replaces(20_000, async |history_len| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let disk = FileSystem::open(&dirs.path().join(number.to_string())).expect("a directory");
        let options = Options { history_len, snapshot_after: 1 << 20, ..Options::default() };
        Arc::new(RaftStore::open(options, deps(disk)).await.expect("opens")) as Arc<dyn Store>
    })
    .await;
}

fn mk_filled(count: u64, mark: &str) -> Vec<Arc<Resource>> {
    let filled = |n| {
        let mut mesh = mk_mesh(&format!("m{n}"), n);
        mesh.meta.version = n + 1;
        mesh.meta.labels.insert("mark".into(), mark.into());
        mesh.meta.labels.insert("filler".into(), "x".repeat(10_000));
        Arc::new(mesh)
    };
    (0..count).map(filled).collect()
}

fn marks(store: &RaftStore) -> (usize, Vec<String>) {
    let snapshot = store.snapshot();
    let mut marks: Vec<String> =
        snapshot.iter().filter_map(|mesh| mesh.meta.label("mark").map(str::to_owned)).collect();
    let count = marks.len();
    marks.dedup();
    (count, marks)
}

const CRASHES: usize = 10;

/// Whenever the power fails during a replacement, everything is old or everything is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_survives_a_crash_at_any_time_whole() {
    let disk = MemoryDisk::new();
    let options = || Options {
        snapshot_after: 1 << 20,
        log: LogOptions { segment_len: 1 << 20, inline: false },
        snapshots_kept: 1,
        ..Options::default()
    };
    let store = Arc::new(RaftStore::open(options(), deps(disk.clone())).await.expect("opens"));
    let of = |mark| Replacement { resources: mk_filled(300, mark), ..Replacement::default() };
    store.replace_all(of("old")).await.expect("replaced");
    let (before, writer) = (store.snapshot().revision(), store.clone());
    let mut replacing = tokio::task::JoinSet::new();
    replacing.spawn(async move { writer.replace_all(of("new")).await });
    let random = Random::seeded(20_260_102);
    let (mut olds, mut news) = (0, 0);
    let mut crashed = Vec::new();
    loop {
        let is_done = replacing.is_empty();
        let copy = disk.copy();
        copy.crash(&random);
        crashed.push((is_done, copy));
        if crashed.len() > 2 * CRASHES {
            // Every other one goes.
            let mut index = 0;
            crashed.retain(|_| (index % 2 == 0, index += 1).0);
        }
        if is_done {
            break;
        }
        tokio::select! {
            biased;
            done = replacing.join_next() => {
                done.expect("one task").expect("no panic").expect("replaced");
            }
            () = tokio::task::yield_now() => {}
        }
    }
    for (is_done, copy) in crashed {
        let store = RaftStore::open(options(), deps(copy)).await.expect("opens");
        let (count, marks) = marks(&store);
        assert!(count == 300 && marks.len() == 1, "{count} resources of {marks:?}");
        let is_new = marks[0] == "new";
        assert!(is_new || !is_done, "what was acknowledged is there");
        assert_eq!(is_new, store.snapshot().revision() > before);
        (olds, news) = (olds + u32::from(!is_new), news + u32::from(is_new));
        store.commit(Txn::put(mk_mesh("m", 1))).await.expect("the store goes on");
        store.close().await;
    }
    assert!(olds > 0 && news > 0, "{olds} crashes before, {news} after");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_moves_contents_between_backends() {
    use graticule_store::backup::{Origin, Reader, Writer};
    let now = Clock::system().now();
    let through = |snapshot: &graticule_store::Snapshot| {
        let mut reader = Reader::new(Arc::default());
        for piece in Writer::new(snapshot, Origin::Global, "0", now, Arc::default()) {
            reader.push(&piece).expect("good");
        }
        let backup = reader.finish().expect("complete");
        Replacement { resources: backup.resources, expect: None, above: backup.description.revision }
    };
    let first = graticule_store::MemoryStore::new(move || now);
    for n in 0..50 {
        first.commit(Txn::put(mk_mesh(&format!("m{}", n % 7), n))).await.expect("written");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let raft = open(dir.path()).await;
    let revision = raft.replace_all(through(&first.snapshot())).await.expect("replaced");
    assert!(revision > first.snapshot().revision());
    assert!(raft.snapshot().iter().eq(first.snapshot().iter()));
    raft.close().await;
    drop(raft);
    let raft = open(dir.path()).await;
    let last = graticule_store::MemoryStore::new(move || now);
    last.replace_all(through(&raft.snapshot())).await.expect("replaced");
    assert!(last.snapshot().iter().eq(first.snapshot().iter()), "versions and times included");
    assert!(last.snapshot().revision() > revision);
    raft.close().await;
}

const PLAIN: &str = "aHVudGVyMi1odW50ZXIy";

fn mk_secret(name: &str) -> Txn {
    let secret = GlobalSecret { data: SecretBytes(b"hunter2-hunter2".to_vec()) };
    Txn::put(Resource::new(Meta::new("", name), secret))
}

/// Keys by id, written small; a large letter is another key under the same id.
fn with_keys(ids: &[&str]) -> Options {
    let line = |id: &&str| format!("{} {}A=\n", id.to_lowercase(), id.repeat(42));
    let text: String = ids.iter().map(line).collect();
    let sealer = Sealer::parse(&text).expect("a key file");
    Options { sealer: Arc::new(sealer), ..Options::default() }
}

fn holds_plain_secrets(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list().expect("lists").into_iter();
    names
        .filter(|name| {
            // One that is not needed any more may have gone meanwhile.
            let Some(bytes) = disk.bytes(name) else { return false };
            bytes.windows(PLAIN.len()).any(|window| window == PLAIN.as_bytes())
        })
        .collect()
}

async fn refusal(options: Options, disk: &MemoryDisk) -> String {
    let error = RaftStore::open(options, deps(disk.copy())).await.map(|_| ()).expect_err("refused");
    graticule_runtime::supervisor::chain(&error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_encrypted_on_the_disk() {
    let disk = MemoryDisk::new();
    let store = RaftStore::open(with_keys(&["a"]), deps(disk.clone())).await.expect("opens");
    store.commit(mk_secret("s1")).await.expect("written");
    let contents = store.snapshot();
    // In the log alone, then in a snapshot.
    let log_only = disk.copy();
    store.take_snapshot().await.expect("asked for");
    let has_snapshot = || disk.list().expect("lists").iter().any(|name| name.ends_with(".snap"));
    eventually("a snapshot is written", async || has_snapshot()).await;
    store.close().await;
    for disk in [&log_only, &disk] {
        assert_eq!(holds_plain_secrets(disk), [""; 0]);
        for (keys, says) in [
            (Options::default(), "encrypted with the key \"a\", and store.encryption.keyFile is not set"),
            (with_keys(&["b"]), "encrypted with the key \"a\", which is not in the file"),
            (with_keys(&["A"]), "the key \"a\" does not open it"),
        ] {
            let text = refusal(keys, disk).await;
            assert!(text.contains(says) && text.contains("s1"), "{text}");
        }
        let again = RaftStore::open(with_keys(&["b", "a"]), deps(disk.copy())).await.expect("opens");
        assert!(again.snapshot().iter().eq(contents.iter()));
        again.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_switched_on_and_rotated() {
    let disk = MemoryDisk::new();
    let newest = || disk.list().expect("lists").into_iter().rfind(|name| name.ends_with(".snap"));
    // Plain at first, then with a key, then with another one, then without the former.
    for (round, keys) in [&[][..], &["a"], &["b", "a"], &["b"]].into_iter().enumerate() {
        let options = if keys.is_empty() { Options::default() } else { with_keys(keys) };
        let before = newest();
        let options = Options { snapshots_kept: 1, ..options };
        let store = RaftStore::open(options, deps(disk.clone())).await.expect("opens");
        for known in 0..round {
            let key = Key::new(Kind::GlobalSecret, "", format!("s{known}"));
            assert!(store.snapshot().contains(&key), "round {round}: {key}");
        }
        if matches!(round, 1 | 2) {
            eventually("a snapshot with the new key is written by itself", async || newest() != before).await;
            let name = newest().expect("there is one");
            assert!(!holds_plain_secrets(&disk).contains(&name), "round {round}");
        }
        store.commit(mk_secret(&format!("s{round}"))).await.expect("written");
        store.close().await;
        if round == 0 {
            assert!(!holds_plain_secrets(&disk).is_empty());
        }
    }
    let text = refusal(with_keys(&["a"]), &disk).await;
    assert!(text.contains("encrypted with the key \"b\""), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut terms = Vec::new();
    let mut last = None;
    for round in 0..4 {
        let store = open(dir.path()).await;
        let snapshot = store.snapshot();
        if let Some(last) = last.take() {
            let before: graticule_store::Snapshot = last;
            assert_eq!(snapshot.revision(), before.revision());
            assert!(snapshot.iter().eq(before.iter()), "times, versions and owners included");
        }
        terms.push(store.leadership().borrow().own_term().expect("it leads when it is open"));
        for n in 0..40 {
            store.commit(Txn::put(mk_mesh(&format!("m{n}"), round))).await.expect("written");
        }
        if round == 1 {
            store.take_snapshot().await.expect("asked for");
        }
        store.commit(Txn::delete(Key::new(Kind::Mesh, "", "m3"))).await.expect("deleted");
        last = Some(store.snapshot());
        store.close().await;
        drop(store);
    }
    assert!(terms.windows(2).all(|pair| pair[0] < pair[1]), "terms grow: {terms:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_per_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await;
    let error = FileSystem::open(dir.path()).expect_err("taken");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_shorten_the_log_while_writers_go_on() {
    // What stays for members that lag is limited in entries and in bytes.
    for (entries_kept, bytes_kept) in [(10, usize::MAX), (1000, 200_000)] {
        let dir = tempfile::tempdir().expect("a directory");
        let options = || Options {
            snapshot_after: 100_000,
            entries_kept,
            bytes_kept,
            log: LogOptions { segment_len: 64 << 10, inline: false },
            ..Options::default()
        };
        let disk = FileSystem::open(dir.path()).expect("free");
        let store = RaftStore::open(options(), deps(disk)).await.expect("opens");
        let segments = || {
            let names = std::fs::read_dir(dir.path()).expect("listed").flatten();
            names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".seg")).count()
        };
        let filler = "x".repeat(3000);
        for n in 0..400_u64 {
            let mut mesh = mk_mesh(&format!("m{}", n % 20), n);
            mesh.meta.labels.insert("filler".into(), filler.clone());
            store.commit(Txn::put(mesh)).await.expect("written");
        }
        eventually("old segments go", async || segments() < 10).await;
        let before = store.snapshot();
        store.close().await;
        drop(store);
        let disk = FileSystem::open(dir.path()).expect("free");
        let store = RaftStore::open(options(), deps(disk)).await.expect("opens");
        assert_eq!(store.snapshot().revision(), Revision(400));
        assert!(store.snapshot().iter().eq(before.iter()));
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_that_are_kept_make_no_further_snapshots() {
    let disk = MemoryDisk::new();
    let options = Options { snapshot_after: 64 << 10, snapshots_kept: 1000, ..Options::default() };
    let store = RaftStore::open(options, deps(disk.clone())).await.expect("opens");
    let large = Replacement { resources: mk_filled(100, "a"), ..Replacement::default() };
    store.replace_all(large).await.expect("replaced");
    let snapshots = || disk.list().expect("lists").into_iter().filter(|name| name.ends_with(".snap"));
    eventually("a snapshot is written", async || snapshots().next().is_some()).await;
    // Small writes, far below what asks for a snapshot; the first may still meet the end of the large one.
    let before: Vec<String> = snapshots().collect();
    for n in 0..40 {
        store.commit(Txn::put(mk_mesh("small", n))).await.expect("written");
    }
    store.close().await;
    let new = snapshots().filter(|name| !before.contains(name)).count();
    assert!(new <= 5, "{new} snapshots for 40 small writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers() {
    let disk = MemoryDisk::new();
    let options = Options {
        log: LogOptions { segment_len: 1 << 20, inline: false },
        snapshot_after: usize::MAX / 4,
        ..Options::default()
    };
    let store = RaftStore::open(options, deps(disk.clone())).await.expect("opens");
    let filler = "x".repeat(20_000);
    let mk = |n: u64| {
        let mut mesh = mk_mesh("m", n);
        mesh.meta.labels.insert("filler".into(), filler.clone());
        Txn::put(mesh)
    };
    disk.set_full(true);
    let mut acknowledged = 0;
    let refused = loop {
        match store.commit(mk(acknowledged + 1)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1000, "the disk fills");
    };
    assert!(matches!(&refused, CommitError::Unavailable(reason) if reason.contains("full")), "{refused}");
    assert!(matches!(store.health(), Health::ReadOnly(_)), "{:?}", store.health());
    assert_eq!(read(&store, "m"), Some(acknowledged), "reads go on");
    disk.set_full(false);
    eventually("writes work again", async || store.commit(mk(acknowledged + 1)).await.is_ok()).await;
    assert_eq!(store.health(), Health::Ready);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_fit_is_said_and_survived() {
    let disk = MemoryDisk::new();
    let store = RaftStore::open(Options::default(), deps(disk.clone())).await.expect("opens");
    store.commit(Txn::put(mk_mesh("m", 1))).await.expect("written");
    disk.set_full(true);
    store.take_snapshot().await.expect("asked for");
    let full = Health::ReadOnly("the disk is full; reads go on".into());
    eventually("it says so", async || store.health() == full).await;
    let error = store.commit(Txn::put(mk_mesh("m", 2))).await.expect_err("refused");
    assert!(matches!(&error, CommitError::Unavailable(reason) if reason.contains("disk is full")), "{error}");
    assert_eq!(read(&store, "m"), Some(1), "reads go on");
    disk.set_full(false);
    eventually("writes work again", async || store.commit(Txn::put(mk_mesh("m", 3))).await.is_ok()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_loses_nothing_and_recovers_in_place() {
    let disk = MemoryDisk::new();
    let store = RaftStore::open(Options::default(), deps(disk.clone())).await.expect("opens");
    store.commit(Txn::put(mk_mesh("m", 1))).await.expect("written");
    disk.set_failing(true);
    let error = store.commit(Txn::put(mk_mesh("m", 2))).await.expect_err("the disk fails");
    assert!(matches!(error, CommitError::Uncertain(_)), "{error}");
    eventually("it says so", async || matches!(store.health(), Health::ReadOnly(_))).await;
    let error = store.commit(Txn::put(mk_mesh("m", 3))).await.expect_err("still");
    assert!(matches!(error, CommitError::Unavailable(_) | CommitError::Uncertain(_)), "{error}");
    assert!(matches!(read(&store, "m"), Some(1)), "reads go on");
    disk.set_failing(false);
    eventually("writes work again", async || store.commit(Txn::put(mk_mesh("m", 4))).await.is_ok()).await;
    let revision = store.snapshot().revision();
    store.close().await;
    drop(store);
    let store = RaftStore::open(Options::default(), deps(disk)).await.expect("opens");
    assert_eq!((read(&store, "m"), store.snapshot().revision()), (Some(4), revision));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_and_newer_files_are_refused() {
    let disk = MemoryDisk::new();
    let store = RaftStore::open(Options::default(), deps(disk.clone())).await.expect("opens");
    store.commit(Txn::put(mk_mesh("m", 1))).await.expect("written");
    store.take_snapshot().await.expect("asked for");
    let has_snapshot = || disk.list().expect("lists").iter().any(|name| name.ends_with(".snap"));
    eventually("a snapshot is written", async || has_snapshot()).await;
    store.close().await;
    drop(store);
    for name in disk.list().expect("lists") {
        let damaged = disk.copy();
        let mut bytes = disk.bytes(&name).expect("there");
        bytes[9] ^= 0xff;
        damaged.set_bytes(&name, bytes);
        let error =
            RaftStore::open(Options::default(), deps(damaged)).await.map(|_| ()).expect_err("damaged");
        assert!(matches!(&error, OpenError::File(_)) && error.to_string().contains(&name), "{name}: {error}");
        let missing = disk.copy();
        missing.remove(&name).expect("removed");
        let opened = RaftStore::open(Options::default(), deps(missing)).await;
        if name.ends_with(".snap") {
            // The log still has everything.
            let store = opened.expect("opens");
            assert_eq!(read(&store, "m"), Some(1));
            store.close().await;
        } else {
            let error = opened.map(|_| ()).expect_err("missing");
            assert!(error.to_string().contains("is missing"), "{name}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_snapshot_is_noticed_when_the_log_begins_behind_it() {
    let disk = MemoryDisk::new();
    let options = || Options { entries_kept: 0, ..Options::default() };
    let store = RaftStore::open(options(), deps(disk.clone())).await.expect("opens");
    for n in 0..40 {
        store.commit(Txn::put(mk_mesh("m", n))).await.expect("written");
    }
    store.take_snapshot().await.expect("asked for");
    let has_snapshot = || disk.list().expect("lists").iter().any(|name| name.ends_with(".snap"));
    eventually("a snapshot is written", async || has_snapshot()).await;
    // Purging is recorded with one of the next writes at the latest.
    for n in 20..40 {
        store.commit(Txn::put(mk_mesh("m", n))).await.expect("written");
    }
    store.close().await;
    drop(store);
    let store = RaftStore::open(options(), deps(disk.copy())).await.expect("opens");
    assert_eq!(read(&store, "m"), Some(39));
    store.close().await;
    for name in disk.list().expect("lists").into_iter().filter(|name| name.ends_with(".snap")) {
        disk.remove(&name).expect("removed");
    }
    let error = RaftStore::open(options(), deps(disk)).await.map(|_| ()).expect_err("incomplete");
    assert!(error.to_string().contains("snapshot-") && error.to_string().contains("missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_cannot_be_stored_is_refused() {
    let store = RaftStore::open(Options::default(), deps(MemoryDisk::new())).await.expect("opens");
    let mut mesh = mk_mesh("m", 1);
    mesh.meta.labels.insert("filler".into(), "x".repeat(graticule_store_raft::TXN_LEN_MAX));
    let error = store.commit(Txn::default().and_put(mesh, Expect::Any)).await.expect_err("too long");
    assert!(matches!(error, CommitError::Invalid(_)), "{error}");
    store.commit(Txn::put(mk_mesh("m", 1))).await.expect("the store goes on");
    store.close().await;
}
