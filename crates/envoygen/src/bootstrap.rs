//! `POST /bootstrap`: what an agent asks, and the Envoy bootstrap it is answered with (dataplane-agent.md §1.2, §2).

mod request;

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

pub use request::{
    BootstrapRequest, DpVersion, EnvoyVersion, MetricsResources, Resources, SpireResources, Version,
};

use crate::message::socket_path;

/// Cluster of the control plane's ADS.
const ADS_CLUSTER: &str = "system_ads";
/// Cluster of the agent's access log endpoint; nothing refers to it, filters of dashboards expect it.
const ACCESS_LOG_CLUSTER: &str = "system_access_log_sink";
/// Secret that validates the control plane.
const CP_VALIDATION: &str = "cp_validation_ctx";
/// Loopback address of admin.
const DEFAULT_ADMIN_ADDRESS: &str = "127.0.0.1";

/// Settings of the control plane.
#[derive(Debug, Clone)]
pub struct BootstrapSettings {
    /// Port of admin where the Dataplane has none; 0 = no admin.
    pub admin_port: u32,
    /// Address of admin.
    pub admin_address: String,
    /// Admin listens on a Unix socket in the agent's working directory.
    pub admin_unix_socket: bool,
    /// Access log of admin.
    pub admin_access_log_path: String,
    /// Host of the control plane as the proxy reaches it.
    pub xds_host: String,
    /// The control plane itself finds only IPv4 addresses for a DNS name in `xds_host`.
    pub xds_host_ipv4_only: bool,
    /// Port of the control plane.
    pub xds_port: u16,
    /// Time to connect to the control plane.
    pub connect_timeout: Duration,
    /// Health discovery is on.
    pub hds_enabled: bool,
    /// Proxies read their token from a file for every call.
    pub reloadable_tokens: bool,
    /// Largest message of the `google_grpc` client, in bytes.
    pub max_receive_message_bytes: u64,
    /// The control plane's own certificate chain; validates it where the request brings no CA.
    pub ca_pem: String,
}

impl Default for BootstrapSettings {
    /// The defaults of a zone on this host; the CA is always set by the caller.
    fn default() -> Self {
        BootstrapSettings {
            admin_port: 9901,
            admin_address: DEFAULT_ADMIN_ADDRESS.into(),
            admin_unix_socket: true,
            admin_access_log_path: "/dev/null".into(),
            xds_host: "localhost".into(),
            xds_host_ipv4_only: false,
            xds_port: 5678,
            connect_timeout: Duration::from_secs(1),
            hds_enabled: true,
            reloadable_tokens: false,
            max_receive_message_bytes: 4 << 20,
            ca_pem: String::new(),
        }
    }
}

/// What the bootstrap takes from the Dataplane, given or stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataplaneFacts {
    /// Label `kuma.io/workload`.
    pub workload: Option<String>,
    /// `networking.admin.port`.
    pub admin_port: Option<u32>,
}

/// A request that no bootstrap can be made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Not the JSON of a request.
    #[error("{field}: {message}")]
    Request {
        /// Path of the member, empty for the whole body.
        field: String,
        /// Why.
        message: String,
    },
    /// Another proxy type.
    #[error("proxyType: unsupported value \"{0}\"")]
    ProxyType(String),
    /// A member that must be there is empty.
    #[error("{0}: must not be empty")]
    Missing(&'static str),
    /// A port that is none.
    #[error("{field}: {port} is no port")]
    Port {
        /// Path of the member.
        field: &'static str,
        /// Its value.
        port: u32,
    },
    /// A text that is no certificate.
    #[error("caCert: not a PEM certificate")]
    CaCert,
}

