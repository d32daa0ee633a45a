//! `MeshIdentity`: who proxies are (xds.md §4).

use serde::{Deserialize, Serialize};

use super::hostname_generator::LabelSelector;
use super::mesh_service::{CONDITIONS, Condition};
use super::{Described, Validate};
use crate::schema::common::{DURATION, LABEL_SELECTOR, SECURE_DATA_SOURCE};
use crate::schema::{Schema, any, boolean, field, object, one_of, text};
use crate::template::Template;
use crate::{GoDuration, Meta, Violations};

/// Gives the proxies that it selects a SPIFFE identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshIdentity {
    /// Which proxies; absent selects nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// How ids are made.
    #[serde(default, rename = "spiffeID", skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeId>,
    /// Who issues certificates; absent: ids are advertised but no certificate is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
}

/// Which proxies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selector {
    /// By labels of the Dataplane; absent selects nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<LabelSelector>,
}

/// Templates of the id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpiffeId {
    /// Trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Who issues certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Provider {
    /// `Bundled`, `Spire` or `Extension`.
    #[serde(default)]
    pub r#type: String,
    /// The control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundled: Option<Bundled>,
    /// A SPIRE agent, kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spire: Option<serde_json::Value>,
    /// A plug-in, kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<serde_json::Value>,
}

/// The built-in certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundled {
    /// `Enabled` (default) or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_trust_creation: Option<String>,
    /// Admits self-signed authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_allow_self_signed: Option<bool>,
    /// Leaf parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_parameters: Option<CertificateParameters>,
    /// The control plane makes an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autogenerate: Option<Autogenerate>,
    /// An authority that the user provides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<ProvidedCa>,
}

/// Leaf parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CertificateParameters {
    /// Leaf lifetime, default 120h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<GoDuration>,
}

/// Whether the control plane makes an authority.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Autogenerate {
    /// Switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Certificate and key of a provided authority.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvidedCa {
    /// PEM certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecureDataSource>,
    /// PEM key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<SecureDataSource>,
}

/// Where secret material comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecureDataSource {
    /// `File`, `EnvVar`, `Secret` or `InsecureInline`.
    #[serde(default)]
    pub r#type: String,
    /// A file of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
    /// A variable of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_var: Option<EnvVarSource>,
    /// A Secret of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// In the resource itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_inline: Option<InlineSource>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileSource {
    /// Absolute path.
    #[serde(default)]
    pub path: String,
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EnvVarSource {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A Secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecretRef {
    /// `Secret`.
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InlineSource {
    /// The value.
    #[serde(default)]
    pub value: String,
}

impl SecureDataSource {
    /// Adds what is wrong, under `path`.
    pub fn validate(&self, path: &str, violations: &mut Violations) {
        let mut need = |branch: &str, field: &str, value: Option<&str>| match value {
            None => violations.add(format!("{path}.{branch}"), "must be defined"),
            Some("") => violations.add(format!("{path}.{branch}.{field}"), "must be defined"),
            Some(_) => {}
        };
        match self.r#type.as_str() {
            "File" => {
                let file = self.file.as_ref().map(|f| f.path.as_str());
                need("file", "path", file);
                if let Some(file) = file.filter(|f| !f.is_empty()) {
                    if file.split('/').any(|segment| segment == "..") {
                        let message = format!("file path contains directory traversal sequence: {file}");
                        violations.add(format!("{path}.file.path"), message);
                    } else if !file.starts_with('/') {
                        violations
                            .add(format!("{path}.file.path"), format!("file path must be absolute: {file}"));
                    }
                }
            }
            "EnvVar" => need("envVar", "name", self.env_var.as_ref().map(|e| e.name.as_str())),
            "Secret" => need("secretRef", "name", self.secret_ref.as_ref().map(|s| s.name.as_str())),
            "InsecureInline" => {
                need("insecureInline", "value", self.insecure_inline.as_ref().map(|i| i.value.as_str()));
            }
            other => violations.add(
                format!("{path}.type"),
                format!("{other} must be one of: File, Secret, EnvVar, InsecureInline"),
            ),
        }
    }
}

/// Default template of the trust domain.
pub const DEFAULT_TRUST_DOMAIN: &str = "{{ .Mesh }}.{{ .Zone }}.mesh.local";
/// Default template of the path on Universal.
pub const DEFAULT_PATH_UNIVERSAL: &str = "/workload/{{ .Workload }}";
/// Default leaf lifetime.
pub const DEFAULT_EXPIRY: GoDuration = GoDuration::from_secs(120 * 3600);

impl MeshIdentity {
    /// Whether it selects a Dataplane with these labels.
    pub fn selects(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.dataplane_selector().is_some_and(|selector| selector.matches(labels))
    }

    fn dataplane_selector(&self) -> Option<&LabelSelector> {
        self.selector.as_ref()?.dataplane.as_ref()
    }

    /// Number of label pairs; the best match has most.
    pub fn specificity(&self) -> usize {
        self.dataplane_selector()
            .and_then(|s| s.match_labels.as_ref())
            .map_or(0, std::collections::BTreeMap::len)
    }

    /// Template of the trust domain.
    pub fn trust_domain_template(&self) -> &str {
        self.spiffe_id.as_ref().and_then(|id| id.trust_domain.as_deref()).unwrap_or(DEFAULT_TRUST_DOMAIN)
    }

    /// Template of the path (Universal default).
    pub fn path_template(&self) -> &str {
        self.spiffe_id.as_ref().and_then(|id| id.path.as_deref()).unwrap_or(DEFAULT_PATH_UNIVERSAL)
    }

    /// Whether the path derives from the workload label.
    pub fn path_uses_workload(&self) -> bool {
        Template::parse(self.path_template())
            .is_ok_and(|template| template.uses("Workload", crate::labels::WORKLOAD))
    }

    /// The bundled provider, if it is the chosen one.
    pub fn bundled(&self) -> Option<&Bundled> {
        self.provider.as_ref().filter(|p| p.r#type == "Bundled").and_then(|p| p.bundled.as_ref())
    }
}

const BUNDLED: Schema = object(&[
    field(
        "autogenerate",
        "The control plane makes an authority of its own in every zone.",
        object(&[field("enabled", "Whether it does.", boolean())]),
    ),
    field(
        "ca",
        "An authority that you bring along.",
        object(&[
            field("certificate", "Certificate of the authority, PEM.", SECURE_DATA_SOURCE),
            field("privateKey", "Key of the authority, PEM.", SECURE_DATA_SOURCE),
        ]),
    ),
    field(
        "certificateParameters",
        "What certificates of workloads look like.",
        object(&[field("expiry", "Lifetime of a certificate.", DURATION)]),
    ),
    field("insecureAllowSelfSigned", "Admits a self-signed root as the authority.", boolean()),
    field(
        "meshTrustCreation",
        "Whether a MeshTrust with the authority is published by itself.",
        one_of(&["Enabled", "Disabled"]),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "provider",
        "Who issues certificates; without it, ids are announced but nothing is issued.",
        object(&[
            field("bundled", "The control plane issues certificates.", BUNDLED),
            field(
                "extension",
                "A plug-in issues certificates.",
                object(&[
                    field("config", "Configuration of the plug-in.", any()),
                    field("name", "Name of the plug-in.", text()).required(),
                ]),
            ),
            field(
                "spire",
                "A SPIRE agent beside the proxy issues certificates.",
                object(&[field(
                    "agent",
                    "How the proxy talks to the agent.",
                    object(&[field("timeout", "Time to connect to the agent.", DURATION)]),
                )]),
            ),
            field("type", "Which of the providers is used.", one_of(&["Bundled", "Spire", "Extension"]))
                .required(),
        ]),
    ),
    field(
        "selector",
        "Proxies that get the identity; of several identities the most specific wins.",
        object(&[field(
            "dataplane",
            "Labels of the proxies; empty labels select all, no member selects none.",
            LABEL_SELECTOR,
        )]),
    ),
    field(
        "spiffeID",
        "Templates of the id.",
        object(&[
            field("path", "Template of the path.", text()),
            field("trustDomain", "Template of the trust domain.", text()),
        ]),
    ),
]);

impl Validate for MeshIdentity {
    const DESCRIPTION: &'static str =
        "Gives proxies an identity: the SPIFFE id and who issues its certificate.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        if let Some(id) = &self.spiffe_id {
            for (path, template) in
                [("spec.spiffeID.trustDomain", &id.trust_domain), ("spec.spiffeID.path", &id.path)]
            {
                if let Some(text) = template
                    && let Err(error) = Template::parse(text)
                {
                    violations.add(path, format!("couldn't parse template: {error}"));
                }
            }
        }
        let Some(provider) = &self.provider else { return };
        let missing = "configuration needs to be defined";
        match provider.r#type.as_str() {
            "Bundled" => match &provider.bundled {
                None => violations.add("spec.provider.bundled", missing),
                Some(bundled) => validate_bundled(bundled, violations),
            },
            "Spire" if provider.spire.is_none() => violations.add("spec.provider.spire", missing),
            "Extension" if provider.extension.is_none() => violations.add("spec.provider.extension", missing),
            "Spire" | "Extension" => {}
            _ => violations
                .add("spec.provider.type", "\"type\" must be one of [\"Bundled\", \"Spire\", \"Extension\"]"),
        }
    }
}

