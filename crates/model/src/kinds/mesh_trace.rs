//! `MeshTrace` (policies.md §10).

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check::MUST_BE_DEFINED;
use super::mesh_http_route::Decimal;
use super::mesh_open_telemetry_backend::{self as otel, BackendRef};
use crate::schema::common::{DECIMAL, OTEL_BACKEND_REF, TARGET_REF};
use crate::schema::{Schema, boolean, field, list, object, one_of, text};
use crate::targetref;
use crate::{Meta, TargetRef, Violations};

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTrace {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// The configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Conf>,
}

/// Where traces go and what is in them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Conf {
    /// At most one; an empty list turns tracing off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
    /// Which requests are traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Tags of each span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
}

/// A tracing system.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Which member is set.
    pub r#type: BackendType,
    /// Zipkin and what speaks like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<Zipkin>,
    /// Datadog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datadog: Option<Datadog>,
    /// A collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<OpenTelemetry>,
}

/// Kinds of [`Backend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the members of Backend")]
pub enum BackendType {
    Zipkin,
    Datadog,
    OpenTelemetry,
}

/// Zipkin and what speaks like it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Zipkin {
    /// Where spans are posted.
    pub url: String,
    /// Long trace ids.
    #[serde(default = "no", rename = "traceId128bit", skip_serializing_if = "Option::is_none")]
    pub trace_id_128bit: Option<bool>,
    /// Form of the spans.
    #[serde(default = "http_json", skip_serializing_if = "Option::is_none")]
    pub api_version: Option<ZipkinApi>,
    /// Client and server share a span.
    #[serde(default = "yes", skip_serializing_if = "Option::is_none")]
    pub shared_span_context: Option<bool>,
}

fn no() -> Option<bool> {
    Some(false)
}

fn yes() -> Option<bool> {
    Some(true)
}

fn http_json() -> Option<ZipkinApi> {
    Some(ZipkinApi::HttpJson)
}

/// Forms of Zipkin spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ZipkinApi {
    /// JSON.
    HttpJson,
    /// Protobuf.
    HttpProto,
}

/// Datadog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Datadog {
    /// `http://host:port`.
    pub url: String,
    /// One service per direction and destination.
    #[serde(default = "no", skip_serializing_if = "Option::is_none")]
    pub split_service: Option<bool>,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// Which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendRef>,
}

/// Which requests are traced, in percent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Sampling {
    /// Of all requests, whatever else says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<Decimal>,
    /// Of requests whose client asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Decimal>,
    /// Of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<Decimal>,
}

/// A tag of each span.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// A fixed value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub literal: Option<String>,
    /// The value of a request header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderTag>,
}

/// The value of a request header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeaderTag {
    /// The header.
    pub name: String,
    /// Value of requests without it; absent: no tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

const BACKEND: Schema = object(&[
    field(
        "datadog",
        "Sends spans to a Datadog agent.",
        object(&[
            field(
                "splitService",
                "Marks inbound and outbound spans as services of their own.",
                boolean().default_bool(false),
            ),
            field("url", "Address of the agent, such as `http://127.0.0.1:8126`.", text()).required(),
        ]),
    ),
    field(
        "openTelemetry",
        "Sends spans to an OpenTelemetry collector.",
        object(&[field("backendRef", "The collector.", OTEL_BACKEND_REF)]),
    ),
    field("type", "Which of the backends is used.", one_of(&["Zipkin", "Datadog", "OpenTelemetry"]))
        .required(),
    field(
        "zipkin",
        "Sends spans to a Zipkin collector.",
        object(&[
            field(
                "apiVersion",
                "Form of the spans.",
                one_of(&["httpJson", "httpProto"]).default_text("httpJson"),
            ),
            field("sharedSpanContext", "Client and server share a span id.", boolean().default_bool(true)),
            field("traceId128bit", "Makes trace ids of 128 bits.", boolean().default_bool(false)),
            field("url", "Address of the collector, such as `http://zipkin:9411/api/v2/spans`.", text())
                .required(),
        ]),
    ),
]);

