//! Where the programs are: our own ones and Envoy.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Paths of the programs of a run.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// Directory of our own programs.
    pub dir: PathBuf,
    /// The real Envoy.
    pub envoy: PathBuf,
    /// Root of the checkout, for `deploy/demo`.
    pub root: PathBuf,
}

impl Binaries {
    /// From `GRATICULE_BIN_DIR` and `ENVOY_BIN`, as `cargo xtask` sets them; `None` when a variable is not set.
    pub fn from_env() -> Option<Binaries> {
        let dir = PathBuf::from(std::env::var_os("GRATICULE_BIN_DIR")?);
        let envoy = PathBuf::from(std::env::var_os("ENVOY_BIN")?);
        Some(Binaries { dir, envoy, root: root() })
    }

    /// Path of one of our programs.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!("{} is missing: run it through `cargo xtask`, which builds it first", path.display())
    }

    /// A file of the demo.
    pub fn demo_file(&self, name: &str) -> PathBuf {
        self.root.join("deploy/demo").join(name)
    }
}

/// Root of the checkout.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().and_then(Path::parent).unwrap_or(manifest).to_owned()
}
