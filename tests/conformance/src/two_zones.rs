//! Suite `two-zones`: the recorded scenario of a request from one zone to the other
//! (`recordings/dataplane/two-zones`), run with our programs and real Envoys, compared document by document.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use graticule_testkit::{Binaries, wait};
use serde_json::{Value, json};

use crate::compare::{Bindings, Difference, compare};
use crate::report::{CaseReport, SuiteReport, describe};
use crate::{Options, accepted};
use recording::{Recording, text};
use site::Site;

mod differences;
mod envoy;
mod link;
mod recording;
mod site;

/// Name of the suite.
pub(crate) const NAME: &str = "two-zones";

/// How long our state may take until it is what was recorded, counted from the first case of a group.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// How long a request may take until it is answered as wanted.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How long a proxy is cut off its zone.
const OUTAGE: Duration = Duration::from_secs(1);

/// Lists that every control plane shows; `(file, path)`.
const LISTS: [(&str, &str); 13] = [
    ("meshservices", "/meshes/default/meshservices"),
    ("meshidentities", "/meshes/default/meshidentities"),
    ("meshtrusts", "/meshes/default/meshtrusts"),
    ("meshzoneaddresses", "/meshes/default/meshzoneaddresses"),
    ("meshtrafficpermissions", "/meshes/default/meshtrafficpermissions"),
    ("meshtimeouts", "/meshes/default/meshtimeouts"),
    ("meshretries", "/meshes/default/meshretries"),
    ("meshcircuitbreakers", "/meshes/default/meshcircuitbreakers"),
    ("hostnamegenerators", "/hostnamegenerators"),
    ("workloads", "/meshes/default/workloads"),
    ("dataplanes", "/meshes/default/dataplanes"),
    ("dataplane-insights", "/meshes/default/dataplane-insights"),
    ("meshes", "/meshes"),
];

