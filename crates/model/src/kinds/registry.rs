//! The registry: one entry per kind. REST routes, federation, documentation and the CLI derive from it.

use serde_json::Value;

use super::{Described, Validate};
use crate::kind::{Capabilities, Descriptor, Family, KdsFlags, PolicyCapabilities, Scope};
use crate::resource::{NoStatus, TypedSpec};
use crate::{DecodeError, Meta, Violations};

const NONE: Capabilities = Capabilities {
    admin_only: false,
    read_only: false,
    has_status: false,
    destination: false,
    keeps_name: false,
    has_insight: false,
    soft: false,
    policy: None,
};
const POLICY_FLAGS: KdsFlags =
    KdsFlags::GLOBAL_TO_ZONES.and(KdsFlags::ZONE_TO_GLOBAL).and(KdsFlags::ACROSS_ZONES);
const BOTH_WAYS: KdsFlags = KdsFlags::GLOBAL_TO_ZONES.and(KdsFlags::ZONE_TO_GLOBAL);

const fn proto(
    name: &'static str,
    path: &'static str,
    short_name: &'static str,
    display_names: (&'static str, &'static str),
    scope: Scope,
    kds: KdsFlags,
    capabilities: Capabilities,
) -> Descriptor {
    Descriptor {
        name,
        path,
        alt_path: "",
        short_name,
        display_names,
        scope,
        family: Family::Proto,
        kds,
        capabilities,
    }
}

const fn plugin(
    name: &'static str,
    path: &'static str,
    short_name: &'static str,
    display_names: (&'static str, &'static str),
    kds: KdsFlags,
    capabilities: Capabilities,
) -> Descriptor {
    Descriptor {
        name,
        path,
        alt_path: "",
        short_name,
        display_names,
        scope: Scope::Mesh,
        family: Family::Plugin,
        kds,
        capabilities,
    }
}

const fn policy(
    name: &'static str,
    path: &'static str,
    short_name: &'static str,
    display_names: (&'static str, &'static str),
    order: u16,
    (has_to, has_rules): (bool, bool),
) -> Descriptor {
    let capabilities = Capabilities { policy: Some(PolicyCapabilities { order, has_to, has_rules }), ..NONE };
    plugin(name, path, short_name, display_names, POLICY_FLAGS, capabilities)
}

const fn with_status(descriptor: Descriptor) -> Descriptor {
    Descriptor { capabilities: Capabilities { has_status: true, ..descriptor.capabilities }, ..descriptor }
}

/// Configures the whole proxy: neither `to` nor `rules`.
const WHOLE: (bool, bool) = (false, false);
const TO: (bool, bool) = (true, false);
const RULES: (bool, bool) = (false, true);
const TO_AND_RULES: (bool, bool) = (true, true);

