//! Several members in one process, joined by pipes in memory.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::listen::{Incoming, Io};
use graticule_runtime::{Clock, Connection, Drain, Peer, Random};
use graticule_store::{CommitError, Event, Expect, Health, Leader, Revision, Store, Txn};
use graticule_store_raft::{
    ClusterError, Connector, Deps, Form, LogOptions, Member, MemberStatus, MemoryDisk, Options, RaftStore,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Who listens at which address.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<HashMap<String, mpsc::Sender<Connection>>>>);

impl Net {
    fn listen(&self, address: &str) -> Incoming {
        let (sender, receiver) = mpsc::channel(64);
        self.0.lock().insert(address.into(), sender);
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|connection| (Ok(connection), receiver))
        })
        .boxed()
    }

    fn connector(&self) -> Connector {
        let net = self.clone();
        Arc::new(move |member: Member| {
            let net = net.clone();
            Box::pin(async move {
                let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
                let listener = net.0.lock().get(&member.address).cloned().ok_or_else(refused)?;
                let (near, far) = tokio::io::duplex(64 << 10);
                let address = SocketAddr::from(([127, 0, 0, 1], 1));
                let peer = Peer { address, local: address, tls: false };
                listener.send(Connection::from_io(far, peer)).await.map_err(|_| refused())?;
                Ok(Box::new(near) as Box<dyn Io>)
            })
        })
    }
}

/// A running member. Dropping it is as if its process was killed.
struct Node {
    store: Arc<RaftStore>,
    _tasks: JoinSet<()>,
}

fn options(name: &str, form: Form) -> Options {
    Options {
        name: name.into(),
        address: name.into(),
        form,
        log: LogOptions { segment_len: 64 << 10, inline: false },
        snapshot_after: 20_000,
        entries_kept: 5,
        heartbeat: Duration::from_millis(30),
        election_timeout: Duration::from_millis(200),
        ..Options::default()
    }
}

async fn start_with(net: &Net, disk: &MemoryDisk, options: Options) -> Node {
    let incoming = net.listen(&options.address);
    let deps = Deps {
        disk: Arc::new(disk.clone()),
        clock: Clock::system(),
        random: Random::system(),
        connector: Some(net.connector()),
    };
    let store = Arc::new(RaftStore::open(options, deps).await.expect("opens"));
    let mut tasks = JoinSet::new();
    let served = store.clone();
    tasks.spawn(async move { served.serve(incoming, Drain::never()).await });
    Node { store, _tasks: tasks }
}

async fn start(net: &Net, name: &str, form: Form, disk: &MemoryDisk) -> Node {
    start_with(net, disk, options(name, form)).await
}

