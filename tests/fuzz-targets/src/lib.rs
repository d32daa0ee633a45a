//! What is fuzzed: one function per decoder of foreign input. Each takes any bytes, must return, and checks what
//! must hold of whatever was read. `cargo xtask fuzz` runs them under libFuzzer; the tests of this crate run them
//! over `corpus/` and over random damage to it.

mod backups;
mod documents;
mod federation;
mod proxies;
mod requests;
mod tokens;

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target, of its corpus folder and of its binary.
    pub name: &'static str,
    /// Runs it once.
    ///
    /// # Panics
    /// A property does not hold: a finding.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "json_proto", run: documents::json_proto },
    Target { name: "json_plugin", run: documents::json_plugin },
    Target { name: "yaml_proto", run: documents::yaml_proto },
    Target { name: "yaml_plugin", run: documents::yaml_plugin },
    Target { name: "kri", run: documents::kri },
    Target { name: "token", run: tokens::token },
    Target { name: "rest_request", run: requests::rest_request },
    Target { name: "kds_request", run: federation::kds_request },
    Target { name: "kds_response", run: federation::kds_response },
    Target { name: "bootstrap", run: proxies::bootstrap },
    Target { name: "xds_request", run: proxies::xds_request },
    Target { name: "backup", run: backups::backup },
    Target { name: "backup_chunk", run: backups::chunk },
];

pub use backups::samples as backup_samples;

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