macro_rules! registry {
    ($($kind:ident: $spec:path, $status:path, $descriptor:expr;)*) => {
        /// A registered kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $(#[doc = concat!("`", stringify!($kind), "`")] $kind,)* }

        impl Kind {
            pub(crate) const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// What its spec looks like in a document. Documents of proto kinds are not checked against it:
            /// their readers take more than they write.
            pub fn schema(self) -> &'static crate::schema::Schema {
                match self { $(Kind::$kind => <$spec as Validate>::SCHEMA,)* }
            }

            /// What its status looks like; an empty object for kinds without one.
            pub fn status_schema(self) -> &'static crate::schema::Schema {
                match self { $(Kind::$kind => <$status as Described>::SCHEMA,)* }
            }

            /// What it is, in a sentence or two.
            pub fn description(self) -> &'static str {
                match self { $(Kind::$kind => <$spec as Validate>::DESCRIPTION,)* }
            }

            /// What is known about the kind.
            pub fn descriptor(self) -> &'static Descriptor {
                match self { $(Kind::$kind => { const D: &Descriptor = &$descriptor; D })* }
            }
        }

        /// The spec of a resource of any kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Spec { $(#[doc = concat!("Spec of a `", stringify!($kind), "`")] $kind(Box<$spec>),)* }

        /// The status of a resource of any kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Status { $(#[doc = concat!("Status of a `", stringify!($kind), "`")] $kind(Box<$status>),)* }

        impl Spec {
            /// Reads the JSON form of a spec and fills schema defaults in.
            pub fn from_json(kind: Kind, value: &Value) -> Result<Spec, DecodeError> {
                Ok(match kind { $(Kind::$kind => Spec::$kind(Box::new(crate::resource::read_spec(value)?)),)* })
            }

            /// The JSON form.
            pub fn to_json(&self) -> Value {
                match self { $(Spec::$kind(spec) => crate::resource::to_value(spec),)* }
            }

            /// As [`from_json`](Self::from_json), of a text: quicker, for what was written by [`to_text`](Self::to_text).
            pub fn from_text(kind: Kind, text: &str) -> Result<Spec, DecodeError> {
                Ok(match kind { $(Kind::$kind => Spec::$kind(Box::new(crate::resource::read_spec_text(text)?)),)* })
            }

            /// The JSON form as a text, members in the order of the type: quicker than by [`to_json`](Self::to_json).
            pub fn to_text(&self) -> String {
                match self { $(Spec::$kind(spec) => crate::resource::to_text(spec),)* }
            }

            /// The kind it belongs to.
            pub fn kind(&self) -> Kind {
                match self { $(Spec::$kind(_) => Kind::$kind,)* }
            }

            /// Semantic validation.
            pub fn validate(&self, meta: &Meta, violations: &mut Violations) {
                match self { $(Spec::$kind(spec) => spec.validate(meta, violations),)* }
            }
        }

        impl Status {
            /// The empty status of a kind.
            pub fn empty(kind: Kind) -> Status {
                match kind { $(Kind::$kind => Status::$kind(Box::default()),)* }
            }

            /// Reads the JSON form.
            pub fn from_json(kind: Kind, value: &Value) -> Result<Status, DecodeError> {
                Ok(match kind { $(Kind::$kind => Status::$kind(Box::new(crate::resource::from_value(value)?)),)* })
            }

            /// The JSON form.
            pub fn to_json(&self) -> Value {
                match self { $(Status::$kind(status) => crate::resource::to_value(status),)* }
            }

            /// As [`from_json`](Self::from_json), of a text.
            pub fn from_text(kind: Kind, text: &str) -> Result<Status, DecodeError> {
                Ok(match kind { $(Kind::$kind => Status::$kind(Box::new(crate::resource::from_text(text)?)),)* })
            }

            /// The JSON form as a text.
            pub fn to_text(&self) -> String {
                match self { $(Status::$kind(status) => crate::resource::to_text(status),)* }
            }
        }

        $(impl TypedSpec for $spec {
            const KIND: Kind = Kind::$kind;
            type Status = $status;
            fn peek(spec: &Spec) -> Option<&Self> {
                match spec { Spec::$kind(spec) => Some(spec), _ => None }
            }
            fn wrap(self) -> Spec {
                Spec::$kind(Box::new(self))
            }
            fn peek_status(status: &Status) -> Option<&$status> {
                match status { Status::$kind(status) => Some(status), _ => None }
            }
            fn wrap_status(status: $status) -> Status {
                Status::$kind(Box::new(status))
            }
        })*
    };
}

