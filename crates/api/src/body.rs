//! Request bodies: limits, then JSON or YAML.

use axum::body::Body;
use bytes::Bytes;
use graticule_model::yaml;
use http::StatusCode;
use serde_json::Value;

use crate::Context;
use crate::error::Error;
use crate::respond::Format;

/// Reads a body within the limits of size and time.
pub(crate) async fn read(context: &Context, body: Body) -> Result<Bytes, Error> {
    let server = &context.options.server;
    let reading = axum::body::to_bytes(body, server.max_body_bytes);
    tokio::select! {
        read = reading => read.map_err(|error| {
            tracing::debug!(%error, "a request body cannot be read");
            let detail = format!("the body is cut short or larger than {} bytes", server.max_body_bytes);
            Error::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large", detail)
        }),
        () = context.clock.sleep(server.read_timeout.to_std()) => {
            Err(Error::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", "the body did not arrive in time"))
        }
    }
}

/// Reads one document; the error is its text.
pub(crate) fn parse(format: Format, bytes: &[u8]) -> Result<Value, String> {
    match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| {
            if error.is_eof() { "unexpected end of JSON input".into() } else { error.to_string() }
        }),
        Format::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            yaml::parse_one(text).map_err(|error| error.to_string())
        }
    }
}
