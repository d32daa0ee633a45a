//! The certificate that a control plane makes for itself when it is given none.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

use super::Error;

/// Before now, for clocks that lag.
const BACKDATE: Duration = Duration::from_secs(15 * 60);
/// Ten years.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A self-signed P-256 server certificate that is also an authority (so that clients can take it as their
/// root), for these DNS names and IP addresses. Returns certificate and key as PEM.
///
/// # Errors
/// A name that no certificate can hold.
pub fn self_signed(names: &[String], now: Timestamp, serial: [u8; 16]) -> Result<(String, String), Error> {
    let key = KeyPair::generate().map_err(Error::Generate)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(Error::Generate)?;
    params.distinguished_name = DistinguishedName::new();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now.saturating_sub(BACKDATE) + VALIDITY;
    params.serial_number = Some(SerialNumber::from_slice(&positive(serial)));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.self_signed(&key).map_err(Error::Generate)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Serial numbers are positive and not zero (RFC 5280 §4.1.2.2).
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[0] = (serial[0] & 0x7f) | 0x01;
    serial
}
