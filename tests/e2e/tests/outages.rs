//! Outages of a federation, with real processes: what goes on meanwhile, and how long it takes until all is well again.
//!
//! Each control plane has a network namespace of its own, with its proxies (`graticule_testkit::namespaces`); partitions are
//! made there. Who may not make namespaces gets a relay between zone and global instead (`graticule_testkit::relay`), which
//! also makes bad weather everywhere.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::federation::Role;
use graticule_testkit::namespaces::Network;
use graticule_testkit::process::{self, Said};
use graticule_testkit::relay::{Relay, Weather};
use graticule_testkit::{Binaries, Federation, wait};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

struct Bench {
    federation: Federation,
    /// Stands for the network, or makes its weather.
    relay: Option<Relay>,
    dir: PathBuf,
}

/// How zone and global are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the network; a relay where there is none.
    Plain,
    /// Through a relay in any case.
    Weather,
}

/// Global and the zone `east`; `None` where the programs are missing.
async fn bench(name: &str) -> Result<Option<Bench>> {
    bench_by(Way::Plain, name).await
}

async fn bench_by(way: Way, name: &str) -> Result<Option<Bench>> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(None);
    };
    let dir = binaries.dir.join(format!("../e2e/outage-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    println!("{name}");
    let network = Network::new().and_then(|mut network| {
        network.add("global")?;
        Ok(network)
    });
    let network = match network {
        Ok(network) => Some(network),
        Err(error) => {
            println!("           no network namespaces here ({error:#}): a relay stands for the network");
            None
        }
    };
    let mut federation = Federation::start_in(binaries, &dir, network).await?;
    let global = federation.global_address()?;
    let relay = match &mut federation.network {
        Some(_) if way == Way::Plain => None,
        Some(network) => {
            // Beside the zone, so that what it sends crosses the network as well.
            network.add("east")?;
            Some(network.inside("east")?.spawn(Relay::to_address(global)).await??)
        }
        None => Some(Relay::to_address(global).await?),
    };
    let address = match &relay {
        Some(relay) => format!("grpcs://127.0.0.1:{}", relay.port),
        None => format!("grpcs://{global}"),
    };
    federation.zone_environment.insert("GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS".into(), address);
    federation.start_zone("east").await?;
    let took = federation.wait_zone_joined("east").await?;
    took_time(took, "the zone has joined");
    Ok(Some(Bench { federation, relay, dir }))
}

fn took_time(took: Duration, what: &str) {
    println!("{:>9.2} s  {what}", took.as_secs_f64());
}

fn timeout(name: &str, seconds: u32) -> Value {
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": name,
        "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": format!("{seconds}s")}}]},
    })
}

fn of_zone(name: &str) -> Value {
    let mut document = timeout(name, 7);
    document["labels"] = json!({"kuma.io/origin": "zone"});
    document
}

impl Bench {
    fn api(&mut self, at: &str) -> Result<String> {
        Ok(self.federation.control_plane(at)?.api.clone())
    }

    /// Display names of the timeouts that a control plane has.
    async fn timeouts(&mut self, at: &str) -> Result<Vec<String>> {
        let url = format!("{}/meshtimeouts?size=1000", self.api(at)?);
        let list = self.federation.rest.get(&url).await?.json()?;
        let display_name = |item: &Value| {
            let label = item["labels"]["kuma.io/display-name"].as_str();
            label.or(item["name"].as_str()).unwrap_or_default().to_owned()
        };
        let mut names: Vec<String> =
            list["items"].as_array().context("items")?.iter().map(display_name).collect();
        names.sort();
        Ok(names)
    }

