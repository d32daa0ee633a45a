//! What Prometheus sees of a federation with real processes.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use std::time::Duration;

use anyhow::{Context as _, Result};
use graticule_testkit::federation::Role;
use graticule_testkit::{Binaries, Federation, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// Address of a control plane's metrics.
async fn address(federation: &mut Federation, name: &str) -> Result<String> {
    let config = format!("{}/config", federation.control_plane(name)?.api);
    let config = federation.rest.get(&config).await?.json()?;
    let port = config["diagnostics"]["serverPort"].as_u64().context("diagnostics.serverPort")?;
    Ok(format!("http://127.0.0.1:{port}/metrics"))
}

/// Waits until a metric has a value that is wanted.
async fn wait_for(
    federation: &Federation,
    url: &str,
    metric: &str,
    is_wanted: fn(f64) -> bool,
) -> Result<()> {
    let ((), took) = wait::until(metric, LIMIT, || async {
        let answer = federation.rest.get(url).await.map_err(|error| error.to_string())?;
        let line = answer.body.lines().find(|line| line.starts_with(&format!("{metric} ")));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        match value {
            Some(value) if is_wanted(value) => Ok(()),
            _ => Err(line.unwrap_or("it is not there").to_owned()),
        }
    })
    .await?;
    println!("{:>9.2} s  {metric}", took.as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_control_planes_tell_how_they_do() -> Result<()> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(());
    };
    let dir = binaries.dir.join(format!("../e2e/metrics-{}", std::process::id()));
    let mut federation = Federation::start(binaries, &dir).await?;
    federation.start_zone("east").await?;
    federation.wait_zone_joined("east").await?;
    federation.start_proxy("east", "ingress-east", Role::Ingress).await?;

    let global = address(&mut federation, "global").await?;
    let zone = address(&mut federation, "east").await?;
    let some = |value: f64| value > 0.0;
    let none = |value: f64| value == 0.0;
    for metric in [
        "graticule_kds_connected{zone=\"east\"}",
        "graticule_kds_connected_instances{zone=\"east\"}",
        "graticule_kds_in_sync_resources{zone=\"east\",direction=\"sent\"}",
        "graticule_kds_in_sync_resources{zone=\"east\",direction=\"received\"}",
        "graticule_store_commit_seconds_count{outcome=\"committed\"}",
        "graticule_api_request_seconds_count{method=\"GET\",status=\"200\"}",
        "graticule_store_resources{kind=\"Dataplane\"}",
        "process_resident_memory_bytes",
    ] {
        wait_for(&federation, &global, metric, some).await.context("global")?;
    }
    for metric in [
        "graticule_kds_connected{zone=\"east\"}",
        "graticule_xds_connected_proxies",
        "graticule_xds_connections_total{outcome=\"accepted\"}",
        "graticule_xds_ack_seconds_count{type=\"listener\"}",
        "graticule_xds_serving_seconds_count{mesh=\"default\"}",
        "graticule_store_leader",
    ] {
        wait_for(&federation, &zone, metric, some).await.context("zone east")?;
    }
    for (at, metric) in [
        (&global, "graticule_kds_lag_revisions{zone=\"east\"}"),
        (&global, "graticule_kds_quarantined_resources{zone=\"east\",direction=\"sent\"}"),
        (&zone, "graticule_kds_held_back_deletions{zone=\"east\",at=\"here\"}"),
    ] {
        wait_for(&federation, at, metric, none).await?;
    }

    federation.control_plane("east")?.process.kill()?;
    wait_for(&federation, &global, "graticule_kds_connected{zone=\"east\"}", none).await?;
    drop(federation);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
