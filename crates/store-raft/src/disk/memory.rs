//! A disk in memory that loses what was not synced, fills up and fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use graticule_runtime::Random;
use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// The unit that a disk writes wholly or not at all.
const SECTOR_LEN: usize = 512;

/// Cheap to clone; clones are the same disk. Whoever locks both locks the contents before a file.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Arc<Mutex<File>>>,
    is_full: bool,
    fails: bool,
    delay: Option<Duration>,
}

#[derive(Default, Clone)]
struct File {
    bytes: Vec<u8>,
    /// What was there before writes that were not synced; oldest first.
    unsynced: Vec<(usize, Vec<u8>)>,
}

struct Handle {
    disk: MemoryDisk,
    file: Arc<Mutex<File>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// From now on files cannot grow (or can again).
    pub fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// From now on nothing can be written or synced (or can again).
    pub fn set_failing(&self, fails: bool) {
        self.0.lock().fails = fails;
    }

    /// Whether it is full or fails.
    pub fn is_broken(&self) -> bool {
        let contents = self.0.lock();
        contents.is_full || contents.fails
    }

    /// From now on the log waits this long for a write to become durable, in the time of a simulation.
    pub fn set_delay(&self, delay: Duration) {
        self.0.lock().delay = Some(delay);
    }

    /// Power is lost: of what was not synced, any sectors may be there and any not.
    pub fn crash(&self, random: &Random) {
        for file in self.0.lock().files.values() {
            let mut file = file.lock();
            for (offset, old) in std::mem::take(&mut file.unsynced).into_iter().rev() {
                let mut start = offset;
                while start < offset + old.len() {
                    let end = (offset + old.len()).min((start / SECTOR_LEN + 1) * SECTOR_LEN);
                    if random.fraction() < 0.5 && end <= file.bytes.len() {
                        file.bytes[start..end].copy_from_slice(&old[start - offset..end - offset]);
                    }
                    start = end;
                }
            }
        }
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.0.lock().files.get(name).cloned()?;
        let bytes = file.lock().bytes.clone();
        Some(bytes)
    }

    /// Replaces the bytes of a file, or makes it.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let file = File { bytes, unsynced: Vec::new() };
        self.0.lock().files.insert(name.into(), Arc::new(Mutex::new(file)));
    }

    /// An independent disk with the same files at one moment, and with the same writes not synced.
    pub fn copy(&self) -> MemoryDisk {
        let copy = MemoryDisk::new();
        let contents = self.0.lock();
        for (name, file) in &contents.files {
            let file = File::clone(&file.lock());
            copy.0.lock().files.insert(name.clone(), Arc::new(Mutex::new(file)));
        }
        copy
    }

    fn check(&self, grows: bool) -> io::Result<()> {
        self.0.lock().check(grows)
    }
}

impl Contents {
    fn check(&self, grows: bool) -> io::Result<()> {
        if self.fails {
            return Err(io::Error::other("the disk fails"));
        }
        if grows && self.is_full {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the disk"));
        }
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/memory").join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.check(true)?;
        let file = Arc::new(Mutex::new(File::default()));
        self.0.lock().files.insert(name.into(), file.clone());
        Ok(Box::new(Handle { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.lock().files.get(name).cloned();
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{name} is not there"));
        Ok(Box::new(Handle { disk: self.clone(), file: file.ok_or_else(missing)? }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check(false)?;
        let mut contents = self.0.lock();
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{from} is not there"));
        let file = contents.files.remove(from).ok_or_else(missing)?;
        contents.files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check(false)?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{name} is not there"));
        self.0.lock().files.remove(name).map(|_| ()).ok_or_else(missing)
    }

    fn delay(&self) -> Option<Duration> {
        self.0.lock().delay
    }
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.lock().bytes.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.file.lock();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = offset.checked_add(buffer.len()).and_then(|end| file.bytes.get(offset..end));
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let end = offset + bytes.len();
        let contents = self.disk.0.lock();
        let mut file = self.file.lock();
        contents.check(end > file.bytes.len())?;
        if end > file.bytes.len() {
            file.bytes.resize(end, 0);
        }
        let old = file.bytes[offset..end].to_vec();
        file.unsynced.push((offset, old));
        file.bytes[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let contents = self.disk.0.lock();
        contents.check(false)?;
        self.file.lock().unsynced.clear();
        Ok(())
    }
}
