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
    field("labels", LABELS),
    field("port", int32()),
    field("sectionName", text()),
    field("weight", int32().min(0).max(4294967295).default_int(1)),
]);

const HEADER_MODIFIER: Schema = object(&[
    field("add", HEADER_VALUES),
    field("remove", list(&text()).max_items(16)),
    field("set", HEADER_VALUES),
]);

const PATH_REWRITE: Schema = object(&[
    field("replaceFullPath", text()),
    field("replacePrefixMatch", text()),
    field("type", one_of(&["ReplaceFullPath", "ReplacePrefixMatch"])).required(),
]);

const FILTER: Schema = object(&[
    field("requestHeaderModifier", HEADER_MODIFIER),
    field(
        "requestMirror",
        object(&[field("backendRef", BACKEND_REF).required(), field("percentage", DECIMAL)]),
    ),
    field(
        "requestRedirect",
        object(&[
            field("hostname", text().min_len(1).max_len(253).matching(HOST_PATTERN)),
            field("path", PATH_REWRITE),
            field("port", int32().min(1).max(65535)),
            field("scheme", one_of(&["http", "https"])),
            field("statusCode", int32().default_int(302)),
        ]),
    ),
    field("responseHeaderModifier", HEADER_MODIFIER),
    field(
        "type",
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
        object(&[
            field("hostToBackendHostname", boolean()),
            field("hostname", text().min_len(1).max_len(253).matching(HOST_PATTERN)),
            field("path", PATH_REWRITE),
        ]),
    ),
]);

const ROUTE_MATCH: Schema = object(&[
    field(
        "headers",
        list(&object(&[
            field("name", HEADER_NAME).required(),
            field(
                "type",
                one_of(&["Exact", "Present", "RegularExpression", "Absent", "Prefix"]).default_text("Exact"),
            ),
            field("value", text()),
        ])),
    ),
    field(
        "method",
        one_of(&["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"]),
    ),
    field(
        "path",
        object(&[
            field("type", one_of(&["Exact", "PathPrefix", "RegularExpression"])).required(),
            field("value", text().min_len(1)).required(),
        ]),
    ),
    field(
        "queryParams",
        list(&object(&[
            field("name", text().min_len(1)).required(),
            field("type", one_of(&["Exact", "RegularExpression"])).required(),
            field("value", text()).required(),
        ])),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("targetRef", TARGET_REF),
    field(
        "to",
        list(&object(&[
            field("hostnames", TEXTS),
            field(
                "rules",
                list(&object(&[
                    field(
                        "default",
                        object(&[field("backendRefs", list(&BACKEND_REF)), field("filters", list(&FILTER))]),
                    )
                    .required(),
                    field("matches", list(&ROUTE_MATCH).min_items(1)).required(),
                ])),
            )
            .required(),
            field("targetRef", TO_TARGET_REF).required(),
        ])),
    ),
]);
