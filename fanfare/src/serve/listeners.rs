//! The addresses of a process, bound before anything else, so that a port that is taken costs nothing.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::addresses::Addresses;
use crate::config::{Role, ServerConfig};
use crate::failure::Failure;

/// The listeners, bound.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC, HTTP and the web page; a delivery worker has none.
    pub front: Option<TcpListener>,
    /// Probes and metrics.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds what `role` needs.
    pub async fn bind(config: &ServerConfig, role: Role) -> Result<Self, Failure> {
        let front = match role {
            Role::Worker => None,
            Role::Everything | Role::Router => Some(bind(config.listen, "--listen").await?),
        };
        Ok(Self {
            front,
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
            listen: self.front.as_ref().map(of).transpose()?,
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
