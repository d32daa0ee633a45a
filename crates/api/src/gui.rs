//! `/gui`: there is no GUI yet, and the page says so (rest-api.md §6.6).

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::respond;

const HTML: &str = "text/html; charset=utf-8";

const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<head><meta charset=\"utf-8\"><title>Graticule</title></head>
<body><h1>Graticule</h1><p>This control plane has no GUI. Its API is at <a href=\"/\">/</a>; use grat.</p></body>
</html>
";

/// Redirects to the directory.
pub(crate) fn root() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, HeaderValue::from_static("/gui/"));
    let text = "<a href=\"/gui/\">Temporary Redirect</a>.\n\n";
    respond::text(StatusCode::TEMPORARY_REDIRECT, HTML, headers, text.to_owned())
}

/// Every path below.
pub(crate) fn page() -> Response {
    respond::text(StatusCode::OK, HTML, HeaderMap::new(), PAGE.to_owned())
}
