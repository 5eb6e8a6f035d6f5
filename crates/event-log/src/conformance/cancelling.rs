//! Every method may be dropped at any await point.

use std::collections::BTreeMap;

use fanfare_domain::Position;

use super::Backend;
use super::fixtures::{
    AMPLE, Member, append, available, bytes_of, cancelled_after, commit, read, read_shard,
    read_some, record, router, texts, within,
};
use crate::log::{Stream, Visibility};
use crate::progress::Progress;

/// Dropped after any number of polls; every record still comes once, in order.
pub async fn a_cancelled_read_loses_nothing<B: Backend>(backend: B) {
    let log = backend.log();
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 1).await;
    let mut found = Vec::new();
    for n in 0..30 {
        append(&*log, vec![record(1, format!("r{n}"))]).await;
        let read = cancelled_after(n % 6, granted.records.read(AMPLE)).await;
        let entries = read.transpose().unwrap().unwrap_or_default();
        found.extend(texts(bytes_of(&entries)));
    }
    while found.len() < 30 {
        found.extend(texts(bytes_of(&read_some(&mut granted).await)));
    }
    let wanted: Vec<_> = (0..30).map(|n| format!("r{n}")).collect();
    assert_eq!(found, wanted);
}

/// A lease that a dropped `next` had on its way still comes.
pub async fn a_cancelled_wait_for_a_lease_loses_nothing<B: Backend>(backend: B) {
    let log = backend.log();
    let group = router();
    let join = || log.join(Stream::Events, &group, Visibility::Durable);
    let mut reader = available("join", join).await;
    let mut granted = BTreeMap::new();
    let spans = log.spans(Stream::Events);
    let all = async {
        for polls in (0..).map(|n| n % 7) {
            if let Some(next) = cancelled_after(polls, reader.next()).await {
                let next = next.unwrap();
                granted.insert(next.lease.span.index, next);
            }
            if granted.len() == spans.len() {
                return;
            }
        }
    };
    within("a lease for every span", all).await;
    append(&*log, vec![record(1, "a")]).await;
    let span = log.span_of(Stream::Events, fanfare_domain::Shard(1), "order");
    let of_shard = granted.get_mut(&span.index).unwrap();
    assert_eq!(texts(bytes_of(&read(of_shard, 1).await)), ["a"]);
}

/// A dropped append is written once or not at all, and disturbs no other.
pub async fn a_cancelled_append_is_whole_or_absent<B: Backend>(backend: B) {
    let log = backend.log();
    let mut acknowledged = Vec::new();
    for n in 0..30 {
        let batch = (0..3).map(|part| record(1, format!("{n:02}-{part}")));
        let batch = batch.collect();
        if let Some(answer) = cancelled_after(n % 5, log.append(Stream::Events, batch)).await {
            answer.unwrap();
            acknowledged.extend((0..3).map(|part| format!("{n:02}-{part}")));
        }
    }
    append(&*log, vec![record(1, "end")]).await;
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 1).await;
    let mut found = Vec::new();
    while found.last().is_none_or(|last| last != "end") {
        found.extend(texts(bytes_of(&read_some(&mut granted).await)));
    }
    found.pop();
    let mut once = found.clone();
    once.sort();
    once.dedup();
    assert_eq!(once, found, "doubled or out of order");
    let missing = acknowledged.iter().find(|a| !found.contains(a));
    assert_eq!(missing, None, "acknowledged and not there");
    for n in 0..30 {
        let prefix = format!("{n:02}-");
        let parts = found.iter().filter(|t| t.starts_with(&prefix)).count();
        assert!([0, 3].contains(&parts), "{parts} of 3 parts of {n}");
    }
}

/// A dropped commit counts or does not; the next one is taken.
pub async fn a_cancelled_commit_may_be_repeated<B: Backend>(backend: B) {
    let log = backend.log();
    let batch = (0..8).map(|n| record(1, format!("r{n}"))).collect();
    let positions = append(&*log, batch).await;
    let up_to = |n: usize| Progress {
        ceiling: Position(positions[n].0 + 1),
        unsettled: Vec::new(),
    };
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 1).await;
    read(&mut granted, 8).await;
    for n in 0..7 {
        cancelled_after(n, log.commit(&granted.lease, &up_to(n))).await;
    }
    commit(&*log, &granted, &up_to(6)).await;
    drop((granted, member));
    let entries = read_shard(&log, 1, 1).await;
    assert_eq!(texts(bytes_of(&entries)), ["r7"]);
}
