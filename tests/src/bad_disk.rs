//! Disks that misbehave under the real server: one that cannot sync, one that is small, and files
//! that were damaged while nobody looked.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::server::Options;

/// Makes every fsync of a server fail, when told to.
pub struct FailingSync {
    control: PathBuf,
    library: PathBuf,
}

impl FailingSync {
    /// Compiles the shim into `dir`; syncs work until [`FailingSync::fail`].
    pub fn new(dir: &Path) -> Self {
        let (control, library) = (dir.join("failing"), dir.join("failing_sync.so"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/failing_sync.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .args([source, "-ldl"]);
        let output = cc.output().expect("there is a C compiler");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::write(&control, "").expect("a file");
        Self { control, library }
    }

    /// With the shim under the server.
    pub fn under(&self, options: Options) -> Options {
        options
            .env("LD_PRELOAD", &self.library.to_string_lossy())
            .env("FANFARE_FAILING_SYNC", &self.control.to_string_lossy())
    }

    /// From now on every sync fails.
    pub fn fail(&self) {
        fs::write(&self.control, "fail").expect("a file");
    }

    /// From now on syncs work.
    pub fn heal(&self) {
        fs::write(&self.control, "").expect("a file");
    }
}

/// A small file system of its own. Dropping it unmounts it.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// A tmpfs of this many megabytes.
    pub fn mount(megabytes: u32) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(dir.path());
        let output = mount.output().expect("there is a mount program");
        assert!(
            output.status.success(),
            "this test mounts a small file system, which needs root: run make test as root ({})",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Self { dir }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes up room, until [`SmallDisk::give_room`].
    pub fn take_room(&self, megabytes: usize) {
        fs::write(self.ballast(), vec![1; megabytes << 20]).expect("there is that much room");
    }

    /// Gives back what was taken.
    pub fn give_room(&self) {
        fs::remove_file(self.ballast()).expect("room was taken");
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold files.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
    }
}

/// The newest log file that has anything in it, and where its last byte that is not zero ends.
pub fn tail_of_log(data_dir: &Path) -> (PathBuf, u64) {
    let mut files: Vec<_> = log_files(data_dir)
        .into_iter()
        .filter_map(|path| {
            let end = fs::read(&path).ok()?.iter().rposition(|byte| *byte != 0)? as u64 + 1;
            // A prepared segment is a header and zeros.
            (end > 64).then_some((path, end))
        })
        .collect();
    files.sort();
    files.pop().expect("the server has written something")
}

/// Every log file of a data directory.
pub fn log_files(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found
}

/// Overwrites what lies at `at`, like a write that was cut off.
pub fn scribble(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .expect("a file");
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.write_all(bytes).expect("room");
}

/// Cuts a file off.
pub fn truncate(file: &Path, length: u64) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .expect("a file");
    file.set_len(length).expect("it can be cut");
}

/// Flips one bit of the first place where `needle` lies in one of the log files.
pub fn flip_bit_in(data_dir: &Path, needle: &[u8]) {
    for path in log_files(data_dir) {
        let bytes = fs::read(&path).expect("a file");
        let found = bytes
            .windows(needle.len())
            .position(|window| window == needle);
        if let Some(at) = found {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .expect("a file");
            file.write_at(&[bytes[at] ^ 0x10], at as u64).expect("room");
            return;
        }
    }
    panic!("nothing of the kind lies in the log");
}
