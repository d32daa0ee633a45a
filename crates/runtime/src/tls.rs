//! Certificates of servers, and what clients trust (tokens-and-access.md §10.3).

mod cert;
mod client;
mod clients;
mod generate;
mod watched;

use std::path::{Path, PathBuf};

pub use cert::{CertOptions, Sans, ServerCert, ServerTls};
pub use client::{ClientTrust, client_config};
pub use generate::self_signed;

/// Names of the generated files in the work directory.
pub const CERT_FILE: &str = "kuma-cp.crt";
/// See [`CERT_FILE`].
pub const KEY_FILE: &str = "kuma-cp.key";

/// Largest certificate or key file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{what}: {reason}")]
    Invalid {
        /// File or setting.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Only one of the certificate file and the key file is set.
    #[error("certificate file and key file must be set together")]
    Incomplete,
    /// A version name other than `TLSv1_2` and `TLSv1_3`.
    #[error("TLS version {0:?} is not one of TLSv1_2, TLSv1_3")]
    Version(String),
    /// A combination that the TLS library refuses.
    #[error("TLS configuration is refused")]
    Refused(#[source] rustls::Error),
    /// The authorities that a client should trust cannot be used.
    #[error("authorities")]
    Authorities(#[source] graticule_tls::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Generate(#[source] rcgen::Error),
}

impl Error {
    fn invalid(what: impl std::fmt::Display, reason: impl std::fmt::Display) -> Error {
        Error::Invalid { what: what.to_string(), reason: reason.to_string() }
    }
}

/// Makes aws-lc the process's only TLS provider. Call it first in `main`; a second call changes nothing.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Whether two names of versions, each `""` (no bound), `TLSv1_2` or `TLSv1_3`, can bound a listener.
///
/// # Errors
/// An unknown name, or no version between the two.
pub fn check_versions(min: &str, max: &str) -> Result<(), Error> {
    versions(min, max).map(|_| ())
}

/// Whether a file names authorities for [`ServerTls::client_ca`].
///
/// # Errors
/// It cannot be read, or holds no authority that can be used.
pub fn check_client_authorities(file: &Path) -> Result<(), Error> {
    clients::Clients::of(file).map(|_| ())
}

/// Protocol versions between two names, each `""` (no bound), `TLSv1_2` or `TLSv1_3`.
fn versions(min: &str, max: &str) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, Error> {
    let all = [("TLSv1_2", &rustls::version::TLS12), ("TLSv1_3", &rustls::version::TLS13)];
    let index = |name: &str, unset: usize| match name {
        "" => Ok(unset),
        name => all.iter().position(|(known, _)| *known == name).ok_or_else(|| Error::Version(name.into())),
    };
    let (min, max) = (index(min, 0)?, index(max, all.len() - 1)?);
    if min > max {
        return Err(Error::invalid("TLS versions", "the lowest is above the highest"));
    }
    Ok(all[min..=max].iter().map(|(_, version)| *version).collect())
}

#[cfg(test)]
mod tests;
