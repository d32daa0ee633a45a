//! `MeshMultiZoneService`: one service made of MeshServices of several zones (xds.md §5).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::hostname_generator::LabelSelector;
use super::mesh_service::{Address, Condition, HostnameGeneratorStatus, Vip};
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
    #[serde(default = "tcp", skip_serializing_if = "String::is_empty")]
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
        list(&object(&[
            field("appProtocol", text().default_text("tcp")),
            field("name", text()),
            field("port", int32()).required(),
        ]))
        .min_items(1),
    )
    .required(),
    field("selector", object(&[field("meshService", LABEL_SELECTOR).required()])).required(),
]);

impl Validate for MeshMultiZoneService {
    const SCHEMA: Option<&'static Schema> = Some(&SPEC);

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
