//! A broker that asks who is there: TLS, and SASL over TLS.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::{Doors, JARS, free_ports, prepare};
use crate::certificates::Certificates;
use crate::cluster::{self, Cluster};
use crate::process::Lifetime;

/// Who may log in by password.
pub const USER: &str = "fanfare";
/// Who may log in with `PLAIN` and the same password, and may do nothing.
pub const GUEST: &str = "guest";
/// The password.
pub const PASSWORD: &str = "sesame-of-the-tests";

/// One broker with a plain listener, as all have, and four that are not.
pub struct Secured {
    /// The broker. [`Cluster::addresses`] has the plain listener.
    pub cluster: Cluster,
    /// `host:port`: TLS, and nobody is asked who they are.
    pub tls: String,
    /// TLS that asks for a certificate of the client.
    pub mutual: String,
    /// TLS and SASL by password: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub passwords: String,
    /// TLS and SASL `OAUTHBEARER`, whose tokens need no signature.
    pub tokens: String,
    /// A file with [`PASSWORD`].
    pub password_file: PathBuf,
    /// What to trust, and a client's own.
    pub certificates: Certificates,
}

/// Starts one that ends with this process, and waits until it answers.
pub fn start_secured() -> Result<Secured> {
    let class_path = JARS.class_path()?;
    let ports = Cell::new([0; 4]);
    let cluster = cluster::start("kafka", |home| {
        let directory = home.path().join(CERTIFICATES);
        fs::create_dir(&directory)?;
        let certificates = Certificates::make(&directory)?;
        let free = free_ports(4)?;
        let free = [free[0], free[1], free[2], free[3]];
        ports.set(free);
        let doors = doors(free, &certificates);
        prepare(1, Lifetime::WithStarter, &class_path, home, &doors)
    })?;
    let certificates = Certificates::of(&cluster.home.path().join(CERTIFICATES));
    let password_file = cluster.home.path().join("password");
    fs::write(&password_file, format!("{PASSWORD}\n"))?;
    let [tls, mutual, passwords, tokens] = ports.get().map(|port| format!("127.0.0.1:{port}"));
    Ok(Secured {
        cluster,
        tls,
        mutual,
        passwords,
        tokens,
        password_file,
        certificates,
    })
}

const CERTIFICATES: &str = "certificates";

fn doors([tls, mutual, passwords, tokens]: [u16; 4], certificates: &Certificates) -> Doors {
    let by_scram = |mechanism: &str| {
        let said = format!("{mechanism}=[name={USER},password={PASSWORD}]");
        ["--add-scram".to_owned(), said]
    };
    let scram = ["SCRAM-SHA-256", "SCRAM-SHA-512"];
    Doors {
        listeners: vec![
            ("TLS", "SSL", tls),
            ("MUTUAL", "SSL", mutual),
            ("PASSWORDS", "SASL_SSL", passwords),
            ("TOKENS", "SASL_SSL", tokens),
        ],
        properties: properties(certificates),
        users: scram.into_iter().flat_map(by_scram).collect(),
    }
}

fn properties(certificates: &Certificates) -> String {
    let (server, authority) = (&certificates.server, &certificates.authority);
    let (server, authority) = (server.display(), authority.display());
    let modules = "org.apache.kafka.common.security";
    format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:CN=fanfare-tests-client;User:{USER}
ssl.keystore.type=PEM
ssl.keystore.location={server}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.mutual.ssl.client.auth=required
listener.name.passwords.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.passwords.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\" user_{GUEST}=\"{PASSWORD}\";
listener.name.passwords.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;
listener.name.passwords.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;
listener.name.tokens.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.tokens.oauthbearer.sasl.jaas.config={modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";
listener.name.tokens.oauthbearer.sasl.server.callback.handler.class={modules}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler
"
    )
}
