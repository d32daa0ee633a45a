//! The scenario of the demo: one request crosses two zones through real Envoys, and keeps doing so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::federation::Role;
use crate::http::{Answer, Client};
use crate::{Federation, wait};

/// How long an effect may take before the scenario calls it a failure. Generous: figures are reported, not asserted.
const EFFECT_LIMIT: Duration = Duration::from_secs(20);
/// SPIFFE id that the server's Envoy must have seen.
const CLIENT_ID: &str = "spiffe://default.east.mesh.local/workload/client";

/// A measured figure.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Unit.
    pub unit: &'static str,
}

/// Shows progress of the scenario.
pub trait Progress {
    /// A step begins.
    fn step(&mut self, title: &str);
    /// Something was proved.
    fn proved(&mut self, text: &str);
}

/// What the scenario found.
#[derive(Debug, Default)]
pub struct Report {
    /// Figures in the order of measurement.
    pub figures: Vec<Figure>,
}

impl Report {
    fn millis(&mut self, name: impl Into<String>, took: Duration) {
        self.figures.push(Figure { name: name.into(), value: took.as_secs_f64() * 1000.0, unit: "ms" });
    }
    fn mib(&mut self, name: impl Into<String>, kib: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a memory size")]
        self.figures.push(Figure { name: name.into(), value: kib as f64 / 1024.0, unit: "MiB" });
    }
}

/// How the scenario ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Global is killed at the end.
    KillGlobal,
    /// Everything stays up.
    StayUp,
}

/// Runs every step; the error says which step failed, and why.
pub async fn run(federation: &mut Federation, progress: &mut dyn Progress, ending: Ending) -> Result<Report> {
    let mut report = Report::default();
    Steps { federation, progress, report: &mut report }.all(ending).await?;
    Ok(report)
}

struct Steps<'a> {
    federation: &'a mut Federation,
    progress: &'a mut dyn Progress,
    report: &'a mut Report,
}

