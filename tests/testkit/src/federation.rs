//! A federation of real processes: global, zones, proxies with real Envoys, applications.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::{Client, expect};
use crate::namespaces::Network;
use crate::net::{Subnet, free_port};
use crate::{Binaries, Process, wait};

/// How long a process may take until it is ready.
pub const START_LIMIT: Duration = Duration::from_secs(30);

/// A control plane process.
#[derive(Debug)]
pub struct ControlPlane {
    /// Zone name, or `global`.
    pub name: String,
    /// The process.
    pub process: Process,
    /// `http://127.0.0.1:<port>` of the REST API.
    pub api: String,
    /// Port that zones (global) or proxies (zone) connect to.
    pub port: u16,
    /// Work directory; holds the generated certificate.
    pub workdir: PathBuf,
}

impl ControlPlane {
    /// The generated server certificate.
    pub fn certificate(&self) -> PathBuf {
        self.workdir.join("kuma-cp.crt")
    }
}

/// What a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Calls the echo service; its outbound port is chosen.
    Client,
    /// An instance of the echo service, with the application beside it.
    Echo,
    /// The zone ingress.
    Ingress,
}

/// An agent with its Envoy, and the application beside it.
#[derive(Debug)]
pub struct Proxy {
    /// Name of the Dataplane.
    pub name: String,
    /// Zone.
    pub zone: String,
    /// Role.
    pub role: Role,
    /// The agent.
    pub agent: Process,
    /// The application, where the role has one.
    pub app: Option<Process>,
    /// Loopback address of the proxy.
    pub address: String,
    /// Outbound port (client) or listener port (ingress).
    pub port: u16,
    /// Port of the agent's readiness endpoint.
    pub readiness_port: u16,
    /// Work directory with bootstrap and sockets.
    pub workdir: PathBuf,
}

impl Proxy {
    /// Process id of its Envoy, while it runs.
    pub fn envoy_pid(&self) -> Option<u32> {
        self.agent.children().into_iter().find(|(_, name)| name.starts_with("envoy")).map(|(pid, _)| pid)
    }

    /// URL of the client's outbound to the echo service.
    pub fn outbound_url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.address, self.port)
    }
}

/// Everything that runs.
#[derive(Debug)]
pub struct Federation {
    /// Programs.
    pub binaries: Binaries,
    /// Directory of logs and work directories.
    pub dir: PathBuf,
    /// Loopback addresses of this run.
    pub subnet: Subnet,
    /// Global.
    pub global: ControlPlane,
    /// Zones by name.
    pub zones: BTreeMap<String, ControlPlane>,
    /// Proxies by name.
    pub proxies: BTreeMap<String, Proxy>,
    /// REST client.
    pub rest: Client,
    /// Environment variables of zones that are started from now on.
    pub zone_environment: BTreeMap<String, String>,
    /// Environment variables of single processes that are started from now on, by the name of the zone or the proxy.
    pub environments: BTreeMap<String, BTreeMap<String, String>>,
    /// Where the processes are, when each control plane has a network of its own with its proxies.
    pub network: Option<Network>,
    next_host: u8,
    drain_time: Duration,
}

/// Reads a demo file with `{{ name }}` variables replaced.
pub fn render(path: &Path, variables: &[(&str, &str)]) -> Result<Value> {
    let mut text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    for (name, value) in variables {
        text = text.replace(&format!("{{{{ {name} }}}}"), value);
    }
    graticule_model::yaml::parse_one(&text).with_context(|| path.display().to_string())
}

/// REST path of a resource document.
pub fn resource_path(document: &Value) -> Result<String> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = graticule_model::Kind::from_name(text("type"))?;
    let (path, name) = (kind.descriptor().path, text("name"));
    Ok(if kind.descriptor().is_global_scoped() {
        format!("/{path}/{name}")
    } else {
        format!("/meshes/{}/{path}/{name}", text("mesh"))
    })
}

