//! Offsets that are gone, records that are gone, and readers that stand still.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::Position;
use fanfare_event_log::conformance::fixtures::{
    Member, append, bytes_of, commit, eventually, read, read_some, record, texts, within,
};
use fanfare_event_log::{
    EventLog, Granted, Group, Outgoing, Phase, Progress, ReadLimit, Span, Stream,
};
use fanfare_event_log_kafka::checkpoints::CheckpointError;
use fanfare_event_log_kafka::config::Compression;
use fanfare_event_log_kafka::{Checkpoints, Hooks, KafkaConfig, KafkaLog};
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::Offset;

use crate::{admin, world};

/// What the store would know.
#[derive(Default)]
struct Known(Mutex<Vec<Result<Option<Progress>, &'static str>>>);

#[async_trait]
impl Checkpoints for Known {
    /// One answer after the other; the last one stays.
    async fn load(
        &self,
        _: Stream,
        _: &Group,
        _: Span,
    ) -> Result<Option<Progress>, CheckpointError> {
        let mut answers = self.0.lock();
        let answer = if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        };
        answer.map_err(Into::into)
    }
}

fn up_to(position: Position) -> Progress {
    Progress {
        ceiling: Position(position.0 + 1),
        unsettled: Vec::new(),
    }
}

async fn open_with(
    config: &KafkaConfig,
    answers: Vec<Result<Option<Progress>, &'static str>>,
) -> Arc<KafkaLog> {
    let hooks = Hooks {
        checkpoints: Arc::new(Known(Mutex::new(answers))),
        ..Hooks::default()
    };
    let log = KafkaLog::open(config.clone(), hooks).await;
    Arc::new(log.unwrap_or_else(|error| panic!("{error}")))
}

/// A configuration with one partition, so that there is one span.
async fn one_span() -> KafkaConfig {
    KafkaConfig {
        event_partitions: 1,
        ..world::config().await
    }
}

async fn lease(log: &Arc<KafkaLog>) -> (Member, Granted) {
    let log: Arc<dyn EventLog> = log.clone();
    let mut member = Member::of_events(&log).await;
    let granted = member.next_of(&*log, Stream::Events, 0).await;
    (member, granted)
}

/// Everything below `position` of the only partition is gone, as by retention.
async fn delete_below(config: &KafkaConfig, log: &KafkaLog, position: u64) {
    let mut list = TopicPartitionList::new();
    let topic = &log.layout().topics()[0].name;
    let offset = Offset::Offset(i64::try_from(position).expect("small"));
    list.add_partition_offset(topic, 0, offset)
        .expect("an offset");
    let admin = admin::admin(config);
    let deleted = admin.delete_records(&list, &admin::options()).await;
    deleted.expect("deleted");
}

#[tokio::test]
async fn deleted_offsets_are_replaced_by_the_checkpoint() {
    let config = one_span().await;
    let log = open_with(&config, vec![Ok(None)]).await;
    let batch = (0..4).map(|n| record(0, format!("r{n}"))).collect();
    let positions = append(&*log, batch).await;
    let (member, mut granted) = lease(&log).await;
    read(&mut granted, 4).await;
    commit(&*log, &granted, &up_to(positions[3])).await;
    drop(granted);
    member.leave().await;

    let group = log.consumer_group(Stream::Events, &Group::new("router"));
    let admin = admin::admin(&config);
    let deleted = admin.delete_groups(&[&group], &admin::options()).await;
    deleted.expect("asked").remove(0).expect("deleted");
    log.close().await;

    // A store that does not answer holds the span; it is asked again.
    let answers = vec![Err("the store is away"), Ok(Some(up_to(positions[1])))];
    let log = open_with(&config, answers).await;
    let (_member, mut granted) = lease(&log).await;
    assert_eq!(granted.progress, up_to(positions[1]));
    let entries = read(&mut granted, 2).await;
    assert_eq!(texts(bytes_of(&entries)), ["r2", "r3"]);
    assert_eq!(log.records_lost(), 0);
}

#[tokio::test]
async fn records_that_retention_took_unsettled_are_counted() {
    let config = one_span().await;
    let log = open_with(&config, vec![Ok(None)]).await;
    let batch = (0..5).map(|n| record(0, format!("r{n}"))).collect();
    let positions = append(&*log, batch).await;
    let (member, mut granted) = lease(&log).await;
    read(&mut granted, 5).await;
    commit(&*log, &granted, &up_to(positions[0])).await;
    drop(granted);
    member.leave().await;
    delete_below(&config, &log, positions[3].0).await;

    let (_member, mut granted) = lease(&log).await;
    let entries = read(&mut granted, 2).await;
    assert_eq!(texts(bytes_of(&entries)), ["r3", "r4"]);
    eventually("the loss is counted", || {
        let lost = log.records_lost();
        (lost == 2).then_some(()).ok_or(format!("{lost} lost"))
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_retention_overtakes_goes_on_behind_the_gap() {
    let config = KafkaConfig {
        read_ahead_max_bytes: 1024,
        // Or a broker's answer of 1 MB would hold them all.
        compression: Compression::None,
        ..one_span().await
    };
    let log = open_with(&config, vec![Ok(None)]).await;
    let (mut member, mut granted) = lease(&log).await;
    // More than one answer of the broker, which the client takes whatever its bound.
    let large = |n: u8| record(0, vec![n; 400_000]);
    let mut positions = Vec::new();
    for n in 0..12 {
        positions.extend(append(&*log, vec![large(n)]).await);
    }
    let one = ReadLimit {
        records: 1,
        bytes: 1,
    };
    let first = within("a record", granted.records.read(one)).await;
    assert_eq!(first.expect("read")[0].bytes[0], 0);
    delete_below(&config, &log, positions[11].0).await;

    // What was read ahead still comes; then the lease is wanted back.
    while !read_some(&mut granted).await.is_empty() {}
    within("a revoke", granted.lease.reached(Phase::Revoking)).await;
    drop(granted);
    let mut again = within("another lease", member.next())
        .await
        .expect("a lease");
    let entries = within("a record", again.records.read(one)).await;
    assert_eq!(entries.expect("read")[0].position, positions[11]);
    assert!(log.records_lost() > 0);
}

/// A holder that does not read stops its own span, and nothing of it is thrown away.
#[tokio::test]
async fn one_holder_that_stands_still_stops_nobody_else() {
    let config = KafkaConfig {
        event_partitions: 2,
        read_ahead_max_bytes: 1024,
        ..world::config().await
    };
    let log = open_with(&config, vec![Ok(None)]).await;
    let seam: Arc<dyn EventLog> = log.clone();
    let mut member = Member::of_events(&seam).await;
    let mut all = member.every_span(&*seam, Stream::Events).await;
    let mut moving = all.pop().expect("two spans");
    let mut still = all.pop().expect("two spans");
    let of = |shard: u8, n: usize| -> Outgoing { record(shard, vec![b'x'; 100_000 + n]) };
    for n in 0..30 {
        append(&*log, vec![of(0, n), of(1, n)]).await;
    }
    let sizes = |entries: Vec<fanfare_event_log::Entry>| -> Vec<usize> {
        entries.iter().map(|e| e.bytes.len() - 100_000).collect()
    };
    let wanted: Vec<_> = (0..30).collect();
    assert_eq!(sizes(read(&mut moving, 30).await), wanted);
    // Long after, the other begins, and finds everything.
    assert_eq!(sizes(read(&mut still, 30).await), wanted);
}
