//! Settings under `dpServer`, with Kuma's keys and defaults.

use graticule_model::GoDuration;
use graticule_runtime::config::{Meaningless, Setting};
use serde::{Deserialize, Serialize};

use crate::core::hds::CheckDefaults;

/// What an operator may set under `dpServer`.
pub const SETTINGS: &[Setting] = &[
    Setting { path: "dpServer.port", env: "DP_SERVER_PORT", doc: "port of the data plane server" },
    Setting {
        path: "dpServer.tlsCertFile",
        env: "DP_SERVER_TLS_CERT_FILE",
        doc: "PEM chain; empty = general.tlsCertFile",
    },
    Setting {
        path: "dpServer.tlsKeyFile",
        env: "DP_SERVER_TLS_KEY_FILE",
        doc: "PEM key; empty = general.tlsKeyFile",
    },
    Setting { path: "dpServer.tlsMinVersion", env: "DP_SERVER_TLS_MIN_VERSION", doc: "lowest TLS version" },
    Setting {
        path: "dpServer.tlsMaxVersion",
        env: "DP_SERVER_TLS_MAX_VERSION",
        doc: "highest TLS version; empty = no bound",
    },
    Setting {
        path: "dpServer.tlsCipherSuites",
        env: "DP_SERVER_TLS_CIPHER_SUITES",
        doc: "cipher suites; empty = the library's",
    },
    Setting {
        path: "dpServer.readHeaderTimeout",
        env: "DP_SERVER_READ_HEADER_TIMEOUT",
        doc: "time for the head of an HTTP/1.1 request",
    },
    Setting {
        path: "dpServer.gracefulShutdownTimeout",
        env: "DP_SERVER_GRACEFUL_SHUTDOWN_TIMEOUT",
        doc: "time for requests in progress at shutdown",
    },
    Setting {
        path: "dpServer.authn.dpProxy.type",
        env: "DP_SERVER_AUTHN_DP_PROXY_TYPE",
        doc: "dpToken, serviceAccountToken or none; empty = dpToken on Universal",
    },
    Setting {
        path: "dpServer.authn.dpProxy.dpToken.enableIssuer",
        env: "DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER",
        doc: "whether the API issues Dataplane tokens",
    },
    Setting {
        path: "dpServer.authn.dpProxy.dpToken.validator.useSecrets",
        env: "DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_VALIDATOR_USE_SECRETS",
        doc: "whether signing keys in secrets are accepted",
    },
    Setting {
        path: "dpServer.authn.enableReloadableTokens",
        env: "DP_SERVER_AUTHN_ENABLE_RELOADABLE_TOKENS",
        doc: "Envoy reads the token from its file again and again",
    },
    Setting { path: "dpServer.hds.enabled", env: "DP_SERVER_HDS_ENABLED", doc: "service probes" },
    Setting { path: "dpServer.hds.interval", env: "DP_SERVER_HDS_INTERVAL", doc: "how often Envoy reports" },
    Setting {
        path: "dpServer.hds.checkDefaults.timeout",
        env: "DP_SERVER_HDS_CHECK_TIMEOUT",
        doc: "of one probe",
    },
    Setting {
        path: "dpServer.hds.checkDefaults.interval",
        env: "DP_SERVER_HDS_CHECK_INTERVAL",
        doc: "between probes",
    },
    Setting {
        path: "dpServer.hds.checkDefaults.noTrafficInterval",
        env: "DP_SERVER_HDS_CHECK_NO_TRAFFIC_INTERVAL",
        doc: "between probes while there is no traffic",
    },
    Setting {
        path: "dpServer.hds.checkDefaults.healthyThreshold",
        env: "DP_SERVER_HDS_CHECK_HEALTHY_THRESHOLD",
        doc: "successes in a row until healthy",
    },
    Setting {
        path: "dpServer.hds.checkDefaults.unhealthyThreshold",
        env: "DP_SERVER_HDS_CHECK_UNHEALTHY_THRESHOLD",
        doc: "failures in a row until unhealthy",
    },
    Setting {
        path: "dpServer.authn.dpProxy.dpToken.validator.publicKeys",
        env: "",
        doc: "further keys that Dataplane tokens may be signed with",
    },
];

/// What Kuma has under `dpServer` and nobody needs here.
pub const MEANINGLESS: &[Meaningless] = &[
    Meaningless {
        path: "dpServer.hds.refreshInterval",
        env: "DP_SERVER_HDS_REFRESH_INTERVAL",
        instead: "probes follow a change of the Dataplane at once",
    },
    Meaningless {
        path: "dpServer.authn.zoneProxy",
        env: "DP_SERVER_AUTHN_ZONE_PROXY_TYPE",
        instead: "zone proxies authenticate as every proxy does",
    },
    Meaningless {
        path: "dpServer.authn.zoneProxy.zoneToken.enableIssuer",
        env: "DP_SERVER_AUTHN_ZONE_PROXY_ZONE_TOKEN_ENABLE_ISSUER",
        instead: "zone proxies authenticate as every proxy does",
    },
    Meaningless {
        path: "dpServer.authn.zoneProxy.zoneToken.validator.useSecrets",
        env: "DP_SERVER_AUTHN_ZONE_PROXY_ZONE_TOKEN_VALIDATOR_USE_SECRETS",
        instead: "zone proxies authenticate as every proxy does",
    },
];

