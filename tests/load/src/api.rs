//! The REST API of a real `global-cp` with many resources in its store.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use graticule_testkit::net::free_port;
use graticule_testkit::{Process, wait};
use http::Method;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Figures;
use crate::connection::Connection;

/// Time for the control plane to start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Resources on one page of a LIST.
const PAGE_SIZE: usize = 100;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program.
    pub global_cp: PathBuf,
    /// Where its log and its certificate go.
    pub dir: PathBuf,
    /// Resources in the store.
    pub resources: usize,
    /// Connections that ask at the same time.
    pub connections: usize,
    /// How long each kind of call is measured.
    pub duration: Duration,
    /// How often; the best run counts.
    pub runs: usize,
}

/// What was measured: for each kind of call the run with the highest rate.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Resources in the store.
    pub resources: usize,
    /// Connections that asked at the same time.
    pub connections: usize,
    /// Runs of each measurement.
    pub runs: usize,
    /// Resident memory of the idle program, in KiB.
    pub idle_kib: u64,
    /// Resident memory with all resources, in KiB.
    pub full_kib: u64,
    /// Resident memory after everything, in KiB.
    pub end_kib: u64,
    /// PUTs that created all resources.
    pub create: Figures,
    /// PUTs of changed resources.
    pub update: Figures,
    /// GETs of one resource.
    pub get: Figures,
    /// LISTs of a page at any offset.
    pub list: Figures,
    /// LISTs of the last page.
    pub list_last: Figures,
    /// LISTs with a filter on a label that few resources have.
    pub list_label: Figures,
    /// LISTs with a filter on a part of the name.
    pub list_name: Figures,
}

/// Starts the program and measures.
///
/// # Errors
/// It does not start, or an answer is not what it should be.
pub async fn run(options: &Options) -> Result<Report> {
    std::fs::create_dir_all(&options.dir)?;
    let (process, address) = start(options).await?;
    let memory = || process.resident_kib().context("the memory of the process");
    let idle_kib = memory()?;
    let all = options.resources;
    let create = create(options, address).await?;
    let full_kib = memory()?;
    let one = |index: usize| format!("/meshes/default/meshtimeouts/{}", name(index));
    let update = best(options, address, 200, move |step| {
        let index = step * 7919 % all;
        (Method::PUT, one(index), body(index, 100 + step % 900))
    });
    let update = update.await?;
    let get = move |step: usize| (Method::GET, one(step * 7919 % all), Bytes::new());
    let get = best(options, address, 200, get).await?;
    let page = |query: String| {
        (Method::GET, format!("/meshes/default/meshtimeouts?size={PAGE_SIZE}&{query}"), Bytes::new())
    };
    let list = best(options, address, 200, move |step| page(format!("offset={}", step * 7919 % all))).await?;
    let last = all.saturating_sub(PAGE_SIZE);
    let list_last = best(options, address, 200, move |_| page(format!("offset={last}"))).await?;
    let label = move |step: usize| page(format!("filter[labels.team]=team-{}", step % (all / 50).max(1)));
    let list_label = best(options, address, 200, label).await?;
    let list_name = best(options, address, 200, move |step| page(format!("name={:04}", step % 1000))).await?;
    Ok(Report {
        resources: all,
        connections: options.connections,
        runs: options.runs,
        idle_kib,
        full_kib,
        end_kib: memory()?,
        create,
        update,
        get,
        list,
        list_last,
        list_label,
        list_name,
    })
}

async fn start(options: &Options) -> Result<(Process, SocketAddr)> {
    let port = free_port("127.0.0.1")?;
    let mut command = Command::new(&options.global_cp);
    command
        .args(["run", "--log-level", "warn"])
        .env("GRATICULE_GENERAL_WORK_DIR", &options.dir)
        .env("GRATICULE_API_SERVER_HTTP_INTERFACE", "127.0.0.1")
        .env("GRATICULE_API_SERVER_HTTP_PORT", port.to_string())
        .env("GRATICULE_API_SERVER_HTTPS_ENABLED", "false")
        .env("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", free_port("0.0.0.0")?.to_string())
        .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", free_port("0.0.0.0")?.to_string());
    let mut process = Process::spawn("global-cp", &options.dir, &mut command)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    if let Err(error) = answers(address).await {
        process.check_running()?;
        return Err(error);
    }
    Ok((process, address))
}

