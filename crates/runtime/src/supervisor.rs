//! Every task has a name and a failure policy, and none outlives the process unnoticed.
//!
//! The binary owns the [`Supervisor`]; components get a [`Spawner`] and start their tasks through it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Drain, DrainSignal, Random};

/// Any error of a task.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long tasks may still run after they were told to stop now.
const FORCED_WAIT: Duration = Duration::from_secs(2);

/// An essential task failed; the process ends because of it.
#[derive(Debug, thiserror::Error)]
#[error("{task} failed")]
pub struct TaskFailed {
    /// Name of the task.
    pub task: String,
    /// Its error, or the text of its panic.
    #[source]
    pub source: BoxError,
}

/// What a task may return: nothing, or a result.
pub trait Outcome {
    /// As a result.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// Waits between restarts: doubles from `base` to `max`, with jitter; starts over after a task ran for
/// longer than `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First wait.
    pub base: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { base: Duration::from_millis(100), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 = the first); `fraction` in `0.0..1.0` spreads it
    /// over the upper half.
    pub fn delay(&self, failures: u32, fraction: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(1_u32 << doublings).min(self.max);
        full.mul_f64(0.5 + fraction.clamp(0.0, 1.0) / 2.0)
    }
}

/// Starts tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spawner {
    shared: Arc<Shared>,
    drain: Drain,
}

#[derive(Debug)]
struct Shared {
    tasks: TaskTracker,
    failure: Mutex<Option<TaskFailed>>,
    failed: CancellationToken,
    abort: CancellationToken,
    random: Random,
}

/// Owns the tasks of a process.
#[derive(Debug)]
pub struct Supervisor {
    spawner: Spawner,
    signal: DrainSignal,
}

impl Default for Supervisor {
    fn default() -> Self {
        Supervisor::new(Random::system())
    }
}

impl Supervisor {
    /// Without tasks yet. `random` is for the jitter of restarts.
    pub fn new(random: Random) -> Supervisor {
        let (signal, drain) = Drain::new();
        let shared = Shared {
            tasks: TaskTracker::new(),
            failure: Mutex::new(None),
            failed: CancellationToken::new(),
            abort: CancellationToken::new(),
            random,
        };
        Supervisor { spawner: Spawner { shared: Arc::new(shared), drain }, signal }
    }

    /// What components start their tasks with.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Told when to finish.
    pub fn drain(&self) -> Drain {
        self.spawner.drain.clone()
    }

    /// Starts the shutdown from inside.
    pub fn signal(&self) -> DrainSignal {
        self.signal.clone()
    }

