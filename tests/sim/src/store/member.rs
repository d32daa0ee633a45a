//! One member: its process, and those who use it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_runtime::listen::Io;
use graticule_runtime::{Clock, Drain, Random};
use graticule_store::{CommitError, Committed, Event, Expect, Snapshot, Store as _, Txn, Write};
use graticule_store_raft::{Connector, Deps, Form, LogOptions, Member, MemoryDisk, Options, RaftStore};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use turmoil::net::TcpStream;

use super::Disk;
use super::oracle::{EXPECT, OP, Op, Oracle, TERM, expect_label, term_key};

const PORT: u16 = 5690;
/// Writers at each member; they meet on the same resources.
const WRITERS: u64 = 2;
/// Pause of a writer between two writes, on average.
const PAUSE: Duration = Duration::from_millis(120);
/// Pause of those who look after a member.
const LOOK: Duration = Duration::from_millis(150);
/// Delay of a disk in order.
pub(super) const DISK_DELAY: Duration = Duration::from_millis(1);
/// Longest ballast of a write, so that snapshots are due all the time.
const BALLAST_LEN_MAX: u64 = 600;

/// What the operators of all members want.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Numbers of the members that started at least once, by place.
    ids: BTreeMap<usize, u64>,
    /// Places whose member should vote.
    pub(super) wanted: BTreeSet<usize>,
    /// Members whose removal is certain.
    pub(super) removed: BTreeSet<u64>,
    /// Places whose member should close in good order.
    pub(super) closing: BTreeSet<usize>,
    /// Share of answers between members that get lost with their connection, after the request was taken.
    pub(super) answers_lost: f64,
}

/// Where a member runs; clones are the same place.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) place: usize,
    seed: u64,
    pub(super) disk: Disk,
    pub(super) board: Arc<Mutex<Board>>,
    starts: Arc<AtomicU64>,
    oracle: Arc<Mutex<Oracle>>,
}

pub(super) fn name(place: usize) -> String {
    format!("member-{place}")
}

fn member(place: usize) -> Member {
    Member { name: name(place), address: format!("{}:{PORT}", name(place)) }
}

fn disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.set_delay(DISK_DELAY);
    disk
}

impl Site {
    pub(super) fn all(members: usize, seed: u64, oracle: &Arc<Mutex<Oracle>>) -> Vec<Site> {
        let board = Board { wanted: (0..members).collect(), ..Board::default() };
        let board = Arc::new(Mutex::new(board));
        let site = |place| Site {
            place,
            seed,
            disk: Arc::new(Mutex::new(disk())),
            board: board.clone(),
            starts: Arc::default(),
            oracle: oracle.clone(),
        };
        (0..members).map(site).collect()
    }

    pub(super) fn name(&self) -> String {
        name(self.place)
    }

    /// Number of the member, once it has started.
    pub(super) fn id(&self) -> Option<u64> {
        self.id_in(&self.board.lock())
    }

    pub(super) fn id_in(&self, board: &Board) -> Option<u64> {
        board.ids.get(&self.place).copied()
    }

    /// Another member will start here, on an empty disk.
    pub(super) fn replace(&self) {
        self.board.lock().ids.remove(&self.place);
        *self.disk.lock() = disk();
    }

    fn options(&self) -> Options {
        let is_first = self.place == 0 && self.board.lock().ids.is_empty();
        Options {
            name: self.name(),
            address: member(self.place).address,
            form: if is_first { Form::Alone } else { Form::Join },
            log: LogOptions { segment_len: 16 << 10, inline: true },
            snapshot_after: 8 << 10,
            entries_kept: 10,
            bytes_kept: 3 << 10,
            write_timeout: Duration::from_secs(4),
            ..Options::default()
        }
    }

