//! TLS and SASL against a broker that wants them: what works, and what is refused with one sentence
//! that says what to do.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare_event_log::conformance::fixtures::within;
use fanfare_event_log::conformance::{Backend, durability, tailing};
use fanfare_event_log::{EventLog, Lease};
use fanfare_event_log_kafka::config::{SaslConfig, SaslMechanism, SecurityConfig};
use fanfare_event_log_kafka::{Hooks, KafkaConfig, KafkaLog, OpenErrorKind, Token, Tokens};
use fanfare_test_services::kafka::{self, Secured};
use rdkafka::consumer::Consumer as _;
use tokio::sync::OnceCell;

use crate::{admin, world};

const TOKEN_LIFE: Duration = Duration::from_mins(5);

async fn broker() -> &'static Secured {
    static BROKER: OnceCell<Secured> = OnceCell::const_new();
    let start = || async {
        let started = tokio::task::spawn_blocking(kafka::start_secured);
        started.await.expect("not interrupted").expect("a broker")
    };
    BROKER.get_or_init(start).await
}

/// A listener and how one gets in.
#[derive(Clone, Copy, Debug)]
enum Door {
    Tls,
    Mutual,
    Password(SaslMechanism),
    Tokens,
}

impl Door {
    /// The configuration that opens it, for topics of its own.
    async fn config(self) -> KafkaConfig {
        let broker = broker().await;
        let certificates = broker.certificates.clone();
        let (address, certificate, key, sasl) = match self {
            Self::Tls => (&broker.tls, None, None, None),
            Self::Mutual => {
                let (own, key) = (certificates.certificate, certificates.key);
                (&broker.mutual, Some(own), Some(key), None)
            }
            Self::Password(mechanism) => (&broker.passwords, None, None, Some(login(mechanism))),
            Self::Tokens => (&broker.tokens, None, None, Some(token_login())),
        };
        KafkaConfig {
            security: SecurityConfig {
                tls: true,
                ca_file: Some(certificates.authority),
                certificate_file: certificate,
                key_file: key,
                sasl: sasl.map(|of| of(broker)),
            },
            request_timeout_ms: 4_000,
            ..world::config_on(vec![address.clone()])
        }
    }
}

type Login = Box<dyn Fn(&Secured) -> SaslConfig + Send + Sync>;

fn login(mechanism: SaslMechanism) -> Login {
    Box::new(move |broker| SaslConfig {
        mechanism,
        username: Some(kafka::USER.into()),
        password_file: Some(broker.password_file.clone()),
    })
}

fn token_login() -> Login {
    Box::new(|_| SaslConfig {
        mechanism: SaslMechanism::Oauthbearer,
        username: None,
        password_file: None,
    })
}

/// A source of tokens that nobody signed, for `sub`; without one it fails.
struct Unsigned(Option<&'static str>);

impl Tokens for Unsigned {
    fn fresh(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
        let sub = self.0.ok_or("the identity provider is away")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let end = now + TOKEN_LIFE;
        let claims = format!(
            r#"{{"sub":"{sub}","iat":{},"exp":{}}}"#,
            now.as_secs(),
            end.as_secs()
        );
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        Ok(Token {
            value: format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims)),
            principal: sub.to_owned(),
            expire_time_ms: i64::try_from(end.as_millis())?,
        })
    }
}

fn hooks(tokens: Option<&'static str>) -> Hooks {
    Hooks {
        tokens: Some(Arc::new(Unsigned(tokens))),
        ..Hooks::default()
    }
}

/// A log behind a door.
struct Behind {
    config: KafkaConfig,
    log: Arc<KafkaLog>,
}

impl Behind {
    async fn the(door: Door) -> Self {
        let config = door.config().await;
        if matches!(door, Door::Tokens) {
            make_topics(&config).await;
        }
        Self::open(config).await
    }

