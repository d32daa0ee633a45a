//! Control planes of several replicas: they form a cluster from addresses and a token, lose members by `kill -9`, and
//! keep everything that was acknowledged.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::federation::START_LIMIT;
use graticule_testkit::replicas::{Site, secret_text};
use graticule_testkit::{Binaries, Replicas, wait};

#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/status.rs"]
mod status;
#[path = "cluster/zones.rs"]
mod zones;

/// Variable with the seconds of the crash test; `cargo xtask crash` sets it.
const CRASH_SECONDS: &str = "CRASH_SECONDS";
/// Seconds of the crash test as one of all tests.
const CRASH_SECONDS_DEFAULT: u64 = 20;

fn binaries() -> Option<Binaries> {
    let binaries = Binaries::from_env();
    if binaries.is_none() {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
    }
    binaries
}

fn dir(binaries: &Binaries, name: &str) -> PathBuf {
    binaries.dir.join(format!("../e2e/cluster-{name}-{}", std::process::id()))
}

/// What a secret holds at a replica, once everything acknowledged is there.
async fn read(replicas: &Replicas, index: usize, name: &str) -> Result<Option<String>> {
    let url = replicas.url(index, &format!("/global-secrets/{name}?consistent=true"));
    secret_text(&replicas.rest.get(&url).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_of_global() -> Result<()> {
    let Some(binaries) = binaries() else { return Ok(()) };
    let dir = dir(&binaries, "global");
    let mut replicas = Replicas::start(&binaries, &dir, Site::Global, 3).await?;
    everybody_reads_what_anybody_wrote(&replicas).await?;
    a_restore_reaches_everybody(&replicas, &dir).await?;
    the_leader_is_killed(&mut replicas).await.with_context(|| format!("logs are in {}", dir.display()))?;
    members_come_and_go(&mut replicas).await.with_context(|| format!("logs are in {}", dir.display()))?;
    drop(replicas);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn everybody_reads_what_anybody_wrote(replicas: &Replicas) -> Result<()> {
    for writer in 0..3 {
        let name = format!("written-at-{writer}");
        let answer = replicas.put_secret(writer, &name, "text").await?;
        ensure!(answer.status == 201, "{}: {}", answer.status, answer.body);
        for reader in 0..3 {
            let found = read(replicas, reader, &name).await?;
            ensure!(found.as_deref() == Some("text"), "replica {reader} shows {found:?}");
        }
    }
    let mut clusters = Vec::new();
    for index in 0..3 {
        let status = replicas.status(index).await?;
        ensure!(status["members"].as_array().map(Vec::len) == Some(3), "{status}");
        clusters.push(status["cluster"].clone());
    }
    ensure!(clusters[0] == clusters[1] && clusters[1] == clusters[2], "several clusters: {clusters:?}");
    println!("three replicas form one cluster; each reads what each wrote");
    Ok(())
}

/// A restore that a follower is asked for puts all replicas back.
async fn a_restore_reaches_everybody(replicas: &Replicas, dir: &Path) -> Result<()> {
    let (leader, _) = replicas.leader(0, None).await?;
    let follower = (leader + 1) % replicas.replicas.len();
    let file = dir.join("before.backup").display().to_string();
    let said = replicas.grat(follower, &["backup", "-o", &file]).await?;
    ensure!(said.code == 0, "{said:?}");
    for (name, text) in [("written-at-0", "changed"), ("unwanted", "text")] {
        let answer = replicas.put_secret(leader, name, text).await?;
        ensure!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, answer.body);
    }
    let said = replicas.grat(follower, &["restore", &file]).await?;
    ensure!(said.code == 1 && said.stderr.contains("--force"), "it would lose something: {said:?}");
    let said = replicas.grat(follower, &["restore", &file, "--force"]).await?;
    ensure!(said.code == 0, "{said:?}");
    for index in 0..replicas.replicas.len() {
        let found = (read(replicas, index, "written-at-0").await?, read(replicas, index, "unwanted").await?);
        ensure!(found == (Some("text".into()), None), "replica {index} shows {found:?}");
    }
    let answer = replicas.put_secret(leader, "after-restore", "text").await?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.body);
    println!("a backup was restored: all replicas show it, and go on");
    Ok(())
}

async fn the_leader_is_killed(replicas: &mut Replicas) -> Result<()> {
    let (leader, _) = replicas.leader(0, None).await?;
    let survivor = (leader + 1) % 3;
    let mut load = load::Load::start(replicas, 4, &[survivor, (leader + 2) % 3]);
    load.wait_for_writes(20).await?;
    replicas.kill(leader)?;
    let gap = load.wait_for_gap().await?;
    println!("leader killed -> next acknowledged write: {gap:?}");
    load.wait_for_writes(20).await?;
    let written = load.stop().await;
    replicas.start_again(leader)?;
    let took = replicas.wait_ready(leader).await?;
    println!("restarted member has caught up after {took:?}");
    for index in 0..3 {
        for (name, text) in &written {
            let found = read(replicas, index, name).await?;
            ensure!(found.as_ref() >= Some(text), "replica {index} lost {name} = {text}, it has {found:?}");
        }
    }
    Ok(())
}

async fn members_come_and_go(replicas: &mut Replicas) -> Result<()> {
    let fourth = replicas.join(0).await?;
    ensure!(read(replicas, fourth, "written-at-0").await?.as_deref() == Some("text"));
    let said = replicas.grat(1, &["cluster", "status"]).await?;
    ensure!(said.code == 0 && said.stdout.lines().count() == 5, "{said:?}");
    println!("{}", said.stdout);
    let (leader, _) = replicas.leader(1, None).await?;
    let said = replicas.grat(fourth, &["cluster", "transfer", "--to", "replica-3"]).await?;
    ensure!(leader == fourth || said.code == 0, "{said:?}");
    let (leader, _) = replicas.leader(1, Some(leader)).await?;
    ensure!(leader == fourth, "replica {leader} leads");
    // The leader itself is removed, through another member.
    let said = replicas.grat(0, &["cluster", "remove", "replica-3"]).await?;
    ensure!(said.code == 0, "{said:?}");
    let (_, status) = replicas.leader(0, Some(fourth)).await?;
    ensure!(status["members"].as_array().map(Vec::len) == Some(3), "{status}");
    let answer = replicas.put_secret(0, "after-removal", "x").await?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.body);
    replicas.kill(fourth)?;
    let said = replicas.grat(0, &["cluster", "recover"]).await?;
    ensure!(said.code == 1 && said.stderr.contains("must never come back"), "{said:?}");
    let said = replicas.grat(0, &["cluster", "remove", "nobody"]).await?;
    ensure!(said.code == 1 && said.stderr.contains("no member nobody"), "{said:?}");
    // The majority is lost: reads go on, writes fail, and one member goes on alone once it is told to.
    let (leader, _) = replicas.leader(0, Some(fourth)).await?;
    let (kept, others) = ((leader + 1) % 3, [leader, (leader + 2) % 3]);
    for other in others {
        replicas.kill(other)?;
    }
    let url = replicas.url(kept, "/global-secrets/after-removal");
    ensure!(secret_text(&replicas.rest.get(&url).await?)?.as_deref() == Some("x"));
    let answer = replicas.put_secret(kept, "without-majority", "x").await?;
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.body);
    let said = replicas.grat(kept, &["cluster", "recover", "--yes"]).await?;
    ensure!(said.code == 0, "{said:?}");
    for other in others {
        let wiped = format!("wipe the data directory of replica-{other} at");
        ensure!(said.stderr.contains(&wiped), "{wiped}: {said:?}");
    }
    let answer = replicas.put_secret(kept, "alone", "x").await?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.body);
    println!("members were added, removed, handed over to; one recovered alone");
    Ok(())
}

