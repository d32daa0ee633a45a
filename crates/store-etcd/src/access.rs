//! Makes the client of etcd.

use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};

use crate::options::{Options, Tls};

/// Time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence on a connection after which it is asked whether it still works (etcd allows no less than 5 s), and the
/// time for the answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));

/// A client that knows all endpoints. Only a user and password are sent now; connections are made when needed, again
/// and again.
pub(crate) async fn client(options: &Options) -> Result<Client, Error> {
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        // A member that lost the others must not answer as if nothing were wrong.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(credentials) = &options.credentials {
        connect = connect.with_user(&credentials.user, &credentials.password);
    }
    if let Some(tls) = &options.tls {
        connect = connect.with_tls(tls_options(tls));
    }
    Client::connect(&options.endpoints, Some(connect)).await
}

fn tls_options(tls: &Tls) -> TlsOptions {
    let mut options = TlsOptions::new();
    options = match &tls.authorities {
        Some(pem) => options.ca_certificate(Certificate::from_pem(pem)),
        None => options.with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name.clone());
    }
    options
}
