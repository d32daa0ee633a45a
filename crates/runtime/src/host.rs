//! Facts about the machine: its name and its addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The machine's name; `localhost` when it has none.
pub fn name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty() && name != "(none)")
        .unwrap_or_else(|| "localhost".into())
}

/// Whether the process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// All addresses of the machine, loopback included, link-local IPv6 left out (they need a zone index,
/// which a certificate cannot name).
pub fn local_addresses() -> BTreeSet<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut addresses = BTreeSet::from([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    addresses.extend(ipv4_of_fib(&read("/proc/net/fib_trie")));
    addresses.extend(ipv6_of_table(&read("/proc/net/if_inet6")));
    addresses.extend(default_source());
    addresses
}

/// What a certificate of this machine is for: its name and all its addresses (tokens-and-access.md §10.3).
pub fn certificate_names() -> Vec<String> {
    std::iter::once(name()).chain(local_addresses().iter().map(IpAddr::to_string)).collect()
}

/// Local addresses in the kernel's routing trie: the leaf line before `/32 host LOCAL`.
fn ipv4_of_fib(text: &str) -> Vec<IpAddr> {
    let mut last = None;
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.map(IpAddr::V4));
        }
    }
    found
}

/// Rows of the kernel's IPv6 address table whose scope is global or host.
fn ipv6_of_table(text: &str) -> Vec<IpAddr> {
    let row = |line: &str| {
        let mut columns = line.split_whitespace();
        let digits = columns.next()?;
        let scope = columns.nth(2)?;
        let address = u128::from_str_radix(digits, 16).ok()?;
        (digits.len() == 32 && scope != "20").then(|| IpAddr::V6(Ipv6Addr::from(address)))
    };
    text.lines().filter_map(row).collect()
}

/// The address that packets to the outside carry; connecting a datagram socket sends nothing.
fn default_source() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9))).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kernel_tables() {
        let fib = "Main:\n  +-- 0.0.0.0/0\n     |-- 10.1.2.0\n        /24 link UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\n";
        assert_eq!(ipv4_of_fib(fib), [IpAddr::from([10, 1, 2, 3])]);
        let table = "fe800000000000000000000000000001 02 40 20 80 eth0\n\
                     20010db8000000000000000000000001 02 40 00 80 eth0\nrubbish\n";
        assert_eq!(ipv6_of_table(table), ["2001:db8::1".parse::<IpAddr>().expect("an address")]);
        assert!(local_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
        assert!(!name().is_empty());
    }
}
