//! The accepted differences of the suite.

use crate::accepted::{Accepted, Ours, differs};

const NO_INBOUND: &str = "15-dataplanes-zone*/_inbounds/kri_dp_default_zone-1__web-1_nope/_policies";
const NOT_THERE: &str = "what is not there is no fault of the control plane (deviations: REST)";
const YAML: &str = "YAML is taken and given (deviations: REST)";
const NAMES: &str = "what this product and its builds are called (deviations: REST)";
const NO_INTER_CP: &str = "replicas need no authority of their own, so none is made (deviations: REST)";
const ZONELESS_TOKEN: &str = "a zone token for no zone is refused (deviations: REST)";
const REVOKED: &str = "white space in a list of revoked tokens means nothing (deviations: REST)";
const COPIES: &str = "copies are read-only by what is stored, so they stay as they are (deviations: REST)";
const MESH_SECRETS: &str = "Secrets of a deleted mesh are deleted with it (deviations: REST)";
const OWN_ZONE: &str = "a zone keeps its own Zone and has no other (deviations: REST)";
const PATHS: &str = "the field as it is written in the resource (deviations: REST)";
const AT_ONCE: &str =
    "what is derived is there at once; the recorded answer came before it (deviations: REST)";
const ZONE_LABELS: &str =
    "the Zone that global makes is labelled like one that a person makes (deviations: Federation)";
const ZONE_TOKEN: &str = "zones show a token (deviations: Federation)";
const OWN_SETTINGS: &str = "own settings are shown with the others (deviations: REST)";
const AS_SET: &str = "settings are shown as they were set; empty: the general ones (deviations: REST)";
const HARNESS: &str = "the suite listens on this address only";
const OWN_KRI: &str = "a resource is found by the KRI that it shows (deviations: REST)";
const K8S_LABELS: &str = "format=k8s keeps labels (deviations: REST)";
const DASH: &str = "kumactl asks with a dash; both spellings are answered (deviations: REST)";
const CORS: &str = "a page of an allowed origin may send JSON and a token (deviations: REST)";
const CLEAN: &str = "paths are not rewritten (deviations: REST)";
const SPIRE: &str = "SPIRE is not there yet (deviations: Not there yet)";
const NO_CA: &str =
    "no authority is made for an identity that may not use it (deviations: Generated resources)";
const SERVICES: &str =
    "status of external and multi-zone services is not there yet (deviations: Not there yet)";
const NO_GUI: &str = "there is no GUI yet, and the page says so (deviations: Not there yet)";
const AGENT: &str =
    "what dp-agent says of itself: its own version, and no OpenTelemetry pipe (deviations: Proxies)";
const OWN_WORDS: &str = "why a connection failed is said in other words (deviations: REST)";
const ASKED: &str = "zones are asked as soon as their streams are open (deviations: REST)";
const HEALED: &str = "the zone's stream never broke, so it has one subscription (deviations: REST)";

