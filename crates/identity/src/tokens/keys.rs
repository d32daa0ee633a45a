//! Keys that sign tokens, keys that check them, and where the latter are found.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::der_parser::parse_der;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{TokenError, TokenKind};

/// Smallest modulus, in bits.
const BITS_MIN: usize = 2048;
/// Largest modulus, in bits.
const BITS_MAX: usize = 8192;

/// Why a key cannot be used. Never holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither PEM nor DER of an RSA private key.
    #[error("it is no RSA private key (PEM \"RSA PRIVATE KEY\")")]
    NotPrivate,
    /// No PEM of an RSA public key.
    #[error("it is no RSA public key (PEM \"RSA PUBLIC KEY\" or \"PUBLIC KEY\")")]
    NotPublic,
    /// Too small or too large.
    #[error("it has {0} bits; RS256 needs 2048 to 8192")]
    Size(usize),
    /// The cryptographic library cannot make a key.
    #[error("a key cannot be generated")]
    Generate,
}

/// An RSA key that signs tokens.
pub struct SigningKey {
    pair: RsaKeyPair,
    pkcs1: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key of 2048 bits. Takes some tens of milliseconds.
    ///
    /// # Errors
    /// The cryptographic library cannot make one.
    pub fn generate() -> Result<SigningKey, KeyError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
        let pkcs1 = pkcs1_of_pkcs8(pkcs8.as_ref()).ok_or(KeyError::Generate)?;
        Ok(SigningKey { pair, pkcs1 })
    }

    /// From a secret's bytes: PEM (PKCS#1, also PKCS#8) or bare PKCS#1 DER.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_secret(data: &[u8]) -> Result<SigningKey, KeyError> {
        let pkcs1 = match PrivateKeyDer::from_pem_slice(data) {
            Ok(PrivateKeyDer::Pkcs1(key)) => key.secret_pkcs1_der().to_vec(),
            Ok(PrivateKeyDer::Pkcs8(key)) => {
                pkcs1_of_pkcs8(key.secret_pkcs8_der()).ok_or(KeyError::NotPrivate)?
            }
            Ok(_) => return Err(KeyError::NotPrivate),
            Err(_) => data.to_vec(),
        };
        let pair = RsaKeyPair::from_der(&pkcs1).map_err(|_| KeyError::NotPrivate)?;
        check_size(pair.public_modulus_len() * 8)?;
        Ok(SigningKey { pair, pkcs1 })
    }

    /// A secret's bytes: PKCS#1 PEM.
    pub fn to_pem(&self) -> String {
        crate::pem::encode("RSA PRIVATE KEY", &self.pkcs1)
    }

    #[cfg(test)]
    pub(super) fn pkcs1(&self) -> &[u8] {
        &self.pkcs1
    }

    /// What checks this key's signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().into())
    }

    /// RS256.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        match self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature) {
            Ok(()) => Ok(signature),
            Err(_) => Err(TokenError::Sign("the key refused".into())),
        }
    }
}

/// An RSA key that checks tokens, PKCS#1 DER. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Arc<[u8]>);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bytes)", self.0.len())
    }
}

impl PublicKey {
    /// From PEM, `RSA PUBLIC KEY` or `PUBLIC KEY`.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_pem(pem: &[u8]) -> Result<PublicKey, KeyError> {
        let (_, block) = parse_x509_pem(pem).map_err(|_| KeyError::NotPublic)?;
        let pkcs1 = match block.label.as_str() {
            "RSA PUBLIC KEY" => block.contents,
            "PUBLIC KEY" => {
                let (_, info) =
                    SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| KeyError::NotPublic)?;
                info.subject_public_key.data.into_owned()
            }
            _ => return Err(KeyError::NotPublic),
        };
        let (rest, key) = RSAPublicKey::from_der(&pkcs1).map_err(|_| KeyError::NotPublic)?;
        if !rest.is_empty() {
            return Err(KeyError::NotPublic);
        }
        check_size(key.key_size())?;
        Ok(PublicKey(pkcs1.into()))
    }

    /// PKCS#1 PEM.
    pub fn to_pem(&self) -> String {
        crate::pem::encode("RSA PUBLIC KEY", &self.0)
    }

    /// RS256.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0).verify(message, signature).is_ok()
    }
}

fn check_size(bits: usize) -> Result<(), KeyError> {
    if (BITS_MIN..=BITS_MAX).contains(&bits) { Ok(()) } else { Err(KeyError::Size(bits)) }
}

/// PKCS#8 wraps PKCS#1: `SEQUENCE { version, algorithm, OCTET STRING key, … }`.
fn pkcs1_of_pkcs8(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let (_, object) = parse_der(pkcs8).ok()?;
    let parts = object.as_sequence().ok()?;
    parts.get(2)?.as_slice().ok().map(<[u8]>::to_vec)
}

/// Finds the key for a key id.
pub trait KeySource {
    /// The key.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    fn public_key(&self, kid: &str) -> Result<PublicKey, TokenError>;
}

/// A public key from the configuration (`validator.publicKeys`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticKey {
    /// Its id.
    pub kid: String,
    /// For dataplane tokens of this mesh; empty: of all meshes.
    pub mesh: String,
    /// The key.
    pub key: PublicKey,
}

/// Reads the secret with a name.
pub type ReadSecret<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// The usual source: configured keys first, then secrets.
pub struct Keys<'a> {
    /// What the tokens are for.
    pub kind: TokenKind<'a>,
    /// Configured keys.
    pub configured: &'a [StaticKey],
    /// Reads the secret (of the mesh, or global, as the kind says) with a name; `None`: secrets are not used.
    pub secret: Option<ReadSecret<'a>>,
}

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("kind", &self.kind)
            .field("configured", &self.configured)
            .finish_non_exhaustive()
    }
}

impl KeySource for Keys<'_> {
    fn public_key(&self, kid: &str) -> Result<PublicKey, TokenError> {
        let of_mesh =
            |key: &&StaticKey| key.mesh.is_empty() || self.kind.mesh().is_none_or(|mesh| mesh == key.mesh);
        if let Some(found) = self.configured.iter().filter(of_mesh).find(|key| key.kid == kid) {
            return Ok(found.key.clone());
        }
        let unusable = |source| TokenError::UnusableKey { kid: kid.into(), source };
        if let (Some(secret), Ok(serial)) = (self.secret, kid.parse::<u64>()) {
            if let Some(data) = secret(&self.kind.secret_name(serial)) {
                return SigningKey::from_secret(&data).map(|key| key.public()).map_err(unusable);
            }
            if let Some(data) = self.kind.public_secret_name(serial).and_then(|name| secret(&name)) {
                return PublicKey::from_pem(&data).map_err(unusable);
            }
        }
        Err(self.kind.no_signing_key(kid))
    }
}

/// Ids of revoked tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations(BTreeSet<String>);

impl Revocations {
    /// Adds the ids of a secret: separated by commas; white space around them is not part of them.
    pub fn add(&mut self, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        self.0.extend(text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned));
    }

    /// Whether a token id is revoked.
    pub fn contains(&self, jti: &str) -> bool {
        self.0.contains(jti)
    }
}
