//! Writes through the REST API into the embedded store of one or several replicas: latency, throughput, what a lost
//! leader costs, and how long a full store takes to start.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use graticule_testkit::replicas::Site;
use graticule_testkit::{Binaries, Replicas, process, wait};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Figures;
use crate::connection::Connection;

/// Members that may be killed without the loss of the majority need at least this many.
const MEMBERS_TO_LOSE_ONE: usize = 3;
/// Time for a write to be acknowledged after the leader was killed.
const FAILOVER_LIMIT: Duration = Duration::from_secs(60);
/// Between looks at the directory of snapshots.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time for the snapshots to come that were asked for.
const SNAPSHOTS_LIMIT: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The programs.
    pub binaries: Binaries,
    /// Where data and logs go: a real disk.
    pub dir: PathBuf,
    /// Replicas of global.
    pub members: usize,
    /// Resources of about 3 KB in the store, besides the default objects.
    pub resources: usize,
    /// How long each kind of write is measured.
    pub duration: Duration,
    /// Connections that write at the same time, after one that writes alone.
    pub writers: usize,
    /// Snapshots that the leader has finished before the writes of all writers end.
    pub snapshots: usize,
    /// How often the leader is killed.
    pub failovers: usize,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Replicas of global.
    pub members: usize,
    /// Resources in the store.
    pub resources: usize,
    /// Bytes of a resource, as it is written.
    pub bytes: usize,
    /// PUTs that created all resources, by all writers.
    pub create: Figures,
    /// PUTs of changed resources, one after the other.
    pub one_writer: Figures,
    /// PUTs of changed resources, by all writers.
    pub all_writers: Figures,
    /// Those of them that were under way while the leader wrote a snapshot.
    pub all_writers_during_snapshots: Figures,
    /// The others.
    pub all_writers_besides: Figures,
    /// How many writers these are.
    pub writers: usize,
    /// Snapshots that the leader finished during these.
    pub snapshots: usize,
    /// How long it wrote on them, seconds.
    pub snapshots_seconds: f64,
    /// Leader killed with -9 → next acknowledged write at another member, milliseconds.
    pub failover_ms: Vec<f64>,
    /// Resident memory of the leader with all resources, KiB.
    pub memory_kib: Option<u64>,
    /// All members killed with -9 and started → the first one answers with everything, seconds.
    pub cold_start_seconds: f64,
    /// Its resident memory then, KiB.
    pub cold_memory_kib: Option<u64>,
    /// The most that was resident until then, KiB.
    pub cold_memory_peak_kib: Option<u64>,
}

/// Starts the replicas and measures.
///
/// # Errors
/// They do not start, or an answer is not what it should be.
pub async fn run(options: &Options) -> Result<Report> {
    let mut replicas =
        Replicas::start(&options.binaries, &options.dir, Site::Global, options.members).await?;
    let (mut leader, _) = replicas.leader(0, None).await?;
    let address = api(&replicas, leader)?;
    let total = options.resources;
    let writes = |name| Writes { address, total, name };
    let create = writes("create").create(options.writers).await?;
    let memory_kib = resident(&replicas, leader);
    let one_writer = writes("one").update(1, options.duration).await?;
    let watch = Snapshots::watch(&replicas.replicas[leader].control_plane.workdir);
    let (calls, elapsed) = writes("all").update_until(options, watch.finished.clone()).await?;
    let snapshots = watch.finish().await?;
    let (during, besides) = snapshots.apart(&calls, elapsed);
    let mut failover_ms = Vec::new();
    for attempt in 0..options.failovers {
        ensure!(options.members >= MEMBERS_TO_LOSE_ONE, "a lost leader needs three members");
        let other = (leader + 1) % options.members;
        let took = fail_over(&mut replicas, leader, other, attempt, total).await?;
        failover_ms.push(took.as_secs_f64() * 1_000.0);
        replicas.start_again(leader)?;
        replicas.wait_ready(leader).await?;
        (leader, _) = replicas.leader(other, None).await?;
    }
    let cold_start = cold_start(&mut replicas, total).await?;
    Ok(Report {
        members: options.members,
        resources: total,
        bytes: body(0, 0).len(),
        create,
        one_writer,
        all_writers: Figures::new(calls.iter().map(|call| call.took).collect(), elapsed),
        all_writers_during_snapshots: during,
        all_writers_besides: besides,
        writers: options.writers,
        snapshots: snapshots.finished,
        snapshots_seconds: snapshots.time().as_secs_f64(),
        failover_ms,
        memory_kib,
        cold_start_seconds: cold_start.as_secs_f64(),
        cold_memory_kib: resident(&replicas, 0),
        cold_memory_peak_kib: process::peak_kib(replicas.replicas[0].control_plane.process.pid()),
    })
}

fn api(replicas: &Replicas, index: usize) -> Result<SocketAddr> {
    let url = &replicas.replicas.get(index).context("a replica")?.control_plane.api;
    Ok(url.trim_start_matches("http://").parse()?)
}

