//! Request bodies: limits, then JSON or YAML.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use graticule_model::yaml;
use http::StatusCode;
use serde_json::Value;
use serde_json::error::Category;

use crate::Context;
use crate::error::Error;
use crate::respond::Format;

/// How much of a body that is too large is read and thrown away, in bytes: a client that still sends when the
/// connection ends sees a broken connection instead of the answer.
const DISCARDED_LEN_MAX: usize = 16 * 1024 * 1024;

/// Reads a body within the limits of size and time.
pub(crate) async fn read(context: &Context, body: Body) -> Result<Bytes, Error> {
    let server = &context.options.server;
    tokio::select! {
        read = read_within(body, server.max_body_bytes) => read,
        () = context.clock.sleep(server.read_timeout.to_std()) => {
            Err(Error::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", "the body did not arrive in time"))
        }
    }
}

async fn read_within(mut body: Body, len_max: usize) -> Result<Bytes, Error> {
    let (mut read, mut len) = (BytesMut::new(), 0_usize);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a request body cannot be read");
            Error::new(StatusCode::BAD_REQUEST, "Bad Request", "the body is cut short")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        len = len.saturating_add(data.len());
        if len <= len_max {
            read.extend_from_slice(&data);
        } else if len > len_max.saturating_add(DISCARDED_LEN_MAX) {
            break;
        }
    }
    if len <= len_max {
        return Ok(read.freeze());
    }
    let detail = format!("the body is larger than {len_max} bytes");
    Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large", detail))
}

/// Reads one document; the error is its text.
pub(crate) fn parse(format: Format, bytes: &[u8]) -> Result<Value, String> {
    match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| json_error(&error, bytes)),
        Format::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            yaml::parse_one(text).map_err(|error| error.to_string())
        }
    }
}

/// Clients of the reference know JSON errors in the words of its library, so ours use them where they say
/// the same.
fn json_error(error: &serde_json::Error, bytes: &[u8]) -> String {
    let text = error.to_string();
    let expectation = [
        ("key must be a string", "looking for beginning of object key string"),
        ("expected value", "looking for beginning of value"),
        ("trailing characters", "after top-level value"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected `:`", "after object key"),
    ]
    .into_iter()
    .find_map(|(ours, theirs)| text.starts_with(ours).then_some(theirs));
    match (error.classify(), expectation, char_at(bytes, error.line(), error.column())) {
        (Category::Eof, _, _) => "unexpected end of JSON input".into(),
        (_, Some(expectation), Some(found)) => format!("invalid character '{found}' {expectation}"),
        _ => text,
    }
}

/// The character at a 1-based line and column (in bytes).
fn char_at(bytes: &[u8], line: usize, column: usize) -> Option<char> {
    let line = bytes.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?;
    let rest = line.get(column.saturating_sub(1)..)?;
    let rest = rest.get(..rest.len().min(4))?;
    let valid = match std::str::from_utf8(rest) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(rest.get(..error.valid_up_to())?).ok()?,
    };
    valid.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn limits() {
        let status = |read: Result<Bytes, Error>| {
            read.map(|bytes| bytes.len()).map_err(|error| error.into_response().status())
        };
        assert_eq!(status(read_within(Body::from("1234"), 4).await), Ok(4));
        assert_eq!(status(read_within(Body::from("12345"), 4).await), Err(StatusCode::PAYLOAD_TOO_LARGE));
        let endless = vec![0; DISCARDED_LEN_MAX + 5];
        assert_eq!(status(read_within(Body::from(endless), 4).await), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn json_errors() {
        for (text, want) in [
            ("", "unexpected end of JSON input"),
            ("{\"type\": \"MeshTimeout\",", "unexpected end of JSON input"),
            ("a: b: c", "invalid character 'a' looking for beginning of value"),
            ("{,}", "invalid character ',' looking for beginning of object key string"),
            ("{\n \"a\": 1 é}", "invalid character 'é' after object key:value pair"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} trailing", "invalid character 't' after top-level value"),
            ("{}{}", "invalid character '{' after top-level value"),
        ] {
            assert_eq!(parse(Format::Json, text.as_bytes()), Err(want.into()), "{text}");
        }
        assert!(parse(Format::Json, b"\xff\xfe").is_err());
        assert!(parse(Format::Json, b"tru\xff").is_err());
    }
}
