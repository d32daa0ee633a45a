//! `MeshTLS` (policies.md §6).

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::schema::common::{TARGET_REF, TLS_VERSIONS};
use crate::schema::{Schema, field, list, object, one_of};
use crate::targetref::{self, Rule, TargetKind};
use crate::{Meta, TargetRef, Violations};

/// How inbounds treat TLS.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTLS {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Inbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule<Conf>>>,
}

/// TLS settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Whether plaintext is admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Accepted versions; only for the whole mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<TlsVersions>,
    /// Accepted ciphers; only for the whole mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ciphers: Option<Vec<String>>,
}

/// Whether plaintext is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Mesh TLS only.
    Strict,
    /// Plaintext as well.
    Permissive,
}

/// Version range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TlsVersions {
    /// Lowest.
    #[serde(default = "auto", skip_serializing_if = "Option::is_none")]
    pub min: Option<TlsVersion>,
    /// Highest.
    #[serde(default = "auto", skip_serializing_if = "Option::is_none")]
    pub max: Option<TlsVersion>,
}

fn auto() -> Option<TlsVersion> {
    Some(TlsVersion::Auto)
}

impl TlsVersions {
    /// The lowest version is above the highest one.
    pub(super) fn is_reversed(&self) -> bool {
        let known = |version: Option<TlsVersion>| version.filter(|version| *version != TlsVersion::Auto);
        matches!((known(self.min), known(self.max)), (Some(min), Some(max)) if min > max)
    }
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// Envoy decides.
    #[serde(rename = "TLSAuto")]
    Auto,
    /// 1.0
    #[serde(rename = "TLS10")]
    Tls10,
    /// 1.1
    #[serde(rename = "TLS11")]
    Tls11,
    /// 1.2
    #[serde(rename = "TLS12")]
    Tls12,
    /// 1.3
    #[serde(rename = "TLS13")]
    Tls13,
}

const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

const RULE: Schema = object(&[field(
    "default",
    "TLS of the incoming traffic.",
    object(&[
        field(
            "mode",
            "`Strict` takes mTLS only, `Permissive` plain traffic, too.",
            one_of(&["Permissive", "Strict"]),
        ),
        field(
            "tlsCiphers",
            "Cipher suites of TLS 1.2.",
            list(&one_of(&[
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-RSA-CHACHA20-POLY1305",
            ])),
        ),
        field("tlsVersion", "TLS versions.", TLS_VERSIONS),
    ]),
)]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("rules", "Incoming traffic.", list(&RULE)),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
]);

impl Validate for MeshTLS {
    const DESCRIPTION: &'static str = "Says how incoming traffic must be encrypted.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let rules = self.rules.as_deref().unwrap_or_default();
        targetref::validate_top(self.target_ref.as_ref(), !rules.is_empty(), violations);
        let whole_mesh = self.target_ref.as_ref().is_none_or(|target| target.kind == TargetKind::Mesh);
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("spec.rules[{index}].default");
            let conf = &rule.default;
            if !whole_mesh {
                for (field, is_set) in
                    [("tlsCiphers", conf.tls_ciphers.is_some()), ("tlsVersion", conf.tls_version.is_some())]
                {
                    if is_set {
                        let message =
                            format!("{field} can only be defined with top level targetRef kind: Mesh");
                        violations.add(format!("{path}.{field}"), message);
                    }
                }
            }
            if whole_mesh && conf.tls_version.as_ref().is_some_and(TlsVersions::is_reversed) {
                violations.add(format!("{path}.tlsVersion.min"), "min version must be lower than max");
            }
            for (cipher_index, cipher) in conf.tls_ciphers.iter().flatten().enumerate() {
                if !CIPHERS.contains(&cipher.as_str()) {
                    let list = CIPHERS.map(|c| format!("\"{c}\"")).join(", ");
                    violations.add(
                        format!("{path}.tlsCiphers[{cipher_index}]"),
                        format!("\"tlsCiphers\" must be one of [{list}]"),
                    );
                }
            }
        }
    }
}
