//! Fresh control planes for a group of transcripts, with the settings that it names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use graticule_identity::tokens::{SigningKey, UserClaims, issue};
use graticule_model::GoDuration;
use graticule_testkit::federation::START_LIMIT;
use graticule_testkit::net::{Subnet, free_port};
use graticule_testkit::{Binaries, Process, wait};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Request, send};
use super::transcript::{Group, Layout};

/// How long a stopped process may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Name of the zone in all recordings.
const ZONE: &str = "zone-1";
/// Key id of the static key that admits the admin of `17-authn-*`.
const STATIC_KEY: &str = "static";

/// A control plane process.
#[derive(Debug)]
pub(super) struct ControlPlane {
    process: Process,
    /// Port of the API over HTTP.
    pub(super) api: u16,
    /// Port of the diagnostics.
    pub(super) diagnostics: u16,
    /// Port that zones (global) or proxies (zone) connect to.
    peers: u16,
    workdir: PathBuf,
}

/// What runs.
#[derive(Debug)]
pub(super) struct Site {
    /// The control plane that steps go to which say nothing else.
    pub(super) main: ControlPlane,
    /// The federated zone.
    pub(super) zone: Option<ControlPlane>,
    /// What is elsewhere than it was recorded, because several runs share one machine: ours and recorded.
    pub(super) moved: Vec<(String, &'static str)>,
    /// A token of the admin, signed with a key from the settings.
    pub(super) admin_token: String,
    _agent: Option<Process>,
}

struct Start<'a> {
    binaries: &'a Binaries,
    dir: &'a Path,
    group: &'a Group,
}

impl Site {
    /// Starts what the group needs and waits until it is there.
    pub(super) async fn start(binaries: &Binaries, dir: &Path, group: &Group) -> Result<Site> {
        std::fs::create_dir_all(dir)?;
        let start = Start { binaries, dir, group };
        let (admin_token, key_file) = start.admin()?;
        let is_zone = group.layout == Layout::Zone;
        let main = start.control_plane(if is_zone { ZONE } else { "global" }, Some(&key_file), None).await?;
        let mut site = Site { main, zone: None, moved: Vec::new(), admin_token, _agent: None };
        if matches!(group.layout, Layout::Federation | Layout::Connected) {
            site.zone = Some(start.control_plane(ZONE, None, Some(&mut site.main)).await?);
            site.wait_joined().await?;
        }
        if group.layout == Layout::Connected {
            start.proxy(&mut site).await?;
        }
        Ok(site)
    }

    /// Ends the zone control plane, as an operator would.
    pub(super) async fn stop_zone(&mut self) -> Result<()> {
        let mut zone = self.zone.take().context("no zone runs")?;
        let status = zone.process.terminate(STOP_LIMIT).await?;
        ensure!(status.success(), "the zone ended with {status}");
        Ok(())
    }

    /// Fails when a control plane has ended.
    pub(super) fn check_running(&mut self) -> Result<()> {
        self.main.process.check_running()?;
        self.zone.as_mut().map_or(Ok(()), |zone| zone.process.check_running())
    }

    /// Until the zone has what global gave it and global sees it online.
    async fn wait_joined(&mut self) -> Result<()> {
        let zone = self.zone.as_mut().context("no zone")?;
        let (global, zone) = (&mut self.main, zone);
        wait_for(zone, "/meshtimeouts", |document| document.get("total") == Some(&json!(2))).await?;
        wait_for(zone, "/meshes/default/secrets", |document| document.get("total") == Some(&json!(1)))
            .await?;
        wait_for(global, &format!("/zones/{ZONE}/_overview"), |document| {
            let subscriptions = document.pointer("/zoneInsight/subscriptions").and_then(Value::as_array);
            subscriptions.into_iter().flatten().any(|s| s.get("disconnectTime").is_none())
        })
        .await
    }
}

