//! `ServiceInsight`: a legacy kind that can be read, but is not written any more (resources.md §7.6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Validate, is_default};
use crate::schema::common::TEXTS;
use crate::schema::{Schema, field, map, object, one_of, text, uint32};

/// Counters of services by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceInsight {
    /// The services.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Service>,
}

/// Counters of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Summary.
    #[serde(skip_serializing_if = "is_default")]
    pub status: ServiceStatus,
    /// Its proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataplanes: Option<DataplaneStat>,
    /// Proxies by identity.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub issued_backends: BTreeMap<String, u32>,
    /// What it is.
    #[serde(skip_serializing_if = "is_default")]
    pub service_type: ServiceType,
    /// `host:port`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address_port: String,
    /// Zones that have proxies of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
}

/// Counters of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DataplaneStat {
    /// All.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u32,
    /// Connected and ready.
    #[serde(skip_serializing_if = "is_default")]
    pub online: u32,
    /// The others.
    #[serde(skip_serializing_if = "is_default")]
    pub offline: u32,
}

/// Summary of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ServiceStatus {
    #[default]
    None,
    Offline,
    PartiallyDegraded,
    Online,
    NotAvailable,
}

/// What a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ServiceType {
    #[default]
    Internal,
    External,
    GatewayDelegated,
}

/// Proto enums are read from names and numbers.
macro_rules! read_enum {
    ($type:ident { $($variant:ident = $name:literal | $number:literal),* }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use super::dataplane::EnumValue;
                match EnumValue::deserialize(deserializer)? {
                    $(EnumValue::Name(name) if name == $name => Ok($type::$variant),)*
                    $(EnumValue::Number($number) => Ok($type::$variant),)*
                    other => {
                        Err(serde::de::Error::custom(format!("unknown value {other:?} for enum {}", stringify!($type))))
                    }
                }
            }
        }
    };
}
read_enum!(ServiceStatus {
    None = "none" | 0,
    Offline = "offline" | 1,
    PartiallyDegraded = "partially_degraded" | 2,
    Online = "online" | 3,
    NotAvailable = "not_available" | 4
});
read_enum!(ServiceType { Internal = "internal" | 0, External = "external" | 1, GatewayDelegated = "gateway_delegated" | 2 });

impl Validate for ServiceInsight {
    const DESCRIPTION: &'static str = "Counters of services, a kind of the past: there are none.";
    const SCHEMA: &'static Schema = &SPEC;
}

const SERVICE: Schema = object(&[
    field(
        "status",
        "Summary of the proxies.",
        one_of(&["none", "offline", "partially_degraded", "online", "not_available"]),
    ),
    field(
        "dataplanes",
        "Proxies of the service.",
        object(&[
            field("total", "All.", uint32()),
            field("online", "Connected and ready.", uint32()),
            field("offline", "The others.", uint32()),
        ]),
    ),
    field("issuedBackends", "Proxies by the identity that their certificate is from.", map(&COUNT)),
    field("serviceType", "What the service is.", one_of(&["internal", "external", "gateway_delegated"])),
    field("addressPort", "Host and port of the service.", text()),
    field("zones", "Zones that have proxies of the service.", TEXTS),
]);
const COUNT: Schema = uint32();

/// What a document looks like.
const SPEC: Schema = object(&[field("services", "Services by name.", map(&SERVICE))]);
