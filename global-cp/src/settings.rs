//! Settings of global: Kuma's keys, variables and defaults (DESIGN decision 13).

use graticule_api::options::Validator;
use graticule_api::{Access, ApiServer};
use graticule_control_plane::check::{Findings, ServerFiles};
use graticule_control_plane::command::Program;
use graticule_control_plane::keys;
use graticule_control_plane::settings::{
    Compat, DELETION_PROTECTION_SETTINGS, Environment, GlobalMode, KdsLabels, SITE_SETTINGS,
    check_deletion_share,
};
use graticule_identity::tokens::StaticKey;
use graticule_kds::core::{DeletionProtection, TrustExchange, ZoneLimit};
use graticule_model::GoDuration;
use graticule_runtime::audit::AuditSettings;
use graticule_runtime::config::Setting;
use graticule_runtime::settings::{
    Defaults, Diagnostics, EtcdSettings, General, Role, StoreSettings, schema, setting,
};
use serde::{Deserialize, Serialize};

/// All settings of global.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) mode: GlobalMode,
    pub(crate) environment: Environment,
    pub(crate) general: General,
    pub(crate) store: StoreSettings,
    pub(crate) api_server: ApiServer,
    pub(crate) access: Access,
    pub(crate) defaults: Defaults,
    pub(crate) diagnostics: Diagnostics,
    pub(crate) multizone: Multizone,
    pub(crate) dp_server: DpServer,
    pub(crate) federation: Federation,
    pub(crate) audit: AuditSettings,
    pub(crate) compat: Compat,
}

/// `dpServer`: at global only the tokens that it issues and checks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DpServer {
    pub(crate) authn: Authn,
}

/// `dpServer.authn`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Authn {
    pub(crate) dp_proxy: DpProxy,
    pub(crate) zone_proxy: ZoneProxy,
}

/// `dpServer.authn.dpProxy`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct DpProxy {
    pub(crate) dp_token: DpToken,
}

/// `dpServer.authn.dpProxy.dpToken`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct DpToken {
    pub(crate) enable_issuer: bool,
}

impl Default for DpToken {
    fn default() -> Self {
        DpToken { enable_issuer: true }
    }
}

/// `dpServer.authn.zoneProxy`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ZoneProxy {
    pub(crate) zone_token: ZoneToken,
}

/// `dpServer.authn.zoneProxy.zoneToken`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ZoneToken {
    pub(crate) enable_issuer: bool,
    pub(crate) validator: Validator,
}

impl Default for ZoneToken {
    fn default() -> Self {
        ZoneToken { enable_issuer: true, validator: Validator::default() }
    }
}

/// `multizone`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Multizone {
    pub(crate) global: Global,
}

/// `multizone.global`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Global {
    pub(crate) kds: Kds,
}

/// `multizone.global.kds`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Kds {
    pub(crate) grpc_port: u16,
    pub(crate) tls_enabled: bool,
    pub(crate) tls_cert_file: String,
    pub(crate) tls_key_file: String,
    pub(crate) tls_min_version: String,
    pub(crate) tls_max_version: String,
    pub(crate) max_msg_size: usize,
    pub(crate) labels: KdsLabels,
    pub(crate) health_interval: GoDuration,
}

impl Default for Kds {
    fn default() -> Self {
        Kds {
            grpc_port: 5685,
            tls_enabled: true,
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            tls_min_version: "TLSv1_2".into(),
            tls_max_version: String::new(),
            max_msg_size: graticule_kds::net::MESSAGE_LEN_MAX,
            labels: KdsLabels::default(),
            health_interval: GoDuration::from_secs(10),
        }
    }
}

/// `federation`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Federation {
    pub(crate) trust_exchange: TrustExchangeSetting,
    pub(crate) deletion_protection: DeletionProtection,
    pub(crate) zone_limit: ZoneLimit,
}

/// `federation.trustExchange`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrustExchangeSetting {
    #[default]
    Automatic,
    Manual,
}

impl From<TrustExchangeSetting> for TrustExchange {
    fn from(setting: TrustExchangeSetting) -> Self {
        match setting {
            TrustExchangeSetting::Automatic => TrustExchange::Automatic,
            TrustExchangeSetting::Manual => TrustExchange::Manual,
        }
    }
}

