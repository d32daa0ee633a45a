//! How a zone reaches global: address, trust, token.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use graticule_runtime::listen::Io;
use graticule_runtime::tls::{self, ClientTrust};
use http::Uri;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, CertificateError};

/// Largest token file that is read, in bytes.
const TOKEN_LEN_MAX: u64 = 16 * 1024;

/// Makes one connection to global. A simulation passes its own.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// An address or trust that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not `grpcs://host:port` or `grpc://host:port`.
    #[error("multizone.zone.globalAddress: \"{0}\" is not grpcs://host:port or grpc://host:port")]
    Address(String),
    /// Authorities that cannot be used.
    #[error("multizone.zone.kds.rootCaFile")]
    Trust(#[source] tls::Error),
}

/// Where global is.
#[derive(Clone)]
pub struct Dial {
    /// Makes connections.
    pub connector: Connector,
    /// `:authority` of requests.
    pub authority: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl Dial {
    /// Over TCP, encrypted for `grpcs`.
    ///
    /// # Errors
    /// The address or the trust is unusable.
    pub fn tcp(global_address: &str, trust: &ClientTrust) -> Result<Dial, DialError> {
        let invalid = || DialError::Address(global_address.to_owned());
        let uri: Uri = global_address.parse().map_err(|_| invalid())?;
        let tls = match uri.scheme_str() {
            Some("grpcs") => true,
            Some("grpc") => false,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().ok_or_else(invalid)?.as_str().to_owned();
        let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else { return Err(invalid()) };
        if has_path || authority.contains('@') {
            return Err(invalid());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = if tls {
            let name = ServerName::try_from(host.clone()).map_err(|_| invalid())?;
            let config = tls::client_config(trust, &["h2"]).map_err(DialError::Trust)?;
            Some((TlsConnector::from(config), name))
        } else {
            None
        };
        let connector: Connector = Arc::new(move || {
            let (host, secure) = (host.clone(), secure.clone());
            Box::pin(async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                let io: Box<dyn Io> = match secure {
                    None => Box::new(stream),
                    Some((connector, name)) => {
                        Box::new(connector.connect(name, stream).await.map_err(tls_failure)?)
                    }
                };
                Ok(io)
            })
        });
        Ok(Dial { connector, authority, tls })
    }
}

/// What a failed handshake means for the settings of the zone.
fn tls_failure(error: io::Error) -> io::Error {
    let meaning = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            CertificateError::UnknownIssuer | CertificateError::Other(_) => {
                "no authority of multizone.zone.kds.rootCaFile has signed global's certificate: give the zone \
                 global's kuma-cp.crt or the authority of its certificate"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "global's certificate is not for the host of multizone.zone.globalAddress"
            }
            _ => "global's certificate cannot be accepted",
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "no TLS at multizone.zone.globalAddress: is it the port where global serves zones (5685 by default)?"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{meaning} ({error})"))
}

/// The zone token, read again for each connection.
#[derive(Clone, Default)]
pub enum ZoneToken {
    /// Stock Kuma globals take none.
    #[default]
    None,
    /// In the configuration.
    Inline(String),
    /// In a file.
    File(PathBuf),
}

impl ZoneToken {
    /// Whether there is a token to send, where one was asked for.
    ///
    /// # Errors
    /// A file that cannot be read or is empty.
    pub fn check(&self) -> io::Result<()> {
        self.read().map(|_| ())
    }

    pub(super) fn read(&self) -> io::Result<Option<String>> {
        match self {
            ZoneToken::None => Ok(None),
            ZoneToken::Inline(token) => Ok(Some(token.trim().to_owned())),
            ZoneToken::File(path) => {
                use std::io::Read as _;
                let failed = |error: io::Error| {
                    io::Error::new(error.kind(), format!("zone token file {}: {error}", path.display()))
                };
                let mut text = String::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(TOKEN_LEN_MAX).read_to_string(&mut text))
                    .map_err(failed)?;
                match text.trim() {
                    "" => Err(failed(io::Error::other("is empty"))),
                    token => Ok(Some(token.to_owned())),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_handshakes_name_the_setting() {
        for (error, setting) in [
            (CertificateError::UnknownIssuer.into(), "rootCaFile"),
            (CertificateError::NotValidForName.into(), "globalAddress"),
            (rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), "5685"),
        ] {
            let text = tls_failure(io::Error::new(io::ErrorKind::InvalidData, error)).to_string();
            assert!(text.contains(setting), "{text}");
        }
        assert_eq!(tls_failure(io::Error::other("other")).to_string(), "other");
    }
}
