//! Zones that leave and join, and a global that is made anew from its zones, with real processes and proxies that serve
//! all the time.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::federation::{Role, render};
use graticule_testkit::http::{Answer, Client};
use graticule_testkit::process::{self, Said};
use graticule_testkit::traffic::Traffic;
use graticule_testkit::{Binaries, Federation, wait};
use serde_json::{Value, json};

#[path = "lifecycle/clocks.rs"]
mod clocks;

/// For everything that is waited for.
const LIMIT: Duration = Duration::from_secs(90);
const GLOBAL_ADDRESS: &str = "GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS";
/// What the route of global adds to every answer.
const ROUTE_HEADER: &str = "x-route";
/// Requests without a failure until a service counts as there.
const IN_A_ROW: u32 = 100;
/// A policy that global makes with its mesh.
const UNWANTED: &str = "mesh-circuit-breaker-all-default";
const PERMISSION: &str = "clients-may-call-echo";

struct Bench {
    federation: Federation,
    dir: PathBuf,
}

fn took_time(took: Duration, what: &str) {
    println!("{:>9.2} s  {what}", took.as_secs_f64());
}

fn is_served(answer: Option<&Answer>) -> bool {
    answer.is_some_and(|answer| answer.status == 200 && answer.header(ROUTE_HEADER).is_some())
}

fn has_no_service(answer: Option<&Answer>) -> bool {
    answer.is_none_or(|answer| answer.status != 200)
}

fn is_forbidden(answer: Option<&Answer>) -> bool {
    answer.is_some_and(|answer| answer.status == 403)
}

/// Global, the zones east and west; in west the echo service and a client of it, in east another client. Identity,
/// permission and route are global's. `None` where the programs are missing.
async fn bench(name: &str) -> Result<Option<Bench>> {
    bench_with(name, "", |_| Ok(true)).await
}

