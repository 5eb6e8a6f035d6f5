//! A node that asks who is there, on a plain port and on one that talks TLS.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::{JARS, free_port, prepare};
use crate::certificates::{Certificates, STORE_PASSWORD};
use crate::cluster::{self, Cluster};
use crate::process::Lifetime;

/// Who may log in. The node makes it in the background, after it answers.
pub const USER: &str = "cassandra";
/// The password.
pub const PASSWORD: &str = "cassandra";

/// One node. Both of its ports want user and password.
pub struct Secured {
    /// The node. [`Cluster::addresses`] has the plain port.
    pub cluster: Cluster,
    /// `host:port` of the port that talks TLS.
    pub tls: String,
    /// A file with [`PASSWORD`].
    pub password_file: PathBuf,
    /// What to trust.
    pub certificates: Certificates,
}

/// Starts one that ends with this process, and waits until it answers.
pub fn start_secured() -> Result<Secured> {
    let class_path = JARS.class_path()?;
    let port = Cell::new(0);
    let cluster = cluster::start("cql", |home| {
        let directory = home.path().join(CERTIFICATES);
        fs::create_dir(&directory)?;
        let certificates = Certificates::make(&directory)?;
        port.set(free_port(1)?);
        let more = yaml(port.get(), &certificates);
        prepare(1, Lifetime::WithStarter, &class_path, home, &more)
    })?;
    let certificates = Certificates::of(&cluster.home.path().join(CERTIFICATES));
    let password_file = cluster.home.path().join("password");
    fs::write(&password_file, format!("{PASSWORD}\n"))?;
    Ok(Secured {
        cluster,
        password_file,
        tls: format!("127.0.0.1:{}", port.get()),
        certificates,
    })
}

const CERTIFICATES: &str = "certificates";

fn yaml(tls_port: u16, certificates: &Certificates) -> String {
    let store = certificates.server_store.display();
    format!(
        "authenticator: PasswordAuthenticator
native_transport_port_ssl: {tls_port}
client_encryption_options:
  enabled: true
  optional: false
  keystore: \"{store}\"
  keystore_password: {STORE_PASSWORD}
  store_type: PKCS12
"
    )
}