/// What a case checks.
#[derive(Debug, Clone)]
enum Check {
    /// The generated configuration, as the zone shows it.
    Config(String),
    /// The Dataplane, as its zone stores it.
    Dataplane(String),
    /// The overview, with versions, identity and counters.
    Overview(String),
    /// What the running Envoy has.
    Dump(String),
    /// A list of stored resources.
    List(&'static str, &'static str, &'static str),
    /// Zones as global sees them.
    ZonesOnline,
    /// The request through the mesh.
    Request,
    /// A policy that denies it, and its deletion.
    Denied,
    /// The proxies of a zone lose their control plane for a moment.
    Reconnect(&'static str),
    /// The answer to the recorded bootstrap request.
    Bootstrap(String),
    /// Envoys that run with these answers.
    BootstrapRuns,
    /// The same, dumped.
    BootstrapDump(String),
}

/// Runs the suite.
pub(crate) async fn run(
    options: &Options,
    binaries: &Binaries,
    done: &mut dyn FnMut(&CaseReport),
) -> Result<SuiteReport> {
    let recording = Recording::open(&options.data)?;
    let mut suite = Suite { options, binaries, recording, cases: Vec::new(), done };
    suite.exchange().await.context("our processes do not start")?;
    suite.balanced().await.context("our processes do not start")?;
    if options.case.is_none() {
        let report = accepted::stale(NAME, differences::ACCEPTED, &suite.cases);
        (suite.done)(&report);
        suite.cases.push(report);
    }
    Ok(SuiteReport { name: NAME, cases: suite.cases })
}

struct Suite<'a> {
    options: &'a Options,
    binaries: &'a Binaries,
    recording: Recording,
    cases: Vec<CaseReport>,
    done: &'a mut dyn FnMut(&CaseReport),
}

impl Suite<'_> {
    /// The scenario as recorded, but for trust: global exchanges it by itself; then also with the recorded
    /// MeshTrusts applied at global.
    async fn exchange(&mut self) -> Result<()> {
        let names: Vec<String> = self.recording.proxies()?.into_iter().map(|proxy| proxy.name).collect();
        let of = |check: fn(String) -> Check| names.iter().map(move |name| check(name.clone()));
        let mut checks = vec![Check::Request];
        checks.extend(
            of(Check::Config).chain(of(Check::Dump)).chain(of(Check::Dataplane)).chain(of(Check::Overview)),
        );
        for control_plane in ["global", "east", "west"] {
            checks.extend(LISTS.iter().map(|(file, path)| Check::List(control_plane, file, path)));
        }
        checks.push(Check::ZonesOnline);
        let mut by_hand: Vec<Check> = of(Check::Config).chain(of(Check::Dump)).collect();
        by_hand.extend(["global", "east", "west"].map(|cp| Check::List(cp, LISTS[2].0, LISTS[2].1)));
        let mut last = vec![Check::Reconnect("east"), Check::Reconnect("west"), Check::Denied];
        let mut bootstrap: Vec<Check> = of(Check::Bootstrap).collect();
        bootstrap.push(Check::BootstrapRuns);
        bootstrap.extend(of(Check::BootstrapDump));
        let wanted = |checks: &mut Vec<Check>, variant: &str| {
            checks.retain(|check| self.wants(&format!("{variant}/{}", check.name())));
        };
        wanted(&mut checks, "exchange");
        wanted(&mut last, "exchange");
        wanted(&mut by_hand, "by-hand");
        wanted(&mut bootstrap, "bootstrap");
        if [&checks, &last, &by_hand, &bootstrap].iter().all(|checks| checks.is_empty()) {
            return Ok(());
        }
        let mut site = self.site("exchange", "false").await?;
        let mut bindings = Bindings::default();
        self.cases("exchange", &mut site, &mut bindings, checks).await;
        self.cases("exchange", &mut site, &mut bindings, last).await;
        site.apply_trust_by_hand().await?;
        self.cases("by-hand", &mut site, &mut bindings, by_hand).await;
        if !bootstrap.is_empty() {
            site.stop_agents().await?;
            self.cases("bootstrap", &mut site, &mut Bindings::default(), bootstrap).await;
        }
        Ok(())
    }

    /// With our balancing of cross-zone requests on, only its own fields differ.
    async fn balanced(&mut self) -> Result<()> {
        let checks = vec![Check::Config("client-1".into()), Check::Config("ingress-west".into())];
        let checks: Vec<Check> =
            checks.into_iter().filter(|check| self.wants(&format!("balanced/{}", check.name()))).collect();
        if checks.is_empty() {
            return Ok(());
        }
        let mut site = self.site("balanced", "true").await?;
        self.cases("balanced", &mut site, &mut Bindings::default(), checks).await;
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.options.case.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }

    async fn site(&self, variant: &str, balance: &str) -> Result<Site> {
        let environment =
            BTreeMap::from([("GRATICULE_CROSS_ZONE_BALANCE_REQUESTS".to_owned(), balance.to_owned())]);
        let dir = self.options.work.join(variant);
        let mut site = Site::start(self.recording.clone(), self.binaries.clone(), &dir, environment).await?;
        site.start_proxies().await?;
        site.wait_for_status(200, REQUEST_LIMIT).await?;
        Ok(site)
    }

    async fn cases(&mut self, variant: &str, site: &mut Site, bindings: &mut Bindings, checks: Vec<Check>) {
        let start = wait::now();
        for check in checks {
            let name = format!("{variant}/{}", check.name());
            let report = case(name, site, bindings, &check, start).await;
            (self.done)(&report);
            self.cases.push(report);
        }
    }
}

