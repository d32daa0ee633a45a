//! Waiting on conditions, with a deadline and a reason.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Now, for measurements of the harness.
#[expect(clippy::disallowed_methods, reason = "the harness measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `condition` until it returns `Ok`, and gives its value and how long it took.
/// When the deadline passes, the error names `what` and the last reason.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut condition: F) -> Result<(T, Duration)>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let start = now();
    loop {
        let reason = match condition().await {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(reason) => reason,
        };
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}; last seen: {reason}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
