//! Settings of a zone: Kuma's keys, variables and defaults (DESIGN decision 13).

use graticule_api::{Access, ApiServer};
use graticule_control_plane::settings::Compat;
use graticule_model::GoDuration;
use graticule_runtime::config::{Schema, Setting};
use graticule_runtime::settings::{Defaults, Diagnostics, General, StoreSettings, schema, setting};
use serde::{Deserialize, Serialize};

/// All settings of a zone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) general: General,
    pub(crate) store: StoreSettings,
    pub(crate) api_server: ApiServer,
    pub(crate) access: Access,
    pub(crate) defaults: Defaults,
    pub(crate) diagnostics: Diagnostics,
    pub(crate) multizone: Multizone,
    pub(crate) dp_server: graticule_xds::Options,
    pub(crate) bootstrap_server: BootstrapServer,
    pub(crate) xds_server: XdsServer,
    pub(crate) mesh_service: MeshService,
    pub(crate) ipam: Ipam,
    pub(crate) cross_zone: CrossZone,
    pub(crate) compat: Compat,
}

/// `multizone`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Multizone {
    pub(crate) zone: Zone,
}

/// `multizone.zone`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Zone {
    pub(crate) name: String,
    pub(crate) global_address: String,
    pub(crate) disable_origin_label_validation: bool,
    pub(crate) kds: Kds,
}

impl Default for Zone {
    fn default() -> Self {
        Zone {
            name: "default".into(),
            global_address: String::new(),
            disable_origin_label_validation: false,
            kds: Kds::default(),
        }
    }
}

/// `multizone.zone.kds`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Kds {
    pub(crate) root_ca_file: String,
    pub(crate) tls_skip_verify: bool,
    pub(crate) token_file: String,
    pub(crate) max_msg_size: usize,
}

impl Default for Kds {
    fn default() -> Self {
        Kds {
            root_ca_file: String::new(),
            tls_skip_verify: false,
            token_file: String::new(),
            max_msg_size: graticule_kds::net::MESSAGE_LEN_MAX,
        }
    }
}

/// `bootstrapServer`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BootstrapServer {
    pub(crate) params: BootstrapParams,
}

/// `bootstrapServer.params`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct BootstrapParams {
    pub(crate) admin_address: String,
    pub(crate) admin_port: u16,
    pub(crate) envoy_admin_unix_socket: bool,
    pub(crate) admin_access_log_path: String,
    pub(crate) xds_host: String,
    pub(crate) xds_port: u16,
    pub(crate) xds_connect_timeout: GoDuration,
    pub(crate) xds_grpc_max_receive_message_bytes: u64,
}

impl Default for BootstrapParams {
    fn default() -> Self {
        BootstrapParams {
            admin_address: "127.0.0.1".into(),
            admin_port: 9901,
            envoy_admin_unix_socket: true,
            admin_access_log_path: "/dev/null".into(),
            xds_host: String::new(),
            xds_port: 0,
            xds_connect_timeout: GoDuration::from_secs(1),
            xds_grpc_max_receive_message_bytes: 4 << 20,
        }
    }
}

/// `xdsServer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct XdsServer {
    pub(crate) dataplane_deregistration_delay: GoDuration,
}

impl Default for XdsServer {
    fn default() -> Self {
        XdsServer { dataplane_deregistration_delay: GoDuration::from_secs(10) }
    }
}

/// `meshService`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct MeshService {
    pub(crate) deletion_grace_period: GoDuration,
}

impl Default for MeshService {
    fn default() -> Self {
        MeshService { deletion_grace_period: GoDuration::from_secs(3600) }
    }
}

/// `ipam`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Ipam {
    pub(crate) mesh_service: Cidr,
    #[serde(rename = "knownInternalCIDRs")]
    pub(crate) known_internal_cidrs: Vec<String>,
}

/// `ipam.meshService`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cidr {
    pub(crate) cidr: String,
}

impl Default for Cidr {
    fn default() -> Self {
        Cidr { cidr: "241.0.0.0/8".into() }
    }
}

impl Default for Ipam {
    fn default() -> Self {
        let zone = graticule_view::ZoneSettings::new("");
        Ipam { mesh_service: Cidr::default(), known_internal_cidrs: zone.internal_cidrs }
    }
}

/// `crossZone`: balancing of calls to other zones by request (DESIGN decision 15).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct CrossZone {
    pub(crate) balance_requests: bool,
    pub(crate) max_requests_per_connection: u32,
    pub(crate) max_connection_duration: GoDuration,
}

impl Default for CrossZone {
    fn default() -> Self {
        CrossZone {
            balance_requests: true,
            max_requests_per_connection: 20,
            max_connection_duration: GoDuration::from_secs(10),
        }
    }
}