/// Of five, two may be lost; with three lost, reads go on and writes fail, until one is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_replicas_of_global() -> Result<()> {
    let Some(binaries) = binaries() else { return Ok(()) };
    let dir = dir(&binaries, "five");
    let mut replicas = Replicas::start(&binaries, &dir, Site::Global, 5).await?;
    two_of_five_are_lost(&mut replicas).await.with_context(|| format!("logs are in {}", dir.display()))?;
    drop(replicas);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn two_of_five_are_lost(replicas: &mut Replicas) -> Result<()> {
    let (leader, status) = replicas.leader(0, None).await?;
    ensure!(status["members"].as_array().map(Vec::len) == Some(5), "{status}");
    let [next, third, fourth, fifth] = [1, 2, 3, 4].map(|offset| (leader + offset) % 5);
    let mut load = load::Load::start(replicas, 4, &[fourth, fifth]);
    load.wait_for_writes(20).await?;
    replicas.kill(leader)?;
    replicas.kill(next)?;
    let gap = load.wait_for_gap().await?;
    println!("leader and another one of five killed -> next acknowledged write: {gap:?}");
    load.wait_for_writes(20).await?;
    let written = load.stop().await;
    let names: Vec<&String> = written.keys().collect();
    replicas.kill(third)?;
    let url = replicas.url(fourth, &format!("/global-secrets/{}", names[0]));
    ensure!(secret_text(&replicas.rest.get(&url).await?)?.is_some(), "reads go on");
    let answer = replicas.put_secret(fourth, "without-majority", "x").await?;
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.body);
    println!("two of five are left: {}", answer.json()?["detail"]);
    replicas.start_again(third)?;
    let took = replicas.wait_ready(third).await?;
    let (_, took_to_write) = wait::until("writes go on", START_LIMIT, || async {
        let answer = replicas.put_secret(fifth, "again", "x").await.map_err(|error| error.to_string())?;
        if matches!(answer.status, 200 | 201) { Ok(()) } else { Err(answer.body) }
    })
    .await?;
    println!("the third one is back after {took:?}, writes after {took_to_write:?} more");
    for index in [leader, next] {
        replicas.start_again(index)?;
        replicas.wait_ready(index).await?;
    }
    for index in 0..5 {
        for (name, text) in &written {
            let found = read(replicas, index, name).await?;
            ensure!(found.as_ref() >= Some(text), "replica {index} lost {name} = {text}, it has {found:?}");
        }
        let index_url = replicas.url(index, "/");
        wait::until("the replica is well", START_LIMIT, || async {
            let answer = replicas.rest.get(&index_url).await.map_err(|error| error.to_string())?;
            match answer.json() {
                Ok(index) if index["store"].is_null() => Ok(()),
                _ => Err(answer.body),
            }
        })
        .await?;
    }
    Ok(())
}

