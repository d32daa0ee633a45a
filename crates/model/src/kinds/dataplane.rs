//! `Dataplane`: a proxy and what runs beside it (resources.md §7.2).

mod schema;
mod validation;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::is_default;
use crate::name;

/// Port of an inbound that stands for "no service".
pub const SERVICELESS_PORT: u32 = 49151;

/// A proxy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Dataplane {
    /// Addresses, inbounds, outbounds, listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networking: Option<Networking>,
}

/// Addresses, inbounds, outbounds, listeners.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Networking {
    /// IP address or DNS name of the proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Marks a delegated gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// Ports of the workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inbound: Vec<Inbound>,
    /// Explicit outbounds (without transparent proxy).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<Outbound>,
    /// Redirection by iptables.
    #[serde(alias = "transparent_proxying", skip_serializing_if = "Option::is_none")]
    pub transparent_proxying: Option<TransparentProxying>,
    /// Envoy's admin interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// Zone proxy listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
}

/// Marks a delegated gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Only `DELEGATED`, never written out.
    #[serde(skip_serializing)]
    pub r#type: GatewayType,
}

/// An enum value on input: name or number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum EnumValue {
    /// Name.
    Name(String),
    /// Number.
    Number(i32),
}

/// A port of the workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inbound {
    /// Port of the proxy.
    #[serde(with = "uint32", skip_serializing_if = "is_default")]
    pub port: u32,
    /// Port of the workload; 0 = `port`.
    #[serde(with = "uint32", skip_serializing_if = "is_default")]
    pub service_port: u32,
    /// Address of the proxy; empty = `networking.address`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Address of the workload; empty = the proxy's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_address: String,
    /// Legacy health mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How the workload is probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_probe: Option<ServiceProbe>,
    /// Whether others may send traffic.
    #[serde(skip_serializing_if = "is_default")]
    pub state: InboundState,
    /// Name; empty = the port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Protocol; empty = unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
}

impl Inbound {
    /// Section of KRIs and Envoy names.
    pub fn section(&self) -> String {
        if self.name.is_empty() { self.port.to_string() } else { self.name.clone() }
    }

    /// Whether others may send traffic.
    pub fn is_ready(&self) -> bool {
        self.state == InboundState::Ready && self.health.as_ref().is_none_or(|health| health.ready)
    }
}

/// Legacy health mark.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Healthy.
    #[serde(skip_serializing_if = "is_default")]
    pub ready: bool,
}

/// What sort of gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GatewayType {
    /// One that is not Envoy, with a proxy beside it.
    #[default]
    Delegated,
}

impl<'de> Deserialize<'de> for GatewayType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match EnumValue::deserialize(deserializer)? {
            EnumValue::Number(0) => Ok(GatewayType::Delegated),
            EnumValue::Name(name) if name == "DELEGATED" => Ok(GatewayType::Delegated),
            EnumValue::Name(name) => {
                Err(serde::de::Error::custom(format!("unknown value \"{name}\" for enum GatewayType")))
            }
            EnumValue::Number(number) => {
                Err(serde::de::Error::custom(format!("unknown value {number} for enum GatewayType")))
            }
        }
    }
}

/// Whether others may send traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum InboundState {
    /// Yes.
    #[default]
    Ready,
    /// No, not now.
    NotReady,
    /// No, and it is not looked at.
    Ignored,
}

/// Whether a listener may receive traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum ListenerState {
    /// Yes.
    #[default]
    Ready,
    /// No.
    NotReady,
}

/// What a zone proxy listener does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum ListenerType {
    /// Nothing.
    #[default]
    Unspecified,
    /// Lets other zones in.
    ZoneIngress,
    /// Lets traffic out to external services.
    ZoneEgress,
}