/// The Envoy bootstrap of a proxy, in JSON (which is YAML as well).
///
/// Authentication, the Dataplane's validity and the fitness of the CA are the caller's business.
pub fn bootstrap(
    request: &BootstrapRequest,
    settings: &BootstrapSettings,
    dataplane: &DataplaneFacts,
) -> Result<Value, BootstrapError> {
    let admin = Admin::of(request, settings, dataplane)?;
    check(request)?;
    let ca = if request.ca_cert.is_empty() { &settings.ca_pem } else { &request.ca_cert };
    let service = control_plane(request, settings, ca);
    let mut root = Map::new();
    if let Some(admin) = &admin {
        root.insert("admin".into(), admin.listener(settings));
    }
    root.insert(
        "defaultRegexEngine".into(),
        json!({"name": "envoy.regex_engines.google_re2", "typedConfig":
            {"@type": "type.googleapis.com/envoy.extensions.regex_engines.v3.GoogleRE2"}}),
    );
    let ads = json!({"ads": {}, "initialFetchTimeout": "0s", "resourceApiVersion": "V3"});
    root.insert(
        "dynamicResources".into(),
        json!({"adsConfig": api(&service, "DELTA_GRPC"), "cdsConfig": ads, "ldsConfig": ads}),
    );
    if settings.hds_enabled {
        root.insert("hdsConfig".into(), api(&service, "GRPC"));
    }
    root.insert(
        "layeredRuntime".into(),
        json!({"layers": [{"name": "kuma", "staticLayer": {
            "re2.max_program_size.error_level": u32::MAX, "re2.max_program_size.warn_level": 1000}}]}),
    );
    let workload = dataplane.workload.as_deref().filter(|name| !name.is_empty()).unwrap_or("unknown");
    root.insert(
        "node".into(),
        json!({"id": format!("{}.{}", request.mesh, request.name), "cluster": workload,
            "metadata": metadata(request, admin.as_ref())}),
    );
    root.insert("staticResources".into(), static_resources(request, settings, ca));
    root.insert("statsConfig".into(), stats_config());
    Ok(Value::Object(root))
}

fn check(request: &BootstrapRequest) -> Result<(), BootstrapError> {
    if !matches!(request.proxy_type.as_str(), "" | "dataplane") {
        return Err(BootstrapError::ProxyType(request.proxy_type.clone()));
    }
    for (field, value) in [("mesh", &request.mesh), ("name", &request.name)] {
        if value.is_empty() {
            return Err(BootstrapError::Missing(field));
        }
    }
    for (field, port) in [("dnsPort", request.dns_port), ("readinessPort", request.readiness_port)] {
        if port > u32::from(u16::MAX) {
            return Err(BootstrapError::Port { field, port });
        }
    }
    if !request.ca_cert.is_empty() && !request.ca_cert.contains("-----BEGIN CERTIFICATE-----") {
        return Err(BootstrapError::CaCert);
    }
    Ok(())
}

/// Where admin listens.
struct Admin {
    address: String,
    port: u32,
    socket: Option<String>,
}

impl Admin {
    fn of(
        request: &BootstrapRequest,
        settings: &BootstrapSettings,
        dataplane: &DataplaneFacts,
    ) -> Result<Option<Admin>, BootstrapError> {
        let port = dataplane.admin_port.filter(|port| *port != 0).unwrap_or(settings.admin_port);
        if port == 0 {
            return Ok(None);
        }
        if port > u32::from(u16::MAX) {
            return Err(BootstrapError::Port { field: "networking.admin.port", port });
        }
        let address = match settings.admin_address.as_str() {
            "" => DEFAULT_ADMIN_ADDRESS,
            address => address,
        };
        // Without a working directory the agent could not find the socket.
        let socket = (settings.admin_unix_socket && !request.workdir.is_empty())
            .then(|| socket_path(&request.workdir, "kuma-envoy-admin"));
        Ok(Some(Admin { address: address.into(), port, socket }))
    }

