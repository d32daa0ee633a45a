//! Looks after etcd's health: whether a majority answers, whether there is space, whether the watch keeps up.

use std::sync::Arc;

use graticule_store::Health;

use crate::failure::Failure;
use crate::store::Shared;

/// What is said when etcd is out of space.
const NO_SPACE: &str = "etcd is out of space: compact and defragment it, then disarm its alarm NOSPACE";

/// Probes until the store is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut behind = None;
    loop {
        tokio::select! {
            () = shared.closing.cancelled() => return,
            () = shared.requests.clock.sleep(shared.options.probe_interval) => {}
        }
        let health = tokio::select! {
            () = shared.closing.cancelled() => return,
            health = look(&shared, &mut behind) => health,
        };
        shared.note_health(health);
    }
}

async fn look(shared: &Shared, behind: &mut Option<i64>) -> Health {
    let requests = &shared.requests;
    // Needs a majority, unlike the status of a member.
    let head = requests.head(&shared.keys.head()).await;
    let mut maintenance = requests.client.maintenance_client();
    let status = requests.bounded(maintenance.status()).await;
    let alarms = status.as_ref().map(|status| status.errors().join(", ")).unwrap_or_default();
    match (head, status) {
        (Err(failure), Ok(status)) if status.leader() == 0 => {
            Health::ReadOnly(format!("etcd has no majority: {}", failure.reason()))
        }
        (Err(failure), _) => Health::Stale(format!("etcd does not answer: {}", failure.reason())),
        (Ok(_), _) if alarms.contains("NOSPACE") => Health::ReadOnly(NO_SPACE.into()),
        (Ok(_), _) if alarms.contains("CORRUPT") => {
            Health::ReadOnly(format!("etcd reports damage: {alarms}"))
        }
        (Ok(there), _) => {
            if there <= shared.replica.position().head {
                *behind = None;
                return Health::Ready;
            }
            // The watch is given one interval to bring what the head says.
            if behind.is_some_and(|before| before > shared.replica.position().head) {
                *behind = None;
                shared.stuck.notify_one();
                return Health::Stale("the watch stands still".into());
            }
            *behind = Some(there);
            Health::Ready
        }
    }
}

impl Shared {
    /// A write said that etcd is out of space.
    pub(crate) fn note_no_space(&self) {
        self.note_health(Health::ReadOnly(NO_SPACE.into()));
    }

    /// What a failed probe or write means for a write.
    pub(crate) fn explain(failure: &Failure) -> String {
        match failure {
            Failure::NoSpace(_) => NO_SPACE.to_owned(),
            failure => format!("etcd: {}", failure.reason()),
        }
    }
}
