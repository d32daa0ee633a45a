//! Serves HTTP/1.1 and HTTP/2 on a stream of connections, with limits and a graceful end.

mod activity;

use std::io;
use std::time::Duration;

use futures::{Stream, StreamExt};
use http::{Request, Response};
use hyper::body::{Body, Incoming as RequestBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use self::activity::Progress;
use crate::supervisor::BoxError;
use crate::{Connection, Drain};

/// Limits of an HTTP server. (Limits on bodies and on handling time belong to the service.)
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Time from the first byte of a request to the end of its head (HTTP/1.1). Default 60 s.
    pub header_read_timeout: Duration,
    /// Life of a connection on which no request is in progress. Default 120 s.
    pub idle_timeout: Duration,
    /// Longest time without the end of a request, or a sign of its [`Progress`], while there is one in progress:
    /// reading its body, handling it and writing the answer. Default none, because streams last.
    pub request_timeout: Option<Duration>,
    /// Bytes of one request head. Default 64 KiB.
    pub max_header_bytes: usize,
    /// Header lines of one request (HTTP/1.1; of HTTP/2 the bytes are limited). More are answered with 431.
    /// Default 100.
    pub max_headers: usize,
    /// Requests in progress on one HTTP/2 connection. Default 1,000.
    pub max_streams: u32,
    /// HTTP/2 pings on a quiet connection, and the time for their answer. Default 20 s.
    pub keep_alive: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            header_read_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            request_timeout: None,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_streams: 1_000,
            keep_alive: Duration::from_secs(20),
        }
    }
}

/// In the extensions of every request: ends its connection, whatever is in progress on it. For peers that read nothing any
/// more and thus cannot be told that their request is over.
#[derive(Debug, Clone, Default)]
pub struct ConnectionEnd(CancellationToken);

impl ConnectionEnd {
    /// Closes the connection.
    pub fn close(&self) {
        self.0.cancel();
    }
}

/// Serves until drained: then takes no more connections, lets requests in progress finish, and drops what
/// is left when the drain is forced. Each request carries the connection's [`Peer`](crate::Peer) and its [`Progress`]
/// in its extensions.
pub async fn serve_http<S, B>(
    service: S,
    incoming: impl Stream<Item = io::Result<Connection>> + Send,
    limits: HttpLimits,
    drain: Drain,
) where
    S: tower::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let builder = builder(&limits);
    let mut incoming = std::pin::pin!(incoming);
    // Owned here, so that dropping this future ends every connection. The listener limits their number.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = drain.signaled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = incoming.next() => match accepted {
                Some(Ok(connection)) => {
                    let serve = serve_connection(builder.clone(), service.clone(), connection, limits, drain.clone());
                    connections.spawn(serve);
                }
                Some(Err(error)) => tracing::warn!(%error, "cannot accept a connection"),
                None => break,
            },
        }
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = finished => {}
        () = drain.forced() => {}
    }
}

fn builder(limits: &HttpLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `activity` does it: hyper's own also counts the time between requests.
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        // hyper refuses less than 8 KiB.
        .max_buf_size(limits.max_header_bytes.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.keep_alive);
    builder
}

async fn serve_connection<S, B>(
    builder: auto::Builder<TokioExecutor>,
    service: S,
    connection: Connection,
    limits: HttpLimits,
    drain: Drain,
) where
    S: tower::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let peer = connection.peer().clone();
    let address = peer.address;
    let (activity, mut watch) = activity::new(limits);
    let observed = activity.observe(connection);
    let end = ConnectionEnd::default();
    let ended = end.0.clone();
    let service = service_fn(move |mut request: Request<RequestBody>| {
        let in_progress = activity.begin();
        request.extensions_mut().insert(end.clone());
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(activity.progress());
        let answer = service.clone().oneshot(request);
        async move { answer.await.map(|response| response.map(|body| in_progress.until_end_of(body))) }
    });
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(observed), service));
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = ended.cancelled() => return,
        () = drain.signaled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        reason = watch.expired() => {
            tracing::debug!(reason, peer = %address, "connection closed");
            if !watch.is_idle() {
                return;
            }
            // A request that crosses with the end is still answered.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        // Clients come and go; that is no event for operators.
        tracing::debug!(error, peer = %address, "connection ended");
    }
}

#[cfg(test)]
mod tests;