    fn listener(&self, settings: &BootstrapSettings) -> Value {
        const OWNER_ONLY: u32 = 0o600;
        let address = match &self.socket {
            Some(path) => json!({"pipe": {"path": path, "mode": OWNER_ONLY}}),
            None => json!({"socketAddress": {"address": self.address, "portValue": self.port}}),
        };
        json!({"address": address, "accessLog": [{"name": "envoy.access_loggers.file", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": settings.admin_access_log_path}}]})
    }
}

fn api(service: &Value, api_type: &str) -> Value {
    json!({"apiType": api_type, "grpcServices": [service], "setNodeOnFirstMessageOnly": true,
        "transportApiVersion": "V3"})
}

/// Whether the token is read from a file for every call.
fn token_file<'a>(request: &'a BootstrapRequest, settings: &BootstrapSettings) -> Option<&'a str> {
    Some(request.dataplane_token_path.as_str()).filter(|path| settings.reloadable_tokens && !path.is_empty())
}

/// The gRPC service of the control plane, in one of its two flavours (dataplane-agent.md §2.2).
fn control_plane(request: &BootstrapRequest, settings: &BootstrapSettings, ca: &str) -> Value {
    let Some(path) = token_file(request, settings) else {
        let mut service = json!({"envoyGrpc": {"clusterName": ADS_CLUSTER}});
        if !request.dataplane_token.is_empty() {
            service["initialMetadata"] = json!([{"key": "authorization", "value": request.dataplane_token}]);
        }
        return service;
    };
    let number = |value: u64| json!({"intValue": value.to_string()});
    json!({"googleGrpc": {
        "targetUri": authority(&settings.xds_host, settings.xds_port),
        "statPrefix": "ads",
        "credentialsFactoryName": "envoy.grpc_credentials.file_based_metadata",
        "channelCredentials": {"sslCredentials": {"rootCerts": {"inlineBytes": BASE64.encode(ca)}}},
        "callCredentials": [{"fromPlugin": {"name": "envoy.grpc_credentials.file_based_metadata", "typedConfig": {
            "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
            "secretData": {"filename": path}}}}],
        "channelArgs": {"args": {
            "grpc.http2.max_pings_without_data": number(0),
            "grpc.keepalive_time_ms": number(10_000),
            "grpc.keepalive_timeout_ms": number(30_000),
            "grpc.max_receive_message_length": number(settings.max_receive_message_bytes)}}}})
}

fn authority(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// Node metadata (dataplane-agent.md §2.1).
fn metadata(request: &BootstrapRequest, admin: Option<&Admin>) -> Value {
    let mut metadata = Map::new();
    let mut set = |key: &str, value: Value| metadata.insert(key.into(), value);
    set("version", request.version.metadata());
    set("features", json!(request.features));
    set("workdir", json!(request.workdir));
    set("metricsCertPath", json!(request.metrics_resources.cert_path));
    set("metricsKeyPath", json!(request.metrics_resources.key_path));
    set("systemCaPath", json!(request.system_ca_path));
    set("ipv6Enabled", json!(request.ipv6_enabled));
    set("spireAgent.socketPath", json!(request.spire_resources.socket_path));
    set("dataplane.proxyType", json!("dataplane"));
    if let Some(admin) = admin {
        set("dataplane.admin.port", json!(admin.port.to_string()));
        set("dataplane.admin.address", json!(admin.address));
        if let Some(path) = &admin.socket {
            set("dataplane.admin.socketPath", json!(path));
        }
    }
    for (key, port) in [
        ("dataplane.dns.port", request.dns_port),
        ("dataplane.readinessReporter.port", request.readiness_port),
    ] {
        if port != 0 {
            set(key, json!(port.to_string()));
        }
    }
    // The name of the member says the opposite of what it means (dataplane-agent.md §1.2).
    if request.app_probe_proxy_disabled {
        set("dataplane.appProbeProxy.enabled", json!("true"));
    }
    if !request.dataplane_resource.is_empty() {
        set("dataplane.resource", json!(request.dataplane_resource));
    }
    if !request.dynamic_metadata.is_empty() {
        set("dynamicMetadata", json!(request.dynamic_metadata));
    }
    if let Some(config) = &request.dataplane_config {
        set("transparentProxy", Value::Object(config.clone()));
    }
    if let Some(inventory) = &request.otel_env {
        set("otelEnvInventory", otel_inventory(inventory));
    }
    Value::Object(metadata)
}

/// The inventory with all its members written out.
fn otel_inventory(given: &Map<String, Value>) -> Value {
    let mut inventory = Map::new();
    inventory.insert("pipeEnabled".into(), json!(false));
    for key in ["shared", "traces", "logs", "metrics"] {
        inventory.insert(key.into(), Value::Null);
    }
    inventory.insert("validationErrors".into(), json!([]));
    inventory.extend(given.clone());
    Value::Object(inventory)
}

fn static_resources(request: &BootstrapRequest, settings: &BootstrapSettings, ca: &str) -> Value {
    let log_socket = socket_path(&request.workdir, &format!("kuma-al-{}-{}", request.name, request.mesh));
    let log_sink = static_cluster(ACCESS_LOG_CLUSTER, settings, json!({"pipe": {"path": log_socket}}));
    let mut clusters = vec![log_sink];
    if token_file(request, settings).is_none() {
        clusters.push(ads_cluster(settings));
    }
    let host = &settings.xds_host;
    json!({
        "clusters": clusters,
        "secrets": [{"name": CP_VALIDATION, "validationContext": {
            "matchTypedSubjectAltNames": [
                {"sanType": "DNS", "matcher": {"exact": host}},
                {"sanType": "IP_ADDRESS", "matcher": {"exact": host}}],
            "trustedCa": {"inlineBytes": BASE64.encode(ca)}}}],
    })
}

fn static_cluster(name: &str, settings: &BootstrapSettings, address: Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connectTimeout": seconds(settings.connect_timeout),
        "loadAssignment": {"clusterName": name,
            "endpoints": [{"lbEndpoints": [{"endpoint": {"address": address}}]}]},
        "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicitHttpConfig": {"http2ProtocolOptions": {}}}},
        "upstreamConnectionOptions": {"tcpKeepalive":
            {"keepaliveProbes": 3, "keepaliveTime": 10, "keepaliveInterval": 10}},
    })
}

