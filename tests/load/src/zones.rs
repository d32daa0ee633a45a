//! Global with many zones: from a PUT to the last zone's ACK. The zones are played; they speak plain KDS
//! (federation.md §1), so that another global can be measured with the same commands.

mod board;
mod peer;
mod policies;
mod target;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use graticule_testkit::wait;
use http::Method;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::Figures;
use crate::connection::Connection;
use board::{Board, Seen};
use peer::{Habit, Played, Progress};
use target::Target;
use wire::Traffic;

/// Time for all zones to have the first state.
const JOIN_LIMIT: Duration = Duration::from_secs(600);
/// Time for one change to reach all zones.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// Changes that are on the way at the same time; more PUTs wait.
const CHANGES_IN_FLIGHT_MAX: usize = 10_000;
/// Observations that wait to be counted.
const SEEN_QUEUE_LEN: usize = 65_536;
/// Connections that put the resources there.
const CREATE_CONNECTIONS: usize = 8;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which global.
    pub global: Global,
    /// Where logs and data of a started program go.
    pub dir: PathBuf,
    /// Zones that are measured.
    pub zones: usize,
    /// Besides these: zones that take the first state and read nothing more.
    pub slow: usize,
    /// Besides these: zones that connect again as soon as they have the first state.
    pub churning: usize,
    /// Policies at global.
    pub resources: usize,
    /// Changes that are measured.
    pub changes: usize,
    /// Changes per second; 0: one after the other, each when all zones have the one before.
    pub rate: u32,
}

/// The global control plane under load.
#[derive(Debug, Clone)]
pub enum Global {
    /// This program is started, on the embedded store, without TLS towards zones.
    Program(PathBuf),
    /// One that runs and takes zones without tokens and TLS.
    Running {
        /// Its REST API; writes from here must be allowed.
        api: SocketAddr,
        /// Its port for zones.
        kds: SocketAddr,
        /// Its process, if memory and CPU are to be read.
        pid: Option<u32>,
    },
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Zones that were measured.
    pub zones: usize,
    /// Zones that did not read.
    pub slow: usize,
    /// Zones that connected again and again.
    pub churning: usize,
    /// Policies at global.
    pub resources: usize,
    /// All zones at once connect → the last one has acknowledged the first state, seconds.
    pub join_seconds: f64,
    /// Bytes on the wire to the measured zones until then.
    pub join_bytes: u64,
    /// CPU time of global until then, seconds.
    pub join_cpu_seconds: Option<f64>,
    /// PUT → ACK handed to the connection by the last zone.
    pub last_zone: Figures,
    /// PUT → ACK handed to the connection, of each zone.
    pub each_zone: Figures,
    /// PUT → its answer.
    pub put: Figures,
    /// Bytes on the wire to one zone for one change, on average.
    pub bytes_per_change: f64,
    /// Cores that global used during the changes.
    pub cores: Option<f64>,
    /// First states that churning zones took during the changes.
    pub reconnects: u64,
    /// Resident memory of global: before zones, after their join, at the end; KiB.
    pub memory_kib: [Option<u64>; 3],
}

/// Measures.
///
/// # Errors
/// Global does not start or take the zones, an answer is not what it should be, or a change does not arrive.
pub async fn run(options: &Options) -> Result<Report> {
    std::fs::create_dir_all(&options.dir)?;
    let target = Target::reach(&options.global, &options.dir).await?;
    policies::create(target.api, options.resources, CREATE_CONNECTIONS).await?;
    let before = target.resident_kib();
    let traffic = Arc::new(Traffic::default());
    let cpu = target.cpu_seconds();
    let started = wait::now();
    let mut fleet = Fleet::start(options, &target, &traffic);
    fleet.all_joined().await?;
    let join = (started.elapsed(), traffic.received(), since(&target, cpu));
    let joined = target.resident_kib();
    let (cpu, received, reconnects) = (target.cpu_seconds(), traffic.received(), fleet.reconnects());
    let began = wait::now();
    let measured = fleet.measure(options, target.api).await?;
    let elapsed = began.elapsed();
    fleet.check()?;
    let changes = (options.changes * options.zones).max(1);
    Ok(Report {
        zones: options.zones,
        slow: options.slow,
        churning: options.churning,
        resources: options.resources,
        join_seconds: join.0.as_secs_f64(),
        join_bytes: join.1,
        join_cpu_seconds: join.2,
        last_zone: Figures::new(measured.last, elapsed),
        each_zone: Figures::new(measured.each, elapsed),
        put: Figures::new(measured.put, elapsed),
        bytes_per_change: (traffic.received() - received) as f64 / changes as f64,
        cores: since(&target, cpu).map(|seconds| seconds / elapsed.as_secs_f64()),
        reconnects: fleet.reconnects() - reconnects,
        memory_kib: [before, joined, target.resident_kib()],
    })
}

fn since(target: &Target, before: Option<f64>) -> Option<f64> {
    Some(target.cpu_seconds()? - before?)
}

