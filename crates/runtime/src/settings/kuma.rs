//! Names of Kuma's settings, and of ours that one control plane only has. What a program does not list among its own settings
//! is understood, is not used, and is answered with one warning that says what stands in its place or what is missing (DESIGN
//! decision 13).

use graticule_settings::Fate::{NotYet, Replaced};
use graticule_settings::{Fate, Foreign, Setting};

/// Which control plane a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `global-cp`
    Global,
    /// `zone-cp`
    Zone,
}

const SUITES: Fate = Replaced("only suites with forward secrecy and authenticated encryption are offered");
const ZONES_ONLY: Fate = Replaced("a global control plane serves no proxies; it is a setting of zone-cp");
const GLOBAL_ONLY: Fate = Replaced("it is a setting of global-cp");
const PUSHED: Fate = Replaced("changes are pushed when they happen");
const UNIVERSAL: Fate = NotYet("this version runs on Universal only, without Kubernetes");
const NO_GUI: Fate = NotYet("this version serves no GUI");
const NO_TRACES: Fate = NotYet("this version sends no traces");
const NO_METRICS: Fate = NotYet("this version has no metrics endpoint");
const REJECTED: Fate = Replaced("what a peer rejected is sent again when it changes, not after a time");
const NO_PAYLOADS: Fate = Replaced("messages are never logged; the log level debug shows what is sent");
const SEND: Fate = Replaced("a peer that takes nothing is found by keep-alives on the connection");
const NOT_COUNTED: Fate = NotYet("subscriptions in insights are bounded by the program");

/// What comes of settings at or below a path, on one program or on both; the longest path decides, then the
/// rule for one program.
const RULES: &[(&str, Option<Role>, Fate)] = &[
    ("general.dnsCacheTTL", None, Replaced("the zone decides when it looks a host name up again")),
    ("general.tlsCipherSuites", None, SUITES),
    (
        "general.resilientComponentBaseBackoff",
        None,
        Replaced("failed tasks start again after 0.1 s and growing pauses"),
    ),
    ("general.resilientComponentMaxBackoff", None, Replaced("failed tasks start again after at most 30 s")),
    (
        "general.certGenerationBaseBackoff",
        None,
        Replaced("certificates are issued by the zone itself, ahead of time"),
    ),
    (
        "general.certGenerationMaxBackoff",
        None,
        Replaced("certificates are issued by the zone itself, ahead of time"),
    ),
    (
        "general.certGenerationCircuitBreakerMinProxies",
        None,
        Replaced("certificates are issued by the zone itself, ahead of time"),
    ),
    ("store.postgres", None, Replaced("no database is needed; see store.type")),
    ("store.kubernetes", None, UNIVERSAL),
    ("store.cache", None, Replaced("all resources are in memory, there is nothing to cache")),
    ("store.upsert", None, Replaced("conflicting writes are retried at once")),
    ("bootstrapServer", Some(Role::Global), ZONES_ONLY),
    (
        "bootstrapServer.params.readinessPort",
        Some(Role::Zone),
        Replaced("each agent says its own: GRATICULE_READINESS_PORT"),
    ),
    ("xdsServer", Some(Role::Global), ZONES_ONLY),
    ("xdsServer.dataplaneConfigurationRefreshInterval", Some(Role::Zone), PUSHED),
    (
        "xdsServer.dataplaneStatusFlushInterval",
        Some(Role::Zone),
        Replaced("status changes are streamed when they happen"),
    ),
    ("xdsServer.nackBackoff", Some(Role::Zone), REJECTED),
    (
        "xdsServer.policyMatchingCacheSize",
        Some(Role::Zone),
        Replaced("only the policies of affected proxies are matched again"),
    ),
    ("monitoringAssignmentServer", Some(Role::Global), ZONES_ONLY),
    (
        "monitoringAssignmentServer",
        Some(Role::Zone),
        NotYet("this version does not tell Prometheus about proxies (MADS)"),
    ),
    ("apiServer.corsAllowedDomains", None, NotYet("pages of other origins cannot use the API")),
    ("apiServer.https.tlsCipherSuites", None, SUITES),
    ("apiServer.rootUrl", None, NO_GUI),
    ("apiServer.gui", None, NO_GUI),
    ("runtime.kubernetes", None, UNIVERSAL),
    ("runtime.universal", Some(Role::Global), ZONES_ONLY),
    (
        "runtime.universal.dataplaneCleanupAge",
        Some(Role::Zone),
        NotYet("Dataplanes that were applied over REST stay until they are deleted"),
    ),
    ("runtime.universal.spire", Some(Role::Zone), NotYet("this version has no SPIRE provider")),
    ("runtime.universal.workload", Some(Role::Zone), Replaced("Workloads follow their Dataplanes at once")),
    ("metrics.dataplane", None, NOT_COUNTED),
    ("metrics.zone", None, NOT_COUNTED),
    ("metrics.mesh", None, Replaced("counts are taken from memory when they are asked for")),
    ("metrics.controlPlane", None, NO_METRICS),
    ("metrics.openTelemetry", None, NO_METRICS),
    ("reports", None, Replaced("nothing is ever reported to anybody")),
    ("multizone.global", Some(Role::Zone), GLOBAL_ONLY),
    (
        "multizone.global.kds.zoneInsightFlushInterval",
        Some(Role::Global),
        Replaced("zone status is kept in memory and always current"),
    ),
    ("multizone.global.kds.tlsCipherSuites", Some(Role::Global), SUITES),
    ("multizone.global.kds.msgSendTimeout", Some(Role::Global), SEND),
    ("multizone.global.kds.nackBackoff", Some(Role::Global), REJECTED),
    (
        "multizone.global.kds.responseBackoff",
        Some(Role::Global),
        Replaced("acknowledgements are sent at once"),
    ),
    ("multizone.global.kds.logPayloads", Some(Role::Global), NO_PAYLOADS),
    ("multizone.global.kds.eventBasedWatchdog", Some(Role::Global), PUSHED),
    (
        "multizone.global.kds.zoneHealthCheck",
        Some(Role::Global),
        Replaced("a zone is gone when its connection is; see multizone.global.kds.healthInterval"),
    ),
    ("multizone.global.kds.tracing", Some(Role::Global), NO_TRACES),
    ("multizone.zone", Some(Role::Global), Replaced("it is a setting of zone-cp")),
    ("multizone.zone.kds.msgSendTimeout", Some(Role::Zone), SEND),
    ("multizone.zone.kds.nackBackoff", Some(Role::Zone), REJECTED),
    ("multizone.zone.kds.responseBackoff", Some(Role::Zone), Replaced("acknowledgements are sent at once")),
    ("multizone.zone.kds.logPayloads", Some(Role::Zone), NO_PAYLOADS),
    ("multizone.zone.kds.eventBasedWatchdog", Some(Role::Zone), PUSHED),
    ("dnsServer", None, Replaced("host names come from HostnameGenerators")),
    ("diagnostics.debugEndpoints", None, NotYet("this version has no profiling endpoints")),
    ("diagnostics.tlsCipherSuites", None, SUITES),
    ("dpServer", Some(Role::Global), ZONES_ONLY),
    ("dpServer.tlsCipherSuites", Some(Role::Zone), SUITES),
    (
        "dpServer.gracefulShutdownTimeout",
        Some(Role::Zone),
        Replaced("all parts of the program have 10 s to end"),
    ),
    (
        "dpServer.authn.zoneProxy.type",
        Some(Role::Global),
        Replaced("zone proxies are Dataplanes; zones need a token, see compat.allowZonesWithoutToken"),
    ),
    (
        "dpServer.authn.zoneProxy",
        Some(Role::Zone),
        Replaced("zone proxies are Dataplanes and use dataplane tokens"),
    ),
    ("dpServer.hds.refreshInterval", Some(Role::Zone), PUSHED),
    ("interCp", None, Replaced("replicas talk over the store's own connections")),
    ("tracing", None, NO_TRACES),
    ("eventBus", None, Replaced("there is no event bus")),
    ("policies.pluginPoliciesEnabled", None, NotYet("all kinds of policies are enabled")),
    ("coreResources.enabled", None, NotYet("all kinds of resources are enabled")),
    ("coreResources.status", Some(Role::Global), ZONES_ONLY),
    ("coreResources.status", Some(Role::Zone), Replaced("status is derived when its inputs change")),
    ("ipam", Some(Role::Global), ZONES_ONLY),
    (
        "ipam.meshExternalService",
        Some(Role::Zone),
        NotYet("this version gives MeshExternalServices no addresses"),
    ),
    (
        "ipam.meshMultiZoneService",
        Some(Role::Zone),
        NotYet("this version gives MeshMultiZoneServices no addresses"),
    ),
    (
        "ipam.allocationInterval",
        Some(Role::Zone),
        Replaced("addresses are allocated when a service is created"),
    ),
    ("meshService", Some(Role::Global), ZONES_ONLY),
    (
        "meshService.generationInterval",
        Some(Role::Zone),
        Replaced("services are generated when proxies change"),
    ),
    (
        "meshService.labelPropagation",
        Some(Role::Zone),
        NotYet("generated MeshServices have the labels of the control plane only"),
    ),
];

