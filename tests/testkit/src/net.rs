//! Addresses and ports of a run: each run has loopback addresses of its own, so that several can run side by side.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rand::Rng as _;

/// What this run was given: a process that starts takes its ports a while later.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A free TCP port on an address, never the same one twice. Ports are taken from below the range that the kernel hands out to
/// clients, so that nobody gets the port between this look and its use but another run that draws the same number.
pub fn free_port(address: &str) -> Result<u16> {
    let mut random = rand::rng();
    for _ in 0..200 {
        let port = random.random_range(10_000..32_000);
        if TcpListener::bind((address, port)).is_ok() && GIVEN.lock().insert(port) {
            return Ok(port);
        }
    }
    TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .with_context(|| format!("no free TCP port on {address}"))
}

/// 254 loopback addresses.
#[derive(Debug, Clone, Copy)]
pub struct Subnet(u8, u8);

impl Subnet {
    /// A random subnet of 127.0.0.0/8 in which nobody listens on the Envoy admin port.
    pub fn pick() -> Subnet {
        let mut random = rand::rng();
        loop {
            let subnet = Subnet(random.random_range(16..=254), random.random_range(0..=254));
            if (1..=40).all(|host| TcpListener::bind((subnet.host(host), 9901)).is_ok()) {
                return subnet;
            }
        }
    }

    /// The address with this last number.
    pub fn host(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, self.1, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<u16> = (0..3_000).map(|_| free_port("127.0.0.1").expect("a port")).collect();
        let different: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(different.len(), ports.len());
    }
}
