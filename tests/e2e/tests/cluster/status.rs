//! Three replicas of global and three of a zone with a proxy at each: everybody shows the same, whoever is asked can ask
//! every Envoy, and the loss of a replica makes nobody look lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::federation::START_LIMIT;
use graticule_testkit::http::expect;
use graticule_testkit::net::{Subnet, free_port};
use graticule_testkit::replicas::Site;
use graticule_testkit::{Binaries, Process, Replicas, wait};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::zones::zone_token;

/// `xdsServer.dataplaneDeregistrationDelay` of the zone, in seconds.
const DEREGISTRATION_DELAY: u64 = 3;

/// An agent with its Envoy, and a way to its zone that begins at one replica and goes to the next when that is gone.
struct Proxy {
    name: String,
    agent: Process,
    readiness: String,
}

/// Everything that runs.
struct World {
    globals: Replicas,
    zones: Replicas,
    proxies: Vec<Proxy>,
    _balancers: JoinSet<()>,
}

/// Passes connections on to the first of `backends` that takes them.
async fn balance(listener: TcpListener, backends: Vec<u16>) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let backends = backends.clone();
        connections.spawn(async move {
            for port in backends {
                if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                    // Either end may break.
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

impl World {
    async fn start(binaries: &Binaries, dir: &Path) -> Result<World> {
        let globals = Replicas::start(binaries, &dir.join("global"), Site::Global, 3).await?;
        let token_file = dir.join("zone.token");
        std::fs::write(&token_file, zone_token(&globals.rest, &globals.url(0, ""), "east").await?)?;
        let (mut certificates, mut addresses) = (String::new(), Vec::new());
        for replica in &globals.replicas {
            certificates.push_str(&std::fs::read_to_string(replica.control_plane.certificate())?);
            addresses.push(format!("grpcs://127.0.0.1:{}", replica.control_plane.port));
        }
        let ca_file = dir.join("globals.crt");
        std::fs::write(&ca_file, certificates)?;
        // All replicas of the zone have one certificate, as behind one name.
        let certificate = globals.replicas[0].control_plane.certificate();
        let path = |path: &Path| path.display().to_string();
        let variables = [
            ("GRATICULE_MULTIZONE_ZONE_NAME", "east".to_owned()),
            ("GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS", addresses.join(",")),
            ("GRATICULE_MULTIZONE_ZONE_KDS_ROOT_CA_FILE", path(&ca_file)),
            ("GRATICULE_MULTIZONE_ZONE_KDS_TOKEN_FILE", path(&token_file)),
            ("GRATICULE_GENERAL_TLS_CERT_FILE", path(&certificate)),
            ("GRATICULE_GENERAL_TLS_KEY_FILE", path(&certificate.with_extension("key"))),
            ("GRATICULE_XDS_DATAPLANE_DEREGISTRATION_DELAY", format!("{DEREGISTRATION_DELAY}s")),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let (mut listeners, mut each) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let port = listener.local_addr()?.port();
            each.push(vec![("GRATICULE_BOOTSTRAP_SERVER_PARAMS_XDS_PORT", port.to_string())]);
            listeners.push((listener, port));
        }
        let zones = Replicas::start_with(binaries, &dir.join("east"), Site::Zone(variables), each).await?;
        let mut world = World { globals, zones, proxies: Vec::new(), _balancers: JoinSet::new() };
        let subnet = Subnet::pick();
        for (index, (listener, port)) in listeners.into_iter().enumerate() {
            let backends = (0..3).map(|step| world.zones.replicas[(index + step) % 3].control_plane.port);
            world._balancers.spawn(balance(listener, backends.collect()));
            let address = subnet.host(u8::try_from(index)? + 1).to_string();
            world.start_proxy(binaries, dir, (index, port), &address, &certificate).await?;
        }
        for proxy in &world.proxies {
            wait::until(&format!("{} is ready", proxy.name), START_LIMIT, || async {
                let answer =
                    world.zones.rest.get(&proxy.readiness).await.map_err(|error| error.to_string())?;
                if answer.status == 200 { Ok(()) } else { Err(answer.body) }
            })
            .await?;
        }
        Ok(world)
    }

    async fn start_proxy(
        &mut self,
        binaries: &Binaries,
        dir: &Path,
        (replica, port): (usize, u16),
        address: &str,
        ca_file: &Path,
    ) -> Result<()> {
        let name = format!("echo-{replica}");
        let body = json!({"mesh": "default", "name": name, "workload": "echo", "validFor": "24h"});
        let url = self.zones.url(replica, "/tokens/dataplane");
        // The mesh comes from global before its signing key.
        let (token, _) = wait::until("a dataplane token", START_LIMIT, || async {
            let answer = self.zones.rest.post(&url, &body).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(answer.body) } else { Err(answer.body) }
        })
        .await?;
        let token_file = dir.join(format!("{name}.token"));
        std::fs::write(&token_file, token)?;
        let readiness = free_port("127.0.0.1")?;
        let mut command = Command::new(binaries.program("dp-agent")?);
        command
            .arg("run")
            .arg(format!("--cp-address=https://127.0.0.1:{port}"))
            .arg(format!("--ca-cert-file={}", ca_file.display()))
            .arg(format!("--binary-path={}", binaries.envoy.display()))
            .arg(format!("--work-dir={}", dir.join(&name).display()))
            .args(["--dns-enabled=false", "--concurrency=1", "--envoy-log-level=warning", "--drain-time=1s"])
            .arg(format!("--dataplane-file={}", binaries.demo_file("dp-echo.yaml").display()))
            .args(["-v", &format!("name={name}"), "-v", &format!("address={address}")])
            .arg(format!("--dataplane-token-file={}", token_file.display()))
            .env("GRATICULE_READINESS_PORT", readiness.to_string());
        let agent = Process::spawn(&name, dir, &mut command)?;
        let readiness = format!("http://127.0.0.1:{readiness}/ready");
        self.proxies.push(Proxy { name, agent, readiness });
        Ok(())
    }

    /// What the replicas that are left show at a path; the same document from all, for which `wanted` holds.
    async fn all_show(
        &self,
        replicas: &Replicas,
        left: &[usize],
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<(Value, Duration)> {
        let what = format!("replicas {left:?} show the same at {path}");
        let found = wait::until(&what, START_LIMIT, || async {
            let mut first: Option<Value> = None;
            for index in left {
                let answer = replicas.rest.get(&replicas.url(*index, path)).await;
                let answer = answer.map_err(|error| error.to_string())?;
                let mut document = answer.json().map_err(|error| error.to_string())?;
                if let Some(document) = document.as_object_mut() {
                    // When it was computed.
                    document.remove("createdAt");
                }
                if answer.status != 200 || !wanted(&document) {
                    return Err(format!("replica {index}: {}: {document}", answer.status));
                }
                match &first {
                    Some(first) if *first != document => {
                        return Err(format!("replica {index} differs: {first} | {document}"));
                    }
                    _ => first = Some(document),
                }
            }
            first.ok_or_else(|| "no replicas".to_owned())
        });
        found.await
    }
}

fn is_open(subscription: &Value) -> bool {
    subscription.get("connectTime").is_some() && subscription.get("disconnectTime").is_none()
}

fn subscriptions<'a>(item: &'a Value, insight: &str) -> &'a [Value] {
    item[insight]["subscriptions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Display names of the proxies that an overview shows online.
fn online(overview: &Value) -> BTreeSet<String> {
    let items = overview["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let online = items.iter().filter(|item| subscriptions(item, "dataplaneInsight").iter().any(is_open));
    online.map(display_name).collect()
}

fn display_name(item: &Value) -> String {
    let label = item["labels"]["kuma.io/display-name"].as_str();
    label.or(item["name"].as_str()).unwrap_or_default().to_owned()
}

/// Where each proxy's open stream is.
fn instances(overview: &Value) -> BTreeMap<String, String> {
    let items = overview["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let open = items.iter().filter_map(|item| {
        let open = subscriptions(item, "dataplaneInsight").iter().find(|one| is_open(one))?;
        Some((display_name(item), open["controlPlaneInstanceId"].as_str()?.to_owned()))
    });
    open.collect()
}

const PROXIES: &str = "/meshes/default/dataplanes/_overview";

async fn everybody_shows_the_same(world: &World) -> Result<()> {
    let all = [0, 1, 2];
    let all_online = |overview: &Value| online(overview).len() == 3;
    for (replicas, site) in [(&world.zones, "zone"), (&world.globals, "global")] {
        let (overview, took) = world.all_show(replicas, &all, PROXIES, all_online).await?;
        let distinct: BTreeSet<String> = instances(&overview).into_values().collect();
        ensure!(distinct.len() == 3, "each proxy is at another replica: {distinct:?}");
        println!("{site}: all replicas show all proxies online, after {took:?}");
        let counted = |insight: &Value| {
            insight["dataplanes"]["online"] == json!(3) && insight["dataplanes"]["total"] == json!(3)
        };
        world.all_show(replicas, &all, "/mesh-insights/default", counted).await?;
    }
    let zone_online = |insight: &Value| insight["zones"]["controlPlanes"]["online"] == json!(1);
    world.all_show(&world.globals, &all, "/global-insight", zone_online).await?;
    let is_online = |list: &Value| {
        let zones = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        zones.iter().any(|zone| subscriptions(zone, "zoneInsight").iter().any(is_open))
    };
    world.all_show(&world.globals, &all, "/zones/_overview", is_online).await?;
    let service = |list: &Value| list["items"][0]["status"]["dataplaneProxies"]["connected"] == json!(3);
    world.all_show(&world.zones, &all, "/meshes/default/meshservices", service).await?;
    Ok(())
}

async fn everybody_can_ask(world: &World) -> Result<()> {
    for (replicas, site) in [(&world.globals, "global"), (&world.zones, "zone")] {
        let (overview, _) = world.all_show(replicas, &[0], PROXIES, |_| true).await?;
        let items = overview["items"].as_array().cloned().unwrap_or_default();
        ensure!(items.len() == 3, "{overview}");
        for index in 0..3 {
            for item in &items {
                let name = item["name"].as_str().context("a name")?;
                for (kind, wanted) in
                    [("config-dump", "\"configs\""), ("stats", "server.live"), ("clusters", "::")]
                {
                    let said = replicas.grat(index, &["inspect", "dataplane", name, "--type", kind]).await?;
                    ensure!(
                        said.code == 0 && said.stdout.contains(wanted),
                        "{site} replica {index}, {name}, {kind}: {said:?}"
                    );
                }
                if site == "zone" {
                    let said =
                        replicas.grat(index, &["inspect", "dataplane", name, "--type", "config"]).await?;
                    ensure!(
                        said.code == 0 && said.stdout.contains("listener"),
                        "{site} replica {index}: {said:?}"
                    );
                }
            }
        }
        println!("{site}: every replica answers config-dump, stats and clusters of every proxy");
    }
    Ok(())
}

/// Looks all the time at what replicas show of proxies, until told to stop.
struct Watch {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    looks: u64,
    /// Longest time that a proxy was shown offline or not at all.
    offline: Duration,
    /// Numbers of proxies that were counted, other than three.
    wrong_counts: Vec<u64>,
    /// What was shown then.
    evidence: Option<String>,
}

impl Watch {
    fn start(replicas: &Replicas, left: &[usize]) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for index in left {
            let (index, stop, client) = (*index, stop.clone(), replicas.rest.clone());
            let (overview, counts) =
                (replicas.url(index, PROXIES), replicas.url(index, "/mesh-insights/default"));
            tasks.spawn(async move {
                let (mut seen, mut offline_since) = (Seen::default(), BTreeMap::new());
                while !stop.load(Ordering::Relaxed) {
                    let document = client.get(&overview).await?.json()?;
                    let shown = online(&document);
                    if shown.len() < 3 {
                        seen.evidence.get_or_insert_with(|| format!("replica {index}: {document}"));
                    }
                    for proxy in (0..3).map(|index| format!("echo-{index}")) {
                        if shown.contains(&proxy) {
                            offline_since.remove(&proxy);
                        } else {
                            let since = *offline_since.entry(proxy).or_insert_with(wait::now);
                            seen.offline = seen.offline.max(since.elapsed().max(Duration::from_nanos(1)));
                        }
                    }
                    let total = client.get(&counts).await?.json()?["dataplanes"]["total"].as_u64();
                    if total != Some(3) {
                        seen.wrong_counts.push(total.unwrap_or_default());
                    }
                    seen.looks += 1;
                }
                Ok(seen)
            });
        }
        Watch { stop, tasks }
    }

    async fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for seen in self.tasks.join_all().await {
            let seen = seen?;
            all.looks += seen.looks;
            all.offline = all.offline.max(seen.offline);
            all.wrong_counts.extend(seen.wrong_counts);
            all.evidence = all.evidence.or(seen.evidence);
        }
        Ok(all)
    }
}

/// The proxies of a killed replica go to others; nobody shows them offline for longer than they are.
async fn a_zone_replica_is_killed(world: &mut World, killed: usize) -> Result<()> {
    let (before, _) = world.all_show(&world.zones, &[0, 1, 2], PROXIES, |all| online(all).len() == 3).await?;
    let proxy = format!("echo-{killed}");
    let old = instances(&before).get(&proxy).cloned().context("its proxy is connected")?;
    let left: Vec<usize> = (0..3).filter(|index| *index != killed).collect();
    let watch_zone = Watch::start(&world.zones, &left);
    let watch_global = Watch::start(&world.globals, &[0, 1, 2]);
    world.zones.kill(killed)?;
    let moved = |overview: &Value| instances(overview).get(&proxy).is_some_and(|instance| *instance != old);
    let (_, reconnected) = world.all_show(&world.zones, &left, PROXIES, moved).await?;
    let (_, told) = world.all_show(&world.globals, &[0, 1, 2], PROXIES, moved).await?;
    // Longer than it takes until the killed replica counts as gone.
    let limit = Duration::from_secs(30);
    let gone = format!("its log says that replica {killed} is gone");
    wait::until(&gone, limit, || async {
        let logs = left.iter().map(|index| world.zones.replicas[*index].control_plane.process.log());
        let logs: Vec<String> = logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).collect();
        if logs.iter().all(|log| log.contains(&format!("{old}-"))) { Ok(()) } else { Err("no".to_owned()) }
    })
    .await?;
    world.all_show(&world.zones, &left, PROXIES, |all| online(all).len() == 3).await?;
    world.all_show(&world.globals, &[0, 1, 2], PROXIES, |all| online(all).len() == 3).await?;
    let (zone, global) = (watch_zone.finish().await?, watch_global.finish().await?);
    println!(
        "zone replica {killed} killed: its proxy is elsewhere after {reconnected:?}, global shows it after {told:?} more; \
         zone {zone:?}, global {global:?}"
    );
    ensure!(
        zone.offline <= reconnected && global.offline <= reconnected + told,
        "shown offline for too long"
    );
    ensure!(zone.wrong_counts.is_empty() && global.wrong_counts.is_empty(), "proxies were counted wrongly");
    world.zones.start_again(killed)?;
    world.zones.wait_ready(killed).await?;
    world.all_show(&world.zones, &[0, 1, 2], PROXIES, |all| online(all).len() == 3).await?;
    Ok(())
}