/// GET until the answer is wanted.
async fn wait_for(
    control_plane: &mut ControlPlane,
    path: &str,
    is_wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    let api = control_plane.api;
    let request = Request::get(api, path);
    let what = format!("GET {path} on port {api}");
    let (outcome, _) = wait::until(&what, START_LIMIT, || {
        let ended = control_plane.process.check_running().err();
        let (request, is_wanted) = (&request, &is_wanted);
        async move {
            if let Some(error) = ended {
                return Ok(Err(error));
            }
            let answer = send(api, request).await.map_err(|error| format!("{error:#}"))?;
            match serde_json::from_str(&answer.body) {
                Ok(document) if answer.status == 200 && is_wanted(&document) => Ok(Ok(())),
                _ => Err(format!("{}: {}", answer.status, answer.body.trim())),
            }
        }
    })
    .await?;
    outcome
}

impl Start<'_> {
    /// A token of the admin and the file with the public key that it is checked with.
    fn admin(&self) -> Result<(String, PathBuf)> {
        let key = SigningKey::generate()?;
        let file = self.dir.join("static-key.pem");
        std::fs::write(&file, key.public().to_pem())?;
        let group = "mesh-system:admin".to_owned();
        let claims = UserClaims { name: group.clone(), groups: Some(vec![group]) };
        #[expect(clippy::disallowed_methods, reason = "the token is for a process that reads the real clock")]
        let now = Timestamp::try_from(std::time::SystemTime::now())?;
        Ok((issue(&claims, &key, STATIC_KEY, now, GoDuration::from_secs(3600), "static")?, file))
    }

    async fn control_plane(
        &self,
        name: &str,
        admin_key: Option<&Path>,
        global: Option<&mut ControlPlane>,
    ) -> Result<ControlPlane> {
        let is_zone = name == ZONE;
        let workdir = self.dir.join(name);
        std::fs::create_dir_all(&workdir)?;
        // Some listen on all addresses.
        let port = || free_port("0.0.0.0");
        let (api, diagnostics, peers) = (port()?, port()?, port()?);
        let mut command =
            Command::new(self.binaries.program(if is_zone { "zone-cp" } else { "global-cp" })?);
        let mut set = |key: &str, value: &str| {
            command.env(format!("GRATICULE_{key}"), value);
        };
        set("STORE_TYPE", "memory");
        set("GENERAL_WORK_DIR", &workdir.to_string_lossy());
        set("API_SERVER_HTTP_INTERFACE", "127.0.0.1");
        set("API_SERVER_HTTP_PORT", &api.to_string());
        set("API_SERVER_HTTPS_PORT", &port()?.to_string());
        set("DIAGNOSTICS_SERVER_PORT", &diagnostics.to_string());
        if is_zone {
            set("MULTIZONE_ZONE_NAME", ZONE);
            set("DP_SERVER_PORT", &peers.to_string());
        } else {
            set("MULTIZONE_GLOBAL_KDS_GRPC_PORT", &peers.to_string());
        }
        if let Some(global) = &global {
            let token_file = workdir.join("zone.token");
            std::fs::write(&token_file, zone_token(global).await?)?;
            set("MULTIZONE_ZONE_GLOBAL_ADDRESS", &format!("grpcs://127.0.0.1:{}", global.peers));
            set("MULTIZONE_ZONE_KDS_ROOT_CA_FILE", &global.workdir.join("kuma-cp.crt").to_string_lossy());
            set("MULTIZONE_ZONE_KDS_TOKEN_FILE", &token_file.to_string_lossy());
        }
        for (key, value) in self.group.settings.iter().filter(|(key, _)| self.concerns(key, is_zone)) {
            set(key, value);
        }
        command.arg("run").arg("--config-file").arg(self.config_file(name, admin_key)?);
        let process = Process::spawn(name, self.dir, &mut command)?;
        let mut control_plane = ControlPlane { process, api, diagnostics, peers, workdir };
        if global.is_none() {
            self.wait_ready(&mut control_plane).await?;
        }
        Ok(control_plane)
    }

    /// A setting of zones means nothing to global.
    fn concerns(&self, key: &str, is_zone: bool) -> bool {
        !key.starts_with("MULTIZONE_ZONE_") || is_zone
    }

    /// What no variable can say: the key that the admin's token is checked with.
    fn config_file(&self, name: &str, admin_key: Option<&Path>) -> Result<PathBuf> {
        let is_wanted = self.group.transcripts.iter().any(|transcript| !transcript.tokens.is_null());
        let config = match admin_key.filter(|_| is_wanted) {
            Some(file) => json!({"apiServer": {"authn": {"tokens": {"validator": {
                "publicKeys": [{"kid": STATIC_KEY, "keyFile": file}]
            }}}}}),
            None => json!({}),
        };
        let path = self.dir.join(format!("{name}.yaml"));
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Until it has what every fresh control plane has.
    async fn wait_ready(&self, control_plane: &mut ControlPlane) -> Result<()> {
        let base = self.group.settings.iter().find(|(key, _)| *key == "API_SERVER_BASE_PATH");
        let base = base.map_or("", |(_, base)| base);
        let has_items = |document: &Value| document.get("total").and_then(Value::as_u64) > Some(0);
        for list in ["/meshretries", "/hostnamegenerators"] {
            wait_for(control_plane, &format!("{base}{list}"), has_items).await?;
        }
        Ok(())
    }

    /// The agent and Envoy of `23-inspect-connected`, on a loopback address of their own.
    async fn proxy(&self, site: &mut Site) -> Result<()> {
        let address = Subnet::pick().host(1).to_string();
        let readiness_port = free_port("127.0.0.1")?.to_string();
        let dataplane = json!({
            "type": "Dataplane", "mesh": "default", "name": "web-1",
            "labels": {"app": "web", "kuma.io/workload": "web"},
            "networking": {
                "address": address,
                "inbound": [{
                    "port": 6793, "servicePort": 6794, "serviceAddress": "127.0.0.1",
                    "name": "main", "protocol": "http"
                }],
                "admin": {"port": 6791}
            }
        });
        let zone = site.zone.as_mut().context("no zone")?;
        let file = self.dir.join("web-1.yaml");
        std::fs::write(&file, dataplane.to_string())?;
        let token_file = self.dir.join("web-1.token");
        let body = json!({"mesh": "default", "name": "web-1", "workload": "web", "validFor": "1h"});
        std::fs::write(&token_file, issued(zone.api, "/tokens/dataplane", &body).await?)?;
        let mut command = Command::new(self.binaries.program("dp-agent")?);
        command
            .arg("run")
            .arg(format!("--cp-address=https://127.0.0.1:{}", zone.peers))
            .arg(format!("--ca-cert-file={}", zone.workdir.join("kuma-cp.crt").display()))
            .arg(format!("--dataplane-file={}", file.display()))
            .arg(format!("--dataplane-token-file={}", token_file.display()))
            .arg(format!("--binary-path={}", self.binaries.envoy.display()))
            .arg(format!("--work-dir={}", self.dir.join("web-1").display()))
            .args(["--drain-time=1s", "--dns-enabled=false", "--concurrency=1", "--envoy-log-level=warning"])
            .env("GRATICULE_READINESS_PORT", &readiness_port);
        site._agent = Some(Process::spawn("web-1", self.dir, &mut command)?);
        site.moved = vec![(address, "192.0.2.2"), (readiness_port, "6792")];
        wait_for(zone, "/meshes/default/dataplane-insights/web-1", |insight| {
            insight.pointer("/subscriptions/0/status/lds/responsesAcknowledged").is_some()
        })
        .await
    }
}

async fn zone_token(global: &ControlPlane) -> Result<String> {
    issued(global.api, "/tokens/zone", &json!({"zone": ZONE, "scope": [], "validFor": "24h"})).await
}

async fn issued(api: u16, path: &str, body: &Value) -> Result<String> {
    let answer = send(api, &Request::with_body(api, "POST", path, body.to_string())).await?;
    if answer.status != 200 {
        bail!("POST {path}: {}: {}", answer.status, answer.body);
    }
    Ok(answer.body)
}
