//! Connections whose bytes are counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::io::InspectReader;
use tonic::transport::{Channel, Endpoint, Uri};

/// Bytes that came.
#[derive(Debug, Default)]
pub(super) struct Traffic(AtomicU64);

impl Traffic {
    /// So far.
    pub(super) fn received(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Opens a connection.
pub(super) async fn connect(
    address: SocketAddr,
    traffic: Arc<Traffic>,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let connector = tower::service_fn(move |_: Uri| {
        let traffic = traffic.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let count = move |bytes: &[u8]| {
                traffic.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            };
            io::Result::Ok(TokioIo::new(InspectReader::new(stream, count)))
        }
    });
    endpoint.connect_with_connector(connector).await
}
