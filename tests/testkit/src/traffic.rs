//! Requests that go on while something else happens, to see whether anybody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::http::Client;
use crate::wait;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(5);
/// Failures that are told; the rest is counted.
const TOLD_MAX: usize = 20;

/// A client that asks the same thing again and again.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    task: JoinSet<Outcome>,
}

/// What became of the requests.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// Answered 200, with the wanted header.
    pub good: u64,
    /// All others.
    pub bad: u64,
    /// The first of them.
    pub told: Vec<String>,
    /// The longest time between two good answers.
    pub gap: Duration,
}

impl Traffic {
    /// Asks `url`; a good answer is a 200 with this header.
    ///
    /// # Errors
    /// There is no client.
    pub fn start(url: String, header: &'static str) -> Result<Traffic> {
        let client = Client::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told_to_stop = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut outcome = Outcome::default();
            let start = wait::now();
            let mut last = start;
            while !told_to_stop.load(Ordering::Acquire) {
                let wrong = match client.get(&url).await {
                    Ok(answer) if answer.status == 200 && answer.header(header).is_some() => None,
                    Ok(answer) => Some(format!("{} {:?}", answer.status, answer.body.trim())),
                    Err(error) => Some(format!("{error:#}")),
                };
                match wrong {
                    None => {
                        outcome.good += 1;
                        outcome.gap = outcome.gap.max(last.elapsed());
                        last = wait::now();
                    }
                    Some(wrong) => {
                        outcome.bad += 1;
                        if outcome.told.len() < TOLD_MAX {
                            outcome.told.push(format!("after {:.2?}: {wrong}", start.elapsed()));
                        }
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            outcome
        });
        Ok(Traffic { stop, task })
    }

    /// Ends it, and tells what became of the requests.
    ///
    /// # Errors
    /// The client panicked.
    pub async fn stop(mut self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Release);
        Ok(self.task.join_next().await.context("no client")??)
    }
}
