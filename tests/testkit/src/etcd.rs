//! A real etcd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::net::free_port;
use crate::process::Process;

const HOST: &str = "127.0.0.1";

/// `$ETCD_BIN`, else `etcd` in `PATH`; none when there is none. `cargo xtask` installs it and sets the variable.
pub fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ETCD_BIN") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file())
}

/// A member of etcd, alone or one of several.
pub struct Etcd {
    dir: PathBuf,
    name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    /// Where clients connect.
    pub port: u16,
    scheme: &'static str,
    process: Option<Process>,
}

impl Etcd {
    /// Members of one cluster, which are not started yet; `scheme` is `http` or `https`, then `more` names the files.
    ///
    /// # Errors
    /// There is no free port.
    pub fn members(
        binary: &Path,
        dir: &Path,
        count: usize,
        scheme: &'static str,
        more: &[String],
    ) -> Result<Vec<Etcd>> {
        let peers = (0..count).map(|_| free_port(HOST)).collect::<Result<Vec<u16>>>()?;
        let urls: Vec<String> = peers.iter().map(|port| format!("http://{HOST}:{port}")).collect();
        let cluster: Vec<String> =
            urls.iter().enumerate().map(|(n, url)| format!("etcd-{n}={url}")).collect();
        let cluster = cluster.join(",");
        let member = |(n, peer): (usize, &String)| {
            let port = free_port(HOST)?;
            let name = format!("etcd-{n}");
            let client = format!("{scheme}://{HOST}:{port}");
            let data = dir.join(&name).display().to_string();
            let arguments = [
                ("--name", name.as_str()),
                ("--data-dir", &data),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", peer),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", &cluster),
            ];
            let arguments =
                arguments.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
            let arguments = arguments.chain(more.iter().cloned()).collect();
            let (dir, binary) = (dir.to_owned(), binary.to_owned());
            Ok(Etcd { dir, name, binary, arguments, port, scheme, process: None })
        };
        urls.iter().enumerate().map(member).collect()
    }

    /// Starts it, again after [`kill`](Self::kill).
    ///
    /// # Errors
    /// The program does not start.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments);
        self.process = Some(Process::spawn(&self.name, &self.dir, &mut command)?);
        Ok(())
    }

    /// Waits until it serves for the first time.
    ///
    /// # Errors
    /// Not in time.
    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        let Some(process) = &self.process else { anyhow::bail!("{} was not started", self.name) };
        process.wait_for_log("ready to serve client requests", limit).await.map(drop)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> String {
        format!("{}://{HOST}:{}", self.scheme, self.port)
    }
}
