//! Checks that several kinds share, with the messages of resources.md §8.

use super::dataplane::is_port;
use super::mesh_http_route::Decimal;
use crate::{GoDuration, Violations};

/// A duration that, if given, is longer than zero.
pub(super) fn positive(value: Option<GoDuration>, path: String, violations: &mut Violations) {
    if value.is_some_and(|duration| duration.0 <= 0) {
        violations.add(path, "must be greater than zero when defined");
    }
}

/// A number that, if given, is greater than zero.
pub(super) fn positive_int(value: Option<i32>, path: String, violations: &mut Violations) {
    if value.is_some_and(|number| number <= 0) {
        violations.add(path, "must be greater than zero when defined");
    }
}

/// A decimal between 0 and 100.
pub(super) fn percent(value: &Decimal, path: String, violations: &mut Violations) {
    match value.value() {
        None => violations.add(path, "string must be a valid number"),
        Some(value) if !(0.0..=100.0).contains(&value) => {
            violations.add(path, "must be in inclusive range [0.0, 100.0]");
        }
        Some(_) => {}
    }
}

/// An HTTP status code.
pub(super) fn status_code(code: i64, path: String, violations: &mut Violations) {
    if !(100..=599).contains(&code) {
        violations.add(path, "must be in inclusive range [100, 599]");
    }
}

/// A port number.
pub(super) fn port(port: u32, path: String, violations: &mut Violations) {
    if !is_port(port) {
        violations.add(path, "port must be a valid (1-65535)");
    }
}

/// What a `to` of any kind may name, in the order of the schema.
pub(super) const TO_KINDS: [crate::targetref::TargetKind; 5] = {
    use crate::targetref::TargetKind::{
        Mesh, MeshExternalService, MeshHTTPRoute, MeshMultiZoneService, MeshService,
    };
    [Mesh, MeshService, MeshExternalService, MeshMultiZoneService, MeshHTTPRoute]
};

/// The message of a missing branch.
pub(super) const MUST_BE_DEFINED: &str = "must be defined";

/// A text that can name a file.
pub(super) fn is_file_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0') && !text.ends_with('/')
}