const OWN: &[Setting] = &[
    setting("multizone.global.kds.grpcPort", "MULTIZONE_GLOBAL_KDS_GRPC_PORT", "port that zones connect to"),
    setting(
        "multizone.global.kds.tlsEnabled",
        "MULTIZONE_GLOBAL_KDS_TLS_ENABLED",
        "encrypt connections of zones",
    ),
    setting(
        "multizone.global.kds.tlsCertFile",
        "MULTIZONE_GLOBAL_KDS_TLS_CERT_FILE",
        "PEM certificate; empty: general.tlsCertFile",
    ),
    setting("multizone.global.kds.tlsKeyFile", "MULTIZONE_GLOBAL_KDS_TLS_KEY_FILE", "key of the certificate"),
    setting(
        "multizone.global.kds.tlsMinVersion",
        "MULTIZONE_GLOBAL_KDS_TLS_MIN_VERSION",
        "lowest TLS version, unless general.tlsMinVersion is higher",
    ),
    setting(
        "multizone.global.kds.tlsMaxVersion",
        "MULTIZONE_GLOBAL_KDS_TLS_MAX_VERSION",
        "highest TLS version; empty: general.tlsMaxVersion",
    ),
    setting(
        "multizone.global.kds.maxMsgSize",
        "MULTIZONE_GLOBAL_KDS_MAX_MSG_SIZE",
        "largest message, in bytes",
    ),
    setting(
        "multizone.global.kds.labels.skipPrefixes",
        "MULTIZONE_GLOBAL_KDS_LABELS_SKIP_PREFIXES",
        "labels that begin like one of these are not sent to zones",
    ),
    setting(
        "multizone.global.kds.healthInterval",
        "MULTIZONE_GLOBAL_KDS_HEALTH_INTERVAL",
        "what zones are told to wait between health checks",
    ),
    setting(
        "dpServer.authn.dpProxy.dpToken.enableIssuer",
        "DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER",
        "issue dataplane tokens",
    ),
    setting(
        "dpServer.authn.zoneProxy.zoneToken.enableIssuer",
        "DP_SERVER_AUTHN_ZONE_PROXY_ZONE_TOKEN_ENABLE_ISSUER",
        "issue zone tokens",
    ),
    setting(
        "dpServer.authn.zoneProxy.zoneToken.validator.useSecrets",
        "DP_SERVER_AUTHN_ZONE_PROXY_ZONE_TOKEN_VALIDATOR_USE_SECRETS",
        "check zone tokens with keys of the store",
    ),
    setting(
        "dpServer.authn.zoneProxy.zoneToken.validator.publicKeys",
        "",
        "further keys that zone tokens may be signed with: a list of {kid, key} or {kid, keyFile}",
    ),
    setting(
        "federation.trustExchange",
        "FEDERATION_TRUST_EXCHANGE",
        "automatic: MeshTrusts of each zone reach the other zones; manual: they end here, as in Kuma",
    ),
    setting(
        "federation.zoneLimit.resources",
        "FEDERATION_ZONE_LIMIT_RESOURCES",
        "most resources that one zone may store here; further ones are refused, and what is there is changed still; 0: any number",
    ),
    setting(
        "federation.zoneLimit.bytes",
        "FEDERATION_ZONE_LIMIT_BYTES",
        "most bytes that these resources may take, as they travel; 0: any number",
    ),
];

const ABOUT: &str = "The global control plane. Keys are those of the configuration file (`--config-file`).";

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
        Compat::SETTINGS,
        DELETION_PROTECTION_SETTINGS,
        OWN,
    ];
    Program { name: "global-cp", about: ABOUT, schema: schema(&tables, Role::Global), check }
}

/// What the types of settings do not say.
fn check(settings: &Settings) -> Vec<String> {
    let mut findings = Findings::default();
    findings.site(&settings.mode.0, "global", &settings.environment);
    findings.store(&settings.store);
    findings.outcome(graticule_control_plane::store::sealer(&settings.store));
    graticule_control_plane::cluster::check(&settings.store.raft, &mut findings);
    let Settings { general, api_server, access, diagnostics, .. } = settings;
    findings.common(general, api_server, access, diagnostics);
    let labels = &settings.multizone.global.kds.labels;
    labels.check("multizone.global.kds.labels.skipPrefixes", &mut findings);
    let kds = &settings.multizone.global.kds;
    if kds.tls_enabled {
        let server = ServerFiles {
            setting: "multizone.global.kds",
            files: (&kds.tls_cert_file, &kds.tls_key_file),
            versions: (&kds.tls_min_version, &kds.tls_max_version),
        };
        findings.server(&server, general);
    }
    findings.outcome(zone_token_keys(settings));
    check_deletion_share(settings.federation.deletion_protection.share)
        .into_iter()
        .for_each(|line| findings.add(line));
    findings.into_lines()
}

/// Configured keys that check zone tokens.
///
/// # Errors
/// The first that cannot be used.
pub(crate) fn zone_token_keys(settings: &Settings) -> Result<Vec<StaticKey>, keys::Error> {
    let configured = &settings.dp_server.authn.zone_proxy.zone_token.validator.public_keys;
    let setting = "dpServer.authn.zoneProxy.zoneToken.validator.publicKeys";
    keys::load(setting, configured.iter().map(|key| ("", key.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graticule_control_plane::command::reference_table;
    use graticule_runtime::config::load_from;
    use graticule_settings::reference::{Own, differences};
    use graticule_settings::{Output, uncovered};

    /// Settings whose default is not Kuma's, and why.
    const OTHER_DEFAULTS: &[&str] = &[
        // The program says what it is.
        "mode",
        // Durable without a database.
        "store.type",
    ];

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
        let foreign = graticule_runtime::settings::foreign(schema.settings, Role::Global);
        let defaults = serde_json::to_value(Settings::default()).expect("serialises");
        let own = Own {
            settings: schema.settings,
            foreign: &foreign,
            defaults: &defaults,
            other_defaults: OTHER_DEFAULTS,
        };
        let found = differences(&table, "cp", &own);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn what_other_programs_call_ours_is_ours() {
        let settings = program().schema.settings;
        for named in graticule_runtime::settings::one_sided(&[], Role::Zone) {
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

    #[test]
    fn file_and_variables() {
        let file = "multizone: {global: {kds: {grpcPort: 1}}}\nstore: {cache: {enabled: true}}";
        let environment = [("KUMA_API_SERVER_HTTP_PORT".to_owned(), "7".to_owned())];
        let schema = program().schema;
        let loaded = load_from::<Settings>(&schema, Some((std::path::Path::new("f"), file)), environment)
            .expect("loads");
        assert_eq!(loaded.value.multizone.global.kds.grpc_port, 1);
        assert_eq!(loaded.value.api_server.http.port, 7);
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        let unknown = [("GRATICULE_API_SERVER_HTP_PORT".to_owned(), "7".to_owned())];
        let error = load_from::<Settings>(&schema, None, unknown).expect_err("unknown");
        assert!(error.to_string().contains("API_SERVER_HTTP_PORT"), "{error}");
    }
}
