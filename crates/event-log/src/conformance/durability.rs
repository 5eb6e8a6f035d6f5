//! What was acknowledged is there after a crash.

use std::collections::BTreeSet;
use std::sync::Arc;

use fanfare_domain::Position;

use super::Backend;
use super::fixtures::{
    AMPLE, Consumer, Member, append, bytes_of, cancelled_after, commit, read, read_some, record,
    router, spread, texts, within,
};
use crate::log::{EventLog, Stream, Visibility};
use crate::progress::{Progress, Tracker, Unsettled};

/// Every record of every acknowledged batch, byte for byte, at its position.
pub async fn acknowledged_records_survive_a_crash<B: Backend>(backend: B) {
    let log = backend.log();
    let mut acknowledged = Vec::new();
    for batch in 0..5 {
        let records = spread(&format!("batch-{batch}"), 20);
        acknowledged.extend(texts(records.iter().map(|r| &r.bytes)));
        append(&*log, records).await;
    }
    let positions = append(&*log, vec![record(9, "last")]).await;
    drop(log);
    let backend = backend.crash_and_reopen().await;
    let consumer = Consumer::of_events(&backend.log()).await;
    acknowledged.push("last".into());
    consumer.sees(&acknowledged).await;
    let seen = consumer.seen();
    let last = seen.iter().find(|s| s.text == "last").unwrap();
    assert_eq!(last.position, positions[0]);
    assert_eq!(seen.len(), acknowledged.len(), "and nothing else");
}

/// What was committed last is what is granted.
pub async fn acknowledged_commits_survive_a_crash<B: Backend>(backend: B) {
    let log = backend.log();
    let batch = (0..4).map(|n| record(1, format!("r{n}"))).collect();
    let positions = append(&*log, batch).await;
    let progress = Progress {
        ceiling: Position(positions[2].0 + 1),
        unsettled: vec![Unsettled {
            position: positions[1],
            open: 0b101,
        }],
    };
    {
        let mut member = Member::of_events(&log).await;
        let mut granted = member.next_of(&*log, Stream::Events, 1).await;
        read(&mut granted, 4).await;
        commit(&*log, &granted, &progress).await;
    }
    drop(log);
    let backend = backend.crash_and_reopen().await;
    let log = backend.log();
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(granted.progress, progress);
    let entries = read(&mut granted, 3).await;
    assert_eq!(texts(bytes_of(&entries)), ["r1", "r2", "r3"]);
}

/// A batch whose append nobody waited for: of one span's records, the first so many are there.
pub async fn an_interrupted_batch_leaves_a_prefix<B: Backend>(backend: B) {
    let log = backend.log();
    for polls in 0..4 {
        let batch = (0..10).map(|n| record(2, format!("{polls}-{n}"))).collect();
        cancelled_after(polls, log.append(Stream::Events, batch)).await;
    }
    drop(log);
    let backend = backend.crash_and_reopen().await;
    let log = backend.log();
    append(&*log, vec![record(2, "end")]).await;
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 2).await;
    let mut found: Vec<String> = Vec::new();
    // Not the last, perhaps: what was on its way to a broker when its sender died may come later.
    while !found.iter().any(|text| text == "end") {
        found.extend(texts(bytes_of(&read_some(&mut granted).await)));
    }
    for polls in 0..4 {
        let prefix = format!("{polls}-");
        let of_batch = found.iter().filter(|t| t.starts_with(&prefix));
        for (n, text) in of_batch.enumerate() {
            assert_eq!(*text, format!("{polls}-{n}"), "of {found:?}");
        }
    }
}

