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
/// Time that the commit of a response may take: until then a stream whose peer has read everything is waited for.
const COMMIT_GRACE: Duration = Duration::from_secs(120);
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

/// Bytes that are handed to the connection at once: over a slow network the peer makes room for that much well within the
/// time after which it counts as one that reads nothing, however long a message is.
const FRAME_LEN_MAX: usize = 64 * 1024;

/// A body that tells whether it is read: it is asked for more when there is room for it.
pub(super) struct Read {
    body: Body,
    pulse: Pulse,
    /// What is left of a long frame.
    rest: Bytes,
}

impl Read {
    pub(super) fn new(body: Body, pulse: Pulse) -> Read {
        Read { body, pulse, rest: Bytes::new() }
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
        let polled = if self.rest.is_empty() {
            Pin::new(&mut self.body).poll_frame(cx).map_ok(|frame| match frame.into_data() {
                Ok(mut data) => {
                    self.rest = data.split_off(data.len().min(FRAME_LEN_MAX));
                    Frame::data(data)
                }
                Err(frame) => frame,
            })
        } else {
            let len = self.rest.len().min(FRAME_LEN_MAX);
            Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
        };
        if matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) {
            *self.pulse.unread_since.lock() = Some(self.pulse.clock.monotonic());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        hint.set_lower(hint.lower() + rest);
        hint
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
            () = self.end_is_unread(&clock) => {
                self.close("a zone does not read the end of its stream; its connection is closed");
            }
            () = clock.sleep(COMMIT_GRACE) => {
                self.close("what a zone sent cannot be stored for long; its connection is closed");
            }
        }
    }

    /// Returns when the peer had the time to read the end, and does not read. A stream that is busy with a commit does not
    /// hear that it has to end either, but then nothing is unread.
    async fn end_is_unread(&self, clock: &Clock) {
        clock.sleep(END_GRACE).await;
        self.pulse.unread_for(END_GRACE).await;
    }

    fn close(&self, reason: &str) {
        if let Some(connection) = &self.connection {
            tracing::warn!(zone = self.zone, "{reason}");
            connection.close();
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

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, stream};
    use http::HeaderMap;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// What a stream waits for, and when its connection is closed.
    #[tokio::test]
    async fn a_stream_that_stores_is_waited_for() {
        let is_over = |watching: Pin<&mut dyn Future<Output = ()>>| watching.now_or_never().is_some();
        for (is_read, ends, waits) in
            [(false, false, END_GRACE), (true, false, COMMIT_GRACE), (true, true, 2 * END_GRACE)]
        {
            let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
            let pulse = Pulse::new(&clock);
            if !is_read {
                *pulse.unread_since.lock() = Some(clock.monotonic());
            }
            let (ending, closed) = (Arc::<Ending>::default(), CancellationToken::new());
            ending.end(Status::cancelled("a newer stream took over"));
            let (zone, closes) = ("east".to_owned(), closed.clone());
            let watched = Watched { zone, ending, closed, pulse, expires: None, connection: None };
            let mut watching = std::pin::pin!(watched.watch(clock.clone(), Duration::from_secs(600)));
            assert!(!is_over(watching.as_mut()));
            hand.advance(waits - Duration::from_millis(1));
            assert!(!is_over(watching.as_mut()), "{is_read}");
            if ends {
                closes.cancel();
            } else {
                hand.advance(Duration::from_millis(1));
            }
            assert!(is_over(watching.as_mut()), "{is_read}");
        }
    }

    #[tokio::test]
    async fn long_messages_are_handed_over_bit_by_bit() {
        let long: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let frames = [
            Frame::data(Bytes::from(long.clone())),
            Frame::data(Bytes::from_static(b"short")),
            Frame::trailers(HeaderMap::new()),
        ];
        let body = Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Status>))));
        let pulse = Pulse::new(&Clock::system());
        let mut read = Read::new(body, pulse.clone());
        let (mut arrived, mut frames, mut has_trailers) = (Vec::new(), 0, false);
        while let Some(frame) = read.frame().await {
            let Ok(data) = frame.expect("no failure").into_data() else {
                has_trailers = true;
                continue;
            };
            assert!(data.len() <= FRAME_LEN_MAX && pulse.unread_since().is_some());
            arrived.extend_from_slice(&data);
            frames += 1;
        }
        assert_eq!((frames, has_trailers), (5, true));
        assert_eq!(arrived, [long, b"short".to_vec()].concat());
        assert!(pulse.unread_since().is_none(), "all was read");
    }
}
