//! Members of a cluster: who there is, adding, removing, handing leadership over, and the last resort when a
//! majority is lost. Every member takes these calls and hands them to the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use graticule_runtime::Drain;
use graticule_runtime::listen::Incoming;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Precondition, ServerState};
use tokio::sync::oneshot;

use crate::network::rpc::{self, ChangeKind, ChangeOutcome};
use crate::network::server;
use crate::node::{self, RaftHandle, Running, Shared};
use crate::store::{OpenError, RaftStore};
use crate::types::{Member, MemberId, Types};
use crate::wire;

/// Time for a new member to catch up; afterwards it goes on learning and can be added again.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Entries that a member may be behind when it becomes a voter or takes over.
const LAG_MAX: u64 = 100;
/// Time for one change of the members to be agreed on.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a leader that is closed to hand over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the members of a cluster cannot be changed now.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nobody can decide it.
    #[error("there is no leader now; if most members are lost for good, recover one of the others")]
    NoLeader,
    /// There is no such member.
    #[error("there is no member {0:016x} that could do this")]
    NoMember(MemberId),
    /// It would leave nobody.
    #[error("the last member that votes cannot be removed")]
    LastMember,
    /// It did not happen, or it is not known whether it did.
    #[error("the members cannot be changed: {0}")]
    Failed(String),
}

/// A member as the cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Number.
    pub id: MemberId,
    /// Name and address.
    pub member: Member,
    /// Whether it votes; others only learn.
    pub votes: bool,
    /// Whether it leads, as far as this member knows.
    pub leads: bool,
    /// Entries that it is behind the leader; known on the leader only.
    pub lag: Option<u64>,
    /// Time since it answered last; known on the leader only, and for others than itself.
    pub silent: Option<Duration>,
}

/// A change of the members.
#[derive(Debug, Clone)]
enum Change {
    Add(MemberId, Member),
    Remove(MemberId),
    Transfer(MemberId),
}

impl Change {
    /// Whether it is about one of these.
    fn is_of_one_of(&self, members: &[MemberStatus]) -> bool {
        let (Change::Add(id, _) | Change::Remove(id) | Change::Transfer(id)) = self;
        members.iter().any(|member| member.id == *id)
    }
}

/// What a leader says to a change.
enum Refused {
    NotLeader,
    Because(ClusterError),
}

impl From<ClusterError> for Refused {
    fn from(error: ClusterError) -> Refused {
        Refused::Because(error)
    }
}

impl RaftStore {
    /// Number of this member.
    pub fn id(&self) -> MemberId {
        self.shared.id
    }

    /// Identity of the cluster; empty until it was joined or [`initialize`](Self::initialize)d.
    pub fn cluster(&self) -> String {
        self.shared.network.cluster.lock().clone()
    }

    /// Answers other members until the drain, or until the store is closed. Connections must come authenticated
    /// as members. End it after [`close`](Self::close), which hands leadership over.
    pub async fn serve(&self, incoming: Incoming, drain: Drain) {
        server::serve(Arc::clone(&self.shared), incoming, drain).await;
    }

    /// Whether this member has been in a cluster, be it one of its own.
    ///
    /// # Errors
    /// The member does not run now.
    pub async fn is_initialized(&self) -> Result<bool, ClusterError> {
        let raft = running(&self.shared)?.raft;
        raft.is_initialized().await.map_err(|error| ClusterError::Failed(error.to_string()))
    }

    /// Makes a member that waits to join ([`Form::Join`](crate::Form::Join)) the first one of a new cluster. Of the
    /// members that are to form a cluster exactly one may do this; the others wait until it adds them.
    ///
    /// # Errors
    /// It is in a cluster, or a cluster has called it already, or its disk fails.
    pub async fn initialize(&self) -> Result<(), ClusterError> {
        if self.is_initialized().await? {
            return Err(ClusterError::Failed("this member is in a cluster already".into()));
        }
        let raft = running(&self.shared)?.raft;
        let failed = |error: OpenError| ClusterError::Failed(error.to_string());
        node::initialize(&self.shared, &raft).await.map_err(failed)
    }

    /// For a cluster whose majority is lost for good: this member becomes the only voter of a cluster with a new
    /// identity, so that old members that come back are refused (empty their data directories and add them).
    ///
    /// It keeps everything in its log, committed or not. What may be lost: writes that were acknowledged by members
    /// that are lost and had not reached this one; choose the member with the highest revision. What may appear:
    /// writes whose outcome was unknown to their writers.
    ///
    /// # Errors
    /// This member was never in a cluster, or its disk fails.
    pub async fn recover_alone(&self) -> Result<(), OpenError> {
        let (reply, outcome) = oneshot::channel();
        let gone = || node::start_error("the store is closed");
        self.shared.recover.send(reply).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// All members, ordered by number.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.shared.running().map(|running| members(&running.raft)).unwrap_or_default()
    }

