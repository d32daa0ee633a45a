//! Wrong clocks, and certificates that are renewed while global is down.

use graticule_model::Timestamp;
use graticule_testkit::skew;

use super::*;

/// Ten minutes.
const SKEW: i64 = 600;
/// Of what a control plane says and what the test's clock says; requests take their time.
const TOLERANCE: i64 = 60;

fn timeout(name: &str, labels: Value) -> Value {
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": name, "labels": labels,
        "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "77s"}}]},
    })
}

/// Global, zones and proxies, of which these have a clock that is wrong; all serve and hear of each other, and go on when
/// their clocks are set right.
async fn wrong_clocks(name: &str, seconds: i64, processes: &[&str]) -> Result<()> {
    let wrong = |federation: &mut Federation| {
        let Some(environment) = skew::environment(&federation.dir, seconds)? else {
            println!("skipped: no C compiler (cc) to make a wrong clock with");
            return Ok(false);
        };
        for process in processes {
            federation.environments.insert((*process).to_owned(), environment.clone());
        }
        Ok(true)
    };
    let Some(mut bench) = bench_with(name, "", wrong).await? else { return Ok(()) };
    let traffic = [bench.traffic("client-west")?, bench.traffic("client-east")?];
    let start = wait::now();
    bench.federation.apply("global", &timeout("down", json!({}))).await?;
    bench.federation.apply("west", &timeout("up", json!({"kuma.io/origin": "zone"}))).await?;
    bench.until_at("west", "/meshtimeouts", |answer| answer.body.contains("\"down\"")).await?;
    bench.until_at("global", "/meshtimeouts", |answer| answer.body.contains("\"up\"")).await?;
    took_time(start.elapsed(), "until global and the zone have each other's new policies");
    let created = bench.named("west", "/meshtimeouts", "up").await?[0]["creationTime"].clone();
    let created: Timestamp = created.as_str().context("a time")?.parse()?;
    let off = created.as_second() - Timestamp::now().as_second();
    let wanted = if processes.contains(&"west") { seconds } else { 0 };
    ensure!(
        (off - wanted).abs() < TOLERANCE,
        "the zone's clock is off by {off} s, and should be by {wanted} s"
    );
    for at in ["west", "global"] {
        bench
            .until_at(at, "/zones/west/_status", |answer| {
                answer.json().is_ok_and(|status| status["online"] == true && status["quarantineTotal"] == 0)
            })
            .await?;
    }
    // A new proxy is admitted, and the control plane is started again, with the wrong clock and with the right one.
    let start = wait::now();
    bench.federation.start_proxy("west", "client-2", Role::Client).await?;
    bench.until_answer("client-2", "is served", is_served).await?;
    took_time(start.elapsed(), "until a new proxy is served");
    for clock in ["the wrong clock", "the right clock"] {
        if clock == "the right clock" {
            bench.federation.environments.clear();
        }
        let start = wait::now();
        bench.restart("west", None).await?;
        bench.until_at("west", "/zones/west/_status", is_in_step).await?;
        took_time(start.elapsed(), &format!("from a start of the zone with {clock} until it is in step"));
        let name = format!("after-{}", clock.replace(' ', "-"));
        bench.federation.apply("global", &timeout(&name, json!({}))).await?;
        let found = bench.federation.rest.clone();
        let url = format!("{}/meshtimeouts", bench.api("west")?);
        wait::until(&name, LIMIT, || {
            let (client, url, name) = (found.clone(), url.clone(), name.clone());
            async move {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                if answer.body.contains(&name) { Ok(()) } else { Err(answer.body) }
            }
        })
        .await?;
    }
    for (traffic, zone) in traffic.into_iter().zip(["west", "east"]) {
        unnoticed(traffic, &format!("clocks were wrong, in {zone}")).await?;
    }
    bench.done()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zones_clock_is_ahead() -> Result<()> {
    wrong_clocks("a zone is 10 min ahead", SKEW, &["west"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zones_clock_is_behind() -> Result<()> {
    wrong_clocks("a zone is 10 min behind", -SKEW, &["west"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_clocks_are_ahead() -> Result<()> {
    wrong_clocks("proxies are 10 min ahead", SKEW, &["echo-1", "client-east", "client-2"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_clocks_are_behind() -> Result<()> {
    wrong_clocks("proxies are 10 min behind", -SKEW, &["echo-1", "client-east", "client-2"]).await
}

/// How often the certificate of a proxy was renewed.
async fn renewals(bench: &mut Bench, proxy: &str) -> Result<u64> {
    let url = format!("{}/meshes/default/dataplanes/{proxy}/_overview", bench.api("west")?);
    let overview = bench.federation.rest.get(&url).await?.json()?;
    Ok(overview["dataplaneInsight"]["mTLS"]["certificateRegenerations"].as_u64().unwrap_or(0))
}

/// Certificates live ten seconds; global is down for several lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_while_global_is_down() -> Result<()> {
    const RENEWALS: u64 = 3;
    let Some(mut bench) = bench_with("certificates are renewed without global", "10s", |_| Ok(true)).await?
    else {
        return Ok(());
    };
    let traffic = [bench.traffic("client-west")?, bench.traffic("client-east")?];
    bench.federation.control_plane("global")?.process.kill()?;
    let start = wait::now();
    for proxy in ["echo-1", "client-west"] {
        let before = renewals(&mut bench, proxy).await?;
        while renewals(&mut bench, proxy).await? < before + RENEWALS {
            ensure!(
                start.elapsed() < LIMIT * 2,
                "{proxy} was not renewed; logs are in {}",
                bench.dir.display()
            );
            let url = bench.federation.proxy("client-west")?.outbound_url("/");
            // Paces the loop, and keeps the mesh busy.
            bench.federation.rest.get(&url).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    took_time(start.elapsed(), "until every certificate was renewed three times, without global");
    // A handshake with a certificate that did not exist when global went.
    bench.federation.start_proxy("west", "client-2", Role::Client).await?;
    bench.until_answer("client-2", "is served", is_served).await?;
    let start = wait::now();
    bench.federation.start_again("global").await?;
    bench.until_at("west", "/zones/west/_status", is_in_step).await?;
    took_time(start.elapsed(), "from the start of global until the zone is in step");
    for (traffic, zone) in traffic.into_iter().zip(["west", "east"]) {
        unnoticed(traffic, &format!("certificates were renewed without global, in {zone}")).await?;
    }
    bench.done()
}
