//! Error paths that a real broker does not take on demand, against the client's own mock brokers.

use std::time::Instant;

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

const TOPIC: &str = "t";

fn config(servers: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: vec![servers.to_owned()],
        publish_timeout_ms: 3_000,
        request_timeout_ms: 2_000,
        ..KafkaConfig::default()
    }
}

fn producer_with(config: &KafkaConfig) -> Producer {
    Producer::new(config, Stream::Events, Common::default()).expect("a producer")
}

fn record(text: &'static str) -> Routed {
    Routed {
        seat: Seat {
            topic: TOPIC.into(),
            partition: 0,
        },
        bytes: Bytes::from_static(text.as_bytes()),
    }
}

#[tokio::test]
async fn a_fatal_error_is_indeterminate_and_the_producer_is_replaced() {
    let brokers = MockCluster::new(1).expect("mock brokers");
    brokers.create_topic(TOPIC, 1, 1).expect("a topic");
    let producer = producer_with(&config(&brokers.bootstrap_servers()));
    let first = producer.append(vec![record("a")]).await.expect("appended");

    // The client takes it for a lost record of its own sequence, which is fatal.
    let gap = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    brokers.request_errors(RDKafkaApiKey::Produce, &[gap]);
    let lost = producer.append(vec![record("b")]).await;
    assert_eq!(
        lost.expect_err("not acknowledged").kind(),
        LogErrorKind::Unknown
    );

    let next = producer.append(vec![record("c")]).await.expect("appended");
    assert!(next[0] > first[0], "{next:?} after {first:?}");
}

#[tokio::test]
async fn with_all_brokers_down_appends_are_refused_before_they_are_tried() {
    let brokers = MockCluster::new(1).expect("mock brokers");
    brokers.create_topic(TOPIC, 1, 1).expect("a topic");
    let producer = producer_with(&config(&brokers.bootstrap_servers()));
    producer.append(vec![record("a")]).await.expect("appended");

    brokers.broker_down(1).expect("down");
    // One that is already on its way is indeterminate; then it is known that nobody answers.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match producer
            .append(vec![record("b")])
            .await
            .map_err(|e| e.kind())
        {
            Err(LogErrorKind::Unavailable) => break,
            Err(LogErrorKind::Unknown) => assert!(Instant::now() < deadline, "never refused"),
            other => panic!("{other:?} from brokers that are down"),
        }
    }
    brokers.broker_up(1).expect("up");
    while let Err(error) = producer.append(vec![record("c")]).await {
        assert!(Instant::now() < deadline, "never back: {error}");
    }
}

#[tokio::test]
async fn a_batch_that_can_never_fit_is_refused() {
    let brokers = MockCluster::new(1).expect("mock brokers");
    let config = KafkaConfig {
        append_queue_max_records: 2,
        ..config(&brokers.bootstrap_servers())
    };
    let producer = producer_with(&config);
    let batch = ["a", "b", "c"].map(record).into();
    let refused = producer.append(batch).await.expect_err("refused");
    assert_eq!(refused.kind(), LogErrorKind::TooLarge);
}

#[tokio::test]
async fn a_full_queue_refuses_within_the_publish_deadline() {
    let brokers = MockCluster::new(1).expect("mock brokers");
    brokers.create_topic(TOPIC, 1, 1).expect("a topic");
    let config = KafkaConfig {
        append_queue_max_records: 1,
        publish_timeout_ms: 300,
        ..config(&brokers.bootstrap_servers())
    };
    brokers
        .broker_round_trip_time(1, Duration::from_secs(5))
        .expect("slow");
    let producer = Arc::new(producer_with(&config));
    let slow = tokio::spawn({
        let producer = producer.clone();
        async move {
            producer
                .append(vec![record("a")])
                .await
                .map_err(|e| e.kind())
        }
    });
    while producer.records.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    // Its room comes back with the report of the one before, at the latest.
    let second = producer
        .append(vec![record("b")])
        .await
        .map_err(|e| e.kind());
    assert!(
        matches!(
            second,
            Err(LogErrorKind::Unavailable | LogErrorKind::Unknown)
        ),
        "{second:?}"
    );
    assert_eq!(slow.await.expect("ended"), Err(LogErrorKind::Unknown));
}

#[tokio::test]
async fn closing_writes_what_was_handed_over() {
    let brokers = MockCluster::new(1).expect("mock brokers");
    brokers.create_topic(TOPIC, 1, 1).expect("a topic");
    let config = KafkaConfig {
        linger_ms: 500,
        ..config(&brokers.bootstrap_servers())
    };
    let producer = producer_with(&config);
    let append = producer.append(vec![record("a")]);
    let close = async {
        // Admitted and handed over, and still waiting for company.
        while producer.records.available_permits() == producer.records_max {
            tokio::task::yield_now().await;
        }
        producer.close();
    };
    let (appended, ()) = tokio::join!(append, close);
    appended.expect("flushed before the client was dropped");
    let refused = producer
        .append(vec![record("b")])
        .await
        .expect_err("closed");
    assert_eq!(refused.kind(), LogErrorKind::Closed);
}

#[tokio::test]
async fn a_client_that_lost_sight_of_brokers_that_are_there_is_replaced() {
    let lost = MockCluster::new(1).expect("mock brokers");
    lost.create_topic(TOPIC, 1, 1).expect("a topic");
    let mut producer = producer_with(&config(&lost.bootstrap_servers()));
    producer.append(vec![record("a")]).await.expect("appended");
    // From here on that client sees nobody, and no other that is asked the same way does.
    drop(lost);
    let refused = appended(&producer, Duration::from_secs(8)).await;
    assert!(!refused, "by brokers that are gone");

    // Others see some now.
    let there = MockCluster::new(1).expect("mock brokers");
    there.create_topic(TOPIC, 1, 1).expect("a topic");
    let others = config(&there.bootstrap_servers());
    producer.lookout = Lookout::new(&others, &Common::default()).expect("a lookout");
    producer.properties = others.producer(Stream::Events).expect("properties");
    assert!(appended(&producer, Duration::from_secs(30)).await);
}

/// Whether a record is taken within `patience`.
async fn appended(producer: &Producer, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if producer.append(vec![record("x")]).await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
