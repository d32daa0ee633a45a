//! What this agent is and which Envoy it is made for.

use std::io::Write as _;

/// Version of the agent.
pub(crate) const AGENT: &str = env!("CARGO_PKG_VERSION");

/// The version as control planes see it: of the preview form, which a Kuma control plane of any release takes
/// for compatible (dataplane-agent.md §7.2).
pub(crate) const WIRE: &str = concat!("0.0.0-preview.v", env!("CARGO_PKG_VERSION"));

/// The Envoy release line that the agent is tested with: major and minor version.
pub(crate) const ENVOY: (u64, u64) = (1, 39);

/// Prints the version to standard output.
pub(crate) fn print(detailed: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Graticule dp-agent {AGENT}")?;
    if detailed {
        writeln!(out, "Envoy {}.{}", ENVOY.0, ENVOY.1)?;
    }
    Ok(())
}