    async fn until_timeout(&mut self, at: &str, name: &str) -> Result<Duration> {
        let (client, url) =
            (self.federation.rest.clone(), format!("{}/meshtimeouts?size=1000", self.api(at)?));
        let what = format!("{name} at {at}");
        let ((), took) = wait::until(&what, LIMIT, || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                if answer.body.contains(&format!("\"{name}\"")) { Ok(()) } else { Err(answer.body) }
            }
        })
        .await
        .with_context(|| self.logs())?;
        Ok(took)
    }

    /// What a control plane tells about the connection of the zone.
    async fn status(&mut self, at: &str) -> Result<Value> {
        let url = format!("{}/zones/east/_status", self.api(at)?);
        self.federation.rest.get(&url).await?.json()
    }

    async fn until_status(&mut self, at: &str, what: &str, holds: fn(&Value) -> bool) -> Result<Duration> {
        let (client, url) = (self.federation.rest.clone(), format!("{}/zones/east/_status", self.api(at)?));
        let ((), took) = wait::until(what, LIMIT, || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                let status = answer.json().map_err(|error| error.to_string())?;
                if holds(&status) { Ok(()) } else { Err(answer.body) }
            }
        })
        .await
        .with_context(|| self.logs())?;
        Ok(took)
    }

    /// Both sides work again: each has what the other one writes now.
    async fn until_in_step(&mut self, round: &str) -> Result<Duration> {
        let start = wait::now();
        let (down, up) = (format!("down-{round}"), format!("up-{round}"));
        self.federation.apply("global", &timeout(&down, 3)).await?;
        self.federation.apply("east", &of_zone(&up)).await?;
        self.until_timeout("east", &down).await?;
        self.until_timeout("global", &up).await?;
        Ok(start.elapsed())
    }

    async fn grat(&mut self, at: &str, arguments: &[&str]) -> Result<Said> {
        let mut command = Command::new(self.federation.binaries.program("grat")?);
        let address = self.api(at)?;
        command.args(arguments).args(["--no-config", "--address", &address]).current_dir(&self.dir);
        let said = process::answer(command, "", LIMIT).await?;
        ensure!(said.code == 0, "grat {arguments:?}: {}\n{}\n{}", said.code, said.stdout, said.stderr);
        Ok(said)
    }

    /// Pulls the zone's cable, or puts it in again.
    fn set_cable(&mut self, is_in: bool) -> Result<()> {
        match (&self.federation.network, &self.relay) {
            (Some(network), None) => network.set_cable("east", is_in),
            _ => self.lose(!is_in, !is_in),
        }
    }

    /// Which ways between the zone and global are lost, without a word.
    fn lose(&mut self, to_global: bool, to_zone: bool) -> Result<()> {
        if let (Some(network), None) = (&self.federation.network, &self.relay) {
            network
                .set_way("east", "global", !to_global)
                .or_else(|error| if to_global { Err(error) } else { Ok(()) })?;
            return network
                .set_way("global", "east", !to_zone)
                .or_else(|error| if to_zone { Err(error) } else { Ok(()) });
        }
        let relay = self.relay.as_ref().context("a relay")?;
        relay.set(Weather { silent_forward: to_global, silent_back: to_zone, ..Weather::default() });
        Ok(())
    }

    /// Kills a control plane as a crash would.
    fn kill(&mut self, name: &str) -> Result<()> {
        self.federation.control_plane(name)?.process.kill()
    }

    fn logs(&mut self) -> String {
        let mut text = format!("logs are in {}\n", self.dir.display());
        for name in ["global", "east"] {
            if let Ok(control_plane) = self.federation.control_plane(name) {
                text.push_str(&format!("{name}:\n{}\n", control_plane.process.log_tail(12)));
            }
        }
        text
    }

    fn done(self) -> Result<()> {
        let dir: &Path = &self.dir.clone();
        drop(self);
        std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())
    }
}

fn is_online(status: &Value) -> bool {
    status["online"] == true
}

fn is_offline(status: &Value) -> bool {
    status["online"] == false
}

