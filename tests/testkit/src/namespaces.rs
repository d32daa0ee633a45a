//! A network of its own for each control plane and its proxies: Linux network namespaces, joined by a bridge.
//!
//! Programs in different places reach each other over the bridge alone, and faults are faults of the kernel's network. The
//! test stays outside: a door for each address that it asks is opened in both worlds. Needs root, `ip`, and a kernel with
//! namespaces.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context as _, Result, bail, ensure};
use rand::Rng as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Places of one network.
const PLACES_MAX: u8 = 250;

/// The network of a run; goes with everything in it when dropped.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    places: BTreeMap<String, Place>,
}

/// One namespace.
#[derive(Debug)]
struct Place {
    namespace: String,
    /// The end of its cable at the bridge.
    port: String,
    address: Ipv4Addr,
    inside: Handle,
    /// Ends the thread inside.
    _stop: oneshot::Sender<()>,
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().context("ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

impl Network {
    /// A network without places.
    ///
    /// # Errors
    /// Why there cannot be one here.
    pub fn new() -> Result<Network> {
        let bridge = format!("gr{:06x}", rand::rng().random_range(0..0x100_0000));
        ip(&format!("link add {bridge} type bridge"))?;
        let network = Network { bridge, places: BTreeMap::new() };
        ip(&format!("link set {} up", network.bridge))?;
        Ok(network)
    }

    /// Makes a place, unless it is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn add(&mut self, name: &str) -> Result<()> {
        if self.places.contains_key(name) {
            return Ok(());
        }
        let number = u8::try_from(self.places.len() + 1).ok().filter(|number| *number < PLACES_MAX);
        let number = number.context("too many places")?;
        let (namespace, port) = (format!("{}-{name}", self.bridge), format!("{}p{number}", self.bridge));
        let address = Ipv4Addr::new(10, 77, 0, number);
        ip(&format!("netns add {namespace}"))?;
        let made = self.wire(&namespace, &port, address).and_then(|()| inside(&namespace));
        let (inside, stop) = match made {
            Ok(made) => made,
            Err(error) => {
                let _gone = ip(&format!("netns del {namespace}"));
                return Err(error);
            }
        };
        self.places.insert(name.into(), Place { namespace, port, address, inside, _stop: stop });
        Ok(())
    }

    fn wire(&self, namespace: &str, port: &str, address: Ipv4Addr) -> Result<()> {
        ip(&format!("link add {port} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("link set {port} master {} up", self.bridge))?;
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} link set lo up"))
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.places.get(name).with_context(|| format!("no place {name} in the network"))
    }

    /// Address of a place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn address(&self, name: &str) -> Result<Ipv4Addr> {
        Ok(self.place(name)?.address)
    }

    /// Runs futures in a place: their sockets are there.
    ///
    /// # Errors
    /// There is no such place.
    pub fn inside(&self, name: &str) -> Result<Handle> {
        Ok(self.place(name)?.inside.clone())
    }

    /// The command that does the same in a place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn command(&self, name: &str, command: &Command) -> Result<Command> {
        let mut moved = Command::new("ip");
        moved.args(["netns", "exec", &self.place(name)?.namespace]);
        moved.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => moved.env(key, value),
                None => moved.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            moved.current_dir(dir);
        }
        Ok(moved)
    }

    /// Whoever connects to this loopback address outside is connected to the same one in a place.
    ///
    /// # Errors
    /// Somebody listens on it.
    pub fn open_door(&self, name: &str, address: SocketAddr) -> Result<()> {
        let outside = StdListener::bind(address).with_context(|| format!("a door at {address}"))?;
        outside.set_nonblocking(true)?;
        self.place(name)?.inside.spawn(async move {
            let Ok(outside) = TcpListener::from_std(outside) else { return };
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = outside.accept().await {
                while open.try_join_next().is_some() {}
                open.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(address).await {
                        let _closed = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(())
    }

    /// Pulls the cable of a place, or puts it in again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_cable(&self, name: &str, is_in: bool) -> Result<()> {
        let state = if is_in { "up" } else { "down" };
        ip(&format!("link set {} {state}", self.place(name)?.port))
    }

    /// What `from` sends to `to` is lost from now on, without a word, or arrives again. The other direction stays.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_way(&self, from: &str, to: &str, is_open: bool) -> Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let word = if is_open { "del" } else { "replace" };
        ip(&format!("-n {} route {word} blackhole {}/32", from.namespace, to.address))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in self.places.values() {
            let _gone = ip(&format!("netns del {}", place.namespace));
            let _gone_too = ip(&format!("link del {}", place.port));
        }
        let _gone = ip(&format!("link del {}", self.bridge));
    }
}

/// A thread in the namespace, with a runtime for what has its sockets there.
fn inside(namespace: &str) -> Result<(Handle, oneshot::Sender<()>)> {
    let file = File::open(Path::new("/run/netns").join(namespace)).context("the namespace")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let (started, handle) = mpsc::sync_channel(1);
    let run = move || {
        let runtime = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?));
        match runtime {
            Ok(runtime) => {
                let _waits = started.send(Ok(runtime.handle().clone()));
                let _stopped = runtime.block_on(stopped);
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    std::thread::Builder::new().name(format!("in {namespace}")).spawn(run)?;
    match handle.recv() {
        Ok(Ok(handle)) => Ok((handle, stop)),
        Ok(Err(error)) => Err(error.context("entering the namespace")),
        Err(_) => bail!("the thread in the namespace ended"),
    }
}
