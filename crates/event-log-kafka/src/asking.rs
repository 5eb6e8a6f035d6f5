//! A client that asks the brokers something, and learns why they cannot be asked.
//!
//! What is wrong with a connection is told as an event while the question waits, which itself only
//! runs out of time. So events are served meanwhile; requests for tokens are among them.

use std::sync::mpsc::{TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext};

use crate::client::Common;
use crate::config::KafkaConfig;
use crate::error::OpenError;
use crate::stranded;

/// How long the first try to reach a broker takes; each further one takes twice as long.
const FIRST_TRY: Duration = Duration::from_millis(500);
/// How often it is looked whether the question was answered.
const TICK: Duration = Duration::from_millis(20);

/// Who asks.
pub(crate) type Client = BaseConsumer<Asking>;

/// Context of a client that only asks.
pub(crate) struct Asking {
    common: Common,
    trouble: Mutex<Trouble>,
}

/// What the client said about its connections.
#[derive(Default)]
struct Trouble {
    /// What only a person can correct, if it was said, else the last that was said.
    said: Option<(Cause, String)>,
    /// No broker is left that might answer.
    all_down: bool,
}

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// It is not made, or cut.
    Connection,
    /// There is no token to log in with.
    Token,
    /// One side does not take the other's certificate.
    Tls,
    /// The brokers do not know us.
    Login,
}

/// Asks the brokers something with a client made for it, on a thread that may wait.
///
/// Errors: `Configuration` when the brokers refuse who we say we are, or we them; else
/// `Unavailable`.
pub(crate) async fn ask<T: Send + 'static>(
    config: &KafkaConfig,
    common: &Common,
    question: impl FnOnce(&Client) -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, OpenError> {
    let properties = config.client()?;
    let timeout = config.request_timeout();
    let asking = Asking {
        common: common.clone(),
        trouble: Mutex::default(),
    };
    let asked = tokio::task::spawn_blocking(move || {
        let client = Client::from_config_and_context(&properties, asking)
            .map_err(|error| misconfigured(&error))?;
        served(&client, || {
            reach(&client, timeout)?;
            question(&client).map_err(|error| client.context().refusal(&error))
        })
    });
    asked
        .await
        .map_err(|error| OpenError::unavailable(format!("asking the brokers failed: {error}")))?
}

/// Whether a client made for it sees a broker. Blocks for up to twice `timeout`.
pub(crate) fn sees_brokers(properties: &ClientConfig, common: &Common, timeout: Duration) -> bool {
    let asking = Asking {
        common: common.clone(),
        trouble: Mutex::default(),
    };
    let made = Client::from_config_and_context(properties, asking);
    made.is_ok_and(|client| {
        served(&client, || {
            reach(&client, timeout).is_ok() && stranded::sees_brokers(client.client())
        })
    })
}

/// Runs `work` while another thread serves the client's events. No messages may come meanwhile.
pub(crate) fn served<C: ConsumerContext, T>(
    client: &BaseConsumer<C>,
    work: impl FnOnce() -> T,
) -> T {
    let (working, over) = sync_channel::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            while over.try_recv() == Err(TryRecvError::Empty) {
                // Errors are the context's.
                drop(client.poll(TICK));
            }
        });
        let worked = work();
        // Also when it panics.
        drop(working);
        worked
    })
}

/// Waits for an answer to anything at all; gives up early when none will come.
fn reach(client: &Client, timeout: Duration) -> Result<(), OpenError> {
    let deadline = Instant::now() + timeout;
    let mut patience = FIRST_TRY;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Of one topic that need not exist: all topics would be a large answer.
        let answer = client.fetch_metadata(Some("fanfare"), patience.min(left));
        let Err(error) = answer else { return Ok(()) };
        if patience >= left || client.context().is_hopeless() {
            return Err(client.context().refusal(&error));
        }
        patience *= 2;
    }
}

impl Asking {
    /// Whether only a person can help, with every broker.
    fn is_hopeless(&self) -> bool {
        let trouble = self.trouble.lock();
        let said = trouble.said.as_ref();
        trouble.all_down && said.is_some_and(|(cause, _)| *cause >= Cause::Tls)
    }

    /// Why a question that failed with `error` failed.
    fn refusal(&self, error: &KafkaError) -> OpenError {
        match &self.trouble.lock().said {
            Some((Cause::Login, reason)) => OpenError::configuration(format!(
                "the Kafka brokers do not let this program in ({reason}); check mechanism, \
                 username and password_file in security.sasl"
            )),
            Some((Cause::Tls, reason)) => OpenError::configuration(format!(
                "TLS with the Kafka brokers failed ({reason}); check ca_file, certificate_file and \
                 key_file in security, and that the brokers' certificates name their addresses"
            )),
            Some((Cause::Token, reason)) => OpenError::unavailable(format!(
                "there is no token for the Kafka brokers ({reason}); see to where it comes from"
            )),
            Some((Cause::Connection, reason)) if !is_forbidden(error) => away(reason),
            _ => refused(error),
        }
    }
}

impl Trouble {
    fn note(&mut self, code: RDKafkaErrorCode, reason: &str) {
        if code == RDKafkaErrorCode::AllBrokersDown {
            self.all_down = true;
            return;
        }
        let cause = Cause::of(code, reason);
        if self.said.as_ref().is_none_or(|(said, _)| *said <= cause) {
            self.said = Some((cause, reason.to_owned()));
        }
    }
}

impl Cause {
    /// The client has one code for much; its words tell it apart.
    fn of(code: RDKafkaErrorCode, reason: &str) -> Self {
        match code {
            RDKafkaErrorCode::Authentication if reason.starts_with("Failed to acquire") => {
                Self::Token
            }
            RDKafkaErrorCode::Authentication => Self::Login,
            // A socket that fails in the middle of a handshake says nothing about certificates.
            RDKafkaErrorCode::SSL if !reason.contains("SSL transport error") => Self::Tls,
            // What a broker thinks of our certificate comes after the handshake, as an end.
            _ if reason.contains("SSL alert number") => Self::Tls,
            _ => Self::Connection,
        }
    }
}

/// The client library refuses its properties.
pub(crate) fn misconfigured(error: &KafkaError) -> OpenError {
    OpenError::configuration(format!(
        "the Kafka client does not take this configuration ({error}); correct it"
    ))
}

/// A question that failed with `error`.
pub(crate) fn refused(error: &KafkaError) -> OpenError {
    if is_forbidden(error) {
        return OpenError::unavailable(format!(
            "the Kafka brokers do not allow this program what it needs ({error}); allow its user to \
             describe, create, read and write topics, describe their settings and read groups that \
             begin with topic_prefix"
        ));
    }
    away(error)
}

fn is_forbidden(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as E;
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    matches!(
        code,
        Some(
            E::TopicAuthorizationFailed
                | E::GroupAuthorizationFailed
                | E::ClusterAuthorizationFailed
        )
    )
}

/// No answer, for a reason that may pass.
fn away(reason: &impl std::fmt::Display) -> OpenError {
    OpenError::unavailable(format!(
        "the Kafka brokers did not answer ({reason}); check bootstrap_servers, the network, and \
         that security.tls and security.sasl are what their listener wants"
    ))
}

impl ClientContext for Asking {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Common::write_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.trouble.lock().note(code, reason);
        }
        Common::write_error(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.common.token()
    }
}

impl ConsumerContext for Asking {}