/// A zone works on without global: it takes policies of its own, and new proxies join.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn global_is_down() -> Result<()> {
    let Some(mut bench) = bench("global is down").await? else { return Ok(()) };
    bench.federation.start_proxy("east", "echo-1", Role::Echo).await?;
    bench.until_ready("echo-1").await?;
    bench.kill("global")?;
    let took = bench.until_status("east", "the zone notices", is_offline).await?;
    took_time(took, "until the zone knows");
    bench.federation.apply("east", &of_zone("while-alone")).await?;
    bench.federation.start_proxy("east", "echo-2", Role::Echo).await?;
    let took = bench.until_ready("echo-2").await?;
    took_time(took, "until a new proxy is ready, without global");
    let start = wait::now();
    bench.federation.start_again("global").await?;
    bench.until_timeout("global", "while-alone").await?;
    bench.until_in_step("after").await?;
    took_time(start.elapsed(), "from the start of global until both are in step");
    bench.federation.check_running()?;
    bench.done()
}

/// Global knows within seconds; the zone comes back to what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_is_down() -> Result<()> {
    let Some(mut bench) = bench("a zone is down").await? else { return Ok(()) };
    bench.until_in_step("before").await?;
    bench.kill("east")?;
    let took = bench.until_status("global", "global notices", is_offline).await?;
    took_time(took, "until global knows");
    bench.federation.apply("global", &timeout("meanwhile", 4)).await?;
    let start = wait::now();
    bench.federation.start_again("east").await?;
    bench.until_timeout("east", "meanwhile").await?;
    bench.until_status("global", "online", is_online).await?;
    took_time(start.elapsed(), "from the start of the zone until it is in step");
    ensure!(
        bench.timeouts("global").await?.contains(&"up-before".to_owned()),
        "global kept what the zone has"
    );
    bench.done()
}

/// The zone comes back empty under its name: it gets global's resources, and global keeps the zone's until somebody decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_loses_its_disk() -> Result<()> {
    let Some(mut bench) = bench("a zone loses its disk").await? else { return Ok(()) };
    bench.until_in_step("before").await?;
    bench.federation.apply("east", &of_zone("given-up")).await?;
    bench.until_timeout("global", "given-up").await?;
    bench.kill("east")?;
    bench.federation.lose_disk("east")?;
    let start = wait::now();
    bench.federation.start_again("east").await?;
    bench.until_timeout("east", "down-before").await?;
    took_time(start.elapsed(), "until the empty zone has the name and global's resources");
    let holds = |status: &Value| status["protection"]["heldBack"].as_u64().is_some_and(|kept| kept > 0);
    bench.until_status("global", "global keeps the zone's resources", holds).await?;
    ensure!(bench.timeouts("global").await?.contains(&"up-before".to_owned()), "nothing was lost at global");
    let told = |status: &Value| status["protection"]["heldBackByPeer"].as_u64().is_some_and(|kept| kept > 0);
    bench.until_status("east", "the zone is told", told).await?;
    let said = bench.grat("global", &["zone", "status", "east"]).await?;
    ensure!(said.stdout.contains("up-before") && said.stdout.contains("accept-deletions"), "{}", said.stdout);

    // One policy of the zone is applied again from its file: it is released. The other one is given up.
    bench.federation.apply("east", &of_zone("up-before")).await?;
    let one_less = |status: &Value| {
        let kept = status["protection"]["resources"].to_string();
        kept.contains("given-up") && !kept.contains("up-before")
    };
    bench.until_status("global", "one is released", one_less).await?;
    let start = wait::now();
    bench.grat("global", &["zone", "accept-deletions", "east", "--yes"]).await?;
    let (client, url) = (bench.federation.rest.clone(), format!("{}/meshtimeouts", bench.api("global")?));
    wait::until("what was given up is gone", LIMIT, || {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let answer = client.get(&url).await.map_err(|error| error.to_string())?;
            if answer.body.contains("\"given-up\"") { Err(answer.body) } else { Ok(()) }
        }
    })
    .await?;
    took_time(start.elapsed(), "from the decision until what was given up is gone");
    let clear = |status: &Value| status["protection"]["state"] == "clear" && status["online"] == true;
    bench.until_status("global", "nothing is held back", clear).await?;
    ensure!(
        bench.timeouts("global").await?.contains(&"up-before".to_owned()),
        "what the zone has again stays"
    );
    bench.until_in_step("after").await?;
    bench.done()
}

