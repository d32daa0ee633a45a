//! What a client of a control plane trusts.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::cert::{certificates, facts};
use super::{Error, versions};

/// What a client trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientTrust {
    /// The machine's root certificates.
    System,
    /// These PEM authorities alone. A self-signed server certificate may stand here itself.
    Pem(Vec<u8>),
    /// Anybody. For `--skip-verify` settings only.
    Anybody,
}

/// A configuration for clients; `alpn` are protocols such as `h2`.
///
/// # Errors
/// Unusable authorities.
pub fn client_config(trust: &ClientTrust, alpn: &[&str]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions("", "")?)
        .map_err(Error::Refused)?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        ClientTrust::System => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(Error::invalid("the machine's root certificates", "there are none"));
            }
            webpki(roots, provider)?
        }
        ClientTrust::Pem(pem) => {
            let pinned = certificates(pem, "authorities")?;
            let mut roots = RootCertStore::empty();
            for authority in &pinned {
                roots.add(authority.clone()).map_err(Error::Refused)?;
            }
            Arc::new(RootsOrPinned { roots: webpki(roots, provider.clone())?, pinned, provider })
        }
        ClientTrust::Anybody => Arc::new(Anybody(provider)),
    };
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn webpki(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| Error::invalid("authorities", error))
}

/// The usual rules, and one more: a server certificate that *is* one of the trusted certificates is good
/// (within its time and for its names). The usual rules refuse it, because it is an authority; OpenSSL,
/// BoringSSL and Go accept it, and control planes make such certificates by default.
#[derive(Debug)]
struct RootsOrPinned {
    roots: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for RootsOrPinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            return check_pinned(end_entity, server_name, now).map_err(rustls::Error::InvalidCertificate);
        }
        self.roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn check_pinned(
    cert: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, CertificateError> {
    let (sans, _) = facts(cert).map_err(|_| CertificateError::BadEncoding)?;
    let (_, cert) = X509Certificate::from_der(cert).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < cert.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > cert.validity().not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    let fits = match server_name {
        ServerName::DnsName(wanted) => sans.dns.iter().any(|name| dns_matches(name, wanted.as_ref())),
        ServerName::IpAddress(wanted) => sans.ips.contains(&IpAddr::from(*wanted)),
        _ => false,
    };
    if fits {
        return Ok(ServerCertVerified::assertion());
    }
    let presented = sans.dns.into_iter().chain(sans.ips.iter().map(IpAddr::to_string)).collect();
    Err(CertificateError::NotValidForNameContext { expected: server_name.to_owned(), presented })
}

/// Case-insensitive; `*` stands for exactly the first label.
fn dns_matches(pattern: &str, name: &str) -> bool {
    let name = name.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_patterns() {
        for (pattern, name, fits) in [
            ("a.example", "A.example", true),
            ("a.example", "a.example.", true),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", "example", false),
            ("a.example", "b.example", false),
        ] {
            assert_eq!(dns_matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