/// Proto enums are read from names and numbers.
macro_rules! proto_enum {
    ($type:ident { $($name:ident = $number:literal),* }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match EnumValue::deserialize(deserializer)? {
                    $(EnumValue::Name(name) if name == stringify!($name) => Ok($type::$name),)*
                    $(EnumValue::Number($number) => Ok($type::$name),)*
                    EnumValue::Name(name) => {
                        Err(serde::de::Error::custom(format!("unknown value \"{name}\" for enum {}", stringify!($type))))
                    }
                    EnumValue::Number(number) => {
                        Err(serde::de::Error::custom(format!("unknown value {number} for enum {}", stringify!($type))))
                    }
                }
            }
        }
        impl $type {
            /// Number in the protobuf enum.
            pub fn number(self) -> i32 {
                match self { $($type::$name => $number,)* }
            }
            /// From the number in the protobuf enum; unknown numbers are refused.
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some($type::$name),)* _ => None }
            }
        }
    };
}
proto_enum!(InboundState { Ready = 0, NotReady = 1, Ignored = 2 });
proto_enum!(ListenerState { Ready = 0, NotReady = 1 });
proto_enum!(ListenerType { Unspecified = 0, ZoneIngress = 1, ZoneEgress = 2 });
proto_enum!(IpFamilyMode { UnSpecified = 0, DualStack = 1, IPv4 = 2, IPv6 = 3 });

/// How the workload is probed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceProbe {
    /// Between probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<ProtoDuration>,
    /// Of a probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ProtoDuration>,
    /// Failures in a row until unhealthy.
    #[serde(alias = "unhealthy_threshold", skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<u32>,
    /// Successes in a row until healthy.
    #[serde(alias = "healthy_threshold", skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<u32>,
    /// Connects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
}

/// Connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TcpProbe {}

/// A duration in proto JSON (`1.500s`), nanoseconds inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtoDuration(pub i64);

impl Serialize for ProtoDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (secs, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        if fraction == 0 {
            return serializer.serialize_str(&format!("{sign}{secs}s"));
        }
        let digits = if fraction % 1_000_000 == 0 {
            format!("{:03}", fraction / 1_000_000)
        } else if fraction % 1_000 == 0 {
            format!("{:06}", fraction / 1_000)
        } else {
            format!("{fraction:09}")
        };
        serializer.serialize_str(&format!("{sign}{secs}.{digits}s"))
    }
}

impl<'de> Deserialize<'de> for ProtoDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let seconds_only =
            text.ends_with('s') && !text.ends_with("ms") && !text.contains(['h', 'm', 'u', 'n', 'µ']);
        match text.parse::<crate::GoDuration>() {
            Ok(duration) if seconds_only => Ok(ProtoDuration(duration.0)),
            _ => Err(serde::de::Error::custom(format!(
                "bad Duration: {text:?} (expected seconds, such as \"1.5s\")"
            ))),
        }
    }
}

/// An explicit outbound.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outbound {
    /// Local address; empty = 127.0.0.1.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Local port.
    #[serde(with = "uint32", skip_serializing_if = "is_default")]
    pub port: u32,
    /// Destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<OutboundBackendRef>,
}

/// Destination of an explicit outbound.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboundBackendRef {
    /// Destination kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// By name …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Port of the destination.
    #[serde(with = "uint32", skip_serializing_if = "is_default")]
    pub port: u32,
    /// … or by labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Redirection by iptables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransparentProxying {
    /// Port that inbound traffic is redirected to; 0 = off.
    #[serde(alias = "redirect_port_inbound", with = "uint32", skip_serializing_if = "is_default")]
    pub redirect_port_inbound: u32,
    /// Port that outbound traffic is redirected to; 0 = off.
    #[serde(alias = "redirect_port_outbound", with = "uint32", skip_serializing_if = "is_default")]
    pub redirect_port_outbound: u32,
    /// Services reached by their own addresses.
    #[serde(alias = "direct_access_services", skip_serializing_if = "Vec::is_empty")]
    pub direct_access_services: Vec<String>,
    /// IP families.
    #[serde(alias = "ip_family_mode", skip_serializing_if = "is_default")]
    pub ip_family_mode: IpFamilyMode,
    /// Limits the destinations.
    #[serde(alias = "reachable_backends", skip_serializing_if = "Option::is_none")]
    pub reachable_backends: Option<ReachableBackends>,
}

