//! A control plane of several replicas: real processes that form a cluster from addresses and a token.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::federation::{ControlPlane, START_LIMIT};
use crate::http::{Answer, Client};
use crate::net::free_port;
use crate::process::{self, Said};
use crate::{Binaries, Process, wait};

/// One replica.
#[derive(Debug)]
pub struct Replica {
    /// Process, API, directories; the port is that of zones (global) or proxies (zone).
    pub control_plane: ControlPlane,
    /// `host:port` for the other members.
    pub address: String,
    api_port: u16,
    diagnostics_port: u16,
}

/// What the replicas are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// `global-cp`.
    Global,
    /// `zone-cp` with these variables: name, address of global, token.
    Zone(Vec<(String, String)>),
}

/// All replicas of a control plane.
#[derive(Debug)]
pub struct Replicas {
    binaries: Binaries,
    dir: PathBuf,
    site: Site,
    token_file: PathBuf,
    /// The replicas; killed ones stay in their place.
    pub replicas: Vec<Replica>,
    /// REST client.
    pub rest: Client,
}

/// Index of the leader and the document of `/_cluster`.
pub type Led = (usize, Value);

impl Replicas {
    /// Starts `count` replicas with nothing but each other's addresses and the token; waits until all answer.
    pub async fn start(binaries: &Binaries, dir: &Path, site: Site, count: usize) -> Result<Replicas> {
        Replicas::start_with(binaries, dir, site, vec![Vec::new(); count]).await
    }

    /// As [`start`](Self::start), each with variables of its own.
    pub async fn start_with(
        binaries: &Binaries,
        dir: &Path,
        site: Site,
        each: Vec<Vec<(&str, String)>>,
    ) -> Result<Replicas> {
        let count = each.len();
        std::fs::create_dir_all(dir)?;
        let token_file = dir.join("cluster.token");
        let mut generate = Command::new(binaries.program("grat")?);
        generate.args(["generate", "cluster-token"]);
        let token = process::answer(generate, "", START_LIMIT).await?;
        std::fs::write(&token_file, token.stdout)?;
        let mut replicas = Replicas {
            binaries: binaries.clone(),
            dir: dir.to_owned(),
            site,
            token_file,
            replicas: Vec::new(),
            rest: Client::new()?,
        };
        let addresses = (0..count)
            .map(|_| Ok(format!("127.0.0.1:{}", free_port("127.0.0.1")?)))
            .collect::<Result<Vec<String>>>()?;
        let members = addresses.join(",");
        for (address, own) in addresses.iter().zip(&each) {
            let own = own.iter().map(|(name, value)| (*name, value.as_str()));
            let variables: Vec<_> = own.chain([("GRATICULE_STORE_RAFT_MEMBERS", members.as_str())]).collect();
            replicas.spawn_new(address, &variables, &[])?;
        }
        for index in 0..count {
            replicas.wait_ready(index).await?;
        }
        Ok(replicas)
    }

    /// Starts one more, with `--join`.
    pub async fn join(&mut self, through: usize) -> Result<usize> {
        let address = format!("127.0.0.1:{}", free_port("127.0.0.1")?);
        let known = self.replicas.get(through).context("a replica")?.address.clone();
        let token = self.token_file.display().to_string();
        self.spawn_new(&address, &[], &["--join", &known, "--join-token-file", &token])?;
        let index = self.replicas.len() - 1;
        self.wait_ready(index).await?;
        Ok(index)
    }