/// The zone goes to another replica of global; its proxies are never shown offline.
async fn a_global_replica_is_killed(world: &mut World) -> Result<()> {
    let zone_at = |list: &Value| {
        let zones = list["items"].as_array().cloned().unwrap_or_default();
        let open = zones.iter().flat_map(|zone| subscriptions(zone, "zoneInsight").to_vec()).find(is_open);
        open.and_then(|open| open["globalInstanceId"].as_str().map(str::to_owned))
    };
    let (zones, _) = world
        .all_show(&world.globals, &[0, 1, 2], "/zones/_overview", |list| zone_at(list).is_some())
        .await?;
    let old = zone_at(&zones).context("connected")?;
    let mut killed = None;
    for index in 0..3 {
        let said = world.globals.rest.get(&world.globals.url(index, "/")).await?.json()?;
        if said["instanceId"] == json!(old) {
            killed = Some(index);
        }
    }
    let killed = killed.context("one replica has the zone")?;
    let left: Vec<usize> = (0..3).filter(|index| *index != killed).collect();
    let watch = Watch::start(&world.globals, &left);
    world.globals.kill(killed)?;
    let moved = |list: &Value| zone_at(list).is_some_and(|instance| instance != old);
    let (_, took) = world.all_show(&world.globals, &left, "/zones/_overview", moved).await?;
    world.all_show(&world.globals, &left, PROXIES, |all| online(all).len() == 3).await?;
    let seen = watch.finish().await?;
    println!("global replica {killed} killed: the zone is at another one after {took:?}; {seen:?}");
    ensure!(seen.offline.is_zero() && seen.wrong_counts.is_empty(), "{seen:?}");
    world.globals.start_again(killed)?;
    world.globals.wait_ready(killed).await?;
    world.all_show(&world.globals, &[0, 1, 2], PROXIES, |all| online(all).len() == 3).await?;
    Ok(())
}