    /// One run, until it is crashed or closed.
    pub(super) async fn run(self) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let random = Random::seeded(self.seed ^ (start << 32) ^ ((self.place as u64 + 1) << 56));
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse()?);
        let store = Arc::new(self.open(&clock, &random).await?);
        self.board.lock().ids.insert(self.place, store.id());
        let mut tasks = JoinSet::new();
        let (served, incoming) = (store.clone(), crate::net::listen(PORT).await?);
        tasks.spawn(async move { served.serve(incoming, Drain::never()).await });
        let user = User { site: self.clone(), store: store.clone(), random };
        tasks.spawn(user.clone().watch());
        for _ in 0..WRITERS {
            tasks.spawn(user.clone().write());
        }
        tasks.spawn(user.clone().write_as_leader());
        tasks.spawn(user.clone().read());
        tasks.spawn(user.clone().operate());
        tasks.spawn(user.report());
        loop {
            if self.board.lock().closing.remove(&self.place) {
                store.close().await;
                self.oracle.lock().gone(self.place);
                return Ok(());
            }
            while let Some(ended) = tasks.try_join_next() {
                ended?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn connector(&self, random: &Random) -> Connector {
        let (board, random) = (self.board.clone(), random.clone());
        Arc::new(move |member: Member| {
            let (board, random) = (board.clone(), random.clone());
            Box::pin(async move {
                let stream = TcpStream::connect(member.address).await?;
                Ok(Box::new(Flaky { stream, board, random }) as Box<dyn Io>)
            })
        })
    }

    /// A disk that fails just now is no reason to give up.
    async fn open(&self, clock: &Clock, random: &Random) -> anyhow::Result<RaftStore> {
        loop {
            let disk = self.disk.lock().clone();
            let is_broken = disk.is_broken();
            let deps = Deps {
                disk: Arc::new(disk),
                clock: clock.clone(),
                random: random.clone(),
                connector: Some(self.connector(random)),
            };
            match RaftStore::open(self.options(), deps).await {
                Ok(store) => return Ok(store),
                Err(_) if is_broken => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error).with_context(|| self.name()),
            }
        }
    }
}

/// A connection that may end when an answer comes.
struct Flaky {
    stream: TcpStream,
    board: Arc<Mutex<Board>>,
    random: Random,
}

