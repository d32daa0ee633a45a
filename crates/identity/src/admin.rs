//! The authority behind Envoys' admin listeners (tokens-and-access.md §10.1).

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use crate::cert::{self, CertificateKey, LONG_VALIDITY};
use crate::{CaError, CertificateAuthority};

/// GlobalSecret that holds the authority: certificate PEM, then key PEM.
pub const SECRET: &str = "envoy-admin-ca";

/// Name in the control plane's client certificate.
pub const CLIENT_NAME: &str = "kuma-cp";

/// Issues the certificates of both ends: Envoys serve, the control plane is the client.
#[derive(Debug)]
pub struct AdminAuthority(CertificateAuthority);

impl AdminAuthority {
    /// A new authority, valid ten years.
    ///
    /// # Errors
    /// `now` is out of a certificate's range.
    pub fn generate(now: Timestamp, serial: [u8; 16]) -> Result<Self, CaError> {
        let key = cert::new_key()?;
        let mut params = cert::params(now, cert::BACKDATE, LONG_VALIDITY, serial)?;
        params.distinguished_name = cert::subject("Envoy Admin CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(CaError::Generate)?;
        let authority =
            CertificateAuthority::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
        Ok(AdminAuthority(authority))
    }

    /// From the secret's bytes.
    ///
    /// # Errors
    /// As [`CertificateAuthority::from_pem`].
    pub fn from_secret(data: &[u8]) -> Result<Self, CaError> {
        // Each reader takes the first block of its kind.
        CertificateAuthority::from_pem(data, data).map(AdminAuthority)
    }

    /// The secret's bytes.
    pub fn to_secret(&self) -> Vec<u8> {
        let CertificateKey { cert_pem, key_pem } = self.0.to_pem();
        format!("{cert_pem}{key_pem}").into_bytes()
    }

    /// The certificate, PEM.
    pub fn cert_pem(&self) -> &str {
        self.0.cert_pem()
    }

    /// For the admin listener of a proxy at `address` (an IP address or a DNS name).
    ///
    /// # Errors
    /// An address that no certificate can hold, an expired authority.
    pub fn server_cert(
        &self,
        address: &str,
        now: Timestamp,
        serial: [u8; 16],
    ) -> Result<CertificateKey, CaError> {
        self.issue(address, ExtendedKeyUsagePurpose::ServerAuth, now, serial)
    }

    /// For the control plane.
    ///
    /// # Errors
    /// An expired authority.
    pub fn client_cert(&self, now: Timestamp, serial: [u8; 16]) -> Result<CertificateKey, CaError> {
        self.issue(CLIENT_NAME, ExtendedKeyUsagePurpose::ClientAuth, now, serial)
    }

    fn issue(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        now: Timestamp,
        serial: [u8; 16],
    ) -> Result<CertificateKey, CaError> {
        let mut params: CertificateParams = cert::params(now, cert::BACKDATE, LONG_VALIDITY, serial)?;
        params.subject_alt_names = vec![match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.try_into().map_err(CaError::Generate)?),
        }];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        self.0.sign(params, now)
    }
}
