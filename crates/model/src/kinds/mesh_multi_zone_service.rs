//! `MeshMultiZoneService`: one service made of MeshServices of several zones (xds.md §5).

use serde::{Deserialize, Serialize};

use super::hostname_generator::LabelSelector;
use super::mesh_service::{
    ADDRESSES, Address, CONDITIONS, Condition, GENERATOR_STATUSES, HostnameGeneratorStatus, VIP, Vip,
};
use super::{Described, Validate};
use crate::schema::common::LABEL_SELECTOR;
use crate::schema::{Schema, field, int32, list, object, text};
use crate::{Meta, Violations, name};

/// One service made of MeshServices of several zones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeshMultiZoneService {
    /// Which services.
    #[serde(default)]
    pub selector: Selector,
    /// Ports; a MeshService serves those that it has itself.
    #[serde(default)]
    pub ports: Vec<Port>,
}

/// Which services.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// By labels.
    #[serde(default)]
    pub mesh_service: LabelSelector,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Port on the VIP.
    pub port: u32,
    /// Protocol.
    #[serde(default = "tcp")]
    pub app_protocol: String,
}

fn tcp() -> String {
    "tcp".into()
}

impl Port {
    /// Section of KRIs and SNIs: the name, or the decimal port.
    pub fn section(&self) -> String {
        self.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| self.port.to_string())
    }
}

/// What each zone derives for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshMultiZoneServiceStatus {
    /// Hostnames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Virtual IPs of this zone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<Vip>,
    /// The services that it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mesh_services: Vec<MatchedMeshService>,
    /// Outcome of each HostnameGenerator that selects the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostname_generators: Vec<HostnameGeneratorStatus>,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A MeshService that is part of the service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MatchedMeshService {
    /// Display name.
    pub name: String,
    /// Namespace, empty on Universal.
    pub namespace: String,
    /// Zone.
    pub zone: String,
    /// Mesh.
    pub mesh: String,
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "ports",
        "Ports of the service.",
        list(&object(&[
            field("appProtocol", "Protocol of the port.", text().default_text("tcp")),
            field("name", "Name of the port; without it, the number.", text()),
            field("port", "Number of the port.", int32()).required(),
        ]))
        .min_items(1),
    )
    .required(),
    field(
        "selector",
        "Which services it is made of.",
        object(&[
            field("meshService", "Labels of the MeshServices, of all zones.", LABEL_SELECTOR).required()
        ]),
    )
    .required(),
]);

impl Validate for MeshMultiZoneService {
    const DESCRIPTION: &'static str = "A service that is made of the MeshServices of several zones.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, meta: &Meta, violations: &mut Violations) {
        if let Some(message) = name::dns1035_error(meta.display_name()) {
            violations.add("name", message);
        }
        let labels = self.selector.mesh_service.match_labels.as_ref();
        if labels.is_none_or(std::collections::BTreeMap::is_empty) {
            violations.add("spec.selector.meshService.matchLabels", "cannot be empty");
        }
        if self.ports.is_empty() {
            violations.add("spec.ports", "cannot be empty");
        }
        for (index, port) in self.ports.iter().enumerate() {
            if port.name.as_ref().is_some_and(String::is_empty) {
                violations.add(format!("spec.ports[{index}].name"), "must not be empty");
            }
            if !["grpc", "http", "http2", "tcp"].contains(&&*port.app_protocol) {
                violations.add(
                    format!("spec.ports[{index}].appProtocol"),
                    "appProtocol must be one of: grpc, http, http2, tcp",
                );
            }
        }
    }
}

const MATCHED: Schema = object(&[
    field("name", "Display name.", text()),
    field("namespace", "Kubernetes namespace.", text()),
    field("zone", "Zone.", text()),
    field("mesh", "Mesh.", text()),
]);

impl Described for MeshMultiZoneServiceStatus {
    const SCHEMA: &'static Schema = &object(&[
        field("addresses", "Hostnames of the service.", ADDRESSES),
        field("vips", "Virtual IPs of the service in this zone.", list(&VIP)),
        field("meshServices", "Services that it is made of.", list(&MATCHED)),
        field(
            "hostnameGenerators",
            "Outcome of each generator that selects the service.",
            GENERATOR_STATUSES,
        ),
        field("conditions", "Whether the service takes effect.", CONDITIONS),
    ]);
}
