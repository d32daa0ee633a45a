//! Connections between members: TLS 1.3, both ends show a certificate that the cluster's token makes. What a connection
//! is for is agreed on in the handshake (ALPN), so that nothing is read from a peer that is no member.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use graticule_identity::cluster::NoClusterToken;
use graticule_identity::{CaError, ClusterToken, MemberAuthority};
use graticule_runtime::Random;
use graticule_runtime::listen::Io;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Protocol of the store.
pub(super) const STORE: &[u8] = b"graticule-store/1";
/// Protocol of calls about the cluster itself: HTTP/1.1.
pub(super) const CALLS: &[u8] = b"graticule-members/1";

/// The name in all certificates: who has the token is a member.
const MEMBER: &str = "member.graticule.internal";
/// Time to connect and greet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest token file, in bytes.
const TOKEN_FILE_LEN_MAX: u64 = 4096;
/// Name of the token file in a data directory.
const TOKEN_FILE: &str = "cluster-token";

/// Why members cannot talk.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The token file cannot be used.
    #[error("store.raft.tokenFile {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A line of it is no token.
    #[error("store.raft.tokenFile {}, line {line}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Reason.
        #[source]
        source: NoClusterToken,
    },
    /// Others must have the same token, and there is none.
    #[error(
        "store.raft.tokenFile: members need the same token: make one with `grat generate cluster-token`, or take {} of a \
         member",
        path.display()
    )]
    NoToken {
        /// Where it may be.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("certificates of members")]
    Certificate(#[from] CaError),
    /// The TLS library refuses.
    #[error("TLS of members")]
    Refused(#[from] rustls::Error),
    /// It refuses to verify members.
    #[error("TLS of members: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Both ends of connections between members. Cheap to clone.
#[derive(Clone)]
pub(super) struct MemberTls {
    pub(super) server: Arc<ServerConfig>,
    store: TlsConnector,
    calls: TlsConnector,
}

impl MemberTls {
    /// The first token makes the own certificate, all are accepted.
    pub(super) fn new(tokens: &[ClusterToken], site: &str, random: &Random) -> Result<MemberTls, TlsError> {
        let authorities =
            tokens.iter().map(|token| MemberAuthority::derive(token, site)).collect::<Result<Vec<_>, _>>()?;
        let first = authorities.first().ok_or(CaError::Unsuitable("there is no token"))?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.certificate().clone())?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = first.issue(MEMBER, random.bytes16())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())?;
        server.alpn_protocols = vec![STORE.to_vec(), CALLS.to_vec()];
        server.send_tls13_tickets = 0;
        let client = |protocol: &[u8], key: PrivateKeyDer<'static>| -> Result<TlsConnector, TlsError> {
            let mut client = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(vec![own.certificate.clone()], key)?;
            client.alpn_protocols = vec![protocol.to_vec()];
            Ok(TlsConnector::from(Arc::new(client)))
        };
        let store = client(STORE, own.key.clone_key())?;
        let calls = client(CALLS, own.key.clone_key())?;
        Ok(MemberTls { server: Arc::new(server), store, calls })
    }

    /// A connection for the store of the member at `address`.
    pub(super) async fn connect_store(&self, address: &str) -> io::Result<Box<dyn Io>> {
        connect(&self.store, address).await
    }

    /// A connection for calls about the cluster.
    pub(super) async fn connect_calls(&self, address: &str) -> io::Result<Box<dyn Io>> {
        connect(&self.calls, address).await
    }

    /// What the store connects to other members with.
    pub(super) fn connector(&self) -> graticule_store_raft::Connector {
        let tls = self.clone();
        Arc::new(move |member: graticule_store_raft::Member| {
            let tls = tls.clone();
            async move { tls.connect_store(&member.address).await }.boxed()
        })
    }
}

async fn connect(connector: &TlsConnector, address: &str) -> io::Result<Box<dyn Io>> {
    let greet = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(MEMBER).map_err(io::Error::other)?;
        Ok::<Box<dyn Io>, io::Error>(Box::new(connector.connect(name, stream).await.map_err(meaning)?))
    };
    timeout(CONNECT_TIMEOUT, greet).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What a failed handshake means for the settings of the members.
fn meaning(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) => {
            let text = format!("the member has another cluster token, or is of another site ({error})");
            io::Error::new(error.kind(), text)
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::new(error.kind(), format!("no member listens there ({error})"))
        }
        _ => error,
    }
}

