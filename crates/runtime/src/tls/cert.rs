//! A server's certificate: loaded or generated, and read again when its files change.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::clients::Clients;
use super::watched::Watched;
use super::{CERT_FILE, Error, FILE_BYTES_MAX, KEY_FILE, generate, versions};
use crate::Random;

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy)]
pub struct CertOptions<'a> {
    /// PEM chain, leaf first; empty: from `work_dir`, made there if missing.
    pub cert_file: &'a str,
    /// PEM key; empty as `cert_file`.
    pub key_file: &'a str,
    /// Directory for what is generated.
    pub work_dir: &'a Path,
    /// DNS names and IP addresses of a generated certificate; `localhost`, `127.0.0.1` and `::1` are added.
    pub hostnames: &'a [String],
}

/// Names in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sans {
    /// DNS names as written, wildcards included.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

/// How a listener uses TLS; the default is the widest that is safe.
#[derive(Debug, Clone, Default)]
pub struct ServerTls {
    /// Lowest version: `""`, `TLSv1_2` or `TLSv1_3`.
    pub min_version: String,
    /// Highest version, as above.
    pub max_version: String,
    /// PEM file of authorities, read again when it changes; clients must show a certificate of one of them.
    pub client_ca: Option<PathBuf>,
}

/// The certificate of a server. Cheap to clone; all clones see a change of the files.
#[derive(Clone, Debug)]
pub struct ServerCert(Arc<Watched<Loaded>>);

#[derive(Debug)]
struct Loaded {
    chain_pem: String,
    sans: Sans,
    is_ca: bool,
    key: Arc<CertifiedKey>,
}

impl ServerCert {
    /// Loads the certificate, or makes one in the work directory (mode 0600 in a directory of mode 0700).
    ///
    /// # Errors
    /// Files that cannot be read or written, or that do not fit together.
    pub fn load_or_generate(
        options: &CertOptions<'_>,
        now: Timestamp,
        random: &Random,
    ) -> Result<ServerCert, Error> {
        let (cert_path, key_path) = match (options.cert_file, options.key_file) {
            ("", "") => {
                let paths = (options.work_dir.join(CERT_FILE), options.work_dir.join(KEY_FILE));
                if !paths.0.exists() && !paths.1.exists() {
                    make(options, &paths, now, random)?;
                }
                paths
            }
            ("", _) | (_, "") => return Err(Error::Incomplete),
            (cert, key) => (cert.into(), key.into()),
        };
        let watched = Watched::new("certificate", vec![cert_path, key_path], load)?;
        Ok(ServerCert(Arc::new(watched)))
    }

    /// For a listener: offers HTTP/2 and HTTP/1.1 and follows changes of the files.
    ///
    /// # Errors
    /// Unknown versions or unusable client authorities.
    pub fn config(&self, tls: &ServerTls) -> Result<Arc<rustls::ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = versions(&tls.min_version, &tls.max_version)?;
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(Error::Refused)?;
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => builder.with_client_cert_verifier(Arc::new(Clients::of(file)?)),
        };
        let mut config = builder.with_cert_resolver(self.0.clone());
        if tls.client_ca.is_some() {
            // A resumed session is not verified again: its authority may be gone from the file.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The chain that is served now, PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.0.fresh().chain_pem.clone()
    }

    /// Names of the leaf.
    pub fn sans(&self) -> Sans {
        self.0.fresh().sans.clone()
    }

    /// Whether the leaf is an authority, so that it can be handed out as its own root.
    pub fn is_ca(&self) -> bool {
        self.0.fresh().is_ca
    }

    /// The certificate file.
    pub fn cert_path(&self) -> &Path {
        self.0.path()
    }
}

impl ResolvesServerCert for Watched<Loaded> {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.fresh().key.clone())
    }
}

fn load(paths: &[PathBuf]) -> Result<Loaded, Error> {
    let [cert_path, key_path] = paths else { return Err(Error::Incomplete) };
    let (cert_pem, key_pem) = (read(cert_path)?, read(key_path)?);
    let chain = certificates(&cert_pem, cert_path.display())?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| Error::invalid(key_path.display(), "holds no PEM private key"))?;
    let leaf =
        chain.first().ok_or_else(|| Error::invalid(cert_path.display(), "holds no PEM certificate"))?;
    let (sans, is_ca) = facts(leaf).map_err(|reason| Error::invalid(cert_path.display(), reason))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::invalid(key_path.display(), format_args!("is not the key of {}", cert_path.display()))
        }
        error => Error::invalid(key_path.display(), error),
    })?;
    let chain_pem =
        String::from_utf8(cert_pem).map_err(|_| Error::invalid(cert_path.display(), "is not UTF-8 text"))?;
    Ok(Loaded { chain_pem, sans, is_ca, key: Arc::new(key) })
}

/// All certificates of a PEM text; at least one.
pub(super) fn certificates(
    pem: &[u8],
    what: impl std::fmt::Display,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::invalid(what, "holds no PEM certificate")),
        Err(error) => Err(Error::invalid(what, error)),
    }
}

/// Names of a certificate, and whether it is an authority.
pub(super) fn facts(leaf: &CertificateDer<'_>) -> Result<(Sans, bool), String> {
    let (_, cert) =
        X509Certificate::from_der(leaf).map_err(|error| format!("unreadable certificate: {error}"))?;
    let mut sans = Sans::default();
    let names = cert.subject_alternative_name().map_err(|error| format!("unreadable names: {error}"))?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => sans.dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => sans.ips.extend(ip(bytes)),
            _ => {}
        }
    }
    Ok((sans, cert.is_ca()))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// A file of certificates or of a key.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { path: path.into(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::invalid(path.display(), format_args!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn make(
    options: &CertOptions<'_>,
    (cert_path, key_path): &(PathBuf, PathBuf),
    now: Timestamp,
    random: &Random,
) -> Result<(), Error> {
    let mut names: Vec<String> = Vec::new();
    let always = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    for name in options.hostnames.iter().chain(&always) {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    let (cert, key) = generate::self_signed(&names, now, random.bytes16())?;
    let failed = |source| Error::File { path: options.work_dir.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(options.work_dir).map_err(failed)?;
    // The key first: a crash in between leaves a pair that is told apart from a complete one.
    write_private(key_path, &key)?;
    write_private(cert_path, &cert)?;
    tracing::info!(file = %cert_path.display(), names = names.join(" "), "certificate generated");
    Ok(())
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.into(), source };
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