/// Crash upon crash, with appends under way in each life.
pub async fn nothing_is_lost_over_many_crashes<B: Backend>(mut backend: B) {
    let mut acknowledged = Vec::new();
    let mut tried = BTreeSet::new();
    for life in 0..4 {
        let log = backend.log();
        for n in 0..5 {
            let records = spread(&format!("life-{life}-{n}"), 8);
            let names = texts(records.iter().map(|r| &r.bytes));
            tried.extend(names.iter().cloned());
            if n % 2 == 0 {
                append(&*log, records).await;
                acknowledged.extend(names);
            } else {
                cancelled_after(n, log.append(Stream::Events, records)).await;
            }
        }
        drop(log);
        backend = backend.crash_and_reopen().await;
    }
    let consumer = Consumer::of_events(&backend.log()).await;
    consumer.sees(&acknowledged).await;
    let seen = consumer.seen();
    assert!(seen.iter().all(|s| tried.contains(&s.text)), "a phantom");
    let once: BTreeSet<_> = seen.iter().map(|s| &s.text).collect();
    assert_eq!(once.len(), seen.len(), "a record was read twice");
}

/// What a `Durable` reader saw before a crash is there after it, acknowledged or not.
pub async fn a_durable_reader_sees_only_what_survives<B: Backend>(backend: B) {
    let log = backend.log();
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 3).await;
    let mut seen = Vec::new();
    for n in 0..40 {
        let append = log.append(Stream::Events, vec![record(3, format!("r{n}"))]);
        // The last one is dropped right after it was handed over.
        cancelled_after((n + 2) % 4, append).await;
        let entries = cancelled_after(3, granted.records.read(AMPLE)).await;
        let entries = entries.transpose().unwrap().unwrap_or_default();
        seen.extend(texts(bytes_of(&entries)));
    }
    drop((member, granted, log));
    let backend = backend.crash_and_reopen().await;
    let log: Arc<dyn EventLog> = backend.log();
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 3).await;
    let mut entries = Vec::new();
    // More may survive: what was durable before the reader was told, or only written.
    while entries.len() < seen.len() {
        let more = read_some(&mut granted).await;
        assert!(!more.is_empty(), "{:?} ended", granted.lease);
        entries.extend(more);
    }
    entries.truncate(seen.len());
    assert_eq!(texts(bytes_of(&entries)), seen);
}

/// An `Ordered` reader may commit what it saw early; if that is lost, so is the commit: nothing
/// that is written afterwards is taken for settled.
pub async fn no_commit_is_ahead_of_what_survives<B: Backend>(backend: B) {
    let log = backend.log();
    let mut member = Member::join(&log, Stream::Events, &router(), Visibility::Ordered).await;
    let mut granted = member.next_of(&*log, Stream::Events, 4).await;
    let mut tracker = Tracker::resume(&granted.progress);
    for n in 0..20 {
        let append = log.append(Stream::Events, vec![record(4, format!("early-{n}"))]);
        cancelled_after(n % 3, append).await;
        let entries = cancelled_after(3, granted.records.read(AMPLE)).await;
        for entry in entries.transpose().unwrap().unwrap_or_default() {
            tracker.take(entry.position, 1);
            tracker.settle(entry.position, 0);
        }
        let progress = tracker.progress();
        let commit = log.commit(&granted.lease, &progress);
        cancelled_after(n % 3, commit).await;
    }
    drop((member, granted, log));
    let backend = backend.crash_and_reopen().await;
    let log: Arc<dyn EventLog> = backend.log();
    append(&*log, vec![record(4, "late-0"), record(4, "late-1")]).await;
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 4).await;
    let mut tracker = Tracker::resume(&granted.progress);
    let mut open = Vec::new();
    within("the late records", async {
        while !open.iter().any(|text| text == "late-1") {
            let entries = read_some(&mut granted).await;
            assert!(!entries.is_empty(), "the late records are gone: {open:?}");
            for entry in entries {
                if tracker.take(entry.position, 1) != 0 {
                    open.extend(texts([&entry.bytes]));
                } else {
                    let text = texts([&entry.bytes]).remove(0);
                    assert!(text.starts_with("early"), "{text} was taken for settled");
                }
            }
        }
    })
    .await;
    assert!(open.iter().any(|text| text == "late-0"));
}
