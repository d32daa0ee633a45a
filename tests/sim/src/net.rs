//! Listening on the simulated network.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::StreamExt as _;
use graticule_runtime::listen::Incoming;
use graticule_runtime::{Connection, Peer};
use turmoil::net::TcpListener;

/// Connections to this port of the host that calls.
pub(crate) async fn listen(port: u16) -> io::Result<Incoming> {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), port)).await?;
    let local = listener.local_addr()?;
    let accepted = futures::stream::unfold(listener, move |listener| async move {
        let next = listener
            .accept()
            .await
            .map(|(stream, address)| Connection::from_io(stream, Peer { address, local, tls: false }));
        Some((next, listener))
    });
    Ok(accepted.boxed())
}
