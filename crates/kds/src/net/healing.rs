//! What both sides of a stream wait for: an acknowledgement that must come, and the end of what is in the way of something.

use std::time::Duration;

use graticule_store::{Event, Feed, Store};

use crate::core::Source;

/// Waits for acknowledgements, each for a limited time: one that is lost leaves its kind silent for as long as the stream
/// lives (federation.md §2.5, rule 3), however busy the others are.
pub(super) struct Patience {
    limit: Duration,
    /// What is waited for, and since when; monotonic.
    waits: Option<(u64, Duration)>,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Patience {
        Patience { limit, waits: None }
    }

    /// When it ends; `None`: nothing is waited for. `now` is monotonic.
    pub(super) fn ends_at(&mut self, source: &Source, now: Duration) -> Option<Duration> {
        let Some((_, nonce)) = source.waits_for() else {
            self.waits = None;
            return None;
        };
        let since = match self.waits {
            Some((other, since)) if other == nonce => since,
            _ => now,
        };
        self.waits = Some((nonce, since));
        Some(since + self.limit)
    }
}

/// Watches a store while something in it is in the way of what a peer sends.
#[derive(Default)]
pub(super) struct Obstacles(Option<Box<dyn Feed>>);

impl Obstacles {
    /// The next change while `wanted`; first everything. Cancel-safe.
    pub(super) async fn next(&mut self, store: &dyn Store, wanted: bool) -> Event {
        if !wanted {
            self.0 = None;
            return std::future::pending().await;
        }
        match self.0.get_or_insert_with(|| store.watch(None)).next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}