fn member(name: &str) -> Member {
    Member { name: name.into(), address: name.into() }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Cluster {
    net: Net,
    disks: Vec<MemoryDisk>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    /// Three members; the first leads.
    async fn form() -> Cluster {
        let net = Net::default();
        let disks: Vec<_> = NAMES.iter().map(|_| MemoryDisk::new()).collect();
        let mut nodes = vec![Some(start(&net, "a", Form::Alone, &disks[0]).await)];
        for (name, disk) in NAMES.iter().zip(&disks).skip(1) {
            nodes.push(Some(start(&net, name, Form::Join, disk).await));
        }
        let cluster = Cluster { net, disks, nodes };
        for (i, name) in NAMES.iter().enumerate().skip(1) {
            let id = cluster.store(i).id();
            cluster.store(0).add_member(id, member(name)).await.expect("added");
        }
        assert_eq!(cluster.store(0).members().iter().filter(|member| member.votes).count(), 3);
        cluster
    }

    fn store(&self, i: usize) -> &RaftStore {
        &self.nodes[i].as_ref().expect("it runs").store
    }

    fn running(&self) -> impl Iterator<Item = &RaftStore> {
        self.nodes.iter().flatten().map(|node| &*node.store)
    }

    async fn restart(&mut self, i: usize) {
        let name = NAMES[i];
        self.nodes[i] = Some(start(&self.net, name, Form::Join, &self.disks[i]).await);
    }

    /// Once all that run agree on a leader, its place.
    async fn leader(&self) -> usize {
        let leads = |i: usize| {
            let node = self.nodes[i].as_ref()?;
            node.store.leadership().borrow().own_term()
        };
        let mut found = None;
        eventually("somebody leads", async || {
            found = (0..self.nodes.len()).filter_map(|i| Some((leads(i)?, i))).max();
            let Some((term, _)) = found else { return false };
            self.running().all(|store| {
                let leadership = store.leadership().borrow().clone();
                leadership.term == term && leadership.leader != Leader::Unknown
            })
        })
        .await;
        found.expect("found").1
    }

    /// All that run have the same, and it is this revision.
    async fn all_have(&self, revision: Revision) {
        for store in self.running() {
            eventually("it catches up", async || store.snapshot().revision() >= revision).await;
        }
        let snapshots: Vec<_> = self.running().map(Store::snapshot).collect();
        for snapshot in &snapshots {
            assert_eq!(snapshot.revision(), revision);
            assert!(snapshot.iter().eq(snapshots[0].iter()));
        }
    }
}

async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        let mut polls = tokio::time::interval(POLL);
        while !check().await {
            polls.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what} in time"));
}

fn mk_mesh(name: &str, n: u64) -> Resource {
    let mut meta = Meta::new("", name);
    meta.labels.insert("n".into(), n.to_string());
    Resource::new(meta, Mesh::default())
}

fn read(store: &RaftStore, name: &str) -> Option<u64> {
    store.snapshot().get(&Key::new(Kind::Mesh, "", name))?.meta.label("n")?.parse().ok()
}

