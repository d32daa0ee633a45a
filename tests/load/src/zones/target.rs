//! The global control plane that is measured.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use graticule_testkit::net::free_port;
use graticule_testkit::{Process, process};

use super::Global;
use crate::api;

/// A global that answers.
pub(super) struct Target {
    /// REST API.
    pub(super) api: SocketAddr,
    /// Port for zones.
    pub(super) kds: SocketAddr,
    pid: Option<u32>,
    /// Ends with this value.
    _process: Option<Process>,
}

impl Target {
    /// Starts the program, if it is one, and waits for its API.
    pub(super) async fn reach(global: &Global, dir: &Path) -> Result<Target> {
        match global {
            Global::Program(program) => start(program, dir).await,
            Global::Running { api, kds, pid } => {
                api::answers(*api).await?;
                Ok(Target { api: *api, kds: *kds, pid: *pid, _process: None })
            }
        }
    }

    /// Resident memory in KiB.
    pub(super) fn resident_kib(&self) -> Option<u64> {
        process::resident_kib(self.pid?)
    }

    /// CPU time so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        process::cpu_seconds(self.pid?)
    }
}

async fn start(program: &Path, dir: &Path) -> Result<Target> {
    let (port, kds) = (free_port("127.0.0.1")?, free_port("0.0.0.0")?);
    let mut command = Command::new(program);
    command
        .args(["run", "--log-level", "warn"])
        .arg("--data-dir")
        .arg(dir.join("data"))
        .env("GRATICULE_GENERAL_WORK_DIR", dir)
        .env("GRATICULE_API_SERVER_HTTP_INTERFACE", "127.0.0.1")
        .env("GRATICULE_API_SERVER_HTTP_PORT", port.to_string())
        .env("GRATICULE_API_SERVER_HTTPS_ENABLED", "false")
        .env("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", kds.to_string())
        .env("GRATICULE_MULTIZONE_GLOBAL_KDS_TLS_ENABLED", "false")
        .env("GRATICULE_COMPAT_ALLOW_ZONES_WITHOUT_TOKEN", "true")
        .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", free_port("0.0.0.0")?.to_string());
    let mut process = Process::spawn("global-cp", dir, &mut command)?;
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    if let Err(error) = api::answers(local(port)).await {
        process.check_running()?;
        return Err(error);
    }
    Ok(Target { api: local(port), kds: local(kds), pid: Some(process.pid()), _process: Some(process) })
}