/// Global starts empty: the zone keeps everything. From its backup it is the global that the zone knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn global_loses_its_disk() -> Result<()> {
    let Some(mut bench) = bench("global loses its disk").await? else { return Ok(()) };
    bench.until_in_step("before").await?;
    bench.grat("global", &["backup", "-o", "global.backup"]).await?;
    let before = bench.timeouts("east").await?;
    bench.kill("global")?;
    bench.until_status("east", "the zone notices", is_offline).await?;
    bench.federation.lose_disk("global")?;
    bench.federation.start_again("global").await?;
    // Its keys are lost, too: it does not know the zone's token.
    let refused =
        |status: &Value| status["lastError"].as_str().is_some_and(|error| error.contains("Unauthenticated"));
    bench.until_status("east", "the zone is refused", refused).await?;
    ensure!(bench.timeouts("east").await? == before, "the zone kept everything");
    let start = wait::now();
    bench.grat("global", &["restore", "global.backup", "--force"]).await?;
    let synced = |status: &Value| status["synced"] == true;
    bench.until_status("east", "synced", synced).await?;
    bench.until_in_step("after").await?;
    took_time(start.elapsed(), "from the restore until both are in step");
    let mut wanted = before;
    wanted.extend(["down-after".to_owned(), "up-after".to_owned()]);
    wanted.sort();
    ensure!(bench.timeouts("east").await? == wanted, "{:?}", bench.timeouts("east").await?);
    bench.done()
}

/// Another global under the same address and with the same keys, but without the resources: the zone follows it only when
/// an operator says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_global_takes_over() -> Result<()> {
    let Some(mut bench) = bench("another global takes over").await? else { return Ok(()) };
    bench.until_in_step("before").await?;
    bench.kill("global")?;
    bench.federation.lose_disk("global")?;
    bench.federation.start_again("global").await?;
    // A new token of the new global.
    let body = json!({"zone": "east", "scope": [], "validFor": "24h"});
    let url = format!("{}/tokens/zone", bench.api("global")?);
    let token = bench.federation.rest.post(&url, &body).await?;
    ensure!(token.status == 200, "{}", token.body);
    std::fs::write(bench.dir.join("east/zone.token"), token.body)?;
    let other = |status: &Value| status["protection"]["state"] == "otherGlobal";
    let took = bench.until_status("east", "the zone does not know this global", other).await?;
    took_time(took, "until the zone has seen that this is another global");
    bench.federation.apply("global", &timeout("of-the-new-one", 5)).await?;
    bench.until_timeout("global", "up-before").await?;
    let kept = bench.timeouts("east").await?;
    ensure!(
        kept.contains(&"down-before".to_owned()) && !kept.contains(&"of-the-new-one".to_owned()),
        "{kept:?}"
    );
    let start = wait::now();
    bench.grat("east", &["zone", "accept-deletions", "east", "--yes"]).await?;
    bench.until_timeout("east", "of-the-new-one").await?;
    took_time(start.elapsed(), "from the decision until the zone follows the new global");
    let now = bench.timeouts("east").await?;
    ensure!(!now.contains(&"down-before".to_owned()) && now.contains(&"up-before".to_owned()), "{now:?}");
    bench.until_in_step("after").await?;
    bench.done()
}

