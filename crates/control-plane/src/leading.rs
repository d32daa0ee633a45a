//! What must run once among the replicas of a store: the leader runs it, fenced (DESIGN decision 5).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_runtime::{Clock, Drain};
use graticule_store::{
    CommitError, Committed, Feed, Health, Leader, Leadership, Revision, Snapshot, Store, Txn,
};
use tokio::sync::watch;

/// A store whose writes happen only while the leadership of one term lasts: once another replica was elected, they
/// fail with [`CommitError::Fenced`], however late they arrive.
pub struct Fenced {
    store: Arc<dyn Store>,
    term: u64,
}

impl Fenced {
    /// Writes of the leader of `term`.
    pub fn new(store: Arc<dyn Store>, term: u64) -> Fenced {
        Fenced { store, term }
    }
}

#[async_trait]
impl Store for Fenced {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.store.commit_as(self.term, txn).await
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.store.watch(from)
    }

    async fn commit_as(&self, term: u64, txn: Txn) -> Result<Committed, CommitError> {
        if term != self.term {
            return Err(CommitError::Fenced(term));
        }
        self.store.commit_as(term, txn).await
    }

    async fn read_barrier(&self) -> Result<(), CommitError> {
        self.store.read_barrier().await
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.store.leadership()
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

/// Between two attempts of a new leader to have everything that was acknowledged before.
const CATCH_UP_RETRY: Duration = Duration::from_millis(100);

/// Runs `task` whenever this replica leads, with a store that is fenced to the term. When the term is over the task is
/// dropped where it waits; a task that ends by itself runs again in the next own term. A task begins with everything that
/// was acknowledged before its term. Returns once drained, or with the task's error.
///
/// # Errors
/// The task's.
pub async fn while_leading<E, F>(
    what: &str,
    store: &Arc<dyn Store>,
    drain: Drain,
    mut task: impl FnMut(Arc<dyn Store>) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let fenced = |term| {
        let fenced: Arc<dyn Store> = Arc::new(Fenced::new(store.clone(), term));
        let (task, drain) = (Box::pin(task(fenced.clone())), drain.clone());
        async move {
            let caught_up = async {
                while let Err(error) = fenced.read_barrier().await {
                    tracing::debug!(term, %error, "the new leader has not caught up yet");
                    tokio::time::sleep(CATCH_UP_RETRY).await;
                }
            };
            tokio::select! {
                biased;
                () = drain.signaled() => return Ok(()),
                () = caught_up => {}
            }
            task.await
        }
    };
    in_role(what, store, drain.clone(), Leadership::own_term, fenced).await
}

/// Runs `task` whenever this replica does not lead; else as [`while_leading`].
///
/// # Errors
/// The task's.
pub async fn while_following<E, F>(
    what: &str,
    store: &Arc<dyn Store>,
    drain: Drain,
    mut task: impl FnMut() -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let follows = |leadership: &Leadership| leadership.own_term().is_none().then_some(0);
    in_role(what, store, drain, follows, |_| task()).await
}

/// Waits until some replica leads, or for `limit`; tells whether there is a leader.
pub async fn leader_known(store: &Arc<dyn Store>, clock: &Clock, limit: Duration) -> bool {
    let mut leadership = store.leadership();
    tokio::select! {
        biased;
        known = leadership.wait_for(|now| now.leader != Leader::Unknown) => known.is_ok(),
        () = clock.sleep(limit) => false,
    }
}

/// Runs a task for each role in which `role` gives a number, until the number is another one.
async fn in_role<E, F>(
    what: &str,
    store: &Arc<dyn Store>,
    drain: Drain,
    role: impl Fn(&Leadership) -> Option<u64>,
    mut task: impl FnMut(u64) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut leadership = store.leadership();
    loop {
        let number = tokio::select! {
            biased;
            () = drain.signaled() => return Ok(()),
            number = begun(&mut leadership, &role) => number,
        };
        tracing::debug!(what, number, "begins in this role");
        let mut watched = leadership.clone();
        tokio::select! {
            biased;
            // The task hears of the drain itself, and ends in good order.
            outcome = task(number) => outcome?,
            () = over(&mut watched, &role, number) => {
                tracing::debug!(what, number, "ends with the role");
                continue;
            }
        }
        tokio::select! {
            biased;
            () = drain.signaled() => return Ok(()),
            () = over(&mut leadership, &role, number) => {}
        }
    }
}

/// Waits until the role is taken.
async fn begun(
    leadership: &mut watch::Receiver<Leadership>,
    role: impl Fn(&Leadership) -> Option<u64>,
) -> u64 {
    loop {
        let number = role(&leadership.borrow_and_update());
        if let Some(number) = number {
            return number;
        }
        if leadership.changed().await.is_err() {
            // It stays as it is.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until the role is another one.
async fn over(
    leadership: &mut watch::Receiver<Leadership>,
    role: impl Fn(&Leadership) -> Option<u64>,
    number: u64,
) {
    if leadership.wait_for(|now| role(now) != Some(number)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use graticule_model::kinds::mesh::Mesh;
    use graticule_model::{Meta, Resource, Timestamp};
    use graticule_store::MemoryStore;
    use tokio::sync::mpsc;

    use super::*;

    /// A memory store with a leadership that the test decides.
    struct Elected {
        inner: MemoryStore,
        leadership: watch::Sender<Leadership>,
    }

    #[async_trait]
    impl Store for Elected {
        async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
            self.inner.commit(txn).await
        }

        fn snapshot(&self) -> Snapshot {
            self.inner.snapshot()
        }

        fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
            self.inner.watch(from)
        }

        fn leadership(&self) -> watch::Receiver<Leadership> {
            self.leadership.subscribe()
        }
    }

    fn mk_store(leader: Leader) -> Arc<Elected> {
        Arc::new(Elected {
            inner: MemoryStore::new(|| Timestamp::UNIX_EPOCH),
            leadership: watch::Sender::new(Leadership { term: 1, leader }),
        })
    }

    fn mesh(name: &str) -> Txn {
        Txn::put(Resource::new(Meta::new("", name), Mesh::default()))
    }

    fn elect(store: &Elected, term: u64, leader: Leader) {
        store.leadership.send_replace(Leadership { term, leader });
    }

    #[tokio::test]
    async fn one_task_for_each_own_term() {
        let store = mk_store(Leader::Other("b".into()));
        let (events, mut seen) = mpsc::channel::<Arc<dyn Store>>(8);
        let (signal, drain) = Drain::new();
        let shared: Arc<dyn Store> = store.clone();
        let run = while_leading("a test", &shared, drain, |fenced| {
            let events = events.clone();
            async move {
                events.send(fenced).await.expect("the test listens");
                std::future::pending::<Result<(), CommitError>>().await
            }
        });
        let script = async {
            elect(&store, 2, Leader::Myself);
            let first = seen.recv().await.expect("it runs");
            first.commit(mesh("a")).await.expect("it leads");
            // Its late writes are refused, even if it does not know yet.
            elect(&store, 3, Leader::Other("b".into()));
            assert_eq!(first.commit(mesh("b")).await.map(|_| ()), Err(CommitError::Fenced(2)));
            // Led again without a pause: another term, another task.
            elect(&store, 4, Leader::Myself);
            let second = seen.recv().await.expect("it runs again");
            assert_eq!(first.commit(mesh("c")).await.map(|_| ()), Err(CommitError::Fenced(2)));
            second.commit(mesh("d")).await.expect("it leads");
            elect(&store, 5, Leader::Myself);
            let third = seen.recv().await.expect("each term has its own task");
            assert_eq!(second.commit(mesh("e")).await.map(|_| ()), Err(CommitError::Fenced(4)));
            third.commit_as(5, mesh("f")).await.expect("it leads");
            elect(&store, 6, Leader::Unknown);
            signal.drain();
        };
        let (ended, ()) = tokio::join!(run, script);
        assert_eq!(ended, Ok(()));
        assert!(seen.try_recv().is_err(), "nobody else was started");
        let names: Vec<String> = store.snapshot().iter().map(|mesh| mesh.meta.name.clone()).collect();
        assert_eq!(names, ["a", "d", "f"]);
    }

    #[tokio::test]
    async fn errors_end_it_and_ends_wait_for_the_next_term() {
        let store = mk_store(Leader::Myself);
        let shared: Arc<dyn Store> = store.clone();
        let mut runs = 0;
        let ended = while_leading("a test", &shared, Drain::never(), |_| {
            runs += 1;
            let (run, store) = (runs, store.clone());
            async move {
                if run == 1 {
                    // Told once this one has ended.
                    elect(&store, 2, Leader::Myself);
                    return Ok(());
                }
                Err("second")
            }
        })
        .await;
        assert_eq!((ended, runs), (Err("second"), 2));
    }

    #[tokio::test]
    async fn followers_follow_until_they_lead() {
        let store = mk_store(Leader::Unknown);
        let shared: Arc<dyn Store> = store.clone();
        let (events, mut seen) = mpsc::channel::<&str>(8);
        let (signal, drain) = Drain::new();
        let (leading, following) = (events.clone(), events);
        let lead = while_leading("a test", &shared, drain.clone(), |_| async {
            leading.send("leads").await.expect("the test listens");
            std::future::pending::<Result<(), ()>>().await
        });
        let follow = while_following("a test", &shared, drain.clone(), || async {
            following.send("follows").await.expect("the test listens");
            std::future::pending::<Result<(), ()>>().await
        });
        let script = async {
            assert_eq!(seen.recv().await, Some("follows"));
            // Another leader makes no difference to a follower.
            elect(&store, 2, Leader::Other("b".into()));
            elect(&store, 3, Leader::Myself);
            assert_eq!(seen.recv().await, Some("leads"));
            elect(&store, 4, Leader::Other("b".into()));
            assert_eq!(seen.recv().await, Some("follows"));
            signal.drain();
        };
        tokio::select! {
            _ = async { tokio::join!(lead, follow) } => panic!("tasks that never end were ended"),
            () = script => {}
        }
        assert!(seen.try_recv().is_err());
    }
}
