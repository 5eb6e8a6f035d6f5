//! A disk in memory that lies as real ones do.
//!
//! What was written and not synced may be lost in a crash, whole or sector by sector, in any
//! order; so may names whose directory was not synced. A sync can be made to fail, which leaves it
//! open what was written, and no later sync makes up for it: only writing again does. There is a limit on bytes; going over it is `StorageFull`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rand::Rng;

use super::{Disk, DiskFile, Room};

const SECTOR: usize = 512;

/// The disk; clones are the same.
#[derive(Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

struct State {
    names: HashMap<PathBuf, usize>,
    /// Names as of the last sync of their directory.
    durable_names: HashMap<PathBuf, usize>,
    files: Vec<Content>,
    bytes_max: u64,
    syncs_fail: bool,
}

#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Unsynced writes, in order.
    pending: Vec<(usize, usize)>,
    /// Writes that a failed sync called clean: read back, and no later sync makes them durable.
    dropped: Vec<(usize, usize)>,
    written: Option<SystemTime>,
}

struct FaultyFile {
    disk: FaultyDisk,
    file: usize,
}

impl FaultyDisk {
    /// An empty disk.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            names: HashMap::new(),
            durable_names: HashMap::new(),
            files: Vec::new(),
            bytes_max,
            syncs_fail: false,
        })))
    }

    /// The power fails: of what was not synced, any part may survive.
    pub(crate) fn crash(&self, rng: &mut impl Rng) {
        let mut state = self.0.lock();
        if rng.random() {
            state.names = state.durable_names.clone();
        }
        for content in &mut state.files {
            content.crash(rng);
        }
        state.durable_names = state.names.clone();
        state.syncs_fail = false;
    }

    /// Every sync of a file fails, until it is healed or the power fails. Not the next one alone:
    /// segments are prepared at any time, and that would take the failure away from a group.
    pub(crate) fn fail_syncs(&self) {
        self.0.lock().syncs_fail = true;
    }

    /// Syncs work again; what one of them lost stays lost.
    pub(crate) fn heal(&self) {
        self.0.lock().syncs_fail = false;
    }

    fn file(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile {
            disk: self.clone(),
            file,
        })
    }
}

impl Content {
    fn crash(&mut self, rng: &mut impl Rng) {
        let mut kept = self.durable.clone();
        if self.now.len() > kept.len() && rng.random() {
            kept.resize(self.now.len(), 0);
        }
        // Some crashes keep a prefix, some any sectors: both happen.
        let share = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
        let dropped = std::mem::take(&mut self.dropped);
        for (at, len) in dropped.into_iter().chain(std::mem::take(&mut self.pending)) {
            let mut from = at;
            while from < at + len {
                let to = (from / SECTOR + 1) * SECTOR;
                let to = to.min(at + len).min(kept.len());
                if from < to && rng.random_bool(share) {
                    kept[from..to].copy_from_slice(&self.now[from..to]);
                }
                from = (from / SECTOR + 1) * SECTOR;
            }
        }
        self.now.clone_from(&kept);
        self.durable = kept;
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|file| self.files[*file].now.len() as u64)
            .sum()
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let file = state.files.len();
        state.files.push(Content::default());
        state.names.insert(path.to_owned(), file);
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.lock().names.get(path).copied();
        file.map(|file| self.file(file))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.0.lock().names.remove(path);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(inside.filter_map(name).collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<Room> {
        let state = self.0.lock();
        Ok(Room {
            free: state.bytes_max.saturating_sub(state.used()),
            total: state.bytes_max,
        })
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let now = &state.files[self.file].now;
        let at = usize::try_from(at).unwrap().min(now.len());
        let read = out.len().min(now.len() - at);
        out[..read].copy_from_slice(&now[at..at + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        let mut state = self.disk.0.lock();
        let end = at + bytes.len();
        let grown = end.saturating_sub(state.files[self.file].now.len()) as u64;
        if grown > 0 && state.used() + grown > state.bytes_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = &mut state.files[self.file];
        if grown > 0 {
            content.now.resize(end, 0);
        }
        content.now[at..end].copy_from_slice(bytes);
        content.pending.push((at, bytes.len()));
        content.written = Some(SystemTime::now());
        Ok(())
    }

    fn modified(&self) -> io::Result<SystemTime> {
        let written = self.disk.0.lock().files[self.file].written;
        written.ok_or_else(|| io::Error::other("was never written to"))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        if state.syncs_fail {
            let content = &mut state.files[self.file];
            let failed = std::mem::take(&mut content.pending);
            content.dropped.extend(failed);
            return Err(io::Error::other("the disk did not take it"));
        }
        let content = &mut state.files[self.file];
        let Content {
            durable,
            now,
            pending,
            ..
        } = content;
        durable.resize(now.len(), 0);
        for (at, len) in pending.drain(..) {
            durable[at..at + len].copy_from_slice(&now[at..at + len]);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].now.len() as u64)
    }
}