    async fn open(config: KafkaConfig) -> Self {
        let opened = KafkaLog::open(config.clone(), hooks(Some("fanfare"))).await;
        let log = opened.unwrap_or_else(|error| panic!("{error}"));
        Self {
            config,
            log: Arc::new(log),
        }
    }
}

#[async_trait]
impl Backend for Behind {
    async fn create() -> Self {
        unreachable!("a door is chosen")
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone()
    }

    async fn crash_and_reopen(self) -> Self {
        self.log.close().await;
        Self::open(self.config).await
    }

    async fn lose_lease(&self, _: &Lease) {
        unreachable!("the cases below take no lease away");
    }
}

/// Has an operator make the topics: with tokens Fanfare makes none.
async fn make_topics(config: &KafkaConfig) {
    let plain = KafkaConfig {
        bootstrap_servers: broker().await.cluster.addresses(),
        security: SecurityConfig::default(),
        ..config.clone()
    };
    world::open(&plain).await.close().await;
}

macro_rules! doors {
    ($($name:ident: $door:expr;)+) => { $(
        /// Opens, appends, joins, reads, commits, and does so again; follows without a group.
        #[tokio::test]
        async fn $name() {
            durability::acknowledged_commits_survive_a_crash(Behind::the($door).await).await;
            tailing::a_tail_sees_what_comes(Behind::the($door).await).await;
        }
    )+ };
}

doors! {
    tls_opens: Door::Tls;
    tls_of_both_sides_opens: Door::Mutual;
    plain_opens: Door::Password(SaslMechanism::Plain);
    scram_sha_256_opens: Door::Password(SaslMechanism::ScramSha256);
    scram_sha_512_opens: Door::Password(SaslMechanism::ScramSha512);
    oauthbearer_opens: Door::Tokens;
}

/// What opening is refused with. Nothing was made by then.
async fn refusal(config: &KafkaConfig, hooks: Hooks) -> (OpenErrorKind, String) {
    let opening = KafkaLog::open(config.clone(), hooks);
    let Err(error) = within("a refusal", opening).await else {
        panic!("it was opened");
    };
    let said = error.to_string();
    assert!(!said.contains('\n'), "more than one line: {said}");
    assert!(!said.contains(kafka::PASSWORD), "the password: {said}");
    assert!(topics_of(config).await.is_empty(), "topics were made");
    (error.kind(), said)
}

/// The topics of a configuration, as the plain listener shows them.
async fn topics_of(config: &KafkaConfig) -> Vec<String> {
    let plain = world::config_on(broker().await.cluster.addresses());
    let prefix = config.topic_prefix.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let client = admin::asking(&plain);
        let all = client.fetch_metadata(None, Duration::from_secs(10));
        let all = all.expect("metadata");
        let names = all.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    });
    asked.await.expect("not interrupted")
}

#[tokio::test]
async fn a_wrong_password_is_one_sentence() {
    let wrong = broker().await.password_file.with_file_name("wrong");
    std::fs::write(&wrong, "guess-5170").expect("written");
    for mechanism in [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
    ] {
        let mut config = Door::Password(mechanism).config().await;
        let sasl = config.security.sasl.as_mut().expect("a login");
        sasl.password_file = Some(wrong.clone());
        let (kind, said) = refusal(&config, Hooks::default()).await;
        assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
        assert!(
            said.contains("check mechanism, username and password_file"),
            "{said}"
        );
        assert!(!said.contains("guess-5170"), "{said}");
    }
}

