//! Opens the store that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use graticule_api::{Backups, Cluster, NoCluster};
use graticule_runtime::settings::{General, StoreSettings};
use graticule_runtime::{Clock, Random, host};
use graticule_store::seal::{KeyFileError, Sealer};
use graticule_store::status::{Grouping, SharedStatus};
use graticule_store::{MemoryStore, Revision, Store};
use graticule_store_raft::{Deps, FileSystem, Options, RaftStore};
use tokio::task::JoinSet;

use crate::cluster::{self, Prepared, Replicas};

use crate::etcd::Etcd;

/// Values of `store.type`.
pub const TYPES: [&str; 3] = ["raft", "etcd", "memory"];

/// The store of config, and how it ends.
pub struct Opened {
    store: Arc<dyn Store>,
    raft: Option<Arc<RaftStore>>,
    etcd: Option<Etcd>,
    sealer: Arc<Sealer>,
    was_empty: bool,
    members: Option<Prepared>,
    has_replicas: bool,
    /// Serve the other members until the store is closed: a leader hands over first.
    tasks: JoinSet<()>,
}

/// Why `store.encryption.keyFile` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("store.encryption.keyFile: {file}")]
    Io {
        /// The file.
        file: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// It is not of the form that it must have.
    #[error("store.encryption.keyFile: {file}")]
    Form {
        /// The file.
        file: String,
        /// What is wrong.
        #[source]
        source: KeyFileError,
    },
}

/// The keys of secrets at rest.
///
/// # Errors
/// The file cannot be used.
pub fn sealer(settings: &StoreSettings) -> Result<Sealer, KeysError> {
    let file = &settings.encryption.key_file;
    if file.is_empty() {
        return Ok(Sealer::NONE);
    }
    let text =
        std::fs::read_to_string(file).map_err(|source| KeysError::Io { file: file.clone(), source })?;
    Sealer::parse(&text).map_err(|source| KeysError::Form { file: file.clone(), source })
}

impl Opened {
    /// A store that stands alone.
    fn of(store: Arc<dyn Store>, sealer: Arc<Sealer>, was_empty: bool) -> Opened {
        let tasks = JoinSet::new();
        Opened { store, raft: None, etcd: None, sealer, was_empty, members: None, has_replicas: false, tasks }
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// What backups need, once the control plane has made its own objects.
    pub fn backups(&self) -> Backups {
        let untouched_at = self.was_empty.then(|| self.store.snapshot().revision());
        Backups { sealer: self.sealer.clone(), untouched_at }
    }

    /// Whether other replicas may write to it.
    pub fn has_replicas(&self) -> bool {
        self.has_replicas
    }

    /// Makes this replica a member of its cluster; returns when it is one and has caught up.
    /// `replicas` hears the others from then on.
    pub async fn start_members(&mut self, replicas: &Replicas, clock: &Clock) -> Arc<dyn Cluster> {
        match (&self.raft, self.members.take()) {
            (Some(raft), Some(members)) => {
                cluster::start(members, raft.clone(), replicas, clock.clone(), &mut self.tasks).await
            }
            (Some(raft), None) => cluster::alone(raft.clone(), replicas, clock.clone()),
            (None, _) => {
                replicas.alone();
                NoCluster::shared()
            }
        }
    }

    /// Ends the store in good order, once nobody writes any more.
    pub async fn close(mut self) {
        if let Some(raft) = self.raft {
            raft.close().await;
        }
        if let Some(etcd) = self.etcd {
            etcd.close().await;
        }
        self.tasks.shutdown().await;
    }
}

/// Opens the store; `name` is `global` or `zone-` and the zone's name, `data_dir` the argument of that name.
///
/// # Errors
/// The data directory cannot be used, or a file in it is damaged or of a newer version; etcd does not answer or refuses,
/// or this program was built without it.
pub async fn open(
    settings: &StoreSettings,
    general: &General,
    name: &str,
    data_dir: Option<PathBuf>,
    clock: &Clock,
    random: &Random,
) -> Result<Opened> {
    let sealer = Arc::new(sealer(settings)?);
    if settings.r#type == "memory" {
        tracing::warn!("store.type memory: nothing survives a restart");
        return Ok(Opened::of(memory(clock), sealer, true));
    }
    if settings.r#type == "etcd" {
        let etcd = Etcd::open(&settings.etcd, name, sealer.clone(), clock, random).await?;
        let store = etcd.store();
        let was_empty = store.snapshot().revision() == Revision(0);
        return Ok(Opened { etcd: Some(etcd), has_replicas: true, ..Opened::of(store, sealer, was_empty) });
    }
    let data_dir = data_dir
        .unwrap_or_else(|| settings.data_dir(general, name, host::is_root(), |name| std::env::var_os(name)));
    let members = cluster::prepare(&settings.raft, name, &data_dir, random).await?;
    tracing::info!(data_dir = %data_dir.display(), "opening the store");
    let disk = FileSystem::open(&data_dir).context("store.dataDir (--data-dir)")?;
    let deps = Deps {
        disk: Arc::new(disk),
        clock: clock.clone(),
        random: random.clone(),
        connector: members.as_ref().map(Prepared::connector),
    };
    let mut options = Options {
        name: host::name(),
        snapshots_kept: usize::try_from(settings.snapshots_kept).unwrap_or(usize::MAX),
        sealer: sealer.clone(),
        ..Options::default()
    };
    if let Some(members) = &members {
        members.configure(&mut options);
    }
    let raft = Arc::new(RaftStore::open(options, deps).await.context("store")?);
    let was_empty = raft.snapshot().revision() == Revision(0);
    let has_replicas = members.is_some();
    Ok(Opened { raft: Some(raft.clone()), members, has_replicas, ..Opened::of(raft, sealer, was_empty) })
}

/// Status of this replica, which is called `instance`, and of the others.
pub fn status(grouping: Grouping, instance: &str, clock: &Clock, random: &Random) -> SharedStatus {
    let clock = clock.clone();
    SharedStatus::new(format!("{instance}-{:016x}", random.u64()), grouping, move || clock.now())
}

/// A store that forgets.
fn memory(clock: &Clock) -> Arc<dyn Store> {
    let clock = clock.clone();
    Arc::new(MemoryStore::new(move || clock.now()))
}
