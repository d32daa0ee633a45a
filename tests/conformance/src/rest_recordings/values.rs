//! Values of placeholders in requests: what earlier answers bound, and what the recording describes in words.

use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use graticule_identity::CertificateAuthority;
use graticule_identity::tokens::SigningKey;
use jiff::Timestamp;
use regex::{Captures, Regex};
use serde_json::Value;

use crate::compare::Bindings;

static PLACEHOLDER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"<([A-Za-z][^<>]*)>").expect("a constant expression"));

/// Replaces the placeholders of a text. What is bound to nothing yet is made up and bound.
pub(super) fn substitute(text: &str, tokens: &Value, bindings: &mut Bindings) -> Result<String> {
    let mut failure = None;
    let replaced = PLACEHOLDER.replace_all(text, |captures: &Captures<'_>| {
        let (whole, name) = (captures[0].to_owned(), &captures[1]);
        match value(name, tokens, bindings) {
            Ok(value) => value.unwrap_or(whole),
            Err(error) => {
                failure = Some(error.context(whole.clone()));
                whole
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(replaced.into_owned()),
    }
}

/// The same in all texts of a document.
pub(super) fn substitute_in(value: &mut Value, tokens: &Value, bindings: &mut Bindings) -> Result<()> {
    match value {
        Value::String(text) => *text = substitute(text, tokens, bindings)?,
        Value::Array(items) => {
            for item in items {
                substitute_in(item, tokens, bindings)?;
            }
        }
        Value::Object(members) => {
            for member in members.values_mut() {
                substitute_in(member, tokens, bindings)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// `None`: no placeholder.
fn value(name: &str, tokens: &Value, bindings: &mut Bindings) -> Result<Option<String>> {
    if let Some(bound) = bindings.get(name) {
        return Ok(Some(bound.to_owned()));
    }
    if let Some(parts) = name.strip_prefix("base64: ") {
        return list(parts, tokens, bindings).map(Some);
    }
    let description = tokens.get(format!("<{name}>")).and_then(Value::as_str);
    let made = match (name.trim_end_matches(|c: char| c.is_ascii_digit()), description) {
        (_, Some(description)) => described(description, tokens, bindings)?,
        ("pem-", _) => certificate()?,
        ("base64-of-pem-", _) => STANDARD.encode(SigningKey::generate()?.to_pem()),
        ("time-", _) => "2026-01-02T03:04:05Z".to_owned(),
        _ => return Ok(None),
    };
    bindings.set(name, &made);
    Ok(Some(made))
}

fn certificate() -> Result<String> {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    Ok(CertificateAuthority::generate("default.east.mesh.local", now, [7; 16])?.cert_pem().to_owned())
}

/// `aaa, comma, space, jti of jane`, in base64.
fn list(parts: &str, tokens: &Value, bindings: &Bindings) -> Result<String> {
    let mut text = String::new();
    for part in parts.split(", ") {
        match part {
            "comma" => text.push(','),
            "space" => text.push(' '),
            "newline" => text.push('\n'),
            "jti of jane" => {
                let claims = decode(part_of(jane(tokens, bindings)?, 1)?)?;
                text.push_str(claims.get("jti").and_then(Value::as_str).context("no jti")?);
            }
            literal => text.push_str(literal),
        }
    }
    Ok(STANDARD.encode(text))
}

/// A token made of jane's as the recording says in words.
fn described(description: &str, tokens: &Value, bindings: &Bindings) -> Result<String> {
    let token = jane(tokens, bindings)?;
    if description.contains("signature changed") {
        let (signed, signature) = token.rsplit_once('.').context("no token")?;
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        return Ok(format!("{signed}.{first}{}", &signature[1..]));
    }
    let Some((header, signature)) =
        description.split_once("header ").and_then(|(_, rest)| rest.split_once(", signature"))
    else {
        bail!("nobody made a token that is: {description}");
    };
    let signature = if signature.contains("empty") { "" } else { part_of(token, 2)? };
    Ok(format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), part_of(token, 1)?))
}

fn jane<'a>(tokens: &Value, bindings: &'a Bindings) -> Result<&'a str> {
    let all = tokens.as_object().into_iter().flatten();
    let mut janes = all.filter(|(_, text)| text.as_str().is_some_and(|text| text.starts_with("jane,")));
    let (placeholder, _) = janes.next().context("no token of jane")?;
    bindings.get(placeholder.trim_matches(['<', '>'])).context("jane has no token yet")
}

/// Part of a compact token.
fn part_of(token: &str, index: usize) -> Result<&str> {
    token.split('.').nth(index).context("no token")
}

fn decode(part: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// Header and claims of a token, times relative to `iat` as in the recordings.
pub(super) fn decoded(token: &str) -> Result<Value> {
    let header = decode(part_of(token.trim(), 0)?)?;
    let mut claims = decode(part_of(token.trim(), 1)?)?;
    let issued = claims.get("iat").and_then(Value::as_i64).context("no iat")?;
    for key in ["exp", "nbf", "iat"] {
        if let Some(value) = claims.get_mut(key)
            && let Some(time) = value.as_i64()
        {
            *value = match time - issued {
                0 => "<iat>".into(),
                later => format!("<iat>+{later}").into(),
            };
        }
    }
    Ok(serde_json::json!({"header": header, "claims": claims}))
}
