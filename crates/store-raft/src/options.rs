//! What may be set.

use std::sync::Arc;
use std::time::Duration;

use graticule_store::seal::Sealer;

use crate::log::LogOptions;
use crate::snapshot::{self, Files};

/// Options of a member.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the member for people. Default empty.
    pub name: String,
    /// `host:port` where other members reach this one. Default empty: it stands alone.
    pub address: String,
    /// What a new data directory becomes. Default [`Form::Alone`].
    pub form: Form,
    /// Batches that are kept for readers that resume or lag.
    pub history_len: usize,
    /// The log.
    pub log: LogOptions,
    /// Bytes that the log grows between two snapshots, at least; it is a quarter of the last snapshot if that is more.
    /// Default 16 MiB.
    pub snapshot_after: usize,
    /// Entries that stay in the log although a snapshot has them, for members that lag. Default 1,000.
    pub entries_kept: u64,
    /// Bytes of such entries, at most: fewer of them stay when they are long. Default 64 MiB.
    pub bytes_kept: usize,
    /// Time between two heartbeats of a leader. Default 200 ms.
    pub heartbeat: Duration,
    /// Scale of elections: a member stands for election after three to four times as long without a leader, and a
    /// leader gives up after twice as long without a majority. Default 500 ms.
    pub election_timeout: Duration,
    /// Time that a write waits for a leader and its answer. Default 10 s.
    pub write_timeout: Duration,
    /// Time after which a member whose disk failed tries again. Default 500 ms.
    pub retry: Duration,
    /// Snapshots that are kept on the disk, at least one. Default 2.
    pub snapshots_kept: usize,
    /// Seals secrets in files and between members. Default: no key, nothing is sealed.
    pub sealer: Arc<Sealer>,
}

/// What a new data directory becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The first member of a cluster of its own.
    Alone,
    /// A member that waits until a cluster adds it.
    Join,
}

/// Largest transaction in its encoded form, in bytes.
pub const TXN_LEN_MAX: usize = 32 << 20;
/// Writes that are under way at once; more wait.
pub const WRITES_MAX: usize = 4096;

impl Default for Options {
    fn default() -> Self {
        Options {
            name: String::new(),
            address: String::new(),
            form: Form::Alone,
            history_len: graticule_store::history::HISTORY_LEN_DEFAULT,
            log: LogOptions::default(),
            snapshot_after: 16 << 20,
            entries_kept: 1000,
            bytes_kept: 64 << 20,
            heartbeat: Duration::from_millis(200),
            election_timeout: Duration::from_millis(500),
            write_timeout: Duration::from_secs(10),
            retry: Duration::from_millis(500),
            snapshots_kept: snapshot::KEPT_DEFAULT,
            sealer: Arc::default(),
        }
    }
}

impl Options {
    pub(crate) fn files(&self) -> Files {
        Files { sealer: self.sealer.clone(), kept: self.snapshots_kept }
    }

    pub(crate) fn raft(&self) -> Result<openraft::Config, openraft::ConfigError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "graticule".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_timeout),
            election_timeout_max: millis(self.election_timeout) * 2,
            install_snapshot_timeout: 10_000,
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // The log is shortened by `follow`, which also counts bytes; openraft expects that only one of both does it.
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: u64::MAX,
            enable_pre_vote: Some(true),
            // A restarted leader is elected again: its last commit may not be on the disk.
            enable_leader_restore: Some(false),
            api_channel_size: Some(WRITES_MAX as u64),
            ..openraft::Config::default()
        }
        .validate()
    }
}
