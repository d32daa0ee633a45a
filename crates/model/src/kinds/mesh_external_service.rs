//! `MeshExternalService`: a service outside the mesh (xds.md §5).

use serde::{Deserialize, Serialize};

use super::check;
use super::hostname_generator::Extension;
use super::mesh_identity::SecureDataSource;
use super::mesh_service::{ADDRESSES, Address, GENERATOR_STATUSES, HostnameGeneratorStatus, VIP, Vip};
use super::mesh_tls::TlsVersions;
use super::{Described, Validate};
use crate::schema::common::{SECURE_DATA_SOURCE, TLS_VERSIONS};
use crate::schema::{Schema, any, boolean, field, int32, list, object, one_of, text};
use crate::{Meta, Violations, name};

/// A service outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshExternalService {
    /// Traffic that belongs to it.
    pub r#match: Match,
    /// Plug-in data, kept as it is; a plug-in brings its own endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
    /// Where it is; absent: the hostname of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<Endpoint>>,
    /// TLS towards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Traffic that belongs to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// How clients name it.
    #[serde(default)]
    pub r#type: MatchType,
    /// Port on the VIP.
    pub port: u32,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// How clients name a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum MatchType {
    /// By hostnames that HostnameGenerators make.
    #[default]
    HostnameGenerator,
}

/// Protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Protocol {
    #[default]
    Tcp,
    Grpc,
    Http,
    Http2,
}

impl Protocol {
    /// Wire name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
            Protocol::Http2 => "http2",
        }
    }
}

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// IP address or hostname.
    pub address: String,
    /// Port.
    pub port: u32,
    /// 0 is used first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

/// TLS towards a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Proxies start TLS.
    #[serde(default = "no", skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Accepted versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<TlsVersions>,
    /// The server may renegotiate.
    #[serde(default = "no", skip_serializing_if = "Option::is_none")]
    pub allow_renegotiation: Option<bool>,
    /// How the server is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

fn no() -> Option<bool> {
    Some(false)
}

/// How the server is verified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// How much of it.
    #[serde(default)]
    pub mode: VerificationMode,
    /// SNI, and the name in the certificate; absent: the hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Other names that the certificate may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_alt_names: Option<Vec<SubjectAltName>>,
    /// Authorities; absent: those of the proxy's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<SecureDataSource>,
    /// Certificate that proxies present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<SecureDataSource>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<SecureDataSource>,
}

/// How much of a server is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum VerificationMode {
    /// Not its name.
    SkipSAN,
    /// Not its authority.
    SkipCA,
    /// Authority and name.
    #[default]
    Secured,
    /// Nothing.
    SkipAll,
}

/// A name that a certificate may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAltName {
    /// How it is compared.
    #[serde(default)]
    pub r#type: SanMatchType,
    /// The name.
    pub value: String,
}

/// How names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SanMatchType {
    /// Equal.
    #[default]
    Exact,
    /// Starts with.
    Prefix,
}

/// What each zone derives for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshExternalServiceStatus {
    /// Virtual IP of this zone.
    pub vip: Vip,
    /// Hostnames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Outcome of each HostnameGenerator that selects the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostname_generators: Vec<HostnameGeneratorStatus>,
}

impl MeshExternalService {
    /// Section of KRIs and SNIs: always the decimal port.
    pub fn section(&self) -> String {
        self.r#match.port.to_string()
    }
}

