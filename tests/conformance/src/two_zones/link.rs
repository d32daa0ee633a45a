//! The network between the proxies of a zone and their control plane: a TCP relay that can be cut.

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A relay on a port of its own; it ends with this value.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) port: u16,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Where connections go, on loopback.
    target: u16,
    up: bool,
}

impl Link {
    /// A relay that leads nowhere yet.
    pub(super) async fn open() -> Result<Link> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (state, receiver) = watch::channel(State { target: 0, up: false });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, receiver));
        Ok(Link { port, state, _tasks: tasks })
    }

    /// Leads to this port from now on.
    pub(super) fn lead_to(&self, target: u16) {
        self.state.send_replace(State { target, up: true });
    }

    /// Breaks every connection, and refuses new ones until [`Link::mend`].
    pub(super) fn cut(&self) {
        self.state.send_modify(|state| state.up = false);
    }

    /// Lets connections through again.
    pub(super) fn mend(&self) {
        self.state.send_modify(|state| state.up = true);
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let State { target, up } = *state.borrow();
                if let (Ok((stream, _)), true) = (accepted, up) {
                    connections.spawn(relay(stream, target, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut inner: TcpStream, target: u16, mut state: watch::Receiver<State>) {
    let Ok(mut outer) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    tokio::select! {
        _ended = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
        _cut = state.wait_for(|state| !state.up) => {}
    }
}
