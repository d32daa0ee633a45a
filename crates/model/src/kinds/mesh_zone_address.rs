//! `MeshZoneAddress`: where other zones reach a zone's ingress (xds.md §6.1).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::dataplane::{address_error, is_port};
use crate::schema::{Schema, field, int32, object, text};
use crate::{Meta, Violations};

/// Address of a zone ingress as seen from other zones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeshZoneAddress {
    /// IP address or DNS name.
    #[serde(default)]
    pub address: String,
    /// Port.
    #[serde(default)]
    pub port: u32,
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field("address", "IP address or hostname at which other zones reach the zone.", text().min_len(1))
        .required(),
    field("port", "Port at which other zones reach the zone.", int32().min(1).max(65535)).required(),
]);

impl Validate for MeshZoneAddress {
    const DESCRIPTION: &'static str = "Where other zones reach the zone proxy of a zone.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        if self.address.is_empty() {
            violations.add("spec.address", "must not be empty");
        } else if let Some(message) = address_error(&self.address) {
            let message = if message.starts_with("must") {
                message
            } else {
                "must be a valid IP address or domain name"
            };
            violations.add("spec.address", message);
        }
        if !is_port(self.port) {
            violations.add("spec.port", "port must be a valid (1-65535)");
        }
    }
}
