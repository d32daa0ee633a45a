//! Opens the store that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use graticule_runtime::settings::{General, StoreSettings};
use graticule_runtime::{Clock, Random, host};
use graticule_store::{MemoryStore, Store};
use graticule_store_raft::{Deps, FileSystem, Options, RaftStore};

/// Values of `store.type`.
pub const TYPES: [&str; 2] = ["raft", "memory"];

/// The store of config, and how it ends.
pub struct Opened {
    store: Arc<dyn Store>,
    raft: Option<Arc<RaftStore>>,
}

impl Opened {
    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Ends the store in good order, once nobody writes any more.
    pub async fn close(self) {
        if let Some(raft) = self.raft {
            raft.close().await;
        }
    }
}

/// Opens the store; `name` is `global` or `zone-` and the zone's name, `data_dir` the argument of that name.
///
/// # Errors
/// The data directory cannot be used, or a file in it is damaged or of a newer version.
pub async fn open(
    settings: &StoreSettings,
    general: &General,
    name: &str,
    data_dir: Option<PathBuf>,
    clock: &Clock,
    random: &Random,
) -> Result<Opened> {
    if settings.r#type == "memory" {
        tracing::warn!("store.type memory: nothing survives a restart");
        return Ok(Opened { store: memory(clock), raft: None });
    }
    let data_dir = data_dir
        .unwrap_or_else(|| settings.data_dir(general, name, host::is_root(), |name| std::env::var_os(name)));
    tracing::info!(data_dir = %data_dir.display(), "opening the store");
    let disk = FileSystem::open(&data_dir).context("store.dataDir (--data-dir)")?;
    let deps = Deps { disk: Arc::new(disk), clock: clock.clone(), random: random.clone() };
    let options = Options { name: host::name(), ..Options::default() };
    let raft = Arc::new(RaftStore::open(options, deps).await.context("store")?);
    Ok(Opened { store: raft.clone(), raft: Some(raft) })
}

/// A store that forgets: for status.
pub fn memory(clock: &Clock) -> Arc<dyn Store> {
    let clock = clock.clone();
    Arc::new(MemoryStore::new(move || clock.now()))
}
