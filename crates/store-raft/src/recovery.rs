//! What a member does when the majority of its cluster is lost for good.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;

use crate::log::Log;
use crate::node::{Shared, start_error};
use crate::store::OpenError;
use crate::types::{Entry, Membership, Vote, log_id};

/// Makes a stopped member the only voter of a new cluster. It keeps everything in its log, committed or not.
pub(crate) async fn stand_alone(shared: &Shared, log: &Log) -> Result<(), OpenError> {
    let (vote, last) = log.head();
    let Some(last) = last else {
        return Err(start_error("this member has never been in a cluster: there is nothing to recover"));
    };
    // The identity first: after a crash between the two, nobody takes this member for one of the old cluster.
    let cluster = shared.random.uuid();
    shared.write_identity(&cluster)?;
    *shared.network.cluster.lock() = cluster;
    let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
    let voters = vec![BTreeSet::from([shared.id])];
    let members = BTreeMap::from([(shared.id, shared.member())]);
    let membership = Membership::new(voters, members).map_err(start_error)?;
    let entry = Entry::new(log_id(term, last.index + 1), EntryPayload::Membership(membership));
    log.force(Vote::new(term, shared.id), entry).await?;
    tracing::warn!(
        last = last.index,
        "this member is a cluster of its own now; what only lost members had acknowledged is lost"
    );
    Ok(())
}
