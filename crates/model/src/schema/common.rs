//! Parts that the schemas of several kinds share.

use super::{Pattern, Schema, any, field, int_or_text, list, map, object, one_of, pattern, text};

/// A duration in Go notation; it is parsed after the schema was checked.
pub const DURATION: Schema = text();
/// A number, written as integer or as decimal text.
pub const DECIMAL: Schema = int_or_text();
/// Labels, tags.
pub const LABELS: Schema = map(&TEXT);
const TEXT: Schema = text();
/// Texts.
pub const TEXTS: Schema = list(&TEXT);
/// `matchLabels` and nothing else.
pub const LABEL_SELECTOR: Schema = object(&[field("matchLabels", LABELS)]);
/// A top-level reference of a policy.
pub const TARGET_REF: Schema = object(&[
    field("kind", one_of(&["Mesh", "Dataplane"])).required(),
    field("labels", LABELS),
    field("sectionName", text()),
]);
/// The reference of an entry of `to`.
pub const TO_TARGET_REF: Schema = object(&[
    field(
        "kind",
        one_of(&["Mesh", "MeshService", "MeshExternalService", "MeshMultiZoneService", "MeshHTTPRoute"]),
    )
    .required(),
    field("labels", LABELS),
    field("sectionName", text()),
]);
/// A condition on the peer.
pub const MATCH: Schema = object(&[
    field("sni", object(&[field("type", one_of(&["Exact"])).required(), field("value", text()).required()])),
    field(
        "spiffeID",
        object(&[field("type", one_of(&["Exact", "Prefix"])).required(), field("value", text()).required()]),
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
const HEADER_VALUE: Schema =
    object(&[field("name", HEADER_NAME).required(), field("value", text()).required()]);
/// Headers to set or to add.
pub const HEADER_VALUES: Schema = list(&HEADER_VALUE).max_items(16);
/// Headers to set and to add.
pub const SET_AND_ADD_HEADERS: Schema = object(&[field("add", HEADER_VALUES), field("set", HEADER_VALUES)]);
/// A reference to a `MeshOpenTelemetryBackend`.
pub const OTEL_BACKEND_REF: Schema =
    object(&[field("kind", one_of(&["MeshOpenTelemetryBackend"])).required(), field("labels", LABELS)]);
/// Where secret material comes from.
pub const SECURE_DATA_SOURCE: Schema = object(&[
    field("envVar", object(&[field("name", text()).required()])),
    field("file", object(&[field("path", text()).required()])),
    field("insecureInline", object(&[field("value", text()).required()])),
    field(
        "secretRef",
        object(&[field("kind", one_of(&["Secret"])).required(), field("name", text()).required()]),
    ),
    field("type", one_of(&["File", "Secret", "EnvVar", "InsecureInline"])).required(),
]);
/// A range of TLS versions.
pub const TLS_VERSIONS: Schema = object(&[field("max", TLS_VERSION), field("min", TLS_VERSION)]);
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
