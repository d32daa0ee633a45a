//! The body of `POST /bootstrap`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::BootstrapError;

/// What an agent sends; members that are not known are ignored, null means absent.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootstrapRequest {
    /// Mesh.
    #[serde(deserialize_with = "or_default")]
    pub mesh: String,
    /// Name of the Dataplane.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `dataplane` or empty.
    #[serde(deserialize_with = "or_default")]
    pub proxy_type: String,
    /// Token of the proxy; secret.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub dataplane_token: String,
    /// Path of the token's file on the proxy's host.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub dataplane_token_path: String,
    /// The Dataplane as text; empty where it is stored already.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub dataplane_resource: String,
    /// Versions.
    #[serde(deserialize_with = "or_default")]
    pub version: Version,
    /// CA that the agent validates the control plane with; empty = none.
    #[serde(deserialize_with = "or_default")]
    pub ca_cert: String,
    /// Free metadata, such as `HOST_IP`.
    #[serde(deserialize_with = "or_default")]
    pub dynamic_metadata: BTreeMap<String, String>,
    /// OTel environment inventory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otel_env: Option<Map<String, Value>>,
    /// Port of the agent's DNS proxy; 0 = none.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub dns_port: u32,
    /// Port of the agent's readiness endpoint; 0 = none.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub readiness_port: u32,
    /// True means that the probe proxy is *enabled* (sic).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub app_probe_proxy_disabled: bool,
    /// Operating system; not used.
    #[serde(deserialize_with = "or_default")]
    pub operating_system: String,
    /// Feature strings.
    #[serde(deserialize_with = "or_default")]
    pub features: Vec<String>,
    /// Limits of the host; not used.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
    /// Directory of Unix sockets.
    #[serde(deserialize_with = "or_default")]
    pub workdir: String,
    /// TLS of the metrics listener.
    #[serde(deserialize_with = "or_default")]
    pub metrics_resources: MetricsResources,
    /// CA bundle of the proxy's operating system.
    #[serde(deserialize_with = "or_default")]
    pub system_ca_path: String,
    /// Transparent proxy settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataplane_config: Option<Map<String, Value>>,
    /// The host has IPv6.
    #[serde(deserialize_with = "or_default")]
    pub ipv6_enabled: bool,
    /// SPIRE.
    #[serde(deserialize_with = "or_default")]
    pub spire_resources: SpireResources,
}

impl fmt::Debug for BootstrapRequest {
    /// Leaves the token out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapRequest")
            .field("mesh", &self.mesh)
            .field("name", &self.name)
            .field("workdir", &self.workdir)
            .finish_non_exhaustive()
    }
}

/// Versions of agent and Envoy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Version {
    /// The agent.
    #[serde(deserialize_with = "or_default")]
    pub kuma_dp: DpVersion,
    /// Envoy.
    #[serde(deserialize_with = "or_default")]
    pub envoy: EnvoyVersion,
}

/// Version of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct DpVersion {
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    #[serde(deserialize_with = "or_default")]
    pub git_tag: String,
    #[serde(deserialize_with = "or_default")]
    pub git_commit: String,
    #[serde(deserialize_with = "or_default")]
    pub build_date: String,
}

/// Version of Envoy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyVersion {
    /// Version.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// Build.
    #[serde(deserialize_with = "or_default")]
    pub build: String,
    /// The agent supports this version.
    #[serde(deserialize_with = "or_default")]
    pub kuma_dp_compatible: bool,
}

/// Limits of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Memory limit in bytes; 0 = none.
    #[serde(deserialize_with = "or_default")]
    pub max_heap_size_bytes: u64,
}

/// TLS of the metrics listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsResources {
    /// Certificate.
    #[serde(deserialize_with = "or_default")]
    pub cert_path: String,
    /// Key.
    #[serde(deserialize_with = "or_default")]
    pub key_path: String,
}

/// SPIRE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpireResources {
    /// Socket of the SPIRE agent.
    #[serde(deserialize_with = "or_default")]
    pub socket_path: String,
}

impl BootstrapRequest {
    /// Reads a body; a member of a wrong type is named. The caller limits the size.
    pub fn parse(body: &[u8]) -> Result<BootstrapRequest, BootstrapError> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let field = error.path().to_string();
            BootstrapError::Request {
                field: if field == "." { "request".into() } else { field },
                message: error.inner().to_string(),
            }
        })
    }
}

impl Version {
    /// Member `version` of the node metadata; false is left out as in the reference.
    pub(super) fn metadata(&self) -> Value {
        let mut envoy = json!({"version": self.envoy.version, "build": self.envoy.build});
        if self.envoy.kuma_dp_compatible {
            envoy["kumaDpCompatible"] = json!(true);
        }
        json!({"kumaDp": self.kuma_dp, "envoy": envoy})
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}
