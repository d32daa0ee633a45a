//! Weather between two processes: a relay that delays, stalls and silences what goes through it.
//!
//! It stands where a network would be. What is silenced is kept and arrives when the silence ends, as TCP's own repetition
//! does after a partition; neither side hears of a closed connection meanwhile. A lost packet shows as a stall of what is
//! behind it, for the time after which TCP repeats it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::Rng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::wait;

/// Bytes that travel together.
const SEGMENT_LEN: usize = 1400;
/// Segments on their way, per direction of a connection.
const ON_THE_WAY_MAX: usize = 4096;
/// Time after which TCP repeats what was lost.
const REPEATED_AFTER: Duration = Duration::from_millis(250);

/// How the network is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// Time from one side to the other.
    pub delay: Duration,
    /// Share of segments that is lost at first, 0 to 1.
    pub loss: f64,
    /// Nothing arrives at who was dialed.
    pub silent_forward: bool,
    /// Nothing arrives at who dialed.
    pub silent_back: bool,
}

/// A relay; ends when dropped, with all its connections.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    weather: watch::Sender<Weather>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Forwards connections to a port of 127.0.0.1, in fair weather.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn to(port: u16) -> Result<Relay> {
        Relay::to_address((Ipv4Addr::LOCALHOST, port).into()).await
    }

    /// Forwards connections to this address, in fair weather.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn to_address(address: SocketAddr) -> Result<Relay> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a port for the relay")?;
        let own = listener.local_addr()?.port();
        let (weather, seen) = watch::channel(Weather::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((near, _)) = accepted else { return };
                        connections.spawn(connection(near, address, seen.clone()));
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        });
        Ok(Relay { port: own, weather, _tasks: tasks })
    }

    /// The weather from now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn connection(near: TcpStream, address: SocketAddr, weather: watch::Receiver<Weather>) {
    let Ok(far) = TcpStream::connect(address).await else { return };
    let _unimportant = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        () = direction(near_in, far_out, weather.clone(), |weather| weather.silent_forward) => {}
        () = direction(far_in, near_out, weather, |weather| weather.silent_back) => {}
    }
}

/// One direction, until either side closes.
async fn direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    is_silent: fn(&Weather) -> bool,
) {
    let (sent, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    let mut reading = weather.clone();
    let read = async move {
        let mut buffer = vec![0; SEGMENT_LEN];
        loop {
            let Ok(len @ 1..) = from.read(&mut buffer).await else { return };
            let Weather { delay, loss, .. } = *reading.borrow_and_update();
            let lost = loss > 0.0 && rand::rng().random_bool(loss.clamp(0.0, 1.0));
            let late = if lost { REPEATED_AFTER + delay } else { Duration::ZERO };
            if sent.send((wait::now() + delay + late, buffer[..len].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = on_the_way.recv().await {
            // What is behind a lost segment waits for it.
            tokio::time::sleep_until(due.into()).await;
            if weather.wait_for(|weather| !is_silent(weather)).await.is_err()
                || to.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
