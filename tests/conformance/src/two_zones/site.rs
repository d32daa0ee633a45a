//! The recorded scenario with our programs: same inputs, same addresses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use graticule_testkit::federation::START_LIMIT;
use graticule_testkit::http::{Client, expect};
use graticule_testkit::{Binaries, Federation, Process, wait};
use serde_json::{Value, json};

use super::link::Link;
use super::recording::{RecordedProxy, Recording};

/// How long a stopped process may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Everything that runs, and the recording beside it.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) recording: Recording,
    pub(super) federation: Federation,
    pub(super) proxies: BTreeMap<String, Proxy>,
    /// Envoys that run without an agent.
    pub(super) envoys: Vec<Process>,
    /// Between the proxies of a zone and their control plane.
    pub(super) links: BTreeMap<String, Link>,
    dir: PathBuf,
}

/// A proxy of the recording, run by us.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) recorded: RecordedProxy,
    pub(super) workdir: PathBuf,
    pub(super) token: String,
    _app: Option<Process>,
    agent: Option<Process>,
}

impl Proxy {
    /// Admin socket of its Envoy.
    pub(super) fn admin_socket(&self) -> PathBuf {
        self.workdir.join("kuma-envoy-admin.sock")
    }
}

impl Site {
    /// Global and both zones, with the recorded inputs applied.
    pub(super) async fn start(
        recording: Recording,
        binaries: Binaries,
        dir: &Path,
        zone_environment: BTreeMap<String, String>,
    ) -> Result<Site> {
        let mut federation = Federation::start(binaries, dir).await?;
        let mut links = BTreeMap::new();
        for zone in ["east", "west"] {
            let link = Link::open().await?;
            federation.zone_environment = zone_environment.clone();
            // Envoys go through the link as well.
            let port = ("GRATICULE_BOOTSTRAP_SERVER_PARAMS_XDS_PORT".to_owned(), link.port.to_string());
            federation.zone_environment.extend([port]);
            federation.start_zone(zone).await?;
            link.lead_to(federation.control_plane(zone)?.port);
            links.insert(zone.to_owned(), link);
        }
        for zone in ["east", "west"] {
            federation.wait_zone_joined(zone).await?;
        }
        for (target, file) in [("global", "global.yaml"), ("west", "west.yaml")] {
            for document in recording.inputs(file)? {
                federation.apply(target, &document).await?;
            }
        }
        let dir = dir.to_owned();
        Ok(Site { recording, federation, proxies: BTreeMap::new(), envoys: Vec::new(), links, dir })
    }

    /// Starts the applications and agents of all recorded proxies.
    pub(super) async fn start_proxies(&mut self) -> Result<()> {
        for recorded in self.recording.proxies()? {
            self.start_proxy(recorded).await?;
        }
        Ok(())
    }

    async fn start_proxy(&mut self, recorded: RecordedProxy) -> Result<()> {
        let name = recorded.name.clone();
        let token = self.token(&recorded).await?;
        let token_file = self.dir.join(format!("{name}.token"));
        std::fs::write(&token_file, &token)?;
        let workdir = self.dir.join(&name);
        let app = self.start_app(&recorded)?;
        let certificate = self.federation.control_plane(&recorded.zone)?.certificate();
        let port = self.link(&recorded.zone)?.port;
        let mut command = Command::new(self.federation.binaries.program("dp-agent")?);
        command
            .arg("run")
            .arg(format!("--cp-address=https://127.0.0.1:{port}"))
            .arg(format!("--ca-cert-file={}", certificate.display()))
            .arg(format!("--dataplane-file={}", recorded.dataplane_file.display()))
            .arg(format!("--dataplane-token-file={}", token_file.display()))
            .arg(format!("--binary-path={}", self.federation.binaries.envoy.display()))
            .arg(format!("--work-dir={}", workdir.display()))
            .args(["--drain-time=1s", "--dns-enabled=false", "--concurrency=1", "--envoy-log-level=warning"])
            .env("GRATICULE_READINESS_PORT", recorded.readiness_port.to_string());
        let agent = Some(Process::spawn(&name, &self.dir, &mut command)?);
        self.proxies.insert(name, Proxy { recorded, workdir, token, _app: app, agent });
        Ok(())
    }

    fn start_app(&self, recorded: &RecordedProxy) -> Result<Option<Process>> {
        let Some((address, port)) = &recorded.app else { return Ok(None) };
        let mut command = Command::new(self.federation.binaries.program("demo-app")?);
        command.args(["--address", address, "--port", &port.to_string()]);
        command.args(["--name", &recorded.name, "--zone", &recorded.zone]);
        Process::spawn(&format!("{}-app", recorded.name), &self.dir, &mut command).map(Some)
    }

    async fn token(&mut self, recorded: &RecordedProxy) -> Result<String> {
        let body = json!({
            "mesh": "default", "name": recorded.name, "workload": recorded.workload, "validFor": "720h"
        });
        let url = format!("{}/tokens/dataplane", self.federation.control_plane(&recorded.zone)?.api);
        Ok(expect(self.federation.rest.post(&url, &body).await?, &[200], "dataplane token")?.body)
    }

    /// A proxy by name.
    pub(super) fn proxy(&self, name: &str) -> Result<&Proxy> {
        self.proxies.get(name).with_context(|| format!("no proxy {name}"))
    }

    /// Between the proxies of a zone and their control plane.
    pub(super) fn link(&self, zone: &str) -> Result<&Link> {
        self.links.get(zone).with_context(|| format!("no zone {zone}"))
    }