/// Members are killed at random under writers and readers; then what everybody saw is checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() -> Result<()> {
    let Some(binaries) = binaries() else { return Ok(()) };
    let seconds = std::env::var(CRASH_SECONDS).ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs(seconds.unwrap_or(CRASH_SECONDS_DEFAULT));
    let dir = dir(&binaries, "crash");
    let mut replicas = Replicas::start(&binaries, &dir, Site::Global, 3).await?;
    let report =
        load::crash(&mut replicas, limit).await.with_context(|| format!("logs are in {}", dir.display()))?;
    println!("{report}");
    drop(replicas);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// A zone that knows all replicas of global goes to another one when its own is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_finds_another_replica_of_global() -> Result<()> {
    let Some(binaries) = binaries() else { return Ok(()) };
    let dir = dir(&binaries, "kds");
    let mut replicas = Replicas::start(&binaries, &dir, Site::Global, 3).await?;
    let zone = zones::start_zone(&binaries, &replicas, "east", &dir).await?;
    let rest = replicas.rest.clone();
    let shown = |name: &'static str| {
        let (client, url) = (rest.clone(), format!("{}/meshes/{name}", zone.api));
        async move {
            wait::until(&format!("the zone has mesh {name}"), START_LIMIT, || async {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                if answer.status == 200 { Ok(()) } else { Err(answer.body) }
            })
            .await
        }
    };
    shown("default").await?;
    let connected = zones::replica_of(&replicas, &zone).await?;
    replicas.kill(connected)?;
    let other = (connected + 1) % 3;
    let mesh = serde_json::json!({"type": "Mesh", "name": "later"});
    let answer = replicas.rest.put(&replicas.url(other, "/meshes/later"), &mesh).await?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.body);
    let ((), took) = shown("later").await?;
    println!(
        "replica {connected} of global killed; the zone shows what was written elsewhere after {took:?}"
    );
    drop((replicas, zone));
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// How a zone is, and what is decided about it, does not depend on the replica that is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_decides_at_any_replica_of_global() -> Result<()> {
    let Some(binaries) = binaries() else { return Ok(()) };
    let dir = dir(&binaries, "decision");
    zones::decided_elsewhere(&binaries, &dir)
        .await
        .with_context(|| format!("logs are in {}", dir.display()))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_of_a_zone() -> Result<()> {
    let Some(binaries) = binaries() else { return Ok(()) };
    let dir = dir(&binaries, "zone");
    zones::proxies_at_every_replica(&binaries, &dir)
        .await
        .with_context(|| format!("logs are in {}", dir.display()))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Every replica of global and of a zone shows the same of all proxies, and asks any of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_answers_about_every_proxy() -> Result<()> {
    let Some(binaries) = binaries() else { return Ok(()) };
    let dir = dir(&binaries, "status");
    status::run(&binaries, &dir).await.with_context(|| format!("logs are in {}", dir.display()))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
