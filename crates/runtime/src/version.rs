//! What this build calls itself.

/// Name of the product.
pub const PRODUCT: &str = "Graticule";

/// Version of the product, semantic versioning.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of Kuma whose interfaces this build speaks.
pub const KUMA_COMPATIBLE: &str = "3.0.0";

/// One line for `--version` and the first log line.
pub fn banner(program: &str) -> String {
    format!("{program} {VERSION} ({PRODUCT}, speaks Kuma {KUMA_COMPATIBLE})")
}

/// Versions may differ by this many minor numbers and still be called compatible.
const MINOR_SKEW_MAX: u64 = 2;

/// Whether the version of a peer fits that of a control plane (federation.md §6, dataplane-agent.md §1.3): previews and
/// versions that cannot be read do.
pub fn is_compatible(control_plane: &str, peer: &str) -> bool {
    match (release(control_plane), release(peer)) {
        (Some((own_major, own_minor)), Some((major, minor))) => {
            own_major == major && own_minor.abs_diff(minor) <= MINOR_SKEW_MAX
        }
        _ => true,
    }
}

/// Major and minor of a release; `None` for previews and everything else.
fn release(version: &str) -> Option<(u64, u64)> {
    let version = version.strip_prefix('v').unwrap_or(version);
    if version.contains("preview") {
        return None;
    }
    let core = version.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|number| number.parse::<u64>().ok());
    let (major, minor, _patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatibility() {
        for (agent, expected) in [
            ("3.0.0", true),
            ("v3.2.7", true),
            ("3.3.0", false),
            ("2.12.0", false),
            ("unknown", true),
            ("", true),
            ("0.0.0-preview.vabc", true),
            ("4.0.0-rc.1", false),
        ] {
            assert_eq!(is_compatible("3.0.0", agent), expected, "{agent}");
        }
    }
}
