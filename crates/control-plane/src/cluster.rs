//! Replicas of a control plane on the embedded store: the members' listener, forming a cluster, joining one, changes.
//!
//! ```text
//! prepare ─► listener bound, token read ─► RaftStore::open ─► start: serve members, form or join ─► ready
//! ```
//!
//! A member is who has the cluster's token ([`tls`]). A data directory that belongs to a cluster never forms another one.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use graticule_api::cluster::{Cluster, ClusterError};
use graticule_runtime::settings::RaftSettings;
use graticule_runtime::{Clock, Drain, ListenLimits, Random, TcpAcceptor, host};
use graticule_store::Store;
use graticule_store_raft::{Form, MemberId, Options, RaftStore};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::check::Findings;
use crate::serve::address;

mod calls;
mod exchange;
mod forming;
mod members;
mod service;
mod tls;

pub use exchange::{Answers, GONE_AFTER, NoAnswer, Question, Replicas};
pub use tls::TlsError;

use calls::Calls;
use members::Members;
use tls::MemberTls;

/// Open connections of members; more wait.
const CONNECTIONS_MAX: usize = 256;
/// Handshakes of those who want to be members; more wait.
const HANDSHAKES_MAX: usize = 32;
/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that the start of a member waits until it has what the others acknowledged. Without a majority it goes on with
/// what it has.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a member needs before its store is opened.
pub struct Prepared {
    site: String,
    name: String,
    address: String,
    /// Addresses of the others.
    peers: Vec<String>,
    form: Form,
    /// Whether it was told of all members that form a cluster, and not only whom to join.
    may_begin: bool,
    tls: MemberTls,
    acceptor: TcpAcceptor,
}

/// A member, for what concerns the cluster.
struct Local {
    store: Arc<RaftStore>,
    name: String,
    address: String,
    /// None: it stands alone, without a listener.
    calls: Option<Calls>,
    clock: Clock,
    /// Members without a cluster that it has seen, itself included.
    sees: Mutex<BTreeSet<MemberId>>,
    replicas: Replicas,
}

/// Reads the token and binds the listener; nothing when the replica stands alone. `site` is `global` or `zone-` and the
/// zone's name.
///
/// # Errors
/// Settings that cannot be used, a port that is taken.
pub async fn prepare(
    settings: &RaftSettings,
    site: &str,
    data_dir: &Path,
    random: &Random,
) -> Result<Option<Prepared>> {
    if !settings.is_clustered() {
        return Ok(None);
    }
    let others: Vec<String> = settings.members.iter().chain(&settings.join).cloned().collect();
    let tokens = tls::tokens(&settings.token_file, data_dir, !others.is_empty(), random)?;
    let tls = MemberTls::new(&tokens, site, random)?;
    let listen = address("store.raft.interface", &settings.interface, settings.port)?;
    let limits = ListenLimits {
        max_connections: CONNECTIONS_MAX,
        max_handshakes: HANDSHAKES_MAX,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        ..ListenLimits::default()
    };
    let acceptor = TcpAcceptor::bind(listen, "store.raft.port", limits).await?;
    let port = acceptor.local_addr().port();
    let own = own_address(settings, &others, port).await?;
    let peers: Vec<String> = others.into_iter().filter(|other| *other != own).collect();
    let form = match (settings.members.is_empty(), settings.join.is_empty()) {
        (true, true) => Form::Alone,
        _ => Form::Join,
    };
    let name = if settings.name.is_empty() { host::name() } else { settings.name.clone() };
    tracing::info!(address = own, ?peers, "members' listener is open");
    let may_begin = settings.join.is_empty();
    Ok(Some(Prepared { site: site.into(), name, address: own, peers, form, may_begin, tls, acceptor }))
}

/// The address that others are told: the one that is set, the one among all members' that is this machine's, or that of
/// the interface that leads to the others.
async fn own_address(settings: &RaftSettings, others: &[String], port: u16) -> Result<String> {
    if !settings.address.is_empty() {
        return Ok(settings.address.clone());
    }
    let local = host::local_addresses();
    for other in others {
        let Ok(found) = tokio::net::lookup_host(other.as_str()).await else { continue };
        let found: Vec<_> = found.collect();
        if found.iter().any(|found| found.port() == port && local.contains(&found.ip())) {
            return Ok(other.clone());
        }
    }
    for other in others {
        let Ok(mut found) = tokio::net::lookup_host(other.as_str()).await else { continue };
        if let Some(ip) = found.find_map(|found| source_of(found.ip()).ok()) {
            return Ok(std::net::SocketAddr::new(ip, port).to_string());
        }
    }
    bail!("store.raft.address: is needed, because no address of the other members can be looked up")
}