/// The same with an identity of another lifetime (empty: that of the demo), and with a federation that was prepared;
/// `None` also where that cannot be done.
async fn bench_with(
    name: &str,
    expiry: &str,
    prepare: impl FnOnce(&mut Federation) -> Result<bool>,
) -> Result<Option<Bench>> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(None);
    };
    println!("{name}");
    let dir =
        binaries.dir.join(format!("../e2e/lifecycle-{}-{}", name.replace(' ', "-"), std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let mut federation = Federation::start(binaries, &dir).await?;
    if !prepare(&mut federation)? {
        return Ok(None);
    }
    for zone in ["east", "west"] {
        federation.start_zone(zone).await?;
        federation.wait_zone_joined(zone).await?;
    }
    let mut identity = render(&federation.binaries.demo_file("identity.yaml"), &[])?;
    if !expiry.is_empty() {
        identity["spec"]["provider"]["bundled"]["certificateParameters"] = json!({"expiry": expiry});
    }
    federation.apply("global", &identity).await?;
    for file in ["allow.yaml", "route.yaml"] {
        federation.apply_file("global", file, &[]).await?;
    }
    for (zone, name, role) in [
        ("west", "ingress-west", Role::Ingress),
        ("west", "echo-1", Role::Echo),
        ("west", "client-west", Role::Client),
        ("east", "client-east", Role::Client),
    ] {
        federation.start_proxy(zone, name, role).await?;
    }
    let mut bench = Bench { federation, dir };
    for client in ["client-west", "client-east"] {
        let took = bench.until_answer(client, "is served", is_served).await?;
        took_time(took, &format!("until {client} is served"));
    }
    Ok(Some(bench))
}

impl Bench {
    fn api(&mut self, at: &str) -> Result<String> {
        Ok(self.federation.control_plane(at)?.api.clone())
    }

    async fn until_answer(
        &mut self,
        proxy: &str,
        what: &str,
        wanted: fn(Option<&Answer>) -> bool,
    ) -> Result<Duration> {
        let url = self.federation.proxy(proxy)?.outbound_url("/");
        let client = Client::new()?;
        let ((), took) = wait::until(&format!("{proxy} {what}"), LIMIT, || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let answer = client.get(&url).await;
                if wanted(answer.as_ref().ok()) {
                    return Ok(());
                }
                match answer {
                    Ok(answer) => Err(format!("{} {}", answer.status, answer.body.trim())),
                    Err(error) => Err(format!("{error:#}")),
                }
            }
        })
        .await
        .with_context(|| format!("logs are in {}", self.dir.display()))?;
        Ok(took)
    }

    /// Waits until every instance serves, not only the first one that was asked.
    async fn until_steady(&mut self, proxy: &str) -> Result<()> {
        let start = wait::now();
        let client = Client::new()?;
        let url = self.federation.proxy(proxy)?.outbound_url("/");
        let mut in_a_row = 0;
        while in_a_row < IN_A_ROW {
            in_a_row = if is_served(client.get(&url).await.as_ref().ok()) { in_a_row + 1 } else { 0 };
            ensure!(
                start.elapsed() < LIMIT,
                "{proxy} is not served by all; logs are in {}",
                self.dir.display()
            );
        }
        Ok(())
    }

    /// Waits until what is at a path fits.
    async fn until_at(&mut self, at: &str, path: &str, wanted: fn(&Answer) -> bool) -> Result<Duration> {
        let (client, url) = (self.federation.rest.clone(), format!("{}{path}", self.api(at)?));
        let ((), took) = wait::until(&url.clone(), LIMIT, || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                if wanted(&answer) { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
            }
        })
        .await
        .with_context(|| format!("logs are in {}", self.dir.display()))?;
        Ok(took)
    }

    async fn items(&mut self, at: &str, path: &str) -> Result<Vec<Value>> {
        let url = format!("{}{path}?size=1000", self.api(at)?);
        let list = self.federation.rest.get(&url).await?.json()?;
        list["items"].as_array().cloned().with_context(|| format!("{url}: {list}"))
    }

    /// The resources of a kind with this display name.
    async fn named(&mut self, at: &str, path: &str, name: &str) -> Result<Vec<Value>> {
        let mut items = self.items(at, path).await?;
        items.retain(|item| item["labels"]["kuma.io/display-name"] == name || item["name"] == name);
        Ok(items)
    }

    async fn grat(&mut self, at: &str, arguments: &[&str]) -> Result<Said> {
        let mut command = Command::new(self.federation.binaries.program("grat")?);
        let address = self.api(at)?;
        command.args(arguments).args(["--no-config", "--address", &address]).current_dir(&self.dir);
        let said = process::answer(command, "", LIMIT).await?;
        ensure!(said.code == 0, "grat {arguments:?}: {}\n{}\n{}", said.code, said.stdout, said.stderr);
        Ok(said)
    }

    /// What `grat` says when it does not do it.
    async fn grat_refuses(&mut self, at: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.federation.binaries.program("grat")?);
        let address = self.api(at)?;
        command.args(arguments).args(["--no-config", "--address", &address]).current_dir(&self.dir);
        let said = process::answer(command, "", LIMIT).await?;
        ensure!(said.code != 0, "grat {arguments:?} is done:\n{}", said.stdout);
        Ok(said.stderr)
    }

    /// What global wrote and zones get, as it is stored: without times and computed labels, and secrets by their value.
    async fn substance(&mut self, at: &str) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for path in [
            "/meshes",
            "/secrets",
            "/meshtimeouts",
            "/meshcircuitbreakers",
            "/meshretries",
            "/meshtrafficpermissions",
            "/meshhttproutes",
            "/meshidentities",
            "/hostnamegenerators",
            "/meshmultizoneservices",
        ] {
            for mut item in self.items(at, path).await? {
                if item["labels"]["kuma.io/origin"] == "zone" {
                    continue;
                }
                let name = item["labels"]["kuma.io/display-name"].as_str().map(str::to_owned);
                if let Some(name) = name {
                    item["name"] = json!(name);
                }
                if let Value::Object(members) = &mut item {
                    for key in ["creationTime", "modificationTime", "kri", "status"] {
                        members.remove(key);
                    }
                    if let Some(Value::Object(labels)) = members.get_mut("labels") {
                        labels.retain(|key, _| !key.contains("kuma.io/"));
                        if labels.is_empty() {
                            members.remove("labels");
                        }
                    }
                }
                all.insert(item.to_string());
            }
        }
        Ok(all)
    }

    fn traffic(&mut self, client: &str) -> Result<Traffic> {
        Traffic::start(self.federation.proxy(client)?.outbound_url("/"), ROUTE_HEADER)
    }

    /// Starts a control plane of a zone again, with this address of global; empty: it stands alone.
    async fn restart(&mut self, zone: &str, global_address: Option<&str>) -> Result<()> {
        self.federation.control_plane(zone)?.process.kill()?;
        if let Some(address) = global_address {
            self.federation.zone_environment.insert(GLOBAL_ADDRESS.into(), address.into());
        }
        self.federation.start_again(zone).await?;
        self.federation.zone_environment.remove(GLOBAL_ADDRESS);
        Ok(())
    }

    fn done(self) -> Result<()> {
        let dir = self.dir.clone();
        drop(self);
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
    }
}

