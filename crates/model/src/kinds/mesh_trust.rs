//! `MeshTrust`: certificate authorities of a trust domain (xds.md §4.5).

use serde::{Deserialize, Serialize};

use super::{Described, Validate};
use crate::schema::{Schema, field, list, object, one_of, text};
use crate::{Meta, Violations};

/// The authorities that speak for a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTrust {
    /// The domain.
    #[serde(default)]
    pub trust_domain: String,
    /// Its authorities.
    #[serde(default)]
    pub ca_bundles: Vec<CaBundle>,
}

/// One authority.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CaBundle {
    /// `Pem`.
    #[serde(default)]
    pub r#type: String,
    /// PEM certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<Pem>,
}

/// PEM text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pem {
    /// The text.
    #[serde(default)]
    pub value: String,
}

impl MeshTrust {
    /// A trust of one PEM bundle.
    pub fn of_pem(trust_domain: impl Into<String>, pem: impl Into<String>) -> MeshTrust {
        let bundle = CaBundle { r#type: "Pem".into(), pem: Some(Pem { value: pem.into() }) };
        MeshTrust { trust_domain: trust_domain.into(), ca_bundles: vec![bundle] }
    }

    /// All PEM texts.
    pub fn pems(&self) -> impl Iterator<Item = &str> {
        self.ca_bundles.iter().filter_map(|bundle| bundle.pem.as_ref()).map(|pem| pem.value.as_str())
    }
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "caBundles",
        "Authorities that are trusted.",
        list(&object(&[
            field(
                "pem",
                "Certificates in PEM.",
                object(&[field("value", "One or more certificates.", text()).required()]),
            ),
            field("type", "Form of the certificates.", one_of(&["Pem"])).required(),
        ]))
        .min_items(1),
    )
    .required(),
    field("trustDomain", "Trust domain that the authorities vouch for.", text().max_len(253)).required(),
]);

impl Validate for MeshTrust {
    const DESCRIPTION: &'static str = "Authorities that proxies trust for a trust domain.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        if self.ca_bundles.is_empty() {
            violations.add("spec.caBundles", "must not be empty");
        }
        for (index, bundle) in self.ca_bundles.iter().enumerate() {
            let path = format!("spec.caBundles[{index}]");
            if bundle.r#type != "Pem" {
                violations.add(format!("{path}.type"), format!("{} must be one of: Pem", bundle.r#type));
                continue;
            }
            match &bundle.pem {
                None => violations.add(format!("{path}.pem"), "must be defined"),
                Some(pem) if !pem.value.contains("-----BEGIN ") || pem.value.contains("PRIVATE KEY-----") => {
                    violations.add(format!("{path}.pem.value"), "provided certificate has incorrect format");
                }
                Some(_) => {}
            }
        }
        if self.trust_domain.is_empty() {
            violations.add("spec.trustDomain", "trustDomain needs to be defined");
        } else if self.trust_domain.len() > 253 {
            violations.add("spec.trustDomain", "must not be longer than 253 characters");
        }
    }
}

/// Where a trust comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeshTrustStatus {
    /// The MeshIdentity that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Names a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Its KRI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kri: Option<String>,
}

impl Described for MeshTrustStatus {
    const SCHEMA: &'static Schema = &object(&[field(
        "origin",
        "The MeshIdentity that published it.",
        object(&[field("kri", "Its identifier.", text())]),
    )]);
}
