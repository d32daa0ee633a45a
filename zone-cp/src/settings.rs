//! Settings of a zone: Kuma's keys, variables and defaults (DESIGN decision 13).

use std::net::Ipv4Addr;

use anyhow::Context as _;
use graticule_api::{Access, ApiServer};
use graticule_control_plane::check::{Findings, ServerFiles};
use graticule_control_plane::command::Program;
use graticule_control_plane::keys;
use graticule_control_plane::settings::{
    DELETION_PROTECTION_SETTINGS, Environment, KdsLabels, SITE_SETTINGS, ZoneCompat, ZoneMode,
    check_deletion_share,
};
use graticule_identity::tokens::StaticKey;
use graticule_kds::core::DeletionProtection;
use graticule_model::{GoDuration, name};
use graticule_runtime::audit::AuditSettings;
use graticule_runtime::config::Setting;
use graticule_runtime::settings::{
    Defaults, Diagnostics, EtcdSettings, General, Role, StoreSettings, schema, setting,
};
use serde::{Deserialize, Serialize};

/// All settings of a zone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) mode: ZoneMode,
    pub(crate) environment: Environment,
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
    pub(crate) federation: Federation,
    pub(crate) audit: AuditSettings,
    pub(crate) compat: ZoneCompat,
}

/// `federation`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Federation {
    pub(crate) deletion_protection: DeletionProtection,
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
    pub(crate) meshes: Vec<String>,
    pub(crate) disable_origin_label_validation: bool,
    pub(crate) kds: Kds,
}

