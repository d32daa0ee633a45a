//! What all certificates have in common.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

use crate::CaError;

/// Ten years.
pub(crate) const LONG_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate and its private key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey {
    /// The certificate.
    pub cert_pem: String,
    /// The key, PKCS#8.
    pub key_pem: String,
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateKey").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// Certificates are valid earlier than now: clocks of a federation may differ by ten minutes, and a proxy must not wait
/// until its own clock has reached the beginning.
pub(crate) const BACKDATE: Duration = Duration::from_secs(15 * 60);

/// Parameters without names and usages, valid from `now - backdate` to `now + validity`.
pub(crate) fn params(
    now: Timestamp,
    backdate: Duration,
    validity: Duration,
    serial: [u8; 16],
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // rcgen's dates count from 1970, too; times before it were refused by `shift`.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    params.not_before = epoch + since_epoch(shift(now, backdate, false)?);
    params.not_after = epoch + since_epoch(shift(now, validity, true)?);
    params.serial_number = Some(SerialNumber::from_slice(&positive(serial)));
    Ok(params)
}

/// Common name, organisation `Kuma` and unit `Mesh`, as operators' tools know them.
pub(crate) fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Kuma");
    name.push(DnType::OrganizationalUnitName, "Mesh");
    name.push(DnType::CommonName, common_name);
    name
}

/// A new P-256 key.
pub(crate) fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Generate)
}

/// `now` moved by `by`, forward or back, within what a certificate can say.
pub(crate) fn shift(now: Timestamp, by: Duration, forward: bool) -> Result<Timestamp, CaError> {
    let by = SignedDuration::try_from(by).map_err(|_| CaError::Time)?;
    let moved = if forward { now.checked_add(by) } else { now.checked_sub(by) };
    moved.ok().filter(|time| time.as_second() >= 0).ok_or(CaError::Time)
}

/// Serial numbers are positive and not zero (RFC 5280 §4.1.2.2).
pub(crate) fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[0] = (serial[0] & 0x7f) | 0x01;
    serial
}