    fn spawn_new(&mut self, address: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Result<()> {
        let name = format!("replica-{}", self.replicas.len());
        let workdir = self.dir.join(&name);
        std::fs::create_dir_all(&workdir)?;
        let (api_port, port) = (free_port("127.0.0.1")?, free_port("127.0.0.1")?);
        let diagnostics_port = free_port("127.0.0.1")?;
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        std::fs::write(workdir.join("start.json"), serde_json::to_vec(&(variables, arguments))?)?;
        let process = self.spawn(&name, address, &workdir, (api_port, port, diagnostics_port))?;
        let api = format!("http://127.0.0.1:{api_port}");
        let control_plane = ControlPlane { name, process, api, port, workdir };
        self.replicas.push(Replica { control_plane, address: address.into(), api_port, diagnostics_port });
        Ok(())
    }

    fn spawn(&self, name: &str, address: &str, workdir: &Path, ports: (u16, u16, u16)) -> Result<Process> {
        let (api_port, port, diagnostics_port) = ports;
        let (variables, arguments): (Vec<(String, String)>, Vec<String>) =
            serde_json::from_slice(&std::fs::read(workdir.join("start.json"))?)?;
        let (program, file, port_variable) = match self.site {
            Site::Global => ("global-cp", "global-cp.yaml", "GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT"),
            Site::Zone(_) => ("zone-cp", "zone-cp.yaml", "GRATICULE_DP_SERVER_PORT"),
        };
        let mut command = Command::new(self.binaries.program(program)?);
        command.arg("run").args(arguments).arg("--config-file").arg(self.binaries.demo_file(file));
        if let Site::Zone(variables) = &self.site {
            command.envs(variables.iter().map(|(name, value)| (name, value)));
        }
        let (_, member_port) = address.rsplit_once(':').context("a port")?;
        command
            .envs(variables)
            .env("GRATICULE_GENERAL_WORK_DIR", workdir)
            .env("GRATICULE_API_SERVER_HTTP_PORT", api_port.to_string())
            .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", diagnostics_port.to_string())
            .env(port_variable, port.to_string())
            .env("GRATICULE_STORE_RAFT_NAME", name)
            .env("GRATICULE_STORE_RAFT_INTERFACE", "127.0.0.1")
            .env("GRATICULE_STORE_RAFT_PORT", member_port)
            .env("GRATICULE_STORE_RAFT_TOKEN_FILE", &self.token_file);
        Process::spawn(name, &self.dir, &mut command)
    }

    /// A replica.
    pub fn get(&mut self, index: usize) -> Result<&mut Replica> {
        self.replicas.get_mut(index).with_context(|| format!("no replica {index}"))
    }

    /// URL of a path at a replica.
    pub fn url(&self, index: usize, path: &str) -> String {
        format!("{}{path}", self.replicas[index].control_plane.api)
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        self.get(index)?.control_plane.process.kill()
    }

    /// Starts a replica again, with its directories and ports.
    pub fn start_again(&mut self, index: usize) -> Result<()> {
        let replica = self.replicas.get(index).context("a replica")?;
        let ports = (replica.api_port, replica.control_plane.port, replica.diagnostics_port);
        let (name, workdir) = (replica.control_plane.name.clone(), replica.control_plane.workdir.clone());
        let process = self.spawn(&name, &replica.address, &workdir, ports)?;
        self.get(index)?.control_plane.process = process;
        Ok(())
    }

    /// Waits until a replica answers with what every control plane has: then it is a member and has caught up.
    pub async fn wait_ready(&mut self, index: usize) -> Result<Duration> {
        let url = self.url(index, "/global-secrets/user-token-signing-key-1");
        let client = self.rest.clone();
        let process = &mut self.get(index)?.control_plane.process;
        let what = format!("replica {index} is ready");
        let (outcome, took) = wait::until(&what, START_LIMIT, || {
            let ended = process.check_running().err();
            let (client, url) = (client.clone(), url.clone());
            async move {
                if let Some(error) = ended {
                    return Ok(Err(error));
                }
                match client.get(&url).await {
                    Ok(answer) if answer.status == 200 => Ok(Ok(())),
                    Ok(answer) => Err(format!("{}: {}", answer.status, answer.body)),
                    Err(error) => Err(error.to_string()),
                }
            }
        })
        .await?;
        outcome.map(|()| took)
    }

    /// What a replica says about the cluster.
    pub async fn status(&self, index: usize) -> Result<Value> {
        let answer = self.rest.get(&self.url(index, "/_cluster")).await?;
        if answer.status != 200 {
            bail!("/_cluster: {}: {}", answer.status, answer.body);
        }
        answer.json()
    }

    /// The leader, as the replica says, once it knows one that is not `other_than`.
    pub async fn leader(&self, asked: usize, other_than: Option<usize>) -> Result<Led> {
        let (led, _) = wait::until("a leader is known", START_LIMIT, || async {
            let status = self.status(asked).await.map_err(|error| error.to_string())?;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let leader = members.iter().find(|member| member["role"] == "leader");
            let address = leader.and_then(|leader| leader["address"].as_str()).map(str::to_owned);
            let index = self.replicas.iter().position(|replica| Some(&replica.address) == address.as_ref());
            index
                .filter(|index| Some(*index) != other_than)
                .map(|index| (index, status.clone()))
                .ok_or_else(|| format!("{status}"))
        })
        .await?;
        Ok(led)
    }

    /// Runs `grat` against a replica.
    pub async fn grat(&self, index: usize, arguments: &[&str]) -> Result<Said> {
        let mut command = Command::new(self.binaries.program("grat")?);
        command.args(["--no-config", "--address", &self.replicas[index].control_plane.api]).args(arguments);
        for name in ["GRATICULE_ADDRESS", "GRATICULE_TOKEN", "GRATICULE_CONTEXT"] {
            command.env_remove(name);
        }
        process::answer(command, "", Duration::from_secs(90)).await
    }

    /// PUT of a secret of the control plane.
    pub async fn put_secret(&self, index: usize, name: &str, text: &str) -> Result<Answer> {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        let body = serde_json::json!({"type": "GlobalSecret", "name": name, "data": data});
        self.rest.put(&self.url(index, &format!("/global-secrets/{name}")), &body).await
    }
}

/// The text of a secret that was read; none when there is none.
pub fn secret_text(answer: &Answer) -> Result<Option<String>> {
    use base64::Engine as _;
    match answer.status {
        404 => Ok(None),
        200 => {
            let document = answer.json()?;
            let data = document["data"].as_str().unwrap_or_default();
            Ok(Some(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data)?)?))
        }
        status => bail!("{status}: {}", answer.body),
    }
}
