//! A zone that takes part in some meshes only, with real processes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::http::Client;
use graticule_testkit::{Binaries, Federation, wait};
use serde_json::{Value, json};

/// For everything that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

struct Bench {
    federation: Federation,
    client: Client,
}

impl Bench {
    async fn get(&mut self, at: &str, path: &str) -> Result<(u16, Value)> {
        let url = format!("{}{path}", self.federation.control_plane(at)?.api);
        let answer = self.client.get(&url).await?;
        Ok((answer.status, answer.json().unwrap_or_default()))
    }

    async fn until_status(&mut self, path: &str, wanted: u16) -> Result<()> {
        let url = format!("{}{path}", self.federation.control_plane("east")?.api);
        let what = format!("{path} is {wanted} in the zone");
        let condition = || async {
            let answer = self.client.get(&url).await.map_err(|error| error.to_string())?;
            if answer.status == wanted { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
        };
        wait::until(&what, LIMIT, condition).await?;
        Ok(())
    }

    /// Waits until the zone is in step, with these meshes.
    async fn until_meshes(&mut self, meshes: Value) -> Result<()> {
        let url = format!("{}/zones/east/_status", self.federation.control_plane("east")?.api);
        let condition = || async {
            let answer = self.client.get(&url).await.map_err(|error| error.to_string())?;
            let status = answer.json().map_err(|error| error.to_string())?;
            let is_in_step = status["synced"] == true && status["meshes"] == meshes;
            if is_in_step { Ok(()) } else { Err(status.to_string()) }
        };
        wait::until("the zone is in step", LIMIT, condition).await?;
        Ok(())
    }

    /// Starts the zone again with this list of meshes.
    async fn restart_with(&mut self, meshes: &str) -> Result<()> {
        let environment = self.federation.environments.entry("east".into()).or_default();
        environment.insert("GRATICULE_MULTIZONE_ZONE_MESHES".into(), meshes.into());
        self.federation.control_plane("east")?.process.kill()?;
        self.federation.start_again("east").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_gets_the_meshes_of_its_list() -> Result<()> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(());
    };
    let dir = binaries.dir.join(format!("../e2e/interest-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let mut federation = Federation::start(binaries, &dir).await?;
    let environment = federation.environments.entry("east".into()).or_default();
    environment.insert("GRATICULE_MULTIZONE_ZONE_MESHES".into(), "default".into());
    for document in [
        json!({"type": "Mesh", "name": "other"}),
        json!({"type": "Secret", "mesh": "other", "name": "of-other", "data": "c2VjcmV0"}),
        json!({"type": "GlobalSecret", "name": "of-none", "data": "c2VjcmV0"}),
    ] {
        federation.apply("global", &document).await?;
    }
    federation.start_zone("east").await?;
    federation.wait_zone_joined("east").await?;
    let mut bench = Bench { federation, client: Client::new()? };
    bench.until_status("/globalsecrets/of-none", 200).await?;
    bench.until_status("/meshes/default", 200).await?;
    ensure!(bench.get("east", "/meshes/other").await?.0 == 404, "a mesh that nobody asked for");
    bench.until_meshes(json!(["default"])).await?;
    let (_, status) = bench.get("global", "/zones/east/_status").await?;
    ensure!(status["meshes"] == json!(["default"]), "{status}");

    let url = format!("{}/meshes/other/dataplanes/web-1", bench.federation.control_plane("east")?.api);
    let dataplane = json!({"type": "Dataplane", "mesh": "other", "name": "web-1",
        "networking": {"address": "192.0.2.1", "inbound": [{"port": 8080}]}});
    let refused = bench.client.put(&url, &dataplane).await?;
    let reason = refused.json()?.to_string();
    ensure!(refused.status == 400 && reason.contains("multizone.zone.meshes"), "{reason}");

    bench.restart_with("default,other").await.context("with both")?;
    bench.until_status("/meshes/other", 200).await?;
    bench.until_status("/meshes/other/secrets/of-other", 200).await?;
    let accepted = bench.client.put(&url, &dataplane).await?;
    ensure!(matches!(accepted.status, 200 | 201), "accepted: {}", accepted.json()?);

    // Nothing is taken away from under a Dataplane.
    bench.restart_with("default").await.context("with one")?;
    bench.federation.wait_zone_joined("east").await?;
    bench.until_meshes(json!(["default", "other"])).await?;
    bench.until_status("/meshes/other/secrets/of-other", 200).await?;
    let deleted = bench.client.delete(&url).await?;
    ensure!(deleted.status == 200, "deleted: {}", deleted.json()?);
    bench.restart_with("default").await.context("with one, and no Dataplane")?;
    bench.until_status("/meshes/other", 404).await?;
    bench.until_status("/meshes/default", 200).await?;
    let (_, status) = bench.get("east", "/zones/east/_status").await?;
    ensure!(status["protection"]["state"] == "clear", "{status}");
    drop(bench);
    std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
}
