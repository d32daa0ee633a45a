//! Files as an argument: the file system, or an in-memory disk that a simulation can crash and fill.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod memory;

pub use memory::MemoryDisk;

/// One directory with files in it. Names have no separators.
pub trait Disk: Send + Sync + 'static {
    /// What error messages call a file.
    fn path(&self, name: &str) -> PathBuf;
    /// Names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file; an old one of this name is emptied.
    ///
    /// # Errors
    /// The file cannot be made.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// A file that exists.
    ///
    /// # Errors
    /// The file cannot be opened.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in place of the file that has it. Durable when it returns.
    ///
    /// # Errors
    /// The system refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable when it returns.
    ///
    /// # Errors
    /// The system refuses.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Simulated time that the log waits for a write to become durable; none on a real disk, which takes its time.
    fn delay(&self) -> Option<Duration> {
        None
    }
}

/// One open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Length in bytes.
    ///
    /// # Errors
    /// The system refuses.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The file ends before, or cannot be read.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`; durable after [`sync`](Self::sync).
    ///
    /// # Errors
    /// The file cannot be written; then its contents there are unknown.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// What was written since the last sync may be lost, whatever a later sync says.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system, held by one process at a time.
#[derive(Debug)]
pub struct FileSystem {
    dir: PathBuf,
    handle: File,
    _lock: File,
}

/// Name of the file whose lock says that a process uses the directory.
const LOCK: &str = "lock";

impl FileSystem {
    /// Opens (and makes) a directory and locks it.
    ///
    /// # Errors
    /// The directory cannot be used, or another process uses it.
    pub fn open(dir: &Path) -> io::Result<FileSystem> {
        let named = |what: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("data directory {}: {what}: {error}", dir.display()))
        };
        make_private(dir).map_err(|error| named("cannot be made", error))?;
        let handle = File::open(dir).map_err(|error| named("cannot be opened", error))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK));
        let lock = lock.map_err(|error| named("cannot be locked", error))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let error = io::Error::from(error);
            if error.kind() == io::ErrorKind::WouldBlock {
                let text = format!(
                    "data directory {} is in use by another process; give each control plane its own --data-dir",
                    dir.display()
                );
                return io::Error::new(error.kind(), text);
            }
            named("cannot be locked", error)
        })?;
        Ok(FileSystem { dir: dir.to_owned(), handle, _lock: lock })
    }
}

/// There are secrets in the files.
fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

impl Disk for FileSystem {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str()
                && name != LOCK
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true).mode(0o600);
        let file = options.open(self.path(name))?;
        self.handle.sync_all()?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.path(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        self.handle.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))?;
        self.handle.sync_all()
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
