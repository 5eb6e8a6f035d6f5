//! Topics: created as they must be, checked, and refused without being touched.

use async_trait::async_trait;
use fanfare_domain::Shard;
use fanfare_event_log::conformance::fixtures::{Consumer, append, eventually, spread, texts};
use fanfare_event_log::{EventLog, Stream};
use fanfare_event_log_kafka::agreement::{AgreementError, Partitions};
use fanfare_event_log_kafka::config::Dedicated;
use fanfare_event_log_kafka::{Agreement, Hooks, KafkaConfig, KafkaLog, OpenErrorKind};
use rdkafka::ClientConfig;
use rdkafka::admin::{AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::consumer::Consumer as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::time::Duration;

use crate::{admin, world};

const TIMEOUT: Duration = Duration::from_secs(10);

async fn refusal(config: &KafkaConfig) -> (OpenErrorKind, String) {
    match KafkaLog::open(config.clone(), Hooks::default()).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => (error.kind(), error.to_string()),
    }
}

/// What a topic's settings are, by name.
async fn setting(config: &KafkaConfig, topic: &str, key: &str) -> String {
    let resource = ResourceSpecifier::Topic(topic);
    let admin = admin::admin(config);
    let described = admin.describe_configs([&resource], &admin::options()).await;
    let mut described = described.expect("described");
    let resource = described.remove(0).expect("a topic");
    let entry = resource.get(key).expect("a setting");
    entry.value.clone().unwrap_or_default()
}

