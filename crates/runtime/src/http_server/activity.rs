//! What a connection is doing, and for how long it may.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::HttpLimits;
use crate::Connection;

/// The start of an HTTP/2 connection.
const HTTP2_PREFACE: [u8; 3] = *b"PRI";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of a request has arrived.
    Quiet,
    /// A part of a request's head has arrived (HTTP/1.1).
    Head,
    /// So many requests are in progress.
    Busy(usize),
}

/// Told what happens on a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<watch::Sender<Phase>>);

/// Says when a connection has taken too long.
#[derive(Debug)]
pub(super) struct Watch {
    phase: watch::Receiver<Phase>,
    limits: HttpLimits,
}

pub(super) fn new(limits: HttpLimits) -> (Activity, Watch) {
    let (sender, phase) = watch::channel(Phase::Quiet);
    (Activity(Arc::new(sender)), Watch { phase, limits })
}

impl Watch {
    /// Waits until a limit is passed; gives its name. Cancel-safe.
    pub(super) async fn expired(&mut self) -> &'static str {
        loop {
            let (limit, reason) = match *self.phase.borrow_and_update() {
                Phase::Quiet => (Some(self.limits.idle_timeout), "no request within the idle timeout"),
                Phase::Head => {
                    (Some(self.limits.header_read_timeout), "the head of a request did not arrive in time")
                }
                Phase::Busy(_) => (self.limits.request_timeout, "a request took too long"),
            };
            tokio::select! {
                biased;
                changed = self.phase.changed() => {
                    if changed.is_err() {
                        // The connection is over; its own future says so.
                        std::future::pending::<()>().await;
                    }
                }
                () = passed(limit) => return reason,
            }
        }
    }

    /// Whether nothing of a request is under way.
    pub(super) fn is_idle(&self) -> bool {
        *self.phase.borrow() == Phase::Quiet
    }
}

async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

impl Activity {
    /// Looks at the bytes that arrive.
    pub(super) fn observe(&self, connection: Connection) -> Observed {
        Observed { connection, activity: self.clone(), start: Start::Unknown([0; 3], 0) }
    }

    /// A request's head is complete.
    pub(super) fn begin(&self) -> InProgress {
        self.0.send_modify(|phase| {
            *phase = match *phase {
                Phase::Busy(number) => Phase::Busy(number + 1),
                Phase::Quiet | Phase::Head => Phase::Busy(1),
            }
        });
        InProgress(self.0.clone())
    }

    /// What a request that takes long tells its progress.
    pub(super) fn progress(&self) -> Progress {
        Progress(self.0.clone())
    }

    fn bytes_arrived(&self) {
        self.0.send_if_modified(|phase| {
            let is_first = *phase == Phase::Quiet;
            if is_first {
                *phase = Phase::Head;
            }
            is_first
        });
    }

    fn is_http2(&self) {
        self.0.send_if_modified(|phase| {
            let was_head = *phase == Phase::Head;
            if was_head {
                *phase = Phase::Quiet;
            }
            was_head
        });
    }
}

/// In the extensions of every request: for requests that move much data, so that
/// [`request_timeout`](super::HttpLimits::request_timeout) limits their pauses instead of the whole.
#[derive(Debug, Clone)]
pub struct Progress(Arc<watch::Sender<Phase>>);

impl Progress {
    /// The request has got on: its time begins anew.
    pub fn made(&self) {
        // Whoever watches looks again, and starts to wait from now.
        self.0.send_modify(|_| {});
    }
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct InProgress(Arc<watch::Sender<Phase>>);

impl InProgress {
    /// Counts until the body was handed over or given up.
    pub(super) fn until_end_of<B>(self, body: B) -> Tracked<B> {
        Tracked { body, _in_progress: self }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.send_modify(|phase| {
            *phase = match *phase {
                Phase::Busy(number) if number > 1 => Phase::Busy(number - 1),
                _ => Phase::Quiet,
            }
        });
    }
}

/// The body of an answer whose request is in progress.
#[derive(Debug)]
pub(super) struct Tracked<B> {
    body: B,
    _in_progress: InProgress,
}

impl<B: Body + Unpin> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How a connection began.
#[derive(Debug)]
enum Start {
    /// The first bytes, and how many of them there are.
    Unknown([u8; 3], usize),
    Http1,
    Http2,
}

/// A connection whose incoming bytes are looked at.
#[derive(Debug)]
pub(super) struct Observed {
    connection: Connection,
    activity: Activity,
    start: Start,
}

impl Observed {
    fn arrived(&mut self, bytes: &[u8]) {
        if let Start::Unknown(seen, len) = &mut self.start {
            for byte in bytes.iter().take(seen.len() - *len) {
                seen[*len] = *byte;
                *len += 1;
            }
            if seen[..*len] != HTTP2_PREFACE[..*len] {
                self.start = Start::Http1;
            } else if *len == seen.len() {
                self.start = Start::Http2;
                self.activity.is_http2();
            }
        }
        // On HTTP/2 bytes also arrive without any request: pings and acknowledgements.
        if !bytes.is_empty() && !matches!(self.start, Start::Http2) {
            self.activity.bytes_arrived();
        }
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.connection).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = &polled {
            self.arrived(&buffer.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}
