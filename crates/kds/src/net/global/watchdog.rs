//! What ends a stream when its own state cannot: that is asked for its next message only while the peer reads.
//!
//! A zone that answers pings and reads nothing fills the window of its stream. Once another message waits for room, nobody
//! asks the stream's state for anything, so that it hears neither that it took too long, nor that a newer stream took over,
//! nor that its token is no longer good. This is watched from outside; a stream that cannot be told anything loses its
//! connection, and with it its state.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use graticule_model::Timestamp;
use graticule_runtime::{Clock, ConnectionEnd, Drain};
use hyper::body::{Bytes, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use crate::net::registry::Ending;

/// Time in which a stream that was told to end has to be gone, before its connection is closed.
const END_GRACE: Duration = Duration::from_secs(2);
/// The time of day may jump: an expiry is looked at again after this time at the latest.
const EXPIRY_LOOK: Duration = Duration::from_secs(30);
/// Streams that were opened and are not watched yet; who opens another one waits.
pub(super) const OPENED_MAX: usize = 1_024;

/// Whether the peer has read what was written last.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    clock: Clock,
    /// When something was written that was not read yet; monotonic.
    unread_since: Arc<Mutex<Option<Duration>>>,
}

impl Pulse {
    pub(super) fn new(clock: &Clock) -> Pulse {
        Pulse { clock: clock.clone(), unread_since: Arc::default() }
    }

    fn unread_since(&self) -> Option<Duration> {
        *self.unread_since.lock()
    }

    /// Returns once something has not been read for this time.
    async fn unread_for(&self, limit: Duration) {
        loop {
            let now = self.clock.monotonic();
            // What is written from now on cannot be unread for so long any earlier.
            let since = self.unread_since().unwrap_or(now);
            let left = (since + limit).saturating_sub(now);
            if left.is_zero() {
                return;
            }
            self.clock.sleep(left).await;
        }
    }
}

/// A body that tells whether it is read: it is asked for more when there is room for it.
pub(super) struct Read {
    body: Body,
    pulse: Pulse,
}

impl Read {
    pub(super) fn new(body: Body, pulse: Pulse) -> Read {
        Read { body, pulse }
    }
}

impl hyper::body::Body for Read {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        *self.pulse.unread_since.lock() = None;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) {
            *self.pulse.unread_since.lock() = Some(self.pulse.clock.monotonic());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One open stream, from outside.
pub(super) struct Watched {
    pub(super) zone: String,
    pub(super) ending: Arc<Ending>,
    /// Told when it is closed.
    pub(super) closed: CancellationToken,
    pub(super) pulse: Pulse,
    /// End of the life of the token that opened it.
    pub(super) expires: Option<Timestamp>,
    /// Absent where there is no connection, as in tests.
    pub(super) connection: Option<ConnectionEnd>,
}

impl Watched {
    /// Lasts as long as the stream, and makes sure that it ends when it has to.
    async fn watch(self, clock: Clock, stuck_after: Duration) {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => return,
            _ = self.ending.told() => {}
            () = expired(&clock, self.expires) => {
                tracing::warn!(zone = self.zone, "the token of a zone has expired; its streams end");
                let reason = "authentication failed: the zone token has expired; make a new one";
                self.ending.end(Status::unauthenticated(reason));
            }
            () = self.pulse.unread_for(stuck_after) => {
                tracing::warn!(zone = self.zone, after = ?stuck_after, "a zone reads nothing; its stream ends");
                self.ending.end(Status::aborted(format!("nothing was read for {stuck_after:?}: connect again")));
            }
        }
        // Where there is room, the stream ends by itself now.
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            () = clock.sleep(END_GRACE) => {
                if let Some(connection) = &self.connection {
                    tracing::warn!(zone = self.zone, "a zone does not read the end of its stream; its connection is closed");
                    connection.close();
                }
            }
        }
    }
}

/// Returns once the time of day is past this; never, where there is none.
async fn expired(clock: &Clock, expires: Option<Timestamp>) {
    let Some(expires) = expires else { return std::future::pending().await };
    loop {
        let left = Duration::try_from(expires.duration_since(clock.now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        clock.sleep(left.min(EXPIRY_LOOK)).await;
    }
}

/// Watches streams from when they are opened on, until drained.
pub(super) async fn run(
    mut opened: mpsc::Receiver<Watched>,
    clock: &Clock,
    stuck_after: Duration,
    drain: &Drain,
) {
    let mut watched = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = drain.signaled() => return,
            Some(()) = watched.next(), if !watched.is_empty() => {}
            Some(stream) = opened.recv() => watched.push(stream.watch(clock.clone(), stuck_after)),
        }
    }
}
