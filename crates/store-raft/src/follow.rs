//! Follows a running member: who leads, what works, when a snapshot is due; and what a member does once when it
//! comes (back) to its cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use graticule_store::{Health, Leader, Leadership};
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftMetrics;
use openraft::{Instant as _, ServerState};

use crate::node::{Running, Shared};
use crate::types::{MemberId, Types};
use crate::{cluster, read};

/// The log grows by this part of the last snapshot before the next one: less would be written too often with many
/// resources, more would be read too long at a start.
const LOG_SHARE: usize = 4;

/// Keeps leadership and health current and asks for snapshots. Returns why the member stopped.
pub(crate) async fn follow(shared: &Shared, running: &Running) -> String {
    let mut metrics = running.raft.metrics();
    // The snapshot that there was, and the length of the log behind it, when the next one was asked for.
    let mut asked = (None, 0);
    let mut purged = running.log.purged();
    loop {
        let now = metrics.borrow_and_update().clone();
        if let Err(error) = &now.running_state {
            return error.to_string();
        }
        note(shared, &now);
        // Entries that are kept for members that lag do not count: they may be many megabytes.
        let covered = now.snapshot.map(|snapshot| snapshot.index);
        let grown = running.log.len_after(covered);
        let due = shared.options.snapshot_after.max(shared.machine.snapshot_len() / LOG_SHARE);
        // What was asked for may still be written; but it may also have come to nothing.
        let is_asked = asked.0 == covered && grown < asked.1 + shared.options.snapshot_after;
        if grown > due && !is_asked && now.last_applied.map(|applied| applied.index) > covered {
            asked = (covered, grown);
            if let Err(error) = running.raft.trigger().snapshot().await {
                return error.to_string();
            }
        }
        let too_long = running.log.excess(covered, shared.options.bytes_kept);
        let too_many = covered.and_then(|covered| covered.checked_sub(shared.options.entries_kept));
        let excess = too_long.max(too_many);
        if excess > purged {
            // A member that lags behind it is sent the snapshot.
            purged = excess;
            if let Some(upto) = excess
                && let Err(error) = running.raft.trigger().purge_log(upto).await
            {
                return error.to_string();
            }
        }
        // A leader that falls silent changes nothing here.
        let looks_again = !is_alone(shared, &now) || !shared.is_caught_up.load(Ordering::Relaxed);
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() {
                return "it has ended".into();
            },
            () = shared.clock.sleep(shared.options.election_timeout / 4), if looks_again => {}
        }
    }
}

/// As [`follow`] would, before it runs.
pub(crate) fn note_now(shared: &Shared, running: &Running) {
    note(shared, &running.raft.metrics().borrow_watched().clone());
}

fn is_alone(shared: &Shared, now: &RaftMetrics<Types>) -> bool {
    let mut voters = now.membership_config.membership().voter_ids();
    voters.next() == Some(shared.id) && voters.next().is_none()
}

fn note(shared: &Shared, now: &RaftMetrics<Types>) {
    let members = now.membership_config.membership();
    {
        let mut known = shared.network.members.lock();
        if !members.nodes().map(|(id, member)| (*id, member)).eq(known.iter().map(|(id, m)| (*id, m))) {
            *known = members.nodes().map(|(id, member)| (*id, member.clone())).collect();
        }
    }
    let leader = match now.current_leader {
        Some(leader) if leader == shared.id => {
            if now.state == ServerState::Leader && (is_alone(shared, now) || has_quorum(shared, now)) {
                Leader::Myself
            } else {
                Leader::Unknown
            }
        }
        Some(leader) if hears_leader(shared) => Leader::Other(name_of(now, leader)),
        Some(_) | None => Leader::Unknown,
    };
    let next = Leadership { term: now.current_term, leader };
    *shared.health.write() = health(shared, &next.leader);
    shared.leadership.send_if_modified(|leadership| {
        let differs = *leadership != next;
        if differs {
            *leadership = next;
        }
        differs
    });
}

fn health(shared: &Shared, leader: &Leader) -> Health {
    if shared.network.is_removed.load(Ordering::Relaxed) {
        return Health::Stale(REMOVED.into());
    }
    match leader {
        Leader::Unknown if shared.network.cluster.lock().is_empty() => {
            Health::Stale("this member waits until a cluster adds it".into())
        }
        Leader::Unknown => Health::Stale("there is no leader".into()),
        Leader::Myself | Leader::Other(_) if !shared.is_caught_up.load(Ordering::Relaxed) => {
            Health::Stale("this member catches up with the leader".into())
        }
        Leader::Myself | Leader::Other(_) => Health::Ready,
    }
}

/// What a member says that was removed.
pub(crate) const REMOVED: &str = "this member was removed from its cluster";

/// Whether a majority answered this leader so recently that nobody else can have been elected.
fn has_quorum(shared: &Shared, now: &RaftMetrics<Types>) -> bool {
    now.last_quorum_acked.is_some_and(|acked| acked.elapsed() < shared.options.election_timeout * 2)
}

/// Whether the leader spoke to this member so recently that it probably still leads.
fn hears_leader(shared: &Shared) -> bool {
    let limit = shared.options.election_timeout * 2;
    shared.heard.lock().is_some_and(|heard| shared.clock.monotonic().saturating_sub(heard) < limit)
}

fn name_of(now: &RaftMetrics<Types>, id: MemberId) -> String {
    let member = now.membership_config.membership().get_node(&id);
    member
        .map(|member| member.name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("{id:016x}"))
}

/// Once a leader is there: catches up with it, and tells the cluster when this member has another name or address.
pub(crate) async fn arrive(shared: Arc<Shared>) {
    let work = async {
        while read::barrier(&shared).await.is_err() {
            shared.clock.sleep(shared.options.retry).await;
        }
        shared.is_caught_up.store(true, Ordering::Relaxed);
        loop {
            let known = shared.network.members.lock().get(&shared.id).cloned();
            if known.is_none_or(|known| known == shared.member()) {
                return;
            }
            if let Err(error) = cluster::readdress(&shared).await {
                tracing::debug!(%error, "the cluster does not know the new address of this member yet");
            }
            shared.clock.sleep(shared.options.retry).await;
        }
    };
    tokio::select! {
        biased;
        () = shared.closing.cancelled() => {}
        () = work => {}
    }
}
