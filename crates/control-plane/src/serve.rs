//! Listeners that both control planes have: the REST API and the diagnostics.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::Router;
use graticule_api::ApiServer;
use graticule_api::options::Https;
use graticule_runtime::logging::levels;
use graticule_runtime::settings::{Diagnostics, General};
use graticule_runtime::tls::{CertOptions, ServerTls};
use graticule_runtime::{
    BindError, Clock, HttpLimits, ListenLimits, Metrics, Random, ServerCert, Spawner, TcpAcceptor, host,
    serve_http, tls,
};

use crate::diagnostics::{self, Readiness};

/// Why a listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address in the settings is none.
    #[error("{setting}: {value:?} is not an IP address")]
    Address {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// The port is taken, or not allowed.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Client certificates are required and there is no authority.
    #[error("apiServer.https.tlsCaFile: is required by apiServer.https.requireClientCert")]
    NoClientAuthority,
    /// The authorities of client certificates cannot be used.
    #[error("apiServer.https.tlsCaFile")]
    ClientAuthorities(#[source] tls::Error),
    /// The certificate cannot be used.
    #[error("certificate of {setting}")]
    Certificate {
        /// The setting.
        setting: &'static str,
        /// Reason.
        #[source]
        source: tls::Error,
    },
}

/// The certificate of a listener: its own files, else the general ones, else a generated one in the work directory.
///
/// # Errors
/// Files that cannot be used.
pub fn certificate(
    setting: &'static str,
    own: (&str, &str),
    general: &General,
    clock: &Clock,
    random: &Random,
) -> Result<ServerCert, ServeError> {
    let (cert_file, key_file) =
        if own.0.is_empty() { (general.tls_cert_file.as_str(), general.tls_key_file.as_str()) } else { own };
    let work_dir = general.work_dir();
    let hostnames = host::certificate_names();
    let options = CertOptions { cert_file, key_file, work_dir: Path::new(&work_dir), hostnames: &hostnames };
    ServerCert::load_or_generate(&options, clock.now(), random)
        .map_err(|source| ServeError::Certificate { setting, source })
}

/// TLS versions of a listener: what both its own settings and the general ones allow.
pub fn tls_versions(own: (&str, &str), general: &General) -> ServerTls {
    // The names sort like the versions, and no bound sorts below all.
    let min = own.0.max(&general.tls_min_version);
    let max = match (own.1, general.tls_max_version.as_str()) {
        ("", max) | (max, "") => max,
        (own, general) => own.min(general),
    };
    ServerTls { min_version: min.into(), max_version: max.into(), client_ca: None }
}

/// The file of the authorities of client certificates, if these are required.
///
/// # Errors
/// They are required and there is no file, or it cannot be used.
pub fn client_authorities(https: &Https) -> Result<Option<PathBuf>, ServeError> {
    match (https.require_client_cert, https.tls_ca_file.as_str()) {
        (false, _) => Ok(None),
        (true, "") => Err(ServeError::NoClientAuthority),
        (true, file) => {
            let file = PathBuf::from(file);
            tls::check_client_authorities(&file).map_err(ServeError::ClientAuthorities)?;
            Ok(Some(file))
        }
    }
}

/// An address out of two settings.
///
/// # Errors
/// The interface is no IP address.
pub fn address(setting: &'static str, interface: &str, port: u16) -> Result<SocketAddr, ServeError> {
    let ip: IpAddr =
        interface.parse().map_err(|_| ServeError::Address { setting, value: interface.to_owned() })?;
    Ok(SocketAddr::new(ip, port))
}

/// Starts the HTTP and HTTPS listeners of the REST API; gives their addresses.
///
/// # Errors
/// A listener cannot start.
pub async fn serve_api(
    router: Router,
    settings: &ApiServer,
    general: &General,
    clock: &Clock,
    random: &Random,
    spawner: &Spawner,
) -> Result<Vec<SocketAddr>, ServeError> {
    let mut bound = Vec::new();
    let limits = HttpLimits {
        header_read_timeout: settings.read_header_timeout.to_std(),
        idle_timeout: settings.idle_timeout.to_std(),
        request_timeout: Some(settings.read_timeout.to_std().saturating_add(settings.write_timeout.to_std())),
        ..HttpLimits::default()
    };
    let connections = ListenLimits { max_connections: settings.max_connections, ..ListenLimits::refusing() };
    if settings.http.enabled {
        let address = address("apiServer.http.interface", &settings.http.interface, settings.http.port)?;
        let acceptor = TcpAcceptor::bind(address, "apiServer.http.port", connections).await?;
        bound.push(acceptor.local_addr());
        let incoming = acceptor.plain();
        let (router, drain) = (router.clone(), spawner.drain());
        spawner.essential("REST API (HTTP)", async move {
            serve_http(router, incoming, limits, drain).await;
        });
    }
    if settings.https.enabled {
        let https = &settings.https;
        let address = address("apiServer.https.interface", &https.interface, https.port)?;
        let own = (https.tls_cert_file.as_str(), https.tls_key_file.as_str());
        let certificate = certificate("apiServer.https", own, general, clock, random)?;
        let versions = tls_versions((&https.tls_min_version, &https.tls_max_version), general);
        let config = certificate
            .config(&ServerTls { client_ca: client_authorities(https)?, ..versions })
            .map_err(|source| ServeError::Certificate { setting: "apiServer.https", source })?;
        let acceptor = TcpAcceptor::bind(address, "apiServer.https.port", connections).await?;
        bound.push(acceptor.local_addr());
        let incoming = acceptor.tls(config);
        let drain = spawner.drain();
        spawner.essential("REST API (HTTPS)", async move {
            serve_http(router, incoming, limits, drain).await;
        });
    }
    Ok(bound)
}

/// What the diagnostics listener needs besides its own settings.
#[derive(Debug, Clone, Copy)]
pub struct DiagnosticsDeps<'a> {
    /// For its certificate.
    pub general: &'a General,
    /// Time.
    pub clock: &'a Clock,
    /// Randomness.
    pub random: &'a Random,
    /// Runs it.
    pub spawner: &'a Spawner,
    /// What `/metrics` answers.
    pub metrics: &'a Metrics,
}

/// Starts the [diagnostics](crate::diagnostics); `ready` says what `/ready` answers.
///
/// # Errors
/// The listener cannot start.
pub async fn serve_diagnostics(
    settings: &Diagnostics,
    ready: impl Fn() -> Readiness + Clone + Send + Sync + 'static,
    deps: DiagnosticsDeps<'_>,
) -> Result<SocketAddr, ServeError> {
    let address = address("diagnostics", "0.0.0.0", settings.server_port)?;
    let acceptor = TcpAcceptor::bind(address, "diagnostics.serverPort", ListenLimits::default()).await?;
    let bound = acceptor.local_addr();
    let router = diagnostics::router(ready, deps.metrics.clone(), levels::of_process());
    let incoming = if settings.tls_enabled {
        let own = (settings.tls_cert_file.as_str(), settings.tls_key_file.as_str());
        let certificate = certificate("diagnostics", own, deps.general, deps.clock, deps.random)?;
        let versions = tls_versions((&settings.tls_min_version, &settings.tls_max_version), deps.general);
        let failed = |source| ServeError::Certificate { setting: "diagnostics", source };
        acceptor.tls(certificate.config(&versions).map_err(failed)?)
    } else {
        acceptor.plain()
    };
    let drain = deps.spawner.drain();
    deps.spawner.essential("diagnostics", async move {
        serve_http(router, incoming, HttpLimits::default(), drain).await;
    });
    Ok(bound)
}
