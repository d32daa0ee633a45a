//! Values out of files that are read again when the files change.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Error;

/// What was read from some files. Changes are seen when the value is asked for, so that no task has to run.
pub(super) struct Watched<T> {
    /// What the files hold, for the log.
    what: &'static str,
    paths: Vec<PathBuf>,
    load: fn(&[PathBuf]) -> Result<T, Error>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    stamp: Stamp,
    value: Arc<T>,
}

/// What tells a changed file from an unchanged one: time of modification and length of every file.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl<T> Watched<T> {
    /// Reads the files for the first time.
    pub(super) fn new(
        what: &'static str,
        paths: Vec<PathBuf>,
        load: fn(&[PathBuf]) -> Result<T, Error>,
    ) -> Result<Watched<T>, Error> {
        let stamp = stamp(&paths);
        let value = Arc::new(load(&paths)?);
        Ok(Watched { what, paths, load, current: Mutex::new(Current { stamp, value }) })
    }

    /// The value, read again if its files changed. Files that are broken (or half written) leave the last good
    /// one in place, which is said once per change.
    pub(super) fn fresh(&self) -> Arc<T> {
        let seen = stamp(&self.paths);
        let mut current = self.current.lock();
        if seen != current.stamp {
            current.stamp = seen;
            let (what, file) = (self.what, self.path().display());
            match (self.load)(&self.paths) {
                Ok(value) => {
                    tracing::info!(%file, "{what} reloaded");
                    current.value = Arc::new(value);
                }
                Err(error) => {
                    let error = crate::supervisor::chain(&error);
                    tracing::error!(%file, error, "{what} changed but cannot be used; the old one stays");
                }
            }
        }
        current.value.clone()
    }

    /// The first file.
    pub(super) fn path(&self) -> &Path {
        self.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("what", &self.what)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| {
        fs::metadata(path).ok().and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())))
    };
    paths.iter().map(of).collect()
}
