//! What is done with the members, and what is said about them.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use graticule_api::cluster::{Change, Cluster, ClusterError, Member, Status};
use graticule_store::{Health, Store as _};
use graticule_store_raft::{ClusterError as StoreError, Member as StoreMember, MemberId, MemberStatus};

use super::calls::{Join, State};
use super::{Local, hex};

fn from_store(error: StoreError) -> ClusterError {
    match error {
        StoreError::NoMember(_) | StoreError::LastMember => ClusterError::Refused(error.to_string()),
        StoreError::NoLeader | StoreError::Failed(_) => ClusterError::Unavailable(error.to_string()),
    }
}

impl Local {
    /// What this member says about itself.
    pub(super) async fn state(&self) -> State {
        let sees = self.sees.lock().iter().map(|id| hex(*id)).collect();
        State {
            id: hex(self.store.id()),
            name: self.name.clone(),
            address: self.address.clone(),
            cluster: self.store.cluster(),
            is_initialized: self.is_initialized().await,
            sees,
        }
    }

    /// Whether it belongs to a cluster. One that cannot say it now does: others only wait when there is no cluster.
    pub(super) async fn is_initialized(&self) -> bool {
        self.store.is_initialized().await.unwrap_or(true)
    }

    /// All members, as far as this one knows.
    pub(super) fn members(&self) -> Vec<Member> {
        let own = self.store.id();
        let shown = |status: MemberStatus| Member {
            role: match (status.leads, status.votes) {
                (true, _) => "leader",
                (false, true) => "follower",
                (false, false) => "learner",
            }
            .into(),
            id: hex(status.id),
            name: status.member.name,
            address: status.member.address,
            votes: status.votes,
            lag: status.lag,
            health: if status.id == own { self.health() } else { String::new() },
        };
        self.store.members().into_iter().map(shown).collect()
    }

    fn health(&self) -> String {
        match self.store.health() {
            Health::Ready => "ready".into(),
            Health::Stale(reason) => format!("stale: {reason}"),
            Health::ReadOnly(reason) => format!("read only: {reason}"),
        }
    }

    /// Adds a member that asks for it. One that was at the same address before has lost what it had, and goes.
    pub(super) async fn admit(&self, join: &Join) -> Result<(), ClusterError> {
        let id = number(&join.id)?;
        if join.address.is_empty() {
            return Err(ClusterError::Refused("the member has no address".into()));
        }
        if !self.is_initialized().await {
            return Err(ClusterError::Unavailable("this member belongs to no cluster yet".into()));
        }
        let member = StoreMember { name: join.name.clone(), address: join.address.clone() };
        let members = self.store.members();
        if !members.iter().any(|known| known.id == id && known.votes && known.member == member) {
            tracing::info!(member = join.id, address = join.address, "a member joins");
            self.store.add_member(id, member).await.map_err(from_store)?;
        }
        for other in members.iter().filter(|other| other.id != id && other.member.address == join.address) {
            tracing::info!(member = hex(other.id), address = join.address, "its place was taken");
            self.store.remove_member(other.id).await.map_err(from_store)?;
        }
        Ok(())
    }

    async fn add(&self, address: &str) -> Result<(), ClusterError> {
        let state = self.calls()?.state(address).await;
        let state = state.map_err(|error| ClusterError::Unavailable(error.to_string()))?;
        if !state.cluster.is_empty() && state.cluster != self.store.cluster() {
            return Err(ClusterError::Refused(format!(
                "the member at {address} belongs to another cluster; give it an empty data directory"
            )));
        }
        self.admit(&Join { id: state.id, name: state.name, address: address.to_owned() }).await
    }

    async fn hand_over(&self, to: Option<&str>) -> Result<(), ClusterError> {
        let to = match to {
            Some(member) => self.find(member)?,
            None => {
                let members = self.seen_by_leader().await;
                let others = members.iter().filter(|member| member.votes && member.role != "leader");
                let best = others.min_by_key(|member| member.lag.unwrap_or(u64::MAX));
                let nobody = || ClusterError::Refused("there is no other member that votes".into());
                number(&best.ok_or_else(nobody)?.id)?
            }
        };
        self.store.transfer_leadership(to).await.map_err(from_store)
    }

    /// The members with what only the leader knows: how far each is.
    async fn seen_by_leader(&self) -> Vec<Member> {
        let mut members = self.members();
        let leader = members.iter().find(|member| member.role == "leader").cloned();
        if let (Some(leader), Some(calls)) = (leader, &self.calls)
            && leader.id != hex(self.store.id())
            && let Ok(seen) = calls.members(&leader.address).await
        {
            for member in &mut members {
                member.lag = seen.iter().find(|seen| seen.id == member.id).and_then(|seen| seen.lag);
            }
        }
        members
    }

    /// The member of this id, address or name.
    fn find(&self, text: &str) -> Result<MemberId, ClusterError> {
        let members = self.store.members();
        let by = |is_it: &dyn Fn(&MemberStatus) -> bool| -> Vec<MemberId> {
            members.iter().filter(|member| is_it(member)).map(|member| member.id).collect()
        };
        let found = [
            by(&|member| hex(member.id) == text),
            by(&|member| member.member.address == text),
            by(&|member| member.member.name == text),
        ];
        match found.iter().find(|found| !found.is_empty()).map(Vec::as_slice) {
            Some([id]) => Ok(*id),
            Some(_) => {
                let reason = format!("{text} is the name of several members; say the id or the address");
                Err(ClusterError::Refused(reason))
            }
            None => Err(ClusterError::NoMember(text.into())),
        }
    }
}

fn number(id: &str) -> Result<MemberId, ClusterError> {
    let wrong = |_| ClusterError::Refused(format!("{id:?} is no id of a member"));
    MemberId::from_str_radix(id, 16).map_err(wrong)
}

/// The API's view.
pub(super) struct Members(pub(super) Arc<Local>);

#[async_trait]
impl Cluster for Members {
    async fn status(&self) -> Result<Status, ClusterError> {
        let local = &self.0;
        let own = hex(local.store.id());
        let mut members = local.seen_by_leader().await;
        let asked = members.iter_mut().filter(|member| member.id != own).map(|member| async {
            let Some(calls) = &local.calls else { return };
            member.health = match calls.state(&member.address).await {
                Ok(state) if state.id == member.id => "ready".into(),
                Ok(_) => "another member is at its address".into(),
                Err(error) => format!("unreachable: {error}"),
            };
        });
        join_all(asked).await;
        let term = local.store.leadership().borrow().term;
        Ok(Status {
            cluster: local.store.cluster(),
            member: own,
            term,
            revision: local.store.snapshot().revision().0,
            health: local.health(),
            members,
        })
    }

    async fn change(&self, change: Change) -> Result<(), ClusterError> {
        let local = &self.0;
        match change {
            Change::Add { address } => local.add(&address).await,
            Change::Remove { member } => {
                let id = local.find(&member)?;
                local.store.remove_member(id).await.map_err(from_store)
            }
            Change::Transfer { member } => local.hand_over(member.as_deref()).await,
            Change::Recover => local.recover().await,
        }
    }
}
