//! `DIR/addresses.json`: where a running server listens, for whoever started it on port 0.
//! Written atomically once it is ready, removed on a clean stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// gRPC, HTTP and the web page.
    pub listen: SocketAddr,
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
}

/// The file, while it is there.
#[derive(Debug)]
pub struct AddressesFile(PathBuf);

impl AddressesFile {
    /// Writes beside it, then renames: a reader sees all of it or nothing.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(dir: &Path, addresses: &Addresses) -> io::Result<Self> {
        let path = dir.join("addresses.json");
        let beside = dir.join("addresses.json.tmp");
        std::fs::write(&beside, serde_json::to_vec(addresses)?)?;
        std::fs::rename(&beside, &path)?;
        Ok(Self(path))
    }

    /// Removes what a killed predecessor may have left.
    pub fn forget_stale(dir: &Path) {
        // That it is not there is the usual case.
        let _ = std::fs::remove_file(dir.join("addresses.json"));
    }

    /// Removes it.
    pub fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "addresses could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_there_whole_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = Addresses {
            listen: "127.0.0.1:7400".parse().unwrap(),
            admin_listen: "127.0.0.1:7401".parse().unwrap(),
        };
        let file = AddressesFile::write(dir.path(), &addresses).unwrap();
        let text = std::fs::read_to_string(dir.path().join("addresses.json")).unwrap();
        assert_eq!(
            text,
            r#"{"listen":"127.0.0.1:7400","admin_listen":"127.0.0.1:7401"}"#
        );
        file.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
