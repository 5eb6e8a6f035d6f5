//! The log's files: which position lies in which, and reading from them.
//!
//! What this is not: it neither writes records nor decides which segments may go (that is
//! [`crate::writer`] and [`crate::space`]). Only the newest few files are kept open.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, DiskFile};
use crate::frame::{SEGMENT_HEADER, SegmentHeader};

/// Most files kept open for reading. 256 is a quarter of the usual limit of a process.
const OPEN_MAX: usize = 64;
/// Bytes written at once when a segment is prepared.
const ZEROS: usize = 1 << 20;

/// The segments there are, prepared ones included.
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    all: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// Bases of the segments whose file is open, oldest use first.
    open: Mutex<VecDeque<u64>>,
}

/// One file of the log.
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    path: PathBuf,
    file: Mutex<Option<Arc<dyn DiskFile>>>,
}

/// A segment to write to.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
}

impl Segments {
    /// Reads what lies in `dir`. Files that are no segments are kept as spares if they are named
    /// so, and left alone otherwise.
    pub(crate) fn load(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<(Self, Vec<PathBuf>)> {
        let mut all = BTreeMap::new();
        let mut spares = Vec::new();
        for name in disk.names(dir)? {
            let path = dir.join(&name);
            if name.starts_with("spare-") {
                spares.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                let mut head = [0; SEGMENT_HEADER];
                let file = disk.open(&path)?;
                file.read_at(&mut head, 0)?;
                let header = SegmentHeader::decode(&head).ok_or_else(|| {
                    let text = format!("{} has a damaged header", path.display());
                    io::Error::new(io::ErrorKind::InvalidData, text)
                })?;
                all.insert(header.base, Arc::new(Segment::new(header, path)));
            }
        }
        let segments = Self {
            disk,
            dir: dir.to_owned(),
            all: RwLock::new(all),
            open: Mutex::default(),
        };
        Ok((segments, spares))
    }

    /// The segment that `position` lies in.
    pub(crate) fn find(&self, position: u64) -> Option<Arc<Segment>> {
        let all = self.all.read();
        let (_, segment) = all.range(..=position).next_back()?;
        (position < segment.header.end()).then(|| segment.clone())
    }

    /// The segment with the lowest base at or above `position`.
    pub(crate) fn next_from(&self, position: u64) -> Option<Arc<Segment>> {
        let all = self.all.read();
        all.range(position..).next().map(|(_, s)| s.clone())
    }

    /// All of them, by rising base.
    pub(crate) fn list(&self) -> Vec<SegmentHeader> {
        self.all.read().values().map(|s| s.header).collect()
    }

    /// Reads at `position`; fewer bytes than asked for at the end of its segment.
    pub(crate) fn read(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.find(position) else {
            return Ok(0);
        };
        let left = usize::try_from(segment.header.end() - position).unwrap_or(usize::MAX);
        let most = out.len().min(left);
        self.file(&segment)?
            .read_at(&mut out[..most], position - segment.header.base)
    }

    /// The segment as a target for writes.
    pub(crate) fn target(&self, segment: &Arc<Segment>) -> io::Result<Target> {
        Ok(Target {
            header: segment.header,
            file: self.file(segment)?,
        })
    }

    /// Makes the segment at `base` out of a spare file, or of a new one that is written once from
    /// end to end: a write into blocks that were never written would change the file system's
    /// metadata, cost twice as much, and could fail for want of room. Durable when it returns.
    pub(crate) fn prepare(
        &self,
        header: SegmentHeader,
        spare: Option<&Path>,
    ) -> io::Result<Target> {
        let made = self.dir.join("spare-new");
        let from = spare.unwrap_or(&made);
        let file = match spare {
            Some(path) => self.disk.open(path)?,
            None => self.written_once(&made, header.capacity)?,
        };
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        let path = self.dir.join(name_of(header.base));
        self.disk.rename(from, &path)?;
        self.disk.sync_dir(&self.dir)?;
        let segment = Arc::new(Segment::new(header, path));
        *segment.file.lock() = Some(file.clone());
        self.all.write().insert(header.base, segment);
        self.used(header.base);
        Ok(Target { header, file })
    }

    /// When the segment at `base` was last written to.
    pub(crate) fn written(&self, base: u64) -> io::Result<SystemTime> {
        match self.find(base) {
            Some(segment) => self.file(&segment)?.modified(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Takes the segment at `base` out of the log and keeps its file as a spare. Readers that
    /// have the file open read stale bytes, which are not valid where they look.
    pub(crate) fn retire(&self, base: u64) -> io::Result<Option<PathBuf>> {
        let Some(segment) = self.all.write().remove(&base) else {
            return Ok(None);
        };
        *segment.file.lock() = None;
        let spare = self.dir.join(format!("spare-{base:016x}"));
        self.disk.rename(&segment.path, &spare)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Some(spare))
    }

    /// Gives a spare's room back to the file system.
    pub(crate) fn discard(&self, spare: &Path) -> io::Result<()> {
        self.disk.remove(spare)
    }

    /// Whether a spare can become a segment of `capacity`.
    pub(crate) fn spare_fits(&self, spare: &Path, capacity: u64) -> bool {
        let len = self.disk.open(spare).and_then(|file| file.len());
        len.is_ok_and(|len| len == capacity)
    }

    fn written_once(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(path)?;
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < capacity {
            let most = usize::try_from(capacity - at).unwrap_or(ZEROS).min(ZEROS);
            file.write_at(&zeros[..most], at)?;
            at += most as u64;
        }
        Ok(file)
    }

    fn file(&self, segment: &Segment) -> io::Result<Arc<dyn DiskFile>> {
        let mut file = segment.file.lock();
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let opened = self.disk.open(&segment.path)?;
        *file = Some(opened.clone());
        drop(file);
        self.used(segment.header.base);
        Ok(opened)
    }

    /// Notes that a file was opened, and closes the one opened longest ago if there are too many.
    fn used(&self, base: u64) {
        let mut open = self.open.lock();
        open.push_back(base);
        if open.len() <= OPEN_MAX {
            return;
        }
        let oldest = open.pop_front();
        drop(open);
        if let Some(segment) = oldest.and_then(|base| self.all.read().get(&base).cloned()) {
            *segment.file.lock() = None;
        }
    }
}

impl Segment {
    fn new(header: SegmentHeader, path: PathBuf) -> Self {
        Self {
            header,
            path,
            file: Mutex::new(None),
        }
    }
}

/// Names sort like the positions they start at.
fn name_of(base: u64) -> String {
    format!("{base:016x}.log")
}