const CONF: Schema = object(&[
    field("backends", "Where spans go; at most one.", list(&BACKEND).max_items(1)),
    field(
        "sampling",
        "Which requests are traced.",
        object(&[
            field(
                "client",
                "Share of the requests that ask for it with `x-client-trace-id`, in percent.",
                DECIMAL,
            ),
            field("overall", "Upper limit over all, in percent.", DECIMAL),
            field("random", "Share of the other requests, in percent.", DECIMAL),
        ]),
    ),
    field(
        "tags",
        "Tags of spans.",
        list(&object(&[
            field(
                "header",
                "Takes the value from a request header.",
                object(&[
                    field("default", "Value when the header is absent.", text()),
                    field("name", "Name of the header.", text()).required(),
                ]),
            ),
            field("literal", "A fixed value.", text()),
            field("name", "Name of the tag.", text()).required(),
        ])),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("default", "How requests are traced.", CONF),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
]);

impl Validate for MeshTrace {
    const DESCRIPTION: &'static str = "Traces requests through proxies.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        let conf = self.default.clone().unwrap_or_default();
        match conf.backends.as_deref() {
            None => violations.add("spec.default.backends", MUST_BE_DEFINED),
            Some([]) => {}
            Some([backend]) => validate_backend(backend, violations),
            Some(_) => violations.add("spec.default.backends", "must have zero or one backend defined"),
        }
        for (index, tag) in conf.tags.iter().flatten().enumerate() {
            let path = format!("spec.default.tags[{index}]");
            if tag.name.is_empty() {
                violations.add(format!("{path}.name"), "must not be empty");
            }
            if tag.literal.is_some() == tag.header.is_some() {
                violations.add(path, "tag must have only one type defined: header, literal");
            }
        }
        let sampling = conf.sampling.unwrap_or_default();
        for (field, share) in
            [("client", sampling.client), ("random", sampling.random), ("overall", sampling.overall)]
        {
            match share.as_ref().map(Decimal::value) {
                Some(None) => {
                    violations.add(format!("spec.default.sampling.{field}"), "string is not a number")
                }
                Some(Some(share)) if !(0.0..=100.0).contains(&share) => {
                    violations.add(format!("spec.default.sampling.{field}"), "must be between 0 and 100");
                }
                _ => {}
            }
        }
    }
}

fn validate_backend(backend: &Backend, violations: &mut Violations) {
    let path = "spec.default.backends[0]";
    match backend.r#type {
        BackendType::Datadog => match &backend.datadog {
            None => violations.add(format!("{path}.datadog"), MUST_BE_DEFINED),
            Some(datadog) => validate_datadog_url(&datadog.url, &format!("{path}.datadog.url"), violations),
        },
        BackendType::Zipkin => match &backend.zipkin {
            None => violations.add(format!("{path}.zipkin"), MUST_BE_DEFINED),
            Some(zipkin) if zipkin.url.is_empty() => {
                violations.add(format!("{path}.zipkin.url"), "must not be empty");
            }
            Some(zipkin) if Url::parse(&zipkin.url).is_none_or(|url| url.host.is_empty()) => {
                violations.add(format!("{path}.zipkin.url"), "must be a valid url");
            }
            Some(_) => {}
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

fn validate_datadog_url(text: &str, path: &str, violations: &mut Violations) {
    let Some(url) = Url::parse(text) else {
        violations.add(path, "must be a valid url");
        return;
    };
    if url.scheme != "http" {
        violations.add(path, "scheme must be http");
    }
    match url.port {
        None => violations.add(path, "port must be defined"),
        Some(port) if port.parse().is_ok_and(|port: u16| port > 0) => {}
        Some(_) => violations.add(path, "port must be a valid (1-65535)"),
    }
    let parts = [
        ("opaque", url.opaque),
        ("user", url.user),
        ("path", url.path),
        ("query", url.query),
        ("fragment", url.fragment),
    ];
    for (part, _) in parts.into_iter().filter(|(_, text)| !text.is_empty()) {
        violations.add(path, format!("{part} must not be defined"));
    }
}

/// The parts of a URL that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Url<'a> {
    scheme: &'a str,
    opaque: &'a str,
    user: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    path: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    /// Splits an absolute URL; `None` when it has no scheme or contains what no URL may contain.
    fn parse(text: &'a str) -> Option<Url<'a>> {
        if text.contains(|c: char| c.is_control() || c == ' ') {
            return None;
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, rest) = rest.split_once(':')?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.'));
        if !is_scheme {
            return None;
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Some(Url { scheme, opaque: rest, query, fragment, ..Url::default() });
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, host_and_port) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (host, port) = match host_and_port.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port).filter(|port| !port.is_empty())),
            _ => (host_and_port, None),
        };
        Some(Url { scheme, opaque: "", user, host, port, path, query, fragment })
    }
}
