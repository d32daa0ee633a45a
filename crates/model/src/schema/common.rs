//! Parts that the schemas of several kinds share.

use super::{Pattern, Schema, any, duration, field, int_or_text, list, map, object, one_of, pattern, text};

/// A duration in Go notation.
pub const DURATION: Schema = duration();
/// A number, written as integer or as decimal text.
pub const DECIMAL: Schema = int_or_text();
/// Labels, tags.
pub const LABELS: Schema = map(&TEXT);
const TEXT: Schema = text();
/// Texts.
pub const TEXTS: Schema = list(&TEXT);
/// `matchLabels` and nothing else.
pub const LABEL_SELECTOR: Schema =
    object(&[field("matchLabels", "Labels that must all be there, each with exactly this value.", LABELS)]);
/// A top-level reference of a policy.
pub const TARGET_REF: Schema = object(&[
    field(
        "kind",
        "`Mesh` for all proxies of the mesh, `Dataplane` for those that the labels select.",
        one_of(&["Mesh", "Dataplane"]),
    )
    .required(),
    field("labels", "Labels of the proxies that are meant; without labels, all of them.", LABELS),
    field("sectionName", "Name or port of the inbound that is meant; without it, all of them.", text()),
]);
/// The reference of an entry of `to`.
pub const TO_TARGET_REF: Schema = object(&[
    field(
        "kind",
        "Which sort of destination is meant; `Mesh` is all of them.",
        one_of(&["Mesh", "MeshService", "MeshExternalService", "MeshMultiZoneService", "MeshHTTPRoute"]),
    )
    .required(),
    field("labels", "Labels of the destinations that are meant.", LABELS),
    field(
        "sectionName",
        "Name or port of the destination's port that is meant; without it, all of them.",
        text(),
    ),
]);
/// A condition on the peer.
pub const MATCH: Schema = object(&[
    field(
        "sni",
        "Server name that the client asks for in the TLS handshake.",
        object(&[
            field("type", "How the value is compared.", one_of(&["Exact"])).required(),
            field("value", "Server name.", text()).required(),
        ]),
    ),
    field(
        "spiffeID",
        "Identity that the client's certificate proves.",
        object(&[
            field(
                "type",
                "`Exact` compares the whole id, `Prefix` its beginning.",
                one_of(&["Exact", "Prefix"]),
            )
            .required(),
            field("value", "SPIFFE id, or the beginning of one.", text()).required(),
        ]),
    ),
]);
/// Conditions on the peer.
pub const MATCHES: Schema = list(&MATCH);
/// The regular expression of a header name (lower case), as published.
pub const HEADER_NAME_PATTERN: Pattern = pattern(r"^[a-z0-9!#$%&'*+\-.^_\x60|~]+$", is_header_name);
/// The regular expression of a host name, as published.
pub const HOST_PATTERN: Pattern =
    pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", is_host);
/// The regular expression of a static OpenTelemetry attribute name, as published.
pub const ATTRIBUTE_KEY_PATTERN: Pattern = pattern("^[a-z]([a-z0-9]|[._][a-z0-9])*$", is_attribute_key);
/// A header name.
pub const HEADER_NAME: Schema = text().min_len(1).max_len(256).matching(HEADER_NAME_PATTERN);
const HEADER_VALUE: Schema = object(&[
    field("name", "Header name in lower case.", HEADER_NAME).required(),
    field("value", "Header value.", text()).required(),
]);
/// Headers to set or to add.
pub const HEADER_VALUES: Schema = list(&HEADER_VALUE).max_items(16);
/// Headers to set and to add.
pub const SET_AND_ADD_HEADERS: Schema = object(&[
    field("add", "Headers that are added beside those of the same name.", HEADER_VALUES),
    field("set", "Headers that replace those of the same name.", HEADER_VALUES),
]);
/// A reference to a `MeshOpenTelemetryBackend`.
pub const OTEL_BACKEND_REF: Schema = object(&[
    field("kind", "Kind of the backend.", one_of(&["MeshOpenTelemetryBackend"])).required(),
    field("labels", "Labels of the backend; they must select exactly one.", LABELS),
]);
/// Where secret material comes from.
pub const SECURE_DATA_SOURCE: Schema = object(&[
    field(
        "envVar",
        "An environment variable of the control plane.",
        object(&[field("name", "Name of the variable.", text()).required()]),
    ),
    field(
        "file",
        "A file of the control plane.",
        object(&[field("path", "Absolute path of the file.", text()).required()]),
    ),
    field(
        "insecureInline",
        "A value in the resource itself; everybody who may read the resource sees it.",
        object(&[field("value", "The value.", text()).required()]),
    ),
    field(
        "secretRef",
        "A secret of the same mesh.",
        object(&[
            field("kind", "Always `Secret`.", one_of(&["Secret"])).required(),
            field("name", "Name of the secret.", text()).required(),
        ]),
    ),
    field("type", "Which of the sources is used.", one_of(&["File", "Secret", "EnvVar", "InsecureInline"]))
        .required(),
]);
/// A range of TLS versions.
pub const TLS_VERSIONS: Schema = object(&[
    field("max", "Newest TLS version that is offered.", TLS_VERSION),
    field("min", "Oldest TLS version that is accepted.", TLS_VERSION),
]);
const TLS_VERSION: Schema = one_of(&["TLSAuto", "TLS10", "TLS11", "TLS12", "TLS13"]).default_text("TLSAuto");
/// Configuration of a plug-in.
pub const PLUGIN_CONFIG: Schema = any();

fn is_header_name(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty() && text.bytes().all(allowed)
}

fn is_host(text: &str) -> bool {
    let edge = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split('.').map(str::as_bytes).all(|part| {
        part.first().is_some_and(edge)
            && part.last().is_some_and(edge)
            && part.iter().all(|c| edge(c) || *c == b'-')
    })
}

fn is_attribute_key(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|c| word(c) || c == b'.' || c == b'_')
        && text.as_bytes().windows(2).all(|pair| word(pair[0]) || word(pair[1]))
        && text.bytes().last().is_some_and(word)
}
