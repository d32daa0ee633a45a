//! Whether the control plane is the one that was meant.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::time::ASN1Time;

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
    Verifier(#[from] rustls::client::VerifierBuilderError),
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
            (true, _) => Arc::new(TrustEverybody(provider.clone())),
            (false, Some(pem)) => {
                let given = certificates("the given authority", pem.as_bytes())?;
                let mut roots = RootCertStore::empty();
                for certificate in &given {
                    roots.add(certificate.clone())?;
                }
                let chain =
                    WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
                Arc::new(GivenAuthority { given, chain })
            }
            (false, None) => {
                WebPkiServerVerifier::builder_with_provider(system_roots()?.into(), provider.clone())
                    .build()?
            }
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

/// A chain up to a given certificate, or one of the given certificates itself: a control plane's self-signed
/// certificate says of itself that it is an authority, and a plain chain check refuses that in a server.
#[derive(Debug)]
struct GivenAuthority {
    given: Vec<CertificateDer<'static>>,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for GivenAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.given.iter().any(|given| given == end_entity) {
            let verified =
                self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            // Another control plane's self-signed certificate fails as "an authority used as a server".
            return verified.map_err(|error| match error {
                rustls::Error::InvalidCertificate(CertificateError::Other(_)) => {
                    CertificateError::UnknownIssuer.into()
                }
                other => other,
            });
        }
        check_validity(end_entity, now)?;
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let bad = |error: CertificateError| rustls::Error::InvalidCertificate(error);
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|secs| ASN1Time::from_timestamp(secs).ok());
    let now = now.ok_or(rustls::Error::FailedToGetCurrentTime)?;
    if now < parsed.validity().not_before {
        return Err(bad(CertificateError::NotValidYet));
    }
    if now > parsed.validity().not_after {
        return Err(bad(CertificateError::Expired));
    }
    Ok(())
}

/// For `--skip-verify`: any certificate, but its key must be held by the server.
#[derive(Debug)]
struct TrustEverybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustEverybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