/// All played zones.
struct Fleet {
    zones: Vec<watch::Receiver<Progress>>,
    churning: Vec<watch::Receiver<Progress>>,
    seen: mpsc::Receiver<Seen>,
    /// Ends with the fleet; a zone that is measured never ends by itself.
    tasks: JoinSet<Result<()>>,
}

impl Fleet {
    fn start(options: &Options, target: &Target, traffic: &Arc<Traffic>) -> Fleet {
        let (observed, seen) = mpsc::channel(SEEN_QUEUE_LEN);
        let mut fleet = Fleet { zones: Vec::new(), churning: Vec::new(), seen, tasks: JoinSet::new() };
        let counts = [
            (Habit::Steady, options.zones),
            (Habit::Slow, options.slow),
            (Habit::Churning, options.churning),
        ];
        for (habit, count) in counts {
            for index in 0..count {
                let (progress, told) = watch::channel(Progress::default());
                // Only what the measured zones hear is counted.
                let traffic =
                    if habit == Habit::Steady { traffic.clone() } else { Arc::new(Traffic::default()) };
                let zone = Played {
                    name: format!("{habit}-{index:04}"),
                    index,
                    habit,
                    global: target.kds,
                    resources: options.resources,
                    traffic,
                    progress,
                    seen: observed.clone(),
                };
                fleet.tasks.spawn(zone.run());
                match habit {
                    Habit::Steady | Habit::Slow => fleet.zones.push(told),
                    Habit::Churning => fleet.churning.push(told),
                }
            }
        }
        fleet
    }

    /// A zone that ended is an error.
    fn check(&mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.and_then(|()| bail!("a played zone ended by itself")),
        }
    }

    async fn all_joined(&mut self) -> Result<()> {
        let Fleet { zones, tasks, .. } = self;
        let all = async {
            for zone in zones {
                zone.wait_for(|progress| progress.first_states > 0).await.context("a zone ended")?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => ended?.and_then(|()| bail!("a played zone ended by itself")),
            joined = tokio::time::timeout(JOIN_LIMIT, all) => {
                joined.context("not all zones have the first state in time")?
            }
        }
    }

    fn reconnects(&self) -> u64 {
        self.churning.iter().map(|zone| zone.borrow().first_states).sum()
    }

    async fn measure(&mut self, options: &Options, api: SocketAddr) -> Result<Measured> {
        let mut board = Board::new(options.zones);
        let (put, mut puts) = mpsc::channel(CHANGES_IN_FLIGHT_MAX);
        let (done, finished) = watch::channel(0);
        let mut writer = JoinSet::new();
        writer.spawn(write(api, options.clone(), put, finished));
        let mut last_progress = wait::now();
        while board.finished() < options.changes {
            let deadline = tokio::time::Instant::from_std(last_progress + CHANGE_LIMIT);
            tokio::select! {
                biased;
                Some((change, sent, answered)) = puts.recv() => {
                    last_progress = answered;
                    board.put(change, sent, answered);
                    done.send_replace(board.finished());
                }
                Some(seen) = self.seen.recv() => {
                    last_progress = seen.at;
                    board.seen(seen);
                    done.send_replace(board.finished());
                }
                Some(ended) = self.tasks.join_next() => {
                    ended?.and_then(|()| bail!("a played zone ended by itself"))?;
                }
                Some(Err(error)) = async { writer.join_next().await.map(|ended| ended.map_err(Into::into).flatten()) },
                    if !writer.is_empty() => return Err(error),
                () = tokio::time::sleep_until(deadline) => bail!("{}", board.missing()),
            }
        }
        Ok(Measured { last: board.last, each: board.each, put: board.put })
    }
}

/// Durations of all changes.
struct Measured {
    last: Vec<Duration>,
    each: Vec<Duration>,
    put: Vec<Duration>,
}

/// PUTs the changes, numbered from 1; tells when each was sent and answered.
async fn write(
    api: SocketAddr,
    options: Options,
    put: mpsc::Sender<(usize, Instant, Instant)>,
    mut finished: watch::Receiver<usize>,
) -> Result<()> {
    let mut connection = Connection::open(api).await?;
    let began = tokio::time::Instant::now();
    for change in 1..=options.changes {
        match options.rate {
            0 => {
                if finished.wait_for(|finished| *finished >= change - 1).await.is_err() {
                    return Ok(());
                }
            }
            rate => {
                let due = Duration::from_secs_f64((change - 1) as f64 / f64::from(rate));
                tokio::time::sleep_until(began + due).await;
            }
        }
        let policy = policies::of_change(change, options.resources);
        let sent = wait::now();
        let (status, answer) = connection.call(Method::PUT, &policy.path, policy.body).await?;
        ensure!(status == 200, "PUT {}: {status}: {}", policy.path, String::from_utf8_lossy(&answer));
        if put.send((change, sent, wait::now())).await.is_err() {
            return Ok(());
        }
    }
    // The measurement ends it.
    std::future::pending().await
}
