//! Listeners that both control planes have: the REST API and the diagnostics.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use axum::Router;
use graticule_api::ApiServer;
use graticule_runtime::logging::levels;
use graticule_runtime::settings::{Diagnostics, General};
use graticule_runtime::tls::{CertOptions, ServerTls};
use graticule_runtime::{
    BindError, Clock, HttpLimits, ListenLimits, Random, ServerCert, Spawner, TcpAcceptor, host, serve_http,
    tls,
};

use crate::diagnostics;

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

/// TLS versions of a listener: its own, else the general ones.
pub fn tls_versions(own: (&str, &str), general: &General) -> ServerTls {
    let pick = |own: &str, general: &str| if own.is_empty() { general.to_owned() } else { own.to_owned() };
    ServerTls {
        min_version: pick(own.0, &general.tls_min_version),
        max_version: pick(own.1, &general.tls_max_version),
        client_ca: None,
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
    if settings.http.enabled {
        let address = address("apiServer.http.interface", &settings.http.interface, settings.http.port)?;
        let acceptor = TcpAcceptor::bind(address, "apiServer.http.port", ListenLimits::default()).await?;
        bound.push(acceptor.local_addr());
        let incoming = acceptor.plain();
        let (router, drain) = (router.clone(), spawner.drain());
        spawner.essential("REST API (HTTP)", async move {
            serve_http(router, incoming, HttpLimits::default(), drain).await;
        });
    }
    if settings.https.enabled {
        let https = &settings.https;
        let address = address("apiServer.https.interface", &https.interface, https.port)?;
        let own = (https.tls_cert_file.as_str(), https.tls_key_file.as_str());
        let certificate = certificate("apiServer.https", own, general, clock, random)?;
        let config = certificate
            .config(&tls_versions(("", ""), general))
            .map_err(|source| ServeError::Certificate { setting: "apiServer.https", source })?;
        let acceptor = TcpAcceptor::bind(address, "apiServer.https.port", ListenLimits::default()).await?;
        bound.push(acceptor.local_addr());
        let incoming = acceptor.tls(config);
        let drain = spawner.drain();
        spawner.essential("REST API (HTTPS)", async move {
            serve_http(router, incoming, HttpLimits::default(), drain).await;
        });
    }
    Ok(bound)
}

/// Starts the [diagnostics](crate::diagnostics); `ready` says what `/ready` answers.
///
/// # Errors
/// The listener cannot start.
pub async fn serve_diagnostics(
    settings: &Diagnostics,
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
    spawner: &Spawner,
) -> Result<SocketAddr, ServeError> {
    let address = address("diagnostics", "0.0.0.0", settings.server_port)?;
    let acceptor = TcpAcceptor::bind(address, "diagnostics.serverPort", ListenLimits::default()).await?;
    let bound = acceptor.local_addr();
    let router = diagnostics::router(ready, levels::of_process());
    let (incoming, drain) = (acceptor.plain(), spawner.drain());
    spawner.essential("diagnostics", async move {
        serve_http(router, incoming, HttpLimits::default(), drain).await;
    });
    Ok(bound)
}