registry! {
    Mesh: super::mesh::Mesh, NoStatus,
        proto("Mesh", "meshes", "m", ("Mesh", "Meshes"), Scope::Global, KdsFlags::GLOBAL_TO_ZONES,
            Capabilities { keeps_name: true, ..NONE });
    Config: super::config::Config, NoStatus,
        proto("Config", "", "", ("Config", "Configs"), Scope::Global,
            KdsFlags::GLOBAL_TO_ZONES.and(KdsFlags::BY_ZONE), Capabilities { keeps_name: true, ..NONE });
    Secret: super::secret::Secret, NoStatus,
        proto("Secret", "secrets", "", ("Secret", "Secrets"), Scope::Mesh,
            KdsFlags::GLOBAL_TO_ZONES.and(KdsFlags::BY_ZONE),
            Capabilities { admin_only: true, keeps_name: true, ..NONE });
    GlobalSecret: super::secret::GlobalSecret, NoStatus,
        Descriptor { alt_path: "global-secrets",
            ..proto("GlobalSecret", "globalsecrets", "", ("Global Secret", "Global Secrets"), Scope::Global,
                KdsFlags::GLOBAL_TO_ZONES.and(KdsFlags::BY_ZONE),
                Capabilities { admin_only: true, keeps_name: true, ..NONE }) };
    Zone: super::zone::Zone, NoStatus,
        proto("Zone", "zones", "z", ("Zone", "Zones"), Scope::Global,
            KdsFlags::BY_GLOBAL.and(KdsFlags::BY_ZONE), Capabilities { has_insight: true, ..NONE });
    ZoneInsight: super::zone::ZoneInsight, NoStatus,
        proto("ZoneInsight", "zone-insights", "", ("Zone Insight", "Zone Insights"), Scope::Global,
            KdsFlags::BY_GLOBAL.and(KdsFlags::BY_ZONE), Capabilities { read_only: true, soft: true, ..NONE });
    Dataplane: super::dataplane::Dataplane, NoStatus,
        proto("Dataplane", "dataplanes", "dp", ("Dataplane", "Dataplanes"), Scope::Mesh, KdsFlags::ZONE_TO_GLOBAL,
            Capabilities { has_insight: true, ..NONE });
    DataplaneInsight: super::dataplane_insight::DataplaneInsight, NoStatus,
        proto("DataplaneInsight", "dataplane-insights", "", ("Dataplane Insight", "Dataplane Insights"), Scope::Mesh,
            KdsFlags::ZONE_TO_GLOBAL, Capabilities { read_only: true, soft: true, ..NONE });
    MeshInsight: super::mesh_insight::MeshInsight, NoStatus,
        proto("MeshInsight", "mesh-insights", "", ("Mesh Insight", "Mesh Insights"), Scope::Global,
            KdsFlags::BY_GLOBAL, Capabilities { read_only: true, soft: true, ..NONE });
    ServiceInsight: super::service_insight::ServiceInsight, NoStatus,
        proto("ServiceInsight", "service-insights", "", ("Service Insight", "Service Insights"), Scope::Mesh,
            KdsFlags::GLOBAL_TO_ZONES, Capabilities { read_only: true, soft: true, ..NONE });
    HostnameGenerator: super::hostname_generator::HostnameGenerator, NoStatus,
        Descriptor { scope: Scope::Global,
            ..plugin("HostnameGenerator", "hostnamegenerators", "hg", ("Hostname Generator", "Hostname Generators"),
                BOTH_WAYS, NONE) };
    MeshService: super::mesh_service::MeshService, super::mesh_service::MeshServiceStatus,
        plugin("MeshService", "meshservices", "msvc", ("Mesh Service", "Mesh Services"),
            KdsFlags::ZONE_TO_GLOBAL.and(KdsFlags::ACROSS_ZONES),
            Capabilities { has_status: true, destination: true, ..NONE });
    MeshIdentity: super::mesh_identity::MeshIdentity, super::mesh_identity::MeshIdentityStatus,
        plugin("MeshIdentity", "meshidentities", "mid", ("Mesh Identity", "Mesh Identities"), BOTH_WAYS,
            Capabilities { has_status: true, ..NONE });
    MeshExternalService: super::mesh_external_service::MeshExternalService,
        super::mesh_external_service::MeshExternalServiceStatus,
        plugin("MeshExternalService", "meshexternalservices", "extsvc",
            ("Mesh External Service", "Mesh External Services"), BOTH_WAYS,
            Capabilities { has_status: true, destination: true, ..NONE });
    MeshMultiZoneService: super::mesh_multi_zone_service::MeshMultiZoneService,
        super::mesh_multi_zone_service::MeshMultiZoneServiceStatus,
        plugin("MeshMultiZoneService", "meshmultizoneservices", "mzsvc",
            ("Mesh Multi Zone Service", "Mesh Multi Zone Services"), KdsFlags::GLOBAL_TO_ZONES,
            Capabilities { has_status: true, destination: true, ..NONE });
    MeshOpenTelemetryBackend: super::mesh_open_telemetry_backend::MeshOpenTelemetryBackend,
        super::mesh_service::Conditions,
        plugin("MeshOpenTelemetryBackend", "meshopentelemetrybackends", "motb",
            ("Mesh OpenTelemetry Backend", "Mesh OpenTelemetry Backends"), BOTH_WAYS,
            Capabilities { has_status: true, ..NONE });
    MeshTrust: super::mesh_trust::MeshTrust, super::mesh_trust::MeshTrustStatus,
        plugin("MeshTrust", "meshtrusts", "mtrust", ("Mesh Trust", "Mesh Trusts"), BOTH_WAYS,
            Capabilities { has_status: true, ..NONE });
    MeshZoneAddress: super::mesh_zone_address::MeshZoneAddress, NoStatus,
        plugin("MeshZoneAddress", "meshzoneaddresses", "mza", ("Mesh Zone Address", "Mesh Zone Addresses"),
            KdsFlags::ZONE_TO_GLOBAL.and(KdsFlags::ACROSS_ZONES), NONE);
    Workload: super::workload::Workload, super::workload::WorkloadStatus,
        plugin("Workload", "workloads", "wl", ("Workload", "Workloads"), KdsFlags::ZONE_TO_GLOBAL,
            Capabilities { has_status: true, ..NONE });
    MeshHTTPRoute: super::mesh_http_route::MeshHTTPRoute, NoStatus,
        policy("MeshHTTPRoute", "meshhttproutes", "mhttpr", ("Mesh HTTP Route", "Mesh HTTP Routes"), 100, TO);
    MeshTCPRoute: super::mesh_tcp_route::MeshTCPRoute, NoStatus,
        policy("MeshTCPRoute", "meshtcproutes", "mtcpr", ("Mesh TCP Route", "Mesh TCP Routes"), 200, TO);
    MeshTLS: super::mesh_tls::MeshTLS, NoStatus,
        policy("MeshTLS", "meshtlses", "mtls", ("Mesh TLS", "Mesh TLSes"), 300, RULES);
    MeshLoadBalancingStrategy: super::mesh_load_balancing_strategy::MeshLoadBalancingStrategy, NoStatus,
        policy("MeshLoadBalancingStrategy", "meshloadbalancingstrategies", "mlbs",
            ("Mesh Load Balancing Strategy", "Mesh Load Balancing Strategies"), 400, TO);
    MeshPassthrough: super::mesh_passthrough::MeshPassthrough, NoStatus,
        policy("MeshPassthrough", "meshpassthroughs", "mp", ("Mesh Passthrough", "Mesh Passthroughs"), 500, WHOLE);
    MeshAccessLog: super::mesh_access_log::MeshAccessLog, super::mesh_service::Conditions,
        with_status(policy("MeshAccessLog", "meshaccesslogs", "mal", ("Mesh Access Log", "Mesh Access Logs"), 600,
            TO_AND_RULES));
    MeshTrace: super::mesh_trace::MeshTrace, super::mesh_service::Conditions,
        with_status(policy("MeshTrace", "meshtraces", "mtr", ("Mesh Trace", "Mesh Traces"), 700, WHOLE));
    MeshFaultInjection: super::mesh_fault_injection::MeshFaultInjection, NoStatus,
        policy("MeshFaultInjection", "meshfaultinjections", "mfi",
            ("Mesh Fault Injection", "Mesh Fault Injections"), 800, TO_AND_RULES);
    MeshRateLimit: super::mesh_rate_limit::MeshRateLimit, NoStatus,
        policy("MeshRateLimit", "meshratelimits", "mrl", ("Mesh Rate Limit", "Mesh Rate Limits"), 900,
            TO_AND_RULES);
    MeshTimeout: super::mesh_timeout::MeshTimeout, NoStatus,
        policy("MeshTimeout", "meshtimeouts", "mt", ("Mesh Timeout", "Mesh Timeouts"), 1000, TO_AND_RULES);
    MeshTrafficPermission: super::mesh_traffic_permission::MeshTrafficPermission, NoStatus,
        policy("MeshTrafficPermission", "meshtrafficpermissions", "mtp",
            ("Mesh Traffic Permission", "Mesh Traffic Permissions"), 1100, RULES);
    MeshHealthCheck: super::mesh_health_check::MeshHealthCheck, NoStatus,
        policy("MeshHealthCheck", "meshhealthchecks", "mhc", ("Mesh Health Check", "Mesh Health Checks"), 1200, TO);
    MeshCircuitBreaker: super::mesh_circuit_breaker::MeshCircuitBreaker, NoStatus,
        policy("MeshCircuitBreaker", "meshcircuitbreakers", "mcb",
            ("Mesh Circuit Breaker", "Mesh Circuit Breakers"), 1300, TO_AND_RULES);
    MeshRetry: super::mesh_retry::MeshRetry, NoStatus,
        policy("MeshRetry", "meshretries", "mr", ("Mesh Retry", "Mesh Retries"), 1400, TO);
    MeshMetric: super::mesh_metric::MeshMetric, super::mesh_service::Conditions,
        with_status(policy("MeshMetric", "meshmetrics", "mm", ("Mesh Metric", "Mesh Metrics"), 1500, WHOLE));
    MeshProxyPatch: super::mesh_proxy_patch::MeshProxyPatch, NoStatus,
        policy("MeshProxyPatch", "meshproxypatches", "mpp", ("Mesh Proxy Patch", "Mesh Proxy Patches"), 9999, WHOLE);
}