fn resident(replicas: &Replicas, index: usize) -> Option<u64> {
    process::resident_kib(replicas.replicas.get(index)?.control_plane.process.pid())
}

/// PUTs at one replica.
struct Writes {
    address: SocketAddr,
    total: usize,
    name: &'static str,
}

impl Writes {
    async fn create(&self, writers: usize) -> Result<Figures> {
        let total = self.total;
        self.run(writers, 201, move |step, _| (step < total).then_some((step, 0))).await
    }

    async fn update(&self, writers: usize, duration: Duration) -> Result<Figures> {
        let (calls, elapsed) = self.change(writers, 0, move |elapsed| elapsed < duration).await?;
        Ok(Figures::new(calls.into_iter().map(|call| call.took).collect(), elapsed))
    }

    /// By all writers, for the time that was asked for and until the leader has finished its snapshots.
    async fn update_until(
        &self,
        options: &Options,
        finished: Arc<AtomicUsize>,
    ) -> Result<(Vec<Call>, Duration)> {
        let (duration, wanted) = (options.duration, options.snapshots);
        let goes_on = move |elapsed| {
            let is_waiting = finished.load(Ordering::Relaxed) < wanted && elapsed < SNAPSHOTS_LIMIT;
            elapsed < duration || is_waiting
        };
        self.change(options.writers, 1, goes_on).await
    }

    async fn change(
        &self,
        writers: usize,
        seed: usize,
        goes_on: impl Fn(Duration) -> bool + Clone + Send + 'static,
    ) -> Result<(Vec<Call>, Duration)> {
        let total = self.total.max(1);
        let next = move |step: usize, elapsed| {
            goes_on(elapsed).then_some((step * 7919 % total, 1 + seed + 2 * step))
        };
        self.calls(writers, 200, next).await
    }

    async fn run<F>(&self, writers: usize, wanted: u16, next: F) -> Result<Figures>
    where
        F: Fn(usize, Duration) -> Option<(usize, usize)> + Clone + Send + 'static,
    {
        let (calls, elapsed) = self.calls(writers, wanted, next).await?;
        Ok(Figures::new(calls.into_iter().map(|call| call.took).collect(), elapsed))
    }

    /// Every writer takes every n-th step until there is none.
    async fn calls<F>(&self, writers: usize, wanted: u16, next: F) -> Result<(Vec<Call>, Duration)>
    where
        F: Fn(usize, Duration) -> Option<(usize, usize)> + Clone + Send + 'static,
    {
        let (start, address, what) = (wait::now(), self.address, self.name);
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let next = next.clone();
            tasks.spawn(async move {
                let mut connection = Connection::open(address).await?;
                let mut calls = Vec::new();
                for step in (writer..).step_by(writers) {
                    let Some((index, change)) = next(step, start.elapsed()) else { break };
                    let sent = start.elapsed();
                    let (status, answer) =
                        connection.call(Method::PUT, &path(index), body(index, change)).await?;
                    calls.push(Call { sent, took: start.elapsed().saturating_sub(sent) });
                    let answer = String::from_utf8_lossy(&answer);
                    ensure!(status == wanted, "{what}: PUT {}: {status}: {answer}", path(index));
                }
                anyhow::Ok(calls)
            });
        }
        let mut all = Vec::new();
        while let Some(calls) = tasks.join_next().await {
            all.extend(calls??);
        }
        Ok((all, start.elapsed()))
    }
}

/// One PUT.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Call {
    /// When it was sent, since the first one.
    sent: Duration,
    took: Duration,
}

/// Kills the leader and writes at another member until a write is acknowledged.
async fn fail_over(
    replicas: &mut Replicas,
    leader: usize,
    other: usize,
    attempt: usize,
    total: usize,
) -> Result<Duration> {
    let address = api(replicas, other)?;
    let mut connection = Connection::open(address).await?;
    replicas.kill(leader)?;
    let killed = wait::now();
    let index = attempt % total.max(1);
    loop {
        let put = connection.call(Method::PUT, &path(index), body(index, 1_000_000 + attempt)).await;
        match put {
            Ok((200 | 201, _)) => return Ok(killed.elapsed()),
            Ok((503, _)) => {}
            Ok((status, answer)) => {
                anyhow::bail!("PUT {}: {status}: {}", path(index), String::from_utf8_lossy(&answer))
            }
            // A write that was on its way when the leader died; its connection is over.
            Err(_) => connection = Connection::open(address).await?,
        }
        ensure!(killed.elapsed() < FAILOVER_LIMIT, "no write was acknowledged for {FAILOVER_LIMIT:?}");
    }
}

