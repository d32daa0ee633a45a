//! `MeshService`: a service of one zone (xds.md §5.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Described, Validate, is_default};
use crate::schema::common::LABEL_SELECTOR;
use crate::schema::{Schema, field, int_or_text, int32, list, object, one_of, text};
use crate::{Meta, Violations, name};

/// A service: ports, and the Dataplanes behind them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshService {
    /// Whether any instance can answer; written by the owning zone.
    #[serde(default = "State::unavailable", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Which Dataplanes.
    #[serde(default)]
    pub selector: Selector,
    /// Ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// SPIFFE ids that instances present; written by the owning zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Identity>,
}

/// Availability of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Some instance is healthy.
    Available,
    /// None is.
    Unavailable,
}

impl State {
    fn unavailable() -> Option<State> {
        Some(State::Unavailable)
    }
}

/// At most one member is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// One Dataplane by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane_ref: Option<DataplaneRef>,
    /// Dataplanes by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane_labels: Option<DataplaneLabels>,
}

/// One Dataplane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataplaneRef {
    /// Its stored name.
    #[serde(default)]
    pub name: String,
}

/// Dataplanes by labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataplaneLabels {
    /// Pairs that must all be equal.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name, or none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Port on the VIP.
    pub port: u32,
    /// Inbound port number or inbound name; absent = `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// Protocol; an empty one is read as `tcp`, like an absent one.
    #[serde(default = "tcp", deserialize_with = "protocol")]
    pub app_protocol: String,
}

fn protocol<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(if text.is_empty() { tcp() } else { text })
}

fn tcp() -> String {
    "tcp".into()
}

impl Port {
    /// Section of KRIs and SNIs: the name, or the decimal port.
    pub fn section(&self) -> String {
        if self.name.is_empty() { self.port.to_string() } else { self.name.clone() }
    }

    /// Whether an inbound with this port and name serves this port (xds.md §5.1).
    pub fn is_served_by(&self, inbound_port: u32, inbound_name: &str) -> bool {
        match &self.target_port {
            None => inbound_port == self.port,
            Some(IntOrString::Int(port)) => inbound_port == *port,
            Some(IntOrString::String(name)) => inbound_name == name,
        }
    }
}

/// A number or a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// Number.
    Int(u32),
    /// Name.
    String(String),
}

/// An identity of the service's instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// `SpiffeID`, or a legacy type.
    pub r#type: String,
    /// The id.
    pub value: String,
}

impl Identity {
    /// A SPIFFE id.
    pub fn spiffe(value: impl Into<String>) -> Identity {
        Identity { r#type: "SpiffeID".into(), value: value.into() }
    }
}

impl MeshService {
    /// SPIFFE ids of the instances, sorted.
    pub fn spiffe_ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> =
            self.identities.iter().filter(|i| i.r#type == "SpiffeID").map(|i| i.value.as_str()).collect();
        ids.sort_unstable();
        ids
    }
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "identities",
        "Identities that the instances prove; written by the control plane.",
        list(&object(&[
            field("type", "Always `SpiffeID`.", one_of(&["SpiffeID"])).required(),
            field("value", "The SPIFFE id.", text()).required(),
        ])),
    ),
    field(
        "ports",
        "Ports of the service.",
        list(&object(&[
            field("appProtocol", "Protocol of the port.", text().default_text("tcp")),
            field("name", "Name of the port; without it, the number.", text()),
            field("port", "Number of the port.", int32()).required(),
            field(
                "targetPort",
                "Port or name of the inbound of the instances; without it, the number of the port.",
                int_or_text(),
            ),
        ])),
    ),
    field(
        "selector",
        "Proxies that are instances of the service.",
        object(&[
            field("dataplaneLabels", "Proxies with these labels.", LABEL_SELECTOR),
            field("dataplaneRef", "One proxy.", object(&[field("name", "Name of the proxy.", text())])),
        ]),
    ),
    field(
        "state",
        "Whether an instance is healthy; written by the control plane.",
        one_of(&["Available", "Unavailable"]).default_text("Unavailable"),
    ),
]);

