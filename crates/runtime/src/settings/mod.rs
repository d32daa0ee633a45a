//! Settings that both control planes have, with Kuma's keys and defaults; and Kuma's other names.
//!
//! Each part exports its table of [`Setting`]s next to its type; a program joins the tables of its parts.

mod etcd;
mod kuma;

use serde::{Deserialize, Serialize};

pub use etcd::{EtcdSettings, EtcdTls};
pub use graticule_settings::setting;
pub use kuma::{Role, foreign, one_sided};

use crate::config::{Schema, Setting};

/// Variables of the other programs, which may share an environment with a control plane; and of our tests.
const RESERVED: &[&str] = &[
    "ADDRESS",
    "TOKEN",
    "CA_CERT_FILE",
    "CLIENT_CERT_FILE",
    "CLIENT_KEY_FILE",
    "CLI_*",
    "CONFIG",
    "CONTEXT",
    "CONTROL_PLANE_*",
    "DATAPLANE_*",
    "READINESS_PORT",
    "APPLICATION_PROBE_PROXY_PORT",
    "DNS_ENABLED",
    "DNS_PROXY_PORT",
    "CONFORMANCE_DIR",
    "BIN_DIR",
];

/// A schema out of the tables of a program's parts. Tables live as long as the process.
pub fn schema(tables: &[&[Setting]], role: Role) -> Schema {
    let settings: Vec<Setting> = tables.iter().flat_map(|table| table.iter().copied()).collect();
    let mut foreign = foreign(&settings, role);
    foreign.extend(one_sided(&settings, role));
    Schema { settings: settings.leak(), foreign: foreign.leak(), reserved: RESERVED }
}

/// `general`: certificates, directories, back-off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct General {
    /// PEM certificate of all servers that have none of their own.
    pub tls_cert_file: String,
    /// Its key.
    pub tls_key_file: String,
    /// Lowest TLS version.
    pub tls_min_version: String,
    /// Highest TLS version; empty = newest.
    pub tls_max_version: String,
    /// Directory of generated certificates; empty = `$HOME/.graticule`.
    pub work_dir: String,
}

impl Default for General {
    fn default() -> Self {
        General {
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            tls_min_version: "TLSv1_2".into(),
            tls_max_version: String::new(),
            work_dir: String::new(),
        }
    }
}

impl General {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "general.tlsCertFile",
            "GENERAL_TLS_CERT_FILE",
            "PEM certificate of all servers that have none of their own; empty: one is generated in general.workDir",
        ),
        setting("general.tlsKeyFile", "GENERAL_TLS_KEY_FILE", "key of general.tlsCertFile"),
        setting("general.tlsMinVersion", "GENERAL_TLS_MIN_VERSION", "lowest TLS version: TLSv1_2 or TLSv1_3"),
        setting("general.tlsMaxVersion", "GENERAL_TLS_MAX_VERSION", "highest TLS version; empty: the newest"),
        setting(
            "general.workDir",
            "GENERAL_WORK_DIR",
            "directory of generated certificates; empty: $HOME/.graticule",
        ),
    ];

    /// The work directory, with the default filled in.
    pub fn work_dir(&self) -> std::path::PathBuf {
        if self.work_dir.is_empty() {
            let home = std::env::var_os("HOME").unwrap_or_else(|| "/var/lib".into());
            return std::path::PathBuf::from(home).join(".graticule");
        }
        self.work_dir.clone().into()
    }
}

/// `store`: where resources are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StoreSettings {
    /// `raft`, `etcd` or `memory`.
    pub r#type: String,
    /// Data directory of `raft`; empty = [`data_dir`](Self::data_dir) says.
    pub data_dir: String,
    /// Several replicas of `raft`.
    pub raft: RaftSettings,
    /// Switches the guards of deletions off.
    pub unsafe_delete: bool,
    /// Snapshots of `raft` that are kept on the disk.
    pub snapshots_kept: u32,
    /// Encryption of secrets.
    pub encryption: Encryption,
    /// For `etcd`.
    pub etcd: EtcdSettings,
}

/// `store.encryption`: secrets at rest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Encryption {
    /// File with keys; empty = secrets are stored as they are.
    pub key_file: String,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            r#type: "raft".into(),
            data_dir: String::new(),
            raft: RaftSettings::default(),
            unsafe_delete: false,
            snapshots_kept: 2,
            encryption: Encryption::default(),
            etcd: EtcdSettings::default(),
        }
    }
}

