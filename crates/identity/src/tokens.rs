//! User, dataplane and zone tokens: compact JWS, RS256, keys named by a serial number
//! (tokens-and-access.md §1–3, §8.1).

mod claims;
mod dataplane;
mod jws;
mod keys;
mod names;

pub use claims::{DataplaneClaims, UserClaims, ZoneClaims};
pub use dataplane::{DataplaneTokenError, check_dataplane};
pub use jws::{Validated, issue, validate};
pub use keys::{KeyError, KeySource, Keys, PublicKey, ReadSecret, Revocations, SigningKey, StaticKey};
pub use names::{TokenKind, signing_key_mesh};

/// Largest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Why a token is refused or cannot be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, wrong algorithm, wrong signature, expired.
    #[error("could not parse token: {0}")]
    Unparsable(String),
    /// Its time has not come.
    #[error("token is not yet valid: {0}")]
    NotYetValid(String),
    /// Its id is in a revocation list.
    #[error("token is revoked")]
    Revoked,
    /// No key has this id. On issuing: there is no key at all yet.
    #[error(
        "there is no signing key with KID {kid}. {secret} is not found. If signing key was rotated, regenerate the token"
    )]
    NoSigningKey {
        /// The key id.
        kid: String,
        /// Where it should be: `Secret of name "…" in mesh "…"` or `GlobalSecret of name "…"`.
        secret: String,
    },
    /// The key is there but cannot be used.
    #[error("signing key with KID {kid} cannot be used")]
    UnusableKey {
        /// The key id.
        kid: String,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// The cryptographic library refused to sign, or the claims do not serialise.
    #[error("could not sign token: {0}")]
    Sign(String),
}

#[cfg(test)]
mod tests;
