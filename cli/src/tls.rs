//! Which servers are trusted, and the certificate that is shown to them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::Target;

/// For calls of `target`. A self-signed certificate that is given as its own authority is trusted, as control planes
/// make one when none is configured. The system's authorities are read for https alone: a container may have none.
pub(crate) fn config(target: &Target) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match verifier(target, provider)? {
        Some(verifier) => builder.dangerous().with_custom_certificate_verifier(verifier),
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(match (&target.client_cert_file, &target.client_key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates("--client-cert-file", cert)?;
            let key_pem = read("--client-key-file", key)?;
            let private = PrivateKeyDer::from_pem_slice(&key_pem)
                .with_context(|| format!("--client-key-file {}: no PEM private key", key.display()))?;
            builder
                .with_client_auth_cert(chain, private)
                .context("--client-cert-file and --client-key-file do not belong together")?
        }
        _ => bail!("--client-cert-file and --client-key-file belong together"),
    })
}

/// `None`: nothing is trusted, as nothing is encrypted.
fn verifier(target: &Target, provider: Arc<CryptoProvider>) -> Result<Option<Arc<dyn ServerCertVerifier>>> {
    if target.skip_verify {
        return Ok(Some(graticule_tls::anybody(provider)));
    }
    if let Some(file) = &target.ca_cert_file {
        let given = certificates("--ca-cert-file", file)?;
        let verifier = graticule_tls::chains_or_given(given, provider)
            .with_context(|| format!("--ca-cert-file {}", file.display()))?;
        return Ok(Some(verifier));
    }
    if !target.address.starts_with("https:") {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(
        !roots.is_empty(),
        "this machine trusts no certificate authorities; name the one of {} with --ca-cert-file",
        target.address
    );
    Ok(Some(graticule_tls::chains(roots, provider)?))
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{option} {}", file.display()))
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(option, file)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.with_context(|| format!("{option} {}: no PEM certificates", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graticule_identity::self_signed::{KeyType, Usage, generate};

    #[test]
    fn files_that_fit_and_files_that_do_not() {
        let dir = std::env::temp_dir().join(format!("graticule-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        let now = "2026-08-01T00:00:00Z".parse().expect("time");
        let make = |serial| generate(Usage::Client, &[], KeyType::P256, now, [serial; 16]).expect("made");
        let (one, other) = (make(1), make(2));
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("written");
            Some(path)
        };
        let (cert, key) = (file("c.pem", &one.cert_pem), file("k.pem", &one.key_pem));
        let (stranger, noise) = (file("o.pem", &other.key_pem), file("n.pem", "noise"));
        let target = |ca: &Option<_>, cert: &Option<_>, key: &Option<_>| Target {
            address: "https://x".into(),
            ca_cert_file: ca.clone(),
            client_cert_file: cert.clone(),
            client_key_file: key.clone(),
            ..Target::default()
        };
        assert!(config(&target(&cert, &cert, &key)).is_ok());
        for (target, wanted) in [
            (target(&noise, &None, &None), "no PEM certificates"),
            (target(&cert, &cert, &None), "belong together"),
            (target(&cert, &cert, &stranger), "do not belong together"),
            (target(&cert, &cert, &noise), "no PEM private key"),
            (target(&Some("/nowhere".into()), &None, &None), "--ca-cert-file /nowhere"),
        ] {
            let error = format!("{:#}", config(&target).expect_err(wanted));
            assert!(error.contains(wanted), "{error}");
        }
        let plain = Target { address: "http://x".into(), ..Target::default() };
        assert!(config(&plain).is_ok(), "needs no authorities");
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
