//! What a client of a control plane trusts.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, RootCertStore};

use super::cert::certificates;
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
            graticule_tls::chains(roots, provider).map_err(Error::Authorities)?
        }
        ClientTrust::Pem(pem) => {
            let given = certificates(pem, "authorities")?;
            graticule_tls::chains_or_given(given, provider).map_err(Error::Authorities)?
        }
        ClientTrust::Anybody => graticule_tls::anybody(provider),
    };
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