/// The settings of Kuma that are not among `own`.
pub fn foreign(own: &[Setting], role: Role) -> Vec<Foreign> {
    KUMA.iter()
        .filter(|(path, _)| !own.iter().any(|setting| setting.path == *path))
        .map(|(path, env)| Foreign { path, env, fate: fate(path, role).unwrap_or(NotYet("it is ignored")) })
        .collect()
}

/// Settings of ours that one control plane only has, and which one.
const ONE_SIDED: &[(&str, &str, Role)] = &[
    ("compat.allowZonesWithoutToken", "COMPAT_ALLOW_ZONES_WITHOUT_TOKEN", Role::Global),
    ("compat.zonesWithoutToken", "COMPAT_ZONES_WITHOUT_TOKEN", Role::Global),
    ("federation.trustExchange", "FEDERATION_TRUST_EXCHANGE", Role::Global),
    ("federation.zoneLimit.resources", "FEDERATION_ZONE_LIMIT_RESOURCES", Role::Global),
    ("federation.zoneLimit.bytes", "FEDERATION_ZONE_LIMIT_BYTES", Role::Global),
    ("crossZone.balanceRequests", "CROSS_ZONE_BALANCE_REQUESTS", Role::Zone),
    ("crossZone.maxRequestsPerConnection", "CROSS_ZONE_MAX_REQUESTS_PER_CONNECTION", Role::Zone),
    ("crossZone.maxConnectionDuration", "CROSS_ZONE_MAX_CONNECTION_DURATION", Role::Zone),
];

/// Settings of ours that only the other control plane has, and that are not among `own`.
pub fn one_sided(own: &[Setting], role: Role) -> impl Iterator<Item = Foreign> + '_ {
    let fate = match role {
        Role::Global => ZONES_ONLY,
        Role::Zone => GLOBAL_ONLY,
    };
    let others = ONE_SIDED.iter().filter(move |(_, _, of)| *of != role);
    let others = others.filter(|(path, ..)| !own.iter().any(|setting| setting.path == *path));
    others.map(move |(path, env, _)| Foreign { path, env, fate })
}

fn fate(path: &str, role: Role) -> Option<Fate> {
    let is_below =
        |start: &str| path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    RULES
        .iter()
        .filter(|(start, only, _)| is_below(start) && only.is_none_or(|only| only == role))
        .max_by_key(|(start, only, _)| (start.len(), only.is_some()))
        .map(|(_, _, fate)| *fate)
}

