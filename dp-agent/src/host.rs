//! Facts about this machine that the control plane is told.

use std::net::{Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};

/// Where operating systems keep their bundle of authorities, in order of preference.
const SYSTEM_CA_PATHS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const CGROUP_LIMIT_PATHS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Limits above this are how cgroup v1 says that there is none.
const MEMORY_LIMIT_MAX: u64 = 1 << 60;

/// The bundle of authorities of the operating system.
pub(crate) fn system_ca_path() -> Option<PathBuf> {
    SYSTEM_CA_PATHS.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned)
}

/// True when sockets can use IPv6 here.
pub(crate) fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Memory limit of the agent's cgroup in bytes; 0 when there is none.
pub(crate) fn memory_limit() -> u64 {
    CGROUP_LIMIT_PATHS
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map_or(0, |text| parse_memory_limit(&text))
}

fn parse_memory_limit(text: &str) -> u64 {
    text.trim().parse().ok().filter(|limit| *limit < MEMORY_LIMIT_MAX).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limits() {
        for (text, expected) in
            [("max\n", 0), ("1073741824\n", 1 << 30), ("9223372036854771712\n", 0), ("", 0), ("-1", 0)]
        {
            assert_eq!(parse_memory_limit(text), expected, "{text}");
        }
    }
}
