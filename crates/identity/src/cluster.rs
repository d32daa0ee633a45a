//! Who belongs to a cluster of control plane replicas: everybody who has its token.
//!
//! The key of the members' authority is derived from the token (HKDF-SHA256 → Ed25519), so that each member makes its
//! own certificate when it starts, and knows the certificates of the others without having seen them. Nothing is
//! exchanged, and nothing expires: what counts is the token.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{CaError, cert};

/// What the text of a token begins with.
const PREFIX: &str = "gct_";
/// Domain of the derivation: another use of the token would give another key.
const SALT: &[u8] = b"graticule cluster members v1";

/// The secret that the members of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterToken([u8; 32]);

/// Why a text is no cluster token. Says nothing about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no cluster token; `grat generate cluster-token` makes one")]
pub struct NoClusterToken;

impl ClusterToken {
    /// A token out of 32 random bytes, which must come from a generator that is fit for keys.
    pub fn new(random: [u8; 32]) -> ClusterToken {
        ClusterToken(random)
    }

    /// Reads a token; blanks around it do not matter.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<ClusterToken, NoClusterToken> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(NoClusterToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| NoClusterToken)?;
        bytes.try_into().map(ClusterToken).map_err(|_| NoClusterToken)
    }

    /// The text, which is a secret.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterToken(…)")
    }
}

/// Makes the certificates of members.
pub struct MemberAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// The certificate of a member, for both ends of a connection.
pub struct MemberCertificate {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl MemberAuthority {
    /// The authority of a token. `site` (`global`, `zone-east`) keeps clusters apart that were given the same token.
    ///
    /// # Errors
    /// The cryptographic library refuses.
    pub fn derive(token: &ClusterToken, site: &str) -> Result<MemberAuthority, CaError> {
        let unreadable = |what: &str| CaError::Unreadable { what: "private key", reason: what.into() };
        let prk = Salt::new(HKDF_SHA256, SALT).extract(&token.0);
        let mut seed = [0; 32];
        prk.expand(&[b"authority ", site.as_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut seed))
            .map_err(|_| unreadable("it cannot be derived"))?;
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| unreadable(&error.to_string()))?;
        let pkcs8 = pair.to_pkcs8().map_err(|_| unreadable("it cannot be written"))?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.as_ref())).map_err(CaError::Generate)?;
        let mut params = params("graticule cluster authority", [1; 16]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(CaError::Generate)?.der().clone();
        Ok(MemberAuthority { certificate, issuer: Issuer::new(params, key) })
    }

    /// What others verify certificates of members with.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate with a new key. All members have the same `name`: who has the token is a member.
    ///
    /// # Errors
    /// A name that no certificate can hold.
    pub fn issue(&self, name: &str, serial: [u8; 16]) -> Result<MemberCertificate, CaError> {
        let key = cert::new_key()?;
        let mut params = params("graticule cluster member", serial);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(CaError::Generate)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Generate)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(MemberCertificate { certificate: certificate.der().clone(), key })
    }
}

/// Valid at all times, so that no clock keeps members apart.
fn params(common_name: &str, serial: [u8; 16]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params.serial_number = Some(SerialNumber::from_slice(&cert::positive(serial)));
    params
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn tokens_read_what_they_write() {
        let token = ClusterToken::new([7; 32]);
        let text = token.to_text();
        assert!(text.starts_with("gct_"), "{text}");
        assert_eq!(ClusterToken::parse(&format!(" {text}\n")), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&text[4..]));
        for bad in ["", "gct_", "gct_AAAA", &text[4..], &format!("{text}A"), &text.replace("gct_", "gct-")] {
            assert_eq!(ClusterToken::parse(bad), Err(NoClusterToken), "{bad}");
        }
    }

    #[test]
    fn the_token_and_the_site_make_the_authority() {
        let key = |bytes: [u8; 32], site: &str| {
            let authority = MemberAuthority::derive(&ClusterToken::new(bytes), site).expect("derived");
            let (_, parsed) = X509Certificate::from_der(authority.certificate()).expect("a certificate");
            assert!(parsed.verify_signature(None).is_ok());
            parsed.public_key().subject_public_key.data.to_vec()
        };
        assert_eq!(key([1; 32], "global"), key([1; 32], "global"));
        assert_ne!(key([1; 32], "global"), key([2; 32], "global"));
        assert_ne!(key([1; 32], "global"), key([1; 32], "zone-east"));
    }

    #[test]
    fn members_are_signed_by_their_authority() {
        let authority =
            |byte: u8| MemberAuthority::derive(&ClusterToken::new([byte; 32]), "global").expect("derived");
        let (own, other) = (authority(1), authority(2));
        let member = own.issue("member.graticule.internal", [3; 16]).expect("issued");
        let (_, member) = X509Certificate::from_der(&member.certificate).expect("a certificate");
        for (authority, is_good) in [(&own, true), (&other, false)] {
            let (_, parsed) = X509Certificate::from_der(authority.certificate()).expect("a certificate");
            assert_eq!(member.verify_signature(Some(parsed.public_key())).is_ok(), is_good);
        }
    }
}
