//! What a proxy says about itself: xDS node metadata, read as hostile input (xds.md §1.3).

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

/// Facts from node metadata that decide configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NodeFacts {
    /// Envoy admin; none when the admin port is 0.
    pub admin: Option<AdminFacts>,
    /// Base directory of Unix sockets; may be empty.
    pub workdir: String,
    /// Feature strings.
    pub features: BTreeSet<String>,
    /// Whether the host has IPv6; absent means yes.
    pub ipv6: bool,
    /// Port of the agent's DNS proxy; 0 = none.
    pub dns_port: u32,
    /// Transparent proxy as the agent configured it.
    pub transparent_proxy: Option<Value>,
    /// Path of the operating system's CA bundle.
    pub system_ca_path: String,
    /// Certificate of the metrics listener.
    pub metrics_cert_path: String,
    /// Key of the metrics listener.
    pub metrics_key_path: String,
}

/// Envoy admin and readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdminFacts {
    /// Port of the listener in front of admin.
    pub port: u32,
    /// Loopback address of admin, normalised.
    pub address: String,
    /// Unix socket of admin; empty = TCP.
    pub socket_path: String,
    /// Port of the agent's readiness endpoint.
    pub readiness_port: u32,
}

/// Metadata that no configuration can be made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Another proxy type than `dataplane`.
    #[error("unsupported proxy type \"{0}\"")]
    ProxyType(String),
    /// Admin must be local, or the proxy could turn the admin route into a gateway to another host.
    #[error(
        "dataplane.admin.address \"{0}\" is not allowed: admin must listen on a loopback or unspecified address"
    )]
    AdminAddress(String),
    /// Readiness is needed where admin is.
    #[error("dataplane.readinessReporter.port is missing or 0 although an admin port is set")]
    ReadinessPort,
}

/// Accepts `enable_reuse_port` on inbound listeners.
pub const FEATURE_REUSE_PORT: &str = "feature-reuse-port";
/// Only declared inbound ports are let through a transparent proxy.
pub const FEATURE_STRICT_INBOUND_PORTS: &str = "feature-strict-inbound-ports";
/// Outbounds are bound to loopback addresses.
pub const FEATURE_BIND_OUTBOUNDS: &str = "feature-bind-outbounds";
/// The transparent proxy is configured by node metadata.
pub const FEATURE_TRANSPARENT_PROXY_IN_METADATA: &str = "feature-transparent-proxy-in-dataplane-metadata";

impl NodeFacts {
    /// Reads the metadata (JSON form of the Struct).
    pub fn from_metadata(metadata: &Map<String, Value>) -> Result<NodeFacts, NodeError> {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| text(key).parse::<u32>().ok().filter(|port| *port <= 65535).unwrap_or(0);
        let proxy_type = text("dataplane.proxyType");
        if !matches!(proxy_type, "" | "dataplane") {
            return Err(NodeError::ProxyType(proxy_type.into()));
        }
        let admin = match number("dataplane.admin.port") {
            0 => None,
            port => {
                let address = match text("dataplane.admin.address") {
                    "" | "0.0.0.0" | "127.0.0.1" => "127.0.0.1",
                    "::" | "::1" => "::1",
                    other => return Err(NodeError::AdminAddress(other.into())),
                };
                let readiness_port = number("dataplane.readinessReporter.port");
                if readiness_port == 0 {
                    return Err(NodeError::ReadinessPort);
                }
                let socket_path = text("dataplane.admin.socketPath").to_owned();
                Some(AdminFacts { port, address: address.into(), socket_path, readiness_port })
            }
        };
        let features = metadata.get("features").and_then(Value::as_array).into_iter().flatten();
        Ok(NodeFacts {
            admin,
            workdir: text("workdir").into(),
            features: features.filter_map(Value::as_str).map(str::to_owned).collect(),
            ipv6: metadata.get("ipv6Enabled").and_then(Value::as_bool).unwrap_or(true),
            dns_port: number("dataplane.dns.port"),
            transparent_proxy: metadata.get("transparentProxy").filter(|v| v.is_object()).cloned(),
            system_ca_path: text("systemCaPath").into(),
            metrics_cert_path: text("metricsCertPath").into(),
            metrics_key_path: text("metricsKeyPath").into(),
        })
    }

    /// Whether the proxy announced a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(value: Value) -> Result<NodeFacts, NodeError> {
        NodeFacts::from_metadata(value.as_object().expect("an object"))
    }

    #[test]
    fn hostile_metadata() {
        let admin = |address: &str, readiness: &str| {
            facts(serde_json::json!({"dataplane.admin.port": "9901", "dataplane.admin.address": address,
                "dataplane.readinessReporter.port": readiness}))
        };
        assert_eq!(admin("10.0.0.1", "9902"), Err(NodeError::AdminAddress("10.0.0.1".into())));
        assert_eq!(admin("127.0.0.1", "x"), Err(NodeError::ReadinessPort));
        assert_eq!(admin("0.0.0.0", "9902").expect("valid").admin.expect("set").address, "127.0.0.1");
        assert_eq!(
            facts(serde_json::json!({"dataplane.proxyType": "ingress"})),
            Err(NodeError::ProxyType("ingress".into()))
        );
        let odd = facts(serde_json::json!({"features": "x", "ipv6Enabled": "no", "dataplane.admin.port": 5}))
            .expect("valid");
        assert!(odd.features.is_empty() && odd.ipv6 && odd.admin.is_none());
    }
}