fn ads_cluster(settings: &BootstrapSettings) -> Value {
    let host = &settings.xds_host;
    let address = json!({"socketAddress": {"address": host, "portValue": settings.xds_port}});
    let mut cluster = static_cluster(ADS_CLUSTER, settings, address);
    if host.parse::<IpAddr>().is_err() {
        cluster["type"] = json!("STRICT_DNS");
        if settings.xds_host_ipv4_only && host != "localhost" {
            cluster["dnsLookupFamily"] = json!("V4_ONLY");
        }
    }
    cluster["transportSocket"] = json!({"name": "envoy.transport_sockets.tls", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": host,
        "commonTlsContext": {
            "tlsParams": {"tlsMinimumProtocolVersion": "TLSv1_2"},
            "validationContextSdsSecretConfig": {"name": CP_VALIDATION}}}});
    cluster
}

/// A duration in the notation of protobuf.
fn seconds(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        nanos => format!("{}.{nanos:09}s", duration.as_secs()),
    }
}

fn stats_config() -> Value {
    let tag = |name: &str, regex: &str| json!({"tagName": name, "regex": regex});
    json!({"statsTags": [
        tag("name", r"^grpc\.((.+)\.)"),
        tag("status", r"^grpc.*streams_closed(_([0-9]+))"),
        tag("worker", r"(worker_([0-9]+)\.)"),
        // The reference writes the same expression without the anchor. A search finds the leftmost match, which
        // begins at the start of the name, so the anchor changes no result. Without it every other name of every
        // new listener is searched from each of its positions, which takes most of the time of a listener update.
        tag("listener", r"^((.+?)\.)rbac\."),
    ]})
}

#[cfg(test)]
mod tests;