fn is_synced(answer: &Answer) -> bool {
    answer.json().is_ok_and(|status| status["synced"] == true)
}

/// Connected, everything there, nothing held back or refused.
fn is_in_step(answer: &Answer) -> bool {
    answer.json().is_ok_and(|status| {
        status["synced"] == true && status["protection"]["state"] == "clear" && status["quarantineTotal"] == 0
    })
}

fn minus(left: &BTreeSet<String>, right: &BTreeSet<String>) -> Vec<String> {
    left.difference(right).cloned().collect()
}

async fn unnoticed(traffic: Traffic, what: &str) -> Result<()> {
    let outcome = traffic.stop().await?;
    println!(
        "{:>9} requests while {what}, {} failed, longest gap {:.0?}",
        outcome.good, outcome.bad, outcome.gap
    );
    ensure!(outcome.bad == 0 && outcome.good > 0, "{what}: {outcome:?}");
    Ok(())
}

/// West leaves, stands alone, and joins again: its proxies serve all the time, and global's policies hold all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_leaves_and_joins_again() -> Result<()> {
    let Some(mut bench) = bench("a zone leaves").await? else { return Ok(()) };
    let traffic = bench.traffic("client-west")?;
    let global = bench.api("global")?;
    let leave = ["zone", "leave", "west", "--global", &global];
    let said = bench.grat("west", &leave).await?;
    ensure!(said.stdout.contains(&format!("becomes the zone's own, as {PERMISSION}")), "{}", said.stdout);
    ensure!(said.stderr.contains("nothing was changed"), "{}", said.stderr);
    ensure!(
        bench.named("west", "/meshtrafficpermissions", PERMISSION).await?[0]["labels"]["kuma.io/origin"]
            == "global"
    );
    let start = wait::now();
    let said = bench.grat("west", &[&leave[..], &["--yes"]].concat()).await?;
    took_time(start.elapsed(), "grat zone leave --yes");
    ensure!(said.stdout.contains("multizone.zone.globalAddress"), "{}", said.stdout);
    bench.until_at("global", "/zones/west", |answer| answer.status == 404).await?;
    let took = bench.until_answer("client-east", "has no service", has_no_service).await?;
    took_time(took, "until the other zone has given up its services");
    for (path, name) in
        [("/meshtrafficpermissions", PERMISSION), ("/meshhttproutes", "echo-canary"), ("/meshes", "default")]
    {
        let found = bench.named("west", path, name).await?;
        ensure!(found.len() == 1 && found[0]["name"] == name, "{path}: {found:?}");
    }
    let gone = bench.items("global", "/dataplanes").await?;
    ensure!(gone.iter().all(|item| item["labels"]["kuma.io/zone"] != "west"), "{gone:?}");
    unnoticed(traffic, "the zone left").await?;

    // Said again, nothing is left to be done, and that is no error.
    let said = bench.grat("west", &[&leave[..], &["--yes"]].concat()).await?;
    ensure!(said.stdout.contains("0 copies done"), "{}", said.stdout);

    // The settings say nothing of a global any more.
    let traffic = bench.traffic("client-west")?;
    bench.restart("west", Some("")).await?;
    bench.federation.start_proxy("west", "echo-2", Role::Echo).await?;
    bench.until_at("west", "/meshes/default/dataplanes/echo-2", |answer| answer.status == 200).await?;
    unnoticed(traffic, "it was started without global, and a new instance came").await?;
    // And when the settings are changed already.
    let said = bench.grat("west", &[&leave[..], &["--yes"]].concat()).await?;
    ensure!(said.stdout.contains("stands alone"), "{}", said.stdout);
    let permission = render(&bench.federation.binaries.demo_file("allow.yaml"), &[])?;
    bench.federation.delete("west", &permission).await?;
    let took = bench.until_answer("client-west", "is forbidden", is_forbidden).await?;
    took_time(took, "until what was global's permission, deleted in the zone, is no longer there");
    bench.federation.apply("west", &permission).await?;
    bench.until_steady("client-west").await?;

    // It joins again: what it took over from global is global's again, once.
    let traffic = bench.traffic("client-west")?;
    let token = bench.dir.join("west/zone.token").display().to_string();
    let join = ["zone", "join", "west", "--global", &global, "--yes", "--token-file", &token];
    let said = bench.grat("west", &join).await?;
    ensure!(!said.stdout.contains("DIFFERENT"), "{}", said.stdout);
    let start = wait::now();
    bench.restart("west", None).await?;
    bench.federation.wait_zone_joined("west").await?;
    bench.until_answer("client-east", "is served", is_served).await?;
    took_time(start.elapsed(), "from the start of the zone until the other zone is served by it again");
    bench.until_at("west", "/zones/west/_status", is_synced).await?;
    unnoticed(traffic, "it joined again").await?;
    for (path, name, copies) in [
        ("/meshhttproutes", "echo-canary", 1),
        // It was written in the zone meanwhile, so that it stays beside global's.
        ("/meshtrafficpermissions", PERMISSION, 2),
        ("/meshes", "default", 1),
        ("/meshidentities", "identity", 1),
    ] {
        let found = bench.named("west", path, name).await?;
        ensure!(found.len() == copies, "{path}: {found:?}");
        ensure!(found.iter().any(|item| item["labels"]["kuma.io/origin"] == "global"), "{path}: {found:?}");
    }
    let said = bench.grat("west", &["zone", "status", "west", "-o", "json"]).await?;
    let status: Value = serde_json::from_str(&said.stdout)?;
    ensure!(status["quarantineTotal"] == 0 && status["protection"]["state"] == "clear", "{}", said.stdout);
    bench.done()
}