#[tokio::test]
async fn a_user_that_is_not_known_is_one_sentence() {
    let mut config = Door::Password(SaslMechanism::ScramSha512).config().await;
    let sasl = config.security.sasl.as_mut().expect("a login");
    sasl.username = Some("nobody".into());
    let (kind, said) = refusal(&config, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
    assert!(said.contains("username"), "{said}");
}

/// Somebody who is known and was allowed nothing yet.
#[tokio::test]
async fn a_user_that_may_do_nothing_is_one_sentence() {
    let mut config = Door::Password(SaslMechanism::Plain).config().await;
    let sasl = config.security.sasl.as_mut().expect("a login");
    sasl.username = Some(kafka::GUEST.into());
    let (kind, said) = refusal(&config, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Unavailable, "{said}");
    assert!(said.contains("allow its user"), "{said}");
}

#[tokio::test]
async fn a_mechanism_that_the_listener_does_not_have_is_one_sentence() {
    let mut config = Door::Password(SaslMechanism::ScramSha256).config().await;
    config.bootstrap_servers = vec![broker().await.tokens.clone()];
    let (kind, said) = refusal(&config, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
    assert!(
        said.contains("check mechanism") && said.contains("OAUTHBEARER"),
        "{said}"
    );
}

#[tokio::test]
async fn an_authority_that_signed_nothing_is_one_sentence() {
    let mut config = Door::Password(SaslMechanism::ScramSha512).config().await;
    config.security.ca_file = Some(broker().await.certificates.stranger.clone());
    let (kind, said) = refusal(&config, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
    assert!(said.contains("check ca_file"), "{said}");
}

#[tokio::test]
async fn files_that_are_not_there_are_one_sentence() {
    let mut config = Door::Password(SaslMechanism::ScramSha512).config().await;
    config.security.ca_file = Some("/no/such/authority.pem".into());
    let (kind, said) = refusal(&config, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
    assert!(said.contains("ssl.ca.location"), "{said}");

    let mut config = Door::Password(SaslMechanism::ScramSha512).config().await;
    let sasl = config.security.sasl.as_mut().expect("a login");
    sasl.password_file = Some("/no/such/password".into());
    let (kind, said) = refusal(&config, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
    assert!(said.contains("/no/such/password"), "{said}");
}

#[tokio::test]
async fn no_certificate_where_one_is_wanted_is_one_sentence() {
    let mut config = Door::Mutual.config().await;
    config.security.certificate_file = None;
    config.security.key_file = None;
    let (_, said) = refusal(&config, Hooks::default()).await;
    assert!(said.contains("certificate_file and key_file"), "{said}");
}

/// A listener that hangs up may as well be one that restarts, so these are not for ever.
#[tokio::test]
async fn the_wrong_protocol_is_one_sentence() {
    let doors = [Door::Tls, Door::Password(SaslMechanism::ScramSha512)];
    let plain = broker().await.cluster.addresses();
    for door in doors {
        let mut no_tls = door.config().await;
        no_tls.security.tls = false;
        let mut no_listener = door.config().await;
        no_listener.bootstrap_servers.clone_from(&plain);
        for config in [no_tls, no_listener] {
            let (kind, said) = refusal(&config, Hooks::default()).await;
            assert_eq!(kind, OpenErrorKind::Unavailable, "{said}");
            assert!(said.contains("security.tls and security.sasl"), "{said}");
        }
    }
    let mut no_login = Door::Password(SaslMechanism::Plain).config().await;
    no_login.security.sasl = None;
    let (kind, said) = refusal(&no_login, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Unavailable, "{said}");
    assert!(said.contains("security.tls and security.sasl"), "{said}");
}

#[tokio::test]
async fn tokens_that_cannot_be_had_or_are_refused_are_one_sentence() {
    let config = Door::Tokens.config().await;
    let (kind, said) = refusal(&config, Hooks::default()).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
    assert!(said.contains("no source of tokens"), "{said}");

    // It may be back.
    let (kind, said) = refusal(&config, hooks(None)).await;
    assert_eq!(kind, OpenErrorKind::Unavailable, "{said}");
    assert!(said.contains("the identity provider is away"), "{said}");

    // The broker wants somebody.
    let (kind, said) = refusal(&config, hooks(Some(""))).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");

    let (kind, said) = refusal(&config, hooks(Some("fanfare"))).await;
    assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
    assert!(said.contains("create it with 4 partitions"), "{said}");
}