impl Validate for MeshService {
    const DESCRIPTION: &'static str = "A service of one zone: ports and the proxies that are its instances.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, meta: &Meta, violations: &mut Violations) {
        if let Some(message) = name::dns1035_error(meta.display_name()) {
            violations.add("name", message);
        }
        if self.selector.dataplane_ref.is_some() && self.selector.dataplane_labels.is_some() {
            violations.add("spec.selector", "must specify only one of: dataplaneRef or dataplaneLabels");
        }
        for (index, port) in self.ports.iter().enumerate() {
            if !port.app_protocol.is_empty()
                && !["grpc", "http", "http2", "tcp"].contains(&&*port.app_protocol)
            {
                violations.add(
                    format!("spec.ports[{index}].appProtocol"),
                    "appProtocol must be one of: grpc, http, http2, tcp",
                );
            }
        }
    }
}

/// What each zone derives for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshServiceStatus {
    /// Hostnames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Virtual IPs of this zone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<Vip>,
    /// Whether clients may start mTLS.
    pub tls: Tls,
    /// Outcome of each HostnameGenerator that selects the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostname_generators: Vec<HostnameGeneratorStatus>,
    /// Counters.
    pub dataplane_proxies: DataplaneProxies,
}

/// A hostname of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    /// The name.
    pub hostname: String,
    /// `HostnameGenerator`.
    pub origin: String,
    /// Which generator.
    pub hostname_generator_ref: HostnameGeneratorRef,
}

/// Names a HostnameGenerator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostnameGeneratorRef {
    /// Its stored name.
    pub core_name: String,
}

/// A virtual IP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Vip {
    /// Address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
}

/// Readiness for mTLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// `Ready`, `NotReady`, or absent on copies.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
}

/// Outcome of one HostnameGenerator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostnameGeneratorStatus {
    /// Which generator.
    pub hostname_generator_ref: HostnameGeneratorRef,
    /// Its conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A condition in a status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// What it is about.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Machine-readable reason.
    pub reason: String,
    /// Text for people.
    pub message: String,
}

/// A status that is a list of conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Counters of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DataplaneProxies {
    /// With an open stream.
    #[serde(skip_serializing_if = "is_default")]
    pub connected: u32,
    /// With all ports ready.
    #[serde(skip_serializing_if = "is_default")]
    pub healthy: u32,
    /// All.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u32,
}

const GENERATOR_REF: Schema = object(&[field("coreName", "Stored name of the generator.", text())]);
const ADDRESS: Schema = object(&[
    field("hostname", "The hostname.", text()),
    field("origin", "What made it: `HostnameGenerator`.", text()),
    field("hostnameGeneratorRef", "Which generator made it.", GENERATOR_REF),
]);
/// Hostnames.
pub(super) const ADDRESSES: Schema = list(&ADDRESS);
/// A virtual IP.
pub(super) const VIP: Schema = object(&[field("ip", "The address.", text())]);
const CONDITION: Schema = object(&[
    field("type", "What the condition is about.", text()),
    field("status", "`True`, `False` or `Unknown`.", text()),
    field("reason", "Why, as one word for programs.", text()),
    field("message", "Why, for people.", text()),
]);
/// Conditions of a status.
pub(super) const CONDITIONS: Schema = list(&CONDITION);
const GENERATOR_STATUS: Schema = object(&[
    field("hostnameGeneratorRef", "Which generator.", GENERATOR_REF),
    field("conditions", "Whether it made a hostname.", CONDITIONS),
]);
/// Outcomes of HostnameGenerators.
pub(super) const GENERATOR_STATUSES: Schema = list(&GENERATOR_STATUS);
/// Counters of proxies.
pub(super) const PROXIES: Schema = object(&[
    field("connected", "With an open stream.", int32()),
    field("healthy", "With all ports ready.", int32()),
    field("total", "All.", int32()),
]);

impl Described for MeshServiceStatus {
    const SCHEMA: &'static Schema = &object(&[
        field("addresses", "Hostnames of the service.", ADDRESSES),
        field("vips", "Virtual IPs of the service in this zone.", list(&VIP)),
        field(
            "tls",
            "Whether clients may start mTLS.",
            object(&[field("status", "`Ready` or `NotReady`.", text())]),
        ),
        field(
            "hostnameGenerators",
            "Outcome of each generator that selects the service.",
            GENERATOR_STATUSES,
        ),
        field("dataplaneProxies", "Instances of the service.", PROXIES),
    ]);
}

impl Described for Conditions {
    const SCHEMA: &'static Schema =
        &object(&[field("conditions", "Whether the resource takes effect.", CONDITIONS)]);
}