    /// Runs until SIGTERM or SIGINT, until [`signal`](Self::signal) is used or until an essential task fails.
    /// Then tasks have `grace` to finish; a second signal ends their time.
    ///
    /// # Errors
    /// The essential task that failed.
    pub async fn run(self, grace: Duration) -> Result<(), TaskFailed> {
        let (mut terminate, mut interrupt) =
            match (signals(SignalKind::terminate()), signals(SignalKind::interrupt())) {
                (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
                (Err(failure), _) | (_, Err(failure)) => return Err(failure),
            };
        let (first_sender, first) = tokio::sync::oneshot::channel::<()>();
        let force = self.signal.clone();
        let listen = async move {
            let mut first_sender = Some(first_sender);
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    else => return std::future::pending().await,
                };
                match first_sender.take() {
                    Some(sender) => {
                        tracing::info!(signal = name, "finishing");
                        let _ = sender.send(());
                    }
                    None => {
                        tracing::warn!(signal = name, "stopping now");
                        force.force();
                    }
                }
            }
        };
        let shutdown = async {
            // An error means that the listener is gone, which does not happen while it is polled below.
            let _ = first.await;
        };
        tokio::select! {
            result = self.run_until(shutdown, grace) => result,
            () = listen => Ok(()),
        }
    }

    /// As [`run`](Self::run), with any future in place of the process signals.
    ///
    /// # Errors
    /// The essential task that failed.
    pub async fn run_until(
        self,
        shutdown: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<(), TaskFailed> {
        let shared = &self.spawner.shared;
        tokio::select! {
            () = shutdown => {}
            () = self.spawner.drain.signaled() => {}
            () = shared.failed.cancelled() => {}
        }
        self.signal.drain();
        shared.tasks.close();
        let forced = async {
            tokio::select! {
                () = tokio::time::sleep(grace) => {}
                () = self.spawner.drain.forced() => {}
            }
        };
        tokio::select! {
            () = shared.tasks.wait() => {}
            () = forced => {
                tracing::warn!(tasks = shared.tasks.len(), "tasks did not finish in time");
                self.signal.force();
                if tokio::time::timeout(FORCED_WAIT, shared.tasks.wait()).await.is_err() {
                    shared.abort.cancel();
                }
            }
        }
        match shared.failure.lock().take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

fn signals(kind: SignalKind) -> Result<Signal, TaskFailed> {
    signal(kind).map_err(|source| TaskFailed { task: "signal handler".into(), source: source.into() })
}

impl Spawner {
    /// Told when to finish.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// A task that the process cannot do without: its error or panic ends the process. That it returns without error is fine.
    pub fn essential<F>(&self, name: impl Into<String>, task: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Outcome + Send,
    {
        let (name, shared) = (name.into(), self.shared.clone());
        self.start(async move {
            if let Err(source) = outcome(task).await {
                tracing::error!(task = name, error = chain(&*source), "essential task failed");
                shared.failure.lock().get_or_insert(TaskFailed { task: name, source });
                shared.failed.cancel();
            }
        })
    }

    /// A task whose failure is logged and changes nothing else (one connection, one request to a peer).
    pub fn best_effort<F>(&self, name: impl Into<String>, task: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Outcome + Send,
    {
        let name = name.into();
        self.start(async move {
            if let Err(source) = outcome(task).await {
                tracing::warn!(task = name, error = chain(&*source), "task failed");
            }
        })
    }

    /// A task that is made again after it failed or panicked, until it returns without error or the
    /// process drains.
    pub fn restarting<M, F>(&self, name: impl Into<String>, backoff: Backoff, mut make: M) -> AbortHandle
    where
        M: FnMut(Drain) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Outcome + Send,
    {
        let (name, drain, random) = (name.into(), self.drain.clone(), self.shared.random.clone());
        self.start(async move {
            let mut failures = 0_u32;
            while !drain.is_signaled() {
                let started = tokio::time::Instant::now();
                let Err(source) = outcome(make(drain.clone())).await else { return };
                failures = if started.elapsed() > backoff.max { 1 } else { failures.saturating_add(1) };
                let delay = backoff.delay(failures, random.fraction());
                tracing::warn!(
                    task = name,
                    error = chain(&*source),
                    failures,
                    ?delay,
                    "task failed, starts again"
                );
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = drain.signaled() => {}
                }
            }
        })
    }

    fn start(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let abort = self.shared.abort.clone();
        let task = async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = task => {}
            }
        };
        self.shared.tasks.spawn(task).abort_handle()
    }
}

/// Runs a task to its end; a panic becomes an error.
async fn outcome<F>(task: F) -> Result<(), BoxError>
where
    F: Future,
    F::Output: Outcome,
{
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(output) => output.into_result(),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("panicked: {}", text.unwrap_or_else(|| "without a message".into())).into())
        }
    }
}

/// An error with its causes on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some libraries repeat their cause in their own message.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn explode(why: &str) {
        panic!("{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn essential_failure_names_the_task_and_drains_the_rest() {
        let supervisor = Supervisor::default();
        let spawner = supervisor.spawner();
        let drain = supervisor.drain();
        let (finished, seen) = tokio::sync::oneshot::channel();
        spawner.best_effort("bystander", async move {
            drain.signaled().await;
            let _ = finished.send(());
        });
        spawner.essential("api server", async { Err::<(), _>("port taken") });
        let failure = supervisor.run_until(std::future::pending(), GRACE).await.expect_err("fails");
        assert_eq!(chain(&failure), "api server failed: port taken");
        seen.await.expect("the bystander finished");
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_essential_tasks_are_failures() {
        let supervisor = Supervisor::default();
        supervisor.spawner().essential("store", async { explode("disk gone") });
        let failure = supervisor.run_until(std::future::pending(), GRACE).await.expect_err("fails");
        assert_eq!(chain(&failure), "store failed: panicked: disk gone");
    }

    #[tokio::test(start_paused = true)]
    async fn best_effort_failures_change_nothing() {
        let supervisor = Supervisor::default();
        let task = supervisor.spawner().best_effort("connection", async { explode("bad peer") });
        let ended = async {
            while !task.is_finished() {
                tokio::task::yield_now().await
            }
        };
        supervisor.run_until(ended, GRACE).await.expect("goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn restarts_until_it_succeeds() {
        let supervisor = Supervisor::default();
        let runs = Arc::new(AtomicU32::new(0));
        let task_runs = runs.clone();
        let task = supervisor.spawner().restarting("client", Backoff::default(), move |_| {
            let runs = task_runs.clone();
            async move { if runs.fetch_add(1, Ordering::Relaxed) < 3 { Err("refused") } else { Ok(()) } }
        });
        let ended = async {
            while !task.is_finished() {
                tokio::time::sleep(Duration::from_secs(1)).await
            }
        };
        supervisor.run_until(ended, GRACE).await.expect("goes on");
        assert_eq!(runs.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_task_does_not_hold_the_process() {
        let supervisor = Supervisor::default();
        supervisor.spawner().best_effort("stuck", std::future::pending::<()>());
        supervisor.signal().drain();
        supervisor.run_until(std::future::pending(), GRACE).await.expect("ends");
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(10) };
        let delays: Vec<u64> = (1..7).map(|n| backoff.delay(n, 1.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_secs(5));
    }
}