/// `store.raft`: several replicas. One alone needs nothing of this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RaftSettings {
    /// Name of this member for people; empty = the host's.
    pub name: String,
    /// `host:port` where other members reach this one; empty = found out.
    pub address: String,
    /// Address of the members' listener.
    pub interface: String,
    /// Its port.
    pub port: u16,
    /// `host:port` of the members that form the cluster.
    pub members: Vec<String>,
    /// `host:port` of members of a cluster that is there already.
    pub join: Vec<String>,
    /// File with the cluster's token.
    pub token_file: String,
}

impl Default for RaftSettings {
    fn default() -> Self {
        RaftSettings {
            name: String::new(),
            address: String::new(),
            interface: "0.0.0.0".into(),
            port: 5686,
            members: Vec::new(),
            join: Vec::new(),
            token_file: String::new(),
        }
    }
}

impl RaftSettings {
    /// Whether this replica has, or may get, others beside it.
    pub fn is_clustered(&self) -> bool {
        !self.address.is_empty() || !self.members.is_empty() || !self.join.is_empty()
    }
}

impl StoreSettings {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "store.type",
            "STORE_TYPE",
            "store backend: raft (embedded, durable), etcd (an existing cluster, see store.etcd.endpoints) or memory (nothing \
             survives a restart)",
        ),
        setting(
            "store.dataDir",
            "STORE_DATA_DIR",
            "data directory of the embedded store; empty: data below general.workDir if that is set, else \
             /var/lib/graticule/NAME for root and $XDG_STATE_HOME/graticule/NAME for others; NAME: global or zone-ZONE",
        ),
        setting(
            "store.raft.name",
            "STORE_RAFT_NAME",
            "name of this member of a cluster, for people; empty: the host's",
        ),
        setting(
            "store.raft.address",
            "STORE_RAFT_ADDRESS",
            "host:port where other members reach this one; empty: that of store.raft.members which is this machine's, \
             else the address of the interface that leads to the others. Set, it opens the members' listener",
        ),
        setting("store.raft.interface", "STORE_RAFT_INTERFACE", "address of the members' listener"),
        setting("store.raft.port", "STORE_RAFT_PORT", "port of the members' listener"),
        setting(
            "store.raft.members",
            "STORE_RAFT_MEMBERS",
            "host:port of all members that form the cluster, or of the others; set, it opens the members' listener",
        ),
        setting(
            "store.raft.join",
            "STORE_RAFT_JOIN",
            "host:port of members of a cluster that this one joins and never forms itself (flag --join)",
        ),
        setting(
            "store.raft.tokenFile",
            "STORE_RAFT_TOKEN_FILE",
            "file with the cluster's token (`grat generate cluster-token`), the same for all members; of several lines \
             the first is used and all are accepted; empty: cluster-token in the data directory (flag --join-token-file)",
        ),
        setting(
            "store.unsafeDelete",
            "STORE_UNSAFE_DELETE",
            "delete meshes with Dataplanes and zones that are online",
        ),
        setting(
            "store.snapshotsKept",
            "STORE_SNAPSHOTS_KEPT",
            "snapshots of the embedded store that are kept on the disk, at least 1",
        ),
        setting(
            "store.encryption.keyFile",
            "STORE_ENCRYPTION_KEY_FILE",
            "file with keys that encrypt secrets on disk, between members and in backups: lines `ID BASE64`, the first one \
             encrypts, all decrypt; `grat generate encryption-key` makes one; empty: secrets are stored as they are",
        ),
    ];

    /// The data directory of the control plane `name`, with the default filled in. `is_root` and `variable` are those
    /// of the process.
    pub fn data_dir(
        &self,
        general: &General,
        name: &str,
        is_root: bool,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> std::path::PathBuf {
        if !self.data_dir.is_empty() {
            return self.data_dir.clone().into();
        }
        if !general.work_dir.is_empty() {
            return std::path::Path::new(&general.work_dir).join("data");
        }
        let system = || std::path::PathBuf::from("/var/lib");
        let set = |variable: Option<std::ffi::OsString>| {
            variable.filter(|value| !value.is_empty()).map(std::path::PathBuf::from)
        };
        let base = if is_root {
            system()
        } else {
            let state = set(variable("XDG_STATE_HOME")).filter(|path| path.is_absolute());
            state
                .or_else(|| set(variable("HOME")).map(|home| home.join(".local/state")))
                .unwrap_or_else(system)
        };
        base.join("graticule").join(name)
    }
}

