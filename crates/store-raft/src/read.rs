//! Linearizable reads: waits until this member has applied everything that was acknowledged when the read began.

use std::io;

use graticule_store::CommitError;
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};

use crate::node::{Running, Shared};

/// Returns once everything that was acknowledged anywhere before the call is readable here.
pub(crate) async fn barrier(shared: &Shared) -> Result<(), CommitError> {
    let deadline = shared.clock.monotonic() + shared.options.write_timeout;
    let mut leadership = shared.leadership.subscribe();
    let closed = || CommitError::Unavailable("the store is closed".into());
    loop {
        leadership.borrow_and_update();
        let left = deadline.saturating_sub(shared.clock.monotonic());
        let reason = tokio::select! {
            biased;
            reached = attempt(shared) => match reached {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
            () = shared.closing.cancelled() => return Err(closed()),
            () = shared.clock.sleep(left) => "the leader does not answer in time".into(),
        };
        if shared.clock.monotonic() >= deadline {
            return Err(CommitError::Unavailable(reason));
        }
        // Something changes before it makes sense to try again.
        tokio::select! {
            biased;
            _ = leadership.changed() => {}
            () = shared.closing.cancelled() => return Err(closed()),
            () = shared.clock.sleep(shared.options.heartbeat) => {}
        }
    }
}

async fn attempt(shared: &Shared) -> io::Result<()> {
    let stopped = || io::Error::other("the store starts");
    let Running { raft, .. } = shared.running().ok_or_else(stopped)?;
    let index = match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => linearizer.read_log_id().log_id().index,
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
            let leader = shared.leading_peer().ok_or_else(|| io::Error::other("there is no leader"))?;
            let index = leader.read_index(shared.options.election_timeout).await?;
            index.ok_or_else(|| io::Error::other("there is no leader"))?
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    raft.wait(None).applied_index_at_least(Some(index), "a read").await.map_err(io::Error::other)?;
    Ok(())
}
