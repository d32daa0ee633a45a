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
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
    /// How many writers these are.
    pub writers: usize,
    /// Snapshots that the leader finished during these.
    pub snapshots: usize,
    /// Leader killed with -9 → next acknowledged write at another member, milliseconds.
    pub failover_ms: Vec<f64>,
    /// Resident memory of the leader with all resources, KiB.
    pub memory_kib: Option<u64>,
    /// All members killed with -9 and started → the first one answers with everything, seconds.
    pub cold_start_seconds: f64,
    /// Its resident memory then, KiB.
    pub cold_memory_kib: Option<u64>,
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
    let all_writers = writes("all").update(options.writers, options.duration).await?;
    let snapshots = watch.finish().await?;
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
        all_writers,
        writers: options.writers,
        snapshots,
        failover_ms,
        memory_kib,
        cold_start_seconds: cold_start.as_secs_f64(),
        cold_memory_kib: resident(&replicas, 0),
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
        let total = self.total.max(1);
        let seed = usize::from(writers > 1);
        self.run(writers, 200, move |step, elapsed| {
            (elapsed < duration).then_some((step * 7919 % total, 1 + seed + 2 * step))
        })
        .await
    }

    /// Every writer takes every n-th step until there is none.
    async fn run<F>(&self, writers: usize, wanted: u16, next: F) -> Result<Figures>
    where
        F: Fn(usize, Duration) -> Option<(usize, usize)> + Clone + Send + 'static,
    {
        let (start, address, what) = (wait::now(), self.address, self.name);
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let next = next.clone();
            tasks.spawn(async move {
                let mut connection = Connection::open(address).await?;
                let mut latencies = Vec::new();
                for step in (writer..).step_by(writers) {
                    let Some((index, change)) = next(step, start.elapsed()) else { break };
                    let sent = wait::now();
                    let (status, answer) =
                        connection.call(Method::PUT, &path(index), body(index, change)).await?;
                    latencies.push(sent.elapsed());
                    let answer = String::from_utf8_lossy(&answer);
                    ensure!(status == wanted, "{what}: PUT {}: {status}: {answer}", path(index));
                }
                Ok(latencies)
            });
        }
        let latencies = crate::api::collect(tasks).await?;
        Ok(Figures::new(latencies, start.elapsed()))
    }
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

/// Counts files of snapshots as they appear.
struct Snapshots {
    seen: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    task: JoinSet<Result<()>>,
}

impl Snapshots {
    fn watch(workdir: &Path) -> Snapshots {
        let (seen, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, is_over, root) = (seen.clone(), over.clone(), workdir.to_owned());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let before = snapshots(&root)?;
            let mut new = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                new.extend(snapshots(&root)?.difference(&before).cloned());
                count.store(new.len(), Ordering::Relaxed);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        });
        Snapshots { seen, over, task }
    }

    async fn finish(mut self) -> Result<usize> {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.task.join_next().await {
            ended??;
        }
        Ok(self.seen.load(Ordering::Relaxed))
    }
}

/// Finished snapshots below a directory.
fn snapshots(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut found, mut open) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "snap") {
                found.insert(path);
            }
        }
    }
    Ok(found)
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
