//! Listening sockets: a stream of connections, plain or TLS, with limits, for any HTTP or gRPC server.
//!
//! Servers take the stream ([`Incoming`]) and never a socket, so that a simulation can hand them its own
//! connections ([`Connection::from_io`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Wait after the system refused to accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Connections above the limit that are told so at the same time; more are just closed.
const REFUSALS_MAX: usize = 64;
/// Time for a client to take a refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How much is read and thrown away from a client that is refused: a connection that is closed with unread bytes
/// is reset, and the client does not see the answer.
const REFUSAL_DISCARDED_LEN_MAX: u64 = 64 * 1024;
/// What a client above the limit gets.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 131\r\n\r\n\
    {\"type\":\"/std-errors\",\"status\":503,\"title\":\"Service unavailable\",\
    \"detail\":\"too many connections\",\"details\":\"too many connections\"}\n";

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("address {address} is already in use; stop the other process or change {setting}")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The setting that says it.
        setting: String,
    },
    /// The machine does not have it, or the port is privileged.
    #[error("cannot listen on {address} ({setting})")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// The setting that says it.
        setting: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct ListenLimits {
    /// Open connections. Default 20,000.
    pub max_connections: usize,
    /// What happens to more of them. Default: they wait.
    pub when_full: WhenFull,
    /// TLS handshakes in progress; more wait. Default 512.
    pub max_handshakes: usize,
    /// Time for a TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        ListenLimits {
            max_connections: 20_000,
            when_full: WhenFull::Wait,
            max_handshakes: 512,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl ListenLimits {
    /// The defaults for HTTP servers whose clients should hear that there is no place.
    pub fn refusing() -> ListenLimits {
        ListenLimits { when_full: WhenFull::Refuse, ..ListenLimits::default() }
    }
}

/// What happens to connections above the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// They wait in the system's queue.
    Wait,
    /// They are closed; on a plain listener after the answer 503 of HTTP/1.1.
    Refuse,
}

/// Who is at the other end. [`serve_http`](crate::serve_http) puts it into the extensions of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Any transport that a simulation provides.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection. Counts against its listener's limit until it is dropped.
pub struct Connection {
    io: Transport,
    peer: Peer,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Other(Box<dyn Io>),
}

/// Accepted connections; ends never, and yields no errors that end the server.
pub type Incoming = BoxStream<'static, io::Result<Connection>>;

/// A bound socket.
#[derive(Debug)]
pub struct TcpAcceptor {
    listener: TcpListener,
    local: SocketAddr,
    limits: ListenLimits,
}

impl TcpAcceptor {
    /// Binds; port 0 takes any free port. `setting` names the setting behind the address, for the error.
    ///
    /// # Errors
    /// The address is taken or not available.
    pub async fn bind(
        address: SocketAddr,
        setting: &str,
        limits: ListenLimits,
    ) -> Result<TcpAcceptor, BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address, setting: setting.into() },
            _ => BindError::Refused { address, setting: setting.into(), source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        Ok(TcpAcceptor { listener, local, limits })
    }

    /// The bound address, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections as they come.
    pub fn plain(self) -> Incoming {
        self.incoming(None)
    }

    /// Connections whose TLS handshake succeeded; the others are dropped.
    pub fn tls(self, config: Arc<rustls::ServerConfig>) -> Incoming {
        self.incoming(Some(TlsAcceptor::from(config)))
    }

    fn incoming(self, tls: Option<TlsAcceptor>) -> Incoming {
        let accept = Accept {
            permits: Arc::new(Semaphore::new(self.limits.max_connections.min(Semaphore::MAX_PERMITS))),
            acceptor: self,
            tls,
            handshakes: FuturesUnordered::new(),
            refusals: FuturesUnordered::new(),
            is_full: false,
        };
        stream::unfold(accept, |mut accept| async move {
            let connection = accept.next().await;
            Some((Ok(connection), accept))
        })
        .boxed()
    }
}

type Handshake = futures::future::BoxFuture<'static, Option<Connection>>;