/// Global loses its disk and has no backup: its zones have everything that it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn global_is_rebuilt_from_its_zones() -> Result<()> {
    let Some(mut bench) = bench("global is rebuilt from its zones").await? else { return Ok(()) };
    let secret = json!({"type": "Secret", "mesh": "default", "name": "of-a-user", "data": "c2VjcmV0"});
    bench.federation.apply("global", &secret).await?;
    bench
        .federation
        .apply("global", &json!({"type": "Mesh", "name": "another", "labels": {"team": "a"}}))
        .await?;
    for zone in ["east", "west"] {
        bench.until_at(zone, "/meshes/default/secrets/of-a-user", |answer| answer.status == 200).await?;
        bench.until_at(zone, "/meshes/another", |answer| answer.status == 200).await?;
        // Proxies of both zones have said what they are, so that nothing moves any more.
        bench.until_at(zone, &format!("/zones/{zone}/_status"), is_synced).await?;
    }
    // A default policy that somebody deleted does not come back.
    let unwanted = bench.named("global", "/meshcircuitbreakers", UNWANTED).await?;
    let unwanted = unwanted.first().context("global makes a default policy")?.clone();
    bench.federation.delete("global", &unwanted).await?;
    for zone in ["east", "west"] {
        bench.until_at(zone, "/meshcircuitbreakers", |answer| !answer.body.contains(UNWANTED)).await?;
    }
    let before = bench.substance("global").await?;
    let in_zones = [bench.substance("east").await?, bench.substance("west").await?];
    let traffic = [bench.traffic("client-west")?, bench.traffic("client-east")?];
    bench.federation.control_plane("global")?.process.kill()?;
    bench.federation.lose_disk("global")?;
    bench.federation.start_again("global").await?;
    let refused = |answer: &Answer| answer.body.contains("Unauthenticated");
    for zone in ["east", "west"] {
        bench.until_at(zone, &format!("/zones/{zone}/_status"), refused).await?;
    }
    ensure!(
        [bench.substance("east").await?, bench.substance("west").await?] == in_zones,
        "the zones kept everything"
    );

    let (east, west) = (bench.api("east")?, bench.api("west")?);
    let tokens = bench.dir.join("tokens");
    std::fs::create_dir_all(&tokens)?;
    let tokens = tokens.display().to_string();
    let rebuild =
        ["zone", "rebuild-global", "--from", &east, "--from", &west, "--prune", "--token-dir", &tokens];
    let empty = bench.substance("global").await?;
    let said = bench.grat("global", &rebuild).await?;
    ensure!(said.stdout.contains(PERMISSION) && said.stderr.contains("nothing was changed"), "{said:?}");
    ensure!(!said.stdout.contains("CONFLICT") && said.stdout.contains("user tokens"), "{}", said.stdout);
    ensure!(bench.substance("global").await? == empty, "a preview writes nothing");
    let start = wait::now();
    let (from, to) = (bench.dir.join("tokens"), bench.dir.clone());
    let install = async {
        for zone in ["east", "west"] {
            // The command waits for the zones, and the zones for their tokens.
            let file = from.join(format!("{zone}.token"));
            wait::until("a new token", LIMIT, || {
                let written = std::fs::read_to_string(&file).map_err(|error| error.to_string());
                std::future::ready(
                    written.and_then(|token| if token.is_empty() { Err("empty".into()) } else { Ok(()) }),
                )
            })
            .await?;
            std::fs::copy(&file, to.join(format!("{zone}/zone.token")))?;
        }
        anyhow::Ok(())
    };
    let arguments = [&rebuild[..], &["--yes"]].concat();
    let (said, installed) = tokio::join!(bench.grat("global", &arguments), install);
    installed?;
    ensure!(said?.stdout.contains("the zones follow it"));
    took_time(start.elapsed(), "grat zone rebuild-global --yes, until the zones have connected");
    for zone in ["east", "west"] {
        bench.until_at(zone, &format!("/zones/{zone}/_status"), is_in_step).await?;
    }
    took_time(start.elapsed(), "until both zones follow the new global");
    let after = bench.substance("global").await?;
    ensure!(after == before, "lost: {:?}\nnew: {:?}", minus(&before, &after), minus(&after, &before));
    for (zone, before) in ["east", "west"].into_iter().zip(&in_zones) {
        let after = bench.substance(zone).await?;
        ensure!(
            after == *before,
            "{zone}: lost {:?}, new {:?}",
            minus(before, &after),
            minus(&after, before)
        );
    }
    for (traffic, zone) in traffic.into_iter().zip(["west", "east"]) {
        unnoticed(traffic, &format!("global was lost and rebuilt, in {zone}")).await?;
    }
    // It is no new global any more: what was written there since stays.
    bench.federation.apply("global", &json!({"type": "Mesh", "name": "written-since"})).await?;
    let refused = bench.grat_refuses("global", &arguments).await?;
    ensure!(refused.contains("already the global of federation"), "{refused}");
    let kept = bench.named("global", "/meshes", "written-since").await?;
    ensure!(kept.len() == 1, "{kept:?}");
    // The keys are the old ones: a proxy that starts now is admitted with a token of before.
    bench.federation.proxy("echo-1")?.agent.kill()?;
    bench.federation.restart_agent("echo-1")?;
    bench.until_steady("client-west").await?;
    bench.until_steady("client-east").await?;
    bench.done()
}

