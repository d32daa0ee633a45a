//! Connections over the simulated network.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use graticule_kds::net::Connector;
use graticule_runtime::Random;
use graticule_runtime::listen::Io;
use turmoil::net::TcpStream;

/// Where global serves zones.
pub(super) const PORT: u16 = 5685;
/// Time for one replica of global to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connects to any replica of global; to the next one when that does not answer.
pub(super) fn connector(hosts: Vec<String>, random: &Random) -> Connector {
    let random = random.clone();
    Arc::new(move || {
        let (hosts, first) = (hosts.clone(), random.u64());
        Box::pin(async move {
            for turn in 0..hosts.len() {
                let at = usize::try_from(first.wrapping_add(turn as u64) % hosts.len() as u64).unwrap_or(0);
                let connecting = TcpStream::connect((hosts[at].as_str(), PORT));
                if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                    return Ok(Box::new(stream) as Box<dyn Io>);
                }
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    })
}