/// Path in the file, variable without prefix.
const KUMA: &[(&str, &str)] = &[
    ("general.dnsCacheTTL", "GENERAL_DNS_CACHE_TTL"),
    ("general.tlsCertFile", "GENERAL_TLS_CERT_FILE"),
    ("general.tlsKeyFile", "GENERAL_TLS_KEY_FILE"),
    ("general.tlsMinVersion", "GENERAL_TLS_MIN_VERSION"),
    ("general.tlsMaxVersion", "GENERAL_TLS_MAX_VERSION"),
    ("general.tlsCipherSuites", "GENERAL_TLS_CIPHER_SUITES"),
    ("general.workDir", "GENERAL_WORK_DIR"),
    ("general.resilientComponentBaseBackoff", "GENERAL_RESILIENT_COMPONENT_BASE_BACKOFF"),
    ("general.resilientComponentMaxBackoff", "GENERAL_RESILIENT_COMPONENT_MAX_BACKOFF"),
    ("general.certGenerationBaseBackoff", "GENERAL_CERT_GENERATION_BASE_BACKOFF"),
    ("general.certGenerationMaxBackoff", "GENERAL_CERT_GENERATION_MAX_BACKOFF"),
    ("general.certGenerationCircuitBreakerMinProxies", "GENERAL_CERT_GENERATION_CIRCUIT_BREAKER_MIN_PROXIES"),
    ("environment", "ENVIRONMENT"),
    ("mode", "MODE"),
    ("store.type", "STORE_TYPE"),
    ("store.postgres.host", "STORE_POSTGRES_HOST"),
    ("store.postgres.port", "STORE_POSTGRES_PORT"),
    ("store.postgres.user", "STORE_POSTGRES_USER"),
    ("store.postgres.password", "STORE_POSTGRES_PASSWORD"),
    ("store.postgres.dbName", "STORE_POSTGRES_DB_NAME"),
    ("store.postgres.driverName", "STORE_POSTGRES_DRIVER_NAME"),
    ("store.postgres.connectionTimeout", "STORE_POSTGRES_CONNECTION_TIMEOUT"),
    ("store.postgres.maxConnectionIdleTime", "STORE_POSTGRES_MAX_CONNECTION_IDLE_TIME"),
    ("store.postgres.maxConnectionLifetime", "STORE_POSTGRES_MAX_CONNECTION_LIFETIME"),
    ("store.postgres.maxConnectionLifetimeJitter", "STORE_POSTGRES_MAX_CONNECTION_LIFETIME_JITTER"),
    ("store.postgres.healthCheckInterval", "STORE_POSTGRES_HEALTH_CHECK_INTERVAL"),
    ("store.postgres.minOpenConnections", "STORE_POSTGRES_MIN_OPEN_CONNECTIONS"),
    ("store.postgres.maxOpenConnections", "STORE_POSTGRES_MAX_OPEN_CONNECTIONS"),
    ("store.postgres.maxIdleConnections", "STORE_POSTGRES_MAX_IDLE_CONNECTIONS"),
    ("store.postgres.tls.mode", "STORE_POSTGRES_TLS_MODE"),
    ("store.postgres.tls.certPath", "STORE_POSTGRES_TLS_CERT_PATH"),
    ("store.postgres.tls.keyPath", "STORE_POSTGRES_TLS_KEY_PATH"),
    ("store.postgres.tls.caPath", "STORE_POSTGRES_TLS_CA_PATH"),
    ("store.postgres.tls.disableSSLSNI", "STORE_POSTGRES_TLS_DISABLE_SSLSNI"),
    ("store.postgres.maxListQueryElements", "STORE_POSTGRES_MAX_LIST_QUERY_ELEMENTS"),
    ("store.postgres.readReplica.host", "STORE_POSTGRES_READ_REPLICA_HOST"),
    ("store.postgres.readReplica.port", "STORE_POSTGRES_READ_REPLICA_PORT"),
    ("store.postgres.readReplica.ratio", "STORE_POSTGRES_READ_REPLICA_RATIO"),
    ("store.postgres.tolerateNewerDBVersions", "STORE_POSTGRES_TOLERATE_NEWER_DB_VERSIONS"),
    ("store.kubernetes.systemNamespace", "STORE_KUBERNETES_SYSTEM_NAMESPACE"),
    ("store.cache.enabled", "STORE_CACHE_ENABLED"),
    ("store.cache.expirationTime", "STORE_CACHE_EXPIRATION_TIME"),
    ("store.upsert.conflictRetryBaseBackoff", "STORE_UPSERT_CONFLICT_RETRY_BASE_BACKOFF"),
    ("store.upsert.conflictRetryMaxTimes", "STORE_UPSERT_CONFLICT_RETRY_MAX_TIMES"),
    ("store.upsert.conflictRetryJitterPercent", "STORE_UPSERT_CONFLICT_RETRY_JITTER_PERCENT"),
    ("store.unsafeDelete", "STORE_UNSAFE_DELETE"),
    ("bootstrapServer.params.adminAddress", "BOOTSTRAP_SERVER_PARAMS_ADMIN_ADDRESS"),
    ("bootstrapServer.params.adminPort", "BOOTSTRAP_SERVER_PARAMS_ADMIN_PORT"),
    ("bootstrapServer.params.envoyAdminUnixSocket", "BOOTSTRAP_SERVER_PARAMS_ENVOY_ADMIN_UNIX_SOCKET"),
    ("bootstrapServer.params.readinessPort", "BOOTSTRAP_SERVER_PARAMS_READINESS_PORT"),
    ("bootstrapServer.params.adminAccessLogPath", "BOOTSTRAP_SERVER_PARAMS_ADMIN_ACCESS_LOG_PATH"),
    ("bootstrapServer.params.xdsHost", "BOOTSTRAP_SERVER_PARAMS_XDS_HOST"),
    ("bootstrapServer.params.xdsPort", "BOOTSTRAP_SERVER_PARAMS_XDS_PORT"),
    ("bootstrapServer.params.xdsConnectTimeout", "BOOTSTRAP_SERVER_PARAMS_XDS_CONNECT_TIMEOUT"),
    (
        "bootstrapServer.params.xdsGrpcMaxReceiveMessageBytes",
        "BOOTSTRAP_SERVER_PARAMS_XDS_GRPC_MAX_RECEIVE_MESSAGE_BYTES",
    ),
    (
        "xdsServer.dataplaneConfigurationRefreshInterval",
        "XDS_SERVER_DATAPLANE_CONFIGURATION_REFRESH_INTERVAL",
    ),
    ("xdsServer.dataplaneStatusFlushInterval", "XDS_SERVER_DATAPLANE_STATUS_FLUSH_INTERVAL"),
    ("xdsServer.dataplaneDeregistrationDelay", "XDS_DATAPLANE_DEREGISTRATION_DELAY"),
    ("xdsServer.nackBackoff", "XDS_SERVER_NACK_BACKOFF"),
    ("xdsServer.policyMatchingCacheSize", "XDS_SERVER_POLICY_MATCHING_CACHE_SIZE"),
    ("monitoringAssignmentServer.enabled", "MONITORING_ASSIGNMENT_SERVER_ENABLED"),
    ("monitoringAssignmentServer.port", "MONITORING_ASSIGNMENT_SERVER_PORT"),
    ("monitoringAssignmentServer.defaultFetchTimeout", "MONITORING_ASSIGNMENT_SERVER_DEFAULT_FETCH_TIMEOUT"),
    ("monitoringAssignmentServer.apiVersions", "MONITORING_ASSIGNMENT_SERVER_API_VERSIONS"),
    (
        "monitoringAssignmentServer.assignmentRefreshInterval",
        "MONITORING_ASSIGNMENT_SERVER_ASSIGNMENT_REFRESH_INTERVAL",
    ),
    ("monitoringAssignmentServer.tlsEnabled", "MONITORING_ASSIGNMENT_SERVER_TLS_ENABLED"),
    ("monitoringAssignmentServer.tlsCertFile", "MONITORING_ASSIGNMENT_SERVER_TLS_CERT_FILE"),
    ("monitoringAssignmentServer.tlsKeyFile", "MONITORING_ASSIGNMENT_SERVER_TLS_KEY_FILE"),
    ("monitoringAssignmentServer.tlsMinVersion", "MONITORING_ASSIGNMENT_SERVER_TLS_MIN_VERSION"),
    ("monitoringAssignmentServer.tlsMaxVersion", "MONITORING_ASSIGNMENT_SERVER_TLS_MAX_VERSION"),
    ("monitoringAssignmentServer.tlsCipherSuites", "MONITORING_ASSIGNMENT_SERVER_TLS_CIPHER_SUITES"),
    ("apiServer.readOnly", "API_SERVER_READ_ONLY"),
    ("apiServer.corsAllowedDomains", "API_SERVER_CORS_ALLOWED_DOMAINS"),
    ("apiServer.http.enabled", "API_SERVER_HTTP_ENABLED"),
    ("apiServer.http.interface", "API_SERVER_HTTP_INTERFACE"),
    ("apiServer.http.port", "API_SERVER_HTTP_PORT"),
    ("apiServer.https.enabled", "API_SERVER_HTTPS_ENABLED"),
    ("apiServer.https.interface", "API_SERVER_HTTPS_INTERFACE"),
    ("apiServer.https.port", "API_SERVER_HTTPS_PORT"),
    ("apiServer.https.tlsCertFile", "API_SERVER_HTTPS_TLS_CERT_FILE"),
    ("apiServer.https.tlsKeyFile", "API_SERVER_HTTPS_TLS_KEY_FILE"),
    ("apiServer.https.tlsMinVersion", "API_SERVER_HTTPS_TLS_MIN_VERSION"),
    ("apiServer.https.tlsMaxVersion", "API_SERVER_HTTPS_TLS_MAX_VERSION"),
    ("apiServer.https.tlsCipherSuites", "API_SERVER_HTTPS_TLS_CIPHER_SUITES"),
    ("apiServer.https.requireClientCert", "API_SERVER_HTTPS_REQUIRE_CLIENT_CERT"),
    ("apiServer.https.tlsCaFile", "API_SERVER_HTTPS_TLS_CA_FILE"),
    ("apiServer.authn.type", "API_SERVER_AUTHN_TYPE"),
    ("apiServer.authn.localhostIsAdmin", "API_SERVER_AUTHN_LOCALHOST_IS_ADMIN"),
    ("apiServer.authn.tokens.bootstrapAdminToken", "API_SERVER_AUTHN_TOKENS_BOOTSTRAP_ADMIN_TOKEN"),
    ("apiServer.authn.tokens.enableIssuer", "API_SERVER_AUTHN_TOKENS_ENABLE_ISSUER"),
    ("apiServer.authn.tokens.validator.useSecrets", "API_SERVER_AUTHN_TOKENS_VALIDATOR_USE_SECRETS"),
    ("apiServer.basePath", "API_SERVER_BASE_PATH"),
    ("apiServer.rootUrl", "API_SERVER_ROOT_URL"),
    ("apiServer.gui.enabled", "API_SERVER_GUI_ENABLED"),
    ("apiServer.gui.rootUrl", "API_SERVER_GUI_ROOT_URL"),
    ("apiServer.gui.basePath", "API_SERVER_GUI_BASE_PATH"),
    ("apiServer.readHeaderTimeout", "API_SERVER_READ_HEADER_TIMEOUT"),
    ("apiServer.readTimeout", "API_SERVER_READ_TIMEOUT"),
    ("apiServer.writeTimeout", "API_SERVER_WRITE_TIMEOUT"),
    ("apiServer.idleTimeout", "API_SERVER_IDLE_TIMEOUT"),
    ("runtime.kubernetes.admissionServer.address", "RUNTIME_KUBERNETES_ADMISSION_SERVER_ADDRESS"),
    ("runtime.kubernetes.admissionServer.port", "RUNTIME_KUBERNETES_ADMISSION_SERVER_PORT"),
    ("runtime.kubernetes.admissionServer.certDir", "RUNTIME_KUBERNETES_ADMISSION_SERVER_CERT_DIR"),
    (
        "runtime.kubernetes.injector.sidecarContainer.image",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_IMAGE",
    ),
    ("runtime.kubernetes.injector.sidecarContainer.uid", "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_UID"),
    ("runtime.kubernetes.injector.sidecarContainer.gid", "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_GUI"),
    (
        "runtime.kubernetes.injector.sidecarContainer.drainTime",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_DRAIN_TIME",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.readinessProbe.initialDelaySeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_READINESS_PROBE_INITIAL_DELAY_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.readinessProbe.timeoutSeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_READINESS_PROBE_TIMEOUT_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.readinessProbe.periodSeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_READINESS_PROBE_PERIOD_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.readinessProbe.successThreshold",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_READINESS_PROBE_SUCCESS_THRESHOLD",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.readinessProbe.failureThreshold",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_READINESS_PROBE_FAILURE_THRESHOLD",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.livenessProbe.initialDelaySeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_LIVENESS_PROBE_INITIAL_DELAY_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.livenessProbe.timeoutSeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_LIVENESS_PROBE_TIMEOUT_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.livenessProbe.periodSeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_LIVENESS_PROBE_PERIOD_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.livenessProbe.failureThreshold",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_LIVENESS_PROBE_FAILURE_THRESHOLD",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.startupProbe.initialDelaySeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_STARTUP_PROBE_INITIAL_DELAY_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.startupProbe.timeoutSeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_STARTUP_PROBE_TIMEOUT_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.startupProbe.periodSeconds",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_STARTUP_PROBE_PERIOD_SECONDS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.startupProbe.failureThreshold",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_STARTUP_PROBE_FAILURE_THRESHOLD",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.resources.requests.cpu",
        "INJECTOR_SIDECAR_CONTAINER_RESOURCES_REQUESTS_CPU",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.resources.requests.memory",
        "INJECTOR_SIDECAR_CONTAINER_RESOURCES_REQUESTS_MEMORY",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.resources.limits.cpu",
        "INJECTOR_SIDECAR_CONTAINER_RESOURCES_LIMITS_CPU",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.resources.limits.memory",
        "INJECTOR_SIDECAR_CONTAINER_RESOURCES_LIMITS_MEMORY",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.envVars",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_ENV_VARS",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.redirectPortInbound",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_REDIRECT_PORT_INBOUND",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.ipFamilyMode",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_IP_FAMILY_MODE",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.redirectPortOutbound",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_REDIRECT_PORT_OUTBOUND",
    ),
    (
        "runtime.kubernetes.injector.sidecarContainer.waitForDataplaneReady",
        "RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_WAIT_FOR_DATAPLANE_READY",
    ),
    ("runtime.kubernetes.injector.initContainer.image", "INJECTOR_INIT_CONTAINER_IMAGE"),
    (
        "runtime.kubernetes.injector.initContainer.resources.requests.cpu",
        "INJECTOR_INIT_CONTAINER_RESOURCES_REQUESTS_CPU",
    ),
    (
        "runtime.kubernetes.injector.initContainer.resources.requests.memory",
        "INJECTOR_INIT_CONTAINER_RESOURCES_REQUESTS_MEMORY",
    ),
    (
        "runtime.kubernetes.injector.initContainer.resources.limits.cpu",
        "INJECTOR_INIT_CONTAINER_RESOURCES_LIMITS_CPU",
    ),
    (
        "runtime.kubernetes.injector.initContainer.resources.limits.memory",
        "INJECTOR_INIT_CONTAINER_RESOURCES_LIMITS_MEMORY",
    ),
    (
        "runtime.kubernetes.injector.validationContainer.resources.requests.cpu",
        "INJECTOR_VALIDATION_CONTAINER_RESOURCES_REQUESTS_CPU",
    ),
    (
        "runtime.kubernetes.injector.validationContainer.resources.requests.memory",
        "INJECTOR_VALIDATION_CONTAINER_RESOURCES_REQUESTS_MEMORY",
    ),
    (
        "runtime.kubernetes.injector.validationContainer.resources.limits.cpu",
        "INJECTOR_VALIDATION_CONTAINER_RESOURCES_LIMITS_CPU",
    ),
    (
        "runtime.kubernetes.injector.validationContainer.resources.limits.memory",
        "INJECTOR_VALIDATION_CONTAINER_RESOURCES_LIMITS_MEMORY",
    ),
    ("runtime.kubernetes.injector.containerPatches", "RUNTIME_KUBERNETES_INJECTOR_CONTAINER_PATCHES"),
    ("runtime.kubernetes.injector.cniEnabled", "RUNTIME_KUBERNETES_INJECTOR_CNI_ENABLED"),
    (
        "runtime.kubernetes.injector.applicationProbeProxyPort",
        "RUNTIME_KUBERNETES_APPLICATION_PROBE_PROXY_PORT",
    ),
    (
        "runtime.kubernetes.injector.sidecarTraffic.excludeInboundPorts",
        "RUNTIME_KUBERNETES_SIDECAR_TRAFFIC_EXCLUDE_INBOUND_PORTS",
    ),
    (
        "runtime.kubernetes.injector.sidecarTraffic.excludeOutboundPorts",
        "RUNTIME_KUBERNETES_SIDECAR_TRAFFIC_EXCLUDE_OUTBOUND_PORTS",
    ),
    (
        "runtime.kubernetes.injector.sidecarTraffic.excludeInboundIPs",
        "RUNTIME_KUBERNETES_SIDECAR_TRAFFIC_EXCLUDE_INBOUND_IPS",
    ),
    (
        "runtime.kubernetes.injector.sidecarTraffic.excludeOutboundIPs",
        "RUNTIME_KUBERNETES_SIDECAR_TRAFFIC_EXCLUDE_OUTBOUND_IPS",
    ),
    ("runtime.kubernetes.injector.exceptions.labels", "RUNTIME_KUBERNETES_EXCEPTIONS_LABELS"),
    ("runtime.kubernetes.injector.caCertFile", "RUNTIME_KUBERNETES_INJECTOR_CA_CERT_FILE"),
    ("runtime.kubernetes.injector.builtinDNS.enabled", "RUNTIME_KUBERNETES_INJECTOR_BUILTIN_DNS_ENABLED"),
    ("runtime.kubernetes.injector.builtinDNS.port", "RUNTIME_KUBERNETES_INJECTOR_BUILTIN_DNS_PORT"),
    (
        "runtime.kubernetes.injector.ignoredServiceSelectorLabels",
        "RUNTIME_KUBERNETES_INJECTOR_IGNORED_SERVICE_SELECTOR_LABELS",
    ),
    ("runtime.kubernetes.injector.nodeLabelsToCopy", "RUNTIME_KUBERNETES_INJECTOR_NODE_LABELS_TO_COPY"),
    (
        "runtime.kubernetes.injector.transparentProxyConfigMap",
        "RUNTIME_KUBERNETES_INJECTOR_TRANSPARENT_PROXY_CONFIGMAP_NAME",
    ),
    ("runtime.kubernetes.injector.otelPipeEnabled", "RUNTIME_KUBERNETES_INJECTOR_OTEL_PIPE_ENABLED"),
    ("runtime.kubernetes.injector.spire.enabled", "RUNTIME_KUBERNETES_INJECTOR_SPIRE_ENABLED"),
    ("runtime.kubernetes.injector.spire.mountPath", "RUNTIME_KUBERNETES_INJECTOR_SPIRE_MOUNT_PATH"),
    (
        "runtime.kubernetes.injector.spire.socketFileName",
        "RUNTIME_KUBERNETES_INJECTOR_SPIRE_SOCKET_FILE_NAME",
    ),
    (
        "runtime.kubernetes.marshalingCacheExpirationTime",
        "RUNTIME_KUBERNETES_MARSHALING_CACHE_EXPIRATION_TIME",
    ),
    ("runtime.kubernetes.allowedUsers", "RUNTIME_KUBERNETES_ALLOWED_USERS"),
    ("runtime.kubernetes.controlPlaneServiceName", "RUNTIME_KUBERNETES_CONTROL_PLANE_SERVICE_NAME"),
    ("runtime.kubernetes.nodeTaintController.enabled", "RUNTIME_KUBERNETES_NODE_TAINT_CONTROLLER_ENABLED"),
    ("runtime.kubernetes.nodeTaintController.cniApp", "RUNTIME_KUBERNETES_NODE_TAINT_CONTROLLER_CNI_APP"),
    (
        "runtime.kubernetes.nodeTaintController.cniNamespace",
        "RUNTIME_KUBERNETES_NODE_TAINT_CONTROLLER_CNI_NAMESPACE",
    ),
    (
        "runtime.kubernetes.controllersConcurrency.podController",
        "RUNTIME_KUBERNETES_CONTROLLERS_CONCURRENCY_POD_CONTROLLER",
    ),
    ("runtime.kubernetes.clientConfig.qps", "RUNTIME_KUBERNETES_CLIENT_CONFIG_QPS"),
    ("runtime.kubernetes.clientConfig.burstQps", "RUNTIME_KUBERNETES_CLIENT_CONFIG_BURST_QPS"),
    ("runtime.kubernetes.leaderElection.leaseDuration", "RUNTIME_KUBERNETES_LEADER_ELECTION_LEASE_DURATION"),
    ("runtime.kubernetes.leaderElection.renewDeadline", "RUNTIME_KUBERNETES_LEADER_ELECTION_RENEW_DEADLINE"),
    ("runtime.kubernetes.skipMeshOwnerReference", "RUNTIME_KUBERNETES_SKIP_MESH_OWNER_REFERENCE"),
    ("runtime.kubernetes.workloadLabels", "RUNTIME_KUBERNETES_WORKLOAD_LABELS"),
    (
        "runtime.kubernetes.disallowMultipleMeshesPerNamespace",
        "RUNTIME_KUBERNETES_DISALLOW_MULTIPLE_MESHES_PER_NAMESPACE",
    ),
    ("runtime.universal.dataplaneCleanupAge", "RUNTIME_UNIVERSAL_DATAPLANE_CLEANUP_AGE"),
    ("runtime.universal.spire.socketPath", "RUNTIME_UNIVERSAL_SPIRE_SOCKET_PATH"),
    ("runtime.universal.workload.generationInterval", "RUNTIME_UNIVERSAL_WORKLOAD_GENERATION_INTERVAL"),
    ("defaults.skipMeshCreation", "DEFAULTS_SKIP_MESH_CREATION"),
    ("defaults.skipTenantResources", "DEFAULTS_SKIP_TENANT_RESOURCES"),
    ("defaults.SkipHostnameGenerators", "DEFAULTS_SKIP_HOSTNAME_GENERATORS"),
    ("metrics.dataplane.subscriptionLimit", "METRICS_DATAPLANE_SUBSCRIPTION_LIMIT"),
    ("metrics.dataplane.idleTimeout", "METRICS_DATAPLANE_IDLE_TIMEOUT"),
    ("metrics.zone.subscriptionLimit", "METRICS_ZONE_SUBSCRIPTION_LIMIT"),
    ("metrics.zone.idleTimeout", "METRICS_ZONE_IDLE_TIMEOUT"),
    ("metrics.zone.compactFinishedSubscriptions", "METRICS_ZONE_COMPACT_FINISHED_SUBSCRIPTIONS"),
    ("metrics.mesh.bufferSize", "METRICS_MESH_BUFFER_SIZE"),
    ("metrics.mesh.minResyncInterval", "METRICS_MESH_MIN_RESYNC_INTERVAL"),
    ("metrics.mesh.fullResyncInterval", "METRICS_MESH_FULL_RESYNC_INTERVAL"),
    ("metrics.mesh.eventProcessors", "METRICS_MESH_EVENT_PROCESSORS"),
    ("metrics.controlPlane.reportResourcesCount", "METRICS_CONTROL_PLANE_REPORT_RESOURCES_COUNT"),
    ("metrics.openTelemetry.enabled", "METRICS_OPENTELEMETRY_ENABLED"),
    ("reports.enabled", "REPORTS_ENABLED"),
    ("multizone.global.kds.grpcPort", "MULTIZONE_GLOBAL_KDS_GRPC_PORT"),
    ("multizone.global.kds.zoneInsightFlushInterval", "MULTIZONE_GLOBAL_KDS_ZONE_INSIGHT_FLUSH_INTERVAL"),
    ("multizone.global.kds.tlsEnabled", "MULTIZONE_GLOBAL_KDS_TLS_ENABLED"),
    ("multizone.global.kds.tlsCertFile", "MULTIZONE_GLOBAL_KDS_TLS_CERT_FILE"),
    ("multizone.global.kds.tlsKeyFile", "MULTIZONE_GLOBAL_KDS_TLS_KEY_FILE"),
    ("multizone.global.kds.tlsMinVersion", "MULTIZONE_GLOBAL_KDS_TLS_MIN_VERSION"),
    ("multizone.global.kds.tlsMaxVersion", "MULTIZONE_GLOBAL_KDS_TLS_MAX_VERSION"),
    ("multizone.global.kds.tlsCipherSuites", "MULTIZONE_GLOBAL_KDS_TLS_CIPHER_SUITES"),
    ("multizone.global.kds.maxMsgSize", "MULTIZONE_GLOBAL_KDS_MAX_MSG_SIZE"),
    ("multizone.global.kds.msgSendTimeout", "MULTIZONE_GLOBAL_KDS_MSG_SEND_TIMEOUT"),
    ("multizone.global.kds.nackBackoff", "MULTIZONE_GLOBAL_KDS_NACK_BACKOFF"),
    ("multizone.global.kds.responseBackoff", "MULTIZONE_GLOBAL_KDS_RESPONSE_BACKOFF"),
    ("multizone.global.kds.logPayloads", "MULTIZONE_GLOBAL_KDS_LOG_PAYLOADS"),
    (
        "multizone.global.kds.eventBasedWatchdog.flushInterval",
        "MULTIZONE_GLOBAL_KDS_EVENT_BASED_WATCHDOG_FLUSH_INTERVAL",
    ),
    (
        "multizone.global.kds.eventBasedWatchdog.fullResyncInterval",
        "MULTIZONE_GLOBAL_KDS_EVENT_BASED_WATCHDOG_FULL_RESYNC_INTERVAL",
    ),
    (
        "multizone.global.kds.eventBasedWatchdog.delayFullResync",
        "MULTIZONE_GLOBAL_KDS_EVENT_BASED_WATCHDOG_DELAY_FULL_RESYNC",
    ),
    (
        "multizone.global.kds.zoneHealthCheck.pollInterval",
        "MULTIZONE_GLOBAL_KDS_ZONE_HEALTH_CHECK_POLL_INTERVAL",
    ),
    ("multizone.global.kds.zoneHealthCheck.timeout", "MULTIZONE_GLOBAL_KDS_ZONE_HEALTH_CHECK_TIMEOUT"),
    (
        "multizone.global.kds.zoneHealthCheck.closeStaleConn",
        "MULTIZONE_GLOBAL_KDS_ZONE_HEALTH_CHECK_CLOSE_STALE_CONN",
    ),
    ("multizone.global.kds.tracing.enabled", "MULTIZONE_GLOBAL_KDS_TRACING_ENABLED"),
    ("multizone.global.kds.labels.skipPrefixes", "MULTIZONE_GLOBAL_KDS_LABELS_SKIP_PREFIXES"),
    ("multizone.zone.name", "MULTIZONE_ZONE_NAME"),
    ("multizone.zone.globalAddress", "MULTIZONE_ZONE_GLOBAL_ADDRESS"),
    ("multizone.zone.kds.tlsSkipVerify", "MULTIZONE_ZONE_KDS_TLS_SKIP_VERIFY"),
    ("multizone.zone.kds.rootCaFile", "MULTIZONE_ZONE_KDS_ROOT_CA_FILE"),
    ("multizone.zone.kds.maxMsgSize", "MULTIZONE_ZONE_KDS_MAX_MSG_SIZE"),
    ("multizone.zone.kds.msgSendTimeout", "MULTIZONE_ZONE_KDS_MSG_SEND_TIMEOUT"),
    ("multizone.zone.kds.nackBackoff", "MULTIZONE_ZONE_KDS_NACK_BACKOFF"),
    ("multizone.zone.kds.responseBackoff", "MULTIZONE_ZONE_KDS_RESPONSE_BACKOFF"),
    ("multizone.zone.kds.logPayloads", "MULTIZONE_ZONE_KDS_LOG_PAYLOADS"),
    (
        "multizone.zone.kds.eventBasedWatchdog.flushInterval",
        "MULTIZONE_ZONE_KDS_EVENT_BASED_WATCHDOG_FLUSH_INTERVAL",
    ),
    (
        "multizone.zone.kds.eventBasedWatchdog.fullResyncInterval",
        "MULTIZONE_ZONE_KDS_EVENT_BASED_WATCHDOG_FULL_RESYNC_INTERVAL",
    ),
    (
        "multizone.zone.kds.eventBasedWatchdog.delayFullResync",
        "MULTIZONE_ZONE_KDS_EVENT_BASED_WATCHDOG_DELAY_FULL_RESYNC",
    ),
    ("multizone.zone.kds.labels.skipPrefixes", "MULTIZONE_ZONE_KDS_LABELS_SKIP_PREFIXES"),
    ("multizone.zone.disableOriginLabelValidation", "MULTIZONE_ZONE_DISABLE_ORIGIN_LABEL_VALIDATION"),
    ("dnsServer.domain", "DNS_SERVER_DOMAIN"),
    ("dnsServer.serviceVipPort", "DNS_SERVER_SERVICE_VIP_PORT"),
    ("diagnostics.serverPort", "DIAGNOSTICS_SERVER_PORT"),
    ("diagnostics.debugEndpoints", "DIAGNOSTICS_DEBUG_ENDPOINTS"),
    ("diagnostics.tlsEnabled", "DIAGNOSTICS_TLS_ENABLED"),
    ("diagnostics.tlsCertFile", "DIAGNOSTICS_TLS_CERT_FILE"),
    ("diagnostics.tlsKeyFile", "DIAGNOSTICS_TLS_KEY_FILE"),
    ("diagnostics.tlsMinVersion", "DIAGNOSTICS_TLS_MIN_VERSION"),
    ("diagnostics.tlsMaxVersion", "DIAGNOSTICS_TLS_MAX_VERSION"),
    ("diagnostics.tlsCipherSuites", "DIAGNOSTICS_TLS_CIPHER_SUITES"),
    ("dpServer.port", "DP_SERVER_PORT"),
    ("dpServer.tlsCertFile", "DP_SERVER_TLS_CERT_FILE"),
    ("dpServer.tlsKeyFile", "DP_SERVER_TLS_KEY_FILE"),
    ("dpServer.tlsMinVersion", "DP_SERVER_TLS_MIN_VERSION"),
    ("dpServer.tlsMaxVersion", "DP_SERVER_TLS_MAX_VERSION"),
    ("dpServer.tlsCipherSuites", "DP_SERVER_TLS_CIPHER_SUITES"),
    ("dpServer.readHeaderTimeout", "DP_SERVER_READ_HEADER_TIMEOUT"),
    ("dpServer.gracefulShutdownTimeout", "DP_SERVER_GRACEFUL_SHUTDOWN_TIMEOUT"),
    ("dpServer.authn.dpProxy.type", "DP_SERVER_AUTHN_DP_PROXY_TYPE"),
    ("dpServer.authn.dpProxy.dpToken.enableIssuer", "DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER"),
    (
        "dpServer.authn.dpProxy.dpToken.validator.useSecrets",
        "DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_VALIDATOR_USE_SECRETS",
    ),
    ("dpServer.authn.zoneProxy.type", "DP_SERVER_AUTHN_ZONE_PROXY_TYPE"),
    (
        "dpServer.authn.zoneProxy.zoneToken.enableIssuer",
        "DP_SERVER_AUTHN_ZONE_PROXY_ZONE_TOKEN_ENABLE_ISSUER",
    ),
    (
        "dpServer.authn.zoneProxy.zoneToken.validator.useSecrets",
        "DP_SERVER_AUTHN_ZONE_PROXY_ZONE_TOKEN_VALIDATOR_USE_SECRETS",
    ),
    ("dpServer.authn.enableReloadableTokens", "DP_SERVER_AUTHN_ENABLE_RELOADABLE_TOKENS"),
    ("dpServer.hds.enabled", "DP_SERVER_HDS_ENABLED"),
    ("dpServer.hds.interval", "DP_SERVER_HDS_INTERVAL"),
    ("dpServer.hds.refreshInterval", "DP_SERVER_HDS_REFRESH_INTERVAL"),
    ("dpServer.hds.checkDefaults.timeout", "DP_SERVER_HDS_CHECK_TIMEOUT"),
    ("dpServer.hds.checkDefaults.interval", "DP_SERVER_HDS_CHECK_INTERVAL"),
    ("dpServer.hds.checkDefaults.noTrafficInterval", "DP_SERVER_HDS_CHECK_NO_TRAFFIC_INTERVAL"),
    ("dpServer.hds.checkDefaults.healthyThreshold", "DP_SERVER_HDS_CHECK_HEALTHY_THRESHOLD"),
    ("dpServer.hds.checkDefaults.unhealthyThreshold", "DP_SERVER_HDS_CHECK_UNHEALTHY_THRESHOLD"),
    ("access.type", "ACCESS_TYPE"),
    ("access.static.adminResources.users", "ACCESS_STATIC_ADMIN_RESOURCES_USERS"),
    ("access.static.adminResources.groups", "ACCESS_STATIC_ADMIN_RESOURCES_GROUPS"),
    ("access.static.generateDpToken.users", "ACCESS_STATIC_GENERATE_DP_TOKEN_USERS"),
    ("access.static.generateDpToken.groups", "ACCESS_STATIC_GENERATE_DP_TOKEN_GROUPS"),
    ("access.static.generateUserToken.users", "ACCESS_STATIC_GENERATE_USER_TOKEN_USERS"),
    ("access.static.generateUserToken.groups", "ACCESS_STATIC_GENERATE_USER_TOKEN_GROUPS"),
    ("access.static.generateZoneToken.users", "ACCESS_STATIC_GENERATE_ZONE_TOKEN_USERS"),
    ("access.static.generateZoneToken.groups", "ACCESS_STATIC_GENERATE_ZONE_TOKEN_GROUPS"),
    ("access.static.viewConfigDump.users", "ACCESS_STATIC_GET_CONFIG_DUMP_USERS"),
    ("access.static.viewConfigDump.groups", "ACCESS_STATIC_GET_CONFIG_DUMP_GROUPS"),
    ("access.static.viewStats.users", "ACCESS_STATIC_VIEW_STATS_USERS"),
    ("access.static.viewStats.groups", "ACCESS_STATIC_VIEW_STATS_GROUPS"),
    ("access.static.viewClusters.users", "ACCESS_STATIC_VIEW_CLUSTERS_USERS"),
    ("access.static.viewClusters.groups", "ACCESS_STATIC_VIEW_CLUSTERS_GROUPS"),
    ("access.static.controlPlaneMetadata.users", "ACCESS_STATIC_CONTROL_PLANE_METADATA_USERS"),
    ("access.static.controlPlaneMetadata.groups", "ACCESS_STATIC_CONTROL_PLANE_METADATA_GROUPS"),
    ("interCp.catalog.instanceAddress", "INTER_CP_CATALOG_INSTANCE_ADDRESS"),
    ("interCp.catalog.instanceVersion", "INTER_CP_CATALOG_INSTANCE_VERSION"),
    ("interCp.catalog.heartbeatInterval", "INTER_CP_CATALOG_HEARTBEAT_INTERVAL"),
    ("interCp.catalog.writerInterval", "INTER_CP_CATALOG_WRITER_INTERVAL"),
    ("interCp.server.port", "INTER_CP_SERVER_PORT"),
    ("interCp.server.tlsMinVersion", "INTER_CP_SERVER_TLS_MIN_VERSION"),
    ("interCp.server.tlsMaxVersion", "INTER_CP_SERVER_TLS_MAX_VERSION"),
    ("interCp.server.tlsCipherSuites", "INTER_CP_SERVER_TLS_CIPHER_SUITES"),
    ("tracing.openTelemetry.enabled", "TRACING_OPENTELEMETRY_ENABLED"),
    ("tracing.openTelemetry.endpoint", "TRACING_OPENTELEMETRY_ENDPOINT"),
    ("eventBus.bufferSize", "EVENT_BUS_BUFFER_SIZE"),
    ("policies.pluginPoliciesEnabled", "PLUGIN_POLICIES_ENABLED"),
    ("coreResources.enabled", "CORE_RESOURCES_ENABLED"),
    (
        "coreResources.status.meshMultiZoneServiceInterval",
        "CORE_RESOURCES_STATUS_MESH_MULTI_ZONE_SERVICE_INTERVAL",
    ),
    ("coreResources.status.meshServiceInterval", "CORE_RESOURCES_STATUS_MESH_SERVICE_INTERVAL"),
    ("coreResources.status.meshIdentityInterval", "CORE_RESOURCES_STATUS_MESH_IDENTITY_INTERVAL"),
    ("coreResources.status.workloadInterval", "CORE_RESOURCES_STATUS_WORKLOAD_INTERVAL"),
    (
        "coreResources.status.meshOpenTelemetryBackendInterval",
        "CORE_RESOURCES_STATUS_MESH_OPEN_TELEMETRY_BACKEND_INTERVAL",
    ),
    ("ipam.meshService.cidr", "IPAM_MESH_SERVICE_CIDR"),
    ("ipam.meshExternalService.cidr", "IPAM_MESH_EXTERNAL_SERVICE_CIDR"),
    ("ipam.meshMultiZoneService.cidr", "IPAM_MESH_MULTI_ZONE_SERVICE_CIDR"),
    ("ipam.allocationInterval", "IPAM_ALLOCATION_INTERVAL"),
    ("ipam.knownInternalCIDRs", "IPAM_KNOWN_INTERNAL_CIDRS"),
    ("meshService.generationInterval", "MESH_SERVICE_GENERATION_INTERVAL"),
    ("meshService.deletionGracePeriod", "MESH_SERVICE_DELETION_GRACE_PERIOD"),
    ("meshService.labelPropagation.enabled", "MESH_SERVICE_LABEL_PROPAGATION_ENABLED"),
    ("meshService.labelPropagation.allowedLabelKeys", "MESH_SERVICE_LABEL_PROPAGATION_ALLOWED_LABEL_KEYS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_about_settings_of_kuma() {
        for (start, ..) in RULES {
            let is_below = |path: &str| path == *start || path.starts_with(&format!("{start}."));
            assert!(KUMA.iter().any(|(path, _)| is_below(path)), "{start} is no setting of Kuma");
        }
    }

    #[test]
    fn own_settings_are_not_foreign() {
        let own = [graticule_settings::setting("ipam.meshService.cidr", "IPAM_MESH_SERVICE_CIDR", "")];
        let others = foreign(&own, Role::Zone);
        assert!(!others.iter().any(|known| known.path == own[0].path));
        let fate_of = |path: &str, role| {
            foreign(&own, role).iter().find(|known| known.path == path).map(|known| known.fate)
        };
        let allocated = Replaced("addresses are allocated when a service is created");
        assert_eq!(fate_of("ipam.allocationInterval", Role::Zone), Some(allocated));
        assert_eq!(fate_of("ipam.allocationInterval", Role::Global), Some(ZONES_ONLY));
    }
}