/// Global is lost; the zone leaves without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_leaves_a_global_that_is_down() -> Result<()> {
    let Some(mut bench) = bench("a zone leaves without global").await? else { return Ok(()) };
    let traffic = bench.traffic("client-west")?;
    bench.federation.control_plane("global")?.process.kill()?;
    let said = bench.grat("west", &["zone", "leave", "west", "--without-global", "--yes"]).await?;
    ensure!(said.stdout.contains("grat delete zone west"), "{}", said.stdout);
    // It does not come back by itself, even with its old settings.
    bench.federation.start_again("global").await?;
    bench.restart("west", None).await?;
    let stays_away = |answer: &Answer| answer.body.contains("has left its global");
    bench.until_at("west", "/zones/west/_status", stays_away).await?;
    bench.grat("global", &["delete", "zone", "west"]).await?;
    bench.until_at("global", "/zones/west", |answer| answer.status == 404).await?;
    bench.restart("west", Some("")).await?;
    bench.until_answer("client-west", "is served", is_served).await?;
    // Nor with its old settings after it stood alone: another replica may still have them.
    bench.restart("west", None).await?;
    bench.until_at("west", "/zones/west/_status", stays_away).await?;
    unnoticed(traffic, "the zone left a global that was down").await?;
    let found = bench.named("west", "/meshtrafficpermissions", PERMISSION).await?;
    ensure!(found.len() == 1 && found[0]["name"] == PERMISSION, "{found:?}");
    bench.done()
}
