//! Records of a span stay in order; positions only rise.

use std::collections::BTreeMap;

use fanfare_domain::{Position, Shard};

use super::Backend;
use super::fixtures::{
    Consumer, Member, append, append_to, bytes_of, read, read_shard, record, router, spread, texts,
};
use crate::log::{Stream, Visibility};

/// Each shard lies in the span that says so, and spans have rising indexes.
pub async fn every_shard_has_its_span<B: Backend>(backend: B) {
    let log = backend.log();
    for stream in [Stream::Events, Stream::Deliveries] {
        let spans = log.spans(stream);
        assert!(spans.windows(2).all(|w| w[0].index < w[1].index));
        for shard in (0..=255).map(Shard) {
            for subject in ["order", "invoice", ""] {
                let span = log.span_of(stream, shard, subject);
                assert!(span.shards.contains(shard), "{shard:?} in {span:?}");
                assert!(spans.contains(&span), "{span:?}");
            }
        }
    }
}

/// Within a span, and positions are answered in the order of the batch.
pub async fn a_batch_keeps_its_order<B: Backend>(backend: B) {
    let log = backend.log();
    let batch = spread("r", 60);
    let positions = append(&*log, batch.clone()).await;
    let mut by_span: BTreeMap<u16, Vec<(Position, String)>> = BTreeMap::new();
    for (record, position) in batch.iter().zip(positions) {
        let span = log.span_of(Stream::Events, record.shard, &record.subject);
        let text = texts([&record.bytes]).remove(0);
        by_span
            .entry(span.index)
            .or_default()
            .push((position, text));
    }
    let mut member = Member::of_events(&log).await;
    for mut granted in member.every_span(&*log, Stream::Events).await {
        let wanted = by_span
            .remove(&granted.lease.span.index)
            .unwrap_or_default();
        let entries = read(&mut granted, wanted.len()).await;
        let found: Vec<_> = entries
            .iter()
            .map(|e| (e.position, texts([&e.bytes]).remove(0)))
            .collect();
        assert_eq!(found, wanted);
        assert!(found.windows(2).all(|w| w[0].0 < w[1].0), "positions rise");
    }
}

/// A call made after another resolved gets higher positions.
pub async fn later_calls_come_later<B: Backend>(backend: B) {
    let log = backend.log();
    let mut last = None;
    for n in 0..10 {
        let positions = append(&*log, vec![record(5, format!("r{n}"))]).await;
        assert!(last.is_none_or(|last| last < positions[0]));
        last = positions.last().copied();
    }
    let entries = read_shard(&log, 5, 10).await;
    let wanted: Vec<_> = (0..10).map(|n| format!("r{n}")).collect();
    assert_eq!(texts(bytes_of(&entries)), wanted);
}

/// Many producers at once: each one's records keep its order, and none is lost or doubled.
pub async fn concurrent_appends_keep_to_their_own_order<B: Backend>(backend: B) {
    let log = backend.log();
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..8 {
        let log = log.clone();
        producers.spawn(async move {
            for n in 0..10 {
                let text = format!("{producer}-{n}");
                append(&*log, vec![record(6, text)]).await;
            }
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended.unwrap();
    }
    let found = texts(bytes_of(&read_shard(&log, 6, 80).await));
    for producer in 0..8 {
        let prefix = format!("{producer}-");
        let own: Vec<_> = found.iter().filter(|t| t.starts_with(&prefix)).collect();
        let wanted: Vec<_> = (0..10).map(|n| format!("{producer}-{n}")).collect();
        assert_eq!(own, wanted.iter().collect::<Vec<_>>());
    }
}

/// What is appended after a crash comes after all that was acknowledged before it.
pub async fn positions_rise_across_a_crash<B: Backend>(backend: B) {
    let log = backend.log();
    let before = append(&*log, vec![record(7, "a"), record(7, "b")]).await;
    drop(log);
    let backend = backend.crash_and_reopen().await;
    let log = backend.log();
    let after = append(&*log, vec![record(7, "c")]).await;
    assert!(before[1] < after[0], "{before:?} then {after:?}");
    let entries = read_shard(&log, 7, 3).await;
    assert_eq!(texts(bytes_of(&entries)), ["a", "b", "c"]);
}

/// It writes nothing.
pub async fn an_empty_batch_is_fine<B: Backend>(backend: B) {
    let log = backend.log();
    assert_eq!(append(&*log, Vec::new()).await, []);
    append(&*log, vec![record(0, "only")]).await;
    assert_eq!(append(&*log, Vec::new()).await, []);
    let entries = read_shard(&log, 0, 1).await;
    assert_eq!(texts(bytes_of(&entries)), ["only"]);
}

/// What is appended to one stream is not read from the other.
pub async fn streams_are_apart<B: Backend>(backend: B) {
    let log = backend.log();
    append_to(&*log, Stream::Events, spread("event", 20)).await;
    append_to(&*log, Stream::Deliveries, spread("delivery", 20)).await;
    for (stream, prefix) in [(Stream::Events, "event"), (Stream::Deliveries, "delivery")] {
        let how = (stream, &router(), Visibility::Durable);
        let seen = std::sync::Arc::default();
        let consumer = Consumer::start(&log, how, &seen).await;
        let wanted: Vec<_> = (0..20).map(|n| format!("{prefix}-{n}")).collect();
        consumer.sees(&wanted).await;
        assert_eq!(consumer.seen().len(), 20);
    }
}