fn validate_bundled(bundled: &Bundled, violations: &mut Violations) {
    let path = "spec.provider.bundled";
    if let Some(creation) = &bundled.mesh_trust_creation
        && creation != "Enabled"
        && creation != "Disabled"
    {
        violations.add(
            format!("{path}.meshTrustCreation"),
            "\"meshTrustCreation\" must be one of [\"Enabled\", \"Disabled\"]",
        );
    }
    let autogenerates = bundled.autogenerate.as_ref().is_some_and(|a| a.enabled == Some(true));
    match &bundled.ca {
        Some(_) if autogenerates => {
            violations.add(format!("{path}.ca"), "shouldn't be defined once using autogenerated");
        }
        None if !autogenerates => violations.add(format!("{path}.ca"), "must be defined"),
        Some(ca) => {
            for (name, source) in [("certificate", &ca.certificate), ("privateKey", &ca.private_key)] {
                match source {
                    None => violations.add(format!("{path}.ca.{name}"), "must be defined"),
                    Some(source) => source.validate(&format!("{path}.ca.{name}"), violations),
                }
            }
        }
        None => {}
    }
    if let Some(expiry) = bundled.certificate_parameters.as_ref().and_then(|p| p.expiry)
        && expiry.0 < 0
    {
        violations.add(format!("{path}.certificateParameters.expiry"), "must not be negative when defined");
    }
}

/// Progress of an identity in one zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeshIdentityStatus {
    /// `Provider`, `MeshTrustCreated`, `Ready`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl MeshIdentityStatus {
    /// Condition `Ready` is `True`.
    pub fn is_initialized(&self) -> bool {
        self.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True")
    }

    /// Condition `Ready` is `False` for the reason `PartiallyReady`.
    pub fn is_partially_ready(&self) -> bool {
        self.conditions
            .iter()
            .any(|c| c.r#type == "Ready" && c.status == "False" && c.reason == "PartiallyReady")
    }
}

impl Described for MeshIdentityStatus {
    const SCHEMA: &'static Schema =
        &object(&[field("conditions", "Whether the identity takes effect.", CONDITIONS)]);
}
