//! Settings of the API (rest-api.md §1.1, tokens-and-access.md §5, §6).

use graticule_identity::tokens::StaticKey;
use graticule_model::GoDuration;
use graticule_runtime::config::Setting;
use graticule_runtime::settings::setting;
use serde::{Deserialize, Serialize};

use crate::auth::{ADMIN, AUTHENTICATED, UNAUTHENTICATED, User};

/// Everything that an operator may set about the API.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `apiServer`.
    pub server: ApiServer,
    /// `access`.
    pub access: Access,
    /// Settings from elsewhere in the file that change what the API allows.
    pub rules: Rules,
    /// Public keys from the configuration that check user tokens.
    pub user_token_keys: Vec<StaticKey>,
}

/// `apiServer` in the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiServer {
    /// Refuses every write of a resource. Default false.
    pub read_only: bool,
    /// Prefix of all paths but `/gui` and `/tokens/user`. Default `/`.
    pub base_path: String,
    /// Time for a client to send the head of a request. Default 1 s. (Read by the control plane.)
    pub read_header_timeout: GoDuration,
    /// Time for a client to send a request body. Default 10 s.
    pub read_timeout: GoDuration,
    /// Time to handle a request and to send the answer, after the body was read. Default 30 s. (Read by the
    /// control plane.)
    pub write_timeout: GoDuration,
    /// Life of a connection without requests. Default 2 min. (Read by the control plane.)
    pub idle_timeout: GoDuration,
    /// Connections of one listener. Default 10,000. (Read by the control plane.)
    pub max_connections: usize,
    /// Largest request body, in bytes. Default 4 MiB.
    pub max_body_bytes: usize,
    /// Requests that are answered at the same time; more are refused with 503. At least 1. Default 1,000.
    pub max_concurrent_requests: usize,
    /// Origins of pages that may use the API, such as `https://gui.example.com`; `*` admits all. Default: none.
    pub cors_allowed_domains: Vec<String>,
    /// `apiServer.http`. (Read by the control plane, which opens the listeners.)
    pub http: Http,
    /// `apiServer.https`. (Read by the control plane, which opens the listeners.)
    pub https: Https,
    /// `apiServer.authn`.
    pub authn: Authn,
}

impl ApiServer {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting("apiServer.readOnly", "API_SERVER_READ_ONLY", "refuse every write of a resource"),
        setting("apiServer.basePath", "API_SERVER_BASE_PATH", "prefix of all paths"),
        setting(
            "apiServer.readTimeout",
            "API_SERVER_READ_TIMEOUT",
            "time for a client to send a request body",
        ),
        setting(
            "apiServer.readHeaderTimeout",
            "API_SERVER_READ_HEADER_TIMEOUT",
            "time for a client to send the head of a request",
        ),
        setting(
            "apiServer.writeTimeout",
            "API_SERVER_WRITE_TIMEOUT",
            "time to handle a request and to send the answer, once its body was read",
        ),
        setting("apiServer.idleTimeout", "API_SERVER_IDLE_TIMEOUT", "life of a connection without requests"),
        setting(
            "apiServer.maxConnections",
            "API_SERVER_MAX_CONNECTIONS",
            "connections of each listener; further ones get 503 on HTTP and are closed on HTTPS",
        ),
        setting("apiServer.maxBodyBytes", "API_SERVER_MAX_BODY_BYTES", "largest request body, in bytes"),
        setting(
            "apiServer.maxConcurrentRequests",
            "API_SERVER_MAX_CONCURRENT_REQUESTS",
            "requests that are answered at the same time; more are refused with 503",
        ),
        setting(
            "apiServer.corsAllowedDomains",
            "API_SERVER_CORS_ALLOWED_DOMAINS",
            "origins of pages that may use the API; * admits all",
        ),
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
            "apiServer.https.tlsMinVersion",
            "API_SERVER_HTTPS_TLS_MIN_VERSION",
            "lowest TLS version, unless general.tlsMinVersion is higher",
        ),
        setting(
            "apiServer.https.tlsMaxVersion",
            "API_SERVER_HTTPS_TLS_MAX_VERSION",
            "highest TLS version; empty: general.tlsMaxVersion",
        ),
        setting(
            "apiServer.https.requireClientCert",
            "API_SERVER_HTTPS_REQUIRE_CLIENT_CERT",
            "clients must show a certificate of apiServer.https.tlsCaFile; it stands for no user",
        ),
        setting(
            "apiServer.https.tlsCaFile",
            "API_SERVER_HTTPS_TLS_CA_FILE",
            "PEM authorities of clients' certificates",
        ),
        setting("apiServer.authn.type", "API_SERVER_AUTHN_TYPE", "how users show who they are: tokens"),
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
            "apiServer.authn.tokens.validator.publicKeys",
            "",
            "further keys that user tokens may be signed with: a list of {kid, key} or {kid, keyFile}",
        ),
    ];
}

