//! The work directory: the place of sockets and configuration, and the names that the control plane computes
//! too (dataplane-agent.md §3.5).

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Longest path of a socket before its suffix, in bytes.
const SOCKET_STEM_LEN_MAX: usize = 98;
/// How many names are tried for a temporary directory.
const TEMP_NAMES_MAX: u32 = 100;
/// Others may pass, so that an application can reach sockets it is allowed to, but not list.
const TEMP_MODE: u32 = 0o711;

/// An existing directory; a temporary one is removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    temporary: bool,
}

/// Why there is no directory to work in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot use the work directory {path}")]
    Explicit {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot create a temporary work directory in {path}: name one with --work-dir")]
    Temporary {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl WorkDir {
    /// The given directory, created if absent; or else a new temporary one.
    pub(crate) fn open(explicit: Option<&Path>) -> Result<WorkDir, Error> {
        let Some(path) = explicit else { return WorkDir::temporary(&std::env::temp_dir()) };
        let fail = |source| Error::Explicit { path: path.display().to_string(), source };
        std::fs::create_dir_all(path).map_err(fail)?;
        // Envoy and the control plane are told this path: it must not depend on the current directory.
        let path = std::path::absolute(path).map_err(fail)?;
        Ok(WorkDir { path, temporary: false })
    }

    fn temporary(parent: &Path) -> Result<WorkDir, Error> {
        let fail = |source| Error::Temporary { path: parent.display().to_string(), source };
        let mut number = 0;
        loop {
            let path = parent.join(format!("graticule-dp-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(TEMP_MODE).create(&path) {
                Ok(()) => {
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(TEMP_MODE))
                        .map_err(fail)?;
                    return Ok(WorkDir { path, temporary: true });
                }
                Err(error)
                    if error.kind() == std::io::ErrorKind::AlreadyExists && number < TEMP_NAMES_MAX =>
                {
                    number += 1;
                }
                Err(error) => return Err(fail(error)),
            }
        }
    }

    /// Where it is, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the work directory");
        }
    }
}

/// The path of a socket: cut so that it fits into a Unix socket address with its suffix.
pub(crate) fn socket_path(dir: &Path, base: &str) -> PathBuf {
    let joined = dir.join(base).to_string_lossy().into_owned();
    let mut len = joined.len().min(SOCKET_STEM_LEN_MAX);
    while !joined.is_char_boundary(len) {
        len -= 1;
    }
    PathBuf::from(format!("{}.sock", &joined[..len]))
}

/// The pipe that Envoy writes TCP access logs to.
pub(crate) fn access_log_path(dir: &Path, mesh: &str, name: &str) -> PathBuf {
    socket_path(dir, &format!("kuma-al-{name}-{mesh}"))
}

/// Replaces a file by one that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_paths_are_cut() {
        let dir = Path::new("/run/graticule");
        for (base, expected) in [
            ("kuma-al-web-1-default".to_owned(), "/run/graticule/kuma-al-web-1-default.sock".to_owned()),
            ("x".repeat(83), format!("/run/graticule/{}.sock", "x".repeat(83))),
            ("x".repeat(84), format!("/run/graticule/{}.sock", "x".repeat(83))),
            (format!("{}ä", "x".repeat(82)), format!("/run/graticule/{}.sock", "x".repeat(82))),
        ] {
            let path = socket_path(dir, &base);
            assert_eq!(path, Path::new(&expected));
            assert!(path.as_os_str().len() <= 103);
        }
    }

    #[test]
    fn temporary_directories_go_away() {
        let dir = WorkDir::open(None).expect("creates");
        let path = dir.path().to_owned();
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode, TEMP_MODE);
        write_private(&path.join("file"), b"one").expect("writes");
        write_private(&path.join("file"), b"two").expect("replaces");
        let mode = std::fs::metadata(path.join("file")).expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        drop(dir);
        assert!(!path.exists());
    }
}
