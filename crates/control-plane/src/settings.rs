//! Settings that both control planes have besides those of `runtime`: REST API, access, compatibility, federation.

use graticule_runtime::config::Setting;
use graticule_runtime::settings::setting;
use serde::{Deserialize, Serialize};

/// Table of `apiServer` and `access`.
pub const API: &[Setting] = &[
    setting("apiServer.readOnly", "API_SERVER_READ_ONLY", "refuse every write of a resource"),
    setting("apiServer.basePath", "API_SERVER_BASE_PATH", "prefix of all paths"),
    setting("apiServer.readTimeout", "API_SERVER_READ_TIMEOUT", "time for a client to send a request body"),
    setting("apiServer.maxBodyBytes", "API_SERVER_MAX_BODY_BYTES", "largest request body, in bytes"),
    setting("apiServer.http.enabled", "API_SERVER_HTTP_ENABLED", "listen on HTTP"),
    setting("apiServer.http.interface", "API_SERVER_HTTP_INTERFACE", "address of the HTTP listener"),
    setting("apiServer.http.port", "API_SERVER_HTTP_PORT", "port of the HTTP listener"),
    setting("apiServer.https.enabled", "API_SERVER_HTTPS_ENABLED", "listen on HTTPS"),
    setting("apiServer.https.interface", "API_SERVER_HTTPS_INTERFACE", "address of the HTTPS listener"),
    setting("apiServer.https.port", "API_SERVER_HTTPS_PORT", "port of the HTTPS listener"),
    setting(
        "apiServer.https.tlsCertFile",
        "API_SERVER_HTTPS_TLS_CERT_FILE",
        "PEM certificate; empty: general.tlsCertFile",
    ),
    setting("apiServer.https.tlsKeyFile", "API_SERVER_HTTPS_TLS_KEY_FILE", "key of the certificate"),
    setting(
        "apiServer.authn.localhostIsAdmin",
        "API_SERVER_AUTHN_LOCALHOST_IS_ADMIN",
        "requests from this machine are the administrator's",
    ),
    setting(
        "apiServer.authn.tokens.enableIssuer",
        "API_SERVER_AUTHN_TOKENS_ENABLE_ISSUER",
        "issue user tokens",
    ),
    setting(
        "apiServer.authn.tokens.bootstrapAdminToken",
        "API_SERVER_AUTHN_TOKENS_BOOTSTRAP_ADMIN_TOKEN",
        "make the secret admin-user-token at the first start",
    ),
    setting(
        "apiServer.authn.tokens.validator.useSecrets",
        "API_SERVER_AUTHN_TOKENS_VALIDATOR_USE_SECRETS",
        "check user tokens with keys of the store",
    ),
    setting(
        "access.static.adminResources.users",
        "ACCESS_STATIC_ADMIN_RESOURCES_USERS",
        "who may read and write secrets",
    ),
    setting(
        "access.static.adminResources.groups",
        "ACCESS_STATIC_ADMIN_RESOURCES_GROUPS",
        "who may read and write secrets",
    ),
    setting(
        "access.static.generateDpToken.users",
        "ACCESS_STATIC_GENERATE_DP_TOKEN_USERS",
        "who may make dataplane tokens",
    ),
    setting(
        "access.static.generateDpToken.groups",
        "ACCESS_STATIC_GENERATE_DP_TOKEN_GROUPS",
        "who may make dataplane tokens",
    ),
    setting(
        "access.static.generateUserToken.users",
        "ACCESS_STATIC_GENERATE_USER_TOKEN_USERS",
        "who may make user tokens",
    ),
    setting(
        "access.static.generateUserToken.groups",
        "ACCESS_STATIC_GENERATE_USER_TOKEN_GROUPS",
        "who may make user tokens",
    ),
    setting(
        "access.static.generateZoneToken.users",
        "ACCESS_STATIC_GENERATE_ZONE_TOKEN_USERS",
        "who may make zone tokens",
    ),
    setting(
        "access.static.generateZoneToken.groups",
        "ACCESS_STATIC_GENERATE_ZONE_TOKEN_GROUPS",
        "who may make zone tokens",
    ),
    setting(
        "access.static.viewConfigDump.users",
        "ACCESS_STATIC_GET_CONFIG_DUMP_USERS",
        "who may see configurations of proxies",
    ),
    setting(
        "access.static.viewConfigDump.groups",
        "ACCESS_STATIC_GET_CONFIG_DUMP_GROUPS",
        "who may see configurations of proxies",
    ),
    setting(
        "access.static.viewStats.users",
        "ACCESS_STATIC_VIEW_STATS_USERS",
        "who may see statistics of proxies",
    ),
    setting(
        "access.static.viewStats.groups",
        "ACCESS_STATIC_VIEW_STATS_GROUPS",
        "who may see statistics of proxies",
    ),
    setting(
        "access.static.viewClusters.users",
        "ACCESS_STATIC_VIEW_CLUSTERS_USERS",
        "who may see clusters of proxies",
    ),
    setting(
        "access.static.viewClusters.groups",
        "ACCESS_STATIC_VIEW_CLUSTERS_GROUPS",
        "who may see clusters of proxies",
    ),
    setting(
        "access.static.controlPlaneMetadata.users",
        "ACCESS_STATIC_CONTROL_PLANE_METADATA_USERS",
        "who may see this configuration",
    ),
    setting(
        "access.static.controlPlaneMetadata.groups",
        "ACCESS_STATIC_CONTROL_PLANE_METADATA_GROUPS",
        "who may see this configuration",
    ),
];

/// `compat`: single points of safety that can be turned off for stock Kuma peers and habits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Compat {
    /// REST writes need no credential.
    pub anonymous_writes: bool,
    /// Zones need no token.
    pub allow_zones_without_token: bool,
}

impl Compat {
    /// Table.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "compat.anonymousWrites",
            "COMPAT_ANONYMOUS_WRITES",
            "REST writes need no credential, as in Kuma",
        ),
        setting(
            "compat.allowZonesWithoutToken",
            "COMPAT_ALLOW_ZONES_WITHOUT_TOKEN",
            "zones need no token, as in Kuma; a stock Kuma zone sends none",
        ),
    ];
}