/// `apiServer.http`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Http {
    /// Whether to listen. Default true.
    pub enabled: bool,
    /// Address. Default `0.0.0.0`.
    pub interface: String,
    /// Port. Default 5681.
    pub port: u16,
}

/// `apiServer.https`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Https {
    /// Whether to listen. Default true.
    pub enabled: bool,
    /// Address. Default `0.0.0.0`.
    pub interface: String,
    /// Port. Default 5682.
    pub port: u16,
    /// Certificate chain (PEM file). Default: the control plane's.
    pub tls_cert_file: String,
    /// Its key.
    pub tls_key_file: String,
    /// Lowest TLS version. Default `TLSv1_2`.
    pub tls_min_version: String,
    /// Highest TLS version; empty: no bound.
    pub tls_max_version: String,
    /// Clients must show a certificate. Default false.
    pub require_client_cert: bool,
    /// Authorities of clients' certificates (PEM file).
    pub tls_ca_file: String,
}

/// `apiServer.authn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Authn {
    /// How users show who they are. Only `tokens`.
    pub r#type: String,
    /// A request from this machine that no browser page or proxy sent is from the administrator. Default true.
    pub localhost_is_admin: bool,
    /// `apiServer.authn.tokens`.
    pub tokens: Tokens,
}

/// `apiServer.authn.tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Tokens {
    /// `POST /tokens/user` works. Default true.
    pub enable_issuer: bool,
    /// Make the secret `admin-user-token` at the first start. (Read by the control plane, not by the API.)
    pub bootstrap_admin_token: bool,
    /// `apiServer.authn.tokens.validator`.
    pub validator: Validator,
}

/// `apiServer.authn.tokens.validator`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Validator {
    /// Keys in GlobalSecrets check user tokens. Default true.
    pub use_secrets: bool,
    /// Further keys.
    pub public_keys: Vec<PublicKey>,
}

/// A key that tokens may be signed with elsewhere; exactly one of `key` and `keyFile`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicKey {
    /// Key id.
    pub kid: String,
    /// The key, PEM.
    pub key: String,
    /// File with it.
    pub key_file: String,
}

/// What the API allows, from other sections of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `compat.anonymousWrites`: writes need no credential, as in Kuma. Default false.
    pub anonymous_writes: bool,
    /// `store.unsafeDelete`: no guards on deleting Meshes and Zones. Default false.
    pub unsafe_delete: bool,
    /// `multizone.zone.disableOriginLabelValidation`. Default false.
    pub skip_origin_validation: bool,
    /// `multizone.zone.meshes`: Dataplanes of other meshes are refused; empty: none is. Default empty.
    pub meshes: Vec<String>,
    /// Issuing of dataplane tokens works. Default true.
    pub issue_dataplane_tokens: bool,
    /// Issuing of zone tokens works. Default true.
    pub issue_zone_tokens: bool,
}