/// The address that packets to `ip` carry; connecting a datagram socket sends nothing.
fn source_of(ip: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((ip, 9))?;
    Ok(socket.local_addr()?.ip())
}

impl Prepared {
    /// Puts what the store must know into its options.
    pub fn configure(&self, options: &mut Options) {
        options.name.clone_from(&self.name);
        options.address.clone_from(&self.address);
        options.form = self.form;
    }

    /// What the store connects to others with.
    pub fn connector(&self) -> graticule_store_raft::Connector {
        self.tls.connector()
    }
}

/// A store that stands alone, as a cluster of one.
pub fn alone(store: Arc<RaftStore>, replicas: &Replicas, clock: Clock) -> Arc<dyn Cluster> {
    replicas.alone();
    Arc::new(Members(Arc::new(Local {
        store,
        name: host::name(),
        address: String::new(),
        calls: None,
        clock,
        sees: Mutex::default(),
        replicas: replicas.clone(),
    })))
}

/// Serves the other members with a task in `tasks`, which must outlive the store, and makes this one a member if it is none
/// yet. Returns when it has everything that was ever acknowledged, or when the majority that knows is not there.
pub async fn start(
    prepared: Prepared,
    store: Arc<RaftStore>,
    replicas: &Replicas,
    clock: Clock,
    tasks: &mut JoinSet<()>,
) -> Arc<dyn Cluster> {
    let Prepared { site, name, address, peers, form, may_begin, tls, acceptor } = prepared;
    let incoming = acceptor.tls(tls.server.clone());
    let local = Arc::new(Local {
        sees: Mutex::new(BTreeSet::from([store.id()])),
        store,
        name,
        address,
        calls: Some(Calls(tls)),
        clock,
        replicas: replicas.clone(),
    });
    tasks.spawn(service::serve(local.clone(), incoming));
    if !local.is_initialized().await {
        tracing::info!(site, ?peers, "waiting for the other members");
        forming::become_member(&local, &peers, form, may_begin).await;
    }
    tasks.spawn(exchange::run(local.clone()));
    let (config, status): (Arc<dyn Store>, _) = (local.store.clone(), replicas.status().clone());
    tasks.spawn(exchange::forget_deleted(config, status, Drain::never()));
    let voter = local.clone();
    let (votes, voting) = oneshot::channel();
    tasks.spawn(async move {
        forming::become_voter(&voter).await;
        // The start may wait no more.
        let _waits = votes.send(());
    });
    tokio::select! {
        _ = voting => {}
        () = local.clock.sleep(CATCH_UP_TIMEOUT) => {}
    }
    if !local.caught_up().await {
        tracing::warn!("there is no majority of the members: going on with what is here; writes fail");
    }
    Arc::new(Members(local))
}

impl Local {
    fn calls(&self) -> Result<&Calls, ClusterError> {
        let reason = "this replica stands alone: set store.raft.address, so that others can reach it";
        self.calls.as_ref().ok_or_else(|| ClusterError::Refused(reason.into()))
    }

    /// Waits until everything that was acknowledged before is here; false when there was no majority for a while.
    async fn caught_up(&self) -> bool {
        let barrier = async {
            while let Err(error) = self.store.read_barrier().await {
                tracing::debug!(%error, "not caught up yet");
                self.clock.sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            biased;
            () = barrier => true,
            () = self.clock.sleep(CATCH_UP_TIMEOUT) => false,
        }
    }

    async fn recover(&self) -> Result<(), ClusterError> {
        tracing::warn!("this member becomes a cluster of its own, with what it has");
        self.store.recover_alone().await.map_err(|error| ClusterError::Unavailable(error.to_string()))
    }
}

/// An id as people see it.
fn hex(id: MemberId) -> String {
    format!("{id:016x}")
}

/// What can be found out about the settings without starting anything.
pub fn check(settings: &RaftSettings, findings: &mut Findings) {
    if !settings.is_clustered() {
        return;
    }
    findings.ip("store.raft.interface", &settings.interface);
    let own = std::iter::once(&settings.address).filter(|own| !own.is_empty());
    let own = own.map(|own| ("store.raft.address", own));
    let members = settings.members.iter().map(|member| ("store.raft.members", member));
    let join = settings.join.iter().map(|member| ("store.raft.join", member));
    for (setting, text) in own.chain(members).chain(join) {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains("//"));
        if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            findings.add(format!("{setting}: {text:?} is not host:port"));
        }
    }
}
