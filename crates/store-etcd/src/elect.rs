//! Leadership: a key that is bound to a lease. Who made it leads; the revision of etcd that made it is the term.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use graticule_store::{Leader, Leadership};

use crate::failure::Failure;
use crate::store::Shared;

/// A lease of this replica.
struct Lease {
    id: i64,
    life: Duration,
    /// When it was renewed last; the request was sent then, so that it lasts longer than this replica believes.
    renewed: Duration,
}

/// Stands for election, leads, and stands again, until the store is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        let mut lease = None;
        let failure = tokio::select! {
            biased;
            () = shared.closing.cancelled() => {
                resign(&shared, lease).await;
                return;
            }
            failure = term(&shared, &mut lease, &mut failures) => failure,
        };
        shared.note_leader(Leader::Unknown, 0);
        failures += 1;
        tracing::debug!(reason = failure.reason(), "no lease of etcd");
        tokio::select! {
            () = shared.closing.cancelled() => {
                resign(&shared, lease).await;
                return;
            }
            () = shared.requests.pause(failures, &failure) => {}
        }
    }
}

/// Another replica leads at once, not when the lease has run out.
async fn resign(shared: &Shared, lease: Option<Lease>) {
    shared.note_leader(Leader::Unknown, 0);
    if let Some(lease) = lease {
        // It runs out by itself if this fails.
        let _ = shared.requests.bounded(shared.requests.client.lease_client().revoke(lease.id)).await;
    }
}

/// As long as one lease lasts.
async fn term(shared: &Shared, held: &mut Option<Lease>, failures: &mut u32) -> Failure {
    let requests = &shared.requests;
    let seconds = i64::try_from(shared.options.lease.as_secs()).unwrap_or(i64::MAX);
    let renewed = requests.clock.monotonic();
    let granted = requests.bounded(requests.client.lease_client().grant(seconds, None)).await;
    let lease = match granted {
        Ok(granted) => {
            let life = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0).max(1));
            held.insert(Lease { id: granted.id(), life, renewed })
        }
        Err(failure) => return failure,
    };
    let mut moved = shared.leader_moved.subscribe();
    loop {
        moved.borrow_and_update();
        match stand(shared, lease.id).await {
            Ok((leader, term)) => {
                *failures = 0;
                shared.note_leader(leader, term);
            }
            Err(failure) => tracing::debug!(reason = failure.reason(), "etcd does not say who leads"),
        }
        tokio::select! {
            _ = moved.changed() => {}
            () = requests.clock.sleep(lease.life / 3) => {}
        }
        if let Err(failure) = renew(shared, lease).await {
            return failure;
        }
    }
}

/// Makes the leader's key if there is none; says who leads.
async fn stand(shared: &Shared, lease: i64) -> Result<(Leader, u64), Failure> {
    let key = shared.keys.leader();
    let name = shared.options.name.clone();
    let txn = Txn::new()
        .when(vec![Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
        .and_then(vec![TxnOp::put(key.clone(), name, Some(PutOptions::new().with_lease(lease)))])
        .or_else(vec![TxnOp::get(key, None)]);
    let answer = shared.requests.bounded(shared.requests.client.kv_client().txn(txn)).await?;
    let term = |revision: i64| u64::try_from(revision).unwrap_or(0);
    if answer.succeeded() {
        return Ok((Leader::Myself, term(answer.header().map_or(0, |header| header.revision()))));
    }
    let responses = answer.op_responses();
    let Some(TxnOpResponse::Get(found)) = responses.first() else {
        return Err(Failure::Unknown("etcd's answer is not understood".into()));
    };
    let Some(kv) = found.kvs().first() else {
        return Err(Failure::Missed("nobody leads".into()));
    };
    let leader = if kv.lease() == lease {
        Leader::Myself
    } else {
        Leader::Other(String::from_utf8_lossy(kv.value()).into_owned())
    };
    Ok((leader, term(kv.create_revision())))
}

/// Renews the lease, again and again until it has run out.
async fn renew(shared: &Shared, lease: &mut Lease) -> Result<(), Failure> {
    let requests = &shared.requests;
    let mut failures = 0;
    loop {
        let asked = requests.clock.monotonic();
        let left = (lease.renewed + lease.life).saturating_sub(asked);
        if left.is_zero() {
            return Err(Failure::Missed("the lease ran out".into()));
        }
        let mut client = requests.client.lease_client();
        let renewed = tokio::select! {
            renewed = requests.bounded(client.keep_alive(lease.id)) => renewed,
            () = requests.clock.sleep(left) => Err(Failure::Missed("the lease ran out".into())),
        };
        match renewed {
            Ok(_) => {
                lease.renewed = asked;
                return Ok(());
            }
            // etcd does not know the lease any more.
            Err(failure) if failure.reason().contains("lease not found") => return Err(failure),
            Err(failure) => {
                failures += 1;
                tokio::select! {
                    () = requests.pause(failures, &failure) => {}
                    () = requests.clock.sleep(left) => {}
                }
            }
        }
    }
}

impl Shared {
    /// Publishes who leads. Terms never go back: an unknown leader belongs to the last known term.
    fn note_leader(&self, leader: Leader, term: u64) {
        self.leadership.send_if_modified(|now| {
            let next = match leader {
                Leader::Unknown => Leadership { term: now.term, leader: Leader::Unknown },
                leader if term >= now.term => Leadership { term, leader },
                _ => return false,
            };
            let is_new = *now != next;
            if is_new {
                tracing::info!(term = next.term, leader = ?next.leader, "leadership");
            }
            *now = next;
            is_new
        });
    }
}
