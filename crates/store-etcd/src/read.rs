//! Linearizable reads: asks etcd, which asks a majority, where the head is, and waits until the copy is there.

use graticule_store::CommitError;

use crate::failure::Failure;
use crate::store::Shared;

/// Returns once everything that was acknowledged anywhere before the call is readable here.
pub(crate) async fn barrier(shared: &Shared) -> Result<(), CommitError> {
    let mut reason = "etcd does not answer in time".to_owned();
    tokio::select! {
        biased;
        () = shared.closing.cancelled() => {
            return Err(CommitError::Unavailable("the store is closed".into()));
        }
        reached = attempts(shared, &mut reason) => return reached,
        () = shared.requests.clock.sleep(shared.options.write_timeout) => {}
    }
    Err(CommitError::Unavailable(reason))
}

async fn attempts(shared: &Shared, reason: &mut String) -> Result<(), CommitError> {
    let mut failures = 0;
    loop {
        if let Some(stopped) = shared.stopped() {
            return Err(CommitError::Unavailable(stopped.to_string()));
        }
        match shared.requests.head(&shared.keys.head()).await {
            Ok(head) => {
                "this replica does not follow etcd".clone_into(reason);
                let mut moves = shared.replica.moves();
                // Ends when the replica does; the caller has a limit of time.
                let _ = moves.wait_for(|at| *at >= head).await;
                return Ok(());
            }
            Err(Failure::Refused(refused)) => return Err(CommitError::Unavailable(refused)),
            Err(failure) => {
                failure.reason().clone_into(reason);
                failures += 1;
                shared.requests.pause(failures, &failure).await;
            }
        }
    }
}
