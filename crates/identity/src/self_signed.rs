//! Certificates that are their own authority, for servers and clients of the operator's choice
//! (tokens-and-access.md §10.3).

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
    SanType,
};

use crate::CaError;
use crate::cert::{self, CertificateKey, LONG_VALIDITY};

/// Who shows the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A server; clients take the certificate as its authority.
    Server,
    /// A client.
    Client,
}

/// Algorithm of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA with P-256.
    P256,
    /// RSA with 2048 bits; takes some tens of milliseconds.
    Rsa2048,
}

/// A certificate for these DNS names and IP addresses, valid ten years.
///
/// # Errors
/// A name that no certificate can hold, `now` out of a certificate's range.
pub fn generate(
    usage: Usage,
    hostnames: &[String],
    key_type: KeyType,
    now: Timestamp,
    serial: [u8; 16],
) -> Result<CertificateKey, CaError> {
    let key = match key_type {
        KeyType::P256 => cert::new_key()?,
        KeyType::Rsa2048 => {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(CaError::Generate)?
        }
    };
    let mut params = cert::params(now, cert::BACKDATE, LONG_VALIDITY, serial)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = match usage {
        Usage::Server => {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
            vec![ExtendedKeyUsagePurpose::ServerAuth]
        }
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    for name in hostnames {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(CaError::Generate)?),
        });
    }
    let certificate = params.self_signed(&key).map_err(CaError::Generate)?;
    Ok(CertificateKey { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn both_sides_with_both_keys() {
        let now: Timestamp = "2026-08-01T00:00:00Z".parse().expect("time");
        let names = ["a.b".to_owned(), "10.0.0.1".to_owned()];
        for (usage, key_type, is_ca, rsa) in [
            (Usage::Server, KeyType::P256, true, false),
            (Usage::Server, KeyType::Rsa2048, true, true),
            (Usage::Client, KeyType::P256, false, false),
        ] {
            let made = generate(usage, &names, key_type, now, [9; 16]).expect("made");
            let der = CertificateDer::from_pem_slice(made.cert_pem.as_bytes()).expect("PEM");
            let (_, parsed) = X509Certificate::from_der(&der).expect("certificate");
            assert_eq!(parsed.is_ca(), is_ca, "{usage:?}");
            let sans = parsed.subject_alternative_name().expect("one").expect("names").value;
            assert_eq!(sans.general_names.len(), 2);
            let usages = parsed.extended_key_usage().expect("one").expect("usages").value;
            assert_eq!((usages.server_auth, usages.client_auth), (is_ca, !is_ca));
            let algorithm = parsed.public_key().algorithm.algorithm.to_string();
            assert_eq!(algorithm == "1.2.840.113549.1.1.1", rsa, "{algorithm}");
            assert!(made.key_pem.contains("PRIVATE KEY"));
        }
        assert!(generate(Usage::Server, &["ü".into()], KeyType::P256, now, [1; 16]).is_err());
    }
}