struct Accept {
    acceptor: TcpAcceptor,
    tls: Option<TlsAcceptor>,
    permits: Arc<Semaphore>,
    handshakes: FuturesUnordered<Handshake>,
    refusals: FuturesUnordered<futures::future::BoxFuture<'static, ()>>,
    /// Whether the last connection was one too many; that is logged once.
    is_full: bool,
}

impl Accept {
    async fn next(&mut self) -> Connection {
        loop {
            let may_accept = self.handshakes.len() < self.acceptor.limits.max_handshakes.max(1);
            let when_full = self.acceptor.limits.when_full;
            tokio::select! {
                Some(done) = self.handshakes.next(), if !self.handshakes.is_empty() => {
                    if let Some(connection) = done {
                        return connection;
                    }
                }
                Some(()) = self.refusals.next(), if !self.refusals.is_empty() => {}
                (stream, address, permit) = accept(&self.acceptor.listener, &self.permits, when_full), if may_accept => {
                    let Some(permit) = permit else {
                        self.refuse(stream);
                        continue;
                    };
                    self.is_full = false;
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, peer = %address, "connection closed before it was served");
                        continue;
                    }
                    let local = stream.local_addr().unwrap_or(self.acceptor.local);
                    let peer = Peer { address, local, tls: self.tls.is_some() };
                    match &self.tls {
                        None => return Connection { io: Transport::Plain(stream), peer, _permit: Some(permit) },
                        Some(tls) => {
                            let limit = self.acceptor.limits.handshake_timeout;
                            self.handshakes.push(handshake(tls.clone(), stream, peer, permit, limit).boxed());
                        }
                    }
                }
            }
        }
    }

    fn refuse(&mut self, stream: TcpStream) {
        if !self.is_full {
            self.is_full = true;
            let (local, limit) = (self.acceptor.local, self.acceptor.limits.max_connections);
            tracing::warn!(%local, limit, "too many connections; further ones are refused");
        }
        if self.tls.is_none() && self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(refuse(stream).boxed());
        }
    }
}

/// Says no, and waits until the client has heard it.
async fn refuse(mut stream: TcpStream) {
    let say = async {
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(REFUSAL_DISCARDED_LEN_MAX), &mut tokio::io::sink()).await
    };
    // A client that does not listen is not told.
    let _told = tokio::time::timeout(REFUSAL_TIMEOUT, say).await;
}

/// A connection and its place; no place when the listener is full and does not wait. Cancel-safe: a permit that
/// was taken for no connection goes back when the future is dropped.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    when_full: WhenFull,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    let waited = match when_full {
        WhenFull::Refuse => None,
        WhenFull::Wait => match permits.clone().acquire_owned().await {
            Ok(permit) => Some(permit),
            // Nobody closes the semaphore.
            Err(_) => return std::future::pending().await,
        },
    };
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let permit = waited.or_else(|| permits.clone().try_acquire_owned().ok());
                return (stream, address, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn handshake(
    tls: TlsAcceptor,
    stream: TcpStream,
    peer: Peer,
    permit: OwnedSemaphorePermit,
    limit: Duration,
) -> Option<Connection> {
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            Some(Connection { io: Transport::Tls(Box::new(stream)), peer, _permit: Some(permit) })
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, peer = %peer.address, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(peer = %peer.address, "TLS handshake took too long");
            None
        }
    }
}

impl Connection {
    /// A connection over any transport.
    pub fn from_io(io: impl Io + 'static, peer: Peer) -> Connection {
        Connection { io: Transport::Other(Box::new(io)), peer, _permit: None }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The protocol that was agreed on with ALPN, on an encrypted connection.
    pub fn protocol(&self) -> Option<&[u8]> {
        match &self.io {
            Transport::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Transport::Plain(_) | Transport::Other(_) => None,
        }
    }

    fn io(&mut self) -> Pin<&mut dyn Io> {
        match &mut self.io {
            Transport::Plain(stream) => Pin::new(stream),
            Transport::Tls(stream) => Pin::new(stream.as_mut()),
            Transport::Other(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
            Transport::Other(stream) => stream.is_write_vectored(),
        }
    }
}

/// Puts what a simulation or a test accepts into the form that servers take.
pub fn incoming_from(connections: impl Stream<Item = Connection> + Send + 'static) -> Incoming {
    connections.map(Ok).boxed()
}
