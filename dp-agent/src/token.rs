//! The token of the proxy: where it comes from and whether it can be one at all. Only the control plane checks
//! its signature.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::workdir::write_private;

/// Longest token, in bytes.
const TOKEN_LEN_MAX: usize = 64 * 1024;

/// Where the token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// None given.
    None,
    /// A file.
    File(PathBuf),
    /// The text itself.
    Inline(String),
}

/// A token that has the form of one, and the file that holds it. Not printable.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) path: PathBuf,
}

/// Why a token cannot be used. Never holds the token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the token file {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write the token to {path}")]
    Write {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the token in {path} cannot be used: {reason}; generate one with `generate dataplane-token`")]
    Invalid { path: String, reason: &'static str },
}

/// Loads and checks the token. An inline token is written to `<workdir>/<name>`, so that Envoy can read it.
pub(crate) fn load(source: &Source, workdir: &Path, name: &str) -> Result<Option<Token>, Error> {
    let (text, path) = match source {
        Source::None => return Ok(None),
        Source::File(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::Read { path: path.display().to_string(), source })?;
            (text, path.clone())
        }
        Source::Inline(text) => (text.clone(), workdir.join(name)),
    };
    let text = text.trim().to_owned();
    check(&text).map_err(|reason| Error::Invalid { path: path.display().to_string(), reason })?;
    if matches!(source, Source::Inline(_)) {
        write_private(&path, text.as_bytes())
            .map_err(|source| Error::Write { path: path.display().to_string(), source })?;
    }
    Ok(Some(Token { text, path }))
}

/// What keeps a trimmed text from being a signed token.
fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > TOKEN_LEN_MAX {
        return Err("it is longer than 64 KiB");
    }
    if text.lines().nth(1).is_some() {
        return Err("it has more than one line");
    }
    let mut segments = text.split('.');
    let (Some(header), Some(_), Some(_), None) =
        (segments.next(), segments.next(), segments.next(), segments.next())
    else {
        return Err("it is not a JWT: it must have three parts with dots between them");
    };
    let header =
        URL_SAFE_NO_PAD.decode(header).map_err(|_| "it is not a JWT: its header is not base64url")?;
    let header: serde_json::Value =
        serde_json::from_slice(&header).map_err(|_| "it is not a JWT: its header is not JSON")?;
    match header.get("alg").and_then(serde_json::Value::as_str) {
        Some(alg) if !alg.is_empty() => Ok(()),
        _ => Err("it is not a JWT: its header names no algorithm (`alg`)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_jwt(header: &str) -> String {
        format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn checks() {
        for (text, expected) in [
            (mk_jwt(r#"{"alg":"RS256"}"#), None),
            (String::new(), Some("empty")),
            ("word".into(), Some("three parts")),
            ("a.b.c.d".into(), Some("three parts")),
            (format!("{}\nmore", mk_jwt(r#"{"alg":"RS256"}"#)), Some("more than one line")),
            ("*.b.c".into(), Some("base64url")),
            (mk_jwt("nope"), Some("not JSON")),
            (mk_jwt(r#"{"typ":"JWT"}"#), Some("alg")),
            (mk_jwt(r#"{"alg":""}"#), Some("alg")),
            ("a".repeat(TOKEN_LEN_MAX + 1), Some("64 KiB")),
        ] {
            match (check(&text), expected) {
                (Ok(()), None) => {}
                (Err(reason), Some(part)) => assert!(reason.contains(part), "{reason}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
