//! Certificate authorities of meshes and the certificates of proxies (xds.md §4.3).

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::SpiffeId;
use crate::cert::{self, BACKDATE, CertificateKey, LONG_VALIDITY};

/// Why an authority cannot be used, or a certificate not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate or the key does not parse.
    #[error("{what} cannot be read: {reason}")]
    Unreadable {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The parser's reason.
        reason: String,
    },
    /// The certificate is no authority as meshes need it.
    #[error("certificate cannot be used as an authority: {0}")]
    Unsuitable(&'static str),
    /// The key belongs to another certificate.
    #[error("private key does not belong to the certificate")]
    KeyMismatch,
    /// The authority's own time is over.
    #[error("authority expired at {0}")]
    Expired(Timestamp),
    /// A time that a certificate cannot say.
    #[error("validity is out of range")]
    Time,
    /// The cryptographic library refused.
    #[error("cannot make a certificate")]
    Generate(#[source] rcgen::Error),
}

/// A certificate authority, ready to issue.
pub struct CertificateAuthority {
    cert_pem: String,
    key_pem: String,
    not_after: Timestamp,
    self_signed: bool,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("cert_pem", &self.cert_pem)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A proxy's certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate alone, PEM; no intermediates.
    pub chain_pem: String,
    /// Its key, PKCS#8 PEM.
    pub key_pem: String,
    /// End of its life.
    pub not_after: Timestamp,
    /// When it was made; see [`rotation::due`](crate::rotation::due).
    pub generated_at: Timestamp,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("chain_pem", &self.chain_pem)
            .field("not_after", &self.not_after)
            .field("generated_at", &self.generated_at)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new self-signed authority for a trust domain, valid ten years.
    ///
    /// # Errors
    /// A trust domain that no certificate can hold.
    pub fn generate(trust_domain: &str, now: Timestamp, serial: [u8; 16]) -> Result<Self, CaError> {
        let key = cert::new_key()?;
        let mut params = cert::params(now, BACKDATE, LONG_VALIDITY, serial)?;
        params.distinguished_name = cert::subject(trust_domain);
        let id = format!("spiffe://{trust_domain}").try_into().map_err(CaError::Generate)?;
        params.subject_alt_names = vec![SanType::URI(id)];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(CaError::Generate)?;
        Self::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
    }

    /// An authority that exists: certificate and key as PEM, RSA or EC. Further certificates after the first
    /// are ignored.
    ///
    /// # Errors
    /// Anything that makes it unfit: not an authority, must not sign certificates, wrong key.
    pub fn from_pem(cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, CaError> {
        let unreadable = |what, reason: String| CaError::Unreadable { what, reason };
        let der = CertificateDer::from_pem_slice(cert_pem)
            .map_err(|error| unreadable("certificate", error.to_string()))?;
        let key_der = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|_| unreadable("private key", "it is no PEM private key".into()))?;
        let key = KeyPair::try_from(&key_der)
            .map_err(|_| unreadable("private key", "it is neither an RSA nor an EC key".into()))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| unreadable("certificate", error.to_string()))?;
        check(&parsed)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(CaError::KeyMismatch);
        }
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
            .map_err(|error| unreadable("certificate", error.to_string()))?;
        let self_signed = parsed.subject() == parsed.issuer() && parsed.verify_signature(None).is_ok();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(CaError::Generate)?;
        Ok(CertificateAuthority {
            cert_pem: crate::pem::encode("CERTIFICATE", &der),
            key_pem: crate::pem::encode(label(&key_der), key_der.secret_der()),
            not_after,
            self_signed,
            issuer,
        })
    }

    /// The certificate, PEM: what a MeshTrust publishes.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Certificate and key, for a secret.
    pub fn to_pem(&self) -> CertificateKey {
        CertificateKey { cert_pem: self.cert_pem.clone(), key_pem: self.key_pem.clone() }
    }

    /// End of its life.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether it vouches for itself, which `insecureAllowSelfSigned` must admit.
    pub fn is_self_signed(&self) -> bool {
        self.self_signed
    }

    /// A certificate for a proxy, for both ends of mTLS: the SPIFFE id is its only name.
    ///
    /// # Errors
    /// The authority has expired.
    pub fn issue_leaf(
        &self,
        id: &SpiffeId,
        now: Timestamp,
        expiry: Duration,
        serial: [u8; 16],
    ) -> Result<Leaf, CaError> {
        let mut params = cert::params(now, BACKDATE, expiry, serial)?;
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(CaError::Generate)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyAgreement,
        ];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = self.sign(params, now)?;
        let not_after = cert::shift(now, expiry, true)?;
        Ok(Leaf { chain_pem: signed.cert_pem, key_pem: signed.key_pem, not_after, generated_at: now })
    }

    /// Makes a key and signs a certificate for it.
    pub(crate) fn sign(
        &self,
        mut params: rcgen::CertificateParams,
        now: Timestamp,
    ) -> Result<CertificateKey, CaError> {
        if now >= self.not_after {
            return Err(CaError::Expired(self.not_after));
        }
        params.use_authority_key_identifier_extension = true;
        let key = cert::new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Generate)?;
        Ok(CertificateKey { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn label(key: &PrivateKeyDer<'_>) -> &'static str {
    match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    }
}

fn check(cert: &X509Certificate<'_>) -> Result<(), CaError> {
    if !cert.is_ca() {
        return Err(CaError::Unsuitable("basic constraint CA must be true"));
    }
    let usage = cert.key_usage().ok().flatten();
    if !usage.as_ref().is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(CaError::Unsuitable("key usage keyCertSign must be set"));
    }
    if usage.is_some_and(|usage| usage.value.key_agreement()) {
        return Err(CaError::Unsuitable("key usage keyAgreement must not be set"));
    }
    // Leaves must repeat this name to the byte, and the certificate writer keeps one value per attribute.
    let mut seen = Vec::new();
    for part in cert.subject().iter_rdn() {
        let attributes: Vec<_> = part.iter().map(|attribute| attribute.attr_type()).collect();
        if attributes.len() != 1 || attributes.iter().any(|attribute| seen.contains(attribute)) {
            return Err(CaError::Unsuitable("subject must not repeat or combine attributes"));
        }
        seen.extend(attributes);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