/// IP families of the transparent proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum IpFamilyMode {
    /// Same as both.
    #[default]
    UnSpecified,
    /// Both.
    DualStack,
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// Limits the destinations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReachableBackends {
    /// The destinations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<ReachableBackendRef>,
}

/// One destination, or several by labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReachableBackendRef {
    /// Destination kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// By name …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// … in this namespace …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Port; absent = all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// … or by labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Envoy's admin interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// Port.
    #[serde(with = "uint32", skip_serializing_if = "is_default")]
    pub port: u32,
}

/// A zone proxy listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// What it does.
    #[serde(skip_serializing_if = "is_default")]
    pub r#type: ListenerType,
    /// Address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Port.
    #[serde(with = "uint32", skip_serializing_if = "is_default")]
    pub port: u32,
    /// Name; empty = the port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it may receive traffic.
    #[serde(skip_serializing_if = "is_default")]
    pub state: ListenerState,
}

impl Listener {
    /// Section of KRIs and Envoy names.
    pub fn section(&self) -> String {
        if self.name.is_empty() { self.port.to_string() } else { self.name.clone() }
    }
}

impl Dataplane {
    /// The networking section; an empty one when absent.
    pub fn networking(&self) -> &Networking {
        static EMPTY: Networking = Networking {
            address: String::new(),
            gateway: None,
            inbound: Vec::new(),
            outbound: Vec::new(),
            transparent_proxying: None,
            admin: None,
            listeners: Vec::new(),
        };
        self.networking.as_ref().unwrap_or(&EMPTY)
    }

    /// A delegated gateway has no inbounds and is never an endpoint.
    pub fn is_gateway(&self) -> bool {
        self.networking().gateway.is_some()
    }
}

impl Networking {
    /// Address that an inbound listens on.
    pub fn inbound_address<'a>(&'a self, inbound: &'a Inbound) -> &'a str {
        if inbound.address.is_empty() { &self.address } else { &inbound.address }
    }

    /// Address and port of the workload behind an inbound.
    pub fn workload_address<'a>(&'a self, inbound: &'a Inbound) -> (&'a str, u32) {
        let address = if inbound.service_address.is_empty() {
            self.inbound_address(inbound)
        } else {
            &inbound.service_address
        };
        (address, if inbound.service_port == 0 { inbound.port } else { inbound.service_port })
    }

    /// Address that a zone proxy listener listens on.
    pub fn listener_address<'a>(&'a self, listener: &'a Listener) -> &'a str {
        if listener.address.is_empty() { &self.address } else { &listener.address }
    }
}

pub(crate) fn is_port(port: u32) -> bool {
    (1..=65535).contains(&port)
}

/// What is wrong with an address that may be an IP address or a DNS name.
pub(crate) fn address_error(address: &str) -> Option<&'static str> {
    if address.is_empty() {
        return Some("address can't be empty");
    }
    if address == "0.0.0.0" || address == "::" {
        return Some("must not be 0.0.0.0 or ::");
    }
    let is_ip = address.parse::<IpAddr>().is_ok();
    let looks_like_ipv4 = address.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let is_dns = !looks_like_ipv4 && name::is_dns1123_subdomain(&address.to_ascii_lowercase());
    if is_ip || is_dns { None } else { Some("address has to be valid IP address or domain name") }
}

/// Proto integers are read from numbers and from decimal strings.
mod uint32 {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u32),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(*value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        match Form::deserialize(deserializer).map_err(|_| {
            serde::de::Error::custom("invalid value for uint32 field: expected a number from 0 to 4294967295")
        })? {
            Form::Number(value) => Ok(value),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}
