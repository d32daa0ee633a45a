//! Runs one member: starts openraft over the log and the state machine, and starts it again in place when the disk
//! failed or the cluster was given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graticule_runtime::supervisor::chain;
use graticule_runtime::{Clock, Random};
use graticule_store::{Health, Leader, Leadership};
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftMetrics;
use openraft::{Raft, ServerState};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::follow::follow;
use crate::log::Log;
use crate::machine::{Machine, MachineHandle, blocking};
use crate::network::{Network, Peer};
use crate::options::{Form, Options};
use crate::store::OpenError;
use crate::types::{Member, MemberId, Types};
use crate::{identity, recovery, wire};

pub(crate) type RaftHandle = Raft<Types, MachineHandle>;

/// What the parts of a member share.
pub(crate) struct Shared {
    pub(crate) id: MemberId,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) machine: Arc<Machine>,
    pub(crate) network: Network,
    /// Connections to the last leader, for what is forwarded.
    pub(crate) leader: Mutex<Option<(MemberId, Arc<Peer>)>>,
    /// When a leader was heard of last, on the clock.
    pub(crate) heard: Mutex<Option<Duration>>,
    /// Whether it has had everything that was acknowledged before it started.
    pub(crate) is_caught_up: AtomicBool,
    /// None while the member starts again.
    pub(crate) running: RwLock<Option<Running>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) health: RwLock<Health>,
    pub(crate) recover: mpsc::Sender<Recover>,
    pub(crate) closing: CancellationToken,
}

/// Asks for [`recovery::stand_alone`] and waits for its outcome.
pub(crate) type Recover = oneshot::Sender<Result<(), OpenError>>;

/// A started member.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) raft: RaftHandle,
    pub(crate) log: Log,
}

pub(crate) fn start_error(error: impl ToString) -> OpenError {
    OpenError::Start(error.to_string())
}

impl Shared {
    pub(crate) fn running(&self) -> Option<Running> {
        self.running.read().clone()
    }

    /// What the others should know of this member.
    pub(crate) fn member(&self) -> Member {
        Member { name: self.options.name.clone(), address: self.options.address.clone() }
    }

    /// A call of a leader was accepted.
    pub(crate) fn heard_of_leader(&self) {
        *self.heard.lock() = Some(self.clock.monotonic());
        self.network.is_removed.store(false, Ordering::Relaxed);
    }

    /// Connections to a member that leads.
    pub(crate) fn peer(&self, id: MemberId, member: Member) -> Arc<Peer> {
        let mut leader = self.leader.lock();
        if let Some((known, peer)) = &*leader
            && *known == id
            && *peer.member() == member
        {
            return peer.clone();
        }
        let peer = Arc::new(self.network.peer(id, member));
        *leader = Some((id, peer.clone()));
        peer
    }

    /// The leader that the members agreed on last, with connections to it, if it is another member.
    pub(crate) fn leading_peer(&self) -> Option<Arc<Peer>> {
        let metrics = self.running()?.raft.metrics().borrow_watched().clone();
        let leader = metrics.current_leader.filter(|leader| *leader != self.id)?;
        let member = metrics.membership_config.membership().get_node(&leader)?.clone();
        Some(self.peer(leader, member))
    }

    /// Accepts calls of members of the own cluster; a member that waits to join takes the first one's.
    pub(crate) fn join_cluster(&self, cluster: &str) -> Result<(), String> {
        let mut own = self.network.cluster.lock();
        if *own == cluster && !cluster.is_empty() {
            return Ok(());
        }
        if !own.is_empty() || cluster.is_empty() {
            return Err(format!("cluster {cluster:?} calls, this member belongs to {:?}", *own));
        }
        self.write_identity(cluster).map_err(|error| chain(&error))?;
        *own = cluster.into();
        Ok(())
    }

    /// Makes the identity of the cluster durable.
    pub(crate) fn write_identity(&self, cluster: &str) -> Result<(), OpenError> {
        let node = wire::Node { id: self.id, cluster: cluster.into() };
        Ok(identity::write(&self.machine.disk()?, &node)?)
    }
}

/// Starts openraft over a log.
pub(crate) async fn start(shared: &Shared, log: Log) -> Result<Running, OpenError> {
    let config = shared.options.raft().map_err(start_error)?;
    let machine = MachineHandle(shared.machine.clone());
    let raft = Raft::new(shared.id, Arc::new(config), shared.network.clone(), log.clone(), machine)
        .await
        .map_err(start_error)?;
    let is_initialized = raft.is_initialized().await.map_err(start_error)?;
    let cluster = shared.network.cluster.lock().clone();
    if is_initialized && cluster.is_empty() {
        // It ended between the two steps of `initialize`. Who joins writes the identity first.
        let cluster = shared.random.uuid();
        shared.write_identity(&cluster)?;
        *shared.network.cluster.lock() = cluster;
    }
    if !is_initialized && shared.options.form == Form::Alone {
        initialize(shared, &raft).await?;
    }
    Ok(Running { raft, log })
}

/// Makes a new member the first one of a cluster.
pub(crate) async fn initialize(shared: &Shared, raft: &RaftHandle) -> Result<(), OpenError> {
    {
        let mut cluster = shared.network.cluster.lock();
        if !cluster.is_empty() {
            return Err(start_error(format!("this member waits for cluster {:?}", *cluster)));
        }
        // From here on no other cluster can take this member.
        *cluster = shared.random.uuid();
    }
    let cluster = shared.network.cluster.lock().clone();
    let members = BTreeMap::from([(shared.id, shared.member())]);
    if let Err(error) = raft.initialize(members).await {
        shared.network.cluster.lock().clear();
        return Err(start_error(error));
    }
    shared.write_identity(&cluster)
}