/// `diagnostics`: health, readiness and metrics of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Diagnostics {
    /// Port of `/ready` and `/healthy`.
    pub server_port: u16,
    /// TLS on that port.
    pub tls_enabled: bool,
    /// PEM certificate; empty = `general.tlsCertFile`.
    pub tls_cert_file: String,
    /// Its key.
    pub tls_key_file: String,
    /// Lowest TLS version.
    pub tls_min_version: String,
    /// Highest TLS version; empty = newest.
    pub tls_max_version: String,
}

impl Default for Diagnostics {
    fn default() -> Self {
        Diagnostics {
            server_port: 5680,
            tls_enabled: false,
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            tls_min_version: "TLSv1_2".into(),
            tls_max_version: String::new(),
        }
    }
}

impl Diagnostics {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "diagnostics.serverPort",
            "DIAGNOSTICS_SERVER_PORT",
            "port of /ready, /healthy, /metrics and /logging",
        ),
        setting("diagnostics.tlsEnabled", "DIAGNOSTICS_TLS_ENABLED", "TLS on that port"),
        setting(
            "diagnostics.tlsCertFile",
            "DIAGNOSTICS_TLS_CERT_FILE",
            "PEM certificate; empty: general.tlsCertFile",
        ),
        setting("diagnostics.tlsKeyFile", "DIAGNOSTICS_TLS_KEY_FILE", "key of the certificate"),
        setting(
            "diagnostics.tlsMinVersion",
            "DIAGNOSTICS_TLS_MIN_VERSION",
            "lowest TLS version, unless general.tlsMinVersion is higher",
        ),
        setting(
            "diagnostics.tlsMaxVersion",
            "DIAGNOSTICS_TLS_MAX_VERSION",
            "highest TLS version; empty: general.tlsMaxVersion",
        ),
    ];
}

/// `defaults`: what a control plane makes by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Defaults {
    /// No mesh `default`.
    pub skip_mesh_creation: bool,
    /// Nothing that makes a control plane usable at once: no mesh, signing keys or admin token.
    pub skip_tenant_resources: bool,
    /// No HostnameGenerators.
    #[serde(rename = "SkipHostnameGenerators")]
    pub skip_hostname_generators: bool,
}

impl Defaults {
    /// Table of settings.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "defaults.skipMeshCreation",
            "DEFAULTS_SKIP_MESH_CREATION",
            "do not create the mesh \"default\"",
        ),
        setting(
            "defaults.skipTenantResources",
            "DEFAULTS_SKIP_TENANT_RESOURCES",
            "create neither the mesh \"default\" nor signing keys of tokens nor the admin's token",
        ),
        setting(
            "defaults.SkipHostnameGenerators",
            "DEFAULTS_SKIP_HOSTNAME_GENERATORS",
            "do not create the default HostnameGenerators",
        ),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directories() {
        let at = |data_dir: &str, work_dir: &str, is_root: bool, variables: &[(&str, &str)]| {
            let store = StoreSettings { data_dir: data_dir.into(), ..StoreSettings::default() };
            let general = General { work_dir: work_dir.into(), ..General::default() };
            let found = store.data_dir(&general, "zone-east", is_root, |name| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
            });
            found.display().to_string()
        };
        let home = [("HOME", "/home/me")];
        let state = [("HOME", "/home/me"), ("XDG_STATE_HOME", "/state")];
        assert_eq!(at("/d", "/w", true, &home), "/d");
        assert_eq!(at("", "/w", true, &home), "/w/data");
        assert_eq!(at("", "", true, &home), "/var/lib/graticule/zone-east");
        assert_eq!(at("", "", false, &home), "/home/me/.local/state/graticule/zone-east");
        assert_eq!(at("", "", false, &state), "/state/graticule/zone-east");
        assert_eq!(at("", "", false, &[("XDG_STATE_HOME", "relative")]), "/var/lib/graticule/zone-east");
    }

    #[test]
    fn variables_of_grat_are_no_mistakes_of_a_control_plane() {
        for name in
            ["ADDRESS", "TOKEN", "CA_CERT_FILE", "CLIENT_CERT_FILE", "CLIENT_KEY_FILE", "CONFIG", "CONTEXT"]
        {
            assert!(RESERVED.contains(&name), "a shell with GRATICULE_{name} could start no control plane");
        }
    }
}