impl Federation {
    /// Starts global and waits until it answers.
    pub async fn start(binaries: Binaries, dir: &Path) -> Result<Federation> {
        Federation::start_in(binaries, dir, None).await
    }

    /// The same, with every control plane in a place of its own in this network, together with its proxies.
    pub async fn start_in(
        binaries: Binaries,
        dir: &Path,
        mut network: Option<Network>,
    ) -> Result<Federation> {
        std::fs::create_dir_all(dir)?;
        let rest = Client::new()?;
        if let Some(network) = &mut network {
            network.add("global")?;
        }
        let global = spawn_global(&binaries, dir, "global", None, network.as_ref())?;
        if let Some(network) = &network {
            network.open_door("global", door(&global.api)?)?;
        }
        let mut federation = Federation {
            binaries,
            dir: dir.to_owned(),
            subnet: Subnet::pick(),
            global,
            zones: BTreeMap::new(),
            proxies: BTreeMap::new(),
            rest,
            zone_environment: BTreeMap::new(),
            environments: BTreeMap::new(),
            network,
            next_host: 1,
            drain_time: Duration::from_secs(3),
        };
        federation.wait_for_api("global").await?;
        Ok(federation)
    }

    /// The control plane of this name; `global` or a zone.
    pub fn control_plane(&mut self, name: &str) -> Result<&mut ControlPlane> {
        if name == "global" {
            return Ok(&mut self.global);
        }
        self.zones.get_mut(name).with_context(|| format!("no zone {name}"))
    }

    async fn wait_for_api(&mut self, name: &str) -> Result<()> {
        let url = format!("{}/", self.control_plane(name)?.api);
        let client = self.rest.clone();
        let what = format!("{name} answers on its API");
        let control_plane = self.control_plane(name)?;
        let answered = wait::until(&what, START_LIMIT, || {
            let ended = control_plane.process.check_running().err();
            let (client, url) = (client.clone(), url.clone());
            async move {
                match ended {
                    Some(error) => Ok(Err(error)),
                    None => client.get(&url).await.map(|_| Ok(())).map_err(|error| error.to_string()),
                }
            }
        })
        .await?;
        answered.0
    }

    /// Starts a zone: token from global, then the process; waits until global sees it online.
    pub async fn start_zone(&mut self, name: &str) -> Result<()> {
        let token = expect(
            self.rest
                .post(
                    &format!("{}/tokens/zone", self.global.api),
                    &json!({"zone": name, "scope": [], "validFor": "24h"}),
                )
                .await?,
            &[200],
            "zone token",
        )?;
        let workdir = self.dir.join(name);
        std::fs::create_dir_all(&workdir)?;
        let token_file = workdir.join("zone.token");
        std::fs::write(&token_file, &token.body)?;
        let (api_port, port) = (free_port("127.0.0.1")?, free_port("127.0.0.1")?);
        let api = format!("http://127.0.0.1:{api_port}");
        if let Some(network) = &mut self.network {
            network.add(name)?;
            network.open_door(name, door(&api)?)?;
        }
        let command = self.zone_command(name, &workdir, &token_file, (api_port, port))?;
        let process = self.spawn(name, name, command)?;
        self.zones.insert(name.into(), ControlPlane { name: name.into(), process, api, port, workdir });
        self.wait_for_api(name).await
    }

    /// Where zones reach global.
    pub fn global_address(&self) -> Result<SocketAddr> {
        let address = match &self.network {
            Some(network) => network.address("global")?,
            None => Ipv4Addr::LOCALHOST,
        };
        Ok((address, self.global.port).into())
    }

    /// Starts a process at the place of a control plane.
    pub fn spawn(&self, place: &str, name: &str, command: Command) -> Result<Process> {
        spawn_at(self.network.as_ref(), place, name, &self.dir, command)
    }

