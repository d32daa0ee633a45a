//! `MeshHTTPRoute` (policies.md §4).

mod validation;

use serde::{Deserialize, Serialize};

use crate::TargetRef;
use crate::schema::common::{
    DECIMAL, HEADER_NAME, HEADER_VALUES, HOST_PATTERN, LABELS, TARGET_REF, TEXTS, TO_TARGET_REF,
};
use crate::schema::{Schema, boolean, field, int32, list, object, one_of, text};
use crate::targetref::{self, BackendRef, DESTINATIONS};

/// Routes HTTP requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshHTTPRoute {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<To>>,
}

/// Routes of one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct To {
    /// Must be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostnames: Option<Vec<String>>,
    /// The destination.
    pub target_ref: TargetRef,
    /// Rules.
    #[serde(default)]
    pub rules: Vec<RouteRule>,
}

/// Conditions and what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    /// Any of these must match.
    pub matches: Vec<RouteMatch>,
    /// What to do.
    pub default: RouteConf,
}

/// A condition on a request. The order of the members is part of the contract: it decides the hash that
/// identifies a match (policy-engine.md §5.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Query parameters; all must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_params: Option<Vec<QueryParamMatch>>,
    /// Headers; all must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<HeaderMatch>>,
}

/// HTTP methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Method {
    Connect,
    Delete,
    Get,
    Head,
    Options,
    Patch,
    Post,
    Put,
    Trace,
}

impl Method {
    /// The method as it is on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Method::Connect => "CONNECT",
            Method::Delete => "DELETE",
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Trace => "TRACE",
        }
    }
}

/// Condition on the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathMatch {
    /// The path, prefix or expression.
    pub value: String,
    /// How it is compared.
    pub r#type: PathMatchType,
}

/// How a path is compared, most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PathMatchType {
    /// Equal.
    Exact,
    /// Equal or below, by segments.
    PathPrefix,
    /// RE2.
    RegularExpression,
}

/// Condition on a query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueryParamMatch {
    /// How it is compared.
    pub r#type: QueryParamMatchType,
    /// Parameter.
    pub name: String,
    /// Value.
    pub value: String,
}

/// How a query parameter is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QueryParamMatchType {
    /// Equal.
    Exact,
    /// RE2.
    RegularExpression,
}

/// Condition on a header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// How it is compared.
    #[serde(default)]
    pub r#type: HeaderMatchType,
    /// Header.
    pub name: String,
    /// Value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// How a header is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum HeaderMatchType {
    /// Equal.
    #[default]
    Exact,
    /// There.
    Present,
    /// RE2.
    RegularExpression,
    /// Not there.
    Absent,
    /// Starts with.
    Prefix,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteConf {
    /// Changes, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<Filter>>,
    /// Where to; absent: the destination itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_refs: Option<Vec<BackendRef>>,
}

/// One change of a request or response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Which member is set.
    pub r#type: FilterType,
    /// Request headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Response headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Redirect instead of forwarding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
    /// Rewrite of host or path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
    /// Copy to another destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirror>,
}

/// Kinds of [`Filter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the members of Filter")]
pub enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    URLRewrite,
    RequestMirror,
}

/// Changes of headers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeaderModifier {
    /// Replace or add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Vec<HeaderKeyValue>>,
    /// Append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Vec<HeaderKeyValue>>,
    /// Remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Vec<String>>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeaderKeyValue {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// 301, 302 (schema default), 303, 307 or 308.
    #[serde(default = "found", skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u32>,
}

fn found() -> Option<u32> {
    Some(302)
}

/// A rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UrlRewrite {
    /// Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// Must not be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_to_backend_hostname: Option<bool>,
}

/// New path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathRewrite {
    /// Which member is set.
    pub r#type: PathRewriteType,
    /// The whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// The matched prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

/// Kinds of [`PathRewrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathRewriteType {
    /// The whole path.
    ReplaceFullPath,
    /// The matched prefix.
    ReplacePrefixMatch,
}

/// Copies requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Share of requests, in percent; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Decimal>,
    /// Where to.
    pub backend_ref: BackendRef,
}

/// A number, written as integer or as decimal text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Decimal {
    /// Integer.
    Int(i64),
    /// Text such as `"2.5"`.
    Text(String),
}

impl Decimal {
    /// The value, if it is a number.
    pub fn value(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "percentages are small")]
            Decimal::Int(value) => Some(*value as f64),
            Decimal::Text(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
        }
    }
}

const BACKEND_REF: Schema = object(&[
    field(
        "kind",
        "Kind of the backend.",
        one_of(&[
            "Mesh",
            "MeshService",
            "MeshExternalService",
            "MeshMultiZoneService",
            "MeshHTTPRoute",
            "Dataplane",
        ]),
    )
    .required(),
    field("labels", "Labels of the backend.", LABELS),
    field("port", "Port of the backend.", int32()),
    field("sectionName", "Name of the backend's port.", text()),
    field(
        "weight",
        "Share of the requests, relative to the other backends.",
        int32().min(0).max(4294967295).default_int(1),
    ),
]);

