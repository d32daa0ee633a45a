//! Certificates that clients must show, of authorities in a file that is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::Error;
use super::cert::{certificates, read};
use super::watched::Watched;

/// Admits clients of the authorities that the file names now.
#[derive(Debug)]
pub(super) struct Clients(Watched<Arc<dyn ClientCertVerifier>>);

impl Clients {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or holds no authority that can be used.
    pub(super) fn of(file: &Path) -> Result<Clients, Error> {
        Watched::new("client authorities", vec![file.into()], verifier).map(Clients)
    }
}

fn verifier(paths: &[PathBuf]) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    let mut file = Path::new("");
    for path in paths {
        file = path;
        for authority in certificates(&read(path)?, path.display())? {
            roots.add(authority).map_err(|error| Error::invalid(path.display(), error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| Error::invalid(file.display(), error))
}

impl ClientCertVerifier for Clients {
    /// None: the names would have to outlive a change of the file. Clients then offer what they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.fresh().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.fresh().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.fresh().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.fresh().supported_verify_schemes()
    }
}
