//! Pages of other origins (rest-api.md §2.1): which may read answers, and send what.

use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::respond;

/// Headers that a page of an allowed origin may send. Without them it could read but never write, and never show
/// its token.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type";

/// The origin of the request, if answers may be shown to it. `*` allows every origin.
pub(crate) fn allowed_origin(domains: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN).filter(|origin| !origin.is_empty())?;
    let is_allowed = |domain: &String| domain == "*" || origin.as_bytes() == domain.as_bytes();
    domains.iter().any(is_allowed).then(|| origin.clone())
}

/// Whether a browser asks what it may send.
pub(crate) fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What may be sent to a path that has the methods `allow` (as the header `Allow` names them).
pub(crate) fn preflight(parts: &Parts, allow: &str) -> Response {
    let mut response = respond::empty(StatusCode::OK);
    let wanted = parts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_there = |method: &str| wanted.is_some_and(|wanted| wanted.as_bytes() == method.as_bytes());
    if allow.split(", ").any(is_there)
        && let Ok(methods) = HeaderValue::from_str(&allow.replace(' ', ""))
    {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    }
    response
}

/// Shows an answer to the page that asked.
pub(crate) fn mark(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let exposed = HeaderValue::from_static("Access-Control-Allow-Origin");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}
