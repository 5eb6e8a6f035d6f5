//! The data directory: who owns it, which version wrote it, and where a restart begins.
//!
//! ```text
//!   LOCK         flocked by the process that uses the directory; holds its pid
//!   VERSION      "fanfare-embedded 1\nspans 1\n", written last when the directory is made
//!   CHECKPOINT   incarnation and the position that the view reflects; replaced as a whole
//!   log/         segments and spares
//!   view/        one folder per space
//!   quarantine/  bytes that were found damaged, as they were
//! ```
//!
//! A crash while the directory is made leaves no VERSION: the next open goes on making it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::OpenError;

const FORMAT: u32 = 1;

/// An owned data directory.
pub(crate) struct Directory {
    path: PathBuf,
    /// How many spans each stream has: fixed when the directory is made.
    pub(crate) spans: u16,
    /// Dropping it lets go of the directory.
    _lock: File,
}

/// Where a restart begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// How often the directory was opened.
    pub(crate) incarnation: u32,
    /// Everything below it is in the view's trees.
    pub(crate) position: u64,
}

impl Directory {
    /// Takes the directory, making it if it is not there.
    pub(crate) fn open(path: &Path, spans: u16) -> Result<Self, OpenError> {
        std::fs::create_dir_all(path).map_err(|e| OpenError::io(path, e))?;
        let lock = lock(path)?;
        for part in ["log", "view", "quarantine"] {
            let part = path.join(part);
            std::fs::create_dir_all(&part).map_err(|e| OpenError::io(&part, e))?;
        }
        let version = path.join("VERSION");
        let spans = match std::fs::read_to_string(&version) {
            Ok(text) => parse_version(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("fanfare-embedded {FORMAT}\nspans {spans}\n");
                replace(path, "VERSION", text.as_bytes()).map_err(|e| OpenError::io(path, e))?;
                spans
            }
            Err(error) => return Err(OpenError::io(&version, error)),
        };
        Ok(Self {
            path: path.to_owned(),
            spans,
            _lock: lock,
        })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn view(&self) -> PathBuf {
        self.path.join("view")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.path.join("quarantine")
    }

    /// The last checkpoint; the default for a new directory.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, OpenError> {
        let path = self.path.join("CHECKPOINT");
        match std::fs::read(&path) {
            Ok(bytes) => Checkpoint::decode(&bytes)
                .ok_or_else(|| OpenError::corrupt(&path, "its checksum is wrong")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Checkpoint::default()),
            Err(error) => Err(OpenError::io(&path, error)),
        }
    }

    /// Replaces the checkpoint, durably.
    pub(crate) fn set_checkpoint(&self, checkpoint: Checkpoint) -> io::Result<()> {
        replace(&self.path, "CHECKPOINT", &checkpoint.encode())
    }
}

impl Checkpoint {
    fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[0..4].copy_from_slice(&self.incarnation.to_le_bytes());
        out[4..12].copy_from_slice(&self.position.to_le_bytes());
        let crc = crc32c::crc32c(&out[..12]);
        out[12..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(12)?;
        let (incarnation, position) = body.split_at(4);
        let sound = crc == crc32c::crc32c(body).to_le_bytes();
        sound.then_some(Self {
            incarnation: u32::from_le_bytes(incarnation.try_into().ok()?),
            position: u64::from_le_bytes(position.try_into().ok()?),
        })
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let lock = path.join("LOCK");
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false);
    let mut file = opened.open(&lock).map_err(|e| OpenError::io(&lock, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Without the number the message is still true.
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::in_use(path, pid.trim().parse().ok()));
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(OpenError::io(&lock, error)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(|e| OpenError::io(&lock, e))?;
    Ok(file)
}

fn parse_version(path: &Path, text: &str) -> Result<u16, OpenError> {
    let field = |name: &str| {
        let lines = text.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next()?.parse::<u32>().ok()
    };
    match field("fanfare-embedded") {
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => return Err(OpenError::newer(path, newer)),
        _ => return Err(OpenError::corrupt(path, "VERSION is not one of ours")),
    }
    let spans = field("spans").and_then(|spans| u16::try_from(spans).ok());
    spans.ok_or_else(|| OpenError::corrupt(path, "VERSION does not say how many spans there are"))
}

/// Replaces a small file so that a crash leaves the old one or the new one.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let made = dir.join(format!("{name}.new"));
    let mut file = File::create(&made)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&made, dir.join(name))?;
    File::open(dir)?.sync_all()
}