impl AsyncRead for Flaky {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let lost = self.board.lock().answers_lost;
        if lost > 0.0 && buffer.filled().len() > before && self.random.fraction() < lost {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Flaky {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

trait Touch {
    /// A put that counts as a change even if the content is the same.
    fn and_touch(self, resource: Resource, expect: Expect) -> Self;
}

impl Touch for Txn {
    fn and_touch(mut self, resource: Resource, expect: Expect) -> Txn {
        self.writes.push(Write::Put { resource: Box::new(resource), expect, touch: true });
        self
    }
}

/// Those who use one member.
#[derive(Clone)]
struct User {
    site: Site,
    store: Arc<RaftStore>,
    random: Random,
}

impl User {
    async fn pause(&self, mean: Duration) {
        tokio::time::sleep(mean.mul_f64(0.5 + self.random.fraction())).await;
    }

    fn mk_mesh(&self, key: Key, op: Op, expect: Expect) -> Resource {
        let mut meta = Meta::new("", key.name);
        meta.labels.insert(OP.into(), op.to_string());
        meta.labels.insert(EXPECT.into(), expect_label(expect));
        let ballast = self.random.u64() % BALLAST_LEN_MAX;
        meta.labels.insert("ballast".into(), "x".repeat(usize::try_from(ballast).unwrap_or_default()));
        Resource::new(meta, Mesh::default())
    }

    /// Tells the oracle what became of a write.
    fn tell(&self, op: Op, after: graticule_store::Revision, outcome: Result<Committed, CommitError>) {
        let shown = self.store.snapshot().revision();
        let mut oracle = self.site.oracle.lock();
        match outcome {
            Ok(committed) => oracle.acknowledge(op, committed.revision, after, shown),
            Err(CommitError::Uncertain(_)) => oracle.lose(op),
            Err(error) => oracle.refuse(op, &error.to_string()),
        }
    }

    /// Writes on and on, some of it on condition of what it read. Most of it shows when it is applied a second time:
    /// it makes a new version of what it puts even if that has the same content, or puts what others deleted.
    async fn write(self) {
        while !self.site.oracle.lock().is_stopped() {
            self.pause(PAUSE).await;
            let (op, after) = self.site.oracle.lock().begin();
            // Some resources are shared with the writers of other members.
            let owner = if self.random.fraction() < 0.3 { "all".into() } else { self.site.place.to_string() };
            let key = Key::new(Kind::Mesh, "", format!("of-{owner}-{}", op % 3));
            let stored = self.store.snapshot().get(&key);
            let expect = match &stored {
                Some(stored) if self.random.fraction() < 0.5 => Expect::Version(stored.meta.version),
                None if self.random.fraction() < 0.7 => Expect::Absent,
                _ => Expect::Any,
            };
            let txn = if stored.is_some() && self.random.fraction() < 0.15 {
                // What is gone has no label: another resource says who did it.
                let sign = Key::new(Kind::Mesh, "", format!("of-{owner}-gone"));
                Txn::default()
                    .and_delete(key, expect)
                    .and_touch(self.mk_mesh(sign, op, Expect::Any), Expect::Any)
            } else if self.random.fraction() < 0.8 {
                Txn::default().and_touch(self.mk_mesh(key, op, expect), expect)
            } else {
                Txn::default().and_put(self.mk_mesh(key, op, expect), expect)
            };
            let outcome = self.store.commit(txn).await;
            self.tell(op, after, outcome);
        }
    }

    /// Writes its term while it leads.
    async fn write_as_leader(self) {
        while !self.site.oracle.lock().is_stopped() {
            self.pause(PAUSE * 2).await;
            let Some(term) = self.store.leadership().borrow().own_term() else { continue };
            self.site.oracle.lock().leads(self.site.place, term);
            let (op, after) = self.site.oracle.lock().begin();
            let mut mesh = self.mk_mesh(term_key(), op, Expect::Any);
            mesh.meta.labels.insert(TERM.into(), term.to_string());
            let outcome = self.store.commit_as(term, Txn::default().and_touch(mesh, Expect::Any)).await;
            self.tell(op, after, outcome);
        }
    }

    /// Linearizable reads.
    async fn read(self) {
        loop {
            self.pause(PAUSE * 4).await;
            let after = self.site.oracle.lock().known();
            if self.store.read_barrier().await.is_ok() {
                let shown = self.store.snapshot().revision();
                self.site.oracle.lock().read(self.site.place, after, shown);
            }
        }
    }

    /// Follows the feed and compares it with what other replicas say.
    async fn watch(self) {
        let mut feed = self.store.watch(None);
        let mut mirror = Snapshot::empty();
        while let Some(event) = feed.next().await {
            let before = mirror.revision();
            match event {
                Event::Batch(batch) => {
                    mirror = mirror.with(&batch);
                    self.site.oracle.lock().saw_batch(self.site.place, before, &batch, &mirror);
                }
                Event::Resync(snapshot) => {
                    let mut oracle = self.site.oracle.lock();
                    oracle.saw_resync(self.site.place, before, &snapshot);
                    mirror = snapshot;
                }
            }
        }
    }

    /// While it leads, sees to it that those vote who should.
    async fn operate(self) {
        loop {
            self.pause(LOOK).await;
            if self.store.leadership().borrow().own_term().is_none() {
                continue;
            }
            let wanted: BTreeMap<u64, usize> = {
                let board = self.site.board.lock();
                let started = board.ids.iter().filter(|(place, _)| board.wanted.contains(place));
                started.map(|(place, id)| (*id, *place)).collect()
            };
            let members = self.store.members();
            let votes = |id: &u64| members.iter().any(|member| member.id == *id && member.votes);
            if let Some((id, place)) = wanted.iter().find(|(id, _)| !votes(id)) {
                self.site.board.lock().removed.remove(id);
                // It may fail; then the next round tries again.
                let _ = self.store.add_member(*id, member(*place)).await;
            } else if let Some(other) = members.iter().find(|member| !wanted.contains_key(&member.id))
                && self.store.remove_member(other.id).await.is_ok()
            {
                self.site.board.lock().removed.insert(other.id);
            }
        }
    }

    async fn report(self) {
        loop {
            let leads = self.store.leadership().borrow().own_term().is_some();
            let led = if leads { self.store.members() } else { Vec::new() };
            self.site.oracle.lock().show(self.site.place, self.store.health(), led);
            self.pause(LOOK).await;
        }
    }
}