/// 300 ms from one side to the other, 5 % of the segments lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_bad() -> Result<()> {
    let Some(mut bench) = bench_by(Way::Weather, "300 ms latency, 5 % loss").await? else { return Ok(()) };
    bench.relay.as_ref().context("a relay")?.set(Weather {
        delay: Duration::from_millis(300),
        loss: 0.05,
        ..Weather::default()
    });
    let mut times = Vec::new();
    for round in 0..10 {
        let name = format!("slow-{round}");
        bench.federation.apply("global", &timeout(&name, 6)).await?;
        times.push(bench.until_timeout("east", &name).await?);
    }
    times.sort();
    took_time(times[times.len() / 2], "PUT at global until it is in the zone, median of 10");
    took_time(times[times.len() - 1], "the slowest of them");
    ensure!(times[0] >= Duration::from_millis(290), "the weather is there: {times:?}");
    // A new connection in this weather.
    bench.kill("east")?;
    let start = wait::now();
    bench.federation.start_again("east").await?;
    bench.until_in_step("again").await?;
    took_time(start.elapsed(), "from the start of the zone until both are in step, in this weather");
    ensure!(bench.status("global").await?["online"] == true);
    bench.done()
}

/// Only one direction works: both sides notice, and find each other again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_direction_is_lost() -> Result<()> {
    let Some(mut bench) = bench("asymmetric partition").await? else { return Ok(()) };
    for (round, to_global, to_zone) in [("1", true, false), ("2", false, true)] {
        let lost = if to_global { "nothing reaches global" } else { "nothing reaches the zone" };
        bench.until_in_step(&format!("before-{round}")).await?;
        bench.lose(to_global, to_zone)?;
        let took = bench.until_status("global", "global notices", is_offline).await?;
        took_time(took, &format!("{lost}: until global knows"));
        let took = bench.until_status("east", "the zone notices", is_offline).await?;
        took_time(took, &format!("{lost}: until the zone knows as well"));
        bench.federation.apply("east", &of_zone(&format!("alone-{round}"))).await?;
        bench.lose(false, false)?;
        let start = wait::now();
        bench.until_timeout("global", &format!("alone-{round}")).await?;
        bench.until_in_step(&format!("after-{round}")).await?;
        took_time(start.elapsed(), &format!("{lost}: from its end until both are in step"));
    }
    bench.done()
}

/// Nothing crosses in either direction, while a proxy joins: both sides notice, and find each other again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_cut() -> Result<()> {
    let Some(mut bench) = bench("partition").await? else { return Ok(()) };
    bench.until_in_step("before").await?;
    bench.set_cable(false)?;
    let took = bench.until_status("global", "global notices", is_offline).await?;
    took_time(took, "until global knows");
    let took = bench.until_status("east", "the zone notices", is_offline).await?;
    took_time(took, "until the zone knows as well");
    bench.federation.apply("east", &of_zone("alone")).await?;
    bench.federation.apply("global", &timeout("meanwhile", 5)).await?;
    bench.federation.start_proxy("east", "echo-1", Role::Echo).await?;
    let took = bench.until_ready("echo-1").await?;
    took_time(took, "until a new proxy is ready, without global");
    ensure!(!bench.timeouts("east").await?.contains(&"meanwhile".to_owned()), "nothing crosses");
    bench.set_cable(true)?;
    let start = wait::now();
    bench.until_timeout("global", "alone").await?;
    bench.until_timeout("east", "meanwhile").await?;
    bench.until_in_step("after").await?;
    took_time(start.elapsed(), "from its end until both are in step");
    bench.done()
}