/// Waits until an API has its default mesh.
pub(crate) async fn answers(address: SocketAddr) -> Result<()> {
    let answered = wait::until("the API of global", START_LIMIT, || async {
        let mut connection = Connection::open(address).await.map_err(|error| format!("{error:#}"))?;
        match connection.call(Method::GET, "/meshes/default", Bytes::new()).await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    answered.await.map(|_| ())
}

fn name(index: usize) -> String {
    format!("timeout-{index:06}")
}

/// A MeshTimeout as a platform team has them: for one service, with a handful of labels.
fn body(index: usize, milliseconds: usize) -> Bytes {
    let resource = json!({
        "type": "MeshTimeout",
        "mesh": "default",
        "name": name(index),
        "labels": {"team": format!("team-{}", index / 50), "tier": format!("tier-{}", index % 3)},
        "spec": {
            "targetRef": {"kind": "Dataplane", "labels": {"app": format!("app-{index}")}},
            "to": [{
                "targetRef": {"kind": "Mesh"},
                "default": {
                    "connectionTimeout": format!("{milliseconds}ms"),
                    "idleTimeout": "1h",
                    "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m"},
                },
            }],
        },
    });
    Bytes::from(resource.to_string())
}

/// PUTs every resource once.
async fn create(options: &Options, address: SocketAddr) -> Result<Figures> {
    let start = wait::now();
    let (total, connections) = (options.resources, options.connections.max(1));
    let mut tasks = JoinSet::new();
    for task in 0..connections {
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut latencies = Vec::new();
            for index in (task..total).step_by(connections) {
                let path = format!("/meshes/default/meshtimeouts/{}", name(index));
                let start = wait::now();
                let (status, answer) = connection.call(Method::PUT, &path, body(index, 5_000)).await?;
                latencies.push(start.elapsed());
                ensure!(status == 201, "PUT {path}: {status}: {}", String::from_utf8_lossy(&answer));
            }
            Ok(latencies)
        });
    }
    let latencies = collect(tasks).await?;
    Ok(Figures::new(latencies, start.elapsed()))
}

/// The latencies of all tasks.
pub(crate) async fn collect(mut tasks: JoinSet<Result<Vec<Duration>>>) -> Result<Vec<Duration>> {
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.append(&mut done??);
    }
    Ok(all)
}

/// The run with the highest rate.
async fn best<F>(options: &Options, address: SocketAddr, status: u16, call: F) -> Result<Figures>
where
    F: Fn(usize) -> (Method, String, Bytes) + Clone + Send + 'static,
{
    let mut best: Option<Figures> = None;
    for _ in 0..options.runs.max(1) {
        let figures = measure(options, address, status, call.clone()).await?;
        if best.as_ref().is_none_or(|best| figures.per_second > best.per_second) {
            best = Some(figures);
        }
    }
    best.context("at least one run")
}

async fn measure<F>(options: &Options, address: SocketAddr, wanted: u16, call: F) -> Result<Figures>
where
    F: Fn(usize) -> (Method, String, Bytes) + Clone + Send + 'static,
{
    let start = wait::now();
    let connections = options.connections.max(1);
    let duration = options.duration;
    let mut tasks = JoinSet::new();
    for task in 0..connections {
        let call = call.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut latencies = Vec::new();
            for step in (task..).step_by(connections) {
                if start.elapsed() >= duration {
                    break;
                }
                let (method, path, body) = call(step);
                let start = wait::now();
                let (status, answer) = connection.call(method, &path, body).await?;
                latencies.push(start.elapsed());
                ensure!(status == wanted, "{path}: {status}: {}", String::from_utf8_lossy(&answer));
            }
            Ok(latencies)
        });
    }
    let latencies = collect(tasks).await?;
    Ok(Figures::new(latencies, start.elapsed()))
}
