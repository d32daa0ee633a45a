//! Runs one member: starts openraft over the log and the state machine, follows who leads, takes snapshots, and
//! starts again in place when the disk failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_runtime::supervisor::chain;
use graticule_runtime::{Clock, Random};
use graticule_store::{Health, Leader, Leadership};
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftMetrics;
use openraft::{Raft, ServerState};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::log::Log;
use crate::machine::{Machine, MachineHandle, blocking};
use crate::network::NoNetwork;
use crate::options::Options;
use crate::store::OpenError;
use crate::types::{Member, MemberId, Types};

pub(crate) type RaftHandle = Raft<Types, MachineHandle>;

/// What the parts of a member share.
pub(crate) struct Shared {
    pub(crate) id: MemberId,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) machine: Arc<Machine>,
    /// None while the member starts again.
    pub(crate) running: RwLock<Option<Running>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) health: RwLock<Health>,
    pub(crate) closing: CancellationToken,
}

/// A started member.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) raft: RaftHandle,
    pub(crate) log: Log,
}

impl Shared {
    pub(crate) fn running(&self) -> Option<Running> {
        self.running.read().clone()
    }
}

/// Starts openraft over a log.
pub(crate) async fn start(shared: &Shared, log: Log) -> Result<Running, OpenError> {
    let config = shared.options.raft().map_err(|error| OpenError::Start(error.to_string()))?;
    let machine = MachineHandle(shared.machine.clone());
    let raft = Raft::new(shared.id, Arc::new(config), NoNetwork, log.clone(), machine)
        .await
        .map_err(|error| OpenError::Start(error.to_string()))?;
    let is_initialized = raft.is_initialized().await.map_err(|error| OpenError::Start(error.to_string()))?;
    if !is_initialized {
        let member = Member { name: shared.options.name.clone(), address: String::new() };
        raft.initialize(BTreeMap::from([(shared.id, member)]))
            .await
            .map_err(|error| OpenError::Start(error.to_string()))?;
    }
    Ok(Running { raft, log })
}

/// Waits until a member that is the only voter leads and has applied everything in its log.
pub(crate) async fn recovered(shared: &Shared, running: &Running) -> Result<(), OpenError> {
    let id = shared.id;
    // Not from the metrics, which may be a little older than the membership.
    let is_alone = running.raft.with_raft_state(move |state| {
        let mut voters = state.membership_state.effective().voter_ids();
        voters.next() == Some(id) && voters.next().is_none()
    });
    if !is_alone.await.map_err(|error| OpenError::Start(error.to_string()))? {
        return Ok(());
    }
    let mut metrics = running.raft.metrics();
    if metrics.borrow_watched().state != ServerState::Leader {
        // Nobody else could be elected, so that there is nothing to wait for.
        running.raft.trigger().elect(false).await.map_err(|error| OpenError::Start(error.to_string()))?;
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
            return now.running_state.map_err(|error| OpenError::Start(error.to_string()));
        }
        metrics.changed().await.map_err(|_| OpenError::Start("it stopped at once".into()))?;
    }
}

/// Follows a member until the store is closed; starts it again when it fails.
pub(crate) async fn run(shared: Arc<Shared>, mut running: Running) {
    loop {
        let failure = tokio::select! {
            () = shared.closing.cancelled() => None,
            failure = follow(&shared, &running) => Some(failure),
        };
        shared.running.write().take();
        if let Err(error) = running.raft.shutdown().await {
            tracing::debug!(error = %error, "a member of the store ended with a panic");
        }
        drop(running);
        let Some(failure) = failure else { return };
        tracing::error!(reason = failure, "the store cannot write; it tries again until it can");
        shared.leadership.send_modify(|leadership| leadership.leader = Leader::Unknown);
        *shared.health.write() = Health::ReadOnly(for_clients(failure));
        let Some(next) = restart(&shared).await else { return };
        running = next;
        tracing::info!("the store writes again");
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

/// Tries until it works. None when the store is closed.
async fn restart(shared: &Arc<Shared>) -> Option<Running> {
    loop {
        tokio::select! {
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
    let (disk, log) = (shared.machine.disk()?, shared.options.log);
    let log = blocking(log.inline, move || Log::open(disk, log, false, true)).await??;
    let running = start(shared, log).await?;
    recovered(shared, &running).await?;
    Ok(running)
}

/// Keeps leadership and health current and asks for snapshots. Returns why the member stopped.
async fn follow(shared: &Shared, running: &Running) -> String {
    let mut metrics = running.raft.metrics();
    let mut snapshot_len = 0;
    loop {
        let now = metrics.borrow_and_update().clone();
        if let Err(error) = &now.running_state {
            return error.to_string();
        }
        note(shared, &now);
        if running.log.len() > shared.options.snapshot_after.max(snapshot_len / 2)
            && now.last_applied.map(|applied| applied.index) > now.snapshot.map(|snapshot| snapshot.index)
        {
            // The log shrinks once the snapshot is there; until then this changes nothing.
            snapshot_len = running.log.len();
            if let Err(error) = running.raft.trigger().snapshot().await {
                return error.to_string();
            }
        }
        if metrics.changed().await.is_err() {
            return "it has ended".into();
        }
    }
}

/// As [`follow`] would, before it runs.
pub(crate) fn note_now(shared: &Shared, running: &Running) {
    note(shared, &running.raft.metrics().borrow_watched().clone());
}

fn note(shared: &Shared, now: &RaftMetrics<Types>) {
    let leader = match now.current_leader {
        Some(leader) if leader == shared.id => {
            if now.state == ServerState::Leader {
                Leader::Myself
            } else {
                Leader::Unknown
            }
        }
        Some(leader) => Leader::Other(name_of(now, leader)),
        None => Leader::Unknown,
    };
    let next = Leadership { term: now.current_term, leader };
    *shared.health.write() = match &next.leader {
        Leader::Unknown => Health::Stale("there is no leader".into()),
        Leader::Myself | Leader::Other(_) => Health::Ready,
    };
    shared.leadership.send_if_modified(|leadership| {
        let differs = *leadership != next;
        if differs {
            *leadership = next;
        }
        differs
    });
}

fn name_of(now: &RaftMetrics<Types>, id: MemberId) -> String {
    let member = now.membership_config.membership().get_node(&id);
    member
        .map(|member| member.name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("{id:016x}"))
}