    /// The command that starts a zone; `ports` = (API, data plane server).
    pub fn zone_command(
        &self,
        name: &str,
        workdir: &Path,
        token_file: &Path,
        ports: (u16, u16),
    ) -> Result<Command> {
        let (api_port, port) = ports;
        let mut command = Command::new(self.binaries.program("zone-cp")?);
        command
            .arg("run")
            .arg("--config-file")
            .arg(self.binaries.demo_file("zone-cp.yaml"))
            .env("GRATICULE_MULTIZONE_ZONE_NAME", name)
            .env("GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS", format!("grpcs://{}", self.global_address()?))
            .env("GRATICULE_MULTIZONE_ZONE_KDS_ROOT_CA_FILE", self.global.certificate())
            .env("GRATICULE_MULTIZONE_ZONE_KDS_TOKEN_FILE", token_file)
            .env("GRATICULE_GENERAL_WORK_DIR", workdir)
            .env("GRATICULE_API_SERVER_HTTP_PORT", api_port.to_string())
            .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", free_port("127.0.0.1")?.to_string())
            .env("GRATICULE_DP_SERVER_PORT", port.to_string())
            .envs(&self.zone_environment)
            .envs(self.environments.get(name).into_iter().flatten());
        Ok(command)
    }

    /// Everything that a control plane stored is gone; its certificate and the zone's token are files of the operator.
    pub fn lose_disk(&mut self, name: &str) -> Result<()> {
        let workdir = self.control_plane(name)?.workdir.clone();
        let mut lost = 0;
        for entry in std::fs::read_dir(&workdir)? {
            let path = entry?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path)?;
                lost += 1;
            }
        }
        ensure!(lost > 0, "no data directory in {}", workdir.display());
        Ok(())
    }

    /// Starts a control plane again that was killed or stopped: same ports, same directories.
    pub async fn start_again(&mut self, name: &str) -> Result<()> {
        let (api, port, workdir) = {
            let old = self.control_plane(name)?;
            (old.api.clone(), old.port, old.workdir.clone())
        };
        let api_port = api.rsplit(':').next().and_then(|port| port.parse().ok()).context("an API port")?;
        if name == "global" {
            let ports = Some((api_port, port));
            self.global = spawn_global(&self.binaries, &self.dir, name, ports, self.network.as_ref())?;
        } else {
            let token = workdir.join("zone.token");
            let command = self.zone_command(name, &workdir, &token, (api_port, port))?;
            let process = self.spawn(name, name, command)?;
            self.zones.insert(name.into(), ControlPlane { name: name.into(), process, api, port, workdir });
        }
        self.wait_for_api(name).await
    }

    /// Waits until global shows the zone online and the zone has the default mesh.
    pub async fn wait_zone_joined(&mut self, name: &str) -> Result<Duration> {
        let overview = format!("{}/zones/{name}/_overview", self.global.api);
        // The key comes on its own, before or after the mesh.
        let key = "secrets/dataplane-token-signing-key-default-1";
        let key = format!("{}/meshes/default/{key}", self.control_plane(name)?.api);
        let client = self.rest.clone();
        let ((), took) = wait::until(&format!("zone {name} joins"), START_LIMIT, || {
            let (client, overview, key) = (client.clone(), overview.clone(), key.clone());
            async move {
                let key = client.get(&key).await.map_err(|error| error.to_string())?;
                if key.status != 200 {
                    return Err(format!("the zone cannot issue tokens of proxies yet ({})", key.status));
                }
                let answer = client.get(&overview).await.map_err(|error| error.to_string())?;
                let document = answer.json().map_err(|error| error.to_string())?;
                let subscriptions =
                    document["zoneInsight"]["subscriptions"].as_array().cloned().unwrap_or_default();
                let online = subscriptions
                    .iter()
                    .any(|s| s.get("connectTime").is_some() && s.get("disconnectTime").is_none());
                if online { Ok(()) } else { Err(format!("global shows no open subscription: {document}")) }
            }
        })
        .await?;
        Ok(took)
    }

    /// PUTs a document to a control plane (`global` or a zone).
    pub async fn apply(&mut self, target: &str, document: &Value) -> Result<()> {
        let url = format!("{}{}", self.control_plane(target)?.api, resource_path(document)?);
        let answer = self.rest.put(&url, document).await?;
        expect(answer, &[200, 201], &format!("PUT {url}")).map(|_| ())
    }

    /// PUTs a file of `deploy/demo`.
    pub async fn apply_file(
        &mut self,
        target: &str,
        file: &str,
        variables: &[(&str, &str)],
    ) -> Result<Value> {
        let document = render(&self.binaries.demo_file(file), variables)?;
        self.apply(target, &document).await?;
        Ok(document)
    }

    /// DELETEs the resource of a document.
    pub async fn delete(&mut self, target: &str, document: &Value) -> Result<()> {
        let url = format!("{}{}", self.control_plane(target)?.api, resource_path(document)?);
        let answer = self.rest.delete(&url).await?;
        expect(answer, &[200], &format!("DELETE {url}")).map(|_| ())
    }

    /// Sets aside addresses and ports for a proxy; the ingress also gets its MeshZoneAddress.
    pub async fn start_proxy(&mut self, zone: &str, name: &str, role: Role) -> Result<()> {
        let address = self.subnet.host(self.next_host).to_string();
        self.next_host += 1;
        let port = match role {
            Role::Client | Role::Ingress => free_port(&address)?,
            Role::Echo => 8080,
        };
        if role == Role::Ingress {
            let port_text = port.to_string();
            self.apply_file(zone, "zone-address.yaml", &[("address", &address), ("port", &port_text)])
                .await?;
        }
        let app = if role == Role::Echo { Some(self.start_app(zone, name, &address)?) } else { None };
        let workdir = self.dir.join(name);
        let readiness_port = free_port("127.0.0.1")?;
        self.write_token(zone, name, role).await?;
        if let Some(network) = &self.network {
            network.open_door(zone, (Ipv4Addr::LOCALHOST, readiness_port).into())?;
            if role == Role::Client {
                network.open_door(zone, SocketAddr::new(address.parse()?, port))?;
            }
        }
        let agent = self.spawn_agent(zone, name, role, &address, port, readiness_port)?;
        self.proxies.insert(
            name.into(),
            Proxy {
                name: name.into(),
                zone: zone.into(),
                role,
                agent,
                app,
                address,
                port,
                readiness_port,
                workdir,
            },
        );
        Ok(())
    }

    fn start_app(&self, zone: &str, name: &str, address: &str) -> Result<Process> {
        let mut command = Command::new(self.binaries.program("demo-app")?);
        command.args(["--address", address, "--port", "18080", "--name", name, "--zone", zone]);
        self.spawn(zone, &format!("{name}-app"), command)
    }

    async fn write_token(&mut self, zone: &str, name: &str, role: Role) -> Result<()> {
        let workload = match role {
            Role::Client => "client",
            Role::Echo => "echo",
            Role::Ingress => "ingress",
        };
        let body = json!({"mesh": "default", "name": name, "workload": workload, "validFor": "24h"});
        let url = format!("{}/tokens/dataplane", self.control_plane(zone)?.api);
        let token = expect(self.rest.post(&url, &body).await?, &[200], "dataplane token")?;
        std::fs::write(self.dir.join(format!("{name}.token")), token.body)?;
        Ok(())
    }

    /// The command that starts an agent at a zone, without Dataplane and token.
    pub fn agent_command(&self, control_plane: &ControlPlane, name: &str) -> Result<Command> {
        let mut command = Command::new(self.binaries.program("dp-agent")?);
        command
            .arg("run")
            .arg(format!("--cp-address=https://127.0.0.1:{}", control_plane.port))
            .arg(format!("--ca-cert-file={}", control_plane.certificate().display()))
            .arg(format!("--binary-path={}", self.binaries.envoy.display()))
            .arg(format!("--work-dir={}", self.dir.join(name).display()))
            .arg(format!("--drain-time={}s", self.drain_time.as_secs()))
            .args(["--dns-enabled=false", "--concurrency=1", "--envoy-log-level=warning"]);
        Ok(command)
    }

    fn spawn_agent(
        &self,
        zone: &str,
        name: &str,
        role: Role,
        address: &str,
        port: u16,
        readiness_port: u16,
    ) -> Result<Process> {
        let control_plane = self.zones.get(zone).with_context(|| format!("no zone {zone}"))?;
        let file = match role {
            Role::Client => "dp-client.yaml",
            Role::Echo => "dp-echo.yaml",
            Role::Ingress => "dp-ingress.yaml",
        };
        let mut command = self.agent_command(control_plane, name)?;
        command
            .arg(format!("--dataplane-file={}", self.binaries.demo_file(file).display()))
            .args([
                "-v",
                &format!("name={name}"),
                "-v",
                &format!("address={address}"),
                "-v",
                &format!("port={port}"),
            ])
            .arg(format!("--dataplane-token-file={}", self.dir.join(format!("{name}.token")).display()))
            .env("GRATICULE_READINESS_PORT", readiness_port.to_string())
            .envs(self.environments.get(name).into_iter().flatten());
        self.spawn(zone, name, command)
    }

    /// Starts the agent of a known proxy again, after it ended.
    pub fn restart_agent(&mut self, name: &str) -> Result<()> {
        let proxy = self.proxies.get(name).with_context(|| format!("no proxy {name}"))?;
        let agent = self.spawn_agent(
            &proxy.zone,
            &proxy.name,
            proxy.role,
            &proxy.address,
            proxy.port,
            proxy.readiness_port,
        )?;
        if let Some(proxy) = self.proxies.get_mut(name) {
            proxy.agent = agent;
        }
        Ok(())
    }

    /// A proxy by name.
    pub fn proxy(&mut self, name: &str) -> Result<&mut Proxy> {
        self.proxies.get_mut(name).with_context(|| format!("no proxy {name}"))
    }

    /// Fails when a process that should run has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.global.process.check_running()?;
        for zone in self.zones.values_mut() {
            zone.process.check_running()?;
        }
        for proxy in self.proxies.values_mut() {
            proxy.agent.check_running()?;
            if let Some(app) = &mut proxy.app {
                app.check_running()?;
            }
        }
        Ok(())
    }
}

