//! Whether anybody listens at a proxy's addresses. Asked when its stream broke: refused connections mean that the
//! Envoy is gone, silence may be a network problem that does not concern its traffic.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use graticule_model::kinds::dataplane::Networking;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Looks at a proxy whose process ends while it is asked.
const ATTEMPTS: u32 = 20;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// Looks at once. Thousands of proxies may lose their control plane in one moment.
const LOOKS_MAX: usize = 64;
static LOOKS: Semaphore = Semaphore::const_new(LOOKS_MAX);

/// What a look at an address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reachability {
    /// Somebody listens.
    Listening,
    /// The host says that nobody does.
    Refused,
    /// No answer.
    Silent,
}

/// Addresses that the proxy's own Envoy listens on, as far as they can be told from outside. Behind a transparent
/// proxy inbounds are not bound, so there is nothing to ask.
pub(crate) fn addresses(networking: &Networking) -> Vec<SocketAddr> {
    if networking.transparent_proxying.is_some() {
        return Vec::new();
    }
    let inbounds =
        networking.inbound.iter().map(|inbound| (networking.inbound_address(inbound), inbound.port));
    let listeners =
        networking.listeners.iter().map(|listener| (networking.listener_address(listener), listener.port));
    inbounds
        .chain(listeners)
        .filter_map(|(address, port)| {
            let address: IpAddr = address.parse().ok()?;
            Some(SocketAddr::new(address, u16::try_from(port).ok()?))
        })
        .collect()
}

/// True when every address refuses connections; asks several times, because the kernel may close the stream of a
/// killed process a moment before its listeners.
pub(crate) async fn is_gone(addresses: &[SocketAddr]) -> bool {
    if addresses.is_empty() {
        return false;
    }
    for _ in 0..ATTEMPTS {
        let mut all_refused = true;
        for address in addresses {
            match look(*address).await {
                Reachability::Refused => {}
                Reachability::Silent => return false,
                Reachability::Listening => all_refused = false,
            }
        }
        if all_refused {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

/// What all addresses together tell: somebody listens, all refuse, or neither. `None`: there is nothing to ask.
pub(crate) async fn look_at_all(addresses: &[SocketAddr]) -> Option<Reachability> {
    let mut all = None;
    for address in addresses {
        match (look(*address).await, all) {
            (Reachability::Listening, _) => return Some(Reachability::Listening),
            (Reachability::Refused, None | Some(Reachability::Refused)) => all = Some(Reachability::Refused),
            _ => all = Some(Reachability::Silent),
        }
    }
    all
}

async fn look(address: SocketAddr) -> Reachability {
    // Nobody closes the semaphore; a look without a place in it would be harmless.
    let _place = LOOKS.acquire().await;
    match tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Reachability::Listening,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Reachability::Refused,
        Ok(Err(_)) | Err(_) => Reachability::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_means_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        assert_eq!(look(address).await, Reachability::Listening);
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let refused = closed.local_addr().expect("bound");
        drop(closed);
        assert_eq!(look_at_all(&[]).await, None, "nothing to ask is no reason to remove anything");
        assert_eq!(look_at_all(&[refused, address]).await, Some(Reachability::Listening));
        assert_eq!(look_at_all(&[refused, refused]).await, Some(Reachability::Refused));
        drop(listener);
        assert!(is_gone(&[address]).await);
        assert!(!is_gone(&[]).await);
    }
}
