//! The one control plane of a replay that is ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use graticule_testkit::federation::START_LIMIT;
use graticule_testkit::net::free_port;
use graticule_testkit::{Binaries, Process, wait};
use serde_json::{Value, json};

use super::recording::Rest;
use crate::rest_recordings::client::{Answer, Request, send};

/// How long a stopped process may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Our control plane, which can be started again with an empty store.
#[derive(Debug)]
pub(super) struct Site {
    binaries: Binaries,
    dir: PathBuf,
    name: String,
    /// Environment, without the prefix.
    settings: Vec<(String, String)>,
    process: Option<Process>,
    api: u16,
    /// Where proxies connect to.
    proxies: u16,
    /// Where zones connect to.
    pub(super) kds: u16,
}

impl Site {
    /// A global control plane that takes zones as a stock one does: without TLS and tokens; `unsafe_delete`: without
    /// guards on deleting Meshes and Zones.
    pub(super) fn global(binaries: &Binaries, dir: &Path, unsafe_delete: bool) -> Result<Site> {
        let kds = free_port("0.0.0.0")?;
        let settings = [
            ("MULTIZONE_GLOBAL_KDS_GRPC_PORT", kds.to_string()),
            ("MULTIZONE_GLOBAL_KDS_TLS_ENABLED", "false".into()),
            ("COMPAT_ALLOW_ZONES_WITHOUT_TOKEN", "true".into()),
            ("FEDERATION_TRUST_EXCHANGE", "manual".into()),
            ("STORE_UNSAFE_DELETE", unsafe_delete.to_string()),
        ];
        Site::new(binaries, dir, "global", (kds, 0), settings)
    }

    /// A zone control plane that joins the global at `address`.
    pub(super) fn zone(binaries: &Binaries, dir: &Path, name: &str, address: &str) -> Result<Site> {
        let proxies = free_port("0.0.0.0")?;
        let settings = [
            ("MULTIZONE_ZONE_NAME", name.to_owned()),
            ("MULTIZONE_ZONE_GLOBAL_ADDRESS", format!("grpc://{address}")),
            ("DP_SERVER_PORT", proxies.to_string()),
            ("GENERAL_RESILIENT_COMPONENT_MAX_BACKOFF", "200ms".into()),
        ];
        Site::new(binaries, dir, name, (0, proxies), settings)
    }

    fn new<const N: usize>(
        binaries: &Binaries,
        dir: &Path,
        name: &str,
        (kds, proxies): (u16, u16),
        settings: [(&str, String); N],
    ) -> Result<Site> {
        let api = free_port("0.0.0.0")?;
        let work = dir.join(name);
        std::fs::create_dir_all(&work)?;
        let common = [
            ("STORE_TYPE", "memory".to_owned()),
            ("GENERAL_WORK_DIR", work.display().to_string()),
            ("API_SERVER_HTTP_INTERFACE", "127.0.0.1".into()),
            ("API_SERVER_HTTP_PORT", api.to_string()),
            ("API_SERVER_HTTPS_ENABLED", "false".into()),
            ("DIAGNOSTICS_SERVER_PORT", free_port("0.0.0.0")?.to_string()),
        ];
        let settings =
            common.into_iter().chain(settings).map(|(key, value)| (key.to_owned(), value)).collect();
        let (binaries, dir) = (binaries.clone(), dir.to_owned());
        Ok(Site { binaries, dir, name: name.into(), settings, process: None, api, proxies, kds })
    }

    /// Starts it, with nothing in its store, and waits until its API answers.
    pub(super) async fn start(&mut self) -> Result<()> {
        let program = if self.name == "global" { "global-cp" } else { "zone-cp" };
        let mut command = Command::new(self.binaries.program(program)?);
        command.arg("run");
        for (key, value) in &self.settings {
            command.env(format!("GRATICULE_{key}"), value);
        }
        self.process = Some(Process::spawn(&self.name, &self.dir, &mut command)?);
        // Global has its defaults; a zone may have nothing before it joined.
        let path = if self.name == "global" { "/meshretries" } else { "/" };
        let is_up = |answer: &Answer| {
            let document: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            answer.status == 200 && document.get("total").is_none_or(|total| total.as_u64() > Some(0))
        };
        let api = self.api;
        wait::until(&format!("the API of {}", self.name), START_LIMIT, || async move {
            let answer = send(api, &Request::get(api, path)).await.map_err(|error| format!("{error:#}"))?;
            if is_up(&answer) { Ok(()) } else { Err(answer.body) }
        })
        .await?;
        self.check_running()
    }

    /// Ends it as the recording does.
    pub(super) async fn stop(&mut self, what: &str) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if what == "SIGTERM" {
            let status = process.terminate(STOP_LIMIT).await?;
            if !status.success() {
                bail!("{} ended with {status}", self.name);
            }
            return Ok(());
        }
        process.kill()
    }

    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Fails when it has ended by itself.
    pub(super) fn check_running(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check_running)
    }

    /// Reads from the API.
    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        send(self.api, &Request::get(self.api, path)).await
    }

    /// Starts a real proxy of this zone, with a token for its Dataplane.
    pub(super) async fn start_proxy(&self, dataplane: &Value) -> Result<Process> {
        let name = dataplane["name"].as_str().context("a Dataplane without a name")?;
        let workload = &dataplane["labels"]["kuma.io/workload"];
        let wanted = json!({
            "mesh": dataplane["mesh"], "name": name, "workload": workload, "validFor": "24h"
        });
        let request = Request::with_body(self.api, "POST", "/tokens/dataplane", wanted.to_string());
        let token = send(self.api, &request).await?;
        ensure!(token.status == 200, "token of {name}: {}", token.body);
        let (token_file, file) =
            (self.dir.join(format!("{name}.token")), self.dir.join(format!("{name}.json")));
        std::fs::write(&token_file, token.body)?;
        std::fs::write(&file, dataplane.to_string())?;
        let mut command = Command::new(self.binaries.program("dp-agent")?);
        command
            .arg("run")
            .arg(format!("--cp-address=https://127.0.0.1:{}", self.proxies))
            .arg(format!("--ca-cert-file={}", self.dir.join(&self.name).join("kuma-cp.crt").display()))
            .arg(format!("--dataplane-file={}", file.display()))
            .arg(format!("--dataplane-token-file={}", token_file.display()))
            .arg(format!("--binary-path={}", self.binaries.envoy.display()))
            .arg(format!("--work-dir={}", self.dir.join(format!("{name}-work")).display()))
            .args(["--drain-time=1s", "--dns-enabled=false", "--concurrency=1", "--envoy-log-level=warning"])
            .env("GRATICULE_READINESS_PORT", free_port("127.0.0.1")?.to_string());
        Process::spawn(name, &self.dir, &mut command)
    }

    /// Makes a recorded call.
    pub(super) async fn call(&self, rest: &Rest) -> Result<Answer> {
        let request = match &rest.body {
            Some(body) => Request::with_body(self.api, &rest.method, &rest.path, body.to_string()),
            None => Request { method: rest.method.clone(), ..Request::get(self.api, &rest.path) },
        };
        send(self.api, &request).await
    }
}
