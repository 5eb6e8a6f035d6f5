//! `addresses.json`: where a running process listens, for whoever started it on port 0. Written atomically once it is ready, removed on a clean stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where a process listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// gRPC, HTTP and the web page; a delivery worker has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
}

impl Addresses {
    /// Every address that is listened on.
    pub fn all(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        self.listen.into_iter().chain([self.admin_listen])
    }
}

/// The file, while it is there.
#[derive(Debug)]
pub struct AddressesFile(PathBuf);

impl AddressesFile {
    /// Writes beside it, then renames: a reader sees all of it or nothing.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(path: &Path, addresses: &Addresses) -> io::Result<Self> {
        let beside = path.with_extension("json.tmp");
        std::fs::write(&beside, serde_json::to_vec(addresses)?)?;
        std::fs::rename(&beside, path)?;
        Ok(Self(path.to_owned()))
    }

    /// Removes what a killed predecessor may have left.
    pub fn forget_stale(path: &Path) {
        // That it is not there is the usual case.
        let _ = std::fs::remove_file(path);
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
            listen: Some("127.0.0.1:7400".parse().unwrap()),
            admin_listen: "127.0.0.1:7401".parse().unwrap(),
        };
        let path = dir.path().join("addresses.json");
        let file = AddressesFile::write(&path, &addresses).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            text,
            r#"{"listen":"127.0.0.1:7400","admin_listen":"127.0.0.1:7401"}"#
        );
        file.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