    /// Adds a member: it learns first, and votes once it has caught up. A known member gets the new name and address.
    /// The member must be reachable at its address, and be new or an earlier member of this cluster.
    ///
    /// # Errors
    /// There is no leader, it does not catch up within a minute, or the change was not committed.
    pub async fn add_member(&self, id: MemberId, member: Member) -> Result<(), ClusterError> {
        change(&self.shared, Change::Add(id, member)).await
    }

    /// Removes a member; what it holds is of no use to it any more. A leader that is removed hands over first.
    ///
    /// # Errors
    /// There is no leader, there is no such member, or the change was not committed.
    pub async fn remove_member(&self, id: MemberId) -> Result<(), ClusterError> {
        change(&self.shared, Change::Remove(id)).await
    }

    /// Hands leadership over; returns when the leader leads no more.
    ///
    /// # Errors
    /// There is no leader, or there is no such member that votes and has caught up.
    pub async fn transfer_leadership(&self, to: MemberId) -> Result<(), ClusterError> {
        change(&self.shared, Change::Transfer(to)).await
    }
}

fn running(shared: &Shared) -> Result<Running, ClusterError> {
    shared.running().ok_or_else(|| ClusterError::Failed("this member does not run now".into()))
}

/// Tells the cluster the name and address that this member has now.
pub(crate) async fn readdress(shared: &Shared) -> Result<(), ClusterError> {
    change(shared, Change::Add(shared.id, shared.member())).await
}

/// Before a leader is closed: somebody else leads, so that writes go on at once.
pub(crate) async fn hand_over(shared: &Shared) {
    let Some(Running { raft, .. }) = shared.running() else { return };
    let members = members(&raft);
    if !members.iter().any(|member| member.leads && member.id == shared.id) {
        return;
    }
    let others = members.iter().filter(|member| member.votes && member.id != shared.id);
    let answers = |silent: Duration| silent < shared.options.election_timeout;
    let others = others.filter(|member| member.silent.is_some_and(answers));
    let Some(next) = others.min_by_key(|member| member.lag.unwrap_or(u64::MAX)) else { return };
    if tokio::time::timeout(HAND_OVER_TIMEOUT, transfer(&raft, next.id)).await.is_err() {
        tracing::debug!("nobody took over in time");
    }
}

fn members(raft: &RaftHandle) -> Vec<MemberStatus> {
    let metrics = raft.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
    let leader = metrics.current_leader.filter(|leader| {
        // A vote for itself is not enough.
        *leader != metrics.id || metrics.state == ServerState::Leader
    });
    let last = metrics.last_log_index;
    let lag = |id: &MemberId| {
        let matched = metrics.replication.as_ref()?.get(id)?.as_ref().map_or(0, |matched| matched.index);
        Some(last?.saturating_sub(matched))
    };
    let silent = |id: &MemberId| {
        use openraft::Instant as _;
        Some(metrics.heartbeat.as_ref()?.get(id)?.as_ref()?.elapsed())
    };
    let status = |(id, member): (&MemberId, &Member)| MemberStatus {
        id: *id,
        member: member.clone(),
        votes: voters.contains(id),
        leads: leader == Some(*id),
        lag: lag(id),
        silent: silent(id).filter(|_| *id != metrics.id),
    };
    membership.nodes().map(status).collect()
}

/// Does a change here if this member leads, or hands it to the leader.
async fn change(shared: &Shared, change: Change) -> Result<(), ClusterError> {
    let deadline = shared.clock.monotonic() + shared.options.write_timeout;
    let mut was_tried = false;
    let mut was_member = false;
    loop {
        let raft = running(shared)?.raft;
        was_member |= change.is_of_one_of(&members(&raft));
        let leads = raft.metrics().borrow_watched().state == ServerState::Leader;
        let outcome = if leads { apply(&raft, &change).await } else { forward(shared, &change).await };
        match outcome {
            Ok(()) => return Ok(()),
            // The attempt before this one may have done it, or finished what somebody else began. Nobody has removed
            // what never was a member, however often it was asked for during an election.
            Err(Refused::Because(ClusterError::NoMember(_)))
                if was_tried && was_member && matches!(change, Change::Remove(_)) =>
            {
                return Ok(());
            }
            Err(Refused::Because(error)) => return Err(error),
            Err(Refused::NotLeader) if shared.clock.monotonic() > deadline => {
                return Err(ClusterError::NoLeader);
            }
            Err(Refused::NotLeader) => {
                was_tried = true;
                shared.clock.sleep(shared.options.heartbeat).await;
            }
        }
    }
}