/// A host is lost: the replica and its proxy. What the proxy registered goes.
async fn a_replica_and_its_proxies_are_lost(world: &mut World) -> Result<()> {
    let (leader, _) = world.zones.leader(0, None).await?;
    let (overview, _) =
        world.all_show(&world.zones, &[0, 1, 2], PROXIES, |all| online(all).len() == 3).await?;
    let owners = instances(&overview);
    let mut ids = BTreeMap::new();
    for index in 0..3 {
        let said = world.zones.rest.get(&world.zones.url(index, "/")).await?.json()?;
        ids.insert(said["instanceId"].as_str().unwrap_or_default().to_owned(), index);
    }
    // Any replica that has a proxy; the leader rather than another.
    let mut with_proxy = owners.iter().filter_map(|(proxy, id)| Some((proxy.clone(), *ids.get(id)?)));
    let all: Vec<(String, usize)> = with_proxy.by_ref().collect();
    let (_, lost) = all.iter().find(|(_, at)| *at == leader).or(all.first()).cloned().context("a proxy")?;
    let names: Vec<String> =
        all.iter().filter(|(_, at)| *at == lost).map(|(proxy, _)| proxy.clone()).collect();
    world.zones.kill(lost)?;
    for proxy in world.proxies.iter_mut().filter(|proxy| names.contains(&proxy.name)) {
        for (pid, _) in proxy.agent.children() {
            kill(pid)?;
        }
        proxy.agent.kill()?;
    }
    let left: Vec<usize> = (0..3).filter(|index| *index != lost).collect();
    let is_gone = |overview: &Value| {
        let items = overview["items"].as_array().cloned().unwrap_or_default();
        let shown: BTreeSet<String> = items.iter().map(display_name).collect();
        names.iter().all(|name| !shown.contains(name)) && online(overview).len() == 3 - names.len()
    };
    let (_, took) = world.all_show(&world.zones, &left, PROXIES, is_gone).await?;
    world.all_show(&world.globals, &[0, 1, 2], PROXIES, is_gone).await?;
    println!(
        "zone replica {lost} and {names:?} killed: removed after {took:?} (delay {DEREGISTRATION_DELAY} s)"
    );
    Ok(())
}

