//! The two addresses, bound before anything else, so that a port that is taken costs nothing.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::addresses::Addresses;
use crate::config::ServerConfig;
use crate::failure::Failure;

/// Both listeners, bound.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC, HTTP and the web page.
    pub front: TcpListener,
    /// Probes and metrics.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both.
    pub async fn bind(config: &ServerConfig) -> Result<Self, Failure> {
        Ok(Self {
            front: bind(config.listen, "--listen").await?,
            admin: bind(config.admin_listen, "--admin-listen").await?,
        })
    }

    /// Where they really listen.
    pub fn addresses(&self) -> Result<Addresses, Failure> {
        let of = |listener: &TcpListener| {
            let addr = listener.local_addr();
            addr.map_err(|e| Failure::refused("ADDRESS", e.to_string()))
        };
        Ok(Addresses {
            listen: of(&self.front)?,
            admin_listen: of(&self.admin)?,
        })
    }
}

async fn bind(addr: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).await.map_err(|error| {
        let sentence = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{addr} is taken by another program, perhaps another fanfare; stop it, or choose another address with {flag} (port 0 takes a free one)"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "{addr} may not be listened on by this user; choose a port above 1023 with {flag}"
            ),
            _ => format!("cannot listen on {addr} ({error}); choose another address with {flag}"),
        };
        Failure::refused("ADDRESS_UNAVAILABLE", sentence)
    })
}
