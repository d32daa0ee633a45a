//! `store.etcd`: the store over an existing etcd.

use graticule_model::GoDuration;
use serde::{Deserialize, Serialize};

use super::setting;

use crate::config::Setting;

/// `store.etcd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EtcdSettings {
    /// Addresses of its members.
    pub endpoints: Vec<String>,
    /// What keys begin with; empty = `/graticule/` and the name of the control plane.
    pub prefix: String,
    /// User; empty = none.
    pub username: String,
    /// File with the user's password.
    pub password_file: String,
    /// TLS.
    pub tls: EtcdTls,
    /// Life of the leader's lease.
    pub lease_ttl: GoDuration,
    /// Largest request.
    pub max_request_bytes: u32,
}

/// `store.etcd.tls`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EtcdTls {
    /// PEM of authorities.
    pub ca_file: String,
    /// PEM of the client's certificate.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
    /// Name in etcd's certificates.
    pub server_name: String,
}

impl Default for EtcdSettings {
    fn default() -> Self {
        EtcdSettings {
            endpoints: Vec::new(),
            prefix: String::new(),
            username: String::new(),
            password_file: String::new(),
            tls: EtcdTls::default(),
            lease_ttl: GoDuration::from_secs(5),
            max_request_bytes: 1_572_864,
        }
    }
}

impl EtcdSettings {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "store.etcd.endpoints",
            "STORE_ETCD_ENDPOINTS",
            "addresses of etcd's members, for store.type etcd: http://HOST:PORT, https://HOST:PORT, or HOST:PORT, which \
             means HTTPS when a file of store.etcd.tls is set",
        ),
        setting(
            "store.etcd.prefix",
            "STORE_ETCD_PREFIX",
            "what the keys in etcd begin with; empty: /graticule/NAME; NAME: global or zone-ZONE",
        ),
        setting("store.etcd.username", "STORE_ETCD_USERNAME", "user of etcd; empty: etcd asks for none"),
        setting(
            "store.etcd.passwordFile",
            "STORE_ETCD_PASSWORD_FILE",
            "file with the password of store.etcd.username",
        ),
        setting(
            "store.etcd.tls.caFile",
            "STORE_ETCD_TLS_CA_FILE",
            "authorities that may have signed etcd's certificates (PEM); empty: those of the system",
        ),
        setting(
            "store.etcd.tls.certFile",
            "STORE_ETCD_TLS_CERT_FILE",
            "certificate that the control plane shows to etcd (PEM)",
        ),
        setting("store.etcd.tls.keyFile", "STORE_ETCD_TLS_KEY_FILE", "key of store.etcd.tls.certFile (PEM)"),
        setting(
            "store.etcd.tls.serverName",
            "STORE_ETCD_TLS_SERVER_NAME",
            "name that etcd's certificates must have; empty: the host of the endpoint",
        ),
        setting(
            "store.etcd.leaseTtl",
            "STORE_ETCD_LEASE_TTL",
            "time after which another replica leads when the leader has died, in whole seconds",
        ),
        setting(
            "store.etcd.maxRequestBytes",
            "STORE_ETCD_MAX_REQUEST_BYTES",
            "largest request that etcd takes (its --max-request-bytes); bounds what one transaction may write",
        ),
    ];
}
