//! Writers and readers that remember what they were told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::federation::START_LIMIT;
use graticule_testkit::history::{self, Action, Operation};
use graticule_testkit::http::Client;
use graticule_testkit::replicas::secret_text;
use graticule_testkit::{Replicas, wait};
use rand::Rng as _;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Registers of the crash test.
const KEYS: u64 = 5;
/// What a client waits after it was refused.
const BACK_OFF: Duration = Duration::from_millis(10);
/// Clients of the crash test.
const CLIENTS: u64 = 8;

/// Writers that count up, each in a secret of its own.
pub(crate) struct Load {
    tasks: JoinSet<(String, String)>,
    shared: Arc<Shared>,
}

struct Shared {
    stop: AtomicBool,
    writes: AtomicU64,
    /// Of any writer.
    last: Mutex<Instant>,
    longest: Mutex<Duration>,
}

fn body(name: &str, text: &str) -> serde_json::Value {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(text);
    serde_json::json!({"type": "GlobalSecret", "name": name, "data": data})
}

impl Load {
    /// Writers that use these replicas in turn.
    pub(crate) fn start(replicas: &Replicas, writers: usize, at: &[usize]) -> Load {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            last: Mutex::new(wait::now()),
            longest: Mutex::new(Duration::ZERO),
        });
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let (client, shared) = (replicas.rest.clone(), shared.clone());
            let name = format!("writer-{writer}");
            let url = replicas.url(at[writer % at.len()], &format!("/global-secrets/{name}"));
            tasks.spawn(async move {
                let mut acknowledged = String::new();
                for count in 1_u64.. {
                    if shared.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Of one length, so that they sort as numbers do.
                    let text = format!("{count:08}");
                    let answer = client.put(&url, &body(&name, &text)).await;
                    if answer.is_ok_and(|answer| matches!(answer.status, 200 | 201)) {
                        acknowledged = text;
                        shared.acknowledge().await;
                    }
                }
                (name, acknowledged)
            });
        }
        Load { tasks, shared }
    }

    /// Waits until this many more writes are acknowledged.
    pub(crate) async fn wait_for_writes(&self, count: u64) -> Result<()> {
        let wanted = self.shared.writes.load(Ordering::Relaxed) + count;
        wait::until("writes are acknowledged", START_LIMIT, || async {
            let found = self.shared.writes.load(Ordering::Relaxed);
            if found >= wanted { Ok(()) } else { Err(format!("{found} of {wanted}")) }
        })
        .await?;
        Ok(())
    }

    /// Starts to look for the longest time without an acknowledged write; gives it once writes go on.
    pub(crate) async fn wait_for_gap(&mut self) -> Result<Duration> {
        let killed = wait::now();
        *self.shared.longest.lock().await = Duration::ZERO;
        let before = self.shared.writes.load(Ordering::Relaxed);
        wait::until("writes go on", START_LIMIT, || async {
            let last = *self.shared.last.lock().await;
            let found = self.shared.writes.load(Ordering::Relaxed);
            // What was under way may still be answered; a whole round of all writers is a new leader's.
            let is_over = last > killed && found >= before + 20;
            if is_over { Ok(()) } else { Err(format!("{found} writes")) }
        })
        .await?;
        Ok(*self.shared.longest.lock().await)
    }

    /// What each writer was told last.
    pub(crate) async fn stop(self) -> BTreeMap<String, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().collect()
    }
}

impl Shared {
    async fn acknowledge(&self) {
        let now = wait::now();
        let mut last = self.last.lock().await;
        let gap = now.saturating_duration_since(*last);
        *last = now;
        let mut longest = self.longest.lock().await;
        *longest = gap.max(*longest);
        self.writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a crash test did.
pub(crate) struct Report {
    limit: Duration,
    kills: u64,
    operations: usize,
    acknowledged: usize,
    unknown: usize,
    longest_gap: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: {} members killed, {} operations, {} writes acknowledged, {} without an answer, longest time \
             without an acknowledged write {:?}; the history of every register is linearizable",
            self.limit, self.kills, self.operations, self.acknowledged, self.unknown, self.longest_gap
        )
    }
}

/// The history of all registers.
type History = Arc<Mutex<BTreeMap<u64, Vec<Operation>>>>;

/// Gives each moment a number of its own.
fn tick(clock: &AtomicU64) -> u64 {
    clock.fetch_add(1, Ordering::SeqCst) + 1
}