/// Runs one case: what our programs show is compared until it is as recorded, or the time is up.
async fn case(
    name: String,
    site: &mut Site,
    bindings: &mut Bindings,
    check: &Check,
    start: Instant,
) -> CaseReport {
    loop {
        let mut tried = bindings.clone();
        let outcome = site.check(check, &mut tried).await;
        let late = start.elapsed() > SETTLE_LIMIT || !check.repeats();
        match outcome {
            Err(error) if late => {
                let failure = Some(format!("{error:#}"));
                return CaseReport { name, failure, ..CaseReport::default() };
            }
            Err(_) => {}
            Ok(found) => {
                let (accepted, unlisted) = accepted::split(differences::ACCEPTED, &name, found);
                if unlisted.is_empty() || late {
                    *bindings = tried;
                    let failure = (!unlisted.is_empty()).then(|| describe(&unlisted));
                    return CaseReport { name, failure, accepted, ..CaseReport::default() };
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Check {
    fn name(&self) -> String {
        match self {
            Check::Config(proxy) => format!("config/{proxy}"),
            Check::Dataplane(proxy) => format!("dataplane/{proxy}"),
            Check::Overview(proxy) => format!("overview/{proxy}"),
            Check::Dump(proxy) | Check::BootstrapDump(proxy) => format!("envoy/{proxy}"),
            Check::List(control_plane, file, _) => format!("list/{control_plane}/{file}"),
            Check::ZonesOnline => "zones-online".into(),
            Check::Request => "request".into(),
            Check::Denied => "denied".into(),
            Check::Reconnect(zone) => format!("reconnect/{zone}"),
            Check::Bootstrap(proxy) => format!("answer/{proxy}"),
            Check::BootstrapRuns => "request".into(),
        }
    }

    /// Whether the check only looks, so that it can be done again until it holds.
    fn repeats(&self) -> bool {
        !matches!(self, Check::Denied | Check::Reconnect(_) | Check::BootstrapRuns)
    }
}

impl Site {
    async fn check(&mut self, check: &Check, bindings: &mut Bindings) -> Result<Vec<Difference>> {
        match check {
            Check::Config(proxy) => self.answer(proxy, "_config", bindings).await,
            Check::Dataplane(proxy) => self.answer(proxy, "dataplane", bindings).await,
            Check::Overview(proxy) => self.answer(proxy, "overview", bindings).await,
            Check::Dump(proxy) | Check::BootstrapDump(proxy) => self.dump(proxy, bindings).await,
            Check::List(control_plane, file, path) => self.list(control_plane, file, path, bindings).await,
            Check::ZonesOnline => self.zones_online(bindings).await,
            Check::Request => self.request().await,
            Check::Denied => self.denied().await,
            Check::Reconnect(zone) => self.reconnect(zone).await,
            Check::Bootstrap(proxy) => self.bootstrap_answer(proxy, bindings).await,
            Check::BootstrapRuns => self.bootstrap_runs().await,
        }
    }

    /// A recorded answer of the proxy's zone.
    async fn answer(&mut self, proxy: &str, file: &str, bindings: &mut Bindings) -> Result<Vec<Difference>> {
        let recorded = self.recording.json(&format!("proxies/{proxy}/zone/{file}.json"))?;
        let path = text(&recorded, "/request")?;
        let path = path.strip_prefix("GET ").context("/request")?;
        let zone = self.proxy(proxy)?.recorded.zone.clone();
        let mut ours = self.get(&zone, path).await?;
        self.as_recorded(proxy, &mut ours)?;
        loosen(&mut ours);
        let mut recorded = recorded.get("body").cloned().context("/body")?;
        loosen(&mut recorded);
        Ok(compare(&recorded, &ours, bindings))
    }

    async fn dump(&mut self, proxy: &str, bindings: &mut Bindings) -> Result<Vec<Difference>> {
        let recorded = self.recording.json(&format!("proxies/{proxy}/envoy-config_dump.json"))?;
        let mut ours = envoy::dump(&self.proxy(proxy)?.admin_socket()).await?;
        self.as_recorded(proxy, &mut ours)?;
        Ok(compare(&envoy::normalised(&recorded), &ours, bindings))
    }

    async fn list(
        &mut self,
        control_plane: &str,
        file: &str,
        path: &str,
        bindings: &mut Bindings,
    ) -> Result<Vec<Difference>> {
        let recorded = self.recording.json(&format!("cp/{control_plane}/{file}.json"))?;
        let mut recorded = recorded.get("body").cloned().context("/body")?;
        loosen(&mut recorded);
        mark_addresses(control_plane, &mut recorded, |zone, ip| format!("<vip {zone} {ip}>"));
        let mut ours = self.get(control_plane, path).await?;
        mark_addresses(control_plane, &mut ours, |zone, ip| format!("{zone} {ip}"));
        let names: Vec<String> = self.proxies.keys().cloned().collect();
        for name in names {
            self.as_recorded(&name, &mut ours)?;
        }
        loosen(&mut ours);
        Ok(compare(&recorded, &ours, bindings))
    }

    /// Zones as global lists them: name, enabled, and online. Counters per kind depend on how often something was sent.
    async fn zones_online(&mut self, bindings: &mut Bindings) -> Result<Vec<Difference>> {
        let recorded = self.recording.json("cp/global/zones__overview.json")?;
        let ours = self.get("global", "/zones/_overview").await?;
        let reduced = |document: &Value| -> Value {
            let items = document.get("items").and_then(Value::as_array).into_iter().flatten();
            let zones = items.map(|zone| {
                let subscriptions = zone.pointer("/zoneInsight/subscriptions").and_then(Value::as_array);
                let online = subscriptions
                    .into_iter()
                    .flatten()
                    .any(|s| s.get("connectTime").is_some() && s.get("disconnectTime").is_none());
                json!({
                    "type": zone["type"], "name": zone["name"], "kri": zone["kri"], "zone": zone["zone"],
                    "online": online,
                })
            });
            Value::Array(zones.collect())
        };
        Ok(compare(&reduced(&recorded["body"]), &reduced(&ours), bindings))
    }

    async fn request(&mut self) -> Result<Vec<Difference>> {
        let recorded = self.recording.json("request.json")?;
        let body = self.wait_for_status(200, REQUEST_LIMIT).await?;
        let seen: Value = serde_json::from_str(&body).context("the application's answer")?;
        // The user agent is the client's own.
        let reduced = |document: &Value| {
            let mut headers = document["headers"].clone();
            if let Some(headers) = headers.as_object_mut() {
                headers.remove("user-agent");
            }
            json!({"path": document["path"], "headers": headers})
        };
        // The numbers of placeholders in this file are its own.
        let bindings = &mut Bindings::default();
        Ok(compare(&reduced(&recorded["after"]["seenByTheApplication"]), &reduced(&seen), bindings))
    }

    async fn denied(&mut self) -> Result<Vec<Difference>> {
        let recorded = self.recording.json("request.json")?;
        let policy = recorded["denied"]["policyAtGlobal"].clone();
        let body = text(&recorded, "/denied/body")?;
        self.federation.apply("global", &policy).await?;
        let ours = self.wait_for_status(403, REQUEST_LIMIT).await?;
        ensure!(ours == body, "the body is {ours:?} instead of {body:?}");
        self.federation.delete("global", &policy).await?;
        self.wait_for_status(200, REQUEST_LIMIT).await?;
        Ok(Vec::new())
    }

    /// Connections that break for a second: no Envoy gets anything, in this zone and in the other one.
    async fn reconnect(&mut self, zone: &str) -> Result<Vec<Difference>> {
        let names: Vec<String> = self.proxies.keys().cloned().collect();
        let before = self.taken_over(&names).await?;
        let mut cut_off = Vec::new();
        for name in &names {
            if self.proxy(name)?.recorded.zone == zone {
                let subscription = self.open_subscription(zone, name).await?;
                cut_off.push((name.clone(), text(&subscription, "/id")?));
            }
        }
        self.link(zone)?.cut();
        tokio::time::sleep(OUTAGE).await;
        self.link(zone)?.mend();
        let mut wanted = before.clone();
        for (name, subscription) in &cut_off {
            self.resumed(zone, name, subscription).await?;
            for counter in ["cluster_manager.cds.update_success", "listener_manager.lds.update_success"] {
                // The empty answers.
                let count = &mut wanted[name]["counters"][counter];
                *count = (count.as_u64().unwrap_or_default() + 1).into();
            }
        }
        self.wait_for_status(200, REQUEST_LIMIT).await?;
        let after = self.taken_over(&names).await?;
        Ok(compare(&wanted, &after, &mut Bindings::default()))
    }

    /// Waits until the zone has a new stream with a proxy, on which nothing but the two answers that Envoy waits
    /// for was sent: that there are no other clusters, and no other listeners.
    async fn resumed(&mut self, zone: &str, name: &str, before: &str) -> Result<()> {
        let wanted = json!({
            "total": {"responsesSent": "2", "responsesAcknowledged": "2"},
            "cds": {"responsesSent": "1", "responsesAcknowledged": "1"},
            "eds": {}, "lds": {"responsesSent": "1", "responsesAcknowledged": "1"}, "rds": {},
        });
        let start = wait::now();
        loop {
            let subscription = self.open_subscription(zone, name).await.ok();
            let status = subscription.filter(|now| now["id"] != before).map(|now| {
                let mut status = now["status"].clone();
                if let Some(members) = status.as_object_mut() {
                    members.remove("lastUpdateTime");
                }
                status
            });
            if status.as_ref() == Some(&wanted) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < REQUEST_LIMIT,
                "{name}: its new stream is {status:?} instead of {wanted}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The configuration of each Envoy, and how often it took something over, once old listeners are gone.
    async fn taken_over(&self, names: &[String]) -> Result<Value> {
        let mut all = serde_json::Map::new();
        for name in names {
            let socket = self.proxy(name)?.admin_socket();
            let what = format!("{name} has no draining listeners");
            let settled = wait::until(&what, REQUEST_LIMIT, || async {
                let dump = envoy::dump(&socket).await.map_err(|error| format!("{error:#}"))?;
                if dump.to_string().contains("\"draining_state\"") { Err(dump.to_string()) } else { Ok(dump) }
            });
            let (mut dump, _) = settled.await?;
            if let Some(sections) = dump.as_object_mut() {
                // Listeners hold their routes; here are also those of listeners that are being taken down.
                sections.remove("RoutesConfigDump");
            }
            all.insert(name.clone(), json!({"dump": dump, "counters": envoy::counters(&socket).await?}));
        }
        Ok(Value::Object(all))
    }

    /// The stream that the zone has with a proxy.
    async fn open_subscription(&mut self, zone: &str, name: &str) -> Result<Value> {
        let overview = self.get(zone, &format!("/meshes/default/dataplanes/{name}/_overview")).await?;
        let all = overview.pointer("/dataplaneInsight/subscriptions").and_then(Value::as_array);
        let open = all.into_iter().flatten().find(|s| s.get("disconnectTime").is_none());
        match open {
            Some(subscription) => Ok(subscription.clone()),
            None => bail!("{name} is not connected"),
        }
    }

    async fn bootstrap_answer(&mut self, proxy: &str, bindings: &mut Bindings) -> Result<Vec<Difference>> {
        let mut body =
            self.recording.json(&format!("proxies/{proxy}/bootstrap-request.json"))?["body"].clone();
        body["dataplaneToken"] = self.proxy(proxy)?.token.clone().into();
        let recorded = self.recording.json(&format!("proxies/{proxy}/bootstrap-response.json"))?;
        let (mut answer, bootstrap) = self.bootstrap(proxy, &body).await?;
        answer["bootstrap"] = recorded["body"]["bootstrap"].clone();
        let mut found = compare(&recorded["body"], &answer, bindings);
        let mut ours = graticule_model::yaml::parse_one(&bootstrap)?;
        self.as_recorded(proxy, &mut ours)?;
        let mut recorded = self.recording.bootstrap(proxy)?;
        order_of_features(&mut recorded);
        order_of_features(&mut ours);
        found.extend(compare(&recorded, &ours, bindings));
        Ok(found)
    }

    /// Every Envoy runs with the answer to the recorded request (but for token and work directory), and the request
    /// through the mesh is answered.
    async fn bootstrap_runs(&mut self) -> Result<Vec<Difference>> {
        let names: Vec<String> = self.proxies.keys().cloned().collect();
        let mut running = Vec::new();
        for name in &names {
            let mut body =
                self.recording.json(&format!("proxies/{name}/bootstrap-request.json"))?["body"].clone();
            let proxy = self.proxy(name)?;
            body["dataplaneToken"] = proxy.token.clone().into();
            body["workdir"] = proxy.workdir.to_string_lossy().into();
            std::fs::create_dir_all(&proxy.workdir)?;
            let (_, bootstrap) = self.bootstrap(name, &body).await?;
            running.push(self.run_envoy(name, &bootstrap)?);
        }
        for (name, process) in names.iter().zip(&mut running) {
            let socket = self.proxy(name)?.admin_socket();
            let ready = wait::until(&format!("the Envoy of {name} is LIVE"), REQUEST_LIMIT, || async {
                let body = envoy::admin(&socket, "/ready").await.map_err(|error| format!("{error:#}"))?;
                if body.trim() == "LIVE" { Ok(()) } else { Err(body) }
            })
            .await;
            process.check_running()?;
            ready?;
        }
        self.wait_for_status(200, REQUEST_LIMIT).await?;
        self.envoys = running;
        Ok(Vec::new())
    }
}

/// What means the same becomes the same, in both documents: counters (how often something was sent depends on the
/// moment), the order of features, and the Dataplane that a proxy sent, which is JSON in a string.
pub(crate) fn loosen(document: &mut Value) {
    match document {
        Value::Object(members) => {
            for (key, value) in members.iter_mut() {
                match (key.as_str(), &value) {
                    ("responsesSent" | "responsesAcknowledged", Value::String(number)) => {
                        if number.parse::<u64>().is_ok() {
                            *value = "<count>".into();
                        }
                    }
                    ("dataplane.resource", Value::String(text)) => {
                        if let Ok(resource) = serde_json::from_str(text) {
                            *value = resource;
                        }
                    }
                    _ => loosen(value),
                }
            }
            features_as_set(members);
        }
        Value::Array(items) => items.iter_mut().for_each(loosen),
        _ => {}
    }
}

/// Which virtual IP a service gets depends on the order in which its zone heard of the services; so addresses are
/// compared by the zone that gave them, and by being the same wherever they are shown.
fn mark_addresses(control_plane: &str, list: &mut Value, mark: fn(&str, &str) -> String) {
    for item in list.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        let owner = item.pointer("/labels/kuma.io~1zone").and_then(Value::as_str).unwrap_or_default();
        let giver = if control_plane == "global" { owner.to_owned() } else { control_plane.to_owned() };
        for vip in item.pointer_mut("/status/vips").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(ip) = vip.get_mut("ip") {
                *ip = mark(&giver, ip.as_str().unwrap_or_default()).into();
            }
        }
    }
}

/// The order of features means nothing.
fn order_of_features(bootstrap: &mut Value) {
    if let Some(metadata) = bootstrap.pointer_mut("/node/metadata").and_then(Value::as_object_mut) {
        features_as_set(metadata);
    }
}

fn features_as_set(members: &mut serde_json::Map<String, Value>) {
    if let Some(features) = members.get_mut("features")
        && let Some(list) = features.as_array()
    {
        let set = list.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), Value::Bool(true)));
        *features = Value::Object(set.collect());
    }
}