const HEADER_MODIFIER: Schema = object(&[
    field("add", "Headers that are added beside those of the same name.", HEADER_VALUES),
    field("remove", "Names of headers that are taken out.", list(&text()).max_items(16)),
    field("set", "Headers that replace those of the same name.", HEADER_VALUES),
]);

const PATH_REWRITE: Schema = object(&[
    field("replaceFullPath", "The new path.", text()),
    field("replacePrefixMatch", "What stands instead of the prefix that matched.", text()),
    field("type", "Which of the replacements is made.", one_of(&["ReplaceFullPath", "ReplacePrefixMatch"]))
        .required(),
]);

const FILTER: Schema = object(&[
    field("requestHeaderModifier", "Changes headers of the request.", HEADER_MODIFIER),
    field(
        "requestMirror",
        "Sends a copy of the request to another backend; its answer is thrown away.",
        object(&[
            field("backendRef", "Where the copy goes.", BACKEND_REF).required(),
            field("percentage", "Share of the requests that is copied, in percent.", DECIMAL),
        ]),
    ),
    field(
        "requestRedirect",
        "Answers with a redirect.",
        object(&[
            field(
                "hostname",
                "Host of the new location.",
                text().min_len(1).max_len(253).matching(HOST_PATTERN),
            ),
            field("path", "Path of the new location.", PATH_REWRITE),
            field("port", "Port of the new location.", int32().min(1).max(65535)),
            field("scheme", "Scheme of the new location.", one_of(&["http", "https"])),
            field("statusCode", "Status of the answer.", int32().default_int(302)),
        ]),
    ),
    field("responseHeaderModifier", "Changes headers of the answer.", HEADER_MODIFIER),
    field(
        "type",
        "Which of the filters is meant.",
        one_of(&[
            "RequestHeaderModifier",
            "ResponseHeaderModifier",
            "RequestRedirect",
            "URLRewrite",
            "RequestMirror",
        ]),
    )
    .required(),
    field(
        "urlRewrite",
        "Changes host or path before the request is passed on.",
        object(&[
            field(
                "hostToBackendHostname",
                "Sets the host to the hostname of the backend that is chosen.",
                boolean(),
            ),
            field("hostname", "The new host.", text().min_len(1).max_len(253).matching(HOST_PATTERN)),
            field("path", "The new path.", PATH_REWRITE),
        ]),
    ),
]);

const ROUTE_MATCH: Schema = object(&[
    field(
        "headers",
        "Conditions on headers; all must hold.",
        list(&object(&[
            field("name", "Header name in lower case.", HEADER_NAME).required(),
            field(
                "type",
                "How the value is compared.",
                one_of(&["Exact", "Present", "RegularExpression", "Absent", "Prefix"]).default_text("Exact"),
            ),
            field("value", "Value or regular expression.", text()),
        ])),
    ),
    field(
        "method",
        "Method of the request.",
        one_of(&["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"]),
    ),
    field(
        "path",
        "Condition on the path.",
        object(&[
            field(
                "type",
                "How the value is compared.",
                one_of(&["Exact", "PathPrefix", "RegularExpression"]),
            )
            .required(),
            field("value", "Path, prefix of whole segments, or regular expression.", text().min_len(1))
                .required(),
        ]),
    ),
    field(
        "queryParams",
        "Conditions on query parameters; all must hold.",
        list(&object(&[
            field("name", "Name of the parameter.", text().min_len(1)).required(),
            field("type", "How the value is compared.", one_of(&["Exact", "RegularExpression"])).required(),
            field("value", "Value or regular expression.", text()).required(),
        ])),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Destinations whose requests are routed.",
        list(&object(&[
            field("hostnames", "Hosts that the rules are for; only for gateways.", TEXTS),
            field(
                "rules",
                "Routes; the most specific match wins.",
                list(&object(&[
                    field(
                        "default",
                        "What is done with the requests that match.",
                        object(&[
                            field(
                                "backendRefs",
                                "Where requests go; without any, to the destination itself.",
                                list(&BACKEND_REF),
                            ),
                            field(
                                "filters",
                                "What is done with requests and answers on the way.",
                                list(&FILTER),
                            ),
                        ]),
                    )
                    .required(),
                    field("matches", "Conditions; one of them must hold.", list(&ROUTE_MATCH).min_items(1))
                        .required(),
                ])),
            )
            .required(),
            field("targetRef", "The destination that clients address.", TO_TARGET_REF).required(),
        ])),
    ),
]);