impl Steps<'_> {
    async fn all(mut self, ending: Ending) -> Result<()> {
        self.join_zones().await.context("step: two zones join global")?;
        self.first_request().await.context("step: the first request crosses the zones")?;
        self.hundred_requests().await.context("step: 100 requests, spread over both instances")?;
        self.permissions().await.context("step: traffic permission")?;
        self.routes().await.context("step: HTTP route")?;
        self.crash_of_an_instance().await.context("step: kill -9 of a server instance")?;
        self.graceful_stop().await.context("step: SIGTERM of a server instance")?;
        self.memory();
        self.nothing_rejected().await.context("step: Envoys accepted everything")?;
        self.crash_of_control_planes().await.context("step: kill -9 of global and of a zone")?;
        if ending == Ending::KillGlobal {
            self.without_global().await.context("step: global killed")?;
        }
        Ok(())
    }

    async fn join_zones(&mut self) -> Result<()> {
        self.progress.step("Two zones, east and west, join global");
        for zone in ["east", "west"] {
            self.federation.start_zone(zone).await?;
            let took = self.federation.wait_zone_joined(zone).await?;
            self.report.millis(format!("zone {zone}: process answers → joined"), took);
            self.progress.proved(&format!("zone {zone} is online at global and has its mesh ({took:.1?})"));
        }
        self.federation.apply_file("global", "identity.yaml", &[]).await?;
        self.federation.apply_file("global", "allow.yaml", &[]).await?;
        self.progress.proved("identity and traffic permission applied at global");
        Ok(())
    }

    async fn first_request(&mut self) -> Result<()> {
        self.progress.step("Zone ingresses, a client in east, two server instances in west");
        let start = wait::now();
        for (zone, name, role) in [
            ("east", "ingress-east", Role::Ingress),
            ("west", "ingress-west", Role::Ingress),
            ("west", "echo-1", Role::Echo),
            ("west", "echo-2", Role::Echo),
            ("east", "client-1", Role::Client),
        ] {
            self.federation.start_proxy(zone, name, role).await?;
        }
        let url = self.federation.proxy("client-1")?.outbound_url("/hello");
        let answer = self.wait_for(&url, "first answer through both zones", |a| a.status == 200).await?.0;
        let took = start.elapsed();
        self.report.millis("agents and Envoys started → first cross-zone answer", took);
        let body = answer.json()?;
        let certificate = body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default().to_owned();
        ensure!(
            certificate.contains(&format!("URI={CLIENT_ID}")),
            "the server's Envoy saw another client than {CLIENT_ID}: {certificate:?}"
        );
        ensure!(body["zone"] == "west", "answered from zone {}", body["zone"]);
        let server = body["name"].as_str().unwrap_or_default();
        self.progress.proved(&format!(
            "client-1 (east) → its Envoy → mTLS → ingress-west → {server}'s Envoy → {server} (west): 200 after {took:.1?}"
        ));
        self.progress.proved(&format!("seen by the server's Envoy: {certificate}"));
        let ready = |names: Vec<String>| names.len() == 2;
        self.wait_for_instances(ready).await?;
        Ok(())
    }

    /// Waits until requests reach a set of instances that `enough` accepts.
    async fn wait_for_instances(&mut self, enough: impl Fn(Vec<String>) -> bool) -> Result<Duration> {
        let url = self.federation.proxy("client-1")?.outbound_url("/");
        let client = Client::new()?;
        let start = wait::now();
        let mut window: Vec<String> = Vec::new();
        loop {
            let answer = client.get(&url).await?;
            window.push(answer.header("x-demo-instance").unwrap_or_default().to_owned());
            let recent = &window[window.len().saturating_sub(200)..];
            let names: std::collections::BTreeSet<String> =
                recent.iter().filter(|name| !name.is_empty()).cloned().collect();
            if enough(names.into_iter().collect()) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > EFFECT_LIMIT {
                bail!(
                    "requests reached only {:?} in {EFFECT_LIMIT:?}",
                    &window[window.len().saturating_sub(20)..]
                );
            }
        }
    }

    async fn wait_for(
        &mut self,
        url: &str,
        what: &str,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<(Answer, Duration)> {
        let client = Client::new()?;
        let federation = &mut *self.federation;
        let (outcome, took) = wait::until(what, EFFECT_LIMIT, || {
            let ended = federation.check_running().err();
            let (client, url, wanted) = (client.clone(), url.to_owned(), &wanted);
            async move {
                if let Some(error) = ended {
                    return Ok(Err(error));
                }
                match client.get(&url).await {
                    Ok(answer) if wanted(&answer) => Ok(Ok(answer)),
                    Ok(answer) => Err(format!("status {}: {}", answer.status, answer.body.trim())),
                    Err(error) => Err(format!("{error:#}")),
                }
            }
        })
        .await?;
        Ok((outcome?, took))
    }

    async fn hundred_requests(&mut self) -> Result<()> {
        self.progress.step("100 requests on one connection, east → west");
        let url = self.federation.proxy("client-1")?.outbound_url("/spread");
        let client = Client::new()?;
        let mut by_instance: BTreeMap<String, u32> = BTreeMap::new();
        let start = wait::now();
        for number in 0..100 {
            let answer = client.get(&url).await?;
            ensure!(answer.status == 200, "request {number}: status {}: {}", answer.status, answer.body);
            *by_instance.entry(answer.header("x-demo-instance").unwrap_or_default().into()).or_default() += 1;
        }
        let took = start.elapsed();
        ensure!(by_instance.len() == 2, "all requests went to {by_instance:?}");
        self.report.millis("mean time of a cross-zone request (100 in sequence)", took / 100);
        self.progress.proved(&format!("100 answered in {took:.1?}: {by_instance:?}"));
        Ok(())
    }

    /// Sends `change` and requests at the same time; gives the time until the first answer that `changed` accepts.
    async fn effect(
        &mut self,
        path: &str,
        change: Change<'_>,
        changed: impl Fn(&Answer) -> bool,
    ) -> Result<Duration> {
        let url = self.federation.proxy("client-1")?.outbound_url(path);
        let client = Client::new()?;
        let before = client.get(&url).await?;
        ensure!(!changed(&before), "the effect is there before the change: {}", before.status);
        let start = wait::now();
        let write = async {
            match change {
                Change::Put(document) => self.federation.apply("global", document).await,
                Change::Delete(document) => self.federation.delete("global", document).await,
            }
        };
        let watch = async {
            loop {
                let answer = client.get(&url).await?;
                if changed(&answer) {
                    return Ok::<Duration, anyhow::Error>(start.elapsed());
                }
                if start.elapsed() > EFFECT_LIMIT {
                    bail!(
                        "no effect within {EFFECT_LIMIT:?}; last status {}: {}",
                        answer.status,
                        answer.body
                    );
                }
            }
        };
        let (written, effect) = tokio::join!(write, watch);
        written?;
        effect
    }

    async fn permissions(&mut self) -> Result<()> {
        self.progress.step("Without a traffic permission nothing passes");
        let allow = crate::federation::render(&self.federation.binaries.demo_file("allow.yaml"), &[])?;
        let denied = self.effect("/denied", Change::Delete(&allow), |a| a.status == 403).await?;
        self.report.millis("permission deleted at global → first refused request", denied);
        let allowed = self.effect("/allowed", Change::Put(&allow), |a| a.status == 200).await?;
        self.report.millis("permission applied at global → first admitted request", allowed);
        self.progress
            .proved(&format!("deleted: 403 after {denied:.1?}; applied again: 200 after {allowed:.1?}"));
        Ok(())
    }

    async fn routes(&mut self) -> Result<()> {
        self.progress.step("An HTTP route changes routing, its deletion restores it");
        let route = crate::federation::render(&self.federation.binaries.demo_file("route.yaml"), &[])?;
        let marked = |answer: &Answer| answer.header("x-route") == Some("echo-canary");
        let on = self.effect("/", Change::Put(&route), marked).await?;
        self.report.millis("route applied at global → first changed answer", on);
        let url = self.federation.proxy("client-1")?.outbound_url("/old");
        let redirect = Client::new()?.get(&url).await?;
        ensure!(redirect.status == 302, "/old: status {} instead of 302", redirect.status);
        let location = redirect.header("location").unwrap_or_default().to_owned();
        ensure!(location.ends_with("/new"), "/old is redirected to {location:?}");
        let off = self.effect("/", Change::Delete(&route), |answer| !marked(answer)).await?;
        self.report.millis("route deleted at global → first restored answer", off);
        self.progress.proved(&format!(
            "applied: header after {on:.1?}, /old → {location}; deleted: gone after {off:.1?}"
        ));
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(self.effect("/", Change::Put(&route), marked).await?);
            times.push(self.effect("/", Change::Delete(&route), |answer| !marked(answer)).await?);
        }
        times.sort();
        self.report
            .millis("20 route changes at global → first changed answer: median", times[times.len() / 2]);
        self.report
            .millis("20 route changes at global → first changed answer: slowest", times[times.len() - 1]);
        self.progress
            .proved(&format!("20 more changes: median {:.1?}, slowest {:.1?}", times[10], times[19]));
        Ok(())
    }

    async fn crash_of_an_instance(&mut self) -> Result<()> {
        self.progress.step("kill -9 of one server instance, then it comes back");
        let load = Load::start(self.federation.proxy("client-1")?.outbound_url("/crash"))?;
        load.wait_for(50).await?;
        self.federation.proxy("echo-1")?.agent.kill()?;
        let gone = self.wait_for_instances_in(&load, |names| !names.contains(&"echo-1".to_owned())).await?;
        let counts = load.stop().await?;
        ensure!(counts.answered > 0, "no request was answered");
        self.report.millis("instance killed → no request goes there any more", gone);
        self.progress.proved(&format!(
            "requests went on: {} answered, {} failed while echo-1 was killed",
            counts.answered, counts.failed
        ));
        ensure!(counts.failed <= 1, "{} requests failed: {:?}", counts.failed, counts.first_failure);
        let start = wait::now();
        self.federation.restart_agent("echo-1")?;
        self.wait_for_instances(|names| names.contains(&"echo-1".to_owned())).await?;
        let back = start.elapsed();
        self.report.millis("killed agent started again → its instance serves", back);
        self.progress.proved(&format!("echo-1 started again: it serves after {back:.1?}"));
        Ok(())
    }

    async fn wait_for_instances_in(
        &mut self,
        load: &Load,
        enough: impl Fn(&[String]) -> bool,
    ) -> Result<Duration> {
        let start = wait::now();
        loop {
            let recent = load.recent(40);
            if recent.len() >= 40 && enough(&recent) {
                return Ok(start.elapsed());
            }
            ensure!(start.elapsed() < EFFECT_LIMIT, "requests still reach {recent:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn graceful_stop(&mut self) -> Result<()> {
        self.progress.step("SIGTERM of the other instance: no request fails");
        self.wait_for_instances(|names| names.len() == 2).await?;
        let load = Load::start(self.federation.proxy("client-1")?.outbound_url("/graceful"))?;
        load.wait_for(50).await?;
        self.federation.proxy("echo-2")?.agent.signal(Signal::TERM)?;
        let gone = self.wait_for_instances_in(&load, |names| !names.contains(&"echo-2".to_owned())).await?;
        let status = self.federation.proxy("echo-2")?.agent.wait_exit(Duration::from_secs(30)).await?;
        let before = load.count();
        load.wait_for(before + 50).await?;
        let counts = load.stop().await?;
        ensure!(status.success(), "the agent of echo-2 ended with {status}");
        ensure!(counts.failed == 0, "{} requests failed: {:?}", counts.failed, counts.first_failure);
        self.report.millis("SIGTERM of an instance → no request goes there any more", gone);
        self.progress.proved(&format!(
            "{} requests answered, none failed; echo-2 got none after {gone:.1?}",
            counts.answered
        ));
        self.federation.restart_agent("echo-2")?;
        self.wait_for_instances(|names| names.len() == 2).await?;
        Ok(())
    }

    async fn nothing_rejected(&mut self) -> Result<()> {
        self.progress.step("Every Envoy accepted everything; envoy --mode validate accepts it as well");
        let names: Vec<String> = self.federation.proxies.keys().cloned().collect();
        for name in &names {
            self.validate(name).await.with_context(|| format!("proxy {name}"))?;
        }
        self.progress.proved(&format!("validated: {}", names.join(", ")));
        Ok(())
    }

    /// Puts the configuration that the zone generates into a static bootstrap and lets Envoy validate it.
    async fn validate(&mut self, name: &str) -> Result<()> {
        let (zone, workdir) = {
            let proxy = self.federation.proxy(name)?;
            (proxy.zone.clone(), proxy.workdir.clone())
        };
        let url =
            format!("{}/meshes/default/dataplanes/{name}/_config", self.federation.control_plane(&zone)?.api);
        let answer = crate::http::expect(self.federation.rest.get(&url).await?, &[200], "_config")?;
        let xds = answer.json()?["xds"].clone();
        let bootstrap = std::fs::read_to_string(workdir.join("bootstrap.yaml"))?;
        let bootstrap = graticule_model::yaml::parse_one(&bootstrap)?;
        let file = workdir.join("validate.json");
        std::fs::write(&file, serde_json::to_vec(&static_bootstrap(bootstrap, &xds))?)?;
        let output = tokio::process::Command::new(&self.federation.binaries.envoy)
            .args(["--mode", "validate", "--log-level", "error", "--config-path"])
            .arg(&file)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "envoy --mode validate refused {}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        let insight = format!(
            "{}/meshes/default/dataplanes/{name}/_overview",
            self.federation.control_plane(&zone)?.api
        );
        let overview = self.federation.rest.get(&insight).await?.json()?;
        let rejected: Vec<&Value> = overview["dataplaneInsight"]["subscriptions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|s| s["status"]["total"].get("responsesRejected").is_some())
            .collect();
        ensure!(rejected.is_empty(), "the running Envoy rejected configuration: {rejected:?}");
        Ok(())
    }

    fn memory(&mut self) {
        let mut lines = Vec::new();
        let mut note = |name: String, kib: Option<u64>| {
            if let Some(kib) = kib {
                lines.push(format!("{name} {:.1}", kib as f64 / 1024.0));
                self.report.mib(format!("resident memory of {name}"), kib);
            }
        };
        note("global-cp".into(), self.federation.global.process.resident_kib());
        for zone in self.federation.zones.values() {
            note(format!("zone-cp {}", zone.name), zone.process.resident_kib());
        }
        for proxy in self.federation.proxies.values() {
            note(format!("dp-agent {}", proxy.name), proxy.agent.resident_kib());
            note(format!("envoy {}", proxy.name), proxy.envoy_pid().and_then(crate::process::resident_kib));
        }
        self.progress.step("Resident memory, MiB");
        self.progress.proved(&lines.join(" · "));
    }

    /// Global and a zone are killed and start again on what their stores kept.
    async fn crash_of_control_planes(&mut self) -> Result<()> {
        self.progress.step("kill -9 of global and of zone west, both start again: nothing is lost");
        let load = Load::start(self.federation.proxy("client-1")?.outbound_url("/restart"))?;
        load.wait_for(20).await?;
        for name in ["global", "west"] {
            let before = self.stored(name).await?;
            ensure!(before.len() > 10, "{name} lists only {} resources: {before:?}", before.len());
            self.federation.control_plane(name)?.process.kill()?;
            let start = wait::now();
            self.federation.start_again(name).await?;
            let took = start.elapsed();
            let after = self.stored(name).await?;
            for (path, resource) in &before {
                ensure!(
                    after.get(path) == Some(resource),
                    "{name} restarted with another {path}: {:?} instead of {resource}",
                    after.get(path)
                );
            }
            self.progress.proved(&format!("{name}: {} resources as before, after {took:.1?}", before.len()));
            self.report.millis(format!("{name} killed: process started → API answers"), took);
        }
        for zone in ["east", "west"] {
            self.federation.wait_zone_joined(zone).await?;
        }
        self.routes().await.context("policies flow again")?;
        let counts = load.stop().await?;
        ensure!(counts.failed == 0, "{} requests failed: {:?}", counts.failed, counts.first_failure);
        self.progress.proved(&format!("{} requests answered meanwhile, none failed", counts.answered));
        Ok(())
    }

    /// What a control plane stores and people or zones decided: path of each resource and its document.
    async fn stored(&mut self, name: &str) -> Result<BTreeMap<String, Value>> {
        let api = self.federation.control_plane(name)?.api.clone();
        let mut found = BTreeMap::new();
        for kind in graticule_model::Kind::all() {
            let descriptor = kind.descriptor();
            // Status comes back by itself, with new times.
            if descriptor.path.is_empty() || descriptor.capabilities.soft {
                continue;
            }
            let answer = self.federation.rest.get(&format!("{api}/{}?size=1000", descriptor.path)).await?;
            if answer.status != 200 {
                continue;
            }
            for item in answer.json()?["items"].as_array().into_iter().flatten() {
                let mut item = item.clone();
                // What the control plane observes is part of these, and is observed again.
                if (descriptor.capabilities.has_status || kind == graticule_model::Kind::Dataplane)
                    && let Some(members) = item.as_object_mut()
                {
                    members.remove("status");
                    members.remove("modificationTime");
                }
                found.insert(format!("{kind} {} {}", item["mesh"], item["name"]), item);
            }
        }
        Ok(found)
    }

    async fn without_global(&mut self) -> Result<()> {
        self.progress.step("kill -9 of global: everything goes on, and new proxies join");
        let load = Load::start(self.federation.proxy("client-1")?.outbound_url("/orphan"))?;
        load.wait_for(20).await?;
        let global_pid = self.federation.global.process.pid();
        self.federation.global.process.kill()?;
        ensure!(crate::process::resident_kib(global_pid).is_none(), "global still runs");
        let before = load.count();
        load.wait_for(before + 200).await?;
        let url = self.federation.proxy("client-1")?.outbound_url("/new-connection");
        for _ in 0..10 {
            let answer = Client::new()?.get(&url).await?;
            ensure!(answer.status == 200, "a new connection got {}: {}", answer.status, answer.body);
        }
        self.progress.proved("requests and new connections go on");
        let start = wait::now();
        self.federation.start_proxy("west", "echo-3", Role::Echo).await?;
        self.wait_for_instances(|names| names.contains(&"echo-3".to_owned())).await?;
        let joined = start.elapsed();
        self.progress.proved(&format!("a new instance in west serves clients in east after {joined:.1?}"));
        self.report.millis("global down: new instance started → serves the other zone", joined);
        for (zone, name) in [("east", "client-2"), ("west", "client-3")] {
            let start = wait::now();
            self.federation.start_proxy(zone, name, Role::Client).await?;
            let url = self.federation.proxy(name)?.outbound_url("/new-client");
            let client = Client::new()?;
            wait::until(&format!("{name} gets an answer"), EFFECT_LIMIT, || {
                let (client, url) = (client.clone(), url.clone());
                async move {
                    match client.get(&url).await {
                        Ok(answer) if answer.status == 200 => Ok(()),
                        Ok(answer) => Err(format!("status {}: {}", answer.status, answer.body)),
                        Err(error) => Err(error.to_string()),
                    }
                }
            })
            .await?;
            let took = start.elapsed();
            self.report.millis(format!("global down: new client in {zone} started → first answer"), took);
            self.progress.proved(&format!("a new client in {zone} gets its first answer after {took:.1?}"));
        }
        let counts = load.stop().await?;
        ensure!(counts.failed == 0, "{} requests failed: {:?}", counts.failed, counts.first_failure);
        self.progress.proved(&format!("{} requests answered without global, none failed", counts.answered));
        Ok(())
    }
}

/// A write at global.
enum Change<'a> {
    Put(&'a Value),
    Delete(&'a Value),
}

/// The generated resources as static ones, so that `--mode validate` looks at all of them.
fn static_bootstrap(mut bootstrap: Value, xds: &Value) -> Value {
    let of = |suffix: &str| -> Vec<Value> {
        let types = xds.as_object().into_iter().flatten();
        let wanted = types.filter(|(name, _)| name.ends_with(suffix));
        wanted.filter_map(|(_, resources)| resources.as_object()).flat_map(|r| r.values().cloned()).collect()
    };
    let without_admin_tls = |listener: &Value| listener["name"] != "system_envoy_admin";
    if let Some(resources) = bootstrap.get_mut("staticResources").and_then(Value::as_object_mut) {
        let listeners: Vec<Value> =
            of("listener.v3.Listener").into_iter().filter(without_admin_tls).collect();
        resources.insert("listeners".into(), Value::Array(listeners));
        for (member, suffix) in [("clusters", "cluster.v3.Cluster"), ("secrets", "tls.v3.Secret")] {
            let list = resources.entry(member).or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                list.extend(of(suffix));
            }
        }
    }
    if let Some(dynamic) = bootstrap.get_mut("dynamicResources").and_then(Value::as_object_mut) {
        dynamic.remove("ldsConfig");
        dynamic.remove("cdsConfig");
    }
    if let Some(members) = bootstrap.as_object_mut() {
        members.remove("hdsConfig");
        members.remove("admin");
    }
    bootstrap
}

/// Requests one after another in the background, on one connection to the client's Envoy.
struct Load {
    stop: Arc<AtomicBool>,
    shared: Arc<std::sync::atomic::AtomicU64>,
    instances: Arc<tokio::sync::RwLock<Vec<String>>>,
    task: tokio::task::JoinHandle<Counts>,
}

/// What [`Load`] saw.
#[derive(Debug, Default, Clone)]
struct Counts {
    answered: u64,
    failed: u64,
    first_failure: Option<String>,
}

impl Load {
    fn start(url: String) -> Result<Load> {
        let client = Client::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let instances = Arc::new(tokio::sync::RwLock::new(Vec::new()));
        let (stopped, count, seen) = (stop.clone(), shared.clone(), instances.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "a test load of its own; its handle is kept and awaited"
        )]
        let task = tokio::spawn(async move {
            let mut counts = Counts::default();
            while !stopped.load(Ordering::Relaxed) {
                match client.get(&url).await {
                    Ok(answer) if answer.status == 200 => {
                        counts.answered += 1;
                        let name = answer.header("x-demo-instance").unwrap_or_default().to_owned();
                        seen.write().await.push(name);
                    }
                    Ok(answer) => {
                        counts.failed += 1;
                        let text = format!("status {}: {}", answer.status, answer.body.trim());
                        counts.first_failure.get_or_insert(text);
                    }
                    Err(error) => {
                        counts.failed += 1;
                        counts.first_failure.get_or_insert(format!("{error:#}"));
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            counts
        });
        Ok(Load { stop, shared, instances, task })
    }

    fn count(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// The instances of the last answered requests.
    fn recent(&self, number: usize) -> Vec<String> {
        match self.instances.try_read() {
            Ok(all) => all[all.len().saturating_sub(number)..].to_vec(),
            Err(_) => Vec::new(),
        }
    }

    async fn wait_for(&self, number: u64) -> Result<()> {
        wait::until("requests are sent", EFFECT_LIMIT, || {
            let count = self.count();
            async move { if count >= number { Ok(()) } else { Err(format!("{count} of {number}")) } }
        })
        .await
        .map(|_| ())
    }

    async fn stop(self) -> Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}
