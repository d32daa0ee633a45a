//! Tokens of users, proxies and zones.

use std::sync::LazyLock;

use graticule_identity::tokens::{
    DataplaneClaims, PublicKey, Revocations, SigningKey, TokenKind, UserClaims, ZoneClaims, check_dataplane,
    issue, validate,
};
use graticule_identity::tokens::{KeySource, TokenError};
use graticule_model::{GoDuration, Timestamp};
use serde_json::Value;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().expect("the library makes keys"));

struct OneKey;

impl KeySource for OneKey {
    fn public_key(&self, kid: &str) -> Result<PublicKey, TokenError> {
        if kid == "1" { Ok(KEY.public()) } else { Err(TokenKind::User.no_signing_key(kid)) }
    }
}

/// The bytes as a token; and, if they are JSON, as what a well signed token says.
pub(crate) fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check(text);
    let Ok(claims @ Value::Object(_)) = serde_json::from_str(text) else { return };
    let hour = GoDuration::from_secs(3600);
    if let Ok(token) = issue(&claims, &KEY, "1", Timestamp::UNIX_EPOCH, hour, "id") {
        check(&token);
    }
}

fn check(token: &str) {
    let mut revocations = Revocations::default();
    revocations.add(b"revoked, other");
    let now = Timestamp::UNIX_EPOCH;
    let _ = validate::<UserClaims>(token, &OneKey, &revocations, now);
    let _ = validate::<ZoneClaims>(token, &OneKey, &revocations, now);
    if let Ok(proxy) = validate::<DataplaneClaims>(token, &OneKey, &revocations, now) {
        let labels = [("app".to_owned(), "web".to_owned())].into();
        let _ = check_dataplane(&proxy.claims, "web", "default", &labels, true);
    }
}
