//! Control planes whose resources are in a real etcd.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use graticule_testkit::etcd::{self, Etcd};
use graticule_testkit::http::Client;
use graticule_testkit::net::free_port;
use graticule_testkit::process::finish;
use graticule_testkit::{Process, wait};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

fn mk_dir(name: &str) -> Result<Option<(PathBuf, PathBuf)>> {
    let Some(programs) = std::env::var_os("GRATICULE_BIN_DIR").map(PathBuf::from) else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs");
        return Ok(None);
    };
    let dir = programs.join(format!("../e2e/{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(Some((programs, dir)))
}

struct Global {
    process: Process,
    api: String,
}

/// A global control plane over etcd; `name` is that of its log.
fn start_global(programs: &Path, dir: &Path, name: &str, endpoint: &str, api_port: u16) -> Result<Global> {
    let work = dir.join(name);
    std::fs::create_dir_all(&work)?;
    let mut command = Command::new(programs.join("global-cp"));
    command.arg("run").envs([
        ("GRATICULE_STORE_TYPE", "etcd"),
        ("GRATICULE_STORE_ETCD_ENDPOINTS", endpoint),
        ("GRATICULE_STORE_ETCD_LEASE_TTL", "2s"),
        ("GRATICULE_GENERAL_WORK_DIR", &work.display().to_string()),
        ("GRATICULE_API_SERVER_HTTP_PORT", &api_port.to_string()),
        ("GRATICULE_API_SERVER_HTTPS_ENABLED", "false"),
        ("GRATICULE_DIAGNOSTICS_SERVER_PORT", &free_port("127.0.0.1")?.to_string()),
        ("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", &free_port("127.0.0.1")?.to_string()),
    ]);
    let process = Process::spawn(name, dir, &mut command)?;
    Ok(Global { process, api: format!("http://127.0.0.1:{api_port}") })
}

async fn is_up(client: &Client, api: &str) -> Result<()> {
    let look = || async {
        match client.get(&format!("{api}/meshes/default")).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(error) => Err(format!("{error:#}")),
        }
    };
    wait::until("the API serves the mesh", LIMIT, look).await.map(drop)
}

/// Writes go on through kills of global and of etcd; what was acknowledged is there afterwards.
#[tokio::test]
async fn nothing_acknowledged_is_lost() -> Result<()> {
    let Some((programs, dir)) = mk_dir("etcd")? else { return Ok(()) };
    let Some(binary) = etcd::binary() else {
        println!("skipped: there is no etcd; `cargo xtask e2e` installs it where it can");
        return Ok(());
    };
    let mut etcd = Etcd::members(&binary, &dir, 1, "http", &[])?.remove(0);
    etcd.start()?;
    etcd.wait_ready(LIMIT).await?;
    let port = free_port("127.0.0.1")?;
    let client = Client::new()?;
    let mut global = start_global(&programs, &dir, "global", &etcd.endpoint(), port)?;
    is_up(&client, &global.api).await?;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for n in 0..25 {
            let name = format!("t{round}-{n}");
            let path = format!("{}/meshes/default/meshtimeouts/{name}", global.api);
            let timeout = json!({"type": "MeshTimeout", "mesh": "default", "name": name, "spec": {
                "targetRef": {"kind": "Mesh"},
                "to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionTimeout": format!("{}s", n + 1)}}],
            }});
            let answer = client.put(&path, &timeout).await?;
            ensure!([200, 201].contains(&answer.status), "{name}: {}", answer.status);
            acknowledged.push((name, n + 1));
        }
        if round % 2 == 0 {
            global.process.kill()?;
        }
        etcd.kill()?;
        etcd.start()?;
        if round % 2 == 0 {
            global = start_global(&programs, &dir, "global", &etcd.endpoint(), port)?;
        }
        is_up(&client, &global.api).await?;
        // Writes are taken again without a restart.
        let probe = json!({"type": "Mesh", "name": format!("probe-{round}")});
        let write = || async {
            let answer = client.put(&format!("{}/meshes/probe-{round}", global.api), &probe).await;
            match answer {
                Ok(answer) if [200, 201].contains(&answer.status) => Ok(()),
                Ok(answer) => Err(format!("status {}", answer.status)),
                Err(error) => Err(format!("{error:#}")),
            }
        };
        wait::until("writes are taken", LIMIT, write).await?;
    }
    for (name, seconds) in &acknowledged {
        let answer = client.get(&format!("{}/meshes/default/meshtimeouts/{name}", global.api)).await?;
        ensure!(answer.status == 200, "{name} is lost");
        let stored = answer.json()?["spec"]["to"][0]["default"]["connectionTimeout"].clone();
        ensure!(stored == format!("{seconds}s"), "{name}: {stored}");
    }
    // Another one sees the same, and takes part.
    let other = start_global(&programs, &dir, "other", &etcd.endpoint(), free_port("127.0.0.1")?)?;
    is_up(&client, &other.api).await?;
    let last = json!({"type": "Mesh", "name": "last"});
    let answer = client.put(&format!("{}/meshes/last", other.api), &last).await?;
    ensure!(answer.status == 201, "{}", answer.status);
    let seen = || async {
        match client.get(&format!("{}/meshes/last", global.api)).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(error) => Err(format!("{error:#}")),
        }
    };
    wait::until("the first sees what the second wrote", LIMIT, seen).await?;
    Ok(())
}

/// What is wrong with the settings shows before anything starts.
#[tokio::test]
async fn settings_are_checked() -> Result<()> {
    let Some((programs, dir)) = mk_dir("etcd-settings")? else { return Ok(()) };
    for program in ["global-cp", "zone-cp"] {
        let mut command = Command::new(programs.join(program));
        command
            .args(["run", "--check-config"])
            .env("GRATICULE_STORE_TYPE", "etcd")
            .env("GRATICULE_MULTIZONE_ZONE_NAME", "east");
        let (code, said) = finish(program, &dir, &mut command, LIMIT).await?;
        ensure!(code == 1, "exit code {code}: {said}");
        // Either is right, depending on how the programs were built.
        let is_without = said.contains("was built without etcd") && said.contains("--features etcd");
        ensure!(said.contains("store.etcd: no endpoints are given") || is_without, "{said}");
    }
    Ok(())
}