/// The tokens of a file, one a line, blank lines and lines that begin with # left out. Without a file: that of the data
/// directory, which is made unless others must have the same one.
pub(super) fn tokens(
    file: &str,
    data_dir: &Path,
    others_have_it: bool,
    random: &Random,
) -> Result<Vec<ClusterToken>, TlsError> {
    let path = if file.is_empty() { data_dir.join(TOKEN_FILE) } else { PathBuf::from(file) };
    let failed = |source| TlsError::File { path: path.clone(), source };
    let text = match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_empty() => {
            if others_have_it {
                return Err(TlsError::NoToken { path });
            }
            let mut bytes = [0; 32];
            random.fill(&mut bytes);
            let text = format!("{}\n", ClusterToken::new(bytes).to_text());
            write(&path, &text).map_err(failed)?;
            text
        }
        read => read.map_err(failed)?,
    };
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let tokens = lines
        .map(|(index, line)| {
            let path = path.clone();
            ClusterToken::parse(line).map_err(|source| TlsError::Token { path, line: index + 1, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if tokens.is_empty() {
        return Err(failed(io::Error::other("there is no token in it")));
    }
    Ok(tokens)
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(TOKEN_FILE_LEN_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use graticule_runtime::{ListenLimits, TcpAcceptor};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn mk_tls(tokens: &[u8], site: &str) -> MemberTls {
        let tokens: Vec<ClusterToken> = tokens.iter().map(|byte| ClusterToken::new([*byte; 32])).collect();
        MemberTls::new(&tokens, site, &Random::seeded(1)).expect("configurations")
    }

    /// Serves one greeting to each connection that becomes one; gives the address.
    async fn serve(tls: &MemberTls) -> (String, tokio::task::JoinSet<()>) {
        use futures::StreamExt as _;
        let acceptor = TcpAcceptor::bind(([127, 0, 0, 1], 0).into(), "test", ListenLimits::default())
            .await
            .expect("binds");
        let address = acceptor.local_addr().to_string();
        let mut incoming = acceptor.tls(tls.server.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            while let Some(Ok(mut connection)) = incoming.next().await {
                let protocol = connection.protocol().unwrap_or(b"none").to_vec();
                // A peer that was refused has gone.
                let _gone = connection.write_all(&protocol).await;
                let _gone = connection.shutdown().await;
            }
        });
        (address, tasks)
    }

    async fn greeted(connected: io::Result<Box<dyn Io>>) -> Result<Vec<u8>, String> {
        let mut io = connected.map_err(|error| error.to_string())?;
        let mut read = Vec::new();
        io.read_to_end(&mut read).await.map_err(|error| error.to_string())?;
        Ok(read)
    }

    #[tokio::test]
    async fn the_token_decides_who_is_a_member() {
        let (address, _tasks) = serve(&mk_tls(&[1, 2], "global")).await;
        for (tls, is_member, what) in [
            (mk_tls(&[1], "global"), true, "the same token"),
            (mk_tls(&[2, 1], "global"), true, "the next token, while tokens are changed"),
            (mk_tls(&[3, 1], "global"), false, "a token that the other does not accept"),
            (mk_tls(&[2], "global"), false, "a member that is shown a token that it does not accept"),
            (mk_tls(&[1], "zone-east"), false, "the token of another site"),
        ] {
            let store = greeted(tls.connect_store(&address).await).await;
            let calls = greeted(tls.connect_calls(&address).await).await;
            if is_member {
                assert_eq!(store.as_deref(), Ok(STORE), "{what}");
                assert_eq!(calls.as_deref(), Ok(CALLS), "{what}");
            } else {
                assert!(store.is_err() && calls.is_err(), "{what}: {store:?} {calls:?}");
            }
        }
    }

    #[tokio::test]
    async fn nobody_gets_in_without_a_certificate() {
        let (address, _tasks) = serve(&mk_tls(&[1], "global")).await;
        let config =
            graticule_runtime::tls::client_config(&graticule_runtime::tls::ClientTrust::Anybody, &[])
                .expect("a client");
        let stream = TcpStream::connect(&address).await.expect("connects");
        let name = ServerName::try_from(MEMBER).expect("a name");
        let connected = TlsConnector::from(config).connect(name, stream).await;
        let heard = match connected {
            Err(error) => Err(error.to_string()),
            Ok(io) => greeted(Ok(Box::new(io))).await,
        };
        assert!(heard.is_err(), "{heard:?}");
    }

    #[test]
    fn token_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let random = Random::system();
        let own = tokens("", &dir.path().join("data"), false, &random).expect("made");
        assert_eq!(tokens("", &dir.path().join("data"), true, &random).expect("kept"), own);
        let error = tokens("", dir.path(), true, &random).expect_err("others need it").to_string();
        assert!(error.contains("grat generate cluster-token"), "{error}");
        let file = dir.path().join("tokens");
        let (first, second) = (ClusterToken::new([1; 32]), ClusterToken::new([2; 32]));
        let text = format!("# new\n{}\n\n {}\n", first.to_text(), second.to_text());
        std::fs::write(&file, text).expect("written");
        let path = file.to_str().expect("text");
        assert_eq!(tokens(path, dir.path(), true, &random).expect("two"), [first, second]);
        for (text, wanted) in [("", "no token in it"), ("gct_x\n", "line 1"), ("# only\n", "no token in it")]
        {
            std::fs::write(&file, text).expect("written");
            let error = tokens(path, dir.path(), true, &random).expect_err("no token");
            let error = graticule_runtime::supervisor::chain(&error);
            assert!(error.contains(wanted) && error.contains("store.raft.tokenFile"), "{error}");
        }
        std::fs::remove_file(&file).expect("removed");
        assert!(tokens(path, dir.path(), false, &random).is_err(), "a named file is never made");
    }
}