/// `access` in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Where it is written who may do what. Only `static`: here.
    pub r#type: String,
    /// `access.static`.
    pub r#static: StaticAccess,
}

impl Default for Access {
    fn default() -> Self {
        Access { r#type: "static".into(), r#static: StaticAccess::default() }
    }
}

impl Access {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "access.type",
            "ACCESS_TYPE",
            "where it is written who may do what: static, in these settings",
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
}

/// `access.static`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticAccess {
    /// Kinds for administrators only. Default: user and group `mesh-system:admin`.
    pub admin_resources: Allowed,
    /// `POST /tokens/dataplane`. Default as `adminResources`.
    pub generate_dp_token: Allowed,
    /// `POST /tokens/user`. Default as `adminResources`.
    pub generate_user_token: Allowed,
    /// `POST /tokens/zone`. Default as `adminResources`.
    pub generate_zone_token: Allowed,
    /// Configuration of a proxy. Default: everybody.
    pub view_config_dump: Allowed,
    /// Statistics of a proxy. Default: everybody.
    pub view_stats: Allowed,
    /// Clusters of a proxy. Default: everybody.
    pub view_clusters: Allowed,
    /// `GET /config`. Default: everybody.
    pub control_plane_metadata: Allowed,
}

/// Who may do something: one of these users, or a member of one of these groups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Allowed {
    /// User names.
    pub users: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
}

impl Allowed {
    fn admin() -> Allowed {
        Allowed { users: vec![ADMIN.into()], groups: vec![ADMIN.into()] }
    }

    fn everybody() -> Allowed {
        Allowed { users: Vec::new(), groups: vec![UNAUTHENTICATED.into(), AUTHENTICATED.into()] }
    }

    /// Whether `user` may.
    pub fn allows(&self, user: &User) -> bool {
        self.users.contains(&user.name) || user.groups.iter().any(|group| self.groups.contains(group))
    }
}

impl Default for ApiServer {
    fn default() -> Self {
        ApiServer {
            read_only: false,
            base_path: "/".into(),
            read_header_timeout: GoDuration::from_secs(1),
            read_timeout: GoDuration::from_secs(10),
            write_timeout: GoDuration::from_secs(30),
            idle_timeout: GoDuration::from_secs(120),
            max_connections: 10_000,
            max_body_bytes: 4 << 20,
            max_concurrent_requests: 1_000,
            cors_allowed_domains: Vec::new(),
            http: Http::default(),
            https: Https::default(),
            authn: Authn::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http { enabled: true, interface: "0.0.0.0".into(), port: 5681 }
    }
}

impl Default for Https {
    fn default() -> Self {
        Https {
            enabled: true,
            interface: "0.0.0.0".into(),
            port: 5682,
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            tls_min_version: "TLSv1_2".into(),
            tls_max_version: String::new(),
            require_client_cert: false,
            tls_ca_file: String::new(),
        }
    }
}

impl Default for Authn {
    fn default() -> Self {
        Authn { r#type: "tokens".into(), localhost_is_admin: true, tokens: Tokens::default() }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Tokens { enable_issuer: true, bootstrap_admin_token: true, validator: Validator::default() }
    }
}

impl Default for Validator {
    fn default() -> Self {
        Validator { use_secrets: true, public_keys: Vec::new() }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            anonymous_writes: false,
            unsafe_delete: false,
            skip_origin_validation: false,
            meshes: Vec::new(),
            issue_dataplane_tokens: true,
            issue_zone_tokens: true,
        }
    }
}

impl Default for StaticAccess {
    fn default() -> Self {
        StaticAccess {
            admin_resources: Allowed::admin(),
            generate_dp_token: Allowed::admin(),
            generate_user_token: Allowed::admin(),
            generate_zone_token: Allowed::admin(),
            view_config_dump: Allowed::everybody(),
            view_stats: Allowed::everybody(),
            view_clusters: Allowed::everybody(),
            control_plane_metadata: Allowed::everybody(),
        }
    }
}