async fn set(config: &KafkaConfig, topic: &str, key: &str, value: &str) {
    let alter = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
    let admin = admin::admin(config);
    let altered = admin.alter_configs([&alter], &admin::options()).await;
    altered.expect("asked").remove(0).expect("altered");
    // Answered once it is written, visible a little later.
    while setting(config, topic, key).await != value {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn topics_are_made_with_what_promises_rest_on() {
    let config = KafkaConfig {
        event_topics: 2,
        dedicated_topics: vec![Dedicated {
            subject: "order".into(),
            number: 3,
        }],
        ..world::config().await
    };
    let log = world::open(&config).await;
    let names: Vec<_> = log
        .layout()
        .topics()
        .iter()
        .map(|t| t.name.clone())
        .collect();
    assert_eq!(names.len(), 4);
    for name in &names {
        assert_eq!(setting(&config, name, "cleanup.policy").await, "delete");
        assert_eq!(
            setting(&config, name, "message.timestamp.type").await,
            "LogAppendTime"
        );
        assert_eq!(
            setting(&config, name, "unclean.leader.election.enable").await,
            "false"
        );
    }
    let retention = setting(&config, &names[0], "retention.ms").await;
    assert_eq!(retention, (14 * 24 * 3_600_000u64).to_string());
    // A second program finds them right.
    world::open(&config).await;
}

#[tokio::test]
async fn a_topic_with_wrong_settings_is_refused_and_left_alone() {
    let config = world::config().await;
    let topic = format!("{}.deliveries", config.topic_prefix);
    drop(world::open(&config).await);
    for (key, wrong) in [("retention.ms", "60000"), ("cleanup.policy", "compact")] {
        set(&config, &topic, key, wrong).await;
        let (kind, said) = refusal(&config).await;
        assert_eq!(kind, OpenErrorKind::Configuration, "{said}");
        for wanted in [&topic, key, wrong, "alter the topic"] {
            assert!(said.contains(wanted), "{said:?} does not say {wanted}");
        }
        assert_eq!(setting(&config, &topic, key).await, wrong, "it was changed");
    }
}

#[tokio::test]
async fn two_configurations_that_disagree_on_partitions_are_refused() {
    let config = world::config().await;
    let log = world::open(&config).await;
    append(&log, spread("r", 40)).await;
    let more = KafkaConfig {
        event_partitions: 8,
        ..config.clone()
    };
    let (kind, said) = refusal(&more).await;
    assert_eq!(kind, OpenErrorKind::Configuration);
    assert!(said.contains("set event_partitions to 4"), "{said}");

    let fewer = KafkaConfig {
        event_partitions: 2,
        ..config.clone()
    };
    let (kind, said) = refusal(&fewer).await;
    assert_eq!(kind, OpenErrorKind::Configuration);
    assert!(said.contains("event_partitions"), "{said}");
}

#[tokio::test]
async fn a_refusal_creates_nothing() {
    let config = world::config().await;
    drop(world::open(&config).await);
    let events = format!("{}.events.0", config.topic_prefix);
    set(&config, &events, "retention.ms", "60000").await;
    let grown = KafkaConfig {
        event_topics: 2,
        ..config.clone()
    };
    refusal(&grown).await;
    let new = format!("{}.events.1", config.topic_prefix);
    assert!(!is_there(&config, new).await, "a topic was created");
}

async fn is_there(config: &KafkaConfig, topic: String) -> bool {
    let config = config.clone();
    let found = tokio::task::spawn_blocking(move || {
        let client = admin::asking(&config);
        let metadata = client
            .fetch_metadata(Some(&topic), TIMEOUT)
            .expect("metadata");
        metadata.topics()[0].error().is_none()
    });
    found.await.expect("not interrupted")
}

/// Other programs are configured so, or it cannot be found out.
struct Agreed(Result<&'static [(&'static str, u16)], &'static str>);

#[async_trait]
impl Agreement for Agreed {
    async fn agree(&self, prefix: &str, own: &Partitions) -> Result<Partitions, AgreementError> {
        let theirs = self.0?.iter();
        let mut agreed = own.clone();
        agreed.extend(theirs.map(|(topic, count)| (format!("{prefix}.{topic}"), *count)));
        Ok(agreed)
    }
}

#[tokio::test]
async fn what_other_programs_agreed_on_is_adhered_to_and_a_refusal_creates_nothing() {
    use OpenErrorKind::{Configuration, Unavailable};
    let config = world::config().await;
    let cases: [(_, _, &[&str]); 3] = [
        (
            Ok([("deliveries", 16)].as_slice()),
            Configuration,
            &["use 16", "says 2", "set delivery_partitions to 16"],
        ),
        (
            Ok([("events-of.order", 4)].as_slice()),
            Configuration,
            &[".events-of.order", "set event_topics and dedicated_topics"],
        ),
        (Err("no answer"), Unavailable, &["no answer"]),
    ];
    for (theirs, kind, wanted) in cases {
        let hooks = Hooks {
            agreement: Arc::new(Agreed(theirs)),
            ..Hooks::default()
        };
        let Err(error) = KafkaLog::open(config.clone(), hooks).await else {
            panic!("{theirs:?}: it was opened");
        };
        assert_eq!(error.kind(), kind, "{error}");
        let said = error.to_string();
        assert!(wanted.iter().all(|wanted| said.contains(wanted)), "{said}");
    }
    let topic = format!("{}.deliveries", config.topic_prefix);
    assert!(!is_there(&config, topic).await, "a topic was created");
}

#[tokio::test]
async fn more_replicas_than_brokers_is_one_sentence() {
    let config = KafkaConfig {
        replication_factor: 3,
        ..world::config().await
    };
    let (kind, said) = refusal(&config).await;
    assert_eq!(kind, OpenErrorKind::Configuration);
    assert!(said.contains("set replication_factor"), "{said}");
}

#[tokio::test]
async fn brokers_that_are_not_there_are_one_sentence() {
    let config = KafkaConfig {
        // Reserved, and nobody listens.
        bootstrap_servers: vec!["127.0.0.1:1".into()],
        request_timeout_ms: 500,
        ..KafkaConfig::default()
    };
    let (kind, said) = refusal(&config).await;
    assert_eq!(kind, OpenErrorKind::Unavailable);
    assert!(said.contains("check bootstrap_servers"), "{said}");
}

#[tokio::test]
async fn a_setting_that_the_client_does_not_know_is_one_sentence() {
    let mut config = world::config().await;
    config
        .librdkafka
        .insert("no.such.setting".into(), "1".into());
    let (kind, said) = refusal(&config).await;
    assert_eq!(kind, OpenErrorKind::Configuration);
    assert!(said.contains("no.such.setting"), "{said}");
}

/// Partitions that somebody adds are given to members like all others, and disturb nothing.
#[tokio::test]
async fn partitions_added_while_running_stay_unused() {
    let mut config = world::config().await;
    let refresh = "topic.metadata.refresh.interval.ms";
    config.librdkafka.insert(refresh.into(), "200".into());
    let log: Arc<KafkaLog> = Arc::new(world::open(&config).await);
    let seam: Arc<dyn EventLog> = log.clone();
    let consumer = Consumer::of_events(&seam).await;
    append(&*seam, spread("before", 20)).await;
    consumer
        .sees(&texts(spread("before", 20).iter().map(|r| &r.bytes)))
        .await;

    let topic = log.layout().topics()[0].name.to_string();
    let admin = admin::admin(&config);
    let added = admin
        .create_partitions([&NewPartitions::new(&topic, 8)], &admin::options())
        .await;
    added.expect("asked").remove(0).expect("added");
    let group = log.consumer_group(Stream::Events, &fanfare_event_log::Group::new("router"));
    let (asked, of) = (config.clone(), topic.clone());
    let taken = tokio::task::spawn_blocking(move || {
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        while !admin::is_assigned(&asked, &group, &of, 7) {
            assert!(std::time::Instant::now() < deadline, "never rebalanced");
        }
    });
    taken.await.expect("the group takes them up");

    append(&*seam, spread("after", 20)).await;
    consumer
        .sees(&texts(spread("after", 20).iter().map(|r| &r.bytes)))
        .await;
    assert_eq!(consumer.seen().len(), 40, "repeated or foreign");
    assert_eq!(seam.spans(Stream::Events).len(), 4);
    eventually("every span is held", || {
        let held = consumer.held().len();
        (held == 4).then_some(()).ok_or(format!("{held} held"))
    })
    .await;
    consumer.leave().await;

    // Empty ones are no reason to refuse; records in them are.
    world::open(&config).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", config.bootstrap_servers.join(","))
        .create()
        .expect("a producer");
    let foreign = BaseRecord::<(), str>::to(&topic)
        .partition(6)
        .payload("foreign");
    producer.send(foreign).expect("queued");
    producer.flush(TIMEOUT).expect("written");
    let (_, said) = refusal(&config).await;
    assert!(
        said.contains("another program is configured otherwise"),
        "{said}"
    );
}

/// The topic decides first, then the shard.
#[tokio::test]
async fn a_dedicated_subject_lies_apart_and_is_read_with_the_rest() {
    let config = KafkaConfig {
        dedicated_topics: vec![Dedicated {
            subject: "invoice".into(),
            number: 0,
        }],
        ..world::config().await
    };
    let log: Arc<dyn EventLog> = Arc::new(world::open(&config).await);
    let shared = log.span_of(Stream::Events, Shard(5), "order");
    let apart = log.span_of(Stream::Events, Shard(5), "invoice");
    assert_ne!(shared.index, apart.index);
    assert_eq!(shared.shards, apart.shards);
    let mut batch = spread("order", 4);
    batch.extend(spread("invoice", 4).into_iter().map(|mut record| {
        record.subject = "invoice".into();
        record
    }));
    let wanted = texts(batch.iter().map(|r| &r.bytes));
    append(&*log, batch).await;
    let consumer = Consumer::of_events(&log).await;
    consumer.sees(&wanted).await;
}
