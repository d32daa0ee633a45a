//! `MeshMetric` (policies.md §18).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check::{self, MUST_BE_DEFINED};
use super::mesh_open_telemetry_backend::{self as otel, BackendRef};
use crate::schema::common::{DURATION, OTEL_BACKEND_REF, TARGET_REF};
use crate::schema::{Schema, boolean, field, int32, list, object, one_of, text};
use crate::targetref;
use crate::{GoDuration, Meta, TargetRef, Violations};

/// Which metrics are collected and who gets them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshMetric {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// The configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Conf>,
}

/// Which metrics are collected and who gets them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Conf {
    /// Metrics of the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Sidecar>,
    /// Metrics of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applications: Option<Vec<Application>>,
    /// Who gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
}

/// Metrics of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Which ones; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Profiles>,
    /// Those that never changed as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_unused: Option<bool>,
}

/// Sets of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profiles {
    /// Ready-made sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_profiles: Option<Vec<Profile>>,
    /// Left out of the sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<Selector>>,
    /// Taken whatever `exclude` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<Selector>>,
}

/// A ready-made set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// Which one.
    pub name: ProfileName,
}

/// Ready-made sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProfileName {
    /// Everything.
    All,
    /// What dashboards need.
    Basic,
    /// Nothing.
    None,
}

/// Selects metrics by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// How names are compared.
    pub r#type: SelectorType,
    /// What they are compared with.
    pub r#match: String,
}

/// How names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SelectorType {
    /// Starts with.
    Prefix,
    /// RE2.
    Regex,
    /// Equal.
    Exact,
    /// Somewhere.
    Contains,
}

/// Metrics of the workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Application {
    /// Name in metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address; absent: the workload's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Path.
    #[serde(default = "metrics_path", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Port.
    pub port: u32,
}

fn metrics_path() -> Option<String> {
    Some("/metrics".into())
}

/// Who gets metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Which member is set.
    pub r#type: BackendType,
    /// A port to scrape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// A collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<OpenTelemetry>,
}

/// Kinds of [`Backend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the members of Backend")]
pub enum BackendType {
    Prometheus,
    OpenTelemetry,
}

/// A port to scrape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prometheus {
    /// Tells several scrapers apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Port.
    #[serde(default = "prometheus_port")]
    pub port: u32,
    /// Path.
    #[serde(default = "metrics_path", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// TLS of the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PrometheusTls>,
}

fn prometheus_port() -> u32 {
    5670
}

/// TLS of a port to scrape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PrometheusTls {
    /// Which.
    #[serde(default)]
    pub mode: PrometheusTlsMode,
}

/// TLS of a port to scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum PrometheusTlsMode {
    /// Plaintext.
    #[default]
    Disabled,
    /// Certificate and key in files of the proxy.
    ProvidedTLS,
    /// The identity of the proxy.
    ActiveMTLSBackend,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// Which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendRef>,
    /// How often metrics are sent; absent: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<GoDuration>,
}

const BACKEND: Schema = object(&[
    field(
        "openTelemetry",
        "Sends metrics to an OpenTelemetry collector.",
        object(&[
            field("backendRef", "The collector.", OTEL_BACKEND_REF),
            field("refreshInterval", "Time between two transmissions.", DURATION),
        ]),
    ),
    field(
        "prometheus",
        "Offers metrics to a Prometheus server.",
        object(&[
            field("clientId", "Name of the server that may scrape; empty means every one.", text()),
            field("path", "Path of the metrics.", text().default_text("/metrics")),
            field("port", "Port of the metrics.", int32().default_int(5670)),
            field(
                "tls",
                "TLS of the port.",
                object(&[field(
                    "mode",
                    "Where the certificate comes from, if TLS is used.",
                    one_of(&["Disabled", "ProvidedTLS", "ActiveMTLSBackend"]).default_text("Disabled"),
                )]),
            ),
        ]),
    ),
    field("type", "Which of the backends is used.", one_of(&["Prometheus", "OpenTelemetry"])).required(),
]);

const EXCLUDE: Schema = list(&object(&[
    field("match", "Name, part of a name, or regular expression.", text()).required(),
    field("type", "How `match` is compared.", one_of(&["Prefix", "Regex", "Exact", "Contains"])).required(),
]));

const CONF: Schema = object(&[
    field(
        "applications",
        "Metrics of the workload that are offered together with the proxy's.",
        list(&object(&[
            field("address", "Address of the workload; without it, the proxy's.", text()),
            field("name", "Name of the application in the metrics.", text()),
            field("path", "Path of the workload's metrics.", text().default_text("/metrics")),
            field("port", "Port of the workload's metrics.", int32()).required(),
        ])),
    ),
    field("backends", "Where metrics go.", list(&BACKEND)),
    field(
        "sidecar",
        "Which metrics of the proxy are offered.",
        object(&[
            field("includeUnused", "Includes metrics that were never written.", boolean()),
            field(
                "profiles",
                "Selections of metrics.",
                object(&[
                    field(
                        "appendProfiles",
                        "Selections that come with the product.",
                        list(&object(&[field(
                            "name",
                            "Name of the selection.",
                            one_of(&["All", "Basic", "None"]),
                        )
                        .required()])),
                    ),
                    field("exclude", "Metrics that are left out after all.", EXCLUDE),
                    field("include", "Metrics that are offered in any case.", EXCLUDE),
                ]),
            ),
        ]),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("default", "How metrics are offered.", CONF),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
]);

impl Validate for MeshMetric {
    const DESCRIPTION: &'static str = "Offers or sends metrics of proxies and workloads.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        let Some(conf) = &self.default else { return };
        if let Some(profiles) = conf.sidecar.as_ref().and_then(|sidecar| sidecar.profiles.as_ref()) {
            for (list, selectors) in [("exclude", &profiles.exclude), ("include", &profiles.include)] {
                for (index, selector) in selectors.iter().flatten().enumerate() {
                    if selector.r#type == SelectorType::Regex && regex::Regex::new(&selector.r#match).is_err()
                    {
                        let path = format!("spec.default.sidecar.profiles.{list}[{index}].match");
                        violations.add(path, "invalid regex");
                    }
                }
            }
        }
        for (index, application) in conf.applications.iter().flatten().enumerate() {
            check::port(application.port, format!("spec.default.applications[{index}].port"), violations);
        }
        for (index, backend) in conf.backends.iter().flatten().enumerate() {
            validate_backend(backend, &format!("spec.default.backends[{index}]"), violations);
        }
    }
}

fn validate_backend(backend: &Backend, path: &str, violations: &mut Violations) {
    match backend.r#type {
        BackendType::Prometheus => match &backend.prometheus {
            None => violations.add(format!("{path}.prometheus"), MUST_BE_DEFINED),
            Some(prometheus) => check::port(prometheus.port, format!("{path}.prometheus.port"), violations),
        },
        BackendType::OpenTelemetry => match &backend.open_telemetry {
            None => violations.add(format!("{path}.openTelemetry"), MUST_BE_DEFINED),
            Some(collector) => {
                let path = format!("{path}.openTelemetry");
                otel::validate_ref(collector.backend_ref.as_ref(), &path, violations);
            }
        },
    }
}
