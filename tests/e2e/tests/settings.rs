//! Settings of real control planes: what `--check-config` says about a configuration of Kuma, certificates that
//! change while the process runs, and the audit log in a file of its own.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use graticule_runtime::tls::{ClientTrust, client_config, self_signed};
use graticule_runtime::{Clock, Random};
use graticule_testkit::http::Client;
use graticule_testkit::net::free_port;
use graticule_testkit::process::finish;
use graticule_testkit::{Process, wait};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const LIMIT: Duration = Duration::from_secs(30);

/// A directory for one test, and our programs; none when these are not built.
fn mk_dir(name: &str) -> Result<Option<(PathBuf, PathBuf)>> {
    let Some(programs) = std::env::var_os("GRATICULE_BIN_DIR").map(PathBuf::from) else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs");
        return Ok(None);
    };
    let dir = programs.join(format!("../e2e/{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(Some((programs, dir)))
}

/// As a site of Kuma may have it.
const KUMA_FILE: &str = "\
mode: zone
environment: universal
store:
  type: memory
  postgres: {host: db.example.com, port: 5432, password: hunter2}
  cache: {enabled: true, expirationTime: 1s}
multizone:
  zone:
    name: east
    kds: {nackBackoff: 5s}
  global:
    kds: {grpcPort: 5685}
apiServer:
  http: {interface: 127.0.0.1}
  readTimeout: 20s
dpServer:
  hds: {refreshInterval: 10s}
monitoringAssignmentServer: {port: 5676}
metrics: {zone: {idleTimeout: 5m}}
";

#[tokio::test]
async fn a_configuration_of_kuma_is_explained() -> Result<()> {
    let Some((programs, dir)) = mk_dir("check")? else { return Ok(()) };
    let file = dir.join("kuma-cp.yaml");
    std::fs::write(&file, KUMA_FILE)?;
    let check = async |program: &str, variables: &[(&str, &str)]| {
        let mut command = Command::new(programs.join(program));
        command.args(["run", "--check-config", "--config-file"]).arg(&file).envs(variables.iter().copied());
        std::fs::remove_file(dir.join(format!("{program}.log"))).ok();
        finish(program, &dir, &mut command, LIMIT).await
    };
    let variables =
        [("KUMA_DP_SERVER_PORT", "6000"), ("KUMA_STORE_CACHE_ENABLED", "false"), ("KUMA_XYZ", "1")];
    let (code, said) = check("zone-cp", &variables).await?;
    ensure!(code == 0, "exit code {code}: {said}");
    for line in [
        "multizone.zone.name: \"east\" (default \"default\"; from configuration file)",
        "apiServer.readTimeout: \"20s\" (default \"10s\"; from configuration file)",
        "dpServer.port: 6000 (default 5678; from KUMA_DP_SERVER_PORT)",
        "store.postgres: no database is needed; see store.type",
        "store.cache, KUMA_STORE_CACHE_ENABLED: all resources are in memory, there is nothing to cache",
        "multizone.global.kds.grpcPort: it is a setting of global-cp",
        "monitoringAssignmentServer: this version does not tell Prometheus about proxies (MADS)",
        "KUMA_XYZ",
        "zone-cp can run with this configuration.",
    ] {
        // A section of Kuma may be named as a whole or by what is in it.
        let (name, rest) = line.split_once(": ").unwrap_or((line, ""));
        let found = said.lines().map(str::trim).any(|found| {
            found == line || found.ends_with(rest) && found.contains(name.split(", ").next().unwrap_or(name))
        });
        ensure!(found, "{line:?} is not in:\n{said}");
    }
    ensure!(!said.contains("hunter2"), "a password is shown: {said}");

    // The same file is not for global, and all mistakes are told at once.
    let variables = [("GRATICULE_API_SERVER_HTP_PORT", "1"), ("GRATICULE_DIAGNOSTICS_SERVER_PORT", "x")];
    let (code, said) = check("global-cp", &variables).await?;
    ensure!(code == 1, "exit code {code}: {said}");
    ensure!(said.contains("did you mean GRATICULE_API_SERVER_HTTP_PORT?"), "{said}");
    ensure!(said.contains("GRATICULE_DIAGNOSTICS_SERVER_PORT: \"x\" is not a number"), "{said}");
    let (code, said) = check("global-cp", &[]).await?;
    ensure!(code == 1 && said.contains("mode: \"zone\" is run by another program"), "{code}: {said}");
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// An HTTP/1.1 connection over TLS, and the certificate that the server showed.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    certificate: Vec<u8>,
    _driver: JoinSet<()>,
}

impl Open {
    async fn connect(address: SocketAddr) -> Result<Open> {
        let config = client_config(&ClientTrust::Anybody, &["http/1.1"])?;
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(config).connect("localhost".try_into()?, stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.context("a certificate")?.to_vec();
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ended = connection.await;
        });
        Ok(Open { sender, certificate, _driver: driver })
    }

    async fn get(&mut self, path: &str) -> Result<u16> {
        let request =
            http::Request::builder().uri(path).header("host", "localhost").body(Full::new(Bytes::new()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        Ok(status)
    }
}

/// The certificate that a listener shows now.
async fn shown(address: SocketAddr) -> Result<Vec<u8>> {
    let config = client_config(&ClientTrust::Anybody, &["h2"])?;
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(config).connect("localhost".try_into()?, stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    Ok(certificate.context("a certificate")?.to_vec())
}

fn write_certificate(dir: &Path) -> Result<()> {
    let names = ["localhost".to_owned()];
    let (cert, key) = self_signed(&names, Clock::system().now(), Random::system().bytes16())?;
    std::fs::write(dir.join("cp.key"), key)?;
    std::fs::write(dir.join("cp.crt"), cert)?;
    Ok(())
}

#[tokio::test]
async fn changed_certificates_are_served_without_a_restart() -> Result<()> {
    let Some((programs, dir)) = mk_dir("certificates")? else { return Ok(()) };
    for (program, second) in
        [("global-cp", "GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT"), ("zone-cp", "GRATICULE_DP_SERVER_PORT")]
    {
        write_certificate(&dir)?;
        let port = || free_port("0.0.0.0");
        let (http, https, other) = (port()?, port()?, port()?);
        let mut command = Command::new(programs.join(program));
        command
            .arg("run")
            .env("GRATICULE_GENERAL_WORK_DIR", &dir)
            .env("GRATICULE_GENERAL_TLS_CERT_FILE", dir.join("cp.crt"))
            .env("GRATICULE_GENERAL_TLS_KEY_FILE", dir.join("cp.key"))
            .env("GRATICULE_API_SERVER_HTTP_PORT", http.to_string())
            .env("GRATICULE_API_SERVER_HTTPS_PORT", https.to_string())
            .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", port()?.to_string())
            .env(second, other.to_string());
        let mut process = Process::spawn(program, &dir, &mut command)?;
        let (api, other) =
            (SocketAddr::from(([127, 0, 0, 1], https)), SocketAddr::from(([127, 0, 0, 1], other)));
        let connect = || async { Open::connect(api).await.map_err(|error| format!("{error:#}")) };
        let (mut old, _) = wait::until("the API answers", LIMIT, connect).await?;
        process.check_running()?;
        ensure!(old.get("/meshes").await? == 200);
        ensure!(shown(other).await? == old.certificate, "{second}: another certificate");
        write_certificate(&dir)?;
        for address in [api, other] {
            let new = shown(address).await?;
            ensure!(new != old.certificate, "{program} {address}: the old certificate is still served");
            ensure!(new == shown(api).await?, "{program} {address}: not the new certificate");
        }
        ensure!(old.get("/meshes").await? == 200, "the old connection lives");
        // Half a change changes nothing.
        let good = shown(api).await?;
        std::fs::write(dir.join("cp.crt"), "rubbish")?;
        ensure!(shown(api).await? == good, "a broken file leaves the last good certificate");
        process.terminate(LIMIT).await?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

#[tokio::test]
async fn the_audit_log_has_a_file_of_its_own() -> Result<()> {
    let Some((programs, dir)) = mk_dir("audit")? else { return Ok(()) };
    let path = dir.join("audit.log");
    let http = free_port("0.0.0.0")?;
    let mut command = Command::new(programs.join("global-cp"));
    command
        // The file gets every line whatever is logged.
        .args(["run", "--log-level", "error"])
        .env("GRATICULE_GENERAL_WORK_DIR", &dir)
        .env("GRATICULE_AUDIT_PATH", &path)
        .env("GRATICULE_API_SERVER_HTTP_PORT", http.to_string())
        .env("GRATICULE_API_SERVER_HTTPS_ENABLED", "false")
        .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", free_port("0.0.0.0")?.to_string())
        .env("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", free_port("0.0.0.0")?.to_string());
    let mut process = Process::spawn("audited", &dir, &mut command)?;
    let client = Client::new()?;
    let url = format!("http://127.0.0.1:{http}/meshes/demo");
    let put = || async {
        let put = client.put(&url, &json!({"type": "Mesh", "name": "demo"})).await;
        put.map_err(|error| error.to_string())
    };
    let (answer, _) = wait::until("the mesh is written", LIMIT, put).await?;
    process.check_running()?;
    ensure!(answer.status == 201, "{answer:?}");
    ensure!(client.delete(&url).await?.status == 200);
    ensure!(client.delete(&url).await?.status == 404);
    let text = std::fs::read_to_string(&path)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let brief: Vec<String> =
        lines.iter().map(|l| format!("{} {} {}", l["operation"], l["status"], l["name"])).collect();
    ensure!(
        brief == ["\"create\" 201 \"demo\"", "\"delete\" 200 \"demo\"", "\"delete\" 404 \"demo\""],
        "{text}"
    );
    ensure!(!process.log_tail(100).contains("demo"), "said twice: {}", process.log_tail(100));
    process.terminate(LIMIT).await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
