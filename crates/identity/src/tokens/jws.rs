//! Writing and checking the tokens themselves: compact JWS with RS256 (RFC 7515), nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use graticule_model::GoDuration;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{KeySource, Revocations, SigningKey, TOKEN_BYTES_MAX, TokenError};

/// Issuers date tokens back, for clocks that lag.
const BACKDATE: SignedDuration = SignedDuration::from_secs(5);

/// Seconds that the clock of an issuer may be ahead: clocks of a federation may differ by ten minutes.
const LEEWAY: f64 = 15.0 * 60.0;

const ALGORITHM: &str = "RS256";

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Serialize)]
struct Payload<'a, C> {
    #[serde(flatten)]
    claims: &'a C,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: &'a str,
}

/// The registered claims that are checked; keys are lower-case when this is read.
#[derive(Deserialize)]
struct Registered {
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    jti: Option<String>,
}

/// A token that passed all checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated<C> {
    /// What it says.
    pub claims: C,
    /// Its id; empty if it has none.
    pub jti: String,
    /// The key that signed it.
    pub kid: String,
    /// End of its life, seconds since 1970; `None`: it has none.
    pub expires: Option<f64>,
}

/// Signs a token. `valid_for` may be negative, which gives an expired token.
///
/// # Errors
/// The key refuses, or the claims are no object.
pub fn issue<C: Serialize>(
    claims: &C,
    key: &SigningKey,
    kid: &str,
    now: Timestamp,
    valid_for: GoDuration,
    jti: &str,
) -> Result<String, TokenError> {
    let since = now.saturating_sub(BACKDATE).unwrap_or(now).as_second();
    let exp = now.saturating_add(SignedDuration::from_nanos(valid_for.0)).unwrap_or(now).as_second();
    let payload = Payload { claims, exp, nbf: since, iat: since, jti };
    let header = Header { alg: ALGORITHM, kid, typ: "JWT" };
    let sign = |error: serde_json::Error| TokenError::Sign(error.to_string());
    let mut token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).map_err(sign)?);
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload).map_err(sign)?));
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(token)
}

/// Checks a token, in the order of tokens-and-access.md §1: form, algorithm, key id; key; signature; times;
/// revocation. Nothing of the payload is looked at before the signature is good.
///
/// # Errors
/// The first check that fails.
pub fn validate<C: DeserializeOwned>(
    token: &str,
    keys: &dyn KeySource,
    revocations: &Revocations,
    now: Timestamp,
) -> Result<Validated<C>, TokenError> {
    let unparsable = |reason: &str| TokenError::Unparsable(reason.into());
    if token.len() > TOKEN_BYTES_MAX {
        return Err(unparsable("token is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| unparsable(SEGMENTS))?;
    let (header, payload) = signed
        .split_once('.')
        .filter(|(_, payload)| !payload.contains('.'))
        .ok_or_else(|| unparsable(SEGMENTS))?;
    let kid = key_id(&object(header, "header")?)?;
    let key = keys.public_key(&kid)?;
    let signature = decode(signature, "signature")?;
    if !key.verifies(signed.as_bytes(), &signature) {
        return Err(unparsable("token signature is invalid"));
    }
    let payload = Value::Object(lower_keys(object(payload, "claims")?));
    let registered: Registered = read(payload.clone())?;
    let seconds = now.as_second() as f64 + f64::from(now.subsec_nanosecond()) / 1e9;
    if registered.exp.is_some_and(|exp| seconds >= exp) {
        return Err(unparsable("token has invalid claims: token is expired"));
    }
    if registered.nbf.is_some_and(|nbf| seconds + LEEWAY < nbf) {
        return Err(TokenError::NotYetValid("token has invalid claims: token is not valid yet".into()));
    }
    let jti = registered.jti.unwrap_or_default();
    if revocations.contains(&jti) {
        return Err(TokenError::Revoked);
    }
    Ok(Validated { claims: read(payload)?, jti, kid, expires: registered.exp })
}

const SEGMENTS: &str = "token contains an invalid number of segments";

fn key_id(header: &Map<String, Value>) -> Result<String, TokenError> {
    let kid = match header.get("kid") {
        None => return Err(TokenError::Unparsable("JWT token must have kid header".into())),
        Some(Value::String(kid)) => kid.clone(),
        Some(_) => return Err(TokenError::Unparsable("kid header must be a string".into())),
    };
    match header.get("alg") {
        Some(Value::String(alg)) if alg == ALGORITHM => {}
        Some(Value::String(alg)) => {
            return Err(TokenError::Unparsable(format!(
                "signing method {alg} is invalid, only {ALGORITHM} is accepted"
            )));
        }
        _ => return Err(TokenError::Unparsable("token has no signing method".into())),
    }
    // RFC 7515 §4.1.11: who does not understand a critical extension must refuse it.
    if header.contains_key("crit") {
        return Err(TokenError::Unparsable("critical header extensions are not supported".into()));
    }
    Ok(kid)
}

fn decode(part: &str, what: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Unparsable(format!("token is malformed: {what} is not base64url")))
}

fn object(part: &str, what: &str) -> Result<Map<String, Value>, TokenError> {
    serde_json::from_slice(&decode(part, what)?)
        .map_err(|_| TokenError::Unparsable(format!("token is malformed: {what} is no JSON object")))
}

/// Keys match in any case; one that is lower-case already wins over others, whatever their order.
fn lower_keys(object: Map<String, Value>) -> Map<String, Value> {
    let (lower, other): (Vec<_>, Vec<_>) =
        object.into_iter().partition(|(key, _)| !key.chars().any(char::is_uppercase));
    let mut lowered: Map<String, Value> =
        other.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
    lowered.extend(lower);
    lowered
}

fn read<T: DeserializeOwned>(payload: Value) -> Result<T, TokenError> {
    serde_json::from_value(payload).map_err(|error| {
        TokenError::Unparsable(format!("token is malformed: could not read claims: {error}"))
    })
}