fn kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    Ok(())
}

pub(crate) async fn run(binaries: &Binaries, dir: &PathBuf) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut world = World::start(binaries, dir).await?;
    let identity = graticule_testkit::federation::render(&binaries.demo_file("identity.yaml"), &[])?;
    let path = graticule_testkit::federation::resource_path(&identity)?;
    expect(world.globals.rest.put(&world.globals.url(0, &path), &identity).await?, &[200, 201], &path)?;
    everybody_shows_the_same(&world).await?;
    everybody_can_ask(&world).await?;
    let (leader, _) = world.zones.leader(0, None).await?;
    a_zone_replica_is_killed(&mut world, (leader + 1) % 3).await?;
    a_zone_replica_is_killed_that_leads(&mut world).await?;
    a_global_replica_is_killed(&mut world).await?;
    a_replica_and_its_proxies_are_lost(&mut world).await
}

async fn a_zone_replica_is_killed_that_leads(world: &mut World) -> Result<()> {
    let (leader, _) = world.zones.leader(0, None).await?;
    let (overview, _) =
        world.all_show(&world.zones, &[0, 1, 2], PROXIES, |all| online(all).len() == 3).await?;
    let said = world.zones.rest.get(&world.zones.url(leader, "/")).await?.json()?;
    let id = said["instanceId"].as_str().unwrap_or_default();
    // After the first loss its proxy may still be elsewhere.
    if instances(&overview).get(&format!("echo-{leader}")).is_some_and(|instance| instance == id) {
        a_zone_replica_is_killed(world, leader).await?;
    }
    Ok(())
}