async fn put(store: &RaftStore, name: &str, n: u64) -> Revision {
    store.commit(Txn::put(mk_mesh(name, n))).await.expect("written").revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_writes_and_reads_its_writes() {
    let cluster = Cluster::form().await;
    for (i, name) in NAMES.iter().enumerate() {
        let revision = put(cluster.store(i), name, 1).await;
        assert_eq!(read(cluster.store(i), name), Some(1), "it reads what it wrote");
        assert!(cluster.store(i).snapshot().revision() >= revision);
        eventually("it is healthy", async || cluster.store(i).health() == Health::Ready).await;
    }
    let conflict = cluster.store(2).commit(Txn::default().and_put(mk_mesh("a", 2), Expect::Absent)).await;
    assert!(matches!(conflict, Err(CommitError::Exists(_))), "{conflict:?}");
    let last = put(cluster.store(1), "a", 2).await;
    cluster.store(2).read_barrier().await.expect("reachable");
    assert_eq!(read(cluster.store(2), "a"), Some(2), "the barrier waited for it");
    cluster.all_have(last).await;
    let cluster_ids: Vec<_> = cluster.running().map(RaftStore::cluster).collect();
    assert!(!cluster_ids[0].is_empty() && cluster_ids.iter().all(|id| *id == cluster_ids[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas() {
    let kept = Mutex::new(Vec::new());
    graticule_store::conformance::replicas(async |history_len| {
        let net = Net::default();
        let mut stores = Vec::new();
        for (name, form) in NAMES.iter().zip([Form::Alone, Form::Join, Form::Join]) {
            let options = Options { history_len, snapshot_after: usize::MAX / 4, ..options(name, form) };
            let node = start_with(&net, &MemoryDisk::new(), options).await;
            stores.push(node.store.clone());
            kept.lock().push(node);
        }
        for (name, store) in NAMES.iter().zip(&stores).skip(1) {
            stores[0].add_member(store.id(), member(name)).await.expect("added");
        }
        stores.into_iter().map(|store| store as Arc<dyn Store>).collect()
    })
    .await;
}

/// Writers on all members count up one resource while the leader is killed and comes back: nothing is lost, nothing
/// counts twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_survive_the_leader_and_count_once() {
    const WRITES: u64 = 30;
    let mut cluster = Cluster::form().await;
    let mut writers = JoinSet::new();
    let killed = cluster.leader().await;
    for i in (0..3).filter(|i| *i != killed) {
        let store = cluster.nodes[i].as_ref().expect("it runs").store.clone();
        writers.spawn(async move {
            let name = format!("w{i}");
            let mut n = 0;
            while n < WRITES {
                match store.commit(Txn::put(mk_mesh(&name, n + 1))).await {
                    Ok(_) => n += 1,
                    Err(error @ (CommitError::Invalid(_) | CommitError::Fenced(_))) => panic!("{error}"),
                    // After an unknown outcome it looks what became of it.
                    Err(_) => n = read(&store, &name).unwrap_or_default().max(n),
                }
            }
        });
    }
    eventually("they write", async || cluster.running().any(|store| store.snapshot().revision().0 > 10))
        .await;
    cluster.nodes[killed] = None;
    while let Some(done) = writers.join_next().await {
        done.expect("writers do not panic");
    }
    cluster.restart(killed).await;
    let next = cluster.leader().await;
    let last = put(cluster.store(next), "last", 1).await;
    cluster.all_have(last).await;
    for i in (0..3).filter(|i| *i != killed) {
        let key = Key::new(Kind::Mesh, "", format!("w{i}"));
        let stored = cluster.store(killed).snapshot().get(&key).expect("there");
        assert_eq!((stored.meta.label("n"), stored.meta.version), (Some("30"), WRITES), "each write once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_closed_hands_over() {
    let mut cluster = Cluster::form().await;
    let leader = cluster.leader().await;
    let term = cluster.store(leader).leadership().borrow().term;
    cluster.store(leader).close().await;
    cluster.nodes[leader] = None;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    assert!(cluster.store(next).leadership().borrow().term > term);
    let last = put(cluster.store((leader + 1) % 3), "m", 1).await;
    cluster.all_have(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_gets_a_snapshot() {
    let mut cluster = Cluster::form().await;
    let leader = cluster.leader().await;
    let lagging = (leader + 1) % 3;
    cluster.store(lagging).close().await;
    cluster.nodes[lagging] = None;
    let filler = "x".repeat(1000);
    let mut last = Revision(0);
    for n in 0..200 {
        let mut mesh = mk_mesh(&format!("m{}", n % 10), n);
        mesh.meta.labels.insert("filler".into(), filler.clone());
        last = cluster.store(leader).commit(Txn::put(mesh)).await.expect("two of three").revision;
    }
    let is_shortened = || {
        let names = cluster.disks[leader].bytes_of_all();
        names.iter().any(|name| name.ends_with(".snap"))
            && !names.contains(&"log-0000000000000001.seg".to_owned())
    };
    eventually("the log is shortened", async || is_shortened()).await;
    cluster.restart(lagging).await;
    let mut feed = cluster.store(lagging).watch(Some(cluster.store(lagging).snapshot().revision()));
    let event = tokio::time::timeout(DEADLINE, feed.next()).await.expect("in time").expect("open");
    assert!(matches!(event, Event::Resync(_)), "a snapshot came, not single batches: {event:?}");
    cluster.all_have(last).await;
    let last = put(cluster.store(lagging), "after", 1).await;
    cluster.all_have(last).await;
    let left = cluster.disks[lagging].bytes_of_all();
    assert!(!left.iter().any(|name| name.contains("received")), "no temporary file stays: {left:?}");
}

trait Names {
    fn bytes_of_all(&self) -> Vec<String>;
}

impl Names for MemoryDisk {
    fn bytes_of_all(&self) -> Vec<String> {
        graticule_store_raft::Disk::list(self).expect("lists")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_removed_and_added_again() {
    let mut cluster = Cluster::form().await;
    let leader = cluster.leader().await;
    let (removed, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = cluster.store(removed).id();
    // Asked for on a follower.
    cluster.store(other).remove_member(id).await.expect("removed");
    let last = put(cluster.store(other), "m", 1).await;
    assert_eq!(cluster.store(leader).members().len(), 2);
    let error = cluster.store(removed).commit(Txn::put(mk_mesh("m", 2))).await.expect_err("no member");
    assert!(matches!(error, CommitError::Unavailable(_)), "{error}");
    eventually("it says so", async || matches!(cluster.store(removed).health(), Health::Stale(_))).await;
    let unknown = cluster.store(leader).remove_member(id).await;
    assert!(matches!(unknown, Err(ClusterError::NoMember(found)) if found == id), "{unknown:?}");
    assert_eq!(read(cluster.store(leader), "m"), Some(1));
    cluster.store(other).add_member(id, member(NAMES[removed])).await.expect("added again");
    let next = put(cluster.store(removed), "m", 3).await;
    assert!(next > last);
    cluster.all_have(next).await;
    // The leader itself.
    let leading = cluster.store(leader).id();
    cluster.store(other).remove_member(leading).await.expect("removed");
    cluster.nodes[leader] = None;
    let next = cluster.leader().await;
    let last = put(cluster.store(next), "m", 4).await;
    cluster.all_have(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_was_a_member_is_not_removed_by_an_election() {
    const UNKNOWN: u64 = 12345;
    let mut cluster = Cluster::form().await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    // It is asked for while nobody leads, so that the first attempts end without an answer.
    cluster.nodes[leader] = None;
    let mut outcome = Ok(());
    eventually("it is answered", async || {
        outcome = cluster.store(other).remove_member(UNKNOWN).await;
        // The first one may meet a connection that has just been lost.
        !matches!(outcome, Err(ClusterError::Failed(_)))
    })
    .await;
    assert!(matches!(outcome, Err(ClusterError::NoMember(UNKNOWN))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_leader_is_fenced() {
    let cluster = Cluster::form().await;
    let leader = cluster.leader().await;
    let term = cluster.store(leader).leadership().borrow().own_term().expect("it leads");
    cluster.store(leader).commit_as(term, Txn::put(mk_mesh("m", 1))).await.expect("it leads");
    let next = (leader + 1) % 3;
    let id = cluster.store(next).id();
    cluster.store((leader + 2) % 3).transfer_leadership(id).await.expect("handed over");
    assert_eq!(cluster.leader().await, next);
    let new_term = cluster.store(next).leadership().borrow().own_term().expect("it leads");
    assert!(new_term > term);
    for i in 0..3 {
        let fenced = cluster.store(i).commit_as(term, Txn::put(mk_mesh("m", 2))).await;
        assert!(matches!(&fenced, Err(CommitError::Fenced(found)) if *found == term), "{fenced:?}");
    }
    cluster.store(next).commit_as(new_term, Txn::put(mk_mesh("m", 3))).await.expect("it leads");
    let unknown = cluster.store(leader).transfer_leadership(1).await;
    assert!(matches!(unknown, Err(ClusterError::NoMember(1))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_written_until_one_is_recovered() {
    let mut cluster = Cluster::form().await;
    let last = put(cluster.store(0), "m", 1).await;
    cluster.all_have(last).await;
    let identity = cluster.store(0).cluster();
    let (first, second) = (cluster.nodes[1].take(), cluster.nodes[2].take());
    drop((first, second));
    eventually("it notices", async || cluster.store(0).leadership().borrow().leader == Leader::Unknown).await;
    assert!(matches!(cluster.store(0).health(), Health::Stale(_)));
    let barrier = tokio::time::timeout(Duration::from_millis(300), cluster.store(0).read_barrier()).await;
    assert!(!matches!(barrier, Ok(Ok(()))), "nobody confirms");
    cluster.store(0).recover_alone().await.expect("recovered");
    assert_ne!(cluster.store(0).cluster(), identity);
    assert_eq!(read(cluster.store(0), "m"), Some(1), "it keeps what it has");
    let recovered = put(cluster.store(0), "m", 2).await;
    assert_eq!(cluster.store(0).members().len(), 1);
    // The others come back and are strangers.
    cluster.restart(1).await;
    cluster.restart(2).await;
    let old = cluster.running().skip(1).map(RaftStore::cluster).collect::<Vec<_>>();
    assert_eq!(old, [identity.clone(), identity]);
    let last = put(cluster.store(0), "m", 3).await;
    assert!(last > recovered);
    // Two of the old cluster agree among themselves; nothing passes between the two clusters.
    put(cluster.store(1), "old", 1).await;
    assert_eq!((read(cluster.store(0), "m"), read(cluster.store(1), "m")), (Some(3), Some(1)));
    assert_eq!(read(cluster.store(0), "old"), None);
    // With an empty data directory they are welcome.
    for (i, name) in NAMES.iter().enumerate().skip(1) {
        cluster.nodes[i] = None;
        cluster.disks[i] = MemoryDisk::new();
        cluster.restart(i).await;
        let id = cluster.store(i).id();
        cluster.store(0).add_member(id, member(name)).await.expect("added");
    }
    let last = put(cluster.store(2), "m", 4).await;
    cluster.all_have(last).await;
    // What was recovered is there after a restart, too.
    cluster.store(0).close().await;
    cluster.restart(0).await;
    cluster.all_have(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_member_forms_a_cluster_once() {
    let net = Net::default();
    let disks: Vec<_> = (0..2).map(|_| MemoryDisk::new()).collect();
    let a = start(&net, "a", Form::Join, &disks[0]).await;
    let b = start(&net, "b", Form::Join, &disks[1]).await;
    assert!(!a.store.is_initialized().await.expect("runs"));
    assert!(a.store.cluster().is_empty());
    assert!(matches!(a.store.health(), Health::Stale(reason) if reason.contains("waits")));
    let nothing = a.store.recover_alone().await;
    assert!(nothing.is_err(), "there is nothing to recover");
    eventually("it runs again", async || a.store.is_initialized().await.is_ok()).await;
    a.store.initialize().await.expect("formed");
    assert!(a.store.is_initialized().await.expect("runs"));
    let again = a.store.initialize().await;
    assert!(matches!(again, Err(ClusterError::Failed(_))), "{again:?}");
    put(&a.store, "m", 1).await;
    a.store.add_member(b.store.id(), member("b")).await.expect("added");
    assert_eq!(a.store.cluster(), b.store.cluster());
    let taken = b.store.initialize().await;
    assert!(taken.is_err(), "it belongs to a's cluster");
    let last = a.store.remove_member(a.store.id()).await.and(b.store.remove_member(b.store.id()).await);
    assert!(matches!(last, Err(ClusterError::LastMember)), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moves_is_found_again() {
    let mut cluster = Cluster::form().await;
    let leader = cluster.leader().await;
    let moved = (leader + 1) % 3;
    cluster.store(moved).close().await;
    cluster.nodes[moved] = None;
    cluster.net.0.lock().remove(NAMES[moved]);
    let options = Options { address: "elsewhere".into(), ..options(NAMES[moved], Form::Join) };
    cluster.nodes[moved] = Some(start_with(&cluster.net, &cluster.disks[moved], options).await);
    let id = cluster.store(moved).id();
    let last = put(cluster.store(leader), "m", 1).await;
    // It cannot hear the leader, but it may be told of it: here by an operator.
    let known = Member { name: NAMES[moved].into(), address: "elsewhere".into() };
    cluster.store(leader).add_member(id, known.clone()).await.expect("known by its new address");
    cluster.all_have(last).await;
    let knows = |members: Vec<MemberStatus>| members.iter().any(|m| m.id == id && m.member == known);
    eventually("it knows itself", async || knows(cluster.store(moved).members())).await;
}
