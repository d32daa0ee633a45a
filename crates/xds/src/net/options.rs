//! Settings under `dpServer`, with Kuma's keys and defaults.

use graticule_model::GoDuration;
use graticule_runtime::config::Setting;
use graticule_runtime::settings::setting;
use serde::{Deserialize, Serialize};

use crate::core::hds::CheckDefaults;

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
    /// Time for the head of an HTTP/1.1 request. Default 5 s.
    pub read_header_timeout: GoDuration,
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
            read_header_timeout: GoDuration::from_secs(5),
            authn: Authn::default(),
            hds: Hds::default(),
        }
    }
}

impl Options {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting("dpServer.port", "DP_SERVER_PORT", "port that proxies connect to"),
        setting(
            "dpServer.tlsCertFile",
            "DP_SERVER_TLS_CERT_FILE",
            "PEM certificate; empty: general.tlsCertFile",
        ),
        setting("dpServer.tlsKeyFile", "DP_SERVER_TLS_KEY_FILE", "key of the certificate"),
        setting("dpServer.tlsMinVersion", "DP_SERVER_TLS_MIN_VERSION", "lowest TLS version"),
        setting(
            "dpServer.tlsMaxVersion",
            "DP_SERVER_TLS_MAX_VERSION",
            "highest TLS version; empty: no bound",
        ),
        setting(
            "dpServer.readHeaderTimeout",
            "DP_SERVER_READ_HEADER_TIMEOUT",
            "time for the head of an HTTP/1.1 request",
        ),
        setting(
            "dpServer.authn.dpProxy.type",
            "DP_SERVER_AUTHN_DP_PROXY_TYPE",
            "dpToken, or none: everybody is admitted",
        ),
        setting(
            "dpServer.authn.dpProxy.dpToken.enableIssuer",
            "DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER",
            "issue dataplane tokens",
        ),
        setting(
            "dpServer.authn.dpProxy.dpToken.validator.useSecrets",
            "DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_VALIDATOR_USE_SECRETS",
            "check dataplane tokens with keys of the mesh",
        ),
        setting(
            "dpServer.authn.dpProxy.dpToken.validator.publicKeys",
            "",
            "further keys that dataplane tokens may be signed with",
        ),
        setting(
            "dpServer.authn.enableReloadableTokens",
            "DP_SERVER_AUTHN_ENABLE_RELOADABLE_TOKENS",
            "Envoy reads its token from the file for each call",
        ),
        setting("dpServer.hds.enabled", "DP_SERVER_HDS_ENABLED", "probe services through their proxies"),
        setting("dpServer.hds.interval", "DP_SERVER_HDS_INTERVAL", "how often Envoy reports"),
        setting("dpServer.hds.checkDefaults.timeout", "DP_SERVER_HDS_CHECK_TIMEOUT", "time of one probe"),
        setting("dpServer.hds.checkDefaults.interval", "DP_SERVER_HDS_CHECK_INTERVAL", "between probes"),
        setting(
            "dpServer.hds.checkDefaults.noTrafficInterval",
            "DP_SERVER_HDS_CHECK_NO_TRAFFIC_INTERVAL",
            "between probes while there is no traffic",
        ),
        setting(
            "dpServer.hds.checkDefaults.healthyThreshold",
            "DP_SERVER_HDS_CHECK_HEALTHY_THRESHOLD",
            "successes in a row until healthy",
        ),
        setting(
            "dpServer.hds.checkDefaults.unhealthyThreshold",
            "DP_SERVER_HDS_CHECK_UNHEALTHY_THRESHOLD",
            "failures in a row until unhealthy",
        ),
    ];
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
    /// `dpToken` or `none`; empty = `dpToken`.
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