/// One client: writes values that nobody else writes, and reads, at any replica.
async fn client(
    number: u64,
    apis: Vec<String>,
    history: History,
    clock: Arc<AtomicU64>,
    shared: Arc<Shared>,
) {
    let Ok(client) = Client::new() else { return };
    let mut count = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let (key, api, is_write) = {
            let mut random = rand::rng();
            let api = random.random_range(0..apis.len());
            (random.random_range(0..KEYS), &apis[api], random.random_bool(0.5))
        };
        let name = format!("register-{key}");
        let begin = tick(&clock);
        if is_write {
            count += 1;
            let value = format!("{number}-{count}");
            let answer = client.put(&format!("{api}/global-secrets/{name}"), &body(&name, &value)).await;
            let is_done = answer.is_ok_and(|answer| matches!(answer.status, 200 | 201));
            let end = is_done.then(|| tick(&clock));
            let operation = Operation { action: Action::Write(value), begin, end };
            history.lock().await.entry(key).or_default().push(operation);
            if is_done {
                shared.acknowledge().await;
            } else {
                tokio::time::sleep(BACK_OFF).await;
            }
        } else {
            let answer = client.get(&format!("{api}/global-secrets/{name}?consistent=true")).await;
            let Some(value) = answer.ok().and_then(|answer| secret_text(&answer).ok()) else { continue };
            let end = Some(tick(&clock));
            history.lock().await.entry(key).or_default().push(Operation {
                action: Action::Read(value),
                begin,
                end,
            });
        }
    }
}

/// Kills members at random for this long, one at a time or all together; then checks what all clients saw.
pub(crate) async fn crash(replicas: &mut Replicas, limit: Duration) -> Result<Report> {
    let (history, clock) = (History::default(), Arc::new(AtomicU64::new(0)));
    let shared = Arc::new(Shared {
        stop: AtomicBool::new(false),
        writes: AtomicU64::new(0),
        last: Mutex::new(wait::now()),
        longest: Mutex::new(Duration::ZERO),
    });
    let apis: Vec<String> = (0..replicas.replicas.len()).map(|index| replicas.url(index, "")).collect();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(number, apis.clone(), history.clone(), clock.clone(), shared.clone()));
    }
    let (start, mut kills) = (wait::now(), 0);
    while start.elapsed() < limit {
        // Some work between two kills.
        let wanted = shared.writes.load(Ordering::Relaxed) + rand::rng().random_range(5..100);
        wait::until("writes go on", START_LIMIT, || async {
            let found = shared.writes.load(Ordering::Relaxed);
            if found >= wanted { Ok(()) } else { Err(format!("{found} of {wanted}")) }
        })
        .await?;
        let first = rand::rng().random_range(0..replicas.replicas.len());
        let count = if rand::rng().random_bool(0.2) { replicas.replicas.len() } else { 1 };
        let killed: Vec<usize> =
            (0..count).map(|offset| (first + offset) % replicas.replicas.len()).collect();
        for index in &killed {
            replicas.kill(*index)?;
            kills += 1;
        }
        for index in &killed {
            replicas.start_again(*index)?;
        }
        for index in &killed {
            replicas.wait_ready(*index).await?;
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let mut history = std::mem::take(&mut *history.lock().await);
    // At the end everybody has what was acknowledged.
    for key in 0..KEYS {
        for index in 0..replicas.replicas.len() {
            let begin = tick(&clock);
            let found = super::read(replicas, index, &format!("register-{key}")).await?;
            let end = Some(tick(&clock));
            history.entry(key).or_default().push(Operation { action: Action::Read(found), begin, end });
        }
    }
    let (mut operations, mut acknowledged, mut unknown) = (0, 0, 0);
    for (key, operations_of_key) in &history {
        let checked = history::check(operations_of_key).map_err(anyhow::Error::msg);
        checked.with_context(|| format!("register {key}"))?;
        operations += operations_of_key.len();
        let writes =
            operations_of_key.iter().filter(|operation| matches!(operation.action, Action::Write(_)));
        for write in writes {
            if write.end.is_some() { acknowledged += 1 } else { unknown += 1 }
        }
    }
    ensure!(kills > 0 && acknowledged > 0, "nothing happened");
    let longest_gap = *shared.longest.lock().await;
    Ok(Report { limit, kills, operations, acknowledged, unknown, longest_gap })
}