const VERIFICATION: Schema = object(&[
    field(
        "caCert",
        "Authorities that the server's certificate is checked with; without it, those of the system.",
        SECURE_DATA_SOURCE,
    ),
    field("clientCert", "Certificate that the proxy shows to the server.", SECURE_DATA_SOURCE),
    field("clientKey", "Key of the client certificate.", SECURE_DATA_SOURCE),
    field(
        "mode",
        "What of the server's certificate is checked.",
        one_of(&["SkipSAN", "SkipCA", "Secured", "SkipAll"]).default_text("Secured"),
    ),
    field(
        "serverName",
        "Server name that the proxy asks for; without it, the hostname that the client asked for.",
        text(),
    ),
    field(
        "subjectAltNames",
        "Names of which the server's certificate must have one.",
        list(&object(&[
            field("type", "How the value is compared.", one_of(&["Exact", "Prefix"]).default_text("Exact")),
            field("value", "The name, or the beginning of one.", text()).required(),
        ])),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "endpoints",
        "Where the service really is.",
        list(&object(&[
            field(
                "address",
                "IP address or hostname of the endpoint; or a path when the port is a unix socket.",
                text().min_len(1),
            )
            .required(),
            field("port", "Port of the endpoint.", int32().min(1).max(65535)).required(),
            field(
                "priority",
                "Endpoints with a higher number are used when those with lower ones fail.",
                int32().min(0).max(128),
            ),
        ])),
    ),
    field(
        "extension",
        "Leaves the way to the service to a plug-in.",
        object(&[
            field("config", "Configuration of the plug-in.", any()),
            field("type", "Name of the plug-in.", text()).required(),
        ]),
    ),
    field(
        "match",
        "How clients inside the mesh reach the service.",
        object(&[
            field("port", "Port that clients use.", int32().min(1).max(65535)).required(),
            field(
                "protocol",
                "Protocol that clients speak.",
                one_of(&["tcp", "grpc", "http", "http2"]).default_text("tcp"),
            ),
            field(
                "type",
                "Always `HostnameGenerator`: clients use the hostnames that generators make.",
                one_of(&["HostnameGenerator"]).default_text("HostnameGenerator"),
            ),
        ]),
    )
    .required(),
    field(
        "tls",
        "TLS between the proxy and the service.",
        object(&[
            field(
                "allowRenegotiation",
                "Lets the server renegotiate; insecure, for old servers.",
                boolean().default_bool(false),
            ),
            field("enabled", "Whether the proxy starts TLS.", boolean().default_bool(false)),
            field("verification", "How the server is checked.", VERIFICATION),
            field("version", "TLS versions.", TLS_VERSIONS),
        ]),
    ),
]);

impl Validate for MeshExternalService {
    const DESCRIPTION: &'static str =
        "A service outside the mesh that clients inside address like one of the mesh.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, meta: &Meta, violations: &mut Violations) {
        if let Some(message) = name::dns1035_error(meta.display_name()) {
            violations.add("name", message);
        }
        let has_plugin = self.extension.is_some();
        if self.extension.as_ref().is_some_and(|extension| extension.r#type.is_empty()) {
            violations.add("spec.extension.type", "must not be empty");
        }
        if !has_plugin {
            check::port(self.r#match.port, "spec.match.port".into(), violations);
            for (index, endpoint) in self.endpoints.iter().flatten().enumerate() {
                let path = format!("spec.endpoints[{index}]");
                check::port(endpoint.port, format!("{path}.port"), violations);
                if !is_ip_or_host(&endpoint.address) {
                    violations.add(format!("{path}.address"), "address has to be a valid IP or hostname");
                }
            }
        }
        let Some(tls) = &self.tls else { return };
        if !has_plugin && tls.version.as_ref().is_some_and(TlsVersions::is_reversed) {
            violations.add("spec.tls.version.min", "min version must be lower than max");
        }
        if let Some(verification) = &tls.verification {
            validate_verification(verification, has_plugin, violations);
        }
    }
}

fn validate_verification(verification: &Verification, has_plugin: bool, violations: &mut Violations) {
    let path = "spec.tls.verification";
    if !has_plugin {
        let server_name = verification.server_name.as_deref();
        if server_name.is_some_and(|host| !name::is_dns1123_subdomain(host)) {
            violations.add(format!("{path}.serverName"), "must be a valid DNS name");
        }
        match (&verification.client_cert, &verification.client_key) {
            (Some(_), None) => {
                violations.add(format!("{path}.clientKey"), "must be defined when clientCert is defined");
            }
            (None, Some(_)) => {
                violations.add(format!("{path}.clientCert"), "must be defined when clientKey is defined");
            }
            _ => {}
        }
    }
    for (field, source) in [
        ("caCert", &verification.ca_cert),
        ("clientCert", &verification.client_cert),
        ("clientKey", &verification.client_key),
    ] {
        let Some(source) = source else { continue };
        let path = format!("{path}.{field}");
        if matches!(source.r#type.as_str(), "File" | "EnvVar") {
            let message = format!("{} must be one of: Secret, InsecureInline", source.r#type);
            violations.add(format!("{path}.type"), message);
        } else {
            source.validate(&path, violations);
        }
    }
}

/// An IP address or a DNS name.
pub(super) fn is_ip_or_host(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok() || name::is_dns1123_subdomain(&text.to_ascii_lowercase())
}

impl Described for MeshExternalServiceStatus {
    const SCHEMA: &'static Schema = &object(&[
        field("vip", "Virtual IP of the service in this zone.", VIP),
        field("addresses", "Hostnames of the service.", ADDRESSES),
        field(
            "hostnameGenerators",
            "Outcome of each generator that selects the service.",
            GENERATOR_STATUSES,
        ),
    ]);
}