async fn forward(shared: &Shared, change: &Change) -> Result<(), Refused> {
    let peer = shared.leading_peer().ok_or(Refused::NotLeader)?;
    let (kind, id, member) = match change {
        Change::Add(id, member) => (ChangeKind::Add, *id, member.clone()),
        Change::Remove(id) => (ChangeKind::Remove, *id, Member::default()),
        Change::Transfer(id) => (ChangeKind::Transfer, *id, Member::default()),
    };
    let member = wire::Member { id, name: member.name, address: member.address };
    let call = rpc::Change { kind: kind.into(), member: Some(member) };
    // A member may be added in three steps.
    let answer = match peer.change(call, CATCH_UP_TIMEOUT + CHANGE_TIMEOUT * 3).await {
        Ok(answer) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return Err(Refused::NotLeader),
        Err(error) => return Err(ClusterError::Failed(format!("the leader does not answer: {error}")).into()),
    };
    match answer.outcome() {
        ChangeOutcome::Done => Ok(()),
        ChangeOutcome::NotLeader => Err(Refused::NotLeader),
        ChangeOutcome::NoMember => Err(ClusterError::NoMember(id).into()),
        ChangeOutcome::LastMember => Err(ClusterError::LastMember.into()),
        ChangeOutcome::Failed | ChangeOutcome::Unknown => Err(ClusterError::Failed(answer.reason).into()),
    }
}

/// What another member asks the leader for.
pub(crate) async fn answer_change(raft: &RaftHandle, call: rpc::Change) -> rpc::ChangeAnswer {
    let kind = call.kind();
    let outcome = match (kind, call.member) {
        (ChangeKind::Add, Some(member)) => {
            let known = Member { name: member.name, address: member.address };
            apply(raft, &Change::Add(member.id, known)).await
        }
        (ChangeKind::Remove, Some(member)) => apply(raft, &Change::Remove(member.id)).await,
        (ChangeKind::Transfer, Some(member)) => apply(raft, &Change::Transfer(member.id)).await,
        (ChangeKind::Unknown, _) | (_, None) => {
            Err(ClusterError::Failed("the leader does not know this change".into()).into())
        }
    };
    let (outcome, reason) = match outcome {
        Ok(()) => (ChangeOutcome::Done, String::new()),
        Err(Refused::NotLeader) => (ChangeOutcome::NotLeader, String::new()),
        Err(Refused::Because(error)) => match error {
            ClusterError::NoLeader => (ChangeOutcome::NotLeader, String::new()),
            ClusterError::NoMember(_) => (ChangeOutcome::NoMember, String::new()),
            ClusterError::LastMember => (ChangeOutcome::LastMember, String::new()),
            ClusterError::Failed(reason) => (ChangeOutcome::Failed, reason),
        },
    };
    rpc::ChangeAnswer { outcome: outcome.into(), reason }
}

/// Does a change on the leader.
async fn apply(raft: &RaftHandle, change: &Change) -> Result<(), Refused> {
    match change {
        Change::Add(id, member) => add(raft, *id, member).await,
        Change::Remove(id) => remove(raft, *id).await,
        Change::Transfer(id) => {
            let members = members(raft);
            if !members.iter().any(|member| member.id == raft_id(raft) && member.leads) {
                return Err(Refused::NotLeader);
            }
            if *id == raft_id(raft) {
                return Ok(());
            }
            let Some(next) = members.iter().find(|member| member.id == *id && member.votes) else {
                return Err(ClusterError::NoMember(*id).into());
            };
            if let Some(lag) = next.lag
                && lag > LAG_MAX
            {
                let reason = format!("the other member is {lag} entries behind; it could not take over now");
                return Err(ClusterError::Failed(reason).into());
            }
            let late = || ClusterError::Failed("the other member did not take over in time".into());
            tokio::time::timeout(CHANGE_TIMEOUT, transfer(raft, *id)).await.map_err(|_| late())?;
            Ok(())
        }
    }
}

fn raft_id(raft: &RaftHandle) -> MemberId {
    *raft.node_id()
}