/// Every one is in `docs/deviations.md`.
pub(super) static ACCEPTED: &[Accepted] = &[
    differs("04-mesh-global#3* PUT /meshes/m4", "/status", Ours::Is("201"), YAML),
    differs("01-index-*#51 GET /meshes", "/status", Ours::Is("200"), YAML),
    // Names.
    differs("*", "/body/product", Ours::Is(r#""Graticule""#), NAMES),
    differs("*", "/body/basedOnKuma", Ours::Additional, NAMES),
    differs("*", "*/version/kumaCp/gitTag", Ours::Like("v*"), NAMES),
    // Secrets that control planes make.
    differs("*", "/body/items/inter-cp-ca", Ours::Absent, NO_INTER_CP),
    differs("*secrets*", "/body/total", Ours::OneLess, NO_INTER_CP),
    differs("*", "/body/resources/GlobalSecret/total", Ours::OneLess, NO_INTER_CP),
    // Access.
    differs("16-tokens-*#* POST /tokens/zone", "/status", Ours::Is("400"), ZONELESS_TOKEN),
    differs("17-authn-global#113 POST /tokens/zone", "/body/causes/*", Ours::Additional, ZONELESS_TOKEN),
    differs(
        "17-authn-global#113 POST /tokens/zone",
        "/body/invalid_parameters/*",
        Ours::Additional,
        ZONELESS_TOKEN,
    ),
    differs("17-authn-global#113 POST /tokens/zone", "*/0/field", Ours::Is(r#""zone""#), ZONELESS_TOKEN),
    differs(
        "17-authn-global#113 POST /tokens/zone",
        "*/0/message",
        Ours::Is(r#""cannot be empty""#),
        ZONELESS_TOKEN,
    ),
    differs(
        "17-authn-global#113 POST /tokens/zone",
        "*/0/reason",
        Ours::Is(r#""cannot be empty""#),
        ZONELESS_TOKEN,
    ),
    differs("17-authn-global#159 GET /who-am-i", "/status", Ours::Is("401"), REVOKED),
    differs("17-authn-global#161 GET /who-am-i", "/status", Ours::Is("401"), REVOKED),
    // Copies of global's resources in a zone.
    differs("21-federation#32 *", "/status", Ours::Is("400"), COPIES),
    differs("21-federation#34 *", "/status", Ours::Is("400"), COPIES),
    differs("21-federation#35 *", "/status", Ours::Is("200"), COPIES),
    differs("21-federation#41 *", "/status", Ours::Is("400"), COPIES),
    differs("21-federation#59 *secrets/sec", "/body/data", Ours::Is(r#""dGVzdA==""#), COPIES),
    differs("21-federation#109 *secrets/sec", "/body/data", Ours::Is(r#""dGVzdDM=""#), COPIES),
    differs("21-federation#109 *secrets/sec", "/body/modificationTime", Ours::Another, COPIES),
    differs("21-federation#*9 *secrets/sec", "/body/labels/kuma.io/env", Ours::Absent, COPIES),
    differs("21-federation#*9 *secrets/sec", "/body/labels/kuma.io/origin", Ours::Is(r#""global""#), COPIES),
    differs("21-federation#*9 *secrets/sec", "/body/labels/kuma.io/zone", Ours::Absent, COPIES),
    differs("21-federation#60 *", "/body/items/from-global-5v2w92dw68c84zz2", Ours::Additional, COPIES),
    differs("21-federation#60 *", "/body/total", Ours::Is("4"), COPIES),
    differs("21-federation#110 *", "/body/items/*/modificationTime", Ours::Another, COPIES),
    differs("28-origin-validation-off#7 *", "/status", Ours::Is("400"), COPIES),
    differs("28-origin-validation-off#8 *", "/status", Ours::Is("400"), COPIES),
    differs("28-origin-validation-off#9 *", "/status", Ours::Is("400"), COPIES),
    differs("30-*#2 *", "/status", Ours::Is("400"), COPIES),
    differs("30-*p-fdz957892fv4w48v", "/body/kri", Ours::Is(r#""kri_mt_default___p_""#), COPIES),
    differs("30-*p-fdz957892fv4w48v", "/body/labels/kuma.io/display-name", Ours::Is(r#""p""#), COPIES),
    differs("30-*p-fdz957892fv4w48v", "/body/labels/kuma.io/env", Ours::Absent, COPIES),
    differs("30-*p-fdz957892fv4w48v", "/body/labels/kuma.io/origin", Ours::Is(r#""global""#), COPIES),
    differs("30-*p-fdz957892fv4w48v", "/body/labels/kuma.io/zone", Ours::Absent, COPIES),
    differs("30-*#3 *", "/body/spec/to/0/default/idleTimeout", Ours::Is(r#""5s""#), COPIES),
    differs("30-*#8 *", "/body/spec/to/0/default/idleTimeout", Ours::Is(r#""11s""#), COPIES),
    differs("30-*#8 *", "/body/modificationTime", Ours::Another, COPIES),
    differs("30-*#4 *", "/body/items/p-fdz957892fv4w48v-74d6b8z66x8b8f9v", Ours::Absent, COPIES),
    differs("30-*#4 *", "/body/total", Ours::Is("0"), COPIES),
    differs("30-*#11 *", "/body/zoneInsight/subscriptions/0/disconnectTime", Ours::Absent, HEALED),
    differs("30-*#11 *", "/body/zoneInsight/subscriptions/1", Ours::Absent, HEALED),
    // Meshes and zones.
    differs("29-*#9 *", "/body/items/mine", Ours::Absent, MESH_SECRETS),
    differs("29-*#18 *", "/body/items/mine", Ours::Absent, MESH_SECRETS),
    differs("15-dataplanes-zone#117 DELETE /zones/zone-1", "/status", Ours::Is("400"), OWN_ZONE),
    differs("15-dataplanes-zone#118 GET /zones", "/body/items/zone-1", Ours::Additional, OWN_ZONE),
    differs("15-dataplanes-zone#118 GET /zones", "/body/total", Ours::Is("1"), OWN_ZONE),
    differs("15-dataplanes-zone#119 PUT /zones/other", "/status", Ours::Is("400"), OWN_ZONE),
    differs("15-dataplanes-zone#120 GET /zones", "/body/items/zone-1", Ours::Additional, OWN_ZONE),
    differs("15-dataplanes-zone#120 GET /zones", "/body/items/other", Ours::Absent, OWN_ZONE),
    differs("21-federation#61 GET /zones", "/body/items/zone-1/labels", Ours::Additional, ZONE_LABELS),
    differs("21-federation#86 *", "/body/labels", Ours::Additional, ZONE_LABELS),
    differs("30-*#11 *", "/body/labels", Ours::Additional, ZONE_LABELS),
    differs("*", "*/subscriptions/*/authTokenProvided", Ours::Additional, ZONE_TOKEN),
    differs("06-kind-meshmultizoneservice-zone#11 *", "/status", Ours::Is("200"), OWN_KRI),
    differs("*format=k*", "/body/metadata/labels*", Ours::Additional, K8S_LABELS),
    differs("14-*/-resources/dataplanes", "/content_type", Ours::Is(r#""application/json""#), DASH),
    differs("14-*/-resources/dataplanes", "/text", Ours::Like("*Could not retrieve policy*"), DASH),
    differs(
        "25-*#28 *",
        "/headers/Access-Control-Allow-Headers",
        Ours::Is(r#""Authorization, Content-Type""#),
        CORS,
    ),
    differs("23-*#44 *", "/body/dpVersions/kumaDp/unknown", Ours::Absent, AGENT),
    differs("23-*#44 *", "/body/dpVersions/kumaDp/*", Ours::Additional, AGENT),
    // Pages.
    differs("19-gui-*#5 GET /gui/../config", "/status", Ours::Is("200"), CLEAN),
    differs("*", "/body/gui", Ours::Is(r#""""#), NO_GUI),
    differs("*", "/kuma_config", Ours::Is("null"), NO_GUI),
    differs("19-gui-*#2 GET /gui/index.html", "/status", Ours::Is("200"), NO_GUI),
    // Fields of violations.
    differs("05-policy-meshcircuitbreaker#14 *", "*/0/field", Ours::Is(r#""spec.rules[0].default""#), PATHS),
    differs(
        "05-policy-meshfaultinjection#12 *",
        "*/field",
        Ours::Like("spec.rules[0].default.http[*"),
        PATHS,
    ),
    differs(
        "05-policy-meshmetric#12 *",
        "*/0/field",
        Ours::Is(r#""spec.default.backends[0].prometheus""#),
        PATHS,
    ),
    differs("05-policy-meshretry#12 *", "*/0/field", Ours::Is(r#""spec.to[0].default""#), PATHS),
    differs(
        "05-policy-meshretry#13 *",
        "*/0/field",
        Ours::Is(r#""spec.to[0].default.tcp.maxConnectAttempt""#),
        PATHS,
    ),
    differs(
        "05-policy-meshretry#13 *",
        "*/1/field",
        Ours::Is(r#""spec.to[0].default.http.retryOn[0]""#),
        PATHS,
    ),
    differs("05-policy-meshretry#14 *", "*/0/field", Ours::Is(r#""spec.to[0].default.http""#), PATHS),
    differs("05-policy-meshretry#14 *", "*/1/field", Ours::Is(r#""spec.to[0].default.grpc""#), PATHS),
    differs(
        "05-policy-meshtrafficpermission#14 *",
        "*/field",
        Ours::Like("spec.rules[0].default.allow[*].spiffeID*"),
        PATHS,
    ),
    differs(
        "15-dataplanes-zone#24 *",
        "*/field",
        Ours::Like("networking.transparentProxying.reachableBackends.refs[0].*"),
        PATHS,
    ),
    // Derived state.
    differs("15-dataplanes-zone#* GET *meshservices*", "*/spec/state", Ours::Additional, AT_ONCE),
    differs("15-dataplanes-zone#* GET *meshservices*", "*/status/*", Ours::Additional, AT_ONCE),
    differs("27-*#15 *", "/body/items/no-self-signed-*", Ours::Absent, NO_CA),
    differs("27-*#18 *", "/body/items/no-self-signed-*", Ours::Absent, NO_CA),
    differs("27-*#15 *", "/body/total", Ours::Is("3"), NO_CA),
    differs("27-*#18 *", "/body/total", Ours::Is("1"), NO_CA),
    differs("27-*#13 *", "/body/status/conditions/*/status", Ours::Is(r#""False""#), SPIRE),
    differs("27-*#13 *", "/body/status/conditions/0/reason", Ours::Is(r#""ProviderNotFoundError""#), SPIRE),
    differs("27-*#13 *", "/body/status/conditions/1/reason", Ours::Is(r#""Failure""#), SPIRE),
    differs("27-*#13 *", "/body/status/conditions/*/message", Ours::Like("*"), SPIRE),
    differs("*mesh*services*", "*/status/addresses", Ours::Absent, SERVICES),
    differs("*mesh*services*", "*/status/hostnameGenerators", Ours::Absent, SERVICES),
    differs("*meshexternalservices*", "*/status/vip/ip", Ours::Absent, SERVICES),
    differs("*meshmultizoneservices*", "*/status/vips", Ours::Absent, SERVICES),
    differs("*meshmultizoneservices*", "*/status/conditions", Ours::Absent, SERVICES),
    differs("*meshmultizoneservices*", "*/status/meshServices", Ours::Absent, SERVICES),
    // The configuration.
    differs("*GET */config", "/body/apiServer/http*/interface", Ours::Is(r#""127.0.0.1""#), HARNESS),
    differs("*GET */config", "*/tlsCertFile", Ours::Is(r#""""#), AS_SET),
    differs("*GET */config", "*/tlsKeyFile", Ours::Is(r#""""#), AS_SET),
    differs("*GET */config", "/body/dpServer/authn/dpProxy/type", Ours::Is(r#""""#), AS_SET),
    differs("*GET */config", "/body/*", Ours::Additional, OWN_SETTINGS),
    // The connected proxy.
    differs(
        "21-federation#* GET */dataplanes/web-1-v7wd4bdwc9994762/*",
        "/body/detail*",
        Ours::Like(
            "could not send *Request: unable to send GET to config_dump: Get \"https://127.0.0.77:1/*\": cannot connect: *",
        ),
        OWN_WORDS,
    ),
    differs("23-*/xds*", "/status", Ours::Is("200"), ASKED),
    differs("23-*/stats*", "/status", Ours::Is("200"), ASKED),
    differs("23-*/clusters*", "/status", Ours::Is("200"), ASKED),
    differs("23-*", "*/metadata/features/feature-otel-via-kuma-dp", Ours::Absent, AGENT),
    differs("23-*", "*/metadata/otelEnvInventory", Ours::Absent, AGENT),
    differs("23-*", "*/version/kumaDp/gitTag", Ours::Like("v*"), AGENT),
    differs("23-*", "*/version/envoy/kumaDpCompatible", Ours::Additional, AGENT),
];

/// Accepted too, but not in every run: how far background work is by then is a matter of speed.
pub(super) static RACES: &[Accepted] = &[
    differs("06-kind-meshidentity-zone#*", "*/status/conditions", Ours::Additional, AT_ONCE),
    differs("06-kind-meshservice-zone#*", "*/spec/state", Ours::Is(r#""Unavailable""#), AT_ONCE),
    differs("06-kind-meshservice-zone#*", "*/status/*", Ours::Additional, AT_ONCE),
    differs("23-*#44 *", "/body/resources/MeshTimeout/total", Ours::OneLess, AT_ONCE),
    differs("23-*#45 *", "/body/resources/MeshTimeout/total", Ours::OneLess, AT_ONCE),
    differs("23-*#45 *", "/body/policies/total", Ours::OneLess, AT_ONCE),
    differs(NO_INBOUND, "/status", Ours::Is("404"), NOT_THERE),
    differs(NO_INBOUND, "/body/status", Ours::Is("404"), NOT_THERE),
    differs(NO_INBOUND, "/body/detail*", Ours::Is("\"Not found\""), NOT_THERE),
];
