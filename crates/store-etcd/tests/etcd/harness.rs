//! A real etcd for tests, and a way to cut it off.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use etcd_client::{Client, GetOptions};
use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::{Clock, Random};
use graticule_store::{Event, Feed, Health, Store};
use graticule_store_etcd::{Deps, EtcdStore, OpenError, Options};
use graticule_testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Something that takes longer has gone wrong.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const HOST: &str = "127.0.0.1";

/// `$ETCD_BIN`, else `etcd` in `PATH`; none, said on standard error, when there is none.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn binary() -> Option<PathBuf> {
    let found = graticule_testkit::etcd::binary();
    if found.is_none() {
        eprintln!(
            "skipped: there is no etcd; set ETCD_BIN or put one into PATH (cargo xtask test installs it)"
        );
    }
    found
}

/// A member of etcd, alone or one of three.
pub(crate) struct Etcd {
    _dir: Arc<tempfile::TempDir>,
    member: graticule_testkit::etcd::Etcd,
    pub(crate) port: u16,
}

impl Etcd {
    /// A member that stands alone; none when there is no etcd here.
    pub(crate) async fn start() -> Option<Etcd> {
        Etcd::start_with(|_| Vec::new(), "http").await
    }

    /// With further arguments, which may name files in the directory.
    pub(crate) async fn start_with(
        more: impl FnOnce(&Path) -> Vec<String>,
        scheme: &'static str,
    ) -> Option<Etcd> {
        Etcd::start_cluster(1, more, scheme).await?.pop()
    }

    /// Three members.
    pub(crate) async fn start_three() -> Option<Vec<Etcd>> {
        Etcd::start_cluster(3, |_| Vec::new(), "http").await
    }

    async fn start_cluster(
        count: usize,
        more: impl FnOnce(&Path) -> Vec<String>,
        scheme: &'static str,
    ) -> Option<Vec<Etcd>> {
        let binary = binary()?;
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let more = more(dir.path());
        let members = graticule_testkit::etcd::Etcd::members(&binary, dir.path(), count, scheme, &more);
        let mut members = members.expect("there are ports");
        for member in &mut members {
            member.start().expect("etcd starts");
        }
        for member in &members {
            member.wait_ready(DEADLINE).await.expect("etcd is ready");
        }
        let own =
            |member: graticule_testkit::etcd::Etcd| Etcd { _dir: dir.clone(), port: member.port, member };
        Some(members.into_iter().map(own).collect())
    }

    pub(crate) fn run(&mut self) {
        self.member.start().expect("etcd starts");
    }

    pub(crate) fn kill(&mut self) {
        self.member.kill().expect("killed");
    }

    pub(crate) fn endpoint(&self) -> String {
        self.member.endpoint()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect([self.endpoint()], None).await.expect("connects")
    }

    /// Drops the history up to now.
    pub(crate) async fn compact(&self) {
        let mut client = self.client().await;
        let now = client.get("x", Some(GetOptions::new().with_count_only())).await.expect("answers");
        let now = now.header().expect("a header").revision();
        client.compact(now, None).await.expect("compacted");
    }
}

/// Options that recover quickly, for a store of its own.
pub(crate) fn options(endpoint: String) -> Options {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    Options {
        endpoints: vec![endpoint],
        prefix: format!("/test/{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        name: "a".into(),
        lease: Duration::from_secs(2),
        probe_interval: Duration::from_millis(200),
        ..Options::default()
    }
}

pub(crate) async fn open(options: Options) -> EtcdStore {
    try_open(options).await.expect("opens")
}

pub(crate) async fn try_open(options: Options) -> Result<EtcdStore, OpenError> {
    EtcdStore::open(options, Deps { clock: Clock::system(), random: Random::system() }).await
}

pub(crate) fn mesh(name: &str, n: u64) -> Resource {
    let mut meta = Meta::new("", name);
    meta.labels.insert("n".into(), n.to_string());
    Resource::new(meta, Mesh::default())
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(Kind::Mesh, "", name)
}

pub(crate) fn number(store: &dyn Store, name: &str) -> Option<u64> {
    store.snapshot().get(&key(name))?.meta.label("n")?.parse().ok()
}

pub(crate) async fn next(feed: &mut Box<dyn Feed>) -> Event {
    tokio::time::timeout(DEADLINE, feed.next()).await.expect("an event arrives in time").expect("open")
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let seen = || std::future::ready(if condition() { Ok(()) } else { Err("not yet".to_owned()) });
    wait::until(what, DEADLINE, seen).await.expect("in time");
}

/// Waits until the health is as wanted.
pub(crate) async fn health(store: &dyn Store, what: &str, wanted: impl Fn(&Health) -> bool) {
    let seen = || {
        let health = store.health();
        std::future::ready(if wanted(&health) { Ok(()) } else { Err(format!("{health:?}")) })
    };
    wait::until(what, DEADLINE, seen).await.expect("in time");
}

/// Waits until everything works.
pub(crate) async fn well(store: &dyn Store) {
    health(store, "the store is well", |health| *health == Health::Ready).await;
}

/// Waits until the store has noticed that something is wrong.
pub(crate) async fn unwell(store: &dyn Store) {
    health(store, "the store notices", |health| *health != Health::Ready).await;
}

/// What a [`Gate`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything passes.
    Open,
    /// What etcd says does not pass.
    Mute,
    /// Connections end, and new ones end at once.
    Shut,
}

/// Stands between a replica and etcd.
pub(crate) struct Gate {
    port: u16,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// How often it was shut: connections do not survive that.
    shut: u64,
}

impl Gate {
    pub(crate) async fn to(port: u16) -> Gate {
        let listener = TcpListener::bind((HOST, 0)).await.expect("a port");
        let own = listener.local_addr().expect("bound").port();
        let (state, watching) = watch::channel(State { mode: Mode::Open, shut: 0 });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, port, watching.clone()));
            }
        });
        Gate { port: own, state, _tasks: tasks }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{HOST}:{}", self.port)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.shut += u64::from(mode == Mode::Shut);
        });
    }
}

async fn pass(client: TcpStream, port: u16, state: watch::Receiver<State>) {
    let State { mode, shut: born } = *state.borrow();
    if mode == Mode::Shut {
        return;
    }
    let Ok(server) = TcpStream::connect((HOST, port)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut watching = state.clone();
    let ended = async move {
        // An error means that the gate is gone, too.
        let _ = watching.wait_for(|state| state.shut != born).await;
    };
    let asked = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answered = async {
        let mut buffer = vec![0; 64 << 10];
        let mut state = state.clone();
        loop {
            let len = from_server.read(&mut buffer).await?;
            let _ = state.wait_for(|state| state.mode != Mode::Mute).await;
            if len == 0 || state.borrow().shut != born {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..len]).await?;
        }
    };
    tokio::select! {
        biased;
        () = ended => {}
        _ = asked => {}
        _ = answered => {}
    }
}

/// Two replicas of one store.
pub(crate) async fn pair(etcd: &Etcd, history_len: usize) -> Vec<Arc<dyn Store>> {
    let options = options(etcd.endpoint());
    let mut replicas = Vec::new();
    for name in ["a", "b"] {
        let options = Options { name: name.into(), history_len, ..options.clone() };
        replicas.push(Arc::new(open(options).await) as Arc<dyn Store>);
    }
    replicas
}
