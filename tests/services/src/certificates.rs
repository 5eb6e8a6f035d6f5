//! Certificates for a cluster that talks TLS, made by the `openssl` program: an authority, what it
//! signed for servers on the loopback interface and for a client, and an authority that signed
//! nothing.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What each kind of certificate says, so that no file of the machine has a say in it.
const RULES: &str = "
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, IP:127.0.0.2, IP:127.0.0.3, DNS:localhost
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
";
/// Of the key stores that cannot do without; secret from nobody.
pub(crate) const STORE_PASSWORD: &str = "fanfare-tests";

/// Files, in PEM but for one. They lie in the cluster's directory and go with it.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority that clients are to trust.
    pub authority: PathBuf,
    /// One that signed nothing.
    pub stranger: PathBuf,
    /// A client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The servers' key, their certificate and the authority.
    pub(crate) server: PathBuf,
    /// The same as PKCS #12, under [`STORE_PASSWORD`].
    pub(crate) server_store: PathBuf,
}

impl Certificates {
    /// Makes all of them in `directory`, which must be there.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let file = |name: &str| directory.join(name);
        let made = Self::of(directory);
        fs::write(file("rules"), RULES)?;
        authority(directory, "authority")?;
        authority(directory, "stranger")?;
        signed(directory, "server")?;
        signed(directory, "client")?;
        let parts = ["server-key.pem", "server.pem", "authority.pem"];
        let parts = parts.iter().map(|name| fs::read_to_string(file(name)));
        fs::write(&made.server, parts.collect::<std::io::Result<String>>()?)?;
        let password = format!("pass:{STORE_PASSWORD}");
        let (from, to) = (made.server.as_os_str(), made.server_store.as_os_str());
        let options = ["pkcs12", "-export", "-passout", &password, "-in"].map(OsStr::new);
        openssl(options.into_iter().chain([from, OsStr::new("-out"), to]))?;
        Ok(made)
    }

    /// Those that were made in `directory`.
    pub(crate) fn of(directory: &Path) -> Self {
        let file = |name: &str| directory.join(name);
        Self {
            authority: file("authority.pem"),
            stranger: file("stranger.pem"),
            certificate: file("client.pem"),
            key: file("client-key.pem"),
            server: file("server-all.pem"),
            server_store: file("server.p12"),
        }
    }
}

fn authority(directory: &Path, name: &str) -> Result<()> {
    request(directory, name, "authority", &[])
}

fn signed(directory: &Path, name: &str) -> Result<()> {
    let (authority, key) = (
        directory.join("authority.pem"),
        directory.join("authority-key.pem"),
    );
    let by = ["-CA".as_ref(), authority.as_os_str(), "-CAkey".as_ref()];
    request(
        directory,
        name,
        name,
        &[&by[..], &[key.as_os_str()]].concat(),
    )
}

/// Writes `name.pem` and `name-key.pem`.
fn request(directory: &Path, name: &str, rules: &str, by: &[&OsStr]) -> Result<()> {
    let (key, certificate) = (
        directory.join(format!("{name}-key.pem")),
        directory.join(format!("{name}.pem")),
    );
    let subject = format!("/CN=fanfare-tests-{name}");
    let configuration = directory.join("rules");
    let curve = "ec_paramgen_curve:P-256";
    let kind = ["req", "-x509", "-noenc", "-newkey", "ec", "-pkeyopt", curve];
    let said = ["-days", "30", "-subj", &subject, "-extensions", rules];
    let files = [
        "-config".as_ref(),
        configuration.as_os_str(),
        "-keyout".as_ref(),
        key.as_os_str(),
        "-out".as_ref(),
        certificate.as_os_str(),
    ];
    let words = kind.into_iter().chain(said).map(OsStr::new);
    openssl(words.chain(files).chain(by.iter().copied()))
}

fn openssl<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Result<()> {
    let out = Command::new("openssl").args(arguments).output();
    let out = out.context("cannot run openssl: install it (Debian: apt-get install openssl)")?;
    ensure!(
        out.status.success(),
        "openssl made no certificate: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}
