//! How a zone reaches global: address, trust, token.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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

/// Time to connect to one of several addresses before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes one connection to global. A simulation passes its own.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// An address or trust that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not `grpcs://host:port` or `grpc://host:port`.
    #[error("multizone.zone.globalAddress: \"{0}\" is not grpcs://host:port or grpc://host:port")]
    Address(String),
    /// Some addresses say `grpc`, some `grpcs`.
    #[error("multizone.zone.globalAddress: all addresses must begin with grpcs://, or all with grpc://")]
    Mixed,
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
    /// Over TCP, encrypted for `grpcs`. Several addresses are separated by commas: replicas of global. Each connection
    /// goes to the next one, and on to the others when that does not answer.
    ///
    /// # Errors
    /// An address or the trust is unusable.
    pub fn tcp(global_address: &str, trust: &ClientTrust) -> Result<Dial, DialError> {
        let addresses: Vec<Address> =
            global_address.split(',').map(|one| Address::parse(one.trim())).collect::<Result<_, _>>()?;
        let [first, others @ ..] = addresses.as_slice() else {
            return Err(DialError::Address(global_address.to_owned()));
        };
        let (authority, tls) = (first.authority.clone(), first.tls);
        if others.iter().any(|other| other.tls != tls) {
            return Err(DialError::Mixed);
        }
        let secure = if tls {
            Some(TlsConnector::from(tls::client_config(trust, &["h2"]).map_err(DialError::Trust)?))
        } else {
            None
        };
        let (addresses, turn) = (Arc::new(addresses), Arc::new(AtomicUsize::new(0)));
        let connector: Connector = Arc::new(move || {
            let (addresses, secure) = (addresses.clone(), secure.clone());
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { connect(&addresses, turn, secure.as_ref()).await })
        });
        Ok(Dial { connector, authority, tls })
    }
}

/// One replica of global.
struct Address {
    authority: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: bool,
}

impl Address {
    fn parse(text: &str) -> Result<Address, DialError> {
        let invalid = || DialError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
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
        let name = ServerName::try_from(host.clone()).map_err(|_| invalid())?;
        Ok(Address { authority, host, port, name, tls })
    }

    async fn connect(&self, secure: Option<&TlsConnector>) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match secure {
            None => Box::new(stream),
            Some(connector) => {
                Box::new(connector.connect(self.name.clone(), stream).await.map_err(tls_failure)?)
            }
        })
    }
}

/// Tries every address, the one whose turn it is first.
async fn connect(
    addresses: &[Address],
    turn: usize,
    secure: Option<&TlsConnector>,
) -> io::Result<Box<dyn Io>> {
    if let [only] = addresses {
        return only.connect(secure).await;
    }
    let mut failures = Vec::new();
    for offset in 0..addresses.len() {
        let address = &addresses[(turn.wrapping_add(offset)) % addresses.len()];
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, address.connect(secure)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(io) => return Ok(io),
            Err(error) => failures.push(format!("{}: {error}", address.authority)),
        }
    }
    Err(io::Error::other(failures.join("; ")))
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
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses() {
        let outcome = |text: &str| Dial::tcp(text, &ClientTrust::Anybody).map(|dial| dial.authority);
        assert_eq!(outcome("grpcs://a:5685").expect("one"), "a:5685");
        assert_eq!(outcome("grpcs://a:5685, grpcs://[::1]:5685").expect("two"), "a:5685");
        for bad in
            ["", "grpcs://a", "a:5685", "grpcs://a:1,", "grpcs://a:1,b:2", "grpcs://a:1/x", "grpc://u@a:1"]
        {
            assert!(matches!(outcome(bad), Err(DialError::Address(_))), "{bad:?}");
        }
        assert!(matches!(outcome("grpcs://a:1,grpc://b:2"), Err(DialError::Mixed)));
    }

    /// Each connection goes to the next replica that listens.
    #[tokio::test]
    async fn connections_go_round() {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (a, b, c) = (bind().await.expect("a"), bind().await.expect("b"), bind().await.expect("c"));
        let address = |listener: &TcpListener| listener.local_addr().expect("bound");
        let all =
            [address(&a), address(&b), address(&c)].map(|address| format!("grpc://{address}")).join(",");
        drop(b);
        let dial = Dial::tcp(&all, &ClientTrust::System).expect("addresses");
        for listener in [&a, &c, &c, &a] {
            let (connected, accepted) = tokio::join!((dial.connector)(), listener.accept());
            connected.expect("connects");
            accepted.expect("accepts");
        }
        drop((a, c));
        let Err(error) = (dial.connector)().await else { panic!("nobody listens") };
        assert_eq!(error.to_string().matches("127.0.0.1").count(), 3, "{error}");
    }

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