const OWN: &[Setting] = &[
    setting("multizone.zone.name", "MULTIZONE_ZONE_NAME", "name of the zone"),
    setting(
        "multizone.zone.globalAddress",
        "MULTIZONE_ZONE_GLOBAL_ADDRESS",
        "grpcs://host:port of global; empty: the zone stands alone",
    ),
    setting(
        "multizone.zone.disableOriginLabelValidation",
        "MULTIZONE_ZONE_DISABLE_ORIGIN_LABEL_VALIDATION",
        "do not require the label kuma.io/origin: zone",
    ),
    setting(
        "multizone.zone.kds.rootCaFile",
        "MULTIZONE_ZONE_KDS_ROOT_CA_FILE",
        "PEM authorities of global's certificate; empty: the machine's",
    ),
    setting(
        "multizone.zone.kds.tlsSkipVerify",
        "MULTIZONE_ZONE_KDS_TLS_SKIP_VERIFY",
        "do not check global's certificate",
    ),
    setting(
        "multizone.zone.kds.tokenFile",
        "MULTIZONE_ZONE_KDS_TOKEN_FILE",
        "file with the zone token; read for each connection",
    ),
    setting("multizone.zone.kds.maxMsgSize", "MULTIZONE_ZONE_KDS_MAX_MSG_SIZE", "largest message, in bytes"),
    setting(
        "bootstrapServer.params.adminAddress",
        "BOOTSTRAP_SERVER_PARAMS_ADMIN_ADDRESS",
        "address of Envoy admin",
    ),
    setting(
        "bootstrapServer.params.adminPort",
        "BOOTSTRAP_SERVER_PARAMS_ADMIN_PORT",
        "port in front of Envoy admin",
    ),
    setting(
        "bootstrapServer.params.envoyAdminUnixSocket",
        "BOOTSTRAP_SERVER_PARAMS_ENVOY_ADMIN_UNIX_SOCKET",
        "Envoy admin on a Unix socket",
    ),
    setting(
        "bootstrapServer.params.adminAccessLogPath",
        "BOOTSTRAP_SERVER_PARAMS_ADMIN_ACCESS_LOG_PATH",
        "access log of Envoy admin",
    ),
    setting(
        "bootstrapServer.params.xdsHost",
        "BOOTSTRAP_SERVER_PARAMS_XDS_HOST",
        "host that proxies connect to; empty: the one they asked for the bootstrap",
    ),
    setting(
        "bootstrapServer.params.xdsPort",
        "BOOTSTRAP_SERVER_PARAMS_XDS_PORT",
        "port that proxies connect to; 0: dpServer.port",
    ),
    setting(
        "bootstrapServer.params.xdsConnectTimeout",
        "BOOTSTRAP_SERVER_PARAMS_XDS_CONNECT_TIMEOUT",
        "time of a proxy to connect",
    ),
    setting(
        "bootstrapServer.params.xdsGrpcMaxReceiveMessageBytes",
        "BOOTSTRAP_SERVER_PARAMS_XDS_GRPC_MAX_RECEIVE_MESSAGE_BYTES",
        "largest message of the google_grpc client",
    ),
    setting(
        "xdsServer.dataplaneDeregistrationDelay",
        "XDS_DATAPLANE_DEREGISTRATION_DELAY",
        "how long a Dataplane outlives its last stream",
    ),
    setting(
        "meshService.deletionGracePeriod",
        "MESH_SERVICE_DELETION_GRACE_PERIOD",
        "how long a generated MeshService outlives its last Dataplane",
    ),
    setting("ipam.meshService.cidr", "IPAM_MESH_SERVICE_CIDR", "virtual addresses of MeshServices"),
    setting(
        "ipam.knownInternalCIDRs",
        "IPAM_KNOWN_INTERNAL_CIDRS",
        "networks whose clients count as internal",
    ),
    setting(
        "crossZone.balanceRequests",
        "CROSS_ZONE_BALANCE_REQUESTS",
        "bound the life of connections to other zones, so that requests spread over all instances",
    ),
    setting(
        "crossZone.maxRequestsPerConnection",
        "CROSS_ZONE_MAX_REQUESTS_PER_CONNECTION",
        "requests of one connection to another zone",
    ),
    setting(
        "crossZone.maxConnectionDuration",
        "CROSS_ZONE_MAX_CONNECTION_DURATION",
        "life of one connection to another zone, unless a MeshTimeout says otherwise",
    ),
];

/// The names of all settings.
pub(crate) fn names() -> Schema {
    let tables = [
        General::SETTINGS,
        StoreSettings::SETTINGS,
        ApiServer::SETTINGS,
        Access::SETTINGS,
        Defaults::SETTINGS,
        Diagnostics::SETTINGS,
        Compat::SETTINGS,
        graticule_xds::Options::SETTINGS,
        OWN,
    ];
    schema(&tables, &["CONFORMANCE_DIR", "BIN_DIR"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_exists_under_its_path() {
        let value = serde_json::to_value(Settings::default()).expect("serialises");
        for setting in names().settings {
            let pointer = format!("/{}", setting.path.replace('.', "/"));
            assert!(
                value.pointer(&pointer).is_some(),
                "{} is in the table but not in the type",
                setting.path
            );
        }
    }
}
