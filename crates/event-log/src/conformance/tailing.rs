//! A tail follows a stream live, bounded, and in nobody's way.

use super::Backend;
use super::fixtures::{
    AMPLE, Consumer, append, available, eventually, read_shard, record, spread, texts, within,
};
use crate::log::{EventLog, ReadLimit, Stream, Tail};

async fn tail(log: &dyn EventLog) -> Box<dyn Tail> {
    available("tail", || log.tail(Stream::Events)).await
}

/// From now on, every record with its place; nothing from before.
pub async fn a_tail_sees_what_comes<B: Backend>(backend: B) {
    let log = backend.log();
    append(&*log, vec![record(1, "before")]).await;
    let mut tail = tail(&*log).await;
    let mut places = Vec::new();
    for n in 0..5 {
        let position = append(&*log, vec![record(1, format!("r{n}"))]).await[0];
        let tailed = within("the tail", tail.next(AMPLE)).await.unwrap();
        assert_eq!(tailed.skipped, 0);
        let found = texts(tailed.entries.iter().map(|(_, bytes)| bytes));
        assert_eq!(found, [format!("r{n}")]);
        places.push((tailed.entries[0].0, position));
    }
    let span = log.span_of(Stream::Events, fanfare_domain::Shard(1), "order");
    for (place, position) in places {
        assert_eq!((place.span, place.position), (span.index, position));
    }
}

/// Several reads bring everything, each within its bounds.
pub async fn a_tail_keeps_to_its_limit<B: Backend>(backend: B) {
    let log = backend.log();
    let mut tail = tail(&*log).await;
    append(&*log, spread("r", 40)).await;
    let limit = ReadLimit {
        records: 7,
        bytes: 1 << 20,
    };
    let mut found = Vec::new();
    let mut skipped = 0;
    while found.len() + skipped < 40 {
        let tailed = within("the tail", tail.next(limit)).await.unwrap();
        assert!((1..=limit.records).contains(&tailed.entries.len()));
        found.extend(texts(tailed.entries.iter().map(|(_, bytes)| bytes)));
        skipped += usize::try_from(tailed.skipped).unwrap();
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len() + skipped, 40, "a record came twice");
}

/// What overtook it is counted: seen and skipped together are all there were.
pub async fn a_slow_tail_counts_what_it_missed<B: Backend>(backend: B) {
    let log = backend.log();
    let mut tail = tail(&*log).await;
    let consumer = Consumer::of_events(&log).await;
    for batch in 0..10 {
        append(&*log, spread(&format!("b{batch}"), 50)).await;
    }
    eventually("the group is through", || {
        let seen = consumer.seen().len();
        (seen == 500).then_some(()).ok_or(format!("{seen} of 500"))
    })
    .await;
    // With nobody to settle it, the last one stays to be seen.
    consumer.leave().await;
    append(&*log, vec![record(1, "end")]).await;
    let mut count = 0;
    while count < 501 {
        let tailed = within("the tail", tail.next(AMPLE)).await.unwrap();
        count += tailed.entries.len() + usize::try_from(tailed.skipped).unwrap();
    }
    assert_eq!(count, 501);
}

/// Nothing that a tail reads is settled by it.
pub async fn a_tail_disturbs_nobody<B: Backend>(backend: B) {
    let log = backend.log();
    let mut first = tail(&*log).await;
    let mut second = tail(&*log).await;
    append(&*log, vec![record(1, "a")]).await;
    for tail in [&mut first, &mut second] {
        let tailed = within("the tail", tail.next(AMPLE)).await.unwrap();
        assert_eq!(tailed.entries.len(), 1);
    }
    read_shard(&log, 1, 1).await;
}
