//! Writing PEM; reading is rustls-pki-types' business.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Text lines of RFC 7468 have 64 characters.
const LINE: usize = 64;

/// One PEM block.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
