//! What may be set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use graticule_store::history::HISTORY_LEN_DEFAULT;
use graticule_store::seal::Sealer;

/// Options of a replica.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses of etcd's members: `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT`, which means HTTPS when
    /// [`tls`](Self::tls) is set and HTTP otherwise.
    pub endpoints: Vec<String>,
    /// What the keys of this store begin with; begins with `/` and does not end with it. Default `/graticule`.
    pub prefix: String,
    /// Name of the replica, for people. Default empty.
    pub name: String,
    /// User of etcd.
    pub credentials: Option<Credentials>,
    /// TLS.
    pub tls: Option<Tls>,
    /// Batches that are kept for readers that resume or lag.
    pub history_len: usize,
    /// Life of the leader's lease without renewal: how long nobody leads after a leader died. Whole seconds.
    /// Default 5 s; etcd does not go below about 2 s.
    pub lease: Duration,
    /// Time that a write waits for etcd and its answer. Default 10 s.
    pub write_timeout: Duration,
    /// Time of one request to etcd. Default 3 s.
    pub request_timeout: Duration,
    /// Time between two looks at etcd's health. Default 2 s.
    pub probe_interval: Duration,
    /// Time that opening waits for etcd. Default 30 s.
    pub open_timeout: Duration,
    /// Largest request in bytes, as etcd counts: its `--max-request-bytes`. Default [`REQUEST_LEN_DEFAULT`].
    pub request_len_max: usize,
    /// Keys of secrets at rest. Default: none, secrets are stored as they are.
    pub sealer: Arc<Sealer>,
}

/// Largest request of an etcd that was not told otherwise, in bytes.
pub const REQUEST_LEN_DEFAULT: usize = 1_572_864;
/// Most operations on one level of a transaction of an etcd that was not told otherwise (`--max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;
/// Writes that are under way at once; more wait.
pub const WRITES_MAX: usize = 4096;
/// Largest answer of etcd that is read, in bytes. Watches come in parts that are as large as a request may be.
pub(crate) const ANSWER_LEN_MAX: usize = 64 << 20;
/// Resources that one answer holds at most while everything is read.
pub(crate) const PAGE_LEN: i64 = 1000;
/// Shortest and longest pause before a connection is tried again.
pub(crate) const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl Default for Options {
    fn default() -> Self {
        Options {
            endpoints: Vec::new(),
            prefix: "/graticule".into(),
            name: String::new(),
            credentials: None,
            tls: None,
            history_len: HISTORY_LEN_DEFAULT,
            lease: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(2),
            open_timeout: Duration::from_secs(30),
            request_len_max: REQUEST_LEN_DEFAULT,
            sealer: Arc::default(),
        }
    }
}

/// A user of etcd.
#[derive(Clone)]
pub struct Credentials {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// TLS towards etcd.
#[derive(Clone, Default)]
pub struct Tls {
    /// PEM of the authorities that may have signed etcd's certificates; none = those of the system.
    pub authorities: Option<Vec<u8>>,
    /// PEM of this client's certificate and of its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name that etcd's certificates must have, if it is not the host of the endpoint.
    pub server_name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Options {
    /// What is wrong with them.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), String> {
        if self.endpoints.is_empty() {
            return Err("no endpoints are given".into());
        }
        for endpoint in &self.endpoints {
            let is_https = endpoint.starts_with("https://");
            let host = endpoint.trim_start_matches("https://").trim_start_matches("http://");
            if host.is_empty() || host.contains(['/', ' ', '@']) {
                return Err(format!("endpoint {endpoint:?} is not [http[s]://]HOST:PORT"));
            }
            if endpoint.starts_with("http://") && self.tls.is_some() {
                return Err(format!("endpoint {endpoint:?} is without TLS, and TLS files are given"));
            }
            if is_https && self.tls.is_none() {
                return Err(format!("endpoint {endpoint:?} needs TLS"));
            }
        }
        if !self.prefix.starts_with('/') || self.prefix.ends_with('/') {
            return Err(format!("prefix {:?} must begin with / and not end with it", self.prefix));
        }
        if self.lease < Duration::from_secs(1) || self.lease > Duration::from_secs(3600) {
            return Err("the lease must last between 1 s and 1 h".into());
        }
        if self.request_len_max < 16 << 10 {
            return Err("requests of at least 16 KiB are needed".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found() {
        let good = || Options { endpoints: vec!["http://a:1".into(), "b:2".into()], ..Options::default() };
        assert_eq!(good().check(), Ok(()));
        let tls = || Some(Tls::default());
        let cases = [
            (Options::default(), "no endpoints"),
            (Options { endpoints: vec!["http://".into()], ..good() }, "is not [http[s]://]HOST:PORT"),
            (Options { endpoints: vec!["ftp://a".into()], ..good() }, "is not [http[s]://]HOST:PORT"),
            (Options { endpoints: vec!["u:p@a:1".into()], ..good() }, "is not [http[s]://]HOST:PORT"),
            (Options { endpoints: vec!["https://a:1".into()], ..good() }, "needs TLS"),
            (Options { tls: tls(), ..good() }, "is without TLS"),
            (Options { prefix: "x".into(), ..good() }, "must begin with /"),
            (Options { prefix: "/x/".into(), ..good() }, "must begin with /"),
            (Options { lease: Duration::ZERO, ..good() }, "lease"),
            (Options { request_len_max: 1, ..good() }, "16 KiB"),
        ];
        for (options, wanted) in cases {
            let found = options.check().expect_err(wanted);
            assert!(found.contains(wanted), "{found:?} does not say {wanted:?}");
        }
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let options = Options {
            credentials: Some(Credentials { user: "root".into(), password: "hunter2".into() }),
            tls: Some(Tls { identity: Some((b"cert".to_vec(), b"key".to_vec())), ..Tls::default() }),
            ..Options::default()
        };
        let text = format!("{options:?}");
        assert!(text.contains("root") && !text.contains("hunter2") && !text.contains("107"), "{text}");
    }
}