impl Default for Zone {
    fn default() -> Self {
        Zone {
            name: "default".into(),
            global_address: String::new(),
            meshes: Vec::new(),
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
    pub(crate) labels: KdsLabels,
}

impl Default for Kds {
    fn default() -> Self {
        Kds {
            root_ca_file: String::new(),
            tls_skip_verify: false,
            token_file: String::new(),
            max_msg_size: graticule_kds::net::MESSAGE_LEN_MAX,
            labels: KdsLabels::default(),
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
        "grpcs://host:port of global; several replicas are separated by commas; empty: the zone stands alone",
    ),
    setting(
        "multizone.zone.meshes",
        "MULTIZONE_ZONE_MESHES",
        "meshes that the zone takes part in: of others it gets nothing from global, and their proxies are refused; empty: all",
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
        "multizone.zone.kds.labels.skipPrefixes",
        "MULTIZONE_ZONE_KDS_LABELS_SKIP_PREFIXES",
        "labels that begin like one of these are not sent to global",
    ),
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

const ABOUT: &str =
    "The control plane of a zone. Keys are those of the configuration file (`--config-file`).";

/// The program: names of all settings, and what to check about them.
pub(crate) fn program() -> Program<Settings> {
    let tables = [
        SITE_SETTINGS,
        General::SETTINGS,
        StoreSettings::SETTINGS,
        EtcdSettings::SETTINGS,
        ApiServer::SETTINGS,
        Access::SETTINGS,
        Defaults::SETTINGS,
        Diagnostics::SETTINGS,
        AuditSettings::SETTINGS,
        ZoneCompat::SETTINGS,
        DELETION_PROTECTION_SETTINGS,
        graticule_xds::Options::SETTINGS,
        OWN,
    ];
    Program { name: "zone-cp", about: ABOUT, schema: schema(&tables, Role::Zone), check }
}

/// What the types of settings do not say.
fn check(settings: &Settings) -> Vec<String> {
    let mut findings = Findings::default();
    findings.site(&settings.mode.0, "zone", &settings.environment);
    findings.store(&settings.store);
    findings.outcome(graticule_control_plane::store::sealer(&settings.store));
    graticule_control_plane::cluster::check(&settings.store.raft, &mut findings);
    let Settings { general, api_server, access, diagnostics, dp_server, .. } = settings;
    findings.common(general, api_server, access, diagnostics);
    let labels = &settings.multizone.zone.kds.labels;
    labels.check("multizone.zone.kds.labels.skipPrefixes", &mut findings);
    let zone = &settings.multizone.zone.name;
    if !name::is_dns1035_label(zone) {
        findings.add(format!(
            "multizone.zone.name: {zone:?} is no DNS label: lower-case letters, digits and '-', starting with a letter"
        ));
    }
    findings.one_of(
        "dpServer.authn.dpProxy.type",
        &dp_server.authn.dp_proxy.r#type,
        &["", "dpToken", "none"],
    );
    let server = ServerFiles {
        setting: "dpServer",
        files: (&dp_server.tls_cert_file, &dp_server.tls_key_file),
        versions: (&dp_server.tls_min_version, &dp_server.tls_max_version),
    };
    findings.server(&server, general);
    findings.outcome(dataplane_token_keys(settings));
    findings.ip("bootstrapServer.params.adminAddress", &settings.bootstrap_server.params.admin_address);
    if let Err(error) = parse_cidr(&settings.ipam.mesh_service.cidr) {
        findings.add(error.to_string());
    }
    federation(settings, &mut findings);
    findings.into_lines()
}

/// What the connection to global needs.
fn federation(settings: &Settings, findings: &mut Findings) {
    check_deletion_share(settings.federation.deletion_protection.share)
        .into_iter()
        .for_each(|line| findings.add(line));
    let zone = &settings.multizone.zone;
    for mesh in &zone.meshes {
        if let Some(reason) = name::mesh_name_error(mesh) {
            findings.add(format!("multizone.zone.meshes: {mesh:?}: {reason}"));
        }
    }
    if zone.global_address.is_empty() {
        return;
    }
    if !zone.kds.root_ca_file.is_empty()
        && let Err(error) = std::fs::File::open(&zone.kds.root_ca_file)
    {
        findings.add(format!("multizone.zone.kds.rootCaFile {}: {error}", zone.kds.root_ca_file));
    }
    if !zone.kds.token_file.is_empty()
        && let Err(error) = std::fs::File::open(&zone.kds.token_file)
    {
        findings.add(format!("multizone.zone.kds.tokenFile: {}: {error}", zone.kds.token_file));
    }
}

/// Configured keys that check dataplane tokens.
///
/// # Errors
/// The first that cannot be used.
pub(crate) fn dataplane_token_keys(settings: &Settings) -> Result<Vec<StaticKey>, keys::Error> {
    let configured = &settings.dp_server.authn.dp_proxy.dp_token.validator.public_keys;
    let keys = configured.iter().map(|public| {
        let (kid, key, key_file) = (public.kid.clone(), public.key.clone(), public.key_file.clone());
        (public.mesh.as_str(), graticule_api::PublicKey { kid, key, key_file })
    });
    keys::load("dpServer.authn.dpProxy.dpToken.validator.publicKeys", keys)
}

/// Network and prefix length of the addresses of services.
///
/// # Errors
/// Not of that form.
pub(crate) fn parse_cidr(cidr: &str) -> anyhow::Result<(Ipv4Addr, u8)> {
    let parsed = cidr.split_once('/').and_then(|(network, prefix)| {
        let (network, prefix): (Ipv4Addr, u8) = (network.parse().ok()?, prefix.parse().ok()?);
        (prefix <= 32).then_some((network, prefix))
    });
    parsed.with_context(|| format!("ipam.meshService.cidr: {cidr:?} is not of the form 241.0.0.0/8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graticule_control_plane::command::reference_table;
    use graticule_runtime::config::load_from;
    use graticule_settings::reference::{Own, differences};
    use graticule_settings::{Output, uncovered};

    #[test]
    fn table_and_type_agree() {
        let value = serde_json::to_value(Settings::default()).expect("serialises");
        assert_eq!(uncovered(program().schema.settings, &value), [""; 0]);
        assert_eq!(check(&Settings::default()), [""; 0]);
    }

    #[test]
    fn every_setting_of_kuma_is_known() {
        let Some(table) = reference_table() else { return };
        let schema = program().schema;
        let foreign = graticule_runtime::settings::foreign(schema.settings, Role::Zone);
        let defaults = serde_json::to_value(Settings::default()).expect("serialises");
        let own = Own {
            settings: schema.settings,
            foreign: &foreign,
            defaults: &defaults,
            // Durable without a database.
            other_defaults: &["store.type"],
        };
        let found = differences(&table, "cp", &own);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn what_other_programs_call_ours_is_ours() {
        let settings = program().schema.settings;
        for named in graticule_runtime::settings::one_sided(&[], Role::Global) {
            let is_it = |own: &&Setting| own.path == named.path && own.env == named.env;
            assert!(settings.iter().any(|own| is_it(&own)), "{named:?}");
        }
    }

    #[test]
    fn the_documentation_is_current() {
        let section = program().list(Output::Markdown).expect("a section");
        let page = include_str!("../../docs/settings.md");
        assert!(page.contains(&section), "docs/settings.md is not what `cargo xtask codegen` makes");
    }

    /// Who comes from Kuma, or has one file for all, is told that it changes nothing here.
    #[test]
    fn settings_of_global_have_no_effect() {
        for (path, env) in [
            ("compat.allowZonesWithoutToken", "COMPAT_ALLOW_ZONES_WITHOUT_TOKEN"),
            ("compat.zonesWithoutToken", "COMPAT_ZONES_WITHOUT_TOKEN"),
        ] {
            let schema = program().schema;
            assert!(schema.settings.iter().all(|own| own.path != path));
            let named = schema.foreign.iter().find(|named| named.path == path).expect("it is known");
            assert_eq!(
                (named.env, named.fate.explain().as_str()),
                (env, "no effect here: it is a setting of global-cp")
            );
        }
    }

    #[test]
    fn mistakes_name_their_setting() {
        let file = "mode: global\nstore: {type: postgres}\nipam: {meshService: {cidr: 241.0.0.0}}\n\
            multizone: {zone: {name: West_1, meshes: [ok, Not], globalAddress: 'grpcs://g:1', kds: {tokenFile: /nonexistent}}}\n\
            bootstrapServer: {params: {adminAddress: here}}\n\
            dpServer: {authn: {dpProxy: {type: jwt, dpToken: {validator: {publicKeys: [{kid: '1'}]}}}}}\n";
        let loaded = load_from::<Settings>(&program().schema, Some((std::path::Path::new("f"), file)), []);
        let lines = check(&loaded.expect("loads").value);
        let starts = [
            "mode: \"global\" is run by another program",
            "store.type: \"postgres\" is not supported by this version; use raft or etcd or memory",
            "multizone.zone.name: \"West_1\"",
            "dpServer.authn.dpProxy.type: \"jwt\" is not supported by this version; use dpToken or none",
            "dpServer.authn.dpProxy.dpToken.validator.publicKeys[0]: exactly one",
            "bootstrapServer.params.adminAddress: \"here\"",
            "ipam.meshService.cidr: \"241.0.0.0\"",
            "multizone.zone.meshes: \"Not\": invalid characters",
            "multizone.zone.kds.tokenFile: /nonexistent",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
        }
    }
}