/// Kills all members and starts them again, until the first one shows the last resource.
async fn cold_start(replicas: &mut Replicas, total: usize) -> Result<Duration> {
    let count = replicas.replicas.len();
    for index in 0..count {
        replicas.kill(index)?;
    }
    let start = wait::now();
    for index in 0..count {
        replicas.start_again(index)?;
    }
    replicas.wait_ready(0).await?;
    let took = start.elapsed();
    let mut connection = Connection::open(api(replicas, 0)?).await?;
    let list = format!("/meshes/default/{PLURAL}?size=1");
    let (status, answer) = connection.call(Method::GET, &list, Bytes::new()).await?;
    let found = serde_json::from_slice::<Value>(&answer)?["total"].as_u64().unwrap_or_default();
    ensure!(status == 200 && found >= u64::try_from(total)?, "{found} of {total} resources are there");
    Ok(took)
}

/// When snapshots were written.
#[derive(Debug, Default)]
struct Seen {
    /// From … to, since the watch began.
    written: Vec<(Duration, Duration)>,
    finished: usize,
}

impl Seen {
    fn time(&self) -> Duration {
        self.written.iter().map(|(from, to)| to.saturating_sub(*from)).sum()
    }

    /// Calls that were under way while a snapshot was written, and the others.
    fn apart(&self, calls: &[Call], elapsed: Duration) -> (Figures, Figures) {
        let is_during = |call: &&Call| {
            self.written.iter().any(|(from, to)| call.sent < *to && *from < call.sent + call.took)
        };
        let (during, besides): (Vec<&Call>, Vec<&Call>) = calls.iter().partition(is_during);
        let took = |calls: Vec<&Call>| calls.into_iter().map(|call| call.took).collect();
        let time = self.time();
        (Figures::new(took(during), time), Figures::new(took(besides), elapsed.saturating_sub(time)))
    }
}

/// Looks for snapshots as they are written.
struct Snapshots {
    finished: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    task: JoinSet<Result<Seen>>,
}

impl Snapshots {
    fn watch(workdir: &Path) -> Snapshots {
        let (finished, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, is_over, root) = (finished.clone(), over.clone(), workdir.to_owned());
        let mut task = JoinSet::new();
        let start = wait::now();
        task.spawn(async move {
            let (before, _) = snapshots(&root)?;
            let (mut new, mut seen, mut began) = (BTreeSet::new(), Seen::default(), None);
            loop {
                let (found, is_writing) = snapshots(&root)?;
                let now = start.elapsed();
                new.extend(found.difference(&before).cloned());
                count.store(new.len(), Ordering::Relaxed);
                let ends = is_over.load(Ordering::Relaxed);
                match (is_writing && !ends, began) {
                    (true, None) => began = Some(now),
                    (false, Some(from)) => {
                        seen.written.push((from, now));
                        began = None;
                    }
                    (true, Some(_)) | (false, None) => {}
                }
                if ends {
                    seen.finished = new.len();
                    return Ok(seen);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Snapshots { finished, over, task }
    }

    async fn finish(mut self) -> Result<Seen> {
        self.over.store(true, Ordering::Relaxed);
        self.task.join_next().await.context("the watch of snapshots")??
    }
}

/// Finished snapshots below a directory, and whether one is being written.
fn snapshots(root: &Path) -> Result<(BTreeSet<PathBuf>, bool)> {
    let (mut found, mut is_writing, mut open) = (BTreeSet::new(), false, vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "snap") {
                found.insert(path);
            } else {
                is_writing |= path.to_string_lossy().ends_with(".snap.built.tmp");
            }
        }
    }
    Ok((found, is_writing))
}

const PLURAL: &str = "meshtrafficpermissions";

fn path(index: usize) -> String {
    format!("/meshes/default/{PLURAL}/permission-{index:06}")
}

/// A permission for many clients: about 3 KB.
fn body(index: usize, change: usize) -> Bytes {
    let client = |number: usize| {
        json!({"spiffeID": {
            "type": "Exact",
            "value": format!("spiffe://default.east.mesh.local/ns/team-{}/sa/client-{number:02}-{change}", index / 50),
        }})
    };
    let resource = json!({
        "type": "MeshTrafficPermission",
        "mesh": "default",
        "name": format!("permission-{index:06}"),
        "labels": {"team": format!("team-{}", index / 50)},
        "spec": {
            "targetRef": {"kind": "Dataplane", "labels": {"app": format!("app-{index}")}},
            "rules": [{"default": {"allow": (0..26).map(client).collect::<Vec<Value>>()}}],
        },
    });
    Bytes::from(resource.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_beside_snapshots_are_told_apart() {
        let ms = Duration::from_millis;
        let seen = Seen { written: vec![(ms(100), ms(200)), (ms(400), ms(500))], finished: 2 };
        assert_eq!(seen.time(), ms(200));
        // Before, into the first one, between them, around the second one, after it.
        let calls = [(0, 50), (60, 70), (200, 100), (350, 300), (500, 20)];
        let calls = calls.map(|(sent, took)| Call { sent: ms(sent), took: ms(took) });
        let (during, besides) = seen.apart(&calls, ms(1000));
        assert_eq!((during.calls, during.max_ms, during.per_second), (2, 300.0, 10.0));
        assert_eq!((besides.calls, besides.max_ms, besides.per_second), (3, 100.0, 3.75));
    }
}
