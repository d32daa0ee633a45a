//! The network between one proxy and its zone: a TCP relay that can be cut.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A relay on a port of its own; it ends with this value.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) port: u16,
    up: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// A relay to a port on loopback.
    pub(super) async fn to(target: u16) -> Result<Link> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (up, state) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], target)), state));
        Ok(Link { port, up, _tasks: tasks })
    }

    /// Breaks every connection, and refuses new ones until [`Link::mend`].
    pub(super) fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Lets connections through again.
    pub(super) fn mend(&self) {
        self.up.send_replace(true);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let (Ok((stream, _)), true) = (accepted, *state.borrow()) {
                    connections.spawn(relay(stream, target, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut inner: TcpStream, target: SocketAddr, mut state: watch::Receiver<bool>) {
    let Ok(mut outer) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ended = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
        _cut = state.wait_for(|up| !up) => {}
    }
}