/// A second control plane with the name of the zone is refused; the zone works on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_zones_with_one_name() -> Result<()> {
    let Some(mut bench) = bench("two zones with one name").await? else { return Ok(()) };
    let token = bench.dir.join("east/zone.token");
    let workdir = bench.dir.join("impostor");
    std::fs::create_dir_all(&workdir)?;
    let ports =
        (graticule_testkit::net::free_port("127.0.0.1")?, graticule_testkit::net::free_port("127.0.0.1")?);
    let command = bench.federation.zone_command("east", &workdir, &token, ports)?;
    if let Some(network) = &mut bench.federation.network {
        network.add("impostor")?;
    }
    let second = bench.federation.spawn("impostor", "impostor", command)?;
    let start = wait::now();
    second.wait_for_log("is connected as zone", LIMIT).await?;
    took_time(start.elapsed(), "until the second one is refused and told why");
    let conflict = |status: &Value| status["conflict"].is_object() && status["online"] == true;
    bench.until_status("global", "global names it", conflict).await?;
    let said = bench.grat("global", &["zone", "status", "east"]).await?;
    ensure!(said.stdout.contains("Refused, because it has the same name"), "{}", said.stdout);
    bench.until_in_step("meanwhile").await?;
    bench.kill("east")?;
    let start = wait::now();
    bench.federation.start_again("east").await?;
    bench.until_in_step("after").await?;
    took_time(start.elapsed(), "kill -9 and restart of the zone beside the second one, until in step");
    drop(second);
    bench.done()
}

/// A zone that stood alone joins: the preview changes nothing, and afterwards nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_that_stood_alone_joins() -> Result<()> {
    let Some(mut bench) = bench("a zone that stood alone joins").await? else { return Ok(()) };
    let address = "GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS";
    let federated = bench.federation.zone_environment.insert(address.into(), String::new());
    bench.federation.start_zone("north").await?;
    bench.federation.apply("north", &json!({"type": "Mesh", "name": "only-here"})).await?;
    let mut own = timeout("own", 9);
    own["mesh"] = json!("only-here");
    bench.federation.apply("north", &own).await?;
    let global = bench.api("global")?;
    let join = ["zone", "join", "north", "--global", &global];
    let said = bench.grat("north", &join).await?;
    ensure!(said.stdout.contains("only-here") && said.stderr.contains("nothing was changed"), "{said:?}");
    let mesh = |api: &str| format!("{api}/meshes/only-here");
    ensure!(bench.federation.rest.get(&mesh(&global)).await?.status == 404, "a preview writes nothing");

    let token = bench.dir.join("north/zone.token").display().to_string();
    let prepare = [&join[..], &["--yes", "--take-global", "--token-file", &token]].concat();
    bench.grat("north", &prepare).await?;
    ensure!(bench.federation.rest.get(&mesh(&global)).await?.status == 200, "global has the mesh");
    bench.federation.zone_environment.insert(address.into(), federated.context("the relay's address")?);
    bench.kill("north")?;
    let start = wait::now();
    bench.federation.start_again("north").await?;
    bench.until_timeout("global", "own").await?;
    bench.federation.wait_zone_joined("north").await?;
    took_time(start.elapsed(), "from the start of the federated zone until it is in step");
    for at in ["north", "east"] {
        let (client, url) = (bench.federation.rest.clone(), mesh(&bench.api(at)?));
        wait::until(&format!("{at} has the mesh as a copy"), LIMIT, || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                let stored = answer.json().map_err(|error| error.to_string())?;
                let is_copy = stored["labels"]["kuma.io/origin"] == "global";
                if is_copy { Ok(()) } else { Err(answer.body) }
            }
        })
        .await?;
    }
    ensure!(bench.timeouts("north").await?.contains(&"own".to_owned()), "the zone's own policy stays");
    let url = format!("{}/zones/north/_status", bench.api("north")?);
    let status = bench.federation.rest.get(&url).await?.json()?;
    ensure!(status["protection"]["state"] == "clear", "nothing waits: {status}");
    bench.done()
}

impl Bench {
    async fn until_ready(&mut self, proxy: &str) -> Result<Duration> {
        let url = format!("http://127.0.0.1:{}/ready", self.federation.proxy(proxy)?.readiness_port);
        let client = self.federation.rest.clone();
        let ((), took) = wait::until(&format!("{proxy} is ready"), LIMIT, || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                if answer.status == 200 { Ok(()) } else { Err(answer.body) }
            }
        })
        .await
        .with_context(|| self.logs())?;
        Ok(took)
    }
}
