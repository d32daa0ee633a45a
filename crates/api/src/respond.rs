//! Answers: representation and headers.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use graticule_model::yaml;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

impl Format {
    /// The format of a media type, parameters ignored.
    pub(crate) fn of_media_type(media_type: &str) -> Option<Format> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Some(Format::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Some(Format::Yaml),
            _ => None,
        }
    }

    /// The format that `Accept` likes best, the first of equals; JSON without the header. `None`: nothing that we
    /// have.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Format> {
        let mut values = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).peekable();
        if values.peek().is_none() {
            return Some(Format::Json);
        }
        let mut best: Option<(Format, f32)> = None;
        for range in values.flat_map(|value| value.split(',')).map(str::trim) {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default() {
                "*/*" | "application/*" => Some(Format::Json),
                essence => Format::of_media_type(essence),
            };
            let quality =
                parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(1.0));
            if let Some(format) = format
                && quality > best.map_or(0.0, |(_, quality)| quality)
            {
                best = Some((format, quality));
            }
        }
        best.map(|(format, _)| format)
    }
}

pub(crate) fn value(status: StatusCode, format: Format, value: &Value) -> Response {
    if format == Format::Yaml
        && let Ok(text) = yaml::to_string(value)
    {
        return text_response(status, "application/yaml", text);
    }
    json(status, value)
}

/// Indented by one space, with a newline at the end, as the reference does.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    let mut bytes = Vec::with_capacity(512);
    let formatter = PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    if let Err(error) = value.serialize(&mut serializer) {
        tracing::error!(%error, "an answer does not serialise");
        return empty(StatusCode::INTERNAL_SERVER_ERROR);
    }
    bytes.push(b'\n');
    build(status, "application/json", HeaderMap::new(), bytes)
}

pub(crate) fn text(
    status: StatusCode,
    media_type: &'static str,
    headers: HeaderMap,
    text: String,
) -> Response {
    build(status, media_type, headers, text.into_bytes())
}

/// What somebody else wrote.
pub(crate) fn bytes(status: StatusCode, media_type: &'static str, body: Bytes) -> Response {
    build(status, media_type, HeaderMap::new(), body)
}

fn text_response(status: StatusCode, media_type: &'static str, body: String) -> Response {
    text(status, media_type, HeaderMap::new(), body)
}

pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn build(
    status: StatusCode,
    media_type: &'static str,
    headers: HeaderMap,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept() {
        for (values, want) in [
            (&[][..], Some(Format::Json)),
            (&["*/*"], Some(Format::Json)),
            (&["text/html, application/*;q=0.1"], Some(Format::Json)),
            (&["application/yaml"], Some(Format::Yaml)),
            (&["*/*;q=0.1, application/yaml"], Some(Format::Yaml)),
            (&["application/yaml;q=0.2", "application/json;q=0.3"], Some(Format::Json)),
            (&["application/json;q=0"], None),
            (&["text/html"], None),
            (&[""], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(Format::accepted(&headers), want, "{values:?}");
        }
    }
}