    /// GET from the REST API of a control plane.
    pub(super) async fn get(&mut self, control_plane: &str, path: &str) -> Result<Value> {
        let control_plane = self.federation.control_plane(control_plane)?;
        control_plane.process.check_running()?;
        let url = format!("{}{path}", control_plane.api);
        expect(self.federation.rest.get(&url).await?, &[200], path)?.json()
    }

    /// The client's outbound.
    pub(super) fn outbound(&self) -> Result<String> {
        let request = self.recording.json("request.json")?;
        let text = super::recording::text(&request, "/after/request")?;
        text.strip_prefix("GET ").map(ToOwned::to_owned).context("/after/request")
    }

    /// Waits until a request through the mesh gets this status; gives the body. Every try is a new connection.
    pub(super) async fn wait_for_status(&mut self, wanted: u16, limit: Duration) -> Result<String> {
        let url = self.outbound()?;
        for proxy in self.proxies.values_mut() {
            if let Some(agent) = &mut proxy.agent {
                agent.check_running()?;
            }
        }
        let (body, _) = wait::until(&format!("GET {url} is answered with {wanted}"), limit, || async {
            let client = Client::new().map_err(|error| error.to_string())?;
            let answer = client.get(&url).await.map_err(|error| format!("{error:#}"))?;
            if answer.status == wanted {
                return Ok(answer.body);
            }
            Err(format!("{}: {}", answer.status, answer.body.trim()))
        })
        .await?;
        Ok(body)
    }

    /// The MeshTrusts that the recording has at global, with the authorities of our zones.
    pub(super) async fn apply_trust_by_hand(&mut self) -> Result<()> {
        let stored = self.get("global", "/meshes/default/meshtrusts").await?;
        let trusts = stored.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        for mut document in self.recording.inputs("global-trust.yaml")? {
            let domain = document.pointer("/spec/trustDomain").cloned();
            let bundles = trusts
                .iter()
                .find(|trust| trust.pointer("/spec/trustDomain") == domain.as_ref())
                .and_then(|trust| trust.pointer("/spec/caBundles"))
                .with_context(|| format!("global has no MeshTrust of {domain:?}"))?;
            if let Some(place) = document.pointer_mut("/spec/caBundles") {
                *place = bundles.clone();
            }
            self.federation.apply("global", &document).await?;
        }
        Ok(())
    }

    /// Ends the agents, and their Envoys with them; the applications stay.
    pub(super) async fn stop_agents(&mut self) -> Result<()> {
        let mut agents: Vec<Process> =
            self.proxies.values_mut().filter_map(|proxy| proxy.agent.take()).collect();
        for agent in &mut agents {
            agent.signal(graticule_testkit::process::TERM)?;
        }
        for agent in &mut agents {
            agent.wait_exit(STOP_LIMIT).await?;
        }
        Ok(())
    }

    /// `POST /bootstrap` over HTTP/1.1 as kuma-dp does it; gives the whole answer and the decoded bootstrap.
    pub(super) async fn bootstrap(&mut self, proxy: &str, body: &Value) -> Result<(Value, String)> {
        // The generated certificate is its own authority, which this client would not accept. That the answer leads
        // to a server that can be trusted is what Envoy checks.
        let client = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .timeout(START_LIMIT)
            .tls_danger_accept_invalid_certs(true)
            .build()?;
        let url =
            format!("https://127.0.0.1:{}/bootstrap", self.link(&self.proxy(proxy)?.recorded.zone)?.port);
        let response = client.post(url).header("accept", "application/json").json(body).send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        ensure!(status == 200, "POST /bootstrap: {status}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        let encoded = super::recording::text(&answer, "/bootstrap")?;
        let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded)?;
        Ok((answer, String::from_utf8(decoded)?))
    }

    /// Runs Envoy with a bootstrap as kuma-dp does: the YAML is read, and written out again as JSON.
    pub(super) fn run_envoy(&self, name: &str, bootstrap: &str) -> Result<Process> {
        let document = graticule_model::yaml::parse_one(bootstrap)?;
        let file = self.dir.join(format!("{name}-bootstrap.json"));
        std::fs::write(&file, serde_json::to_vec_pretty(&document)?)?;
        let mut command = Command::new(&self.federation.binaries.envoy);
        command.arg("--config-path").arg(&file).args([
            "--drain-time-s",
            "1",
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
        ]);
        Process::spawn(&format!("{name}-envoy"), &self.dir, &mut command)
    }

    /// Our document as it would have been recorded: work directory and port of the data plane server.
    pub(super) fn as_recorded(&self, proxy: &str, document: &mut Value) -> Result<()> {
        let proxy = self.proxy(proxy)?;
        let port = self.link(&proxy.recorded.zone)?.port;
        let ours = proxy.workdir.to_string_lossy().into_owned();
        rewrite(document, &mut |value| match value {
            Value::String(text) if text.contains(&ours) => {
                *text = text.replace(&ours, &proxy.recorded.workdir)
            }
            Value::Number(number) if number.as_u64() == Some(port.into()) => {
                *value = proxy.recorded.server_port.into();
            }
            _ => {}
        });
        Ok(())
    }
}

/// Calls `change` with every scalar.
pub(super) fn rewrite(value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|value| rewrite(value, change)),
        Value::Array(items) => items.iter_mut().for_each(|value| rewrite(value, change)),
        scalar => change(scalar),
    }
}