/// Starts a global control plane; `ports` = (API, KDS) of an earlier one that it replaces.
pub async fn start_global(
    binaries: &Binaries,
    dir: &Path,
    name: &str,
    ports: Option<(u16, u16)>,
) -> Result<ControlPlane> {
    spawn_global(binaries, dir, name, ports, None)
}

/// Where the test asks a control plane.
fn door(api: &str) -> Result<SocketAddr> {
    api.trim_start_matches("http://").parse().with_context(|| api.to_owned())
}

fn spawn_at(
    network: Option<&Network>,
    place: &str,
    name: &str,
    dir: &Path,
    mut command: Command,
) -> Result<Process> {
    if let Some(network) = network {
        command = network.command(place, &command)?;
    }
    Process::spawn(name, dir, &mut command)
}

fn spawn_global(
    binaries: &Binaries,
    dir: &Path,
    name: &str,
    ports: Option<(u16, u16)>,
    network: Option<&Network>,
) -> Result<ControlPlane> {
    let workdir = dir.join(name);
    std::fs::create_dir_all(&workdir)?;
    let (api_port, port) = match ports {
        Some(ports) => ports,
        None => (free_port("127.0.0.1")?, free_port("127.0.0.1")?),
    };
    let mut command = Command::new(binaries.program("global-cp")?);
    command
        .arg("run")
        .arg("--config-file")
        .arg(binaries.demo_file("global-cp.yaml"))
        .env("GRATICULE_GENERAL_WORK_DIR", &workdir)
        .env("GRATICULE_API_SERVER_HTTP_PORT", api_port.to_string())
        .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", free_port("127.0.0.1")?.to_string())
        .env("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", port.to_string());
    let process = spawn_at(network, "global", name, dir, command)?;
    Ok(ControlPlane {
        name: name.into(),
        process,
        api: format!("http://127.0.0.1:{api_port}"),
        port,
        workdir,
    })
}
