//! Connections over the simulated network.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use graticule_kds::net::Connector;
use graticule_runtime::Random;
use graticule_runtime::listen::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::TcpStream;

/// Where global serves zones.
pub(super) const PORT: u16 = 5685;
/// Time for one replica of global to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A slow reader reads so much, and nothing more for so long.
const SLOW_LEN: usize = 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(150);

/// Connects to any replica of global; to the next one when that does not answer. What comes is read slowly while `is_slow`.
pub(super) fn connector(hosts: Vec<String>, random: &Random, is_slow: &Arc<AtomicBool>) -> Connector {
    let (random, is_slow) = (random.clone(), is_slow.clone());
    Arc::new(move || {
        let (hosts, first, is_slow) = (hosts.clone(), random.u64(), is_slow.clone());
        Box::pin(async move {
            for turn in 0..hosts.len() {
                let at = usize::try_from(first.wrapping_add(turn as u64) % hosts.len() as u64).unwrap_or(0);
                let connecting = TcpStream::connect((hosts[at].as_str(), PORT));
                if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                    return Ok(Box::new(Reader { stream, is_slow, pause: None }) as Box<dyn Io>);
                }
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    })
}

/// A connection whose owner may be too busy to read.
struct Reader {
    stream: TcpStream,
    is_slow: Arc<AtomicBool>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if !self.is_slow.load(Ordering::Relaxed) {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let mut bytes = [0; SLOW_LEN];
        let mut few = ReadBuf::new(&mut bytes[..SLOW_LEN.min(buffer.remaining())]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut few))?;
        buffer.put_slice(few.filled());
        self.pause = Some(Box::pin(tokio::time::sleep(SLOW_PAUSE)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Reader {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