/// Waits until a member that is the only voter leads and has applied everything in its log.
pub(crate) async fn recovered(shared: &Shared, running: &Running) -> Result<(), OpenError> {
    let id = shared.id;
    // Not from the metrics, which may be a little older than the membership.
    let is_alone = running.raft.with_raft_state(move |state| {
        let mut voters = state.membership_state.effective().voter_ids();
        voters.next() == Some(id) && voters.next().is_none()
    });
    if !is_alone.await.map_err(start_error)? {
        return Ok(());
    }
    let mut metrics = running.raft.metrics();
    if metrics.borrow_watched().state != ServerState::Leader {
        // Nobody else could be elected, so that there is nothing to wait for.
        running.raft.trigger().elect(false).await.map_err(start_error)?;
    }
    // The first entry of its own term follows everything that was ever acknowledged.
    let has_all = |metrics: &RaftMetrics<Types>| {
        let applied = metrics.last_applied.map(|applied| applied.leader_id.term);
        let leads = metrics.state == ServerState::Leader && metrics.current_leader == Some(shared.id);
        metrics.running_state.is_err() || (leads && applied == Some(metrics.current_term))
    };
    loop {
        let now = metrics.borrow_and_update().clone();
        if has_all(&now) {
            now.running_state.map_err(start_error)?;
            shared.is_caught_up.store(true, Ordering::Relaxed);
            return Ok(());
        }
        metrics.changed().await.map_err(|_| OpenError::Start("it stopped at once".into()))?;
    }
}

/// Why a member does not run any more.
enum Ended {
    Closed,
    Failed(String),
    Recover(Recover),
}

/// Follows a member until the store is closed; starts it again when it fails.
pub(crate) async fn run(shared: Arc<Shared>, mut running: Running, mut requests: mpsc::Receiver<Recover>) {
    loop {
        let ended = tokio::select! {
            biased;
            () = shared.closing.cancelled() => Ended::Closed,
            Some(request) = requests.recv() => Ended::Recover(request),
            failure = follow(&shared, &running) => Ended::Failed(failure),
        };
        shared.running.write().take();
        if let Err(error) = running.raft.shutdown().await {
            tracing::debug!(error = %error, "a member of the store ended with a panic");
        }
        let Running { raft, log } = running;
        drop(raft);
        shared.leadership.send_modify(|leadership| leadership.leader = Leader::Unknown);
        let next = match ended {
            Ended::Closed => return,
            Ended::Recover(request) => recover(&shared, log, request).await,
            Ended::Failed(failure) => {
                drop(log);
                tracing::error!(reason = failure, "the store cannot write; it tries again until it can");
                *shared.health.write() = Health::ReadOnly(for_clients(failure));
                None
            }
        };
        running = match next {
            Some(next) => next,
            None => {
                let Some(next) = restart(&shared).await else { return };
                tracing::info!("the store writes again");
                next
            }
        };
        *shared.running.write() = Some(running.clone());
    }
}

/// What clients hear of a failure; the log has all of it. openraft passes errors on as text only.
fn for_clients(reason: String) -> String {
    if reason.to_lowercase().contains("no space left") {
        "the disk is full; reads go on".into()
    } else {
        reason
    }
}

/// Makes a cluster of one out of a member that has stopped, and starts it. None = start it as it is.
async fn recover(shared: &Shared, log: Log, request: Recover) -> Option<Running> {
    let outcome = async {
        recovery::stand_alone(shared, &log).await?;
        let running = start(shared, log).await?;
        recovered(shared, &running).await?;
        Ok(running)
    };
    let (running, outcome) = match outcome.await {
        Ok(running) => (Some(running), Ok(())),
        Err(error) => (None, Err(error)),
    };
    if let Some(running) = &running {
        crate::follow::note_now(shared, running);
        *shared.running.write() = Some(running.clone());
    }
    // The asker may have gone.
    let _ = request.send(outcome);
    running
}

/// Tries until it works. None when the store is closed.
async fn restart(shared: &Arc<Shared>) -> Option<Running> {
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return None,
            () = shared.clock.sleep(shared.options.retry) => {}
        }
        match reopen(shared).await {
            Ok(running) => return Some(running),
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(reason, "the store still cannot write");
                *shared.health.write() = Health::ReadOnly(for_clients(reason));
            }
        }
    }
}

/// Starts a member whose log failed on what is on the disk.
async fn reopen(shared: &Shared) -> Result<Running, OpenError> {
    let (disk, options, machine) = (shared.machine.disk()?, shared.options.log, shared.machine.clone());
    let log = blocking(options.inline, move || -> Result<Log, OpenError> {
        let log = Log::open(disk, options, false, true)?;
        let (_, last) = log.head();
        // What the others agreed on may have been applied before it was durable here: then only memory has it.
        if machine.applied() > last.map_or(0, |last| last.index) {
            machine.write_snapshot()?;
        }
        Ok(log)
    });
    let log = log.await??;
    let running = start(shared, log).await?;
    recovered(shared, &running).await?;
    Ok(running)
}
