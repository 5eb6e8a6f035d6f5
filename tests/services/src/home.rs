//! The ignored folder `.cache/services` and the directories that clusters run in.
//!
//! A cluster's directory holds a file that its owner keeps locked; a directory whose lock is free
//! belongs to nobody any more and is removed by whoever comes next.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The folder that everything fetched and written lies in.
pub(crate) fn cache() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/services");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    root.canonicalize()
        .with_context(|| format!("cannot open {}", root.display()))
}

/// Holds the lock `name` among all processes that use this folder until it is dropped.
pub(crate) fn lock(name: &str) -> Result<File> {
    let path = cache()?.join(name);
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// A cluster's directory, removed when dropped.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    /// Says that somebody lives here. `None` once it was given away.
    owner: Option<File>,
}

impl Home {
    /// A new directory of this process; removes those of processes that are gone.
    pub(crate) fn create(kind: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let _one_at_a_time = lock("homes.lock")?;
        let homes = cache()?.join("homes");
        fs::create_dir_all(&homes)?;
        sweep(&homes);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = homes.join(format!("{kind}-{}-{count}", std::process::id()));
        // The same process id may have lived here before under a lock that is free by now.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let owner = File::create(path.join(OWNER))?;
        owner.lock()?;
        Ok(Self {
            path,
            owner: Some(owner),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to processes that outlive this one.
    pub(crate) fn give_away(&mut self) -> Result<()> {
        fs::write(self.path.join(KEPT), "")?;
        self.owner = None;
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.owner.take().is_some() {
            // What cannot be removed now, the next sweep removes.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Locked by the owner while it lives.
const OWNER: &str = "owner.lock";
/// Marks a directory of detached processes: only `down` removes it.
const KEPT: &str = "kept";

fn sweep(homes: &Path) {
    let Ok(entries) = fs::read_dir(homes) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let abandoned = File::open(path.join(OWNER)).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned && !path.join(KEPT).exists() {
            // Best effort: somebody's leftovers are no reason not to start.
            let _ = fs::remove_dir_all(&path);
        }
    }
}
