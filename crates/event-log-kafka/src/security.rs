//! How a client proves who it is: TLS, SASL, and the hook for OAUTHBEARER tokens.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::error::OpenError;

/// TLS and SASL. The default is neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecurityConfig {
    /// Talk TLS. Default: false.
    pub tls: bool,
    /// PEM file of the authorities that sign the brokers' certificates. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate, with its chain, for mutual TLS.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
    /// How to log in. Default: not at all.
    pub sasl: Option<SaslConfig>,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    /// Which mechanism.
    pub mechanism: SaslMechanism,
    /// User name; not for `oauthbearer`.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password, so that no secret is in the configuration; not for `oauthbearer`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaslMechanism {
    /// Password in the clear: only over TLS.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
    /// Tokens from [`crate::Hooks::tokens`]. Topics must be there: none is created, and of their
    /// settings only the number of partitions is checked.
    Oauthbearer,
}

/// An OAUTHBEARER token.
#[derive(Clone)]
pub struct Token {
    /// The token; no NUL.
    pub value: String,
    /// Whom it is for.
    pub principal: String,
    /// When it ends: milliseconds since 1970. A new one is asked for at four fifths of its life.
    pub expire_time_ms: i64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("principal", &self.principal)
            .field("expire_time_ms", &self.expire_time_ms)
            .finish_non_exhaustive()
    }
}

/// Where OAUTHBEARER tokens come from.
pub trait Tokens: Send + Sync {
    /// A fresh token. Called on a thread of the client, which waits: bound the call.
    fn fresh(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>>;
}

impl SecurityConfig {
    /// Whether clients log in with tokens.
    pub(crate) fn uses_tokens(&self) -> bool {
        let sasl = self.sasl.as_ref();
        sasl.is_some_and(|sasl| sasl.mechanism == SaslMechanism::Oauthbearer)
    }

    /// Refuses to log in with tokens when there is no source of them, with one sentence that says
    /// what to set.
    pub fn check_source(&self, tokens: Option<&dyn Tokens>) -> Result<(), OpenError> {
        if self.uses_tokens() && tokens.is_none() {
            return Err(OpenError::configuration(
                "this program has no source of tokens for oauthbearer; set mechanism in \
                 security.sasl to scram-sha512, scram-sha256 or plain",
            ));
        }
        Ok(())
    }

    /// Writes itself into a client's properties; reads the password.
    pub(crate) fn apply(&self, client: &mut ClientConfig) -> Result<(), OpenError> {
        let protocol = match (self.tls, &self.sasl) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        for (key, file) in [
            ("ssl.ca.location", &self.ca_file),
            ("ssl.certificate.location", &self.certificate_file),
            ("ssl.key.location", &self.key_file),
        ] {
            if let Some(file) = file {
                client.set(key, file.to_string_lossy());
            }
        }
        self.sasl.as_ref().map_or(Ok(()), |sasl| sasl.apply(client))
    }
}

impl SaslConfig {
    fn apply(&self, client: &mut ClientConfig) -> Result<(), OpenError> {
        let mechanism = match self.mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            SaslMechanism::Oauthbearer => "OAUTHBEARER",
        };
        client.set("sasl.mechanism", mechanism);
        if let Some(username) = &self.username {
            client.set("sasl.username", username);
        }
        if let Some(file) = &self.password_file {
            let password = fs::read_to_string(file).map_err(|error| {
                OpenError::configuration(format!(
                    "cannot read the password in {} ({error}); give sasl.password_file a file that \
                     this program may read",
                    file.display()
                ))
            })?;
            client.set("sasl.password", password.trim_end_matches(['\r', '\n']));
        }
        Ok(())
    }

    /// What is wrong with it, as a sentence.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let named = self.username.is_some() && self.password_file.is_some();
        let wanted = self.mechanism != SaslMechanism::Oauthbearer;
        match (wanted, named) {
            (true, false) => Err(OpenError::configuration(
                "this SASL mechanism needs sasl.username and sasl.password_file; set both",
            )),
            (false, true) => Err(OpenError::configuration(
                "oauthbearer takes no sasl.username and no sasl.password_file; remove them",
            )),
            _ => Ok(()),
        }
    }
}