async fn add(raft: &RaftHandle, id: MemberId, member: &Member) -> Result<(), Refused> {
    let members = members(raft);
    let known = members.iter().find(|known| known.id == id);
    let one = BTreeMap::from([(id, member.clone())]);
    match known {
        None => agree(raft, ChangeMembers::AddNodes(one)).await?,
        Some(known) if known.member != *member => agree(raft, ChangeMembers::SetNodes(one)).await?,
        Some(_) => {}
    }
    let adds = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
    if known.is_some_and(|known| known.votes) {
        // It votes for good once no change is left half-way or not agreed on.
        return match (is_between(raft), is_settled(raft)) {
            (true, _) => agree(raft, adds).await,
            (false, true) => Ok(()),
            (false, false) => Err(Refused::NotLeader),
        };
    }
    caught_up(raft, id).await?;
    agree(raft, adds).await
}

/// Waits until a member that learns has almost everything.
async fn caught_up(raft: &RaftHandle, id: MemberId) -> Result<(), Refused> {
    let mut metrics = raft.metrics();
    let wait = async {
        loop {
            let now = metrics.borrow_and_update().clone();
            let Some(replication) = &now.replication else { return Err(Refused::NotLeader) };
            let matched = replication.get(&id).copied().flatten();
            if matched
                .is_some_and(|matched| matched.index + LAG_MAX >= now.last_log_index.unwrap_or_default())
            {
                return Ok(());
            }
            if metrics.changed().await.is_err() {
                return Err(Refused::NotLeader);
            }
        }
    };
    let late = || {
        let reason = format!("member {id:016x} is not reachable or has not caught up; it goes on learning");
        ClusterError::Failed(reason)
    };
    tokio::time::timeout(CATCH_UP_TIMEOUT, wait).await.map_err(|_| late())?
}

async fn remove(raft: &RaftHandle, id: MemberId) -> Result<(), Refused> {
    let members = members(raft);
    let Some(member) = members.iter().find(|member| member.id == id) else {
        // What is not agreed on may still be undone, and then the member votes again.
        let error = Refused::from(ClusterError::NoMember(id));
        return Err(if is_settled(raft) { error } else { Refused::NotLeader });
    };
    let one = BTreeSet::from([id]);
    if !member.votes {
        return agree(raft, ChangeMembers::RemoveNodes(one)).await;
    }
    if members.iter().filter(|member| member.votes).count() == 1 {
        return Err(ClusterError::LastMember.into());
    }
    agree(raft, ChangeMembers::RemoveVoters(one)).await
}

/// Whether the last change of the voters is left half-way.
fn is_between(raft: &RaftHandle) -> bool {
    raft.metrics().borrow_watched().membership_config.membership().get_joint_config().len() > 1
}

/// Whether the members that this leader goes by are agreed on.
fn is_settled(raft: &RaftHandle) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.log_id() == metrics.committed_membership_config.log_id()
}

/// Proposes a change and waits until it is committed.
///
/// A change of the voters is two entries: one in which the old and the new ones must both agree, and one that leaves
/// the old ones behind. What another change left between the two is finished first. So a change always begins at
/// members of whom this leader is one and stays one at the first entry, without which openraft takes no second one.
async fn agree(raft: &RaftHandle, members: ChangeMembers<MemberId, Member>) -> Result<(), Refused> {
    let known = raft.metrics().borrow_watched().membership_config.clone();
    // A leader that was removed leads for a moment more; openraft takes no changes of the members from it.
    if !known.membership().voter_ids().any(|id| id == raft_id(raft)) {
        return Err(Refused::NotLeader);
    }
    let is_between = known.membership().get_joint_config().len() > 1;
    let members = if is_between { ChangeMembers::AddVoterIds(BTreeSet::new()) } else { members };
    let known = Precondition::LastMembershipLogId { last_membership_log_id: *known.log_id() };
    let late = || ClusterError::Failed("no majority has agreed in time; it may still happen".into());
    let changed = raft.change_membership_if(members, false, [known]);
    let changed = tokio::time::timeout(CHANGE_TIMEOUT, changed).await;
    match changed.map_err(|_| late())? {
        // The caller looks again at what there is now.
        Ok(_) if is_between => Err(Refused::NotLeader),
        Ok(_) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> Refused {
    match error {
        // Somebody else changed the members meanwhile: looked at again, like after a change of the leader.
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_)
            | ClientWriteError::PreconditionFailed(_)
            | ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)),
        ) => Refused::NotLeader,
        error => ClusterError::Failed(error.to_string()).into(),
    }
}

/// Asks a member to take over and waits until this one leads no more.
async fn transfer(raft: &RaftHandle, to: MemberId) {
    let mut metrics = raft.metrics();
    if raft.trigger().transfer_leader(to).await.is_err() {
        return;
    }
    while metrics.borrow_and_update().state == ServerState::Leader {
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
