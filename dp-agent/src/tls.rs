//! Whether the control plane is the one that was meant.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::host;

/// What to trust. Without PEM and file it is the operating system's bundle of authorities.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// The authority itself; wins over the file.
    pub(crate) pem: Option<String>,
    /// A file with the authority.
    pub(crate) pem_file: Option<PathBuf>,
    /// Trust everybody.
    pub(crate) skip_verify: bool,
}

/// Why nothing can be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{origin}: cannot be read")]
    Read {
        origin: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin}: {reason}")]
    Certificate { origin: String, reason: String },
    #[error(
        "no bundle of authorities was found on this system: name the control plane's authority with --ca-cert-file"
    )]
    NoSystemBundle,
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
    #[error("TLS cannot verify certificates")]
    Authorities(#[from] graticule_tls::Error),
}

impl Trust {
    /// The authority that was given, as PEM; `None` when the system's bundle decides.
    pub(crate) fn given_pem(&self) -> Result<Option<String>, Error> {
        let (origin, pem) = match (&self.pem, &self.pem_file) {
            (Some(pem), _) => ("GRATICULE_CONTROL_PLANE_CA_CERT".to_owned(), pem.clone()),
            (None, Some(path)) => {
                let origin = format!("--ca-cert-file {}", path.display());
                let pem = std::fs::read_to_string(path)
                    .map_err(|source| Error::Read { origin: origin.clone(), source })?;
                (origin, pem)
            }
            (None, None) => return Ok(None),
        };
        certificates(&origin, pem.as_bytes())?;
        Ok(Some(pem))
    }

    /// What a TLS client needs. Built when needed, not kept: authorities take memory.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match (self.skip_verify, self.given_pem()?) {
            (true, _) => graticule_tls::anybody(provider.clone()),
            (false, Some(pem)) => {
                let given = certificates("the given authority", pem.as_bytes())?;
                graticule_tls::chains_or_given(given, provider.clone())?
            }
            (false, None) => graticule_tls::chains(system_roots()?, provider.clone())?,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(origin: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |reason| Error::Certificate { origin: origin.to_owned(), reason };
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fail(format!("is no PEM: {error}")))?;
    if found.is_empty() {
        return Err(fail("has no certificate (expected PEM)".into()));
    }
    Ok(found)
}

/// The system's authorities; single ones that cannot be used are left out.
fn system_roots() -> Result<RootCertStore, Error> {
    let path = host::system_ca_path().ok_or(Error::NoSystemBundle)?;
    let origin = path.display().to_string();
    let pem = std::fs::read(&path).map_err(|source| Error::Read { origin: origin.clone(), source })?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&origin, &pem)?);
    Ok(roots)
}