/// `dpServer`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Port. Default 5678.
    pub port: u16,
    /// PEM chain; empty = `general.tlsCertFile`.
    pub tls_cert_file: String,
    /// PEM key; empty = `general.tlsKeyFile`.
    pub tls_key_file: String,
    /// Lowest TLS version. Default `TLSv1_2`.
    pub tls_min_version: String,
    /// Highest TLS version; empty = no bound.
    pub tls_max_version: String,
    /// Cipher suites; empty = the library's.
    pub tls_cipher_suites: Vec<String>,
    /// Time for the head of an HTTP/1.1 request. Default 5 s.
    pub read_header_timeout: GoDuration,
    /// Time for requests in progress at shutdown. Default 10 s.
    pub graceful_shutdown_timeout: GoDuration,
    /// How proxies prove who they are.
    pub authn: Authn,
    /// Service probes.
    pub hds: Hds,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            port: 5678,
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            tls_min_version: "TLSv1_2".into(),
            tls_max_version: String::new(),
            tls_cipher_suites: Vec::new(),
            read_header_timeout: GoDuration::from_secs(5),
            graceful_shutdown_timeout: GoDuration::from_secs(10),
            authn: Authn::default(),
            hds: Hds::default(),
        }
    }
}

/// `dpServer.authn`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Authn {
    /// Proxies.
    pub dp_proxy: DpProxyAuthn,
    /// Envoy reads the token from its file again and again. Default false.
    pub enable_reloadable_tokens: bool,
}

impl Authn {
    /// Whether proxies need no credential.
    pub fn is_none(&self) -> bool {
        self.dp_proxy.r#type == "none"
    }
}

/// `dpServer.authn.dpProxy`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DpProxyAuthn {
    /// `dpToken`, `serviceAccountToken` or `none`; empty = `dpToken` on Universal.
    pub r#type: String,
    /// Dataplane tokens.
    pub dp_token: DpToken,
}

/// `dpServer.authn.dpProxy.dpToken`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DpToken {
    /// Whether the API issues tokens. Default true.
    pub enable_issuer: bool,
    /// How tokens are checked.
    pub validator: Validator,
}

impl Default for DpToken {
    fn default() -> Self {
        DpToken { enable_issuer: true, validator: Validator::default() }
    }
}

/// `dpServer.authn.dpProxy.dpToken.validator`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Validator {
    /// Signing keys of the mesh's secrets are accepted. Default true.
    pub use_secrets: bool,
    /// Further keys.
    pub public_keys: Vec<PublicKey>,
}

impl Default for Validator {
    fn default() -> Self {
        Validator { use_secrets: true, public_keys: Vec::new() }
    }
}

/// A key that tokens may be signed with.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicKey {
    /// Key id.
    pub kid: String,
    /// PEM file …
    pub key_file: String,
    /// … or the PEM itself.
    pub key: String,
    /// Mesh that it is for.
    pub mesh: String,
}

/// `dpServer.hds`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Hds {
    /// Default true.
    pub enabled: bool,
    /// How often Envoy reports. Default 5 s.
    pub interval: GoDuration,
    /// Where a probe says nothing.
    pub check_defaults: CheckDefaultsOptions,
}

impl Default for Hds {
    fn default() -> Self {
        Hds {
            enabled: true,
            interval: GoDuration::from_secs(5),
            check_defaults: CheckDefaultsOptions::default(),
        }
    }
}

/// `dpServer.hds.checkDefaults`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckDefaultsOptions {
    /// Of one probe. Default 2 s.
    pub timeout: GoDuration,
    /// Between probes. Default 1 s.
    pub interval: GoDuration,
    /// Between probes while there is no traffic. Default 1 s.
    pub no_traffic_interval: GoDuration,
    /// Default 1.
    pub healthy_threshold: u32,
    /// Default 1.
    pub unhealthy_threshold: u32,
}

impl Default for CheckDefaultsOptions {
    fn default() -> Self {
        let defaults = CheckDefaults::default();
        CheckDefaultsOptions {
            timeout: defaults.timeout.into(),
            interval: defaults.interval.into(),
            no_traffic_interval: defaults.no_traffic_interval.into(),
            healthy_threshold: defaults.healthy_threshold,
            unhealthy_threshold: defaults.unhealthy_threshold,
        }
    }
}

impl CheckDefaultsOptions {
    pub(super) fn to_core(&self) -> CheckDefaults {
        CheckDefaults {
            timeout: self.timeout.to_std(),
            interval: self.interval.to_std(),
            no_traffic_interval: self.no_traffic_interval.to_std(),
            healthy_threshold: self.healthy_threshold,
            unhealthy_threshold: self.unhealthy_threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting exists in the struct, under the name of the table.
    #[test]
    fn table_and_struct_agree() {
        let defaults = serde_json::json!({"dpServer": Options::default()});
        for setting in SETTINGS {
            let pointer = format!("/{}", setting.path.replace('.', "/"));
            assert!(defaults.pointer(&pointer).is_some(), "{}", setting.path);
        }
    }
}
