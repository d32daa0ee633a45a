//! Settings of global: Kuma's keys, variables and defaults (DESIGN decision 13).

use graticule_api::{Access, ApiServer};
use graticule_control_plane::settings::Compat;
use graticule_kds::core::TrustExchange;
use graticule_model::GoDuration;
use graticule_runtime::config::{Schema, Setting};
use graticule_runtime::settings::{Defaults, Diagnostics, General, StoreSettings, schema, setting};
use serde::{Deserialize, Serialize};

/// All settings of global.
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
    pub(crate) federation: Federation,
    pub(crate) compat: Compat,
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
    pub(crate) health_interval: GoDuration,
}

impl Default for Kds {
    fn default() -> Self {
        Kds {
            grpc_port: 5685,
            tls_enabled: true,
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            tls_min_version: String::new(),
            tls_max_version: String::new(),
            max_msg_size: graticule_kds::net::MESSAGE_LEN_MAX,
            health_interval: GoDuration::from_secs(10),
        }
    }
}

/// `federation`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Federation {
    pub(crate) trust_exchange: TrustExchangeSetting,
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
        "lowest TLS version; empty: general.tlsMinVersion",
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
        "multizone.global.kds.healthInterval",
        "MULTIZONE_GLOBAL_KDS_HEALTH_INTERVAL",
        "what zones are told to wait between health checks",
    ),
    setting(
        "federation.trustExchange",
        "FEDERATION_TRUST_EXCHANGE",
        "automatic: MeshTrusts of each zone reach the other zones; manual: they end here, as in Kuma",
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
        OWN,
    ];
    schema(&tables, &["CONFORMANCE_DIR", "BIN_DIR"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use graticule_runtime::config::load_from;

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

    #[test]
    fn file_and_variables() {
        let file = "multizone: {global: {kds: {grpcPort: 1}}}\nstore: {cache: {enabled: true}}";
        let environment = [("KUMA_API_SERVER_HTTP_PORT".to_owned(), "7".to_owned())];
        let loaded = load_from::<Settings>(&names(), Some((std::path::Path::new("f"), file)), environment)
            .expect("loads");
        assert_eq!(loaded.value.multizone.global.kds.grpc_port, 1);
        assert_eq!(loaded.value.api_server.http.port, 7);
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        let unknown = [("GRATICULE_API_SERVER_HTP_PORT".to_owned(), "7".to_owned())];
        let error = load_from::<Settings>(&names(), None, unknown).expect_err("unknown");
        assert!(error.to_string().contains("API_SERVER_HTTP_PORT"), "{error}");
    }
}
