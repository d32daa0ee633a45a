//! `HostnameGenerator`: names for services (xds.md §5.7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::schema::common::LABEL_SELECTOR;
use crate::schema::{Schema, any, field, object, text};
use crate::template::Template;
use crate::{Meta, Violations, name};

/// Makes a hostname for each service that it selects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostnameGenerator {
    /// Which services.
    #[serde(default)]
    pub selector: Selector,
    /// Go template of the hostname.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Plug-in data, kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
}

/// Exactly one member is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// MeshServices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_service: Option<LabelSelector>,
    /// MeshExternalServices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_external_service: Option<LabelSelector>,
    /// MeshMultiZoneServices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_multi_zone_service: Option<LabelSelector>,
}

/// Labels that must all be equal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

impl LabelSelector {
    /// True when every pair is among `labels`.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.as_ref().is_none_or(|wanted| crate::labels::matches(wanted, labels))
    }
}

/// Plug-in data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extension {
    /// Plug-in type.
    #[serde(default)]
    pub r#type: String,
    /// Plug-in configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "extension",
        "Leaves the making of hostnames to a plug-in.",
        object(&[
            field("config", "Configuration of the plug-in.", any()),
            field("type", "Name of the plug-in.", text()).required(),
        ]),
    ),
    field(
        "selector",
        "Services that get a hostname; exactly one of the members.",
        object(&[
            field("meshExternalService", "External services with these labels.", LABEL_SELECTOR),
            field("meshMultiZoneService", "Multi-zone services with these labels.", LABEL_SELECTOR),
            field("meshService", "Services with these labels.", LABEL_SELECTOR),
        ]),
    ),
    field("template", "Template of the hostname, such as `{{ .DisplayName }}.svc.mesh.local`.", text())
        .required(),
]);

impl Validate for HostnameGenerator {
    const DESCRIPTION: &'static str = "Makes hostnames for services, so that clients can address them.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let set = [
            self.selector.mesh_service.is_some(),
            self.selector.mesh_external_service.is_some(),
            self.selector.mesh_multi_zone_service.is_some(),
        ];
        if set.into_iter().filter(|is_set| *is_set).count() != 1 {
            violations.add(
                "spec.selector",
                "exact one selector (meshService, meshExternalService) must be defined",
            );
        }
        if let Some(extension) = &self.extension
            && extension.r#type.is_empty()
        {
            violations.add("spec.extension.type", "must not be empty");
        }
        if self.template.is_empty() {
            if self.extension.is_none() {
                violations.add("spec.template", "must not be empty");
            }
            return;
        }
        match Template::parse(&self.template) {
            Err(error) => violations.add("spec.template", format!("couldn't parse template: {error}")),
            Ok(template) => {
                let fields = [
                    ("Name", "name"),
                    ("DisplayName", "displayname"),
                    ("Namespace", "namespace"),
                    ("Mesh", "mesh"),
                    ("Zone", "zone"),
                ];
                match render_stub(&template, &self.template, &fields) {
                    Err(error) => violations
                        .add("spec.template", format!("couldn't render template with stub values: {error}")),
                    Ok(text) if !name::is_dns1123_subdomain(&text) => violations.add(
                        "spec.template",
                        format!(
                            "template renders to \"{text}\" which is not a valid DNS name: {}",
                            name::DNS1123_SUBDOMAIN_ERROR
                        ),
                    ),
                    Ok(_) => {}
                }
            }
        }
    }
}

/// Renders with every label that the template asks for set to `label`.
fn render_stub(
    template: &Template,
    text: &str,
    fields: &[(&str, &str)],
) -> Result<String, crate::template::TemplateError> {
    let quoted = text.split(['"', '`']).skip(1).step_by(2);
    let labels = quoted.map(|key| (key.to_owned(), "label".to_owned())).collect();
    template.render(fields, &labels)
}
